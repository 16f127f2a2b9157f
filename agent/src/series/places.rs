//! How many label sets a family may have: as many as there are places, and one for all others.
//!
//! A *set* is a combination of the labels whose values nobody bounds, such as workload, process or
//! port. The labels that have few values, such as cause or state, are the columns of a place.
//!
//! Of new sets that compete for the places left, those of the highest rank win, and among equals
//! the first in the order of their labels. The rank is the sum over the columns, if nothing else is
//! said. A set keeps its place until it has been zero for ten minutes, so that a series does not come
//! and go; what has no place is put together under [`OTHER`]. A set that is all zero is as good as
//! none, and takes no place. One that is not, and yet has had no rank for ten minutes, keeps its place
//! until another with a rank needs it.
//!
//! What is kept is bounded by the number of places; while values are taken in, those of sets
//! without a place are held too.

use std::{collections::BTreeMap, iter, mem, time::Duration};

use super::number;

/// The value of every bounded label of what has no place of its own.
pub const OTHER: &str = "_other";

/// How long a place is kept for a set that is zero.
pub(super) const IDLE: Duration = Duration::from_mins(10);

/// How gauges of sets are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Added up, as numbers of sockets are.
    Sum,
    /// The largest, as for ages.
    Max,
}

/// The places of a family of gauges, none of which is ever below zero.
#[derive(Clone, Debug)]
pub struct GaugePlaces<const COLUMNS: usize> {
    merge: Merge,
    rank: fn(&[f64; COLUMNS]) -> f64,
    places: Places<f64, COLUMNS>,
}

impl<const COLUMNS: usize> GaugePlaces<COLUMNS> {
    /// So many places for sets of so many labels.
    #[must_use]
    pub fn new(capacity: usize, labels: usize, merge: Merge) -> Self {
        Self::ranked(capacity, labels, merge, |values| values.iter().sum())
    }

    /// Likewise, for sets that have something to show also without a `rank`.
    #[must_use]
    pub fn ranked(
        capacity: usize,
        labels: usize,
        merge: Merge,
        rank: fn(&[f64; COLUMNS]) -> f64,
    ) -> Self {
        Self {
            merge,
            rank,
            places: Places::new(capacity, labels),
        }
    }

    /// Takes in the present values, which replace the last; sets not among them are zero now. The
    /// values of a set that comes twice are put together; one with another number of labels counts
    /// as having no place.
    ///
    /// A set that had no place takes one, with all its value, as soon as one is free.
    pub fn set(
        &mut self,
        now: Duration,
        values: impl IntoIterator<Item = (Vec<String>, [f64; COLUMNS])>,
    ) {
        self.places.other = [0.0; COLUMNS];
        for place in self.places.sets.values_mut() {
            place.values = [0.0; COLUMNS];
        }
        let merge = match self.merge {
            Merge::Sum => |a, b| a + b,
            Merge::Max => f64::max,
        };
        self.places.take_in(now, values, merge, self.rank);
    }

    /// The places in the order of their labels, those that are zero included; then, always, what
    /// has none, under [`OTHER`].
    #[must_use]
    pub fn rows(&self) -> Vec<(Vec<String>, [f64; COLUMNS])> {
        self.places.rows()
    }
}

/// The places of a family of counters.
///
/// No row ever falls, and neither does the sum over them: what is counted for a set without a
/// place is counted under [`OTHER`] and stays there. Where a place is given up its row vanishes,
/// and its total moves to [`OTHER`]; if the set comes again, it counts from zero.
#[derive(Clone, Debug)]
pub struct CounterPlaces<const COLUMNS: usize> {
    places: Places<u64, COLUMNS>,
}

impl<const COLUMNS: usize> CounterPlaces<COLUMNS> {
    /// So many places for sets of so many labels.
    #[must_use]
    pub fn new(capacity: usize, labels: usize) -> Self {
        Self {
            places: Places::new(capacity, labels),
        }
    }

