//! The series whose labels nobody bounds, kept within bounds: pure, the clock an argument.
//!
//! [`places`] holds as many label sets of a family as it may have, [`ports`] the fullest ranges of
//! ports, [`totals`] the kernel counters of namespaces that come and go. [`Rows`] is what the
//! families show of them.

mod places;
mod ports;
mod totals;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use agent_ebpf::{census::WORKLOAD_STATES, state::TcpState};

use self::ports::PortRows;
pub use self::{
    places::{CounterPlaces, GaugePlaces, Merge, OTHER},
    totals::NamespaceTotals,
};
use crate::{
    census::{Census, NamespaceCensus},
    detectors::{Cause, Detector, Findings, Stall},
    limits::MIBS,
    workload::Workload,
};

/// What stands for namespaces that are gone, as a value of the label `netns`.
pub const GONE: &str = "_gone";

/// How many label sets a family may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Workloads.
    pub workloads: usize,
    /// Of every other family.
    pub label_sets: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            workloads: 500,
            label_sets: 100,
        }
    }
}

/// What the families remember from one census to the next.
#[derive(Debug)]
pub struct Series {
    label_sets: usize,
    workloads: GaugePlaces<{ WORKLOAD_STATES.len() }>,
    fin_wait1: GaugePlaces<{ Cause::OF_UNFINISHED.len() }>,
    fin_wait2: GaugePlaces<{ Cause::OF_FIN_WAIT2.len() }>,
    last_ack: GaugePlaces<{ Cause::OF_UNFINISHED.len() }>,
    close_wait: GaugePlaces<{ Cause::OF_CLOSE_WAIT.len() }>,
    close_wait_oldest: GaugePlaces<1>,
    ports_used: PortRows,
    namespaces: GaugePlaces<{ NAMESPACE_COLUMNS }>,
    connects: CounterPlaces<1>,
    connects_before: HashMap<Destination, u64>,
    overflows: Overflows,
    mibs: BTreeMap<&'static str, NamespaceTotals>,
}

/// Whose connects are counted together: workload, namespace, address and port.
type Destination = (Arc<Workload>, u64, IpAddr, u16);

/// Minisockets, their limit, ephemeral ports, and how near it is to a limit.
const NAMESPACE_COLUMNS: usize = 4;

/// Label sets with the values of their columns.
pub type Gauges<const COLUMNS: usize> = Vec<(Vec<String>, [f64; COLUMNS])>;

