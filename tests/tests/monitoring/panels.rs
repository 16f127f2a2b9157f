//! What every panel of every board must show of the lab's sockets, query by query.

use std::{fs, ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result};
use tests::http::number;

use super::{
    lab::{
        BUCKETS, CLOSE_WAIT, DRAINED, HALF_CLOSED, LAST_ACKS, Lab, NOT_ACCEPTED, PACE, PORTS,
        PORTS_USED, UNACKED,
    },
    stack::{AGENT, Stack},
    want::{Want, is, of},
};

/// A panel, by its board and title, and what each of its queries must answer.
pub(crate) type Expected = (&'static str, &'static str, Vec<Vec<Want>>);

const FLEET: &str = "connstate-fleet";
const HOST: &str = "connstate-host";
const OWN: &str = "connstate-agent";

/// Nothing of the kind happens in the lab, and a panel has to say so with a zero.
const NEVER: usize = 0;

/// What a rate may be off: scrapes do not fall on the beat, and the host has a few connections of
/// its own.
fn about(rate: f64) -> RangeInclusive<f64> {
    rate * 0.7..=rate * 1.6
}

/// Segments sent again, one a second, among the ten or so of each connection of the lab's and
/// those of the requests to Prometheus.
fn sent_again() -> RangeInclusive<f64> {
    0.000_5..=0.02
}

/// Parts of small wholes are not exact in binary.
fn part(some: usize, all: usize) -> RangeInclusive<f64> {
    let part = number(some as u64) / number(all as u64);
    part - 1e-9..=part + 1e-9
}

/// The kernel's count of orphans, which is kept by CPU: those of the lab, and a few that come and
/// go.
fn orphans() -> (f64, f64) {
    let least = number((UNACKED + LAST_ACKS) as u64);
    (least, least + 20.0)
}

fn orphan_part() -> Result<RangeInclusive<f64>> {
    let limit = max_orphans()?;
    let (least, most) = orphans();
    Ok(least / limit..=most / limit)
}

fn max_orphans() -> Result<f64> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/tcp_max_orphans")?
        .trim()
        .parse()?)
}

/// All panels of the board of all hosts.
pub(crate) fn fleet(lab: &Lab) -> Result<Vec<Expected>> {
    let leaks = |labels: &[&'static str]| {
        let [api, search] = [
            (&lab.api, "api", "drained"),
            (&lab.search, "search", "not_accepted"),
        ]
        .map(|(leak, process, cause)| {
            let port = leak.port.to_string();
            let all = [
                ("instance", AGENT),
                ("workload", leak.workload.as_str()),
                ("process", process),
                ("port", port.as_str()),
                ("side", "server"),
                ("cause", cause),
            ];
            all.into_iter()
                .filter(|(name, _)| labels.contains(name))
                .map(|(name, value)| (name, value.to_owned()))
                .collect::<Vec<_>>()
        });
        vec![owned(&api, DRAINED), owned(&search, NOT_ACCEPTED)]
    };
    let by_host = |value: RangeInclusive<f64>| vec![of(&[("instance", AGENT)], value)];
    let ports = part(PORTS_USED, PORTS);
    Ok(vec![
        (FLEET, "Hosts", vec![is(1)]),
        (FLEET, "Hosts silent", vec![is(1)]),
        (FLEET, "Never closed", vec![is(DRAINED + NOT_ACCEPTED)]),
        (FLEET, "Never acknowledged", vec![is(UNACKED)]),
        (FLEET, "Most orphans", vec![is(orphan_part()?)]),
        (FLEET, "Most TIME_WAIT", vec![is(1)]),
        (FLEET, "Most ports taken", vec![is(ports.clone())]),
        (FLEET, "Sent again", vec![is(sent_again())]),
        (
            FLEET,
            "Leaks in CLOSE_WAIT",
            vec![leaks(&[
                "instance", "workload", "process", "port", "side", "cause",
            ])],
        ),
        (
            FLEET,
            "Stalls in FIN_WAIT1",
            vec![vec![of(
                &[
                    ("instance", AGENT),
                    ("workload", &lab.own),
                    ("cause", "unacked"),
                ],
                UNACKED,
            )]],
        ),
        (
            FLEET,
            "Hosts nearest to a limit",
            vec![
                by_host(orphan_part()?),
                by_host(1.0..=1.0),
                by_host(ports),
                by_host(sent_again()),
            ],
        ),
        (FLEET, "Leaked by workload", vec![leaks(&["workload"])]),
        (
            FLEET,
            "Stalled by cause",
            vec![vec![of(&[("cause", "unacked")], UNACKED)]],
        ),
        (FLEET, "All sockets by state", vec![states()]),
        (FLEET, "Ends by cause", vec![ends()]),
        (FLEET, "Connects by workload", vec![connects(lab)]),
        (FLEET, "Sent again by host", vec![by_host(sent_again())]),
    ])
}