    /// Adds what has been counted since the last call. What comes twice for a set is added up; a
    /// set with another number of labels counts as having no place.
    ///
    /// A set that had no place takes one, from now on, as soon as one is free.
    pub fn add(
        &mut self,
        now: Duration,
        deltas: impl IntoIterator<Item = (Vec<String>, [u64; COLUMNS])>,
    ) {
        let sum = |values: &[u64; COLUMNS]| values.iter().copied().map(number).sum();
        self.places.take_in(now, deltas, u64::saturating_add, sum);
    }

    /// The places in the order of their labels, those that are zero included; then, always, what
    /// has none, under [`OTHER`].
    #[must_use]
    pub fn rows(&self) -> Vec<(Vec<String>, [u64; COLUMNS])> {
        self.places.rows()
    }
}

/// What gauges and counters have in common: who has a place.
#[derive(Clone, Debug)]
struct Places<T, const COLUMNS: usize> {
    capacity: usize,
    /// The labels of what has no place, as many as every set has.
    other_labels: Vec<String>,
    other: [T; COLUMNS],
    sets: BTreeMap<Vec<String>, Place<T, COLUMNS>>,
}

/// The place of a set.
#[derive(Clone, Debug)]
struct Place<T, const COLUMNS: usize> {
    values: [T; COLUMNS],
    /// Whether what is being taken in has something of it.
    is_present: bool,
    /// Since when it has been zero, or without a rank, if it is.
    idle_since: Option<Duration>,
}

impl<T: Copy + Default + PartialEq, const COLUMNS: usize> Places<T, COLUMNS> {
    fn new(capacity: usize, labels: usize) -> Self {
        Self {
            capacity,
            other_labels: vec![OTHER.to_owned(); labels],
            other: [T::default(); COLUMNS],
            sets: BTreeMap::new(),
        }
    }

    /// Merges `input` into the places, frees those that have been zero for too long, and gives the
    /// free ones, and those of sets long without a rank, to the sets of the highest.
    fn take_in(
        &mut self,
        now: Duration,
        input: impl IntoIterator<Item = (Vec<String>, [T; COLUMNS])>,
        merge: impl Fn(T, T) -> T,
        rank: impl Fn(&[T; COLUMNS]) -> f64,
    ) {
        let merge_into = |all: &mut [T; COLUMNS], values: [T; COLUMNS]| {
            for (all, value) in all.iter_mut().zip(values) {
                *all = merge(*all, value);
            }
        };
        let mut new = BTreeMap::new();
        for (labels, values) in input {
            if values == [T::default(); COLUMNS] {
                continue;
            }
            if let Some(place) = self.sets.get_mut(&labels) {
                merge_into(&mut place.values, values);
                place.is_present = true;
            } else if labels.len() != self.other_labels.len() || labels == self.other_labels {
                merge_into(&mut self.other, values);
            } else {
                let sum = new.entry(labels).or_insert([T::default(); COLUMNS]);
                merge_into(sum, values);
            }
        }
        let other = &mut self.other;
        self.sets.retain(|_, place| {
            let keep = place.is_kept(now, rank(&place.values) > 0.0);
            if !keep {
                merge_into(other, place.values);
            }
            keep
        });
        let mut new: Vec<_> = new.into_iter().collect();
        // They are in the order of their labels, which a stable sort keeps among equals.
        new.sort_by(|(_, a), (_, b)| rank(b).total_cmp(&rank(a)));
        let mut idle = self.idle(now).into_iter();
        for (labels, values) in new {
            if self.sets.len() >= self.capacity
                && rank(&values) > 0.0
                && let Some(place) = idle.next().and_then(|labels| self.sets.remove(&labels))
            {
                merge_into(&mut self.other, place.values);
            }
            if self.sets.len() < self.capacity {
                self.sets.insert(labels, Place::new(values));
            } else {
                merge_into(&mut self.other, values);
            }
        }
    }