/// What the families show.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `workload`: full sockets by state, in the order of [`WORKLOAD_STATES`].
    pub workloads: Gauges<{ WORKLOAD_STATES.len() }>,
    /// The workloads of those.
    pub workload_info: Vec<Arc<Workload>>,
    /// `workload`: by the causes of [`Detector::FinWait1`].
    pub fin_wait1: Gauges<{ Cause::OF_UNFINISHED.len() }>,
    /// `workload`: by the causes of [`Detector::FinWait2`].
    pub fin_wait2: Gauges<{ Cause::OF_FIN_WAIT2.len() }>,
    /// `workload`: by the causes of [`Detector::LastAck`].
    pub last_ack: Gauges<{ Cause::OF_UNFINISHED.len() }>,
    /// `workload`, `process`, `port`, `side`: by the causes of [`Detector::CloseWait`].
    pub close_wait: Gauges<{ Cause::OF_CLOSE_WAIT.len() }>,
    /// The same labels: the age of the oldest, in seconds.
    pub close_wait_oldest: Gauges<1>,
    /// The age of the oldest socket in FIN_WAIT1; 0 without any.
    pub fin_wait1_oldest: Duration,
    /// `netns`, `source`, `destination`, `port`: ephemeral ports used.
    pub ports_used: Gauges<1>,
    /// `netns`: minisockets, their limit, ephemeral ports, and how near it is to a limit.
    pub namespaces: Gauges<{ NAMESPACE_COLUMNS }>,
    /// `netns`, `workload`.
    pub namespace_info: Vec<[String; 2]>,
    /// `netns`, `name`, and the value.
    pub sysctls: Vec<(String, &'static str, u64)>,
    /// `workload`: connects.
    pub connects: Vec<(Vec<String>, [u64; 1])>,
    /// `netns`: minisockets that found no room.
    pub overflows: Vec<(String, u64)>,
    /// `name`: the kernel's counters, of all namespaces together.
    pub mibs: Vec<(&'static str, u64)>,
}

impl Series {
    /// Nothing known.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let Bounds {
            workloads,
            label_sets,
        } = bounds;
        Self {
            label_sets,
            workloads: GaugePlaces::new(workloads, 1, Merge::Sum),
            fin_wait1: GaugePlaces::new(label_sets, 1, Merge::Sum),
            fin_wait2: GaugePlaces::new(label_sets, 1, Merge::Sum),
            last_ack: GaugePlaces::new(label_sets, 1, Merge::Sum),
            close_wait: GaugePlaces::new(label_sets, 4, Merge::Sum),
            close_wait_oldest: GaugePlaces::new(label_sets, 4, Merge::Max),
            ports_used: PortRows::new(label_sets),
            // Its limits alone would keep the place of a namespace in which nothing happens.
            namespaces: GaugePlaces::ranked(label_sets, 1, Merge::Sum, |columns| columns[3]),
            connects: CounterPlaces::new(workloads, 1),
            connects_before: HashMap::new(),
            overflows: Overflows::default(),
            mibs: BTreeMap::new(),
        }
    }

    /// Takes in a census and what it shows.
    pub fn update(&mut self, census: &Census, findings: &Findings) {
        let now = census.at;
        let workloads = census.workloads.iter().map(|(workload, counts)| {
            let counts = counts.map(number);
            (vec![workload.name.clone()], counts)
        });
        self.workloads.set(now, workloads);
        let stalls = &findings.stalls;
        self.fin_wait1.set(
            now,
            by_workload(stalls, Detector::FinWait1, Cause::OF_UNFINISHED),
        );
        self.fin_wait2.set(
            now,
            by_workload(stalls, Detector::FinWait2, Cause::OF_FIN_WAIT2),
        );
        self.last_ack.set(
            now,
            by_workload(stalls, Detector::LastAck, Cause::OF_UNFINISHED),
        );
        let leaks = || {
            let stalls = stalls.iter();
            stalls.filter(|stall| stall.detector == Detector::CloseWait)
        };
        let counts = leaks().map(|leak| (service(leak), by_cause(leak, Cause::OF_CLOSE_WAIT)));
        self.close_wait.set(now, counts);
        let ages = leaks().map(|leak| (service(leak), [leak.oldest.at_least.as_secs_f64()]));
        self.close_wait_oldest.set(now, ages);
        self.ports_used.set(census);
        let namespaces = census.namespaces.iter();
        let namespaces = namespaces.map(|namespace| (vec![namespace.name()], columns(namespace)));
        self.namespaces.set(now, namespaces);
        self.count_connects(census);
        self.count_mibs(census);
    }

    fn count_connects(&mut self, census: &Census) {
        let mut counts: HashMap<Destination, u64> = HashMap::new();
        for connects in &census.connects {
            let destination = (
                Arc::clone(&connects.workload),
                connects.netns,
                connects.destination,
                connects.port,
            );
            *counts.entry(destination).or_default() += connects.count;
        }
        let before = &self.connects_before;
        let deltas = counts.iter().map(|(destination, count)| {
            let then = before.get(destination).copied().unwrap_or(0);
            // One that the programs forgot, and then met again, counts from 0.
            let delta = count.checked_sub(then).unwrap_or(*count);
            (vec![destination.0.name.clone()], [delta])
        });
        self.connects.add(census.at, deltas);
        self.connects_before = counts;
    }

    fn count_mibs(&mut self, census: &Census) {
        let present: BTreeSet<u64> = census.present.iter().copied().collect();
        for name in MIBS {
            let namespaces = census.namespaces.iter();
            let values: BTreeMap<u64, u64> = namespaces
                .filter_map(|namespace| Some((namespace.inode, namespace.limits.mibs.get(name)?)))
                .collect();
            let known = self.mibs.contains_key(name);
            // A counter that this kernel lacks is absent.
            if known || !values.is_empty() {
                self.mibs.entry(name).or_default().update(&values, &present);
            }
        }
        let names = census
            .namespaces
            .iter()
            .map(|namespace| (namespace.inode, namespace.name()));
        if let Some(totals) = self.mibs.get("TCPTimeWaitOverflow") {
            self.overflows
                .update(totals, &names.collect(), self.label_sets);
        }
    }

    /// What the families show after this census.
    #[must_use]
    pub fn rows(&self, census: &Census) -> Rows {
        let workloads = self.workloads.rows();
        let named: BTreeSet<&str> = workloads
            .iter()
            .map(|(labels, _)| labels[0].as_str())
            .collect();
        let mut info: BTreeMap<&str, &Arc<Workload>> = BTreeMap::new();
        for (workload, _) in &census.workloads {
            if named.contains(workload.name.as_str()) {
                // Of two cgroups with one name the first is shown.
                info.entry(&workload.name).or_insert(workload);
            }
        }
        let workload_info = info.into_values().cloned().collect();
        let namespaces = self.namespaces.rows();
        let shown: BTreeSet<&str> = namespaces
            .iter()
            .map(|(labels, _)| labels[0].as_str())
            .collect();
        let mut namespace_info = Vec::new();
        let mut sysctls = Vec::new();
        for namespace in &census.namespaces {
            let name = namespace.name();
            if !shown.contains(name.as_str()) {
                continue;
            }
            if let Some(workload) = &namespace.workload {
                namespace_info.push([name.clone(), workload.name.clone()]);
            }
            let all = namespace.limits.sysctls.iter();
            sysctls.extend(all.map(|(sysctl, value)| (name.clone(), sysctl, value)));
        }
        let in_fin_wait1 = census.namespaces.iter().flat_map(|namespace| {
            let sockets = namespace.lingering.iter();
            sockets.filter(|socket| socket.state == TcpState::FinWait1)
        });
        Rows {
            workloads,
            workload_info,
            fin_wait1: self.fin_wait1.rows(),
            fin_wait2: self.fin_wait2.rows(),
            last_ack: self.last_ack.rows(),
            close_wait: self.close_wait.rows(),
            close_wait_oldest: self.close_wait_oldest.rows(),
            fin_wait1_oldest: in_fin_wait1
                .map(|socket| socket.age.at_least)
                .max()
                .unwrap_or_default(),
            ports_used: self.ports_used.rows(),
            namespaces,
            namespace_info,
            sysctls,
            connects: self.connects.rows(),
            overflows: self.overflows.rows(),
            mibs: self
                .mibs
                .iter()
                .map(|(name, totals)| (*name, totals.total()))
                .collect(),
        }
    }
}

