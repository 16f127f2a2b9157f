//! Connections ended by a RST, whoever sends it.

use std::{io::Write as _, net::Shutdown};

use agent_ebpf::{
    close::CloseCause::{
        FinWait2TimeWait, LateData, Linger2, LingerZero, Other, ResetReceived, UnreadData,
    },
    state::TcpState::{Close, CloseWait, FinWait1, FinWait2, LastAck},
};
use socket2::Socket;

use super::{Way, graceful::orphan};
use crate::{
    filter::{Filter, Packets},
    place::{reset, set_linger2},
    trace::Trace,
    wait::{all_in, clients_in, minisockets, servers_in, unread},
};

/// `close()` with SO_LINGER at zero (`tcp_disconnect`).
pub const LINGER_ZERO: Way = Way {
    name: "linger_zero",
    go: |place, n| {
        let connections = place.connections(n)?;
        reset(connections.clients)?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[], LingerZero)
            .and(Trace::server(&[], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// The same in FIN_WAIT2. The peer, in CLOSE_WAIT, gets EPIPE (`tcp_reset`).
pub const LINGER_ZERO_IN_FIN_WAIT2: Way = Way {
    name: "linger_zero_in_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        reset(connections.clients)?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], LingerZero)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// `close()` with data unread (`__tcp_close`).
pub const UNREAD_DATA: Way = Way {
    name: "unread_data",
    go: |place, n| {
        let connections = place.connections(n)?;
        say(&connections.servers)?;
        unread(&connections.clients)?;
        drop(connections.clients);
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[], UnreadData)
            .and(Trace::server(&[], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// `close()` with data and the peer's FIN unread.
pub const UNREAD_DATA_AND_FIN: Way = Way {
    name: "unread_data_and_fin",
    go: |place, n| {
        let connections = place.connections(n)?;
        say(&connections.servers)?;
        for server in &connections.servers {
            server.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.servers, FinWait2)?;
        drop(connections.clients);
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[CloseWait], UnreadData)
            .and(Trace::server(&[FinWait1, FinWait2], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// Data to an orphan whose FIN is lost: `tcp_rcv_state_process` resets in FIN_WAIT1.
pub const LATE_DATA_IN_FIN_WAIT1: Way = Way {
    name: "late_data_in_fin_wait1",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _lost = Filter::drop(place.port, Packets::ClientFins)?;
        drop(connections.clients);
        say(&connections.servers)?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1], LateData)
            .and(Trace::server(&[], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// Data to an orphan that FIN_WAIT2 leaves a full socket.
pub const LATE_DATA_IN_FIN_WAIT2: Way = Way {
    name: "late_data_in_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        full_fin_wait2(&connections.clients)?;
        drop(connections.clients);
        clients_in(place.port, "fin-wait-2", n)?;
        say(&connections.servers)?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], LateData)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// Data in the packet that acknowledges the orphan's FIN: `tcp_rcv_state_process` ends it without
/// an error, then answers with a RST.
pub const LATE_DATA_WITH_ACK: Way = Way {
    name: "late_data_with_ack",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _no_bare_ack = Filter::drop(place.port, Packets::ServerAcks)?;
        drop(connections.clients);
        all_in(&connections.servers, CloseWait)?;
        say(&connections.servers)?;
        all_in(&connections.servers, Close)
    },
    leaves: LATE_DATA_IN_FIN_WAIT2.leaves,
};

/// Data to the minisocket of an orphan: nobody is left to be told of it
/// (`tcp_timewait_state_process`).
pub const LATE_DATA_TO_MINISOCKET: Way = Way {
    name: "late_data_to_minisocket",
    go: |place, n| {
        let connections = place.connections(n)?;
        orphan(*place, connections.clients)?;
        minisockets(place.port, n)?;
        say(&connections.servers)?;
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], FinWait2TimeWait)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// A RST to an orphan in FIN_WAIT1, which is no late data.
pub const RESET_IN_FIN_WAIT1: Way = Way {
    name: "reset_in_fin_wait1",
    go: |place, n| {
        let connections = place.connections(n)?;
        let _lost = Filter::drop(place.port, Packets::ClientFins)?;
        drop(connections.clients);
        reset(connections.servers)?;
        clients_in(place.port, "all", 0)
    },
    leaves: |n| {
        Trace::client(&[FinWait1], ResetReceived)
            .and(Trace::server(&[], LingerZero))
            .times(n)
            .and(Trace::listener())
    },
};

/// A RST to an orphan in FIN_WAIT2, which is no late data either.
pub const RESET_IN_FIN_WAIT2: Way = Way {
    name: "reset_in_fin_wait2",
    go: |place, n| {
        let connections = place.connections(n)?;
        full_fin_wait2(&connections.clients)?;
        drop(connections.clients);
        clients_in(place.port, "fin-wait-2", n)?;
        reset(connections.servers)?;
        clients_in(place.port, "all", 0)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], ResetReceived)
            .and(Trace::server(&[CloseWait], LingerZero))
            .times(n)
            .and(Trace::listener())
    },
};

/// A RST to an orphan in LAST_ACK, whose FIN is lost.
pub const RESET_IN_LAST_ACK: Way = Way {
    name: "reset_in_last_ack",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        let _lost = Filter::drop(place.port, Packets::ServerFins)?;
        drop(connections.servers);
        reset(connections.clients)?;
        servers_in(place.port, "last-ack", 0)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], LingerZero)
            .and(Trace::server(&[CloseWait, LastAck], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// TCP_LINGER2 below zero: the acknowledgement of the FIN ends it (`tcp_rcv_state_process`).
pub const LINGER2_AT_ACK: Way = Way {
    name: "linger2_at_ack",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            set_linger2(client, -1)?;
        }
        drop(connections.clients);
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2], Linger2)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// The same at `close()` in FIN_WAIT2 (`__tcp_close`).
pub const LINGER2_AT_CLOSE: Way = Way {
    name: "linger2_at_close",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            set_linger2(client, -1)?;
            client.shutdown(Shutdown::Write)?;
        }
        all_in(&connections.clients, FinWait2)?;
        drop(connections.clients);
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[FinWait1, FinWait2, FinWait2], Linger2)
            .and(Trace::server(&[CloseWait], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

/// `connect()` to AF_UNSPEC (`tcp_disconnect`).
pub const DISCONNECTED: Way = Way {
    name: "disconnected",
    go: |place, n| {
        let connections = place.connections(n)?;
        for client in &connections.clients {
            rustix::net::connect_unspec(client)?;
        }
        all_in(&connections.servers, Close)
    },
    leaves: |n| {
        Trace::client(&[], Other)
            .and(Trace::server(&[], ResetReceived))
            .times(n)
            .and(Trace::listener())
    },
};

fn say(sockets: &[Socket]) -> anyhow::Result<()> {
    for mut socket in sockets {
        socket.write_all(b"late")?;
    }
    Ok(())
}

/// As `tcp_fin_timeout` would, were it above `TCP_TIMEWAIT_LEN`.
fn full_fin_wait2(sockets: &[Socket]) -> anyhow::Result<()> {
    sockets
        .iter()
        .try_for_each(|socket| set_linger2(socket, 120))
}