    /// Sets that have had no rank for too long, the longest without first.
    fn idle(&self, now: Duration) -> Vec<Vec<String>> {
        let since = |place: &Place<T, COLUMNS>| {
            let since = place.idle_since?;
            (now.saturating_sub(since) >= IDLE).then_some(since)
        };
        let sets = self.sets.iter();
        let mut idle: Vec<_> = sets
            .filter_map(|(labels, place)| Some((since(place)?, labels)))
            .collect();
        idle.sort();
        idle.into_iter().map(|(_, labels)| labels.clone()).collect()
    }

    fn rows(&self) -> Vec<(Vec<String>, [T; COLUMNS])> {
        let sets = self.sets.iter();
        sets.map(|(labels, place)| (labels.clone(), place.values))
            .chain(iter::once((self.other_labels.clone(), self.other)))
            .collect()
    }
}

impl<T, const COLUMNS: usize> Place<T, COLUMNS> {
    fn new(values: [T; COLUMNS]) -> Self {
        Self {
            values,
            is_present: false,
            idle_since: None,
        }
    }

    /// Whether it is kept, by what has been taken in; makes ready for the next time.
    fn is_kept(&mut self, now: Duration, has_rank: bool) -> bool {
        let is_present = mem::take(&mut self.is_present);
        if is_present && has_rank {
            self.idle_since = None;
            return true;
        }
        let since = *self.idle_since.get_or_insert(now);
        is_present || now.saturating_sub(since) < IDLE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn minutes(minutes: u64) -> Duration {
        START + Duration::from_mins(minutes)
    }

    fn set<T: Copy>(labels: &str, value: T) -> (Vec<String>, [T; 1]) {
        (labels.split(' ').map(str::to_owned).collect(), [value])
    }

    fn gauges(capacity: usize) -> GaugePlaces<1> {
        GaugePlaces::new(capacity, 1, Merge::Sum)
    }

    fn assert_rows<T: Copy + PartialEq + std::fmt::Debug>(
        rows: &[(Vec<String>, [T; 1])],
        expected: &[(&str, T)],
    ) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(labels, value)| set(labels, *value))
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn other_is_always_there_with_as_many_labels() {
        let places = GaugePlaces::<2>::new(3, 2, Merge::Sum);
        assert_eq!(places.rows(), [(vec![OTHER.to_owned(); 2], [0.0; 2])]);
        let places = CounterPlaces::<1>::new(0, 0);
        assert_eq!(places.rows(), [(Vec::new(), [0])]);
    }

    #[test]
    fn rows_are_in_the_order_of_their_labels() {
        let mut places = GaugePlaces::new(5, 2, Merge::Sum);
        places.set(START, [set("b a", 1.0), set("a z", 2.0), set("a b", 3.0)]);
        let expected = [
            ("a b", 3.0),
            ("a z", 2.0),
            ("b a", 1.0),
            ("_other _other", 0.0),
        ];
        assert_rows(&places.rows(), &expected);
    }

    #[test]
    fn gauges_replace_the_last_and_counters_add_up() {
        let mut places = gauges(2);
        places.set(START, [set("a", 5.0), set("b", 1.0)]);
        places.set(START, [set("a", 2.0)]);
        assert_rows(&places.rows(), &[("a", 2.0), ("b", 0.0), (OTHER, 0.0)]);
        let mut places = CounterPlaces::new(2, 1);
        places.add(START, [set("a", 5), set("b", 1)]);
        places.add(START, [set("a", 2)]);
        assert_rows(&places.rows(), &[("a", 7), ("b", 1), (OTHER, 0)]);
    }

