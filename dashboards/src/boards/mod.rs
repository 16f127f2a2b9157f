//! The three boards.

mod fleet;
mod host;
mod own;

use crate::{
    board::Board,
    expr::Expr,
    metric::{Counter, Gauge},
    panel::Colour::{self, Bad, Warning},
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
const ANY: &[(f64, Colour)] = &[(1.0, Warning)];
/// Nothing of the kind may be.
const NONE: &[(f64, Colour)] = &[(1.0, Bad)];
/// Parts of a limit, as the alerts judge them.
const LIMIT: &[(f64, Colour)] = &[(0.8, Warning), (1.0, Bad)];
/// Parts of `tcp_max_orphans`: kills begin at a quarter of it (`tcp_check_oom`).
const ORPHAN_LIMIT: &[(f64, Colour)] = &[(0.2, Warning), (0.25, Bad)];
/// Parts of all segments sent.
const RETRANSMITTED: &[(f64, Colour)] = &[(0.02, Warning), (0.05, Bad)];

/// Orphans, as a part of their limit.
fn orphans_part() -> Expr {
    ORPHANS.now("").part_of(&ORPHANS_LIMIT.now(""))
}

/// Timewait minisockets, as a part of their limit, in each network namespace.
fn time_wait_part() -> Expr {
    TIME_WAIT.now("").part_of(&TIME_WAIT_LIMIT.now(""))
}

/// Ephemeral ports in use toward each destination, as a part of those there are.
fn ports_part() -> Expr {
    let own = r#"netns!="_other""#;
    PORTS_USED
        .now(own)
        .parts_of(&["job", "instance", "netns"], &PORTS.now(own))
}

/// Segments sent again, as a part of all sent, by these labels.
fn retransmitted_part(by: &[&str]) -> Expr {
    let again = NETSTAT.rate(r#"name="RetransSegs""#).sum_by(by);
    again.part_of(&NETSTAT.rate(r#"name="OutSegs""#).sum_by(by))
}
