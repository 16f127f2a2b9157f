//! Hands events on to whoever listens, and tells what the programs are to tell for their sake.
//!
//! A listener that does not keep up loses events, and is told how many; the agent never waits for
//! one. Nobody's being there costs nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use agent_ebpf::{
    record::StreamMode,
    stream::{Filter, StreamSettings},
};
use tokio::sync::{
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    watch,
};

use crate::decode::{Event, Retransmit, Socket, Transition};

/// Events in a batch at most.
const BATCH: usize = 1_024;

/// Batches that wait for the slowest listener: with full ones, 17 MiB of events.
const BATCHES: usize = 128;

/// An event, with the name of the process that opened or closed the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub event: Event,
    /// The name of its thread-group leader, where that is known.
    pub process: Option<Arc<str>>,
}

/// What a listener wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Of which transitions.
    pub mode: StreamMode,
    /// Of which sockets and states.
    pub filter: Filter,
}

impl Wish {
    /// Whether an event is for this listener.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let filter = &self.filter;
        let (socket, in_states) = match event {
            Event::Transition(Transition {
                from,
                to,
                socket,
                duration,
                ..
            }) => {
                let (from, to) = (*from as u8, *to as u8);
                // What is late is told whether it lingers or not: it does.
                let duration =
                    duration.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
                let told = self.mode.tells(from, to, duration);
                (socket, told && filter.passes_states(from, to))
            }
            Event::Retransmit(Retransmit { state, socket, .. }) => {
                (socket, filter.passes_states(*state as u8, *state as u8))
            }
        };
        in_states && Self::is_of(filter, socket)
    }

    /// Whether programs with these settings tell all that this listener wants to know.
    fn is_met_by(&self, settings: &StreamSettings) -> bool {
        let cgroup = self.filter.cgroup;
        settings.listeners >= self.mode as u32
            && settings.filter.either(&self.filter) == settings.filter
            && (cgroup == 0 || cgroup == settings.marked_cgroup)
    }

    fn is_of(filter: &Filter, socket: &Socket) -> bool {
        let ports = (socket.local.port(), socket.remote.port());
        filter.passes_socket(ports, socket.pid.unwrap_or(0))
            && (filter.cgroup == 0 || socket.in_cgroup)
    }
}

/// The listeners. Cheap to clone: every clone is the same feed.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    batches: broadcast::Sender<Arc<Batch>>,
    wishes: Mutex<Wishes>,
    /// What the programs tell, as far as that is known.
    in_force: watch::Sender<Option<StreamSettings>>,
    /// Events told so far.
    told: AtomicU64,
    /// Events that the programs could not tell so far.
    missing: Mutex<Missing>,
    /// Events that listeners were too slow for, together.
    unheard: AtomicU64,
}

/// Events that never reached the agent, of the whole host since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// How often the kernel skipped a program that tells events.
    pub missed: u64,
}

impl Missing {
    /// What went missing since an earlier moment.
    fn since(self, before: Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(before.ring_full),
            missed: self.missed.saturating_sub(before.missed),
        }
    }
}

#[derive(Debug, Default)]
struct Wishes {
    next: u64,
    of: BTreeMap<u64, Wish>,
}

/// Events that came one after the other.
#[derive(Debug)]
struct Batch {
    /// How many came before them.
    before: u64,
    events: Vec<Told>,
    missing: Missing,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Shared {
            batches: broadcast::Sender::new(BATCHES),
            wishes: Mutex::default(),
            in_force: watch::Sender::default(),
            told: AtomicU64::new(0),
            missing: Mutex::default(),
            unheard: AtomicU64::new(0),
        }))
    }
}

/// A listener could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another listener asks for the cgroup {present}, and the programs can watch one at a time: \
     leave the cgroup out, or wait until that listener has gone"
)]
pub struct OtherCgroup {
    /// The cgroup that is watched.
    pub present: u64,
}

