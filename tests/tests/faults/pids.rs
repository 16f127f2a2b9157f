//! A process whose id was another's before.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use tests::{cgroup::Cgroup, http::Scrape, netns::Netns, wait};

use super::{
    leak::{self, Leak, Sockets},
    scene::Scene,
};

/// How often an id is asked for that others may take first.
const ATTEMPTS: usize = 200;

const LEAKED: usize = 2;

/// The process of every leak on this port that is not over.
fn processes(scrape: &Scrape, port: u16) -> Vec<String> {
    let port = format!("port=\"{port}\"");
    let leaks = scrape.0.iter().filter(|(series, value)| {
        series.starts_with("connstate_close_wait_leaked{")
            && series.contains(&port)
            && **value > 0.0
    });
    let process = |series: &String| {
        let (_, after) = series.split_once("process=\"")?;
        Some(after.split_once('"')?.0.to_owned())
    };
    leaks.filter_map(|(series, _)| process(series)).collect()
}

/// A process leaks and ends, and another one with its id and its port leaks: the finding names
/// the one that is there.
pub(super) fn one_is_another(scene: &mut Scene) -> Result<()> {
    let netns = Netns::new()?;
    let cgroup = Cgroup::new("pids")?.context("no cgroup")?;
    let sockets = Sockets::leaked(LEAKED);
    let port = sockets.place.port;
    let named = |scene: &Scene, name: &str| {
        wait::until("the leak to be told", || {
            let told = processes(&scene.scrape()?, port);
            ensure!(told.iter().all(|told| told == name), "{told:?}, not {name}");
            Ok(told.len() == 1)
        })
    };
    let first = Leak::of(
        leak::start(&netns, &cgroup, "formerly", sockets)?,
        &netns,
        sockets,
    )?;
    let pid = first.holder.pid();
    named(scene, "formerly")?;
    drop(first);
    wait::until("the leak to end", || {
        Ok(processes(&scene.scrape()?, port).is_empty())
    })?;
    for attempt in 1..=ATTEMPTS {
        // The thread that starts the process takes the id before (`alloc_pid()`).
        let last = "/proc/sys/kernel/ns_last_pid";
        if let Err(error) = fs::write(last, (pid - 2).to_string()) {
            eprintln!("skipped: ids cannot be chosen here: {last}: {error}");
            return Ok(());
        }
        let holder = leak::start(&netns, &cgroup, "presently", sockets)?;
        if holder.pid() == pid {
            let second = Leak::of(holder, &netns, sockets)?;
            named(scene, "presently")?;
            eprintln!("process {pid} was another, at attempt {attempt}");
            let ids = &scene.api("/api/v1/findings?process=presently")?["findings"][0]["pids"];
            ensure!(ids[0] == pid, "{ids}");
            drop(second);
            return Ok(());
        }
    }
    bail!("others took the id in each of {ATTEMPTS} attempts")
}
