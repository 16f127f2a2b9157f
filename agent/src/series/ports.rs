//! The ranges of ephemeral ports that are shown: pure, the clock an argument.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    Gauges,
    places::{IDLE, OTHER},
};
use crate::census::Census;

/// The fullest ranges, as many as there is room for. Ports that run out matter wherever they do, so
/// that unlike elsewhere no set keeps its place before a fuller one. One that is not used any more
/// is shown as 0 for ten minutes, as long as there is room for all that are.
#[derive(Debug)]
pub(super) struct PortRows {
    room: usize,
    /// How many ports are used, and since when none, by namespace, source, destination and port.
    rows: BTreeMap<Vec<String>, (u64, Option<Duration>)>,
    /// Ports of the ranges that are not shown.
    others: u64,
}

impl PortRows {
    /// None shown yet.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            rows: BTreeMap::new(),
            others: 0,
        }
    }

    /// Takes in a census.
    pub(super) fn set(&mut self, census: &Census) {
        let namespaces = census.namespaces.iter();
        let mut all: Vec<_> = namespaces
            .flat_map(|namespace| namespace.ports.iter().map(move |ports| (namespace, ports)))
            .collect();
        all.sort_by_key(|(namespace, ports)| {
            let labels = (namespace.inode, ports.source, ports.destination, ports.port);
            (Reverse(ports.used), labels)
        });
        let (shown, others) = all.split_at(self.room.min(all.len()));
        self.others = others.iter().map(|(_, ports)| ports.used).sum();
        let rows = shown.iter().map(|(namespace, ports)| {
            let labels = vec![
                namespace.name(),
                ports.source.to_string(),
                ports.destination.to_string(),
                ports.port.to_string(),
            ];
            (labels, (ports.used, None))
        });
        let before = std::mem::replace(&mut self.rows, rows.collect());
        // Where all are shown, what was shown before and is not now is not used.
        if !others.is_empty() {
            return;
        }
        for (labels, (_, idle)) in before {
            let since = idle.unwrap_or(census.at);
            let is_fresh = census.at.saturating_sub(since) < IDLE;
            if is_fresh && self.rows.len() < self.room {
                self.rows.entry(labels).or_insert((0, Some(since)));
            }
        }
    }

    /// The rows in the order of their labels; then, always, the sum of all others.
    pub(super) fn rows(&self) -> Gauges<1> {
        let rows = self.rows.iter();
        rows.map(|(labels, (used, _))| (labels.clone(), [super::number(*used)]))
            .chain([(vec![OTHER.to_owned(); 4], [super::number(self.others)])])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::census::{NamespaceCensus, PortUse};

    /// What is shown of these remote ports after `seconds`, with room for two.
    fn shown(rows: &mut PortRows, seconds: u64, uses: &[(u16, u64)]) -> Vec<String> {
        let host = IpAddr::from([192, 0, 2, 1]);
        let ports = uses.iter().map(|(port, used)| PortUse {
            source: host,
            destination: host,
            port: *port,
            used: *used,
        });
        rows.set(&Census {
            at: Duration::from_secs(seconds),
            namespaces: vec![NamespaceCensus {
                is_host: true,
                ports: ports.collect(),
                ..NamespaceCensus::default()
            }],
            ..Census::default()
        });
        let rows = rows.rows().into_iter();
        rows.map(|(labels, [used])| format!("{} {used}", labels[3]))
            .collect()
    }

    #[test]
    fn the_fullest_are_shown_whoever_came_first() {
        let mut rows = PortRows::new(2);
        let all = |rows: &mut _, uses: &[_]| shown(rows, 0, uses);
        assert_eq!(
            all(&mut rows, &[(1, 1), (2, 1)]),
            ["1 1", "2 1", "_other 0"]
        );
        assert_eq!(
            all(&mut rows, &[(1, 1), (2, 1), (3, 100)]),
            ["1 1", "3 100", "_other 1"]
        );
        assert_eq!(
            all(&mut rows, &[(1, 1), (2, 9), (3, 7)]),
            ["2 9", "3 7", "_other 1"]
        );
    }

    #[test]
    fn what_is_not_used_any_more_falls_to_zero_before_it_goes() {
        let mut rows = PortRows::new(2);
        shown(&mut rows, 0, &[(1, 5), (2, 6)]);
        assert_eq!(shown(&mut rows, 5, &[(1, 5)]), ["1 5", "2 0", "_other 0"]);
        assert_eq!(shown(&mut rows, 604, &[(1, 5)]), ["1 5", "2 0", "_other 0"]);
        assert_eq!(shown(&mut rows, 605, &[(1, 5)]), ["1 5", "_other 0"]);
        assert_eq!(
            shown(&mut rows, 606, &[(2, 3), (3, 4)]),
            ["2 3", "3 4", "_other 0"]
        );
    }
}
