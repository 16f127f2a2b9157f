//! One picture of the host, as `agent snapshot --json` prints it and `/api/v1/snapshot` serves it.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use agent_ebpf::{
    census::WORKLOAD_STATES,
    close::CloseCause,
    state::{STATE_COUNT, TcpState},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    census::{NamespaceCensus, PortUse},
    detectors::{Findings, Orphans},
    view::View,
};

/// The shape of the JSON; it rises with every change that could break a reader.
pub const VERSION: u32 = 1;

/// Listening sockets told of each network namespace: else thousands of namespaces with as many of
/// them would make an answer that nobody can hold.
const LISTENERS: usize = 1_000;

/// What is known of the host's TCP sockets: states, limits, findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Of the shape: 1.
    pub version: u32,
    /// The agent's version.
    pub agent: String,
    /// The kernel's release.
    pub kernel: String,
    /// When the census was complete, in seconds since 1970.
    pub completed: f64,
    /// How long it took, in seconds.
    pub took: f64,
    /// Namespaces that could not be entered or counted.
    pub unreached_namespaces: usize,
    /// Sockets that were counted but not told apart.
    pub untold_sockets: u64,
    /// Kernel programs that do not run here, so that what they tell is missing.
    #[serde(default)]
    pub unattached_programs: Vec<String>,
    /// Sockets by state, of all namespaces; all eleven states.
    pub states: States,
    /// Those that no process holds any more.
    pub orphan_sockets: States,
    /// The kernel's own count of orphans, and `tcp_max_orphans`.
    pub orphans: Option<Limited>,
    /// Every namespace.
    pub namespaces: Vec<Namespace>,
    /// The workloads with sockets, as many as /metrics tells apart.
    pub workloads: Vec<WorkloadSockets>,
    /// What the kernel programs have counted since they were loaded.
    pub activity: Activity,
    /// What should not be.
    pub findings: Findings,
}

/// Sockets by state.
pub type States = BTreeMap<TcpState, u64>;

/// How much there is of what is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limited {
    /// How much there is.
    pub count: u64,
    /// How much there may be.
    pub limit: u64,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Namespace {
    /// `host`, or its inode number.
    pub netns: String,
    /// What the first process found in it is part of.
    pub workload: Option<String>,
    /// Its sockets by state; all eleven.
    pub states: States,
    /// Its timewait minisockets, of both substates, and `tcp_max_tw_buckets`.
    pub minisockets: Option<Limited>,
    /// Ports that `connect()` can choose from, toward each destination.
    pub ephemeral_ports: Option<u32>,
    /// The destination toward which most of them are used.
    pub most_crowded: Option<Crowded>,
    /// Its listening sockets, at most 1 000: those in whose queues most wait.
    pub listeners: Vec<Listener>,
    /// Those beyond.
    #[serde(default)]
    pub listeners_untold: usize,
    /// Its TCP sysctls, by name.
    pub sysctls: BTreeMap<String, u64>,
}

/// How many ephemeral ports lead from one address to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Crowded {
    /// The local address.
    pub source: IpAddr,
    /// The remote address.
    pub destination: IpAddr,
    /// The remote port.
    pub port: u16,
    /// Ports used: a lower bound.
    pub used: u64,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// Its address and port.
    pub address: SocketAddr,
    /// Connections that wait to be accepted, and how many may.
    pub accept_queue: Limited,
}

/// The full sockets of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadSockets {
    /// The `workload` label.
    pub workload: String,
    /// Its sockets in the states that are told apart by workload.
    pub states: States,
}

/// What the kernel programs have counted since they were loaded. None of it falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Activity {
    /// When they were asked: CLOCK_MONOTONIC, in seconds.
    pub at: f64,
    /// Transitions that happened at least once. None leads to `time_wait`: a close for that cause
    /// does.
    pub transitions: Vec<TransitionCount>,
    /// Closes by cause; all causes.
    pub closes: BTreeMap<CloseCause, u64>,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Orphans that the kernel killed.
    pub orphan_kills: u64,
    /// Records that reached the agent.
    pub events: u64,
    /// Records that found the ring buffer full.
    pub events_lost: u64,
}

/// How often sockets went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransitionCount {
    /// The state they left.
    pub from: TcpState,
    /// The state they took.
    pub to: TcpState,
    /// How often.
    pub count: u64,
}

