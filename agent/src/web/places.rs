//! The places of a listener: who is connected, and whom the agent waits for.
//!
//! Who is connected can keep a place only by being answered. Where all are taken, the client that
//! has kept the agent waiting the longest makes room for the next, so that one that asks at once
//! is served however many never finish asking.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::refusals::{Refusal, Refusals};

/// How much a listener bears, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Event streams among them.
    pub streams: usize,
    /// Connections among them whose clients do not take what is sent to them. Each may hold a
    /// whole answer.
    pub stalled: usize,
    /// The time a TLS handshake may take.
    pub handshake: Duration,
    /// The time from the first byte of a request's head to its last, and from the beginning of a
    /// connection to the end of its first head.
    pub head: Duration,
    /// The time a connection may rest between two requests.
    pub idle: Duration,
    /// The time for which a client may take nothing of what is sent to it.
    pub stall: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 64,
            stalled: 32,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            stall: Duration::from_secs(10),
        }
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The TLS handshake.
    Handshake,
    /// A request's head has begun, or the first is awaited.
    Head,
    /// Between two requests.
    Idle,
    /// A request is answered.
    Answering,
    /// A request is answered by an event stream.
    Streaming,
}

struct Place<C> {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken nothing of what is sent to it.
    stalled: Option<Instant>,
    /// Dropped when the connection is turned away.
    closer: C,
}

impl<C> Place<C> {
    /// Since when the agent has waited for this client, if it does.
    fn waiting(&self) -> Option<Instant> {
        self.stalled.or(match self.phase {
            Phase::Handshake | Phase::Head | Phase::Idle => Some(self.since),
            Phase::Answering | Phase::Streaming => None,
        })
    }

    /// When the wait for this client ends, and what it then is; none for one that merely rests.
    fn due(&self, bounds: &Bounds) -> Option<(Instant, Option<Refusal>)> {
        if let Some(stalled) = self.stalled {
            return Some((stalled + bounds.stall, Some(Refusal::SlowReader)));
        }
        match self.phase {
            Phase::Handshake => Some((self.since + bounds.handshake, Some(Refusal::SlowHandshake))),
            Phase::Head => Some((self.since + bounds.head, Some(Refusal::SlowRequest))),
            Phase::Idle => Some((self.since + bounds.idle, None)),
            Phase::Answering | Phase::Streaming => None,
        }
    }
}

/// The places of one listener.
pub(super) struct Places<C> {
    bounds: Bounds,
    refusals: Arc<Refusals>,
    next: u64,
    taken: BTreeMap<u64, Place<C>>,
}

impl<C> Places<C> {
    pub(super) fn new(bounds: Bounds, refusals: Arc<Refusals>) -> Self {
        Self {
            bounds,
            refusals,
            next: 0,
            taken: BTreeMap::new(),
        }
    }

    /// A place for a new connection, if need be that of another; none where all are being
    /// answered.
    pub(super) fn enter(&mut self, phase: Phase, now: Instant, closer: C) -> Option<u64> {
        if self.taken.len() >= self.bounds.connections && !self.displace() {
            self.refusals.count(Refusal::Full);
            return None;
        }
        let id = self.next;
        self.next += 1;
        let place = Place {
            phase,
            since: now,
            stalled: None,
            closer,
        };
        self.taken.insert(id, place);
        Some(id)
    }

    /// Turns away who has kept the agent waiting the longest; false where nobody does.
    pub(super) fn displace(&mut self) -> bool {
        let waiting = |(id, place): (&u64, &Place<C>)| Some((place.waiting()?, *id));
        let longest = self.taken.iter().filter_map(waiting).min();
        if let Some((_, id)) = longest {
            self.refuse(id, Refusal::Displaced);
        }
        longest.is_some()
    }

    /// Notes what a connection is at from now on.
    pub(super) fn set(&mut self, id: u64, phase: Phase, now: Instant) {
        if let Some(place) = self.taken.get_mut(&id) {
            place.phase = phase;
            place.since = now;
        }
    }

    /// Notes that bytes came: between two requests, they begin the next.
    pub(super) fn received(&mut self, id: u64, now: Instant) {
        let place = self.taken.get(&id);
        if place.is_some_and(|place| place.phase == Phase::Idle) {
            self.set(id, Phase::Head, now);
        }
    }

    /// Makes an answer an event stream; false where there are enough of them.
    pub(super) fn stream(&mut self, id: u64, now: Instant) -> bool {
        let streaming = |place: &&Place<C>| place.phase == Phase::Streaming;
        let room = self.taken.values().filter(streaming).count() < self.bounds.streams;
        if room {
            self.set(id, Phase::Streaming, now);
        }
        room
    }

    /// Notes that the client takes nothing of what is sent to it. Where too many do that, the one
    /// that has the longest is turned away.
    pub(super) fn stalled(&mut self, id: u64, now: Instant) {
        if let Some(place) = self.taken.get_mut(&id) {
            place.stalled.get_or_insert(now);
        }
        let stalled = |(id, place): (&u64, &Place<C>)| Some((place.stalled?, *id));
        let all = self.taken.iter().filter_map(stalled);
        if all.clone().count() > self.bounds.stalled
            && let Some((_, id)) = all.min()
        {
            self.refuse(id, Refusal::SlowReader);
        }
    }

