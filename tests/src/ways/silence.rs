//! Connections whose peer is not heard of any more.

use std::{io::Write as _, net::Shutdown, time::Duration};

use agent_ebpf::{
    close::CloseCause::{Keepalive, LingerZero, TimedOut, UnreadData},
    state::TcpState::{Close, CloseWait, FinWait1, FinWait2, LastAck},
};
use anyhow::Result;
use socket2::{Socket, TcpKeepalive};

use super::Way;
use crate::{
    filter::{Filter, Packets},
    place::reset,
    trace::Trace,
    wait::{all_in, clients_in, fill, servers_in},
};

/// TCP_USER_TIMEOUT: `tcp_write_timeout` gives up at the first expiry past it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Keepalive probes unanswered (`tcp_keepalive_timer`).
pub const KEEPALIVE: Way = Way {
    name: "keepalive",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _cut = Filter::drop(place.port, Packets::All)?;
        let second = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new()
            .with_time(second)
            .with_interval(second)
            .with_retries(1);
        for client in &connections.clients {
            client.set_tcp_keepalive(&keepalive)?;
        }
        all_in(&connections.clients, Close)?;
        reset(connections.servers)
    },
    leaves: |n| {
        Trace::client(&[], Keepalive)
            .and(Trace::server(&[], LingerZero))
            .times(n)
            .and(Trace::listener())
    },
};

/// Data unacknowledged (`tcp_write_timeout`).
pub const RETRANSMISSIONS: Way = Way {
    name: "retransmissions",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _cut = Filter::drop(place.port, Packets::OfClient)?;
        speak_in_vain(&connections.clients)?;
        reset(connections.servers)
    },
    leaves: |n| {
        Trace::client(&[], TimedOut)
            .and(Trace::server(&[], LingerZero))
            .times(n)
            .and(Trace::listener())
    },
};

/// The same while ICMP says that the host is unreachable: `tcp_write_err` puts that error in the
/// place of ETIMEDOUT.
pub const SOFT_ERROR: Way = Way {
    name: "soft_error",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _cut = Filter::unreachable(place.port, Packets::OfClient)?;
        speak_in_vain(&connections.clients)?;
        reset(connections.servers)
    },
    leaves: RETRANSMISSIONS.leaves,
};

/// An orphan's FIN unacknowledged.
pub const ORPHAN_IN_FIN_WAIT1: Way = Way {
    name: "orphan_in_fin_wait1",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _cut = Filter::drop(place.port, Packets::OfClient)?;
        for client in &connections.clients {
            client.set_tcp_user_timeout(Some(PATIENCE))?;
        }
        drop(connections.clients);
        clients_in(place.port, "all", 0)?;
        reset(connections.servers)
    },
    leaves: |n| {
        Trace::client(&[FinWait1], TimedOut)
            .and(Trace::server(&[], LingerZero))
            .times(n)
            .and(Trace::listener())
    },
};

/// The second FIN unacknowledged.
pub const ORPHAN_IN_LAST_ACK: Way = Way {
    name: "orphan_in_last_ack",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        let _cut = Filter::drop(place.port, Packets::OfServer)?;
        for server in &connections.servers {
            server.set_tcp_user_timeout(Some(PATIENCE))?;
        }
        drop(connections.servers);
        servers_in(place.port, "last-ack", 0)?;
        reset(connections.clients)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], LingerZero)
            .and(Trace::server(&[CloseWait, LastAck], TimedOut))
            .times(n)
            .and(Trace::listener())
    },
};

/// Zero-window probes unanswered (`tcp_probe_timer`), which are no keepalive probes.
pub const ZERO_WINDOW: Way = Way {
    name: "zero_window",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            fill(client)?;
            // Only now, lest it be over before the window is full.
            client.set_tcp_user_timeout(Some(PATIENCE))?;
        }
        let _cut = Filter::drop(place.port, Packets::All)?;
        all_in(&connections.clients, Close)?;
        drop(connections.servers);
        Ok(())
    },
    leaves: |n| {
        Trace::client(&[], TimedOut)
            .and(Trace::server(&[], UnreadData))
            .times(n)
            .and(Trace::listener())
    },
};

fn speak_in_vain(clients: &[Socket]) -> Result<()> {
    for mut client in clients {
        client.set_tcp_user_timeout(Some(PATIENCE))?;
        client.write_all(b"unheard")?;
    }
    all_in(clients, Close)
}
