//! What successive snapshots say together: rates per second, and the course of the last minute.
//! Pure.

use std::collections::VecDeque;

use agent_ebpf::{
    close::{CAUSE_COUNT, CloseCause},
    state::{STATE_COUNT, TcpState},
};

use crate::api::snapshot::{Activity, Snapshot};

/// Seconds over which rates are taken: few enough to follow, enough to stand still while read.
const WINDOW: f64 = 5.0;

/// Seconds of the course.
const COURSE: f64 = 60.0;

/// Snapshots that are remembered at most, however fast they come.
const REMEMBERED: usize = 128;

/// A change in the last minute that is worth a sign: one part in so many, and more than one.
const WORTH_A_SIGN: u64 = 50;

/// Causes that end a connection before both sides have said that they have nothing to send.
const CUT_SHORT: [CloseCause; 10] = [
    CloseCause::ResetReceived,
    CloseCause::LateData,
    CloseCause::UnreadData,
    CloseCause::LingerZero,
    CloseCause::Linger2,
    CloseCause::TimedOut,
    CloseCause::Keepalive,
    CloseCause::Killed,
    CloseCause::NeverAccepted,
    CloseCause::OrphanLimit,
];

/// Rates and trends.
#[derive(Debug, Default)]
pub(super) struct Rates {
    counters: VecDeque<Counters>,
    counts: VecDeque<(f64, [u64; STATE_COUNT])>,
}

/// Which way a number went in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trend {
    /// It has grown.
    Up,
    /// It is as it was, or nothing is known yet.
    Steady,
    /// It has fallen.
    Down,
}

/// What counts, without the rest of the snapshot.
#[derive(Debug)]
struct Counters {
    at: f64,
    transitions: [[u64; STATE_COUNT]; STATE_COUNT],
    closes: [u64; CAUSE_COUNT],
    retransmits: u64,
}

impl Rates {
    /// Takes in a snapshot.
    pub(super) fn take(&mut self, snapshot: &Snapshot) {
        let now = Counters::of(&snapshot.activity);
        if let Some(last) = self.counters.back() {
            if now.is_of_another_agent(last) {
                *self = Self::default();
            } else if now.at <= last.at {
                // The same picture again.
                return;
            }
        }
        let mut counts = [0; STATE_COUNT];
        for (state, count) in &snapshot.states {
            counts[*state as usize] = *count;
        }
        self.counts.push_back((now.at, counts));
        forget(&mut self.counts, now.at - COURSE, |(at, _)| *at);
        let since = now.at - WINDOW;
        self.counters.push_back(now);
        forget(&mut self.counters, since, |counters| counters.at);
    }

    /// Sockets per second from one state to another; nothing before the second snapshot.
    #[must_use]
    pub(super) fn transition(&self, from: TcpState, to: TcpState) -> Option<f64> {
        self.per_second(|counters| counters.transitions[from as usize][to as usize])
    }

    /// Sockets per second that closed for a cause.
    #[must_use]
    pub(super) fn close(&self, cause: CloseCause) -> Option<f64> {
        self.per_second(|counters| counters.closes[cause as usize])
    }

    /// Those that left FIN_WAIT2 for a timewait minisocket. No transition leads to TIME_WAIT: the
    /// closes for both causes do, of which CLOSING has its part.
    #[must_use]
    pub(super) fn fin_wait2_to_time_wait(&self) -> Option<f64> {
        let all = self.close(CloseCause::TimeWait)? + self.close(CloseCause::FinWait2TimeWait)?;
        let of_closing = self.transition(TcpState::Closing, TcpState::Close)?;
        Some((all - of_closing).max(0.0))
    }

    /// Those that were cut short.
    #[must_use]
    pub(super) fn cut_short(&self) -> Option<f64> {
        self.per_second(|counters| {
            let causes = CUT_SHORT.iter();
            sum(causes.map(|cause| counters.closes[*cause as usize]))
        })
    }

    /// Segments sent again per second.
    #[must_use]
    pub(super) fn retransmits(&self) -> Option<f64> {
        self.per_second(|counters| counters.retransmits)
    }

