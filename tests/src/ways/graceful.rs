//! Connections closed by FINs.

use std::net::Shutdown;

use agent_ebpf::{
    close::CloseCause::{FinWait2TimeWait, Passive, ResetReceived, TimeWait, TimedOut},
    state::TcpState::{
        Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent,
    },
};

use anyhow::Result;
use socket2::Socket;

use super::Way;
use crate::{
    filter::{Filter, Packets},
    place::{Place, set_linger2},
    trace::Trace,
    wait::{all_in, clients_in, minisockets},
};

/// `close()` on one side, then on the other before the first FIN is acknowledged: one packet brings
/// both the acknowledgement and the FIN (`tcp_rcv_state_process`, then `tcp_fin`).
pub const FULL_CLOSE: Way = Way {
    name: "full_close",
    go: |place, n| {
        let connections = place.connections(n)?;
        // tcp_fin() delays the acknowledgement by 40 ms, which a busy host may exceed.
        let _no_bare_ack = Filter::drop(place.port, Packets::ServerAcks)?;
        drop(connections.clients);
        drop(connections.servers);
        Ok(())
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], TimeWait)
            .and(Trace::server(&[CloseWait, LastAck], Passive))
            .times(n)
            .and(Trace::listener())
    },
};

/// `shutdown()` on one side, whose FIN_WAIT2 its process holds until the peer's FIN ends it
/// (`tcp_fin`, `tcp_time_wait`).
pub const HELD_FIN_WAIT2: Way = Way {
    name: "held_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        drop(connections.servers);
        all_in(&connections.clients, Close)
    },
    leaves: FULL_CLOSE.leaves,
};

/// `close()` on one side long before the other: FIN_WAIT2 passes to a minisocket at once
/// (`tcp_rcv_state_process`), and the peer's FIN meets that.
pub const ORPHAN_FIN_WAIT2: Way = Way {
    name: "orphan_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        orphan(*place, connections.clients)?;
        minisockets(place.port, n)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], FinWait2TimeWait)
            .and(Trace::server(&[CloseWait, LastAck], Passive))
            .times(n)
            .and(Trace::listener())
    },
};

/// The same with TCP_LINGER2 one second above `TCP_TIMEWAIT_LEN`: the orphan stays a full socket for
/// a second, then passes to a minisocket (`tcp_keepalive_timer`).
pub const FULL_FIN_WAIT2: Way = Way {
    name: "full_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            set_linger2(client, 61)?;
        }
        drop(connections.clients);
        clients_in(place.port, "fin-wait-2", n)?;
        minisockets(place.port, n)
    },
    leaves: ORPHAN_FIN_WAIT2.leaves,
};

/// The same, of an orphan whose time is cut short while it waits: `tcp_keepalive_timer()` resets
/// the connection.
pub const FULL_FIN_WAIT2_CUT_SHORT: Way = Way {
    name: "full_fin_wait2_cut_short",
    go: |place, n| {
        let set = |seconds: &str| std::fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", seconds);
        let connections = place.connections(n)?;
        // Three seconds above TCP_TIMEWAIT_LEN, which is how long the timer runs.
        set("63")?;
        drop(connections.clients);
        clients_in(place.port, "fin-wait-2", n)?;
        set("60")?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], TimedOut)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// `shutdown()`, then `close()` in FIN_WAIT2: a self-transition (`tcp_close_state`), and the handover
/// to a minisocket by `close()` itself.
pub const SHUTDOWN_THEN_CLOSE: Way = Way {
    name: "shutdown_then_close",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        drop(connections.clients);
        Ok(())
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2, FinWait2], FinWait2TimeWait)
            .and(Trace::server(&[CloseWait, LastAck], Passive))
            .times(n)
            .and(Trace::listener())
    },
};

/// `shutdown()` and `close()` on both sides while nothing is acknowledged: self-transitions in
/// FIN_WAIT1 and LAST_ACK.
pub const CLOSE_UNACKNOWLEDGED: Way = Way {
    name: "close_unacknowledged",
    go: |place, n| {
        let connections = place.connections(n)?;
        let no_ack = Filter::drop(place.port, Packets::Acks)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.servers, CloseWait)?;
        drop(connections.clients);
        for server in &connections.servers {
            // Its FIN acknowledges the client's, and is not acknowledged itself.
            server.shutdown(Shutdown::Write)?;
        }
        drop(connections.servers);
        drop(no_ack);
        Ok(())
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait1, FinWait2], TimeWait)
            .and(Trace::server(&[CloseWait, LastAck, LastAck], Passive))
            .times(n)
            .and(Trace::listener())
    },
};

/// A socket connected to itself: the one sure way to open and to close on both sides at once
/// (`tcp_rcv_synsent_state_process`; `tcp_fin` in FIN_WAIT1).
pub const SELF_CONNECTION: Way = Way {
    name: "self_connection",
    go: |place, n| {
        for _ in 0..n {
            let place = Place::new(place.family);
            let socket = place.socket()?;
            socket.bind(&place.address().into())?;
            socket.connect(&place.address().into())?;
        }
        Ok(())
    },
    leaves: |n| {
        let states = [
            Close,
            SynSent,
            SynRecv,
            Established,
            FinWait1,
            Closing,
            Close,
        ];
        Trace::socket(&states, TimeWait).times(n)
    },
};

/// Closes `clients`, whose FINs are acknowledged only once that is done. A FIN acknowledged while
/// `tcp_close()` still owns the socket leaves a full socket in FIN_WAIT2, with a timer
/// (`tcp_rcv_state_process`, for `sock_owned_by_user()`): a race that one in some ten thousand
/// loses.
///
/// # Errors
///
/// Where `nft` is missing or fails.
pub(super) fn orphan(place: Place, clients: Vec<Socket>) -> Result<()> {
    let _no_ack = Filter::drop(place.port, Packets::ServerAcks)?;
    drop(clients);
    Ok(())
}
