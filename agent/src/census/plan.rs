//! Which pass a census makes over which namespace, and when the next one comes: pure.
//!
//! A full pass over one namespace walks the hash table of the whole host, so that many namespaces
//! cost many walks. Full passes tell everything, so they are made rarer first, to keep to their part
//! of a core. Where that would let gauges grow old, one quick pass finds the full sockets of all
//! namespaces, and the full passes take turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// All censuses together take at most this part of one core, 0.8 %: the whole agent shall do with
/// 1 %.
const CPU_SHARE_DIVISOR: u32 = 125;

/// Quick passes take at most this part of it, 0.56 %: the rest is for full ones.
const QUICK_SHARE_DIVISOR: u32 = 180;

/// As rare as this full censuses may become before quick ones take their place: no gauge is to be
/// older than 30 s.
const RAREST_FULL: Duration = Duration::from_secs(25);

/// By so much a namespace seems older of which quick passes have lost sight: it comes before the
/// others, but keeps none waiting for ever.
const HEAD_START: Duration = Duration::from_mins(10);

/// A namespace's last full pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastFull {
    /// When it ended: CLOCK_MONOTONIC.
    pub(super) at: Duration,
    /// CPU time.
    pub(super) cost: Duration,
    /// Whether quick passes find the full sockets it found.
    pub(super) remembered: bool,
    /// Whether quick passes have found fewer since than there are.
    pub(super) lost_sight: bool,
}

impl LastFull {
    /// Whoever has the least comes first.
    fn turn(&self) -> Duration {
        if self.lost_sight {
            self.at.saturating_sub(HEAD_START)
        } else {
            self.at
        }
    }
}

/// What a census does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A full pass over every namespace.
    Full,
    /// A quick pass over all, and a full one over these.
    Quick(BTreeSet<u64>),
}

/// CPU time that censuses may take, and have taken.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the last census began; nothing before the first.
    last: Option<Duration>,
    /// What the time since the first has earned and none has spent.
    credit: Duration,
    /// What a census without its full passes costs, the last ones above all; and one of nothing
    /// but full passes.
    quick: Option<Duration>,
    full: Option<Duration>,
}

impl Budget {
    /// A census begins. What to do about these namespaces, once each `interval`; `last` has no
    /// entry for one that has never had a full pass. Such a one has its turn at once, as has one
    /// whose sockets a quick pass would not find.
    pub(super) fn plan(
        &mut self,
        now: Duration,
        namespaces: &[u64],
        last: &BTreeMap<u64, LastFull>,
        interval: Duration,
    ) -> Plan {
        let known = || {
            let last = |inode: &u64| Some((*inode, *last.get(inode)?));
            namespaces.iter().filter_map(last)
        };
        let all: Duration = known().map(|(_, last)| last.cost).sum();
        // What nothing could ever be bought with is not saved.
        let most = known().map(|(_, last)| last.cost).max().unwrap_or_default();
        let earned = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.credit += earned / CPU_SHARE_DIVISOR;
        self.credit = self.credit.min((most + self.quick.unwrap_or_default()) * 2);
        self.last = Some(now);
        if all <= interval.max(RAREST_FULL) / CPU_SHARE_DIVISOR {
            return Plan::Full;
        }
        let (mut by_age, new): (Vec<_>, Vec<_>) = known().partition(|(_, last)| last.remembered);
        let never = namespaces.iter().filter(|inode| !last.contains_key(inode));
        let mut chosen: BTreeSet<u64> = never.copied().collect();
        chosen.extend(new.into_iter().map(|(inode, _)| inode));
        by_age.sort_by_key(|(inode, last)| (last.turn(), *inode));
        let mut left = self.credit.saturating_sub(self.quick.unwrap_or_default());
        for (inode, last) in by_age {
            let Some(rest) = left.checked_sub(last.cost) else {
                break;
            };
            left = rest;
            chosen.insert(inode);
        }
        Plan::Quick(chosen)
    }

