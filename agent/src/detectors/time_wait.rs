//! TIME_WAIT: minisockets against `tcp_max_tw_buckets`, and the ephemeral ports they occupy.
//!
//! Rules, for each network namespace:
//!
//! - Minisockets are told from 80 % of `tcp_max_tw_buckets` on, or where some found no room since
//!   the last census (TCPTimeWaitOverflow): such a connection skips TIME_WAIT.
//! - Ephemeral ports are told for each pair of addresses and remote port that uses 80 % of the
//!   range, or a tenth and will have used it up within a minute, if it goes on as since the last
//!   census.

use std::{net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    advice::{Advice, Topic, advise},
    census::{Census, NamespaceCensus, PortUse},
    serial::optional_seconds,
};

/// A part of a limit from which on it is told: 4/5.
const NEAR: (u64, u64) = (4, 5);

/// A part of the range from which on ports are looked at: 1/10. Where a server's own port is in
/// the range and nobody listens any more, each of its clients is a destination with one port.
const WORTH_A_LOOK: (u64, u64) = (1, 10);

/// Ports that will have run out in this time are told.
const SOON: Duration = Duration::from_mins(1);

/// Workloads told for one destination.
const CONNECTORS_TOLD: usize = 5;

/// Timewait minisockets of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Minisockets {
    /// The network namespace: `host`, or its inode number.
    pub netns: String,
    /// Minisockets of both substates, TIME_WAIT and FIN_WAIT2.
    pub sockets: u64,
    /// `tcp_max_tw_buckets`.
    pub limit: u64,
    /// Those that found no room since the last census.
    pub overflows: u64,
    /// What can be done.
    pub advice: Vec<Advice>,
}

/// Ephemeral ports from one address toward one address and port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// The network namespace: `host`, or its inode number.
    pub netns: String,
    /// The local address.
    pub source: IpAddr,
    /// The remote address.
    pub destination: IpAddr,
    /// The remote port.
    pub port: u16,
    /// Ports in use: a lower bound, since those that are only bound do not show.
    pub used: u64,
    /// Ports of the range that are not reserved.
    pub available: u64,
    /// When they run out, if it goes on as since the last census; 0 where they have.
    #[serde(rename = "run_out_seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub run_out: Option<Duration>,
    /// Who connects there, the most eager first.
    pub connectors: Vec<Connector>,
    /// Whether ports in TIME_WAIT can be used again.
    pub reuse: Reuse,
    /// What can be done.
    pub advice: Vec<Advice>,
}

/// A workload that connects to a destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Connector {
    /// The `workload` label.
    pub workload: String,
    /// Connects per second since the last census.
    pub per_second: f64,
}

/// Whether `connect()` takes a port in TIME_WAIT once it is older than `tcp_tw_reuse_delay`, 1 s
/// where the kernel has no such knob (`tcp_twsk_unique()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// It does.
    Applies,
    /// `tcp_tw_reuse` is 0.
    Off,
    /// `tcp_tw_reuse` is 2, and this is not the loopback interface.
    LoopbackOnly,
    /// `tcp_timestamps` is 0.
    NoTimestamps,
}

impl Reuse {
    /// In words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Applies => "tcp_tw_reuse applies",
            Self::Off => "tcp_tw_reuse is off",
            Self::LoopbackOnly => "tcp_tw_reuse is for loopback alone",
            Self::NoTimestamps => "tcp_tw_reuse cannot apply without tcp_timestamps",
        }
    }
}

/// The namespaces whose minisockets are to be told.
pub(super) fn find_minisockets(census: &Census, before: Option<&Census>) -> Vec<Minisockets> {
    let namespaces = census.namespaces.iter();
    namespaces
        .filter_map(|namespace| {
            let limits = &namespace.limits;
            let (sockets, limit) = (
                limits.sockstat.tw?,
                limits.sysctls.get("tcp_max_tw_buckets")?,
            );
            let overflows = |namespace: &NamespaceCensus| {
                namespace
                    .limits
                    .mibs
                    .get("TCPTimeWaitOverflow")
                    .unwrap_or(0)
            };
            let then = before.map(|before| same(before, namespace).map_or(0, overflows));
            let overflowed = then.map_or(0, |then| overflows(namespace).saturating_sub(then));
            let near = sockets > 0 && reaches(sockets, limit, NEAR);
            (near || overflowed > 0).then(|| Minisockets {
                netns: namespace.name(),
                sockets,
                limit,
                overflows: overflowed,
                advice: advise(Topic::Minisockets, &limits.sysctls),
            })
        })
        .collect()
}