    /// How many sockets there were in a state in the last minute, in `columns` steps, the newest
    /// last. Where nothing is known yet, there is nothing.
    #[must_use]
    pub(super) fn course(&self, state: TcpState, columns: usize) -> Vec<Option<u64>> {
        let mut course = vec![None; columns];
        let Some((now, _)) = self.counts.back() else {
            return course;
        };
        for (at, counts) in &self.counts {
            let column = step((now - at) / COURSE, columns);
            if let Some(column) = columns.checked_sub(column + 1) {
                let most: &mut Option<u64> = &mut course[column];
                *most = (*most).max(Some(counts[state as usize]));
            }
        }
        // Where snapshots are rarer than columns, what was known holds.
        let mut known = None;
        for column in &mut course {
            known = column.or(known);
            *column = known;
        }
        course
    }

    /// Which way it went in the last minute.
    #[must_use]
    pub(super) fn trend(&self, state: TcpState) -> Trend {
        let third = self.counts.len().div_ceil(3) as u64;
        let third_of = |counts: &mut dyn Iterator<Item = &(f64, [u64; STATE_COUNT])>| -> u64 {
            let counts = counts.take(self.counts.len().div_ceil(3));
            sum(counts.map(|(_, counts)| counts[state as usize]))
        };
        let (then, now) = (
            third_of(&mut self.counts.iter()),
            third_of(&mut self.counts.iter().rev()),
        );
        let worth = then.max(now).div_ceil(WORTH_A_SIGN).max(third);
        if now >= then.saturating_add(worth) && now > then {
            Trend::Up
        } else if then >= now.saturating_add(worth) && then > now {
            Trend::Down
        } else {
            Trend::Steady
        }
    }

    fn per_second(&self, count: impl Fn(&Counters) -> u64) -> Option<f64> {
        let (then, now) = (self.counters.front()?, self.counters.back()?);
        let time = now.at - then.at;
        (time > 0.0).then(|| number(count(now).saturating_sub(count(then))) / time)
    }
}

impl Counters {
    fn of(activity: &Activity) -> Self {
        let mut transitions = [[0; STATE_COUNT]; STATE_COUNT];
        for transition in &activity.transitions {
            transitions[transition.from as usize][transition.to as usize] = transition.count;
        }
        let mut closes = [0; CAUSE_COUNT];
        for (cause, count) in &activity.closes {
            closes[*cause as usize] = *count;
        }
        Self {
            at: activity.at,
            transitions,
            closes,
            retransmits: activity.retransmits,
        }
    }

    /// Whether what never falls has fallen: the agent was started anew, or the host.
    fn is_of_another_agent(&self, last: &Self) -> bool {
        let fell = |now: &[u64], then: &[u64]| now.iter().zip(then).any(|(now, then)| now < then);
        self.at < last.at
            || fell(&self.closes, &last.closes)
            || fell(&[self.retransmits], &[last.retransmits])
            || fell(
                self.transitions.as_flattened(),
                last.transitions.as_flattened(),
            )
    }
}

/// Forgets what is older, but for the newest of it: from there on the time is whole.
fn forget<T>(past: &mut VecDeque<T>, since: f64, at: impl Fn(&T) -> f64) {
    while past.len() > REMEMBERED || past.get(1).is_some_and(|next| at(next) <= since) {
        past.pop_front();
    }
}