    #[test]
    fn the_largest_win_and_then_the_first_by_label() {
        let input = [("d", 9_u32), ("c", 5), ("b", 5), ("a", 1), ("e", 5)];
        let mut places = gauges(3);
        places.set(
            START,
            input.map(|(labels, value)| set(labels, f64::from(value))),
        );
        let expected = [("b", 5.0), ("c", 5.0), ("d", 9.0), (OTHER, 6.0)];
        assert_rows(&places.rows(), &expected);
        let mut places = CounterPlaces::new(3, 1);
        places.add(
            START,
            input.map(|(labels, value)| set(labels, u64::from(value))),
        );
        assert_rows(&places.rows(), &[("b", 5), ("c", 5), ("d", 9), (OTHER, 6)]);
    }

    #[test]
    fn the_sum_over_the_columns_decides() {
        let mut places = CounterPlaces::new(1, 1);
        let (a, b) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        places.add(START, [(a, [0, 9, 0]), (b.clone(), [4, 2, 4])]);
        assert_eq!(
            places.rows(),
            [(b, [4, 2, 4]), (vec![OTHER.to_owned()], [0, 9, 0])]
        );
    }

    #[test]
    fn a_set_that_comes_twice_is_merged_before_it_competes() {
        let input = || [set("a", 3.0), set("b", 4.0), set("a", 2.0)];
        let mut places = gauges(1);
        places.set(START, input());
        assert_rows(&places.rows(), &[("a", 5.0), (OTHER, 4.0)]);
        places.set(START, input());
        assert_rows(&places.rows(), &[("a", 5.0), (OTHER, 4.0)]);
    }

    #[test]
    fn of_ages_the_largest_is_shown() {
        let mut places = GaugePlaces::new(1, 1, Merge::Max);
        for _ in 0..2 {
            places.set(
                START,
                [("a", 9.0), ("b", 4.0), ("a", 7.0), ("c", 5.0)].map(|(l, v)| set(l, v)),
            );
            assert_rows(&places.rows(), &[("a", 9.0), (OTHER, 5.0)]);
        }
        places.set(START, [set("b", 1.0)]);
        assert_rows(&places.rows(), &[("a", 0.0), (OTHER, 1.0)]);
    }

    #[test]
    fn a_place_is_kept_however_large_the_others_are() {
        let mut places = gauges(1);
        places.set(START, [set("a", 1.0)]);
        places.set(START, [set("a", 1.0), set("b", 100.0)]);
        assert_rows(&places.rows(), &[("a", 1.0), (OTHER, 100.0)]);
    }

    #[test]
    fn a_place_is_given_up_after_ten_minutes_of_zero() {
        let mut places = gauges(1);
        places.set(minutes(0), [set("a", 1.0)]);
        // Zero now, whether it is told or not.
        places.set(minutes(1), [set("a", 0.0), set("b", 2.0)]);
        places.set(minutes(10), [set("b", 3.0)]);
        assert_rows(&places.rows(), &[("a", 0.0), (OTHER, 3.0)]);
        places.set(minutes(11), [set("b", 4.0)]);
        assert_rows(&places.rows(), &[("b", 4.0), (OTHER, 0.0)]);
    }

    #[test]
    fn a_place_that_is_used_again_has_its_ten_minutes_again() {
        let mut places = gauges(1);
        places.set(minutes(0), [set("a", 1.0)]);
        places.set(minutes(1), []);
        places.set(minutes(11), [set("a", 1.0)]);
        places.set(minutes(12), [set("b", 1.0)]);
        places.set(minutes(21), [set("b", 1.0)]);
        assert_rows(&places.rows(), &[("a", 0.0), (OTHER, 1.0)]);
        // A clock that goes back frees nothing.
        places.set(minutes(0), [set("b", 1.0)]);
        assert_rows(&places.rows(), &[("a", 0.0), (OTHER, 1.0)]);
    }

