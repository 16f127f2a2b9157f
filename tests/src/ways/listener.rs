//! Connections that end because of what is done to the listener's side.

use agent_ebpf::{
    close::CloseCause::{
        FinWait2TimeWait, Killed as KilledCause, Listener, NeverAccepted, ResetReceived,
    },
    state::TcpState::{Close, CloseWait, FinWait1, FinWait2, Listen},
};
use anyhow::Result;

use super::{Way, connect::kill, graceful::orphan};
use crate::{
    place::Place,
    trace::Trace,
    wait::{all_in, minisockets, servers_in},
};

/// The listener closes while connections wait to be accepted (`inet_csk_listen_stop`).
pub const NEVER_ACCEPTED: Way = Way {
    name: "never_accepted",
    go: |place, n| {
        let listener = place.listen()?;
        let clients = (0..n)
            .map(|_| place.connect())
            .collect::<Result<Vec<_>>>()?;
        drop(listener);
        all_in(&clients, Close)
    },
    leaves: |n| {
        Trace::client(&[], ResetReceived)
            .and(Trace::server(&[], NeverAccepted))
            .times(n)
            .and(Trace::listener())
    },
};

/// The same after the peer has given up: the hung server's CLOSE_WAIT.
pub const NEVER_ACCEPTED_IN_CLOSE_WAIT: Way = Way {
    name: "never_accepted_in_close_wait",
    go: |place, n| {
        let _listener = place.listen()?;
        let clients = (0..n)
            .map(|_| place.connect())
            .collect::<Result<Vec<_>>>()?;
        orphan(*place, clients)?;
        servers_in(place.port, "close-wait", n)?;
        minisockets(place.port, n)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], FinWait2TimeWait)
            .and(Trace::server(&[CloseWait], NeverAccepted))
            .times(n)
            .and(Trace::listener())
    },
};

/// `ss -K` on the accepting ends (`tcp_abort`); the listener stays.
pub const KILLED: Way = Way {
    name: "killed",
    go: |place, n| {
        let connections = place.connections(n)?;
        kill(&[
            "state",
            "established",
            "sport",
            "=",
            &format!(":{}", place.port),
        ])?;
        all_in(&connections.servers, Close)?;
        all_in(&connections.clients, Close)?;
        servers_in(place.port, "listening", 1)
    },
    leaves: |n| {
        Trace::client(&[], ResetReceived)
            .and(Trace::server(&[], KilledCause))
            .times(n)
            .and(Trace::listener())
    },
};

/// `ss -K` on listeners. `tcp_abort()` closes each twice: the second event is a self-transition.
pub const KILLED_LISTENER: Way = Way {
    name: "killed_listener",
    go: |place, n| {
        let listeners = (0..n)
            .map(|_| Place::new(place.family).listen())
            .collect::<Result<Vec<_>>>()?;
        kill(&["state", "listening"])?;
        all_in(&listeners, Close)
    },
    leaves: |n| Trace::socket(&[Close, Listen, Close, Close], Listener).times(n),
};
