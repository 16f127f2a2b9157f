//! What the agent tells of itself.

use super::histogram_value;
use crate::{
    kernel::ProgramStats,
    metrics::family::{Family, Kind, Sample},
    series::number,
    view::View,
};

/// The families, in the order of the documentation.
pub(super) static FAMILIES: &[Family] = &[
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
        help: "What was lost: records that found the ring buffer full, sockets that found no room to be remembered in, records that were not understood, events that reached the agent but came too fast for who listened.",
        samples: |view| {
            vec![
                Sample::count(["ring_full"], view.lost.ring_full),
                Sample::count(["state_full"], view.lost.state_full),
                Sample::count(["malformed"], view.lost.malformed),
                Sample::count(["slow_listener"], view.lost.slow_listener),
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
        help: "How long the passes of a census took: full, those over the namespaces whose turn it was; known, the one over the sockets that the kernel programs remember, of all namespaces, on hosts with so many that the full ones must take turns.",
        samples: |view| {
            let durations = &view.census_durations;
            [("full", &durations.full), ("known", &durations.known)]
                .map(|(kind, histogram)| Sample {
                    labels: vec![kind.to_owned()],
                    value: histogram_value(histogram),
                })
                .into()
        },
    },
    Family {
        name: "connstate_census_last_completion_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["kind"],
        help: "When the last census was complete, in seconds since 1970: known, that of full sockets, limits and findings; full, the oldest of the full passes it rests on for minisockets by state, requests and ephemeral ports.",
        samples: |view| {
            let Some(census) = &view.census else {
                return Vec::new();
            };
            [("full", census.full_completed), ("known", census.completed)]
                .map(|(kind, at)| Sample::number([kind], at.as_secs_f64()))
                .into()
        },
    },
    Family {
        name: "connstate_census_interval_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "How long after the beginning of the last census the next one begins: --census-interval, or longer, since all censuses together take at most 1 % of one core.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|census| Sample::number([], census.interval.as_secs_f64()))
                .collect()
        },
    },
    Family {
        name: "connstate_census_unreached_namespaces",
        kind: Kind::Gauge,
        labels: &[],
        help: "Network namespaces whose sockets the last census could not count, which the log names, and ways into those beyond 4096.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|census| Sample::count([], census.unreached as u64))
                .collect()
        },
    },
    Family {
        name: "connstate_census_untold_sockets",
        kind: Kind::Gauge,
        labels: &[],
        help: "Sockets that the last census counted but did not tell apart: lingering or listening ones beyond 65536 in a pass, those of network namespaces beyond 4096, of cgroups beyond 2048, and on ranges of ephemeral ports beyond 16384.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|census| {
                    let untold = census.namespaces.iter().map(|namespace| namespace.untold);
                    Sample::count([], untold.sum())
                })
                .collect()
        },
    },
    Family {
        name: "connstate_http_refused_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "HTTP connections turned away: full, displaced by newer ones, no descriptor or memory left (system), a TLS handshake that failed or was slow, a request or a reader that was slow. And requests: no user or another password (unauthorized), more passwords to check (busy), requests (rate_limit) or event streams (streams) than are served.",
        samples: |view| {
            let refused = view.refused.by_reason();
            refused
                .map(|(reason, count)| Sample::count([reason], count))
                .collect()
        },
    },
    Family {
        name: "connstate_socket_state_entries",
        kind: Kind::Gauge,
        labels: &[],
        help: "Sockets that the kernel programs remember between two transitions.",
        samples: |view| vec![Sample::count([], view.socket_entries)],
    },
    Family {
        name: "connstate_socket_state_capacity",
        kind: Kind::Gauge,
        labels: &[],
        help: "Sockets that the kernel programs have room to remember.",
        samples: |view| vec![Sample::count([], view.socket_capacity.into())],
    },
    Family {
        name: "connstate_build_info",
        kind: Kind::Gauge,
        labels: &["version", "kernel"],
        help: "Always 1; the agent's version and the release of the kernel it runs on.",
        samples: |view| vec![Sample::number([view.version, &view.kernel], 1.0)],
    },
];

fn of_programs(view: &View, value: impl Fn(&ProgramStats) -> Option<f64>) -> Vec<Sample> {
    view.programs
        .iter()
        .filter_map(|report| {
            let value = value(report.stats.as_ref()?)?;
            Some(Sample::number([report.program.name], value))
        })
        .collect()
}
