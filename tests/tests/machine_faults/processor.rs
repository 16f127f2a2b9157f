//! A processor that comes and goes while the agent runs.
//!
//! The counters are maps with a value for each processor that may ever come (`for_each_possible_cpu`
//! in `bpf_percpu_array_copy()`), so that what one counted stays when it goes.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tests::netns::Netns;

use super::{
    account::{Account, emit},
    scene::Scene,
    verdict,
};

/// The second processor, with which a machine is booted but does not begin.
const SECOND: usize = 1;
const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// Connections made on one processor, and at a time while one goes.
const CONNECTIONS: usize = 100;
const AT_A_TIME: usize = 10;

/// One that was not there when the agent began comes, goes under load, comes and goes again.
pub(super) fn comes_and_goes(scene: &Scene, _: Instant) -> Result<()> {
    ensure!(fs::read_to_string(ONLINE)?.trim() == "0", "it is there");
    let netns = &scene.known.netns;
    let mut account = Account::new(scene);
    switch(true)?;
    account.is_exact(scene, "on one that has come", || {
        on(SECOND, || emit(netns, CONNECTIONS))
    })?;
    account.is_exact(scene, "while it goes, comes and goes", || {
        under_load(netns, || {
            switch(false)?;
            switch(true)?;
            switch(false)
        })
    })?;
    account.is_exact(scene, "after it has gone", || emit(netns, CONNECTIONS))?;
    verdict::goes_on(scene, 4)?;
    switch(true)?;
    account.is_exact(scene, "after it has come back", || {
        on(SECOND, || emit(netns, CONNECTIONS))
    })?;
    verdict::goes_on(scene, 4)?;
    // As it was found.
    switch(false)
}

/// Lets the processor come or go.
fn switch(online: bool) -> Result<()> {
    let word = if online { "1" } else { "0" };
    let began = Instant::now();
    fs::write(ONLINE, word).context("the processor cannot be switched")?;
    ensure!(fs::read_to_string(ONLINE)?.trim() == word);
    eprintln!("online = {word} after {:?}", began.elapsed());
    Ok(())
}

/// Does it on one processor alone; what it starts is there, too.
fn on<T: Send>(processor: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let bound = scope.spawn(move || {
            let mut only = CpuSet::new();
            only.set(processor)?;
            sched_setaffinity(Pid::from_raw(0), &only)?;
            work()
        });
        bound.join().unwrap_or_else(|_| Err(anyhow!("a panic")))
    })
}

/// Does it while each processor makes connections. How many transitions these emitted.
fn under_load(netns: &Netns, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let over = AtomicBool::new(false);
    let goes_on = || {
        let mut emitted = 0;
        while !over.load(Ordering::Relaxed) {
            emitted += emit(netns, AT_A_TIME)?;
        }
        Ok(emitted)
    };
    thread::scope(|scope| {
        let loads = [0, SECOND].map(|processor| scope.spawn(move || on(processor, goes_on)));
        let done = work();
        over.store(true, Ordering::Relaxed);
        let mut emitted = 0;
        for load in loads {
            emitted += load.join().unwrap_or_else(|_| Err(anyhow!("a panic")))?;
        }
        done?;
        Ok(emitted)
    })
}
