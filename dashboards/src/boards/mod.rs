//! The three boards.

mod fleet;
mod host;
mod own;

use crate::{
    board::Board,
    expr::Expr,
    metric::{Counter, Gauge},
    panel::{
        Colour::{Bad, Warning},
        Thresholds,
    },
};

/// The boards, in the order in which one descends: all hosts, one host, the agent itself.
#[must_use]
pub fn boards() -> Vec<Board> {
    vec![fleet::board(), host::board(), own::board()]
}

const CLOSE_WAIT_LEAKED: Gauge = Gauge::of("connstate_close_wait_leaked");
const FIN_WAIT1_STALLED: Gauge = Gauge::of("connstate_fin_wait1_stalled");
const SOCKETS: Gauge = Gauge::of("connstate_sockets");
const CLOSES: Counter = Counter::of("connstate_closes_total");
const CONNECTS: Counter = Counter::of("connstate_connects_total");
const NETSTAT: Counter = Counter::of("connstate_netstat_total");
const ORPHANS: Gauge = Gauge::of("connstate_orphans");
const ORPHANS_LIMIT: Gauge = Gauge::of("connstate_orphans_limit");
const TIME_WAIT: Gauge = Gauge::of("connstate_time_wait_sockets");
const TIME_WAIT_LIMIT: Gauge = Gauge::of("connstate_time_wait_limit");
const PORTS: Gauge = Gauge::of("connstate_ephemeral_ports");
const PORTS_USED: Gauge = Gauge::of("connstate_ephemeral_ports_used");

/// Anything at all is worth a look.
const ANY: Thresholds = &[(1.0, Warning)];
/// Nothing of the kind may be.
const NONE: Thresholds = &[(1.0, Bad)];
/// Parts of a limit, as the alerts judge them.
const LIMIT: Thresholds = &[(0.8, Warning), (1.0, Bad)];
/// The part of `tcp_max_orphans` at which kills can begin: `tcp_check_oom` counts an orphan up to
/// four times, the more the worse it behaves.
const KILLS_BEGIN: f64 = 0.25;
/// Parts of `tcp_max_orphans`, as the alerts judge them.
const ORPHAN_LIMIT: Thresholds = &[(0.8 * KILLS_BEGIN, Warning), (KILLS_BEGIN, Bad)];
/// Parts of all segments sent.
const RETRANSMITTED: Thresholds = &[(0.02, Warning), (0.05, Bad)];

/// What could be told apart: beyond 100 namespaces, or ranges of ports, the others' values are one
/// sum under `_other`, limits included, and such a sum is near no limit of any.
const TOLD_APART: &str = r#"netns!="_other""#;

/// What tells a network namespace from all others.
const NAMESPACE: [&str; 3] = ["job", "instance", "netns"];

/// Orphans, as a part of their limit.
fn orphans_part() -> Expr {
    ORPHANS.now("").part_of(&ORPHANS_LIMIT.now(""))
}

/// Timewait minisockets, as a part of their limit, in each network namespace.
fn time_wait_part() -> Expr {
    TIME_WAIT
        .now(TOLD_APART)
        .part_of(&TIME_WAIT_LIMIT.now(TOLD_APART))
}

/// Ephemeral ports in use toward each destination, as a part of those there are.
fn ports_part() -> Expr {
    PORTS_USED
        .now(TOLD_APART)
        .parts_of(&NAMESPACE, &PORTS.now(TOLD_APART))
}

/// Segments sent again, as a part of all sent, by these labels.
fn retransmitted_part(by: &[&str]) -> Expr {
    let again = NETSTAT.rate(r#"name="RetransSegs""#).sum_by(by);
    again.part_of(&NETSTAT.rate(r#"name="OutSegs""#).sum_by(by))
}