    /// A census by this plan is over, and took so much CPU time, so much of it for full passes.
    /// How long after its beginning the next may begin.
    pub(super) fn space(
        &mut self,
        plan: &Plan,
        cost: Duration,
        of_full: Duration,
        interval: Duration,
    ) -> Duration {
        let mean = |mean: Option<Duration>, cost| mean.map_or(cost, |mean| (mean * 3 + cost) / 4);
        self.credit = self.credit.saturating_sub(cost);
        match plan {
            Plan::Full => {
                let is_first = self.full.is_none();
                let full = mean(self.full, cost);
                self.full = Some(full);
                let pause = full * CPU_SHARE_DIVISOR;
                // The first may be the last, followed by quick ones, which are cheaper: then the
                // next one need not wait until all of it is paid for.
                if is_first && of_full * CPU_SHARE_DIVISOR > RAREST_FULL.max(interval) {
                    interval.max(pause.min(RAREST_FULL))
                } else {
                    interval.max(pause)
                }
            }
            Plan::Quick(_) => {
                let quick = mean(self.quick, cost.saturating_sub(of_full));
                self.quick = Some(quick);
                interval.max(quick * QUICK_SHARE_DIVISOR)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Full passes by inode number, when they were, and what they cost.
    fn last(passes: &[(u64, u64, u64)]) -> BTreeMap<u64, LastFull> {
        let last = |(inode, seconds, cost): &(u64, u64, u64)| {
            let last = LastFull {
                at: at(*seconds),
                cost: ms(*cost),
                remembered: true,
                lost_sight: false,
            };
            (*inode, last)
        };
        passes.iter().map(last).collect()
    }

    fn chosen(plan: Plan) -> Vec<u64> {
        match plan {
            Plan::Full => panic!("a full census was planned"),
            Plan::Quick(chosen) => chosen.into_iter().collect(),
        }
    }

    #[test]
    fn what_fits_the_budget_is_counted_in_full() {
        let last = last(&[(1, 0, 90), (2, 0, 110)]);
        let mut budget = Budget::default();
        assert_eq!(budget.plan(at(0), &[1, 2], &last, INTERVAL), Plan::Full);
        let nothing = BTreeMap::new();
        assert_eq!(budget.plan(at(5), &[1, 2], &nothing, INTERVAL), Plan::Full);
    }

    #[test]
    fn what_does_not_takes_turns_as_far_as_the_credit_goes() {
        let last = last(&[(1, 3, 100), (2, 1, 100), (3, 2, 100)]);
        let mut budget = Budget::default();
        let all = [1, 2, 3];
        let plan = budget.plan(at(0), &all, &last, INTERVAL);
        assert!(chosen(plan.clone()).is_empty(), "nothing is earned yet");
        assert_eq!(budget.space(&plan, ms(10), ms(0), INTERVAL), INTERVAL);
        // 27 s earn 216 ms: the quick pass takes 10, two full ones 200. The oldest come first.
        let plan = budget.plan(at(27), &all, &last, INTERVAL);
        assert_eq!(chosen(plan.clone()), [2, 3]);
        budget.space(&plan, ms(210), ms(200), INTERVAL);
        assert_eq!(
            chosen(budget.plan(at(28), &[1, 2, 3, 4], &last, INTERVAL)),
            [4],
            "a new one is not kept waiting"
        );
    }

    #[test]
    fn one_that_is_lost_sight_of_comes_first_but_not_before_those_that_waited_for_long() {
        let first = |since: u64, now: u64| {
            let mut last = last(&[(1, since, 150), (2, now - 10, 150)]);
            last.entry(2).and_modify(|last| last.lost_sight = true);
            let mut budget = Budget::default();
            let all = [1, 2];
            let plan = budget.plan(at(0), &all, &last, INTERVAL);
            budget.space(&plan, ms(10), ms(0), INTERVAL);
            chosen(budget.plan(at(20), &all, &last, INTERVAL))
        };
        assert_eq!(first(1_000, 1_500), [2]);
        assert_eq!(first(1_000, 1_700), [1]);
    }

    #[test]
    fn an_expensive_one_has_its_turn_once_enough_is_saved() {
        let last = last(&[(1, 0, 300)]);
        let mut budget = Budget::default();
        let mut turns = Vec::new();
        for census in 0..25 {
            let plan = budget.plan(at(census * 5), &[1], &last, INTERVAL);
            let full = if chosen(plan.clone()).is_empty() {
                0
            } else {
                300
            };
            if full > 0 {
                turns.push(census);
            }
            assert_eq!(
                budget.space(&plan, ms(10 + full), ms(full), INTERVAL),
                INTERVAL
            );
        }
        // Each 5 s earn 40 ms and leave 30: enough for 310 after ten, and after ten more.
        assert_eq!(turns, [10, 20]);
    }

    #[test]
    fn the_first_quick_pass_comes_after_full_ones_that_remember() {
        let mut last = last(&[(1, 0, 100), (2, 1, 100), (3, 2, 100)]);
        for (inode, last) in &mut last {
            last.remembered = *inode == 3;
        }
        let plan = Budget::default().plan(at(0), &[1, 2, 3], &last, INTERVAL);
        assert_eq!(chosen(plan), [1, 2]);
    }

    #[test]
    fn censuses_that_cost_too_much_come_less_often() {
        let mut budget = Budget::default();
        assert_eq!(
            budget.space(&Plan::Full, ms(100), ms(100), INTERVAL),
            ms(12_500)
        );
        let mut fresh = Budget::default();
        let mut space = || fresh.space(&Plan::Full, ms(1_500), ms(1_500), INTERVAL);
        assert_eq!(space(), RAREST_FULL, "quick ones follow");
        assert_eq!(space(), ms(187_500), "they did not");
        let quick = Plan::Quick(BTreeSet::new());
        assert_eq!(budget.space(&quick, ms(100), ms(0), INTERVAL), at(18));
        assert_eq!(budget.space(&quick, ms(900), ms(800), INTERVAL), at(18));
    }
}