    #[test]
    fn a_counter_leaves_its_total_to_the_others() {
        let mut places = CounterPlaces::new(1, 1);
        places.add(minutes(0), [set("a", 7)]);
        places.add(minutes(1), [set("b", 2)]);
        assert_rows(&places.rows(), &[("a", 7), (OTHER, 2)]);
        places.add(minutes(11), []);
        assert_rows(&places.rows(), &[(OTHER, 9)]);
        // What was counted for b without a place stays where it was.
        places.add(minutes(12), [set("b", 1)]);
        assert_rows(&places.rows(), &[("b", 1), (OTHER, 9)]);
        places.add(minutes(13), [set("a", 1), set("b", 1)]);
        assert_rows(&places.rows(), &[("b", 2), (OTHER, 10)]);
    }

    #[test]
    fn a_set_without_a_rank_gives_way_to_one_that_has_but_to_no_other() {
        let mut places = GaugePlaces::<2>::ranked(1, 1, Merge::Sum, |[_, rank]| *rank);
        let set = |labels: &str, values| (vec![labels.to_owned()], values);
        let named = |places: &GaugePlaces<2>| places.rows().swap_remove(0).0.swap_remove(0);
        places.set(minutes(0), [set("a", [1.0, 0.0]), set("b", [1.0, 2.0])]);
        assert_eq!(named(&places), "b");
        // Its rank goes, its value stays.
        let quiet = [set("a", [1.0, 0.0]), set("b", [9.0, 0.0])];
        for now in [1, 11] {
            places.set(minutes(now), quiet.clone());
            assert_eq!(named(&places), "b");
        }
        places.set(minutes(12), [set("a", [1.0, 1.0]), set("b", [9.0, 0.0])]);
        let other = (vec![OTHER.to_owned()], [9.0, 0.0]);
        assert_eq!(places.rows(), [set("a", [1.0, 1.0]), other]);
        // Ten minutes are not over.
        places.set(minutes(13), [set("a", [1.0, 0.0]), set("b", [9.0, 3.0])]);
        assert_eq!(named(&places), "a");
    }

    #[test]
    fn a_set_that_is_zero_takes_no_place() {
        let mut places = gauges(2);
        places.set(START, [set("a", 0.0), set("b", 1.0)]);
        assert_rows(&places.rows(), &[("b", 1.0), (OTHER, 0.0)]);
        let mut places = CounterPlaces::new(2, 1);
        places.add(START, [set("a", 0)]);
        assert_rows(&places.rows(), &[(OTHER, 0)]);
    }

    #[test]
    fn a_set_of_that_name_or_of_other_labels_is_one_of_the_others() {
        let mut places = CounterPlaces::new(5, 1);
        places.add(
            START,
            [set(OTHER, 1), set("a b", 2), (Vec::new(), [4]), set("a", 8)],
        );
        assert_rows(&places.rows(), &[("a", 8), (OTHER, 7)]);
    }

    #[test]
    fn without_places_all_are_others() {
        let mut places = gauges(0);
        places.set(START, [set("a", 1.0), set("b", 2.0)]);
        assert_rows(&places.rows(), &[(OTHER, 3.0)]);
    }

    #[test]
    fn counters_do_not_overflow() {
        let mut places = CounterPlaces::new(1, 1);
        places.add(START, [set("a", u64::MAX), set("b", u64::MAX)]);
        places.add(START, [set("a", 1), set("b", 1)]);
        assert_rows(&places.rows(), &[("a", u64::MAX), (OTHER, u64::MAX)]);
    }

