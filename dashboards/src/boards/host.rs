//! One host: its sockets by state, how long they stay, whose do not finish closing, its limits.

use super::{
    ANY, CLOSE_WAIT_LEAKED, CLOSES, CONNECTS, FIN_WAIT1_STALLED, KILLS_BEGIN, LIMIT, NAMESPACE,
    NETSTAT, ORPHAN_LIMIT, ORPHANS, ORPHANS_LIMIT, PORTS, PORTS_USED, RETRANSMITTED, SOCKETS,
    TIME_WAIT, TIME_WAIT_LIMIT, TOLD_APART, orphans_part, ports_part, retransmitted_part,
    time_wait_part,
};
use crate::{
    board::{Board, Row},
    expr::Expr,
    metric::{Counter, Gauge, Histogram},
    panel::{
        Colour::{Bad, Good, Warning},
        Panel, Thresholds,
        Unit::{Part, PerSecond, Seconds},
    },
    variable::Variable,
};

const WORKLOAD_SOCKETS: Gauge = Gauge::of("connstate_workload_sockets");
const WORKLOAD_INFO: Gauge = Gauge::of("connstate_workload_info");
const NETNS_INFO: Gauge = Gauge::of("connstate_netns_info");
const ORPHAN_SOCKETS: Gauge = Gauge::of("connstate_orphan_sockets");
const FIN_WAIT1_OLDEST: Gauge = Gauge::of("connstate_fin_wait1_oldest_seconds");
const FIN_WAIT2_STALLED: Gauge = Gauge::of("connstate_fin_wait2_stalled");
const LAST_ACK_STALLED: Gauge = Gauge::of("connstate_last_ack_stalled");
const CLOSE_WAIT_OLDEST: Gauge = Gauge::of("connstate_close_wait_oldest_seconds");
const ORPHAN_KILLS: Counter = Counter::of("connstate_orphan_kills_total");
const OVERFLOWS: Counter = Counter::of("connstate_time_wait_overflows_total");
const SYSCTL: Gauge = Gauge::of("connstate_sysctl");
const TRANSITIONS: Counter = Counter::of("connstate_state_transitions_total");
const DURATION: Histogram = Histogram::of("connstate_state_duration_seconds");
const RETRANSMITS: Counter = Counter::of("connstate_retransmits_total");

/// Sockets and ports that are left. A busy host makes a hundred in a second, and by default a limit
/// is in the thousands at least.
const LEFT: Thresholds = &[(f64::NEG_INFINITY, Bad), (100.0, Warning), (1000.0, Good)];
/// Seconds that are left: red where the alert would judge so.
const TIME_LEFT: Thresholds = &[(f64::NEG_INFINITY, Bad), (1800.0, Warning), (7200.0, Good)];

pub(super) fn board() -> Board {
    Board {
        uid: "connstate-host",
        title: "connstate / Host",
        description: "The TCP sockets of one host: states, how long they stay there, whose do not \
                      finish closing, and the kernel's limits.",
        variables: &[Variable::Job, Variable::Instance, Variable::Workload],
        since: "now-1h",
        rows: vec![
            findings(),
            limits(),
            states(),
            durations(),
            retransmits(),
            settings(),
        ],
    }
}

fn findings() -> Row {
    let owner = ["workload", "process", "port", "side"];
    let leaks = ["workload", "process", "port", "side", "cause"];
    Row {
        title: "Does not finish closing",
        panels: vec![
            Panel::table("Leaks in CLOSE_WAIT", CLOSE_WAIT_LEAKED.now("").sum_by(&leaks), "sockets")
                .about("By owner. not_accepted: does not accept; eof_unread and data_unread: does not read; drained: has read all and does not close. Nothing but the process ends them.")
                .size(12, 8),
            Panel::table("Oldest leak", CLOSE_WAIT_OLDEST.now("").max_by(&owner), "age")
                .about("Since when each owner leaks; at least that, for sockets older than the agent.")
                .unit(Seconds)
                .size(12, 8),
            Panel::lines("Leaks over time", CLOSE_WAIT_LEAKED.now("").sum_by(&owner), "{{process}} {{side}} {{port}}")
                .about("Sockets in CLOSE_WAIT for longer than --close-wait-leak-after, by owner.")
                .thresholds(ANY),
            Panel::stack("FIN_WAIT1 stalls", FIN_WAIT1_STALLED.now("").sum_by(&["cause", "workload"]), "{{cause}} {{workload}}")
                .about("Closed here, and the peer does not acknowledge it. unacked: it is gone or the path is cut; zero_window: it does not read; draining: it reads slowly."),
            Panel::lines("Other stalls", FIN_WAIT2_STALLED.now("").sum_by(&["cause", "workload"]), "fin_wait2 {{cause}} {{workload}}")
                .and(LAST_ACK_STALLED.now("").sum_by(&["cause", "workload"]), "last_ack {{cause}} {{workload}}")
                .about("FIN_WAIT2: acknowledged, and the peer does not close. LAST_ACK and CLOSING: the peer closed first, and does not acknowledge ours."),
            Panel::number("Oldest FIN_WAIT1", FIN_WAIT1_OLDEST.now("").max())
                .about("How long the oldest socket is in FIN_WAIT1.")
                .unit(Seconds)
                .size(4, 7),
            Panel::stack("Orphans by state", ORPHAN_SOCKETS.now("").sum_by(&["state"]), "{{state}}")
                .about("Sockets that no process holds any more, and TCP still does.")
                .size(10, 7),
            Panel::stack("Ends by cause", CLOSES.rate("").sum_by(&["cause"]).above(0.0), "{{cause}}")
                .about("Why sockets ended, as the kernel programs judge it.")
                .unit(PerSecond)
                .size(10, 7),
        ],
    }
}