/// The destinations whose ports are to be told, the most crowded first.
pub(super) fn find_ports(census: &Census, before: Option<&Census>) -> Vec<Ports> {
    let mut found = Vec::new();
    for namespace in &census.namespaces {
        let Some(available) = namespace.limits.sysctls.ephemeral_ports().map(u64::from) else {
            continue;
        };
        for ports in &namespace.ports {
            if !reaches(ports.used, available, WORTH_A_LOOK) {
                continue;
            }
            let run_out = run_out(census, before, namespace, ports, available);
            let soon = run_out.is_some_and(|after| after <= SOON);
            if reaches(ports.used, available, NEAR) || soon {
                let reuse = reuse(namespace, ports);
                found.push(Ports {
                    netns: namespace.name(),
                    source: ports.source,
                    destination: ports.destination,
                    port: ports.port,
                    used: ports.used,
                    available,
                    run_out,
                    connectors: connectors(census, before, namespace, ports),
                    reuse,
                    advice: advise(Topic::Ports(reuse), &namespace.limits.sysctls),
                });
            }
        }
    }
    found.sort_by_key(|ports| std::cmp::Reverse((ports.used, ports.port)));
    found
}

fn reaches(used: u64, limit: u64, (part, whole): (u64, u64)) -> bool {
    used.saturating_mul(whole) >= limit.saturating_mul(part)
}

/// The namespace as it was.
fn same<'a>(before: &'a Census, namespace: &NamespaceCensus) -> Option<&'a NamespaceCensus> {
    let mut namespaces = before.namespaces.iter();
    namespaces.find(|then| then.inode == namespace.inode)
}

/// When the ports have run out, at the pace since the last census.
fn run_out(
    census: &Census,
    before: Option<&Census>,
    namespace: &NamespaceCensus,
    ports: &PortUse,
    available: u64,
) -> Option<Duration> {
    let left = available.saturating_sub(ports.used);
    if left == 0 {
        return Some(Duration::ZERO);
    }
    let before = before?;
    let then = same(before, namespace)?.ports.iter().find(|then| {
        (then.source, then.destination, then.port) == (ports.source, ports.destination, ports.port)
    });
    let grown = ports.used.checked_sub(then.map_or(0, |then| then.used))?;
    let time = census.at.checked_sub(before.at)?;
    if grown == 0 {
        return None;
    }
    Duration::try_from_secs_f64(time.as_secs_f64() * number(left) / number(grown)).ok()
}

fn connectors(
    census: &Census,
    before: Option<&Census>,
    namespace: &NamespaceCensus,
    ports: &PortUse,
) -> Vec<Connector> {
    let of = |census: &Census, workload: Option<&str>| -> Vec<(String, u64)> {
        let connects = census.connects.iter().filter(|connects| {
            (connects.netns, connects.destination, connects.port)
                == (namespace.inode, ports.destination, ports.port)
                && workload.is_none_or(|workload| workload == connects.workload.name)
        });
        connects
            .map(|connects| (connects.workload.name.clone(), connects.count))
            .collect()
    };
    let time = before.map_or(census.took, |before| census.at.saturating_sub(before.at));
    let mut connectors: Vec<_> = of(census, None)
        .into_iter()
        .map(|(workload, count)| {
            let then = before.map_or_else(Vec::new, |before| of(before, Some(&workload)));
            let then: u64 = then.into_iter().map(|(_, count)| count).sum();
            let connects = number(count.saturating_sub(then));
            Connector {
                workload,
                per_second: connects / time.as_secs_f64().max(0.001),
            }
        })
        .collect();
    connectors.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    connectors.truncate(CONNECTORS_TOLD);
    connectors
}

