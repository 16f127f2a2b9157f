//! Which pass a census makes over which namespace: pure.
//!
//! A full pass over one namespace walks the hash table of the whole host, so that many namespaces
//! cost many walks. Where those would take more than their part of a core, one quick pass finds
//! the full sockets of all namespaces, and the full passes take turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// All censuses together take at most this part of one core.
pub(super) const CPU_SHARE_DIVISOR: u32 = 100;

/// A namespace's last full pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastFull {
    /// When it ended: CLOCK_MONOTONIC.
    pub(super) at: Duration,
    /// CPU time.
    pub(super) cost: Duration,
    /// Whether quick passes find the full sockets it found.
    pub(super) remembered: bool,
}

/// What a census does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A full pass over every namespace.
    Full,
    /// A quick pass over all, and a full one over these.
    Quick(BTreeSet<u64>),
}

/// What to do about these namespaces, once each `interval`, where a quick pass costs `quick`.
/// `last` has no entry for one that has never had a full pass; such a one has its turn at once, as
/// has one whose sockets a quick pass would not find.
pub(super) fn plan(
    namespaces: &[u64],
    last: &BTreeMap<u64, LastFull>,
    interval: Duration,
    quick: Duration,
) -> Plan {
    let budget = interval / CPU_SHARE_DIVISOR;
    let known: Vec<(u64, LastFull)> = namespaces
        .iter()
        .filter_map(|inode| Some((*inode, *last.get(inode)?)))
        .collect();
    let all: Duration = known.iter().map(|(_, last)| last.cost).sum();
    if all <= budget {
        return Plan::Full;
    }
    let remembered = |inode: &u64| last.get(inode).is_some_and(|last| last.remembered);
    let mut chosen: BTreeSet<u64> = namespaces
        .iter()
        .filter(|inode| !remembered(inode))
        .copied()
        .collect();
    let mut by_age = known;
    by_age.retain(|(inode, _)| remembered(inode));
    by_age.sort_by_key(|(inode, last)| (last.at, *inode));
    let mut spent = quick;
    for (inode, last) in by_age {
        // One at least, or none would ever have its turn.
        if spent + last.cost > budget && !chosen.is_empty() {
            break;
        }
        spent += last.cost;
        chosen.insert(inode);
    }
    Plan::Quick(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const QUICK: Duration = Duration::from_millis(10);

    fn last(passes: &[(u64, u64, u64)]) -> BTreeMap<u64, LastFull> {
        let last = |(inode, at, cost): &(u64, u64, u64)| {
            let at = Duration::from_secs(*at);
            let cost = Duration::from_millis(*cost);
            let remembered = true;
            (
                *inode,
                LastFull {
                    at,
                    cost,
                    remembered,
                },
            )
        };
        passes.iter().map(last).collect()
    }

    #[test]
    fn what_fits_the_budget_is_counted_in_full() {
        let last = last(&[(1, 0, 20), (2, 0, 30)]);
        assert_eq!(plan(&[1, 2], &last, INTERVAL, QUICK), Plan::Full);
        assert_eq!(plan(&[1, 2], &BTreeMap::new(), INTERVAL, QUICK), Plan::Full);
    }

    #[test]
    fn what_does_not_takes_turns_the_oldest_first() {
        let last = last(&[(1, 3, 20), (2, 1, 20), (3, 2, 20)]);
        let chosen = |namespaces: &[u64]| match plan(namespaces, &last, INTERVAL, QUICK) {
            Plan::Full => panic!("60 ms do not fit 50"),
            Plan::Quick(chosen) => chosen.into_iter().collect::<Vec<_>>(),
        };
        assert_eq!(chosen(&[1, 2, 3]), [2, 3]);
        assert_eq!(
            chosen(&[1, 2, 3, 4]),
            [2, 3, 4],
            "a new one is not kept waiting"
        );
    }

    #[test]
    fn the_first_quick_pass_comes_after_full_ones_that_remember() {
        let mut last = last(&[(1, 0, 30), (2, 1, 30), (3, 2, 30)]);
        for (inode, last) in &mut last {
            last.remembered = *inode == 3;
        }
        assert_eq!(
            plan(&[1, 2, 3], &last, INTERVAL, QUICK),
            Plan::Quick(BTreeSet::from([1, 2, 3]))
        );
    }

    #[test]
    fn one_has_its_turn_however_much_it_costs() {
        let last = last(&[(1, 0, 900), (2, 1, 1)]);
        assert_eq!(
            plan(&[1, 2], &last, INTERVAL, QUICK),
            Plan::Quick(BTreeSet::from([1]))
        );
    }
}
