//! What every panel of every board must show of the lab's sockets, query by query. Those of the
//! agent's own board stand in [`super::own`].

use std::{fs, ops::RangeInclusive};

use anyhow::Result;
use tests::http::number;

use super::{
    host::{events, findings, settings},
    lab::{
        BUCKETS, DRAINED, HALF_CLOSED, LAST_ACKS, Lab, NOT_ACCEPTED, PACE, PORTS, PORTS_USED,
        UNACKED,
    },
    limits::limits,
    stack::AGENT,
    want::{Want, exactly, is, of},
};

/// A panel, by its board and title, and what each of its queries must answer.
pub(crate) type Expected = (&'static str, &'static str, Vec<Vec<Want>>);

const FLEET: &str = "connstate-fleet";
pub(crate) const HOST: &str = "connstate-host";

/// Nothing of the kind happens in the lab, and a panel has to say so with a zero.
pub(crate) const NEVER: usize = 0;

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
        exactly(vec![owned(&api, DRAINED), owned(&search, NOT_ACCEPTED)])
    };
    let by_host = |value: RangeInclusive<f64>| exactly(vec![of(&[("instance", AGENT)], value)]);
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
            vec![exactly(vec![of(
                &[
                    ("instance", AGENT),
                    ("workload", &lab.own),
                    ("cause", "unacked"),
                ],
                UNACKED,
            )])],
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
            vec![exactly(vec![of(&[("cause", "unacked")], UNACKED)])],
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

/// All panels of the board of one host.
pub(crate) fn host(lab: &Lab) -> Result<Vec<Expected>> {
    let mut all = findings(lab);
    all.extend(limits(lab)?);
    all.extend(events(lab));
    all.extend(settings(lab));
    Ok(all)
}

/// Both ends of the lab's connections, and a few of what moves besides.
pub(crate) fn states() -> Vec<Want> {
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
pub(crate) fn ends() -> Vec<Want> {
    vec![
        of(&[("cause", "fin_wait2_timewait")], about(2.0 * PACE)),
        of(&[("cause", "passive")], about(PACE)),
        of(&[("cause", "reset_received")], about(PACE)),
    ]
}

/// The lab's threads connect, and one in vain.
pub(crate) fn connects(lab: &Lab) -> Vec<Want> {
    exactly(vec![of(&[("workload", &lab.own)], about(2.0 * PACE + 1.0))])
}

/// What a rate may be off: scrapes do not fall on the beat, and the host has a few connections of
/// its own.
pub(crate) fn about(rate: f64) -> RangeInclusive<f64> {
    rate * 0.7..=rate * 1.6
}

/// Parts of small wholes are not exact in binary.
pub(crate) fn part(some: usize, all: usize) -> RangeInclusive<f64> {
    let part = number(some as u64) / number(all as u64);
    part - 1e-9..=part + 1e-9
}

/// Segments sent again, one a second, among the ten or so of each connection of the lab's and
/// those of the requests to Prometheus.
pub(crate) fn sent_again() -> RangeInclusive<f64> {
    0.000_5..=0.02
}

/// The kernel's count of orphans, which is kept by CPU: those of the lab, and a few that come and
/// go.
pub(crate) fn orphans() -> (f64, f64) {
    let least = number((UNACKED + LAST_ACKS) as u64);
    (least, least + 20.0)
}

pub(crate) fn orphan_part() -> Result<RangeInclusive<f64>> {
    let limit = max_orphans()?;
    let (least, most) = orphans();
    Ok(least / limit..=most / limit)
}

pub(crate) fn max_orphans() -> Result<f64> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/tcp_max_orphans")?
        .trim()
        .parse()?)
}