fn reuse(namespace: &NamespaceCensus, ports: &PortUse) -> Reuse {
    let sysctl = |name| namespace.limits.sysctls.get(name);
    let loopback = ports.source.is_loopback() || ports.destination.is_loopback();
    match (sysctl("tcp_tw_reuse"), sysctl("tcp_timestamps")) {
        (Some(0) | None, _) => Reuse::Off,
        (Some(2), _) if !loopback => Reuse::LoopbackOnly,
        (_, Some(0)) => Reuse::NoTimestamps,
        _ => Reuse::Applies,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pace")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        census::Connects,
        limits::{Limits, Mibs, Sockstat, Sysctls},
        workload::Workload,
    };

    /// A census after `seconds`, with this many ports used and connects made.
    fn census(seconds: u64, used: u64, connects: u64) -> Census {
        let sysctls = Sysctls::of(&[
            ("ip_local_port_range_low", 40_000),
            ("ip_local_port_range_high", 40_999),
            ("tcp_tw_reuse", 2),
            ("tcp_timestamps", 1),
        ]);
        let destination = "192.0.2.1".parse().unwrap();
        Census {
            at: Duration::from_secs(seconds),
            namespaces: vec![NamespaceCensus {
                inode: 7,
                limits: Limits {
                    sysctls,
                    ..Limits::default()
                },
                ports: vec![PortUse {
                    source: "198.51.100.1".parse().unwrap(),
                    destination,
                    port: 443,
                    used,
                }],
                ..NamespaceCensus::default()
            }],
            connects: vec![Connects {
                workload: Arc::new(Workload::of_cgroup("/system.slice/curl.service")),
                netns: 7,
                destination,
                port: 443,
                count: connects,
            }],
            ..Census::default()
        }
    }

    #[test]
    fn ports_that_run_out_are_told_with_who_takes_them_and_when() {
        let (before, now) = (census(0, 300, 1_000), census(10, 500, 1_250));
        let told = find_ports(&now, Some(&before));
        assert_eq!(told.len(), 1);
        let told = &told[0];
        assert_eq!((told.used, told.available), (500, 1_000));
        // 200 in 10 s: the other 500 take 25 s.
        assert_eq!(told.run_out, Some(Duration::from_secs(25)));
        assert_eq!(told.connectors[0].workload, "unit:curl.service");
        assert!((told.connectors[0].per_second - 25.0).abs() < 1e-9);
        assert_eq!(told.reuse, Reuse::LoopbackOnly);
        assert_eq!(told.netns, "7");
    }

    #[test]
    fn half_a_range_that_does_not_fill_is_not_told() {
        assert!(find_ports(&census(10, 500, 0), Some(&census(0, 500, 0))).is_empty());
        assert!(find_ports(&census(10, 500, 0), None).is_empty());
        assert_eq!(find_ports(&census(10, 800, 0), None).len(), 1);
        let full = find_ports(&census(10, 1_000, 0), None);
        assert_eq!(full[0].run_out, Some(Duration::ZERO));
    }

    #[test]
    fn reuse_needs_the_knob_the_interface_and_timestamps() {
        let told = |knob, timestamps, source: &str| {
            let mut census = census(0, 1_000, 0);
            let namespace = &mut census.namespaces[0];
            namespace.limits.sysctls =
                Sysctls::of(&[("tcp_tw_reuse", knob), ("tcp_timestamps", timestamps)]);
            namespace.ports[0].source = source.parse().unwrap();
            reuse(namespace, &namespace.ports[0])
        };
        assert_eq!(told(0, 1, "127.0.0.1"), Reuse::Off);
        assert_eq!(told(1, 1, "198.51.100.1"), Reuse::Applies);
        assert_eq!(told(1, 0, "198.51.100.1"), Reuse::NoTimestamps);
        assert_eq!(told(2, 1, "127.0.0.1"), Reuse::Applies);
        assert_eq!(told(2, 1, "198.51.100.1"), Reuse::LoopbackOnly);
    }

    #[test]
    fn minisockets_are_told_near_their_limit_or_when_they_overflow() {
        let census = |sockets, overflows| Census {
            namespaces: vec![NamespaceCensus {
                is_host: true,
                limits: Limits {
                    sysctls: Sysctls::of(&[("tcp_max_tw_buckets", 100)]),
                    mibs: Mibs::of(&[("TCPTimeWaitOverflow", overflows)]),
                    sockstat: Sockstat {
                        tw: Some(sockets),
                        ..Sockstat::default()
                    },
                },
                ..NamespaceCensus::default()
            }],
            ..Census::default()
        };
        assert!(find_minisockets(&census(79, 5), Some(&census(79, 5))).is_empty());
        assert!(find_minisockets(&census(79, 5), None).is_empty());
        assert_eq!(find_minisockets(&census(80, 0), None)[0].sockets, 80);
        let told = find_minisockets(&census(10, 905), Some(&census(10, 5)));
        assert_eq!((told[0].overflows, told[0].netns.as_str()), (900, "host"));
    }
}