impl Feed {
    /// A listener, from now on and until it is dropped.
    ///
    /// # Errors
    ///
    /// Where it asks for a cgroup, and another listener for another one.
    pub fn listen(&self, wish: Wish) -> Result<Listener, OtherCgroup> {
        let mut wishes = self.wishes();
        let cgroup = wish.filter.cgroup;
        let mut others = wishes.of.values().map(|other| other.filter.cgroup);
        if cgroup != 0
            && let Some(present) = others.find(|other| ![0, cgroup].contains(other))
        {
            return Err(OtherCgroup { present });
        }
        let id = wishes.next;
        wishes.next += 1;
        wishes.of.insert(id, wish);
        let batches = self.0.batches.subscribe();
        Ok(Listener {
            id,
            wish,
            batches,
            next: self.0.told.load(Ordering::Acquire),
            missing: self.missing(),
            feed: self.clone(),
        })
    }

    /// What the programs are to tell, if the agent itself wants to know of `own`. Where that is
    /// something new, nobody is served until [`Feed::is_told`] says that they do.
    #[must_use]
    pub fn settings(&self, own: StreamMode) -> StreamSettings {
        let wishes = self.wishes();
        let mut settings = StreamSettings::own(own);
        let mut filter: Option<Filter> = None;
        for wish in wishes.of.values() {
            settings.listeners = settings.listeners.max(wish.mode as u32);
            settings.marked_cgroup = settings.marked_cgroup.max(wish.filter.cgroup);
            filter = Some(filter.map_or(wish.filter, |all| all.either(&wish.filter)));
        }
        settings.filter = filter.unwrap_or(Filter::ANY);
        // Who comes to listen from here on is not among them, and waits for the next.
        self.0.in_force.send_if_modified(|in_force| {
            let is_other = in_force.is_some_and(|in_force| in_force != settings);
            *in_force = in_force.filter(|_| !is_other);
            is_other
        });
        settings
    }

    /// Says that the programs have these settings now.
    pub fn is_told(&self, settings: StreamSettings) {
        self.0.in_force.send_replace(Some(settings));
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.batches.receiver_count() > 0
    }

    /// Events that listeners were too slow for since the start, together.
    #[must_use]
    pub fn unheard(&self) -> u64 {
        self.0.unheard.load(Ordering::Relaxed)
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        lock(&self.0.wishes)
    }

    fn missing(&self) -> Missing {
        *lock(&self.0.missing)
    }
}

/// What another thread's panic leaves behind is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gathers events for a feed.
#[derive(Debug)]
pub struct Announcer {
    feed: Feed,
    events: Vec<Told>,
    missing: Missing,
}

impl Announcer {
    /// For the listeners of that feed.
    #[must_use]
    pub fn new(feed: Feed) -> Self {
        Self {
            feed,
            events: Vec::new(),
            missing: Missing::default(),
        }
    }

    /// Takes an event; it is told by the next [`Announcer::flush`] at the latest.
    pub fn tell(&mut self, event: Told) {
        self.events.push(event);
        if self.events.len() >= BATCH {
            self.flush();
        }
    }

    /// Tells what went missing so far.
    pub fn miss(&mut self, missing: Missing) {
        if missing != self.missing {
            self.missing = missing;
            *lock(&self.feed.0.missing) = missing;
            self.send();
        }
    }

    /// Tells what was gathered.
    pub fn flush(&mut self) {
        if !self.events.is_empty() {
            self.send();
        }
    }

    fn send(&mut self) {
        let events = std::mem::take(&mut self.events);
        let told = events.len() as u64;
        let before = self.feed.0.told.fetch_add(told, Ordering::AcqRel);
        // Fails only where nobody listens any more.
        let _nobody = self.feed.0.batches.send(Arc::new(Batch {
            before,
            events,
            missing: self.missing,
        }));
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    id: u64,
    wish: Wish,
    batches: broadcast::Receiver<Arc<Batch>>,
    /// How many events come before the next one that it shall hear.
    next: u64,
    /// What had gone missing before it.
    missing: Missing,
    feed: Feed,
}

/// What a listener hears at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Events that match its wish.
    pub events: Vec<Told>,
    /// Events before these that it was too slow for, whether it wanted them or not.
    pub lost: u64,
    /// Events that nobody could be told of since it heard last, whether it wanted them or not.
    pub missing: Missing,
}

impl Listener {
    /// Waits until the programs tell what this listener wants to know: from then on it hears all
    /// of it.
    pub async fn is_served(&self) {
        let mut in_force = self.feed.0.in_force.subscribe();
        let met = |settings: &Option<StreamSettings>| {
            settings.is_some_and(|settings| self.wish.is_met_by(&settings))
        };
        // Its sender lives as long as the feed, and that as long as this listener.
        let _met = in_force.wait_for(met).await;
    }