fn limits() -> Row {
    Row {
        title: "Limits",
        panels: vec![
            Panel::dial("Orphans", orphans_part(), "tcp_max_orphans")
                .about("The part of tcp_max_orphans in use. The kernel begins to kill at 25 %.")
                .thresholds(ORPHAN_LIMIT),
            Panel::dial("TIME_WAIT", time_wait_part().top(8), "netns {{netns}}")
                .about("The part of tcp_max_tw_buckets in use, in the fullest network namespaces. Beyond it connections skip TIME_WAIT.")
                .thresholds(LIMIT),
            Panel::dial("Ephemeral ports", ports_part().top(8), "{{destination}}:{{port}}")
                .about("The part of the ephemeral ports toward a destination in use. Without a free one connect() fails with EADDRNOTAVAIL.")
                .thresholds(LIMIT),
            Panel::number("Orphans until kills", orphans_until_kills())
                .about("How many more orphans until the kernel begins to kill some: a quarter of tcp_max_orphans, less those there are. Below 0 it may be killing.")
                .thresholds(LEFT)
                .size(6, 5),
            Panel::numbers("TIME_WAIT left", time_wait_left().bottom(4), "netns {{netns}}")
                .about("How many more timewait minisockets until tcp_max_tw_buckets, in the network namespaces with the fewest left.")
                .thresholds(LEFT),
            Panel::numbers("Ports left", ports_left().bottom(4), "{{destination}}:{{port}}")
                .about("Free ephemeral ports toward the destinations with the fewest left; an upper bound, since ports that are only bound do not show.")
                .thresholds(LEFT),
            Panel::numbers("Time until no port is left", ports_seconds_left().bottom(4), "{{destination}}:{{port}}")
                .about("Of the destinations that run out first, at the pace of the last ten minutes; none of those whose ports are not getting fewer. A burst looks short here, and slows down when its first ports are out of TIME_WAIT, after a minute.")
                .unit(Seconds)
                .thresholds(TIME_LEFT),
            Panel::lines("Orphans against the limit", ORPHANS.now(""), "orphans")
                .and(ORPHANS_LIMIT.now(""), "tcp_max_orphans")
                .about("The kernel's own count of the whole host.")
                .size(6, 7),
            Panel::lines("TIME_WAIT by namespace", TIME_WAIT.now(TOLD_APART), "netns {{netns}}")
                .and(TIME_WAIT_LIMIT.now(TOLD_APART).max(), "the largest tcp_max_tw_buckets")
                .about("Timewait minisockets of both substates, which is what the limit counts; of the 100 network namespaces that are told apart.")
                .size(6, 7),
            Panel::lines("Ports toward a destination", PORTS_USED.now(TOLD_APART).top(10), "{{source}} → {{destination}}:{{port}}")
                .and(PORTS.now(TOLD_APART).max(), "ports there are")
                .about("Ephemeral ports in use, of the most crowded routes; a lower bound.")
                .size(6, 7),
            Panel::lines("What limits cost", ORPHAN_KILLS.rate("").sum(), "orphans killed")
                .and(OVERFLOWS.rate("").sum(), "TIME_WAIT skipped")
                .about("Orphans that the kernel killed, and connections that skipped TIME_WAIT.")
                .unit(PerSecond)
                .size(6, 7),
        ],
    }
}

fn orphans_until_kills() -> Expr {
    let first_kill = ORPHANS_LIMIT.now("").times(KILLS_BEGIN);
    first_kill.less(&ORPHANS.now("")).min()
}

fn time_wait_left() -> Expr {
    TIME_WAIT_LIMIT
        .now(TOLD_APART)
        .less(&TIME_WAIT.now(TOLD_APART))
}

fn ports_left() -> Expr {
    PORTS
        .now(TOLD_APART)
        .less_each(&NAMESPACE, &PORTS_USED.now(TOLD_APART))
}

/// As deploy/prometheus/rules records it; the board does without the rules.
fn ports_seconds_left() -> Expr {
    ports_left().part_of(&PORTS_USED.slope(10, TOLD_APART))
}

