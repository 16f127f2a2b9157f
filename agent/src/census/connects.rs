//! Who connects whither, and when that was last heard of: pure, the clock an argument.

use std::{collections::HashMap, time::Duration};

use agent_ebpf::{census::ConnectKey, maps::CONNECT_CAPACITY};

/// How long a cgroup may not connect to a destination before its count gives way to another's.
const IDLE: Duration = Duration::from_mins(10);

/// The counts of the programs, as of the last census.
#[derive(Debug, Default)]
pub(super) struct ConnectAges {
    /// The count, and when it last rose.
    seen: HashMap<ConnectKey, (u64, Duration)>,
}

impl ConnectAges {
    /// Takes in the counts of a census at `now`. Returns those that may be forgotten, once the
    /// map they are in is more than three quarters full.
    pub(super) fn update(
        &mut self,
        now: Duration,
        counts: &[(ConnectKey, u64)],
    ) -> Vec<ConnectKey> {
        let last = std::mem::take(&mut self.seen);
        let mut idle = Vec::new();
        let crowded = counts.len() > CONNECT_CAPACITY / 4 * 3;
        for (key, count) in counts {
            let rose = match last.get(key) {
                Some((before, at)) if before == count => *at,
                _ => now,
            };
            if crowded && now.saturating_sub(rose) >= IDLE {
                idle.push(*key);
            } else {
                self.seen.insert(*key, (*count, rose));
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cgroup: u64) -> ConnectKey {
        ConnectKey {
            cgroup,
            destination: [0; 16],
            netns: 0,
            port: 80,
            reserved: 0,
        }
    }

    #[test]
    fn the_idle_give_way_once_room_is_scarce() {
        let at = Duration::from_secs;
        let few = [(key(1), 5)];
        let mut ages = ConnectAges::default();
        ages.update(at(0), &few);
        assert!(
            ages.update(at(100_000), &few).is_empty(),
            "there is room enough"
        );

        let mut counts: Vec<_> = (0..7_000).map(|cgroup| (key(cgroup), 1)).collect();
        let mut ages = ConnectAges::default();
        assert!(ages.update(at(0), &counts).is_empty());
        counts[17].1 += 1;
        assert!(ages.update(at(599), &counts).is_empty());
        let idle = ages.update(at(600), &counts);
        assert_eq!(idle.len(), 6_999);
        assert!(!idle.contains(&key(17)));
    }
}