/// Timewait minisockets that found no room, by namespace. A namespace has a row of its own from
/// the first on, where there is room for one; else it counts with all others, for good, lest
/// their sum fall. One that goes leaves its row's count in a row for those.
#[derive(Debug, Default)]
struct Overflows {
    /// By inode number: the name, and the count.
    rows: BTreeMap<u64, (String, u64)>,
    /// Those without a row.
    others: BTreeMap<u64, u64>,
    others_gone: u64,
    gone: u64,
}

impl Overflows {
    fn update(&mut self, totals: &NamespaceTotals, names: &BTreeMap<u64, String>, capacity: usize) {
        let live: BTreeMap<u64, u64> = totals.of_namespaces().collect();
        let gone = self
            .rows
            .extract_if(.., |inode, _| !live.contains_key(inode));
        self.gone += gone.map(|(_, (_, count))| count).sum::<u64>();
        let gone = self
            .others
            .extract_if(.., |inode, _| !live.contains_key(inode));
        self.others_gone += gone.map(|(_, count)| count).sum::<u64>();
        for (inode, count) in live {
            if let Some((_, row)) = self.rows.get_mut(&inode) {
                *row = count;
            } else if let Some(other) = self.others.get_mut(&inode) {
                *other = count;
            } else if count == 0 {
            } else if let Some(name) = names.get(&inode).filter(|_| self.rows.len() < capacity) {
                self.rows.insert(inode, (name.clone(), count));
            } else {
                self.others.insert(inode, count);
            }
        }
    }

