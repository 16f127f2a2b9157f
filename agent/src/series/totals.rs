//! Counters of network namespaces, which come and go.

use std::collections::{BTreeMap, BTreeSet};

/// One of the kernel's counters in every namespace, and their sum, which never falls.
///
/// The kernel gives a namespace's inode number to the next one at once. Where that happens between
/// two censuses it is told only by a count that has fallen; a count that has not is taken as
/// growth, which is too little, never too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceTotals {
    live: BTreeMap<u64, Live>,
    gone: u64,
}

/// A namespace's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    /// As the kernel told it last.
    told: u64,
    /// What it has counted in all, over every fresh start.
    total: u64,
}

impl NamespaceTotals {
    /// Takes in the counter of each namespace that a census reached, by its inode number, and
    /// which namespaces are `present`: one that was not reached is not gone, and counts on from
    /// where it was.
    pub fn update(&mut self, values: &BTreeMap<u64, u64>, present: &BTreeSet<u64>) {
        // What has a counter is there, even where it came after the list was made.
        let is_there = |inode: &u64| present.contains(inode) || values.contains_key(inode);
        let gone = &mut self.gone;
        self.live.retain(|inode, live| {
            let keep = is_there(inode);
            if !keep {
                *gone = gone.saturating_add(live.total);
            }
            keep
        });
        for (inode, told) in values {
            let live = self
                .live
                .entry(*inode)
                .or_insert(Live { told: 0, total: 0 });
            // One that has fallen has begun anew, from zero.
            let growth = told.checked_sub(live.told).unwrap_or(*told);
            live.total = live.total.saturating_add(growth);
            live.told = *told;
        }
    }

    /// What all namespaces have counted, those that are gone included. Never falls.
    #[must_use]
    pub fn total(&self) -> u64 {
        let live = self.live.values().map(|live| live.total);
        live.fold(self.gone, u64::saturating_add)
    }

    /// What each namespace that is there has counted, by rising inode number. None falls while its
    /// namespace is there.
    pub fn of_namespaces(&self) -> impl Iterator<Item = (u64, u64)> {
        self.live.iter().map(|(inode, live)| (*inode, live.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes in a census that reached every namespace present.
    fn census(totals: &mut NamespaceTotals, values: &[(u64, u64)]) {
        census_missing(totals, values, &[]);
    }

    /// Takes in a census that did not reach those of `unreached`.
    fn census_missing(totals: &mut NamespaceTotals, values: &[(u64, u64)], unreached: &[u64]) {
        let values: BTreeMap<_, _> = values.iter().copied().collect();
        let present = values.keys().chain(unreached).copied().collect();
        totals.update(&values, &present);
    }

    fn live(totals: &NamespaceTotals) -> Vec<(u64, u64)> {
        totals.of_namespaces().collect()
    }

    #[test]
    fn nothing_is_counted_before_a_census() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[]);
        assert_eq!((totals.total(), totals.gone), (0, 0));
        assert_eq!(live(&totals), []);
    }

    #[test]
    fn a_namespace_adds_its_value_and_then_its_growth() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[(7, 100), (3, 5)]);
        assert_eq!(
            (totals.total(), live(&totals)),
            (105, vec![(3, 5), (7, 100)])
        );
        census(&mut totals, &[(7, 130), (3, 5)]);
        assert_eq!(
            (totals.total(), live(&totals)),
            (135, vec![(3, 5), (7, 130)])
        );
    }

    #[test]
    fn one_that_is_gone_leaves_what_it_had() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[(7, 100), (3, 5)]);
        census(&mut totals, &[(3, 6)]);
        assert_eq!((totals.total(), totals.gone), (106, 100));
        assert_eq!(live(&totals), [(3, 6)]);
    }

    #[test]
    fn its_number_may_come_again() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[(7, 100)]);
        census(&mut totals, &[]);
        census(&mut totals, &[(7, 40)]);
        assert_eq!((totals.total(), totals.gone), (140, 100));
        assert_eq!(live(&totals), [(7, 40)]);
    }

    #[test]
    fn a_value_that_fell_starts_anew() {
        let mut totals = NamespaceTotals::default();
        for (value, total) in [(100, 100), (40, 140), (50, 150), (0, 150), (1, 151)] {
            census(&mut totals, &[(7, value)]);
            assert_eq!((totals.total(), totals.gone), (total, 0));
            assert_eq!(live(&totals), [(7, total)]);
        }
    }

    #[test]
    fn one_that_was_not_reached_is_not_gone() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[(7, 100), (3, 5)]);
        census_missing(&mut totals, &[(3, 5)], &[7]);
        assert_eq!((totals.total(), totals.gone), (105, 0));
        assert_eq!(live(&totals), [(3, 5), (7, 100)]);
        census(&mut totals, &[(7, 110), (3, 5)]);
        assert_eq!(totals.total(), 115);
    }

    #[test]
    fn one_that_was_never_reached_has_no_total() {
        let mut totals = NamespaceTotals::default();
        census_missing(&mut totals, &[], &[7]);
        assert_eq!(live(&totals), []);
    }

    #[test]
    fn one_with_a_value_is_there_whatever_the_list_says() {
        let mut totals = NamespaceTotals::default();
        for value in [100, 110] {
            totals.update(&BTreeMap::from([(7, value)]), &BTreeSet::new());
        }
        assert_eq!((totals.total(), totals.gone), (110, 0));
    }

    #[test]
    fn nothing_overflows() {
        let mut totals = NamespaceTotals::default();
        census(&mut totals, &[(7, u64::MAX), (3, u64::MAX)]);
        assert_eq!(totals.total(), u64::MAX);
        census(&mut totals, &[(7, 5)]);
        census(&mut totals, &[]);
        assert_eq!((totals.total(), totals.gone), (u64::MAX, u64::MAX));
    }

    #[test]
    fn no_sum_falls_and_only_those_present_are_kept() {
        let (mut totals, mut random) = (NamespaceTotals::default(), 1_u64);
        let mut next = move |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let (mut total, mut gone) = (0, 0);
        for _ in 0..10_000 {
            let there: Vec<_> = (0..8).filter(|_| next(4) > 0).collect();
            let values: Vec<_> = there.iter().map(|inode| (*inode, next(50))).collect();
            let (unreached, reached) = values.split_at(usize::from(next(3) == 0).min(values.len()));
            let unreached: Vec<_> = unreached.iter().map(|(inode, _)| *inode).collect();
            let before: BTreeMap<_, _> = totals.of_namespaces().collect();
            census_missing(&mut totals, reached, &unreached);
            assert!(totals.total() >= total && totals.gone >= gone);
            (total, gone) = (totals.total(), totals.gone);
            for (inode, now) in totals.of_namespaces() {
                assert!(there.contains(&inode));
                assert!(before.get(&inode).is_none_or(|before| *before <= now));
            }
        }
    }
}