fn states() -> Row {
    Row {
        title: "States",
        panels: vec![
            Panel::lines(
                "Sockets by state",
                SOCKETS.now(r#"state!="close""#),
                "{{state}}",
            )
            .about("TCP sockets of every network namespace, as ss shows them."),
            Panel::lines(
                "Sockets by workload",
                WORKLOAD_SOCKETS.now("").sum_by(&["workload"]).top(10),
                "{{workload}}",
            )
            .about("Full sockets of the ten largest workloads, in the states that are told apart."),
            Panel::lines(
                "CLOSE_WAIT by workload",
                WORKLOAD_SOCKETS.now(r#"state="close_wait""#).top(10),
                "{{workload}}",
            )
            .about("Sockets in CLOSE_WAIT, however short, of the ten workloads with most."),
            Panel::stack(
                "Transitions",
                TRANSITIONS.rate("").sum_by(&["from", "to"]).above(0.0),
                "{{from}} → {{to}}",
            )
            .about("How sockets went from state to state; a TIME_WAIT shows as a close.")
            .unit(PerSecond)
            .size(12, 8),
            Panel::lines(
                "Connects by workload",
                CONNECTS.rate("").sum_by(&["workload"]).top(10),
                "{{workload}}",
            )
            .about("Who opens connections; the ten busiest workloads.")
            .unit(PerSecond)
            .size(12, 8),
        ],
    }
}

/// In the order of a connection's life: the end that closes first, then the other one.
fn durations() -> Row {
    let quarter = |title, state: &str| {
        Panel::heat(title, DURATION.buckets(&format!(r#"state="{state}""#))).size(6, 8)
    };
    let third = |title, state| quarter(title, state).size(8, 8);
    Row {
        title: "How long sockets stay",
        panels: vec![
            quarter("In SYN_SENT", "syn_sent")
                .about("From connect() until the peer answers: a round trip; a second and more where the first packet is lost."),
            quarter("Established", "established").about("How long connections last."),
            quarter("In FIN_WAIT1", "fin_wait1")
                .about("From this side's FIN until it is acknowledged: a round trip, where all is well."),
            quarter("In FIN_WAIT2", "fin_wait2_full")
                .about("From then until the peer's FIN, or until a timewait minisocket waits for it: at once where the process has closed. Long where it has shut down one direction alone."),
            third("In CLOSING", "closing")
                .about("Both sides have sent their FIN at once: until this side's is acknowledged. Rare."),
            third("In CLOSE_WAIT", "close_wait")
                .about("From the peer's FIN until this side closes: what the process takes to notice."),
            third("In LAST_ACK", "last_ack")
                .about("From this side's FIN, after the peer's, until it is acknowledged: a round trip, where all is well."),
            Panel::lines("99 of 100 leave within", DURATION.quantile(0.99, &["state"]), "{{state}}")
                .about("The 99th percentile of the time in each state, of those that left it.")
                .unit(Seconds)
                .size(24, 7),
        ],
    }
}

fn retransmits() -> Row {
    Row {
        title: "Retransmissions",
        panels: vec![
            Panel::lines("Sent again", retransmitted_part(&["instance"]), "of all segments")
                .about("Segments sent again as a part of all sent.")
                .unit(Part)
                .thresholds(RETRANSMITTED),
            Panel::stack("By packet and trigger", RETRANSMITS.rate("").sum_by(&["packet", "trigger"]).above(0.0), "{{packet}} {{trigger}}")
                .about("What was sent again, and what made the kernel repeat it: a timeout, duplicate acknowledgements, a tail-loss probe.")
                .unit(PerSecond),
            Panel::stack("By state", RETRANSMITS.rate("").sum_by(&["state"]).above(0.0), "{{state}}")
                .about("In which state the sockets were.")
                .unit(PerSecond),
        ],
    }
}

fn settings() -> Row {
    Row {
        title: "Whose namespaces, which settings",
        panels: vec![
            Panel::lines(
                "Kernel counters",
                NETSTAT.rate("").sum_by(&["name"]).above(0.0),
                "{{name}}",
            )
            .about(
                "The kernel's own counters (nstat) behind these boards, of all network namespaces.",
            )
            .unit(PerSecond)
            .size(12, 9),
            Panel::table(
                "Settings",
                SYSCTL.now("").max_by(&["netns", "name"]),
                "value",
            )
            .about("The sysctls that bear on closing connections; vectors as their parts."),
            Panel::table(
                "Workloads",
                WORKLOAD_INFO
                    .now("")
                    .max_by(&["workload", "unit", "pod_uid", "container_id"]),
                "known",
            )
            .about("What is known of each workload with sockets."),
            Panel::table(
                "Network namespaces",
                NETNS_INFO.now("").max_by(&["netns", "workload"]),
                "known",
            )
            .about("The workload of the first process found in each network namespace."),
        ],
    }
}
