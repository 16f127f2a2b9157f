//! How much of a difference each row of the table explains: nothing but a number that follows from
//! the evidence.

use agent_ebpf::{
    close::CloseCause::{FinWait2TimeWait, LateData, ResetReceived, TimeWait},
    state::TcpState,
};

use super::{
    compare::{Difference, Of},
    evidence::Evidence,
    observed::Watcher,
    step::{Key, Side, Step},
};

/// The agent has none at all. How many the others have, the plan and tcpstates agree on: where they
/// do not, that is a difference of its own.
pub(super) fn self_transition(difference: &Difference, _: &Evidence<'_>) -> Option<u64> {
    let (Of::StepOfNamespace(_, step) | Of::StepOfPort(_, step) | Of::StepOfSocket(_, step)) =
        difference.of
    else {
        return None;
    };
    let closing = [
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::Closing,
        TcpState::LastAck,
    ];
    let is_of_close = step.0 == step.1 && closing.contains(&step.0);
    let ((Watcher::Plan, Watcher::Counters | Watcher::Events, others, 0)
    | (Watcher::Events, Watcher::Tcpstates, 0, others)) = (
        difference.between.0,
        difference.between.1,
        difference.counts.0,
        difference.counts.1,
    )
    else {
        return None;
    };
    is_of_close.then_some(others)
}

/// Of a socket that the agent told to be handed over to one.
pub(super) fn timewait_minisocket(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    let Of::Glimpse(glimpse) = difference.of else {
        return None;
    };
    let causes = evidence.causes(glimpse.namespace, glimpse.key)?;
    let has_one = causes.contains(&TimeWait) || causes.contains(&FinWait2TimeWait);
    (glimpse.state == TcpState::TimeWait && has_one).then_some(1)
}

/// Of a client that was told of, without a server's end.
pub(super) fn request_minisocket(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    let Of::Glimpse(glimpse) = difference.of else {
        return None;
    };
    let is_request = glimpse.state == TcpState::SynRecv && glimpse.key.side == Side::Server;
    let client = Key {
        side: Side::Client,
        ..glimpse.key
    };
    let is_told = |key| evidence.causes(glimpse.namespace, key).is_some();
    (is_request && is_told(client) && !is_told(glimpse.key)).then_some(1)
}

/// As many as the agent told of other namespaces.
pub(super) fn another_namespace(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    let Of::StepOfPort(port, step) = difference.of else {
        return None;
    };
    let (Watcher::Plan, Watcher::Tcpstates | Watcher::Tracefs) = difference.between else {
        return None;
    };
    let elsewhere = evidence.elsewhere(port, step);
    let (planned, traced) = difference.counts;
    (elsewhere > 0 && planned + elsewhere == traced).then_some(elsewhere)
}

/// All of a port's have another cause, one and the same: what is short here is over there.
pub(super) fn revised_cause(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    let (Of::CauseOfPort(port, cause), (Watcher::Plan, Watcher::Events)) =
        (&difference.of, difference.between)
    else {
        return None;
    };
    let mut planned = evidence.observed.planned.iter();
    let planned = planned.find(|planned| planned.port == *port)?;
    let late = planned.trace.closes[LateData as usize];
    let (left, right) = difference.counts;
    let is_short = *cause == LateData && (left, right) == (late, 0);
    let is_over = matches!(cause, ResetReceived | FinWait2TimeWait) && right == left + late;
    // Counted once, where it is short.
    let explained = if is_short { late } else { 0 };
    (late > 0 && (is_short || is_over)).then_some(explained)
}

/// As many as tracefs has and neither program has; and of causes, no more than of closes.
/// A state that a socket was seen in may be known from such a transition alone.
pub(super) fn no_program_ran(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    if let Of::Glimpse(glimpse) = difference.of {
        let mut steps = evidence
            .hidden
            .keys()
            .filter(|(key, _)| *key == glimpse.key);
        let leads_to = |step: Step| match glimpse.state {
            TcpState::TimeWait => step.1 == TcpState::Close,
            state => step.0 == state || step.1 == state,
        };
        return steps.any(|(_, step)| leads_to(*step)).then_some(1);
    }
    let lacking = lacking(difference)?;
    let (Watcher::Plan, Watcher::Events | Watcher::Tcpstates | Watcher::Counters) =
        difference.between
    else {
        return None;
    };
    let hidden = |is_meant: &dyn Fn(u16, Step) -> bool| -> u64 {
        let hidden = evidence.hidden.iter();
        let meant = hidden.filter(|((key, step), _)| is_meant(key.port, *step));
        meant.map(|(_, count)| count).sum()
    };
    let hidden = match difference.of {
        Of::StepOfPort(its, meant) => hidden(&|port, step| port == its && step == meant),
        Of::StepOfNamespace(its, meant) => {
            hidden(&|port, step| evidence.is_in(its, port) && step == meant)
        }
        Of::CauseOfPort(its, _) => lacking.min(hidden(&|port, step| {
            port == its && step.1 == TcpState::Close
        })),
        Of::CauseOfNamespace(its, _) => lacking.min(hidden(&|port, step| {
            evidence.is_in(its, port) && step.1 == TcpState::Close
        })),
        _ => return None,
    };
    (lacking == hidden).then_some(lacking)
}

/// As many as the agent and tracefs have; all of them together, no more than were counted.
pub(super) fn tcpstates_skipped(difference: &Difference, evidence: &Evidence<'_>) -> Option<u64> {
    let lacking = lacking(difference)?;
    let untraced = &evidence.untraced;
    let mine: u64 = match (difference.between, &difference.of) {
        ((Watcher::Plan, Watcher::Tcpstates), Of::StepOfPort(port, step)) => untraced
            .iter()
            .filter(|((key, other), _)| key.port == *port && other == step)
            .map(|(_, count)| count)
            .sum(),
        ((Watcher::Events, Watcher::Tcpstates), Of::StepOfSocket(key, step)) => {
            untraced.get(&(*key, *step)).copied().unwrap_or(0)
        }
        _ => return None,
    };
    let is_counted =
        untraced.values().sum::<u64>() <= evidence.observed.unseen.skipped_of_tcpstates;
    (is_counted && lacking == mine).then_some(lacking)
}

/// Both tell the same transitions of that socket, or no order is compared; and the agent's make a
/// chain.
pub(super) fn rings_of_two_processors(
    difference: &Difference,
    evidence: &Evidence<'_>,
) -> Option<u64> {
    let Of::Order(key) = difference.of else {
        return None;
    };
    let told = evidence.observed.told.iter();
    let steps: Vec<_> = told
        .filter(|told| told.key == key)
        .map(|told| told.step)
        .collect();
    let is_chain = steps.windows(2).all(|pair| pair[0].1 == pair[1].0);
    is_chain.then_some(1)
}

/// By how much the other is short, if it is.
fn lacking(difference: &Difference) -> Option<u64> {
    let (left, right) = difference.counts;
    left.checked_sub(right).filter(|lacking| *lacking > 0)
}
