//! What the other panels of one host's board must show of the lab's sockets.

use std::time::Instant;

use tests::http::number;

use super::{
    lab::{
        CLOSE_WAIT, DRAINED, HALF_CLOSED, LAST_ACKS, Lab, NOT_ACCEPTED, PACE, PORTS_USED,
        PORTS_WAITING, UNACKED,
    },
    panels::{Expected, HOST, NEVER, about, connects, ends, sent_again, states},
    stack::AGENT,
    want::{bucket, exactly, is, of},
};

pub(crate) fn findings(lab: &Lab) -> Vec<Expected> {
    let ports = [lab.api.port.to_string(), lab.search.port.to_string()];
    let owner = |place: usize| {
        let (leak, process) = [(&lab.api, "api"), (&lab.search, "search")][place];
        [
            ("workload", leak.workload.as_str()),
            ("process", process),
            ("port", ports[place].as_str()),
            ("side", "server"),
        ]
    };
    let [api, search] = [owner(0), owner(1)];
    let with = |owner: [(&'static str, &str); 4], cause| {
        let labels: Vec<_> = owner.into_iter().chain([("cause", cause)]).collect();
        of(
            &labels,
            if cause == "drained" {
                DRAINED
            } else {
                NOT_ACCEPTED
            },
        )
    };
    // As old as that is, or as it was at the last scrape of the last census.
    let age = |since: Instant| {
        let age = since.elapsed().as_secs_f64();
        age - 5.0..=age + 1.0
    };
    let own = |cause| [("workload", lab.own.as_str()), ("cause", cause)];
    vec![
        (
            HOST,
            "Leaks in CLOSE_WAIT",
            vec![exactly(vec![
                with(api, "drained"),
                with(search, "not_accepted"),
            ])],
        ),
        (
            HOST,
            "Oldest leak",
            vec![exactly(vec![
                of(&api, age(lab.api.since)),
                of(&search, age(lab.search.since)),
            ])],
        ),
        (
            HOST,
            "Leaks over time",
            vec![exactly(vec![of(&api, DRAINED), of(&search, NOT_ACCEPTED)])],
        ),
        (
            HOST,
            "FIN_WAIT1 stalls",
            vec![exactly(vec![of(&own("unacked"), UNACKED)])],
        ),
        (
            HOST,
            "Other stalls",
            vec![
                exactly(vec![of(&own("half_closed"), HALF_CLOSED)]),
                exactly(vec![of(&own("unacked"), LAST_ACKS)]),
            ],
        ),
        (HOST, "Oldest FIN_WAIT1", vec![is(age(lab.stalled))]),
        (
            HOST,
            "Orphans by state",
            vec![vec![
                of(
                    &[("state", "fin_wait1")],
                    number(UNACKED as u64)..=number(UNACKED as u64) + 2.0,
                ),
                of(
                    &[("state", "last_ack")],
                    number(LAST_ACKS as u64)..=number(LAST_ACKS as u64) + 2.0,
                ),
            ]],
        ),
        (HOST, "Ends by cause", vec![ends()]),
    ]
}

pub(crate) fn events(lab: &Lab) -> Vec<Expected> {
    let all = 2.0 * PACE;
    let from_to = |from, to| of(&[("from", from), ("to", to)], about(all));
    // In half a minute of connections.
    let fell = |below, le, by: f64| vec![bucket(below, le, about(by * all * 30.0))];
    let close_wait = CLOSE_WAIT.as_secs_f64();
    let api = [("workload", lab.api.workload.as_str())];
    let search = [("workload", lab.search.workload.as_str())];
    let own = [("workload", lab.own.as_str())];
    // The other ends of all that does not finish closing, both of what is gone, both of what holds
    // ports; and, since they are children of this process, those that Prometheus, Alertmanager and
    // the agent have among themselves.
    let held = HALF_CLOSED + LAST_ACKS + 2 * UNACKED + 2 * (PORTS_USED - PORTS_WAITING);
    let others = number(held as u64)..=number(held as u64) + 30.0;
    vec![
        (HOST, "Sockets by state", vec![states()]),
        (
            HOST,
            "Sockets by workload",
            vec![exactly(vec![
                of(&api, DRAINED),
                of(&search, NOT_ACCEPTED),
                of(&own, others),
            ])],
        ),
        // Two that are being closed whenever one looks.
        (
            HOST,
            "CLOSE_WAIT by workload",
            vec![exactly(vec![
                of(&api, DRAINED),
                of(&search, NOT_ACCEPTED),
                of(&own, 0.0..=2.0),
            ])],
        ),
        (
            HOST,
            "Transitions",
            vec![vec![
                from_to("fin_wait1", "fin_wait2"),
                from_to("established", "close_wait"),
                from_to("close_wait", "last_ack"),
                from_to("last_ack", "close"),
            ]],
        ),
        (HOST, "Connects by workload", vec![connects(lab)]),
        // Given up after two seconds.
        (
            HOST,
            "In SYN_SENT",
            vec![vec![
                bucket("1", "3", about(30.0)),
                of(&[("le", "+Inf")], about((all + 1.0) * 30.0)),
            ]],
        ),
        // At once a minisocket's, or nobody's.
        (HOST, "In FIN_WAIT2", vec![fell("0.000001", "0.001", 1.0)]),
        // Nobody closes at the same time as the peer.
        (HOST, "In CLOSING", vec![vec![of(&[("le", "+Inf")], NEVER)]]),
        (HOST, "In LAST_ACK", vec![fell("0.000001", "0.001", 1.0)]),
        (HOST, "In CLOSE_WAIT", vec![fell("0.01", "0.03", 1.0)]),
        // The other end acknowledges at the next tick: that it is closed will soon be said, too.
        (HOST, "In FIN_WAIT1", vec![fell("0.000001", "0.03", 1.0)]),
        // Both ends.
        (HOST, "Established", vec![fell("0.003", "0.01", 2.0)]),
        (
            HOST,
            "99 of 100 leave within",
            vec![vec![of(
                &[("state", "close_wait")],
                close_wait..=close_wait * 20.0,
            )]],
        ),
        (
            HOST,
            "Sent again",
            vec![vec![of(&[("instance", AGENT)], sent_again())]],
        ),
        (
            HOST,
            "By packet and trigger",
            vec![vec![of(
                &[("packet", "syn"), ("trigger", "rto")],
                about(1.0),
            )]],
        ),
        (
            HOST,
            "By state",
            vec![vec![of(&[("state", "syn_sent")], about(1.0))]],
        ),
    ]
}

pub(crate) fn settings(lab: &Lab) -> Vec<Expected> {
    let [ports, leaks] = [&lab.ports, &lab.leaks].map(|netns| netns.inode().to_string());
    let workloads = [&lab.own, &lab.api.workload, &lab.search.workload].map(|workload| {
        let unit = workload.trim_start_matches("unit:");
        of(&[("workload", workload), ("unit", unit)], 1)
    });
    let setting = |name, value| of(&[("netns", ports.as_str()), ("name", name)], value);
    vec![
        (
            HOST,
            "Kernel counters",
            vec![vec![of(&[("name", "TCPTimeWaitOverflow")], about(PACE))]],
        ),
        (
            HOST,
            "Settings",
            vec![vec![
                setting("ip_local_port_range_low", 40_000),
                setting("tcp_tw_reuse", NEVER),
            ]],
        ),
        (HOST, "Workloads", vec![exactly(workloads.into())]),
        (
            HOST,
            "Network namespaces",
            vec![vec![of(&[("netns", &leaks)], 1)]],
        ),
    ]
}
