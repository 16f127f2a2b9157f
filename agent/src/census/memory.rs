//! What is known of lingering sockets from one census to the next: pure, the clock an argument.

use std::{collections::HashMap, sync::Arc, time::Duration};

use agent_ebpf::state::TcpState;

use super::{Age, Lingering, Owner};

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
    owner: Option<Arc<Owner>>,
}

impl Memory {
    /// Completes what a census at `now` alone cannot tell: the least age of a socket whose state
    /// nobody saw begin, whether the peer has acknowledged anything since, and the owner it had.
    pub(super) fn complete(&self, now: Duration, socket: &mut Lingering) {
        let Some(seen) = self.sockets.get(&socket.cookie) else {
            return;
        };
        socket.owner.clone_from(&seen.owner);
        if seen.state != socket.state {
            return;
        }
        socket.advanced = Some(seen.snd_una != socket.snd_una);
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
            let first = last
                .get(&socket.cookie)
                .filter(|seen| seen.state == socket.state)
                .map_or(now, |seen| seen.first);
            let seen = Seen {
                state: socket.state,
                first,
                snd_una: socket.snd_una,
                owner: socket.owner.clone(),
            };
            self.sockets.insert(socket.cookie, seen);
        }
    }
}
