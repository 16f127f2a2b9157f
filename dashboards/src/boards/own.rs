//! The agent itself: does it run, does it see everything, what does it cost.

use super::NONE;
use crate::{
    board::{Board, Row},
    expr::Expr,
    metric::{Counter, Gauge, Histogram},
    panel::{
        Colour::{Bad, Warning},
        Panel, Thresholds,
        Unit::{Bytes, Part, PerSecond, Seconds},
    },
    variable::Variable,
};

const ATTACHED: Gauge = Gauge::of("connstate_bpf_program_attached");
const EVENTS: Counter = Counter::of("connstate_events_total");
const LOST: Counter = Counter::of("connstate_events_lost_total");
const MISSES: Counter = Counter::of("connstate_bpf_program_misses_total");
const RUNS: Counter = Counter::of("connstate_bpf_program_runs_total");
const RUN_SECONDS: Counter = Counter::of("connstate_bpf_program_run_seconds_total");
const CENSUS_DURATION: Histogram = Histogram::of("connstate_census_duration_seconds");
const CENSUS_TIME: Gauge = Gauge::of("connstate_census_last_completion_timestamp_seconds");
const CENSUS_INTERVAL: Gauge = Gauge::of("connstate_census_interval_seconds");
const UNREACHED: Gauge = Gauge::of("connstate_census_unreached_namespaces");
const UNTOLD: Gauge = Gauge::of("connstate_census_untold_sockets");
const REFUSED: Counter = Counter::of("connstate_http_refused_total");
const ENTRIES: Gauge = Gauge::of("connstate_socket_state_entries");
const CAPACITY: Gauge = Gauge::of("connstate_socket_state_capacity");
const BUILD_INFO: Gauge = Gauge::of("connstate_build_info");
const CPU_SECONDS: Counter = Counter::process(0);
const OPEN_FDS: Gauge = Gauge::process(1);
const MAX_FDS: Gauge = Gauge::process(2);
const VIRTUAL_BYTES: Gauge = Gauge::process(3);
const RESIDENT_BYTES: Gauge = Gauge::process(4);
const START_TIME: Gauge = Gauge::process(5);
const THREADS: Gauge = Gauge::process(6);

/// Seconds since the last census: the agent stretches its intervals to 30 s at most, and the alert
/// waits for twice the interval and a minute.
const AGE: Thresholds = &[(30.0, Warning), (120.0, Bad)];
const FULL: Thresholds = &[(0.8, Warning), (0.95, Bad)];
/// Losses a second: one in the five minutes that the alert looks back.
const LOSSES: Thresholds = &[(0.003, Bad)];

pub(super) fn board() -> Board {
    Board {
        uid: "connstate-agent",
        title: "connstate / Agent",
        description: "Whether the agents run, what they could not see, and what they cost.",
        variables: &[Variable::Job, Variable::Instances],
        since: "now-3h",
        rows: vec![health(), losses(), census(), cost()],
    }
}

