//! Finds every difference between what the watchers saw: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use agent_ebpf::{close::CloseCause, state::TcpState};
use tests::trace::Trace;

use super::{
    observed::{Observed, Watcher},
    sockets::Glimpse,
    step::{Key, Step, Told},
};

/// What two watchers do not agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The one that is compared with, and the other.
    pub(super) between: (Watcher, Watcher),
    /// Of what.
    pub(super) of: Of,
    /// What each of them counts.
    pub(super) counts: (u64, u64),
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// A transition of a namespace's sockets.
    StepOfNamespace(usize, Step),
    /// A transition of a group's sockets.
    StepOfPort(u16, Step),
    /// A transition of one socket.
    StepOfSocket(Key, Step),
    /// The order of one socket's transitions.
    Order(Key),
    /// Closes of a namespace's sockets.
    CauseOfNamespace(usize, CloseCause),
    /// Closes of a group's sockets.
    CauseOfPort(u16, CloseCause),
    /// Sockets in a state, at rest: the phase, the namespace, the port.
    Still(usize, usize, Option<u16>, &'static str),
    /// A state that a socket was seen in, and that it never was told to be in.
    Glimpse(Glimpse),
}

/// Every difference.
pub(super) fn differences(observed: &Observed) -> Vec<Difference> {
    let mut found = Vec::new();
    of_namespaces(observed, &mut found);
    of_ports(observed, &mut found);
    of_sockets(observed, &mut found);
    of_orders(observed, &mut found);
    of_stills(observed, &mut found);
    of_glimpses(observed, &mut found);
    found
}

/// How often each is.
pub(super) fn tally<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

/// Adds what two counts differ in.
fn unequal<T: Ord + Clone>(
    between: (Watcher, Watcher),
    left: &BTreeMap<T, u64>,
    right: &BTreeMap<T, u64>,
    of: impl Fn(T) -> Of,
    found: &mut Vec<Difference>,
) {
    let all: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for one in all {
        let count = |counts: &BTreeMap<T, u64>| counts.get(one).copied().unwrap_or(0);
        let counts = (count(left), count(right));
        if counts.0 != counts.1 {
            found.push(Difference {
                between,
                of: of(one.clone()),
                counts,
            });
        }
    }
}

fn steps(trace: &Trace) -> BTreeMap<Step, u64> {
    let all = TcpState::ALL.into_iter();
    let steps = all.flat_map(|from| TcpState::ALL.map(|to| (from, to)));
    steps
        .map(|(from, to)| ((from, to), trace.transitions[from as usize][to as usize]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn causes(trace: &Trace) -> BTreeMap<CloseCause, u64> {
    let all = CloseCause::ALL.into_iter();
    all.map(|cause| (cause, trace.closes[cause as usize]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn of_namespaces(observed: &Observed, found: &mut Vec<Difference>) {
    let between = (Watcher::Plan, Watcher::Counters);
    for (namespace, counted) in observed.counted.iter().enumerate() {
        let planned = observed.planned.iter();
        let planned = planned
            .filter(|planned| planned.namespace == namespace)
            .fold(Trace::NONE, |sum, planned| sum.and(planned.trace));
        let of = |step| Of::StepOfNamespace(namespace, step);
        unequal(between, &steps(&planned), &steps(counted), of, found);
        let of = |cause| Of::CauseOfNamespace(namespace, cause);
        unequal(between, &causes(&planned), &causes(counted), of, found);
    }
}

fn of_ports(observed: &Observed, found: &mut Vec<Difference>) {
    let planned = observed.planned.iter().flat_map(|planned| {
        let steps = steps(&planned.trace).into_iter();
        steps.map(|(step, count)| ((planned.port, step), count))
    });
    let planned = planned.collect();
    let is_own = |told: &&Told| {
        told.netns
            .is_none_or(|netns| observed.namespaces.contains(&netns))
    };
    for (watcher, told) in [
        (Watcher::Events, &observed.told),
        (Watcher::Tcpstates, &observed.traced),
        (Watcher::Tracefs, &observed.recorded),
    ] {
        let told = told.iter().filter(is_own);
        let told = tally(told.map(|told| (told.key.port, told.step)));
        let of = |(port, step)| Of::StepOfPort(port, step);
        unequal((Watcher::Plan, watcher), &planned, &told, of, found);
    }
    let planned = observed.planned.iter().flat_map(|planned| {
        let causes = causes(&planned.trace).into_iter();
        causes.map(|(cause, count)| ((planned.port, cause), count))
    });
    let told = observed.told.iter().filter(is_own);
    let told = told.filter_map(|told| Some((told.key.port, told.cause?)));
    unequal(
        (Watcher::Plan, Watcher::Events),
        &planned.collect(),
        &tally(told),
        |(port, cause)| Of::CauseOfPort(port, cause),
        found,
    );
}

fn of_sockets(observed: &Observed, found: &mut Vec<Difference>) {
    let by_socket = |told: &[Told]| tally(told.iter().map(|told| (told.key, told.step)));
    unequal(
        (Watcher::Events, Watcher::Tcpstates),
        &by_socket(&observed.told),
        &by_socket(&observed.traced),
        |(key, step)| Of::StepOfSocket(key, step),
        found,
    );
}

/// Of sockets of which both tell the same transitions, those to the same state aside. A client
/// that has no port yet is not known from its fellows.
fn of_orders(observed: &Observed, found: &mut Vec<Difference>) {
    let in_order = |told: &[Told]| {
        let mut sockets = BTreeMap::<Key, Vec<Step>>::new();
        let changes = told.iter().filter(|told| told.step.0 != told.step.1);
        for told in changes.filter(|told| told.key.peer != 0) {
            sockets.entry(told.key).or_default().push(told.step);
        }
        sockets
    };
    let traced = in_order(&observed.traced);
    for (key, told) in in_order(&observed.told) {
        let Some(traced) = traced.get(&key).filter(|traced| **traced != told) else {
            continue;
        };
        if tally(traced.iter()) == tally(told.iter()) {
            let apart = told
                .iter()
                .zip(traced)
                .filter(|(told, traced)| told != traced);
            found.push(Difference {
                between: (Watcher::Events, Watcher::Tcpstates),
                of: Of::Order(key),
                counts: (0, apart.count() as u64),
            });
        }
    }
}

fn of_stills(observed: &Observed, found: &mut Vec<Difference>) {
    for still in &observed.stills {
        let of = |state| Of::Still(still.phase, still.namespace, still.port, state);
        let ((left, lefts), (right, rights)) = (&still.left, &still.right);
        unequal((*left, *right), lefts, rights, of, found);
    }
}

fn of_glimpses(observed: &Observed, found: &mut Vec<Difference>) {
    let mut told = BTreeSet::new();
    for one in &observed.told {
        for state in [one.step.0, one.step.1] {
            told.insert((one.netns, one.key, state));
        }
    }
    for glimpse in &observed.glimpses {
        let inode = observed.namespaces.get(glimpse.namespace).copied();
        if !told.contains(&(inode, glimpse.key, glimpse.state)) {
            found.push(Difference {
                between: (Watcher::Events, Watcher::Ss),
                of: Of::Glimpse(*glimpse),
                counts: (0, 1),
            });
        }
    }
}
