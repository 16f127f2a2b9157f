//! All hosts: which ones, and which workloads, do not finish closing.

use super::{
    ANY, CLOSE_WAIT_LEAKED, CLOSES, CONNECTS, FIN_WAIT1_STALLED, LIMIT, NONE, ORPHAN_LIMIT,
    RETRANSMITTED, SOCKETS, orphans_part, ports_part, retransmitted_part, time_wait_part,
};
use crate::{
    board::{Board, Row},
    expr::Expr,
    panel::{
        Panel,
        Unit::{Part, PerSecond},
    },
    variable::Variable,
};

pub(super) fn board() -> Board {
    Board {
        uid: "connstate-fleet",
        title: "connstate / Fleet",
        description: "Which hosts and workloads have connections that do not finish closing, and \
                      which kernel limits are near.",
        variables: &[Variable::Job, Variable::Instances, Variable::Workload],
        since: "now-3h",
        rows: vec![now(), owners(), over_time()],
    }
}

fn now() -> Row {
    Row {
        title: "Now",
        panels: vec![
            Panel::number("Hosts", Expr::up().equal(1.0).count().or_zero())
                .about("Hosts whose agent answers.")
                .size(3, 4),
            Panel::number("Hosts silent", Expr::up().equal(0.0).count().or_zero())
                .about("Hosts whose agent does not answer: nothing is known of them.")
                .thresholds(NONE)
                .size(3, 4),
            Panel::number("Never closed", CLOSE_WAIT_LEAKED.now("").sum().or_zero())
                .about("Sockets in CLOSE_WAIT for longer than --close-wait-leak-after: the peer has closed, the process does not.")
                .thresholds(ANY)
                .size(3, 4),
            Panel::number("Never acknowledged", FIN_WAIT1_STALLED.now("").sum().or_zero())
                .about("Sockets in FIN_WAIT1 for longer than --fin-wait1-stall-after: closed here, and the peer does not acknowledge it.")
                .thresholds(ANY)
                .size(3, 4),
            Panel::number("Most orphans", orphans_part().max())
                .about("Of all hosts the largest part of tcp_max_orphans in use. The kernel begins to kill at 25 %.")
                .unit(Part)
                .thresholds(ORPHAN_LIMIT)
                .size(3, 4),
            Panel::number("Most TIME_WAIT", time_wait_part().max())
                .about("Of all network namespaces the largest part of tcp_max_tw_buckets in use. Beyond it connections skip TIME_WAIT.")
                .unit(Part)
                .thresholds(LIMIT)
                .size(3, 4),
            Panel::number("Most ports taken", ports_part().max().or_zero())
                .about("Of all routes the largest part of the ephemeral ports toward one destination in use. Without a free one connect() fails.")
                .unit(Part)
                .thresholds(LIMIT)
                .size(3, 4),
            Panel::number("Sent again", retransmitted_part(&[]))
                .about("Segments sent again, as a part of all sent.")
                .unit(Part)
                .thresholds(RETRANSMITTED)
                .size(3, 4),
        ],
    }
}

fn owners() -> Row {
    let leaks = ["instance", "workload", "process", "port", "side", "cause"];
    Row {
        title: "Whose",
        panels: vec![
            Panel::table(
                "Leaks in CLOSE_WAIT",
                CLOSE_WAIT_LEAKED.now("").sum_by(&leaks).top(50),
                "sockets",
            )
            .about("The processes that do not close, the worst first. not_accepted: does not accept; eof_unread and data_unread: does not read; drained: has read all and does not close.")
            .size(14, 9),
            Panel::table(
                "Stalls in FIN_WAIT1",
                FIN_WAIT1_STALLED
                    .now("")
                    .sum_by(&["instance", "workload", "cause"])
                    .top(50),
                "sockets",
            )
            .about("unacked: the peer is gone or the path is cut; zero_window: it does not read; draining: it reads slowly.")
            .size(10, 9),
            Panel::table(
                "Hosts nearest to a limit",
                orphans_part().max_by(&["instance"]),
                "orphans",
            )
            .judged(ORPHAN_LIMIT)
            .and(time_wait_part().max_by(&["instance"]), "TIME_WAIT")
            .judged(LIMIT)
            .and(ports_part().max_by(&["instance"]), "ephemeral ports")
            .judged(LIMIT)
            .and(retransmitted_part(&["instance"]), "sent again")
            .judged(RETRANSMITTED)
            .about("Parts of tcp_max_orphans (kills begin at 25 %), of tcp_max_tw_buckets in the fullest network namespace, of the ephemeral ports toward the most crowded destination; and of all segments, those sent again.")
            .unit(Part)
            .size(24, 9),
        ],
    }
}

fn over_time() -> Row {
    Row {
        title: "Over time",
        panels: vec![
            Panel::lines(
                "Leaked by workload",
                CLOSE_WAIT_LEAKED.now("").sum_by(&["workload"]).top(10),
                "{{workload}}",
            )
            .about(
                "Sockets in CLOSE_WAIT that their process does not close; the ten worst workloads.",
            ),
            Panel::stack(
                "Stalled by cause",
                FIN_WAIT1_STALLED.now("").sum_by(&["cause"]),
                "{{cause}}",
            )
            .about("Sockets in FIN_WAIT1 whose peer does not acknowledge."),
            Panel::lines(
                "All sockets by state",
                SOCKETS.now(r#"state!="close""#).sum_by(&["state"]),
                "{{state}}",
            )
            .about("TCP sockets of all hosts and network namespaces."),
            Panel::stack(
                "Ends by cause",
                CLOSES.rate("").sum_by(&["cause"]).above(0.0),
                "{{cause}}",
            )
            .about("Why sockets ended, as the kernel programs judge it.")
            .unit(PerSecond),
            Panel::lines(
                "Connects by workload",
                CONNECTS.rate("").sum_by(&["workload"]).top(10),
                "{{workload}}",
            )
            .about("Who opens connections; the ten busiest workloads.")
            .unit(PerSecond),
            Panel::lines(
                "Sent again by host",
                retransmitted_part(&["instance"]).top(10),
                "{{instance}}",
            )
            .about("Segments sent again as a part of all sent; the ten worst hosts.")
            .unit(Part)
            .thresholds(RETRANSMITTED),
        ],
    }
}