fn health() -> Row {
    Row {
        title: "Health",
        panels: vec![
            Panel::number("Answering", Expr::up().sum())
                .about("Agents that Prometheus can scrape."),
            Panel::number("Programs not attached", ATTACHED.now("").equal(0.0).count().or_zero())
                .about("Kernel programs that do not run; `agent check` says why, and what is lost.")
                .thresholds(NONE),
            Panel::number("Records lost", LOST.increase(r#"reason!="slow_listener""#).sum())
                .about("Records that found no room, in the range shown. Totals and gauges stay right; single events are missing.")
                .thresholds(NONE),
            Panel::number("Namespaces unreached", UNREACHED.now("").sum())
                .about("Network namespaces that the last census could not count; the log names them.")
                .thresholds(NONE),
            Panel::number("Sockets not told apart", UNTOLD.now("").sum())
                .about("Counted by the last census, but beyond the bounds of what it tells one by one.")
                .thresholds(NONE),
            Panel::number("Oldest census", CENSUS_TIME.now(r#"kind="known""#).age().max())
                .about("How old the gauges of the host with the oldest ones are.")
                .unit(Seconds)
                .thresholds(AGE),
            Panel::table("Versions", BUILD_INFO.now("").max_by(&["instance", "version", "kernel"]), "known")
                .about("Which agent runs on which kernel.")
                .size(12, 8),
            Panel::table("Programs", ATTACHED.now("").max_by(&["instance", "program"]), "attached")
                .about("1: runs; 0: does not.")
                .size(12, 8),
        ],
    }
}

fn losses() -> Row {
    Row {
        title: "What it sees, and what it missed",
        panels: vec![
            Panel::lines("Records", EVENTS.rate("").sum_by(&["instance"]), "{{instance}}")
                .about("Records received from the kernel programs.")
                .unit(PerSecond)
                .size(6, 8),
            Panel::lines("Losses", LOST.rate("").sum_by(&["reason"]), "{{reason}}")
                .about("ring_full: more came than the agent took; state_full: more sockets than --socket-capacity; malformed: not understood; slow_listener: too fast for who listened, and lost to that one alone.")
                .unit(PerSecond)
                .thresholds(LOSSES)
                .size(6, 8),
            Panel::lines("Skipped runs", MISSES.rate("").sum_by(&["program"]), "{{program}}")
                .about("Runs that the kernel skipped because the program was running on that CPU already.")
                .unit(PerSecond)
                .size(6, 8),
            Panel::lines("Refused by HTTP", REFUSED.rate("").sum_by(&["reason"]), "{{reason}}")
                .about("Connections and requests turned away.")
                .unit(PerSecond)
                .size(6, 8),
        ],
    }
}

fn census() -> Row {
    Row {
        title: "Census",
        panels: vec![
            Panel::lines("99 of 100 take", CENSUS_DURATION.quantile(0.99, &["kind"]), "{{kind}}")
                .about("How long the passes of a census take.")
                .unit(Seconds)
                .size(6, 8),
            Panel::lines("From one to the next", CENSUS_INTERVAL.now("").max_by(&["instance"]), "{{instance}}")
                .about("--census-interval, or longer: all censuses together take at most 1 % of a core.")
                .unit(Seconds)
                .size(6, 8),
            Panel::lines("Age of the gauges", CENSUS_TIME.now("").age().max_by(&["instance", "kind"]), "{{instance}} {{kind}}")
                .about("known: full sockets, limits, findings; full: what minisockets by state, requests and ephemeral ports rest on.")
                .unit(Seconds)
                .thresholds(AGE)
                .size(6, 8),
            Panel::dial("Room for sockets", ENTRIES.now("").part_of(&CAPACITY.now("")).max_by(&["instance"]).top(8), "{{instance}}")
                .about("The part of --socket-capacity in use: sockets that the kernel programs remember between two transitions.")
                .thresholds(FULL)
                .size(6, 8),
        ],
    }
}

fn cost() -> Row {
    Row {
        title: "Cost",
        panels: vec![
            Panel::lines("Processor", CPU_SECONDS.rate("").max_by(&["instance"]), "{{instance}}")
                .about("Of one core, by the agent's own threads; what its kernel programs cost is not in it.")
                .unit(Part),
            Panel::lines("Kernel programs", RUN_SECONDS.rate("").sum_by(&["program"]), "{{program}}")
                .about("Of one core, in the kernel programs; only with --bpf-stats.")
                .unit(Part),
            Panel::lines("A run takes", RUN_SECONDS.rate("").sum_by(&["program"]).part_of(&RUNS.rate("").sum_by(&["program"])), "{{program}}")
                .about("The mean of late; only with --bpf-stats.")
                .unit(Seconds),
            Panel::lines("Memory", RESIDENT_BYTES.now("").max_by(&["instance"]), "{{instance}} resident")
                .and(VIRTUAL_BYTES.now("").max_by(&["instance"]), "{{instance}} virtual")
                .about("Of the agent's process; its kernel programs' maps are not in it.")
                .unit(Bytes),
            Panel::lines("File descriptors", OPEN_FDS.now("").max_by(&["instance"]), "{{instance}} open")
                .and(MAX_FDS.now("").max_by(&["instance"]), "{{instance}} limit")
                .and(THREADS.now("").max_by(&["instance"]), "{{instance}} threads")
                .about("Open ones, how many there may be, and threads."),
            Panel::lines("Running for", START_TIME.now("").age().max_by(&["instance"]), "{{instance}}")
                .about("Since the agent was started.")
                .unit(Seconds),
        ],
    }
}
