//! What the programs count at every event.

use agent_ebpf::{
    close::CloseCause,
    duration::TIMED_STATE_NAMES,
    retransmit::{Packet, Trigger},
    state::TcpState,
};

use super::histogram_value;
use crate::{
    metrics::family::{Family, Kind, Sample},
    series::OTHER,
    view::View,
};

/// The families, in the order of the documentation.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "connstate_state_transitions_total",
        kind: Kind::Counter,
        labels: &["from", "to"],
        help: "Transitions of TCP sockets between states, in every network namespace; a TIME_WAIT shows as a close, since no transition to it is ever made.",
        samples: transitions,
    },
    Family {
        name: "connstate_state_duration_seconds",
        kind: Kind::Histogram,
        labels: &["state"],
        help: "How long TCP sockets stayed in a state they have left, as far as the agent saw them enter it; fin_wait2_full is full sockets alone, not the timewait minisockets most become.",
        samples: durations,
    },
    Family {
        name: "connstate_closes_total",
        kind: Kind::Counter,
        labels: &["cause"],
        help: "Full TCP sockets that ended, by cause.",
        samples: closes,
    },
    Family {
        name: "connstate_retransmits_total",
        kind: Kind::Counter,
        labels: &["state", "packet", "trigger"],
        help: "TCP segments sent again, by the socket's state, what they carried and what made the kernel repeat them; failed attempts excluded.",
        samples: retransmits,
    },
    Family {
        name: "connstate_connects_total",
        kind: Kind::Counter,
        labels: &["workload"],
        help: "Sockets that began to connect since the agent started, by the workload of the connecting task, as of the last census.",
        samples: connects,
    },
];

fn transitions(view: &View) -> Vec<Sample> {
    let mut samples = Vec::new();
    for from in TcpState::ALL {
        for to in TcpState::ALL {
            if from != to && to != TcpState::TimeWait {
                let count = view.transitions[from as usize][to as usize];
                samples.push(Sample::count([from.name(), to.name()], count));
            }
        }
    }
    samples
}

fn durations(view: &View) -> Vec<Sample> {
    TIMED_STATE_NAMES
        .into_iter()
        .zip(&view.durations)
        .map(|(state, histogram)| Sample {
            labels: vec![state.to_owned()],
            value: histogram_value(histogram),
        })
        .collect()
}

fn closes(view: &View) -> Vec<Sample> {
    CloseCause::ALL
        .into_iter()
        .map(|cause| Sample::count([cause.name()], view.closes[cause as usize]))
        .collect()
}

fn retransmits(view: &View) -> Vec<Sample> {
    let mut samples = Vec::new();
    for state in TcpState::ALL {
        for packet in Packet::ALL {
            for trigger in Trigger::ALL {
                let segments = retransmitted(view, state, packet, trigger);
                samples.push(Sample::count(
                    [state.name(), packet.name(), trigger.name()],
                    segments,
                ));
            }
        }
    }
    samples
}

/// A request minisocket, `TCP_NEW_SYN_RECV`, is shown as `syn_recv`, as `ss` does.
fn retransmitted(view: &View, state: TcpState, packet: Packet, trigger: Trigger) -> u64 {
    view.retransmits
        .iter()
        .zip(0_u8..)
        .filter(|(_, raw)| TcpState::from_raw(*raw) == Some(state))
        .map(|(by_packet, _)| by_packet[packet as usize][trigger as usize])
        .sum()
}

fn connects(view: &View) -> Vec<Sample> {
    let rows = view.rows.connects.iter();
    rows.map(|(labels, [count])| {
        let untold = if labels[0] == OTHER {
            view.connects_untold
        } else {
            0
        };
        Sample::count(labels.iter().map(String::as_str), count + untold)
    })
    .collect()
}
