//! A transition as a watcher tells it, and whose it is.

use agent_ebpf::{close::CloseCause, state::TcpState};

use super::plan::{FIRST_PORT, PORTS};

/// Which of a connection's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// That which listens.
    Listener,
    /// The accepting end.
    Server,
    /// The connecting end.
    Client,
}

/// A socket of the workload: by a port of the plan, since `tcpstates` tells no namespace and the
/// kernel gives the same address to one socket after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// The port of its group.
    pub(super) port: u16,
    /// Which end.
    pub(super) side: Side,
    /// The client's port; 0 of a listener, and of a client that has none yet.
    pub(super) peer: u16,
}

impl Key {
    /// That of a socket with these ends, if it is of the workload.
    pub(super) fn of(local: u16, remote: u16) -> Option<Self> {
        let is_planned = |port| (FIRST_PORT..FIRST_PORT + PORTS).contains(&port);
        let (port, side, peer) = if is_planned(local) && remote == 0 {
            (local, Side::Listener, 0)
        } else if is_planned(local) {
            (local, Side::Server, remote)
        } else if is_planned(remote) {
            (remote, Side::Client, local)
        } else {
            return None;
        };
        Some(Self { port, side, peer })
    }
}

/// From one state to another, or to itself.
pub(super) type Step = (TcpState, TcpState);

/// A transition that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Whose it is.
    pub(super) key: Key,
    /// The inode number of its namespace; `tcpstates` does not tell.
    pub(super) netns: Option<u32>,
    /// The transition.
    pub(super) step: Step,
    /// Why it closed; the agent alone tells.
    pub(super) cause: Option<CloseCause>,
}

#[test]
fn a_socket_is_known_by_the_port_that_the_plan_gave_it() {
    let key = |port, side, peer| Some(Key { port, side, peer });
    let planned = FIRST_PORT + 3;
    assert_eq!(Key::of(planned, 0), key(planned, Side::Listener, 0));
    assert_eq!(Key::of(planned, 40_000), key(planned, Side::Server, 40_000));
    assert_eq!(Key::of(40_000, planned), key(planned, Side::Client, 40_000));
    // Connected to itself.
    assert_eq!(
        Key::of(planned, planned),
        key(planned, Side::Server, planned)
    );
    assert_eq!(Key::of(40_000, 443), None);
}
