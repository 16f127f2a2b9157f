//! The kernel's limits, how near the host is to them, and what they have cost.

use std::collections::BTreeSet;

use super::gauges;
use crate::{
    census::Census,
    detectors::Orphans,
    metrics::family::{Family, Kind, Sample},
    series::{OTHER, Rows},
    view::View,
};

/// The families, in the order of the documentation.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "connstate_orphans",
        kind: Kind::Gauge,
        labels: &[],
        help: "The kernel's own count of TCP sockets that no process holds any more, of the whole host, which tcp_max_orphans limits.",
        samples: |view| orphans(view, Orphans::count),
    },
    Family {
        name: "connstate_orphans_limit",
        kind: Kind::Gauge,
        labels: &[],
        help: "tcp_max_orphans; kills begin at a quarter of it. Absent where the first network namespace is not counted, in which alone it shows.",
        samples: |view| orphans(view, Orphans::limit),
    },
    Family {
        name: "connstate_orphan_kills_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Orphans that the kernel killed for tcp_max_orphans or tcp_mem (TCPAbortOnMemory), in every network namespace.",
        samples: |view| {
            let kills = view.orphan_kills().into_iter();
            kills.map(|kills| Sample::count([], kills)).collect()
        },
    },
    Family {
        name: "connstate_time_wait_sockets",
        kind: Kind::Gauge,
        labels: &["netns"],
        help: "Timewait minisockets of both substates, TIME_WAIT and FIN_WAIT2, which tcp_max_tw_buckets limits.",
        samples: |view| of_namespaces(view, 0),
    },
    Family {
        name: "connstate_time_wait_limit",
        kind: Kind::Gauge,
        labels: &["netns"],
        help: "tcp_max_tw_buckets; absent where /proc/sys is not to be seen.",
        samples: |view| limits_of_namespaces(view, 1, "tcp_max_tw_buckets"),
    },
    Family {
        name: "connstate_time_wait_overflows_total",
        kind: Kind::Counter,
        labels: &["netns"],
        help: "Connections that skipped TIME_WAIT because tcp_max_tw_buckets was reached (TCPTimeWaitOverflow); _gone is of namespaces that are.",
        samples: |view| {
            let namespaces = view.rows.overflows.iter();
            namespaces
                .map(|(netns, count)| Sample::count([netns.as_str()], *count))
                .collect()
        },
    },
    Family {
        name: "connstate_ephemeral_ports",
        kind: Kind::Gauge,
        labels: &["netns"],
        help: "Ports that connect() can choose from, toward each destination: ip_local_port_range without ip_local_reserved_ports; absent where /proc/sys is not to be seen.",
        samples: |view| limits_of_namespaces(view, 2, "ip_local_port_range_low"),
    },
    Family {
        name: "connstate_ephemeral_ports_used",
        kind: Kind::Gauge,
        labels: &["netns", "source", "destination", "port"],
        help: "Those in use from one address to one address and port, TIME_WAIT included, of the most crowded; a lower bound, since ports that are only bound do not show.",
        samples: |view| gauges(view, &view.rows.ports_used, 0, [""]),
    },
    Family {
        name: "connstate_sysctl",
        kind: Kind::Gauge,
        labels: &["netns", "name"],
        help: "Settings of the kernel that bear on closing connections, of the network namespaces shown in connstate_time_wait_sockets; one that a kernel or namespace lacks is absent.",
        samples: |view| {
            let sysctls = view.rows.sysctls.iter();
            sysctls
                .map(|(netns, name, value)| Sample::count([netns.as_str(), name], *value))
                .collect()
        },
    },
    Family {
        name: "connstate_netstat_total",
        kind: Kind::Counter,
        labels: &["name"],
        help: "The kernel's own counters (nstat) of all network namespaces, those included that are gone since the agent started.",
        samples: |view| {
            let mibs = view.rows.mibs.iter();
            mibs.map(|(name, count)| Sample::count([*name], *count))
                .collect()
        },
    },
];

fn orphans(view: &View, of: impl Fn(&Census) -> Option<u64>) -> Vec<Sample> {
    let known = view.census.as_deref().and_then(of).into_iter();
    known.map(|count| Sample::count([], count)).collect()
}

/// One column of the namespaces.
fn of_namespaces(view: &View, column: usize) -> Vec<Sample> {
    of_some_namespaces(view, column, |_| true)
}

/// Of those where this setting is known: without /proc/sys a limit is absent, and not 0, which
/// anything would be over.
fn limits_of_namespaces(view: &View, column: usize, sysctl: &str) -> Vec<Sample> {
    let sysctls = view.rows.sysctls.iter();
    let known = sysctls.filter(|(_, name, _)| *name == sysctl);
    let known: BTreeSet<&str> = known.map(|(netns, ..)| netns.as_str()).collect();
    of_some_namespaces(view, column, |netns| {
        netns == OTHER || known.contains(netns)
    })
}

fn of_some_namespaces(view: &View, column: usize, is_told: impl Fn(&str) -> bool) -> Vec<Sample> {
    let Rows { namespaces, .. } = &*view.rows;
    let crowded =
        |(labels, values): &&(Vec<String>, [f64; 4])| labels[0] != OTHER || values[column] > 0.0;
    let namespaces = namespaces.iter().filter(crowded);
    namespaces
        .filter(|(labels, _)| is_told(&labels[0]))
        .map(|(labels, values)| Sample::number(labels.iter().map(String::as_str), values[column]))
        .collect()
}
