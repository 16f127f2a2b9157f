//! Network namespaces that come and go.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use tests::{
    netns::Netns,
    place::{Family, Place},
    wait,
};

use super::{scene::Scene, verdict};

/// How many a second, and for how long.
const RATE: u32 = 50;
const SECONDS: u32 = 10;

/// Threads that share this: each one starts two programs for a namespace.
const MAKERS: u32 = 2;

/// Makes fifty of them a second, each with connections and a process, and lets each go. Meanwhile
/// every census tells the known sockets rightly, and nothing that is counted falls.
pub(super) fn come_and_go(scene: &mut Scene) -> Result<()> {
    thread::scope(|scope| {
        let making = [(); MAKERS as usize].map(|()| scope.spawn(make));
        let mut looked = Ok(0);
        while making.iter().any(|made| !made.is_finished()) && looked.is_ok() {
            looked = looked.and_then(|times| look(scene, times));
        }
        for made in making {
            made.join().unwrap_or_else(|_| Err(anyhow!("a panic")))?;
        }
        let looked = looked?;
        eprintln!("{looked} censuses meanwhile");
        ensure!(looked > 0, "no census while they came and went");
        Ok(())
    })
}

fn make() -> Result<()> {
    let started = Instant::now();
    let pause = Duration::from_secs(1) * MAKERS / RATE;
    for number in 1..=RATE * SECONDS / MAKERS {
        let netns = Netns::new()?;
        // The agent finds it by its process, if it comes before that has ended.
        let _inhabitant = netns.inhabit()?;
        netns.run(|| Place::new(Family::V4).connections(2))?;
        let due = started + pause * number;
        if let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
    }
    let (made, took) = (RATE * SECONDS / MAKERS, started.elapsed());
    eprintln!("{made} namespaces in {took:?}");
    let longest = Duration::from_secs(1) * SECONDS * 2;
    ensure!(took < longest, "not half of {RATE} a second: {took:?}");
    Ok(())
}

/// Takes another look at what the agent tells; how many that makes.
fn look(scene: &mut Scene, times: u32) -> Result<u32> {
    scene.known.minisockets()?;
    let census = verdict::told_rightly(&*scene, |scene| scene.next_census())?;
    for (series, before) in &scene.before.0 {
        // Those that are gone take nothing with them.
        if series.starts_with("connstate_netstat_total") {
            let value = census.value(series)?;
            ensure!(value >= *before, "{series} fell from {before} to {value}");
        }
    }
    scene.before.0.extend(
        census
            .0
            .into_iter()
            .filter(|(series, _)| series.starts_with("connstate_")),
    );
    Ok(times + 1)
}

/// It has no more descriptors open than it had, and none of a namespace.
pub(super) fn none_is_held(scene: &mut Scene) -> Result<()> {
    let mut found = String::new();
    let waited = wait::until("namespaces to be let go", || {
        let mut namespaces = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", scene.pid()?))? {
            // One may be closed meanwhile.
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            namespaces += u32::from(target.to_string_lossy().starts_with("net:["));
        }
        let scrape = scene.scrape()?;
        let (open, before) = (
            scrape.value("process_open_fds")?,
            scene.before.value("process_open_fds")?,
        );
        found = format!("{namespaces} namespaces; {open} descriptors, {before} before");
        Ok(namespaces == 0 && open <= before + 1.0)
    });
    eprintln!("{found}");
    waited
}