    /// The next events; nothing once the agent stops.
    pub async fn hear(&mut self) -> Option<Heard> {
        loop {
            match self.batches.recv().await {
                Ok(batch) => return Some(self.take(&batch)),
                // The next one tells how many.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next events, if there are any.
    pub fn try_hear(&mut self) -> Option<Heard> {
        loop {
            match self.batches.try_recv() {
                Ok(batch) => return Some(self.take(&batch)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn take(&mut self, batch: &Batch) -> Heard {
        // Who began to listen between the counting of a batch and its sending hears it.
        let lost = batch.before.saturating_sub(self.next);
        self.next = batch.before + batch.events.len() as u64;
        self.feed.0.unheard.fetch_add(lost, Ordering::Relaxed);
        let missing = batch.missing.since(self.missing);
        self.missing = batch.missing;
        let wanted = batch
            .events
            .iter()
            .filter(|told| self.wish.wants(&told.event));
        Heard {
            events: wanted.cloned().collect(),
            lost,
            missing,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.feed.wishes().of.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agent_ebpf::state::TcpState::{self, CloseWait, Established, FinWait1, LastAck};

    use super::*;

    const ALL: Wish = Wish {
        mode: StreamMode::All,
        filter: Filter::ANY,
    };

    fn told(from: TcpState, to: TcpState, port: u16) -> Told {
        Told {
            event: Event::Transition(Transition {
                at: Duration::ZERO,
                from,
                to,
                duration: None,
                cause: None,
                socket: Socket {
                    cookie: Some(port.into()),
                    netns: None,
                    local: ([127, 0, 0, 1], port).into(),
                    remote: ([127, 0, 0, 1], 9).into(),
                    pid: None,
                    orphan: false,
                    unfinished: false,
                    in_cgroup: port == 7,
                },
            }),
            process: None,
        }
    }

    fn of_port(port: u16) -> Wish {
        let filter = Filter {
            port,
            ..Filter::ANY
        };
        Wish { filter, ..ALL }
    }

    fn of_cgroup(cgroup: u64) -> Wish {
        let filter = Filter {
            cgroup,
            ..Filter::ANY
        };
        Wish { filter, ..ALL }
    }

    #[test]
    fn everybody_hears_what_they_asked_for() {
        let feed = Feed::default();
        let mut announcer = Announcer::new(feed.clone());
        let mut all = feed.listen(ALL).unwrap();
        let mut one = feed.listen(of_port(7)).unwrap();
        let mut lingering = feed
            .listen(Wish {
                mode: StreamMode::Lingering,
                ..ALL
            })
            .unwrap();
        announcer.tell(told(TcpState::SynSent, Established, 7));
        announcer.tell(told(Established, CloseWait, 8));
        announcer.flush();
        let heard = |listener: &mut Listener| listener.try_hear().unwrap().events.len();
        assert_eq!(heard(&mut all), 2);
        assert_eq!(heard(&mut one), 1);
        assert_eq!(heard(&mut lingering), 1);
        assert_eq!(all.try_hear(), None);
    }

    #[test]
    fn the_programs_tell_what_somebody_wants_and_no_more() {
        let feed = Feed::default();
        let alone = StreamSettings::own(StreamMode::Late);
        assert_eq!(feed.settings(StreamMode::Late), alone);
        let seven = feed.listen(of_port(7)).unwrap();
        assert_eq!(feed.settings(StreamMode::Late).filter.port, 7);
        assert_eq!(
            feed.settings(StreamMode::Late).listeners,
            StreamMode::All as u32
        );
        let eight = feed.listen(of_port(8)).unwrap();
        assert_eq!(feed.settings(StreamMode::Late).filter, Filter::ANY);
        drop(seven);
        assert_eq!(feed.settings(StreamMode::Late).filter.port, 8);
        assert!(feed.is_wanted());
        drop(eight);
        assert_eq!(feed.settings(StreamMode::Late), alone);
        assert!(!feed.is_wanted());
    }

    #[tokio::test]
    async fn a_listener_is_served_once_the_programs_know_what_it_wants() {
        use tokio::time::timeout;
        const SOON: Duration = Duration::from_millis(20);
        let feed = Feed::default();
        let seven = feed.listen(of_port(7)).unwrap();
        assert!(timeout(SOON, seven.is_served()).await.is_err());
        feed.is_told(StreamSettings::own(StreamMode::Late));
        assert!(timeout(SOON, seven.is_served()).await.is_err());
        feed.is_told(feed.settings(StreamMode::Late));
        timeout(SOON, seven.is_served()).await.unwrap();
        let cgroup = feed.listen(of_cgroup(40)).unwrap();
        assert!(timeout(SOON, cgroup.is_served()).await.is_err());
        feed.is_told(feed.settings(StreamMode::Late));
        timeout(SOON, cgroup.is_served()).await.unwrap();
        // What others want besides takes nothing away.
        timeout(SOON, seven.is_served()).await.unwrap();
    }

    #[test]
    fn a_slow_listener_loses_events_and_is_told_how_many() {
        let feed = Feed::default();
        let mut announcer = Announcer::new(feed.clone());
        let mut slow = feed.listen(ALL).unwrap();
        let batches = BATCHES as u64 + 10;
        for _ in 0..batches {
            announcer.tell(told(Established, FinWait1, 1));
            announcer.tell(told(Established, FinWait1, 2));
            announcer.flush();
        }
        let (mut heard, mut lost) = (0, 0);
        while let Some(batch) = slow.try_hear() {
            heard += batch.events.len() as u64;
            lost += batch.lost;
        }
        assert_eq!(heard + lost, 2 * batches);
        assert!(lost >= 20, "{lost}");
        assert_eq!(feed.unheard(), lost);
    }

    #[test]
    fn what_went_missing_is_told_once_to_each_who_listened_then() {
        let feed = Feed::default();
        let mut announcer = Announcer::new(feed.clone());
        let mut first = feed.listen(ALL).unwrap();
        let missing = |ring_full, missed| Missing { ring_full, missed };
        announcer.miss(missing(5, 0));
        let mut second = feed.listen(ALL).unwrap();
        announcer.miss(missing(5, 0));
        announcer.miss(missing(7, 1));
        announcer.tell(told(Established, FinWait1, 1));
        announcer.flush();
        let heard = |listener: &mut Listener| {
            let mut sum = missing(0, 0);
            while let Some(heard) = listener.try_hear() {
                sum.ring_full += heard.missing.ring_full;
                sum.missed += heard.missing.missed;
            }
            sum
        };
        assert_eq!(heard(&mut first), missing(7, 1));
        assert_eq!(heard(&mut second), missing(2, 1));
    }

    #[tokio::test]
    async fn who_comes_as_the_settings_fall_is_not_served_by_those_before() {
        use tokio::time::timeout;
        let feed = Feed::default();
        let gone = feed.listen(ALL).unwrap();
        feed.is_told(feed.settings(StreamMode::Late));
        drop(gone);
        let lowered = feed.settings(StreamMode::Late);
        let late = feed.listen(ALL).unwrap();
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, late.is_served()).await.is_err());
        feed.is_told(lowered);
        assert!(timeout(soon, late.is_served()).await.is_err());
        feed.is_told(feed.settings(StreamMode::Late));
        timeout(soon, late.is_served()).await.unwrap();
    }

    #[test]
    fn one_cgroup_is_watched_at_a_time() {
        let feed = Feed::default();
        let mut first = feed.listen(of_cgroup(40)).unwrap();
        let settings = feed.settings(StreamMode::Late);
        assert_eq!((settings.marked_cgroup, settings.filter.cgroup), (40, 40));
        assert!(feed.listen(of_cgroup(40)).is_ok());
        assert_eq!(
            feed.listen(of_cgroup(41)).unwrap_err(),
            OtherCgroup { present: 40 }
        );
        let _all = feed.listen(ALL).unwrap();
        let settings = feed.settings(StreamMode::Late);
        assert_eq!((settings.marked_cgroup, settings.filter.cgroup), (40, 0));
        let mut announcer = Announcer::new(feed.clone());
        announcer.tell(told(CloseWait, LastAck, 7));
        announcer.tell(told(CloseWait, LastAck, 8));
        announcer.flush();
        assert_eq!(first.try_hear().unwrap().events.len(), 1);
    }
}