impl Snapshot {
    /// What a view shows; nothing before the first census.
    #[must_use]
    pub fn of(view: &View) -> Option<Self> {
        let census = view.census.as_deref()?;
        let total = census.total();
        let namespaces = census.namespaces.iter();
        Some(Self {
            version: VERSION,
            agent: view.version.to_owned(),
            kernel: view.kernel.clone(),
            completed: census.completed.as_secs_f64(),
            took: census.took.as_secs_f64(),
            unreached_namespaces: census.unreached,
            untold_sockets: census
                .namespaces
                .iter()
                .map(|namespace| namespace.untold)
                .sum(),
            unattached_programs: unattached(view),
            states: states(&total.states),
            orphan_sockets: states(&total.orphans),
            orphans: Orphans::of(census).map(|(count, limit)| Limited { count, limit }),
            namespaces: namespaces.map(Namespace::of).collect(),
            workloads: workloads(view),
            activity: Activity::of(view),
            findings: Findings::clone(&view.findings),
        })
    }
}

/// By state, zeros included.
fn states(counts: &[u64; STATE_COUNT]) -> States {
    TcpState::ALL
        .into_iter()
        .map(|state| (state, counts[state as usize]))
        .collect()
}

fn workloads(view: &View) -> Vec<WorkloadSockets> {
    let rows = view.rows.workloads.iter();
    rows.map(|(labels, counts)| WorkloadSockets {
        workload: labels.first().cloned().unwrap_or_default(),
        states: WORKLOAD_STATES
            .into_iter()
            .filter_map(TcpState::from_raw)
            .zip(counts.iter().map(|count| whole(*count)))
            .collect(),
    })
    .collect()
}

/// The rows hold counts as Prometheus does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of sockets"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

impl Namespace {
    fn of(namespace: &NamespaceCensus) -> Self {
        let limits = &namespace.limits;
        let minisockets = limits
            .sockstat
            .tw
            .zip(limits.sysctls.get("tcp_max_tw_buckets"));
        let most_crowded = namespace.ports.iter().max_by_key(|ports| ports.used);
        let mut listeners: Vec<_> = namespace.listeners.iter().collect();
        listeners.sort_by_key(|listener| (Reverse(listener.accept_queue), listener.local));
        let listeners_untold = listeners.len().saturating_sub(LISTENERS);
        let sysctls = limits.sysctls.iter();
        Self {
            netns: namespace.name(),
            workload: namespace
                .workload
                .as_ref()
                .map(|workload| workload.name.clone()),
            states: states(&namespace.counts.states),
            minisockets: minisockets.map(|(count, limit)| Limited { count, limit }),
            ephemeral_ports: limits.sysctls.ephemeral_ports(),
            most_crowded: most_crowded.copied().map(Crowded::from),
            listeners_untold,
            listeners: listeners
                .into_iter()
                .take(LISTENERS)
                .map(|listener| Listener {
                    address: listener.local,
                    accept_queue: Limited {
                        count: listener.accept_queue.into(),
                        limit: listener.accept_queue_limit.into(),
                    },
                })
                .collect(),
            sysctls: sysctls
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }
}

impl From<PortUse> for Crowded {
    fn from(ports: PortUse) -> Self {
        let PortUse {
            source,
            destination,
            port,
            used,
        } = ports;
        Self {
            source,
            destination,
            port,
            used,
        }
    }
}

impl Activity {
    fn of(view: &View) -> Self {
        let causes = CloseCause::ALL.into_iter();
        let retransmits = view.retransmits.iter().flatten().flatten();
        Self {
            at: view.at.as_secs_f64(),
            transitions: transitions(view),
            closes: causes
                .map(|cause| (cause, view.closes[cause as usize]))
                .collect(),
            retransmits: retransmits.sum(),
            orphan_kills: view.orphan_kills().unwrap_or(0),
            events: view.events,
            events_lost: view.lost.ring_full,
        }
    }
}

fn unattached(view: &View) -> Vec<String> {
    let programs = view.programs.iter();
    programs
        .filter(|report| !report.verdict.is_attached())
        .map(|report| report.program.name.to_owned())
        .collect()
}

fn transitions(view: &View) -> Vec<TransitionCount> {
    let mut transitions = Vec::new();
    for from in TcpState::ALL {
        for to in TcpState::ALL {
            let count = view.transitions[from as usize][to as usize];
            if count > 0 && from != to {
                transitions.push(TransitionCount { from, to, count });
            }
        }
    }
    transitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_told_are_those_in_whose_queues_most_wait() {
        let listener = |port: u16| crate::census::Listener {
            local: ([127, 0, 0, 1], port).into(),
            cookie: port.into(),
            cgroup: 0,
            accept_queue: u32::from(port == 1_004),
            accept_queue_limit: 128,
        };
        let namespace = NamespaceCensus {
            listeners: (1..=1_005).map(listener).collect(),
            ..NamespaceCensus::default()
        };
        let told = Namespace::of(&namespace);
        assert_eq!((told.listeners.len(), told.listeners_untold), (1_000, 5));
        assert_eq!(told.listeners[0].address.port(), 1_004);
        assert_eq!(told.listeners[1].address.port(), 1);
    }
}