    /// Notes that the client takes what is sent to it.
    pub(super) fn flows(&mut self, id: u64) {
        if let Some(place) = self.taken.get_mut(&id) {
            place.stalled = None;
        }
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    /// Turns away all who have kept the agent waiting for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        let bounds = self.bounds;
        let over = |(id, place): (&u64, &Place<C>)| {
            let (due, refusal) = place.due(&bounds)?;
            (due <= now).then_some((*id, refusal))
        };
        let over: Vec<_> = self.taken.iter().filter_map(over).collect();
        for (id, refusal) in over {
            match refusal {
                Some(refusal) => self.refuse(id, refusal),
                None => self.leave(id),
            }
        }
    }

    /// Closes the connections of all who are not being answered.
    pub(super) fn close_waiting(&mut self) {
        self.taken
            .retain(|_, place| place.waiting().is_none() || place.stalled.is_some());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    pub(super) fn refuse(&mut self, id: u64, refusal: Refusal) {
        if let Some(place) = self.taken.remove(&id) {
            self.refusals.count(refusal);
            drop(place.closer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u32) -> Instant {
            self.0 + SECOND * seconds
        }
    }

    fn small() -> (Places<()>, Clock) {
        let bounds = Bounds {
            connections: 3,
            streams: 1,
            stalled: 1,
            ..Bounds::default()
        };
        let places = Places::new(bounds, Arc::default());
        (places, Clock(Instant::now()))
    }

    fn ids(places: &Places<()>) -> Vec<u64> {
        places.taken.keys().copied().collect()
    }

    fn counts(places: &Places<()>) -> Vec<(&'static str, u64)> {
        places
            .refusals
            .counts()
            .by_reason()
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    #[test]
    fn who_has_been_waited_for_the_longest_makes_room() {
        let (mut places, clock) = small();
        for second in 0..3 {
            places.enter(Phase::Head, clock.at(second), ()).unwrap();
        }
        // The first is answered and asks no more; so the second has been silent the longest.
        places.set(0, Phase::Answering, clock.at(3));
        places.set(0, Phase::Idle, clock.at(3));
        assert_eq!(places.enter(Phase::Head, clock.at(4), ()), Some(3));
        assert_eq!(ids(&places), [0, 2, 3]);
        assert_eq!(places.enter(Phase::Head, clock.at(5), ()), Some(4));
        assert_eq!(places.enter(Phase::Head, clock.at(6), ()), Some(5));
        assert_eq!(ids(&places), [3, 4, 5]);
        assert_eq!(counts(&places), [("displaced", 3)]);
    }

    #[test]
    fn who_is_being_answered_keeps_the_place() {
        let (mut places, clock) = small();
        for id in 0..3 {
            places.enter(Phase::Head, clock.at(0), ()).unwrap();
            places.set(id, Phase::Answering, clock.at(0));
        }
        assert_eq!(places.enter(Phase::Head, clock.at(1), ()), None);
        assert_eq!(counts(&places), [("full", 1)]);
        // Not so who does not take the answer.
        places.stalled(1, clock.at(2));
        assert_eq!(places.enter(Phase::Head, clock.at(3), ()), Some(3));
        assert_eq!(ids(&places), [0, 2, 3]);
        places.sweep(clock.at(3600));
        assert_eq!(ids(&places), [0, 2]);
    }

    #[test]
    fn every_wait_has_an_end() {
        for (phase, seconds, reason) in [
            (Phase::Handshake, 5, Some("slow_handshake")),
            (Phase::Head, 10, Some("slow_request")),
            (Phase::Idle, 60, None),
        ] {
            let (mut places, clock) = small();
            places.enter(phase, clock.at(0), ()).unwrap();
            places.sweep(clock.at(seconds - 1));
            assert_eq!(ids(&places), [0], "{phase:?}");
            places.sweep(clock.at(seconds));
            assert!(places.is_empty(), "{phase:?}");
            let expected: Vec<_> = reason.into_iter().map(|reason| (reason, 1)).collect();
            assert_eq!(counts(&places), expected, "{phase:?}");
        }
    }

    #[test]
    fn a_head_in_drops_gains_no_time() {
        let (mut places, clock) = small();
        places.enter(Phase::Idle, clock.at(0), ()).unwrap();
        for second in 50..60 {
            places.received(0, clock.at(second));
        }
        places.sweep(clock.at(60));
        assert!(places.is_empty());
        assert_eq!(counts(&places), [("slow_request", 1)]);
    }

    #[test]
    fn of_two_who_do_not_read_one_goes() {
        let (mut places, clock) = small();
        for id in 0..2 {
            places.enter(Phase::Head, clock.at(0), ()).unwrap();
            places.set(id, Phase::Answering, clock.at(0));
        }
        places.stalled(0, clock.at(1));
        places.flows(0);
        places.stalled(1, clock.at(2));
        places.stalled(0, clock.at(3));
        assert_eq!(ids(&places), [0]);
        // It has until ten seconds after it stalled, not after it was told of again.
        places.stalled(0, clock.at(9));
        places.sweep(clock.at(13));
        assert_eq!(counts(&places), [("slow_reader", 2)]);
    }

    #[test]
    fn streams_are_few_and_end_with_their_connections() {
        let (mut places, clock) = small();
        for _ in 0..2 {
            places.enter(Phase::Answering, clock.at(0), ()).unwrap();
        }
        assert!(places.stream(0, clock.at(0)));
        assert!(!places.stream(1, clock.at(0)));
        places.leave(0);
        assert!(places.stream(1, clock.at(0)));
    }

    #[test]
    fn at_the_end_only_those_being_answered_stay() {
        let (mut places, clock) = small();
        for phase in [Phase::Idle, Phase::Answering, Phase::Head] {
            places.enter(phase, clock.at(0), ()).unwrap();
        }
        places.close_waiting();
        assert_eq!(ids(&places), [1]);
    }
}