    /// Numbers that look random and are the same each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % bound
        }

        /// Some of twelve sets, one or the other twice, and now and then none for long.
        fn input(&mut self) -> Vec<(Vec<String>, [u64; 2])> {
            let (count, sets) = (self.below(10), self.below(12) + 1);
            let one = |_| {
                let labels = vec![format!("set{}", self.below(sets)), "x".to_owned()];
                (labels, [self.below(3), self.below(5)])
            };
            (0..count).map(one).collect()
        }
    }

    fn sum<'a>(rows: impl IntoIterator<Item = &'a (Vec<String>, [u64; 2])>) -> [u64; 2] {
        rows.into_iter().fold([0; 2], |sum, (_, values)| {
            [sum[0] + values[0], sum[1] + values[1]]
        })
    }

    #[test]
    fn counters_agree_with_adding_everything_up() {
        const CAPACITY: usize = 4;
        let mut random = Random(1);
        let (mut places, mut now) = (CounterPlaces::<2>::new(CAPACITY, 2), START);
        let (mut all, mut of_sets) = ([0; 2], BTreeMap::<_, [u64; 2]>::new());
        let mut active = BTreeMap::new();
        let (mut before, mut given_up) = (BTreeMap::<Vec<String>, [u64; 2]>::new(), 0);
        for _ in 0..20_000 {
            now += Duration::from_secs(random.below(300));
            let input = random.input();
            for (labels, values) in &input {
                let of_set = of_sets.entry(labels.clone()).or_default();
                *of_set = sum([&(labels.clone(), *of_set), &(labels.clone(), *values)]);
                if *values != [0; 2] {
                    active.insert(labels.clone(), now);
                }
            }
            let added = sum(&input);
            all = [all[0] + added[0], all[1] + added[1]];
            places.add(now, input);
            let rows = places.rows();
            assert!(rows.len() <= CAPACITY + 1);
            assert_eq!(sum(&rows), all);
            let after: BTreeMap<_, _> = rows.into_iter().collect();
            for (labels, old) in &before {
                if let Some(new) = after.get(labels) {
                    assert!(old[0] <= new[0] && old[1] <= new[1]);
                } else {
                    assert!(now.saturating_sub(active[labels]) >= IDLE);
                    given_up += 1;
                }
            }
            for (labels, values) in &after {
                // Never more than was counted, of which a part may be among the others.
                let of_set = of_sets.get(labels).unwrap_or(&all);
                assert!(values[0] <= of_set[0] && values[1] <= of_set[1]);
            }
            before = after;
        }
        assert!(given_up > 100, "{given_up}");
    }

    #[test]
    fn gauges_agree_with_adding_everything_up() {
        const CAPACITY: usize = 4;
        let mut random = Random(2);
        let (mut places, mut now) = (GaugePlaces::<2>::new(CAPACITY, 2, Merge::Sum), START);
        let mut before = BTreeSet::new();
        for _ in 0..20_000 {
            now += Duration::from_secs(random.below(300));
            let input = random.input();
            let mut left = BTreeMap::<_, [u64; 2]>::new();
            for (labels, [a, b]) in &input {
                let of_set = left.entry(labels.clone()).or_default();
                *of_set = [of_set[0] + a, of_set[1] + b];
            }
            places.set(now, input.into_iter().map(float));
            let rows = places.rows();
            let (_, held) = rows.split_last().unwrap();
            assert!(held.len() <= CAPACITY);
            let mut expected = Vec::new();
            let mut least_that_came = u64::MAX;
            for (labels, _) in held {
                let values = left.remove(labels).unwrap_or_default();
                if !before.contains(labels) {
                    least_that_came = least_that_came.min(values.iter().sum());
                }
                expected.push((labels.clone(), values));
            }
            left.retain(|_, values| *values != [0; 2]);
            // While there is a place nobody is left out, and the largest came in.
            assert!(left.is_empty() || held.len() == CAPACITY);
            assert!(
                left.values()
                    .all(|values| values.iter().sum::<u64>() <= least_that_came)
            );
            before = held.iter().map(|(labels, _)| labels.clone()).collect();
            let other = sum(&left.into_iter().collect::<Vec<_>>());
            expected.push((vec![OTHER.to_owned(); 2], other));
            let expected: Vec<_> = expected.into_iter().map(float).collect();
            assert_eq!(rows, expected);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    fn float((labels, values): (Vec<String>, [u64; 2])) -> (Vec<String>, [f64; 2]) {
        (labels, values.map(|value| value as f64))
    }
}
