//! Sockets that are known, and what the gauges must say of them.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use agent::census;
use agent_ebpf::state::TcpState::TimeWait;
use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use tests::{
    cgroup::Cgroup,
    http::{Scrape, number},
    netns::Netns,
    place::{Connections, Family, Place, own_descriptors},
    states::{self, States},
    wait,
};

use super::leak::{self, Leak, Sockets};

/// Sockets of the known process in ESTABLISHED and in CLOSE_WAIT, and minisockets made at a time.
const ESTABLISHED: usize = 3;
const CLOSE_WAIT: usize = 4;
const TIME_WAIT: usize = 5;

/// How the known process calls itself.
const PROCESS: &str = "known";

/// A process in a network namespace and a cgroup of its own, whose sockets do nothing.
pub(super) struct Known {
    /// The namespace.
    pub(super) netns: Netns,
    // In the order in which they must go: a cgroup ends after its processes.
    leak: Leak,
    cgroup: Cgroup,
}

/// How the agent names what it tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// As on any host.
    Fully,
    /// Their namespace is the only one watched, and so the host's.
    AsTheHost,
    /// Of the cgroup, nothing is known but what /proc tells of its processes.
    WithoutCgroups,
}

impl Known {
    /// Makes them; nothing, aloud, where this host has no cgroups.
    pub(super) fn new() -> Result<Option<Self>> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("connstate-fault-{}-{number}.service", std::process::id());
        let Some(cgroup) = Cgroup::named(name)? else {
            return Ok(None);
        };
        let netns = Netns::new()?;
        let sockets = Sockets {
            established: ESTABLISHED,
            ..Sockets::leaked(CLOSE_WAIT)
        };
        let holder = leak::start(&netns, &cgroup, PROCESS, sockets)?;
        Ok(Some(Self {
            leak: Leak::of(holder, &netns, sockets)?,
            netns,
            cgroup,
        }))
    }

    /// The port of those in ESTABLISHED and CLOSE_WAIT.
    pub(super) fn port(&self) -> u16 {
        self.leak.port
    }

    /// Makes some minisockets, which last for a minute. How many there are now.
    pub(super) fn minisockets(&self) -> Result<u64> {
        let place = Place::new(Family::V4);
        self.netns.run(|| {
            // Which side closes first must not depend on children that others start.
            own_descriptors()?;
            let Connections {
                listener,
                clients,
                servers,
            } = place.connections(TIME_WAIT)?;
            drop(clients);
            drop((servers, listener));
            wait::clients_in(place.port, "time-wait", TIME_WAIT)
        })?;
        self.minisockets_now()
    }

    /// The kernel's own count of them.
    pub(super) fn minisockets_now(&self) -> Result<u64> {
        let sockstat = self
            .netns
            .run(|| Ok(fs::read_to_string("/proc/thread-self/net/sockstat")?))?;
        let mut words = sockstat.split_whitespace();
        words.find(|word| *word == "tw");
        Ok(words
            .next()
            .context("no minisockets in sockstat")?
            .parse()?)
    }

    /// The kernel's sockets by state, all those that an agent watches that names them so. Of a whole
    /// host without TIME_WAIT, which every question to the agent leaves one more in.
    pub(super) fn states(&self, named: Named) -> Result<States> {
        if named == Named::AsTheHost {
            return states::by_ss(&self.netns);
        }
        let mut all = States::new();
        for namespace in census::find()?.namespaces {
            // It may have gone meanwhile.
            let Ok(file) = namespace.open() else { continue };
            let there = thread::spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                states::by_ss(&Netns::current()?)
            });
            for (state, count) in there.join().unwrap_or_else(|_| Err(anyhow!("a panic")))? {
                *all.entry(state).or_default() += count;
            }
        }
        all.remove(TimeWait.name());
        Ok(all)
    }

    /// Holds the gauges against what there is, to the unit.
    pub(super) fn is_told(&self, scrape: &Scrape, named: Named, minisockets: u64) -> Result<()> {
        let workload = format!("workload=\"unit:{}\"", self.cgroup.name());
        let mut expected = Vec::new();
        if named != Named::WithoutCgroups {
            for (state, count) in [
                ("established", ESTABLISHED),
                ("close_wait", CLOSE_WAIT),
                ("fin_wait1", 0),
                ("fin_wait2", 0),
                ("last_ack", 0),
            ] {
                let series = format!("connstate_workload_sockets{{{workload},state=\"{state}\"}}");
                expected.push((series, count as u64));
            }
        }
        // Iterators show the processes of their reader's own namespace (`task_seq_get_next()`).
        let process = match named {
            Named::AsTheHost => "",
            _ => PROCESS,
        };
        let leaked = format!(
            "connstate_close_wait_leaked{{cause=\"eof_unread\",{workload},process=\"{process}\",\
             port=\"{}\",side=\"server\"}}",
            self.leak.port
        );
        expected.push((leaked, CLOSE_WAIT as u64));
        let netns = match named {
            Named::AsTheHost => "host".to_owned(),
            _ => self.netns.inode().to_string(),
        };
        let time_wait = format!("connstate_time_wait_sockets{{netns=\"{netns}\"}}");
        expected.push((time_wait, minisockets));
        for (series, count) in expected {
            let told = scrape.value(&series)?;
            let same = (told - number(count)).abs() < f64::EPSILON;
            ensure!(same, "{series} is {told}, not {count}");
        }
        Ok(())
    }
}

/// Holds the gauges of all states against such sockets.
pub(super) fn all_are_told(scrape: &Scrape, named: Named, states: &States) -> Result<()> {
    const GAUGES: usize = 11;
    let mut gauges = 0;
    for (series, told) in &scrape.0 {
        let Some(state) = series.strip_prefix("connstate_sockets{state=\"") else {
            continue;
        };
        gauges += 1;
        let state = state.trim_end_matches("\"}");
        if state == TimeWait.name() && named != Named::AsTheHost {
            continue;
        }
        let count = states.get(state).copied().unwrap_or_default();
        let same = (told - number(count)).abs() < f64::EPSILON;
        ensure!(same, "{series} is {told}, not {count}: {states:?}");
    }
    ensure!(gauges == GAUGES, "{gauges} states of {GAUGES}");
    eprintln!("all states told rightly: {states:?}");
    Ok(())
}