fn owned(labels: &[(&'static str, String)], count: usize) -> Want {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    of(&labels, count)
}

/// Both ends of the lab's connections, and a few of what moves besides.
fn states() -> Vec<Want> {
    let some = |state, least: usize, more: f64| {
        let least = number(least as u64);
        of(&[("state", state)], least..=least + more)
    };
    vec![
        // Two that are being closed whenever one looks.
        some("close_wait", DRAINED + NOT_ACCEPTED, 2.0),
        some("fin_wait1", UNACKED, 2.0),
        some("fin_wait2", HALF_CLOSED, 2.0),
        some("last_ack", LAST_ACKS, 2.0),
        // A second's worth, and at most a minute's.
        of(
            &[("state", "time_wait")],
            PACE..=PACE * 61.0 + number((PORTS + BUCKETS) as u64),
        ),
    ]
}

/// The client's end waits for the server's FIN as a minisocket, or would but for their limit, and is
/// then gone: its server's FIN is answered by a reset.
fn ends() -> Vec<Want> {
    vec![
        of(&[("cause", "fin_wait2_timewait")], about(2.0 * PACE)),
        of(&[("cause", "passive")], about(PACE)),
        of(&[("cause", "reset_received")], about(PACE)),
    ]
}

/// The lab's threads connect, and one in vain.
fn connects(lab: &Lab) -> Vec<Want> {
    vec![of(&[("workload", &lab.own)], about(2.0 * PACE + 1.0))]
}

/// All panels of the board of one host.
pub(crate) fn host(lab: &Lab) -> Result<Vec<Expected>> {
    let mut all = findings(lab);
    all.extend(limits(lab)?);
    all.extend(events(lab));
    all.extend(settings(lab));
    Ok(all)
}

fn findings(lab: &Lab) -> Vec<Expected> {
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
    // No older than the lab, and not younger than what makes it a leak.
    let age = || 2.0..=300.0;
    let own = |cause| [("workload", lab.own.as_str()), ("cause", cause)];
    vec![
        (
            HOST,
            "Leaks in CLOSE_WAIT",
            vec![vec![with(api, "drained"), with(search, "not_accepted")]],
        ),
        (
            HOST,
            "Oldest leak",
            vec![vec![of(&api, age()), of(&search, age())]],
        ),
        (
            HOST,
            "Leaks over time",
            vec![vec![of(&api, DRAINED), of(&search, NOT_ACCEPTED)]],
        ),
        (
            HOST,
            "FIN_WAIT1 stalls",
            vec![vec![of(&own("unacked"), UNACKED)]],
        ),
        (
            HOST,
            "Other stalls",
            vec![
                vec![of(&own("half_closed"), HALF_CLOSED)],
                vec![of(&own("unacked"), LAST_ACKS)],
            ],
        ),
        (HOST, "Oldest FIN_WAIT1", vec![is(age())]),
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

fn limits(lab: &Lab) -> Result<Vec<Expected>> {
    let [ports_netns, tight] = [&lab.ports, &lab.tight].map(|netns| netns.inode().to_string());
    let port = lab.crowded.port.to_string();
    let route = [
        ("netns", ports_netns.as_str()),
        ("source", "127.0.0.1"),
        ("destination", "127.0.0.1"),
        ("port", port.as_str()),
    ];
    let (least, most) = orphans();
    Ok(vec![
        (HOST, "Orphans", vec![is(orphan_part()?)]),
        (HOST, "TIME_WAIT", vec![vec![of(&[("netns", &tight)], 1)]]),
        (
            HOST,
            "Ephemeral ports",
            vec![vec![of(&route, part(PORTS_USED, PORTS))]],
        ),
        (
            HOST,
            "Orphans against the limit",
            vec![is(least..=most), is(max_orphans()?..=max_orphans()?)],
        ),
        (
            HOST,
            "TIME_WAIT by namespace",
            vec![
                vec![of(&[("netns", &tight)], BUCKETS)],
                is(sysctl("net/ipv4/tcp_max_tw_buckets")?),
            ],
        ),
        (
            HOST,
            "Ports toward a destination",
            vec![vec![of(&route, PORTS_USED)], is(ephemeral_ports()?)],
        ),
        // Killing orphans would take the whole host to its limit: a virtual machine shows that.
        (HOST, "What limits cost", vec![is(NEVER), is(about(PACE))]),
    ])
}

fn sysctl(path: &str) -> Result<RangeInclusive<f64>> {
    let value: f64 = fs::read_to_string(format!("/proc/sys/{path}"))?
        .trim()
        .parse()?;
    Ok(value..=value)
}

/// Of a namespace whose range nobody changed, as this one.
fn ephemeral_ports() -> Result<usize> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut bounds = range.split_whitespace().map(str::parse::<usize>);
    let low = bounds.next().context("no lower bound")??;
    let high = bounds.next().context("no upper bound")??;
    Ok(high - low + 1)
}

fn events(lab: &Lab) -> Vec<Expected> {
    let all = 2.0 * PACE;
    let from_to = |from, to| of(&[("from", from), ("to", to)], about(all));
    // All buckets of half a minute of connections.
    let counted = || vec![of(&[("le", "+Inf")], about(all * 30.0))];
    let close_wait = CLOSE_WAIT.as_secs_f64();
    let api = [("workload", lab.api.workload.as_str())];
    let search = [("workload", lab.search.workload.as_str())];
    vec![
        (HOST, "Sockets by state", vec![states()]),
        (HOST, "Sockets by workload", vec![vec![of(&api, DRAINED)]]),
        (
            HOST,
            "CLOSE_WAIT by workload",
            vec![vec![of(&api, DRAINED), of(&search, NOT_ACCEPTED)]],
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
        (HOST, "In CLOSE_WAIT", vec![counted()]),
        (HOST, "In FIN_WAIT1", vec![counted()]),
        // Both ends.
        (
            HOST,
            "Established",
            vec![vec![of(&[("le", "+Inf")], about(2.0 * all * 30.0))]],
        ),
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

fn settings(lab: &Lab) -> Vec<Expected> {
    let [ports, leaks] = [&lab.ports, &lab.leaks].map(|netns| netns.inode().to_string());
    let unit = lab.api.workload.trim_start_matches("unit:");
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
        (
            HOST,
            "Workloads",
            vec![vec![of(
                &[("workload", lab.api.workload.as_str()), ("unit", unit)],
                1,
            )]],
        ),
        (
            HOST,
            "Network namespaces",
            vec![vec![of(&[("netns", &leaks)], 1)]],
        ),
    ]
}

/// All panels of the agent's own board.
pub(crate) fn own(stack: &Stack, running_for: Duration) -> Result<Vec<Expected>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let pid = stack.agent.pid();
    let by_host = |value: RangeInclusive<f64>| vec![of(&[("instance", AGENT)], value)];
    let program =
        |value: RangeInclusive<f64>| vec![of(&[("program", "inet_sock_set_state")], value)];
    let resident = number(stack.agent.resident_kib()? * 1024);
    let virtual_memory = number(status(pid, "VmSize:")? * 1024);
    let descriptors = number(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64);
    let threads = number(status(pid, "Threads:")?);
    let age = || 0.0..=35.0;
    Ok(vec![
        (OWN, "Answering", vec![is(1)]),
        (OWN, "Programs not attached", vec![is(NEVER)]),
        (OWN, "Records lost", vec![is(NEVER)]),
        (OWN, "Namespaces unreached", vec![is(NEVER)]),
        (OWN, "Sockets not told apart", vec![is(NEVER)]),
        (OWN, "Oldest census", vec![is(age())]),
        (
            OWN,
            "Versions",
            vec![vec![of(
                &[
                    ("instance", AGENT),
                    ("version", env!("CARGO_PKG_VERSION")),
                    ("kernel", release.trim()),
                ],
                1,
            )]],
        ),
        (OWN, "Programs", vec![program(1.0..=1.0)]),
        // By default those of sockets that lingered, and retransmissions: one a second.
        (OWN, "Records", vec![by_host(0.7..=3.0)]),
        (
            OWN,
            "Losses",
            vec![vec![of(&[("reason", "ring_full")], NEVER)]],
        ),
        // One in a hundred at most: interrupted by itself.
        (OWN, "Skipped runs", vec![program(0.0..=PACE / 5.0)]),
        // Given up after ten seconds, and begun anew.
        (
            OWN,
            "Refused by HTTP",
            vec![vec![of(&[("reason", "slow_request")], about(0.1))]],
        ),
        (
            OWN,
            "99 of 100 take",
            vec![vec![of(&[("kind", "full")], 1e-6..=1.0)]],
        ),
        (
            OWN,
            "Age of the gauges",
            vec![vec![of(&[("instance", AGENT), ("kind", "known")], age())]],
        ),
        (OWN, "Room for sockets", vec![by_host(1e-6..=0.05)]),
        (OWN, "Processor", vec![by_host(1e-4..=1.0)]),
        // Nine transitions of each connection, some of a hundred nanoseconds, some of thousands.
        (OWN, "Kernel programs", vec![program(1e-6..=0.05)]),
        (OWN, "A run takes", vec![program(2e-8..=1e-4)]),
        (
            OWN,
            "Memory",
            vec![
                by_host(resident * 0.8..=resident * 1.2),
                by_host(virtual_memory * 0.8..=virtual_memory * 1.2),
            ],
        ),
        (
            OWN,
            "File descriptors",
            vec![
                by_host(descriptors - 10.0..=descriptors + 10.0),
                by_host(20.0..=1e9),
                by_host(threads - 2.0..=threads + 2.0),
            ],
        ),
        (
            OWN,
            "Running for",
            vec![by_host(
                running_for.as_secs_f64() - 2.0..=running_for.as_secs_f64() + 90.0,
            )],
        ),
    ])
}

fn status(pid: u32, key: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.with_context(|| format!("no {key}"))?.parse()?)
}
