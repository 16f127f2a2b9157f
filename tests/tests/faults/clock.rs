//! Clocks that are not what they were.
//!
//! The wall clock is one for all processes of a host, and is not set here: that it steps is shown
//! to the model, which is told each time it takes.

use std::time::{Duration, SystemTime};

use agent::{
    census::{Census, NamespaceCensus},
    metrics::Exposition,
    model::{Model, Setup},
};
use agent_ebpf::{counters::Counters, state::TcpState};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    http::{Scrape, number},
    netns::Netns,
    wait,
};

use super::{
    leak::{self, Leak, Sockets},
    names::Events,
    scene::{COMPLETED, PLAINLY, Scene, Start, socket_of},
};

/// CLOCK_MONOTONIC is a day later for it than for the kernel's programs.
pub(super) const A_DAY_LATER: Start = Start {
    through: &[
        "unshare",
        "--time",
        "--fork",
        "--kill-child",
        "--monotonic",
        "86400",
        "--boottime",
        "86400",
    ],
    ..PLAINLY
};

/// As long as no leak here lasts.
const OLD: f64 = 600.0;

/// A leak that the agent sees begin is as old as it is, as are those that were there before.
pub(super) fn ages_are_true(scene: &mut Scene) -> Result<()> {
    let netns = Netns::new()?;
    let cgroup = tests::cgroup::Cgroup::new("clock")?.context("no cgroup")?;
    let sockets = Sockets::leaked(2);
    let holder = leak::start(&netns, &cgroup, "young", sockets)?;
    let mut leak = Leak::of(holder, &netns, sockets)?;
    let mut ages = Vec::new();
    for port in [leak.port, scene.known.port()] {
        let port = format!("port=\"{port}\"");
        wait::until("the age of a leak", || {
            let scrape = scene.next_census()?;
            let age = scrape.0.iter().find(|(series, _)| {
                series.starts_with("connstate_close_wait_oldest_seconds{") && series.contains(&port)
            });
            ages.extend(age.map(|(_, age)| *age));
            Ok(age.is_some())
        })?;
    }
    eprintln!("seconds that they are told to be old: {ages:?}");
    ensure!(ages.iter().all(|age| (1.0..OLD).contains(age)), "{ages:?}");
    times_are_true(scene, &mut leak)
}

/// What happens now is told to happen now.
fn times_are_true(scene: &Scene, leak: &mut Leak) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = socket_of(scene.api_socket()?);
    let events = Events::listen(&socket, leak.port, folder.path().join("events"), &[])?;
    let before = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    leak.holder.go_on()?;
    leak.holder.says("closed")?;
    let text = events.printed(1)?;
    let after = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let time = event["time"].as_f64().context("an event without a time")?;
        // The two clocks are read one after the other.
        let now = before - 0.1..after + 0.1;
        ensure!(now.contains(&time), "{time} is not within {now:?}");
    }
    eprintln!("{} events at their time", text.lines().count());
    Ok(())
}

/// What a census found: so many sockets in ESTABLISHED, at these times of both clocks.
fn census(established: u64, wall: u64, monotonic: u64) -> Census {
    let mut namespace = NamespaceCensus {
        inode: 1,
        is_host: true,
        ..NamespaceCensus::default()
    };
    namespace.counts.states[TcpState::Established as usize] = established;
    let completed = Duration::from_secs(wall);
    Census {
        completed,
        full_completed: completed,
        at: Duration::from_secs(monotonic),
        namespaces: vec![namespace],
        present: vec![1],
        ..Census::default()
    }
}

/// The wall clock is set back by a day, then to before 1970: each census is shown all the same,
/// with the time that the clock shows.
pub(super) fn wall_clock_set_back() -> Result<()> {
    let mut model = Model::new(Setup::default());
    for (step, wall) in [1_800_000_000, 1_799_913_600, 0, 1_800_000_015]
        .into_iter()
        .enumerate()
    {
        let monotonic = 100 + 5 * step as u64;
        let established = 10 + step as u64;
        let now = Duration::from_secs(monotonic);
        model.census(census(established, wall, monotonic));
        model.count(now, Counters::ZERO, Vec::new());
        let page = Exposition::default().render(&model.view(now))?;
        let scrape = Scrape::parse(&page)?;
        for (series, expected) in [
            ("connstate_sockets{state=\"established\"}", established),
            (COMPLETED, wall),
        ] {
            let told = scrape.value(series)?;
            let same = (told - number(expected)).abs() < f64::EPSILON;
            ensure!(same, "step {step}: {series} is {told}, not {expected}");
        }
    }
    Ok(())
}