    fn rows(&self) -> Vec<(String, u64)> {
        let others = self.others.values().sum::<u64>() + self.others_gone;
        let rest = [(GONE.to_owned(), self.gone), (OTHER.to_owned(), others)];
        self.rows.values().cloned().chain(rest).collect()
    }
}

/// The columns of a namespace. The host's own comes before all others, then the nearest to a limit.
fn columns(namespace: &NamespaceCensus) -> [f64; NAMESPACE_COLUMNS] {
    let sysctls = &namespace.limits.sysctls;
    let minisockets = number(namespace.limits.sockstat.tw.unwrap_or(0));
    let limit = number(sysctls.get("tcp_max_tw_buckets").unwrap_or(0));
    let ports = f64::from(sysctls.ephemeral_ports().unwrap_or(0));
    let used = namespace.ports.iter().map(|range| range.used).max();
    let nearness = if namespace.is_host {
        f64::INFINITY
    } else {
        (minisockets / limit.max(1.0)).max(number(used.unwrap_or(0)) / ports.max(1.0))
    };
    [minisockets, limit, ports, nearness]
}

fn by_cause<const CAUSES: usize>(stall: &Stall, causes: [Cause; CAUSES]) -> [f64; CAUSES] {
    causes.map(|cause| {
        if cause == stall.cause {
            number(stall.count)
        } else {
            0.0
        }
    })
}

fn by_workload<const CAUSES: usize>(
    stalls: &[Stall],
    detector: Detector,
    causes: [Cause; CAUSES],
) -> impl Iterator<Item = (Vec<String>, [f64; CAUSES])> {
    let stalls = stalls.iter();
    stalls
        .filter(move |stall| stall.detector == detector)
        .map(move |stall| (vec![stall.workload.clone()], by_cause(stall, causes)))
}

/// The labels `workload`, `process`, `port` and `side`.
fn service(stall: &Stall) -> Vec<String> {
    vec![
        stall.workload.clone(),
        stall.process.clone(),
        stall.port.to_string(),
        stall.side.name().to_owned(),
    ]
}