/// The agent may be anybody's, and its counters any numbers.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// A part of the whole, in steps.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a column of a screen"
)]
fn step(part: f64, steps: usize) -> usize {
    (part * steps as f64) as usize
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::snapshot::TransitionCount, top::fixture};

    const FIRST: TransitionCount = TransitionCount {
        from: TcpState::Established,
        to: TcpState::FinWait1,
        count: 0,
    };

    /// A snapshot at `at` seconds, with as many transitions and established sockets.
    fn snapshot(at: f64, count: u64) -> Snapshot {
        let mut snapshot = fixture::empty();
        snapshot.activity.at = at;
        snapshot.activity.transitions = vec![TransitionCount { count, ..FIRST }];
        snapshot.states.insert(TcpState::Established, count);
        snapshot
    }

    fn rate(rates: &Rates) -> Option<f64> {
        rates.transition(FIRST.from, FIRST.to)
    }

    #[test]
    fn the_first_snapshot_has_no_rate_and_the_second_has() {
        let mut rates = Rates::default();
        assert_eq!(rate(&rates), None);
        rates.take(&snapshot(10.0, 1_000));
        assert_eq!(rate(&rates), None);
        rates.take(&snapshot(12.0, 1_100));
        assert_eq!(rate(&rates), Some(50.0));
        // The same again changes nothing.
        rates.take(&snapshot(12.0, 1_100));
        assert_eq!(rate(&rates), Some(50.0));
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut rates = Rates::default();
        for second in 0..20 {
            rates.take(&snapshot(
                f64::from(second),
                if second < 10 { 0 } else { 700 },
            ));
        }
        assert_eq!(rate(&rates), Some(0.0));
        assert_eq!(rates.counters.len(), 6);
    }

    #[test]
    fn a_counter_that_fell_begins_anew() {
        let mut rates = Rates::default();
        rates.take(&snapshot(10.0, 1_000));
        rates.take(&snapshot(11.0, 2_000));
        rates.take(&snapshot(12.0, 5));
        assert_eq!(rate(&rates), None);
        rates.take(&snapshot(13.0, 10));
        assert_eq!(rate(&rates), Some(5.0));
        // A host that was started anew counts its time from zero.
        rates.take(&snapshot(1.0, 11));
        assert_eq!(rate(&rates), None);
    }

    #[test]
    fn into_time_wait_lead_closes() {
        let mut rates = Rates::default();
        let snapshot = |at, time_wait, fin_wait2, closing| {
            let mut snapshot = snapshot(at, 0);
            let closes = &mut snapshot.activity.closes;
            closes.insert(CloseCause::TimeWait, time_wait);
            closes.insert(CloseCause::FinWait2TimeWait, fin_wait2);
            snapshot.activity.transitions = vec![TransitionCount {
                from: TcpState::Closing,
                to: TcpState::Close,
                count: closing,
            }];
            snapshot
        };
        rates.take(&snapshot(0.0, 0, 0, 0));
        rates.take(&snapshot(1.0, 10, 5, 2));
        assert_eq!(rates.fin_wait2_to_time_wait(), Some(13.0));
    }

    #[test]
    fn the_course_is_of_a_minute_and_bounded() {
        let mut rates = Rates::default();
        for tenth in 0..3_000_u32 {
            rates.take(&snapshot(f64::from(tenth) / 10.0, u64::from(tenth)));
        }
        assert!(rates.counts.len() <= REMEMBERED);
        let course = rates.course(TcpState::Established, 6);
        assert_eq!(course[5], Some(2_999));
        assert!(course.is_sorted());
        assert_eq!(Rates::default().course(TcpState::Established, 2), [None; 2]);
    }

    #[test]
    fn a_trend_is_a_change_that_is_worth_a_sign() {
        let trend = |counts: &[u64]| {
            let mut rates = Rates::default();
            for (second, count) in (0_u32..).zip(counts) {
                let mut snapshot = snapshot(f64::from(second), 0);
                snapshot.states.insert(TcpState::CloseWait, *count);
                rates.take(&snapshot);
            }
            rates.trend(TcpState::CloseWait)
        };
        assert_eq!(trend(&[]), Trend::Steady);
        assert_eq!(trend(&[7]), Trend::Steady);
        assert_eq!(trend(&[1_000, 1_001, 1_000, 1_003]), Trend::Steady);
        assert_eq!(trend(&[4, 5, 6, 7, 8, 9]), Trend::Up);
        assert_eq!(trend(&[9, 9, 0, 0, 0, 0]), Trend::Down);
        assert_eq!(trend(&[0, 0, 0]), Trend::Steady);
    }

    #[test]
    fn counts_beyond_all_numbers_are_the_highest() {
        let mut rates = Rates::default();
        for second in [1.0, 2.0, 3.0, 4.0] {
            let mut snapshot = snapshot(second, u64::MAX);
            for cause in CUT_SHORT {
                snapshot.activity.closes.insert(cause, u64::MAX);
            }
            rates.take(&snapshot);
        }
        assert_eq!(rates.cut_short(), Some(0.0));
        assert_eq!(rates.trend(TcpState::Established), Trend::Steady);
    }
}
