//! What is known of lingering sockets from one census to the next: pure, the clock an argument.

use std::{collections::HashMap, sync::Arc, time::Duration};

use agent_ebpf::state::TcpState;

use super::{Age, Lingering, Owner};

/// How long an acknowledgement counts as progress. A peer that reads slowly opens its window now
/// and then, and every other census finds nothing new.
const PROGRESS: Duration = Duration::from_secs(10);

/// The lingering sockets of the last census, by cookie: no more than that told.
#[derive(Debug, Default)]
pub(super) struct Memory {
    sockets: HashMap<u64, Seen>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Seen {
    state: TcpState,
    /// When a census first saw it in this state.
    first: Duration,
    snd_una: u32,
    /// When a census last found that the peer had acknowledged something.
    advanced: Option<Duration>,
    owner: Option<Arc<Owner>>,
}

impl Seen {
    /// When that was, given what has been acknowledged by `now`.
    fn advanced(&self, now: Duration, snd_una: u32) -> Option<Duration> {
        if self.snd_una == snd_una {
            self.advanced
        } else {
            Some(now)
        }
    }
}

impl Memory {
    /// Completes what a census at `now` alone cannot tell: the least age of a socket whose state
    /// nobody saw begin, whether the peer still acknowledges anything, and the owner it had.
    pub(super) fn complete(&self, now: Duration, socket: &mut Lingering) {
        let Some(seen) = self.sockets.get(&socket.cookie) else {
            return;
        };
        socket.owner.clone_from(&seen.owner);
        if seen.state != socket.state {
            return;
        }
        let advanced = seen.advanced(now, socket.snd_una);
        socket.advanced = Some(advanced.is_some_and(|at| now.saturating_sub(at) < PROGRESS));
        if !socket.age.exact {
            let watched = now.saturating_sub(seen.first);
            socket.age = Age {
                at_least: socket.age.at_least.max(watched),
                exact: false,
            };
        }
    }

    /// Remembers the sockets of a census at `now`, and no others.
    pub(super) fn keep<'a>(&mut self, now: Duration, sockets: impl Iterator<Item = &'a Lingering>) {
        let last = std::mem::take(&mut self.sockets);
        for socket in sockets {
            let before = last.get(&socket.cookie);
            let before = before.filter(|seen| seen.state == socket.state);
            let seen = Seen {
                state: socket.state,
                first: before.map_or(now, |seen| seen.first),
                snd_una: socket.snd_una,
                advanced: before.and_then(|seen| seen.advanced(now, socket.snd_una)),
                owner: socket.owner.clone(),
            };
            self.sockets.insert(socket.cookie, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn socket(state: TcpState, snd_una: u32) -> Lingering {
        Lingering {
            cookie: 7,
            state,
            snd_una,
            ..Lingering::default()
        }
    }

    /// The socket as completed at `now`, after it was seen at each of these times.
    fn seen(times: &[(u64, TcpState, u32)], now: u64, mut socket: Lingering) -> Lingering {
        let mut memory = Memory::default();
        for (time, state, snd_una) in times {
            let mut before = self::socket(*state, *snd_una);
            memory.complete(at(*time), &mut before);
            memory.keep(at(*time), std::iter::once(&before));
        }
        memory.complete(at(now), &mut socket);
        socket
    }

    #[test]
    fn a_state_nobody_saw_begin_is_at_least_as_old_as_it_was_watched() {
        use TcpState::{CloseWait, FinWait1, LastAck};
        let now = seen(&[], 10, socket(FinWait1, 0));
        assert_eq!((now.age.at_least, now.age.exact), (at(0), false));
        let now = seen(
            &[(1, FinWait1, 0), (4, FinWait1, 0)],
            10,
            socket(FinWait1, 0),
        );
        assert_eq!((now.age.at_least, now.age.exact), (at(9), false));
        let now = seen(
            &[(1, CloseWait, 0), (4, LastAck, 0)],
            10,
            socket(LastAck, 0),
        );
        assert_eq!(now.age.at_least, at(6), "the state changed in between");
    }

    #[test]
    fn an_age_known_better_is_left_alone() {
        let mut known = socket(TcpState::FinWait1, 0);
        known.age = Age {
            at_least: at(3),
            exact: true,
        };
        let now = seen(&[(1, TcpState::FinWait1, 0)], 10, known.clone());
        assert_eq!(now.age, known.age);
        known.age.exact = false;
        known.age.at_least = at(100);
        let now = seen(&[(1, TcpState::FinWait1, 0)], 10, known.clone());
        assert_eq!(now.age, known.age);
    }

    #[test]
    fn what_was_acknowledged_of_late_shows() {
        let before = [(1, TcpState::FinWait1, 100)];
        let advanced = |snd_una| seen(&before, 2, socket(TcpState::FinWait1, snd_una)).advanced;
        assert_eq!(advanced(100), Some(false));
        assert_eq!(advanced(101), Some(true));
        let before = [(1, TcpState::FinWait1, 99), (2, TcpState::FinWait1, 100)];
        let advanced = |now| seen(&before, now, socket(TcpState::FinWait1, 100)).advanced;
        assert_eq!(advanced(11), Some(true));
        assert_eq!(advanced(12), Some(false));
        assert_eq!(
            seen(&[], 2, socket(TcpState::FinWait1, 0)).advanced,
            None,
            "never seen"
        );
    }

    #[test]
    fn an_owner_is_kept_when_the_state_changes_and_forgotten_with_the_socket() {
        let mut memory = Memory::default();
        let owner = Arc::new(Owner {
            process: "leaky".to_owned(),
            pids: vec![3],
            workload: Arc::new(Workload::unknown()),
        });
        let mut before = socket(TcpState::CloseWait, 0);
        before.owner = Some(owner.clone());
        memory.keep(at(1), std::iter::once(&before));
        let mut now = socket(TcpState::LastAck, 0);
        memory.complete(at(2), &mut now);
        assert_eq!(now.owner, Some(owner));
        memory.keep(at(2), std::iter::empty());
        let mut later = socket(TcpState::LastAck, 0);
        memory.complete(at(3), &mut later);
        assert_eq!(later.owner, None);
    }
}