/// A count as Prometheus holds numbers: above 2⁵³ the last digits are lost.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        census::{Connects, PortUse},
        limits::{Limits, Mibs, Sysctls},
    };

    fn census(seconds: u64) -> Census {
        Census {
            at: Duration::from_secs(seconds),
            ..Census::default()
        }
    }

    fn connects(workload: &str, port: u16, count: u64) -> Connects {
        Connects {
            workload: Arc::new(Workload::of_cgroup(workload)),
            netns: 1,
            destination: IpAddr::from([192, 0, 2, 1]),
            port,
            count,
        }
    }

    fn connects_of(series: &Series, workload: &str) -> u64 {
        let rows = series.connects.rows();
        let row = rows.iter().find(|(labels, _)| labels[0] == workload);
        row.map_or(0, |(_, [count])| *count)
    }

    #[test]
    fn connects_count_on_when_the_programs_forget_a_destination() {
        let mut series = Series::new(Bounds::default());
        let mut now = census(0);
        for (counts, expected) in [
            (vec![(80, 5)], 5),
            (vec![(80, 7), (443, 1)], 8),
            (vec![(443, 4)], 11),
            (vec![(80, 2), (443, 4)], 13),
            // Fewer than before: forgotten and met again between two censuses.
            (vec![(80, 1), (443, 4)], 14),
        ] {
            now.connects = counts
                .iter()
                .map(|(port, count)| connects("/a.service", *port, *count))
                .collect();
            series.update(&now, &Findings::default());
            assert_eq!(
                connects_of(&series, "unit:a.service"),
                expected,
                "{counts:?}"
            );
        }
    }

    /// A census of these namespaces, by inode number, with their overflows.
    fn overflowing(namespaces: &[(u64, u64)]) -> Census {
        let namespace = |(inode, overflows): &(u64, u64)| NamespaceCensus {
            inode: *inode,
            limits: Limits {
                mibs: Mibs::of(&[("TCPTimeWaitOverflow", *overflows)]),
                ..Limits::default()
            },
            ..NamespaceCensus::default()
        };
        Census {
            namespaces: namespaces.iter().map(namespace).collect(),
            present: namespaces.iter().map(|(inode, _)| *inode).collect(),
            ..Census::default()
        }
    }

    #[test]
    fn no_row_of_overflows_falls_though_namespaces_come_and_go() {
        let mut series = Series::new(Bounds {
            label_sets: 2,
            ..Bounds::default()
        });
        let mut rows = |namespaces: &[(u64, u64)]| {
            series.update(&overflowing(namespaces), &Findings::default());
            let rows = series.overflows.rows();
            let rows: Vec<String> = rows
                .into_iter()
                .map(|(netns, count)| format!("{netns} {count}"))
                .collect();
            rows.join(", ")
        };
        assert_eq!(rows(&[(1, 5), (2, 0)]), "1 5, _gone 0, _other 0");
        assert_eq!(
            rows(&[(1, 5), (2, 1), (3, 7)]),
            "1 5, 2 1, _gone 0, _other 7"
        );
        // The first has gone; the third counts with the others for good.
        assert_eq!(rows(&[(2, 1), (3, 8)]), "2 1, _gone 5, _other 8");
        assert_eq!(rows(&[(2, 1), (4, 1)]), "2 1, 4 1, _gone 5, _other 8");
        assert_eq!(rows(&[]), "_gone 7, _other 8");
    }

    #[test]
    fn of_many_namespaces_the_host_and_those_near_a_limit_have_places() {
        let mut series = Series::new(Bounds {
            label_sets: 3,
            ..Bounds::default()
        });
        let mut now = overflowing(&[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]);
        for namespace in &mut now.namespaces {
            namespace.limits.sysctls = Sysctls::of(&[("tcp_max_tw_buckets", 100)]);
        }
        now.namespaces[4].is_host = true;
        now.namespaces[2].limits.sockstat.tw = Some(90);
        now.namespaces[3].ports.push(PortUse {
            source: IpAddr::from([192, 0, 2, 1]),
            destination: IpAddr::from([192, 0, 2, 2]),
            port: 80,
            used: 40,
        });
        series.update(&now, &Findings::default());
        let rows = series.namespaces.rows();
        let names: Vec<&str> = rows.iter().map(|(labels, _)| labels[0].as_str()).collect();
        assert_eq!(names, ["3", "4", "host", OTHER]);
    }

    #[test]
    fn a_namespace_that_was_not_reached_counts_on() {
        let mut series = Series::new(Bounds::default());
        series.update(&overflowing(&[(1, 5)]), &Findings::default());
        let mut unreached = overflowing(&[]);
        unreached.present = vec![1];
        series.update(&unreached, &Findings::default());
        series.update(&overflowing(&[(1, 6)]), &Findings::default());
        let rows = series.rows(&Census::default());
        assert_eq!(rows.mibs, [("TCPTimeWaitOverflow", 6)]);
        assert_eq!(rows.overflows[0], ("1".to_owned(), 6));
    }
}
