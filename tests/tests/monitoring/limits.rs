//! What the panels about the kernel's limits must show of the lab's sockets.

use std::{fs, ops::RangeInclusive};

use anyhow::{Context as _, Result};
use tests::http::number;

use super::{
    lab::{BUCKETS, Lab, PACE, PORTS, PORTS_USED},
    panels::{Expected, HOST, NEVER, about, max_orphans, orphan_part, orphans, part},
    want::{is, of},
};

pub(crate) fn limits(lab: &Lab) -> Result<Vec<Expected>> {
    let [ports_netns, tight, busy] =
        [&lab.ports, &lab.tight, &lab.busy].map(|netns| netns.inode().to_string());
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
        (HOST, "Orphans until kills", vec![is(orphans_left()?)]),
        (
            HOST,
            "TIME_WAIT left",
            vec![vec![of(&[("netns", &tight)], NEVER)]],
        ),
        (
            HOST,
            "Ports left",
            vec![vec![of(&route, PORTS - PORTS_USED)]],
        ),
        (
            HOST,
            "Time until no port is left",
            vec![vec![of(&[("netns", &busy)], time_left()?)]],
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

/// Kills begin at a quarter of the limit.
fn orphans_left() -> Result<RangeInclusive<f64>> {
    let kills_begin = max_orphans()? / 4.0;
    let (least, most) = orphans();
    Ok(kills_begin - most..=kills_begin - least)
}

/// A port is used up with each connection there, until after a minute as many come back: at that
/// pace at first, and going by ten minutes at less and less of it.
fn time_left() -> Result<RangeInclusive<f64>> {
    let ports = number(ephemeral_ports()? as u64);
    let most_used = PACE * 61.0;
    Ok((ports - most_used) / (PACE * 1.6)..=ports / (PACE * 0.1))
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
