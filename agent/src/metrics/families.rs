//! The table of families.

use agent_ebpf::{
    census::CensusCounts,
    close::CloseCause,
    counters::Histogram,
    duration::{BUCKET_BOUNDS_NS, TIMED_STATE_NAMES},
    retransmit::{Packet, Trigger},
    state::{STATE_COUNT, TcpState},
};

use super::family::{Family, Kind, Sample, Value, number};
use crate::{kernel::ProgramStats, view::View};

/// Every family, in the order of the documentation; the exposition is sorted by name.
pub static FAMILIES: &[Family] = &[
    Family {
        name: "connstate_sockets",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "TCP sockets by state as ss shows them, minisockets included, in every network namespace, by the last census; close is always 0, since nothing shows closed sockets.",
        samples: |view| of_states(view, |counts| counts.states),
    },
    Family {
        name: "connstate_orphan_sockets",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "TCP sockets that no process holds any more and TCP still does, by state, by the last census; minisockets are none of them.",
        samples: |view| of_states(view, |counts| counts.orphans),
    },
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
        name: "connstate_events_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Records received from the kernel programs through the ring buffer.",
        samples: |view| vec![Sample::count([], view.events)],
    },
    Family {
        name: "connstate_events_lost_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "What was lost: records that found the ring buffer full, sockets that found no room to be remembered in, records that were not understood.",
        samples: |view| {
            vec![
                Sample::count(["ring_full"], view.lost.ring_full),
                Sample::count(["state_full"], view.lost.state_full),
                Sample::count(["malformed"], view.lost.malformed),
            ]
        },
    },
    Family {
        name: "connstate_bpf_program_attached",
        kind: Kind::Gauge,
        labels: &["program"],
        help: "Whether a kernel program runs: 1 attached, 0 not.",
        samples: |view| {
            view.programs
                .iter()
                .map(|report| {
                    let attached = u64::from(report.verdict.is_attached());
                    Sample::count([report.program.name], attached)
                })
                .collect()
        },
    },
    Family {
        name: "connstate_bpf_program_misses_total",
        kind: Kind::Counter,
        labels: &["program"],
        help: "Runs of a kernel program that the kernel skipped because it was running on that CPU already; absent before kernel 5.12, which does not tell.",
        samples: |view| of_programs(view, |stats| stats.misses.map(number)),
    },
    Family {
        name: "connstate_bpf_program_runs_total",
        kind: Kind::Counter,
        labels: &["program"],
        help: "Runs of a kernel program; only with --bpf-stats.",
        samples: |view| of_programs(view, |stats| view.bpf_stats.then_some(number(stats.runs))),
    },
    Family {
        name: "connstate_bpf_program_run_seconds_total",
        kind: Kind::Counter,
        labels: &["program"],
        help: "Time spent in a kernel program, on all CPUs; only with --bpf-stats.",
        samples: |view| {
            of_programs(view, |stats| {
                view.bpf_stats.then_some(stats.run_time.as_secs_f64())
            })
        },
    },
    Family {
        name: "connstate_census_duration_seconds",
        kind: Kind::Histogram,
        labels: &["kind"],
        help: "How long a census of the sockets took: full, of every namespace.",
        samples: |view| {
            vec![Sample {
                labels: vec!["full".to_owned()],
                value: histogram_value(&view.census_durations),
            }]
        },
    },
    Family {
        name: "connstate_census_last_completion_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["kind"],
        help: "When the last census was complete, in seconds since 1970.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|census| Sample::number(["full"], census.completed.as_secs_f64()))
                .collect()
        },
    },
    Family {
        name: "connstate_census_unreached_namespaces",
        kind: Kind::Gauge,
        labels: &[],
        help: "Network namespaces whose sockets the last census could not count; the log names them.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|census| Sample::count([], census.unreached as u64))
                .collect()
        },
    },
    Family {
        name: "connstate_build_info",
        kind: Kind::Gauge,
        labels: &["version", "kernel"],
        help: "Always 1; the agent's version and the release of the kernel it runs on.",
        samples: |view| vec![Sample::number([view.version, &view.kernel], 1.0)],
    },
];

/// All states, once there was a census.
fn of_states(view: &View, counts: impl Fn(&CensusCounts) -> [u64; STATE_COUNT]) -> Vec<Sample> {
    let Some(census) = &view.census else {
        return Vec::new();
    };
    let counts = counts(&census.total());
    TcpState::ALL
        .into_iter()
        .map(|state| Sample::count([state.name()], counts[state as usize]))
        .collect()
}

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

fn histogram_value(histogram: &Histogram) -> Value {
    let mut count = 0;
    let mut cumulative = histogram.buckets.iter().map(|bucket| {
        count += bucket;
        count
    });
    let buckets = BUCKET_BOUNDS_NS
        .into_iter()
        .zip(&mut cumulative)
        .map(|(bound, count)| (seconds(bound), count))
        .collect();
    let all = cumulative.last().unwrap_or(0);
    Value::Histogram {
        buckets,
        sum: seconds(histogram.sum_ns),
        count: all,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn seconds(ns: u64) -> f64 {
    // Dividing, rather than multiplying by 1e-9, gives 0.001 for the millisecond.
    ns as f64 / 1e9
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

fn of_programs(view: &View, value: impl Fn(&ProgramStats) -> Option<f64>) -> Vec<Sample> {
    view.programs
        .iter()
        .filter_map(|report| {
            let value = value(report.stats.as_ref()?)?;
            Some(Sample::number([report.program.name], value))
        })
        .collect()
}
