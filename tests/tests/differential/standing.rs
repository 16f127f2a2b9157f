//! Connections that stand still in known states while sockets are counted.

use std::net::Shutdown;

use agent_ebpf::{
    close::CloseCause::{
        ConnectFailed, FinWait2TimeWait, LingerZero, NeverAccepted, Passive, ResetReceived,
        TimeWait,
    },
    state::TcpState::{
        self, Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv,
        SynSent,
    },
};
use anyhow::Result;
use socket2::Socket;
use tests::{
    filter::{Filter, Packets},
    place::{Connections, Place, reset},
    trace::Trace,
    wait::{all_in, minisockets, servers_in},
};

/// A way to stand still.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its name.
    pub(super) name: &'static str,
    /// Makes as many connections stand so.
    pub(super) open: fn(&Place, usize) -> Result<Held>,
    /// Ends them.
    pub(super) finish: fn(&Place, Held) -> Result<()>,
    /// The states that each connection's sockets stand in; a minisocket's too.
    pub(super) sockets: &'static [TcpState],
    /// Whether a listener stands beside them.
    pub(super) has_listener: bool,
    /// The trace that so many leave in the end, that of their listener included.
    pub(super) leaves: fn(usize) -> Trace,
}

/// What stands.
#[derive(Debug, Default)]
pub(super) struct Held {
    listener: Option<Socket>,
    clients: Vec<Socket>,
    servers: Vec<Socket>,
    filter: Option<Filter>,
}

impl From<Connections> for Held {
    fn from(connections: Connections) -> Self {
        Self {
            listener: Some(connections.listener),
            clients: connections.clients,
            servers: connections.servers,
            filter: None,
        }
    }
}

impl Standing {
    /// Every one.
    pub(super) const ALL: &[Self] = &[
        ESTABLISHED,
        HALF_CLOSED_BY_CLIENT,
        HALF_CLOSED_BY_SERVER,
        ORPHANED,
        CONNECTING,
        REQUESTED,
        UNACCEPTED,
        UNACKNOWLEDGED,
        LAST_UNACKNOWLEDGED,
        CROSSED,
    ];

    /// Its sockets by state, where it has so many connections.
    pub(super) fn stands(&self, n: usize) -> Vec<(TcpState, u64)> {
        let each = self.sockets.iter().map(|state| (*state, n as u64));
        let listener = self.has_listener.then_some((Listen, 1));
        each.chain(listener).collect()
    }
}

/// Nothing happens, until the client resets.
const ESTABLISHED: Standing = Standing {
    name: "standing_established",
    open: |place, n| Ok(place.connections(n)?.into()),
    finish: |_, held| {
        reset(held.clients)?;
        all_in(&held.servers, Close)
    },
    sockets: &[Established, Established],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[], LingerZero);
        with_listener(&client.and(Trace::server(&[], ResetReceived)), n)
    },
};

/// The client's FIN alone (`tcp_fin`), then the server's.
const HALF_CLOSED_BY_CLIENT: Standing = Standing {
    name: "standing_half_closed_by_client",
    open: |place, n| {
        let held = Held::from(place.connections(n)?);
        shut(&held.clients)?;
        all_in(&held.clients, FinWait2)?;
        Ok(held)
    },
    finish: |_, held| {
        drop(held.servers);
        all_in(&held.clients, Close)
    },
    sockets: &[FinWait2, CloseWait],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[FinWait1, FinWait2], TimeWait);
        with_listener(
            &client.and(Trace::server(&[CloseWait, LastAck], Passive)),
            n,
        )
    },
};

/// The server's FIN alone, then the client's.
const HALF_CLOSED_BY_SERVER: Standing = Standing {
    name: "standing_half_closed_by_server",
    open: |place, n| {
        let held = Held::from(place.connections(n)?);
        shut(&held.servers)?;
        all_in(&held.servers, FinWait2)?;
        Ok(held)
    },
    finish: |_, held| {
        drop(held.clients);
        all_in(&held.servers, Close)
    },
    sockets: &[CloseWait, FinWait2],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[CloseWait, LastAck], Passive);
        with_listener(
            &client.and(Trace::server(&[FinWait1, FinWait2], TimeWait)),
            n,
        )
    },
};

/// The client's process has closed: its FIN_WAIT2 is a minisocket's (`tcp_time_wait`).
const ORPHANED: Standing = Standing {
    name: "standing_orphaned",
    open: |place, n| {
        let mut held = Held::from(place.connections(n)?);
        // A FIN acknowledged while tcp_close() owns the socket would leave a full one.
        let no_ack = Filter::drop(place.port, Packets::ServerAcks)?;
        held.clients.clear();
        drop(no_ack);
        minisockets(place.port, n)?;
        Ok(held)
    },
    finish: |place, held| {
        drop(held.servers);
        servers_in(place.port, "last-ack", 0)
    },
    sockets: &[FinWait2, CloseWait],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[FinWait1, FinWait2], FinWait2TimeWait);
        with_listener(
            &client.and(Trace::server(&[CloseWait, LastAck], Passive)),
            n,
        )
    },
};

/// SYNs without an answer, given up in the end.
const CONNECTING: Standing = Standing {
    name: "standing_connecting",
    open: |place, n| {
        let filter = Filter::drop(place.port, Packets::OfClient)?;
        let clients = (0..n).map(|_| place.connecting()).collect::<Result<_>>()?;
        Ok(Held {
            clients,
            filter: Some(filter),
            ..Held::default()
        })
    },
    finish: |_, held| {
        drop(held.clients);
        Ok(())
    },
    sockets: &[SynSent],
    has_listener: false,
    leaves: |n| Trace::socket(&[Close, SynSent, Close], ConnectFailed).times(n),
};

/// The last packet of the handshake is lost: the server has a request minisocket, which the
/// client's RST removes (`tcp_check_req`). No full socket ever comes of it.
const REQUESTED: Standing = Standing {
    name: "standing_requested",
    open: |place, n| {
        let listener = place.listen()?;
        let filter = Filter::drop(place.port, Packets::Acks)?;
        let clients = (0..n).map(|_| place.connect()).collect::<Result<_>>()?;
        Ok(Held {
            listener: Some(listener),
            clients,
            filter: Some(filter),
            ..Held::default()
        })
    },
    finish: |place, held| {
        reset(held.clients)?;
        servers_in(place.port, "syn-recv", 0)
    },
    sockets: &[Established, SynRecv],
    has_listener: true,
    leaves: |n| with_listener(&Trace::client(&[], LingerZero), n),
};

/// Nobody accepts, and the listener closes in the end (`inet_csk_listen_stop`).
const UNACCEPTED: Standing = Standing {
    name: "standing_unaccepted",
    open: |place, n| {
        let listener = place.listen()?;
        let clients = (0..n).map(|_| place.connect()).collect::<Result<_>>()?;
        Ok(Held {
            listener: Some(listener),
            clients,
            ..Held::default()
        })
    },
    finish: |_, held| {
        drop(held.listener);
        all_in(&held.clients, Close)
    },
    sockets: &[Established, Established],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[], ResetReceived);
        with_listener(&client.and(Trace::server(&[], NeverAccepted)), n)
    },
};

/// The client's FIN is lost, again and again, until the server resets.
const UNACKNOWLEDGED: Standing = Standing {
    name: "standing_unacknowledged",
    open: |place, n| {
        let mut held = Held::from(place.connections(n)?);
        held.filter = Some(Filter::drop(place.port, Packets::OfClient)?);
        shut(&held.clients)?;
        Ok(held)
    },
    finish: |_, held| {
        reset(held.servers)?;
        all_in(&held.clients, Close)
    },
    sockets: &[FinWait1, Established],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[FinWait1], ResetReceived);
        with_listener(&client.and(Trace::server(&[], LingerZero)), n)
    },
};

/// The server's FIN is lost, after the client's, until the client resets.
const LAST_UNACKNOWLEDGED: Standing = Standing {
    name: "standing_last_unacknowledged",
    open: |place, n| {
        let mut held = Held::from(place.connections(n)?);
        shut(&held.clients)?;
        all_in(&held.clients, FinWait2)?;
        held.filter = Some(Filter::drop(place.port, Packets::OfServer)?);
        held.servers.clear();
        Ok(held)
    },
    finish: |place, held| {
        reset(held.clients)?;
        servers_in(place.port, "last-ack", 0)
    },
    sockets: &[FinWait2, LastAck],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[FinWait1, FinWait2], LingerZero);
        with_listener(
            &client.and(Trace::server(&[CloseWait, LastAck], ResetReceived)),
            n,
        )
    },
};

/// Both FINs cross, and the client's is lost: CLOSING on one side (`tcp_fin` in FIN_WAIT1).
const CROSSED: Standing = Standing {
    name: "standing_crossed",
    open: |place, n| {
        let mut held = Held::from(place.connections(n)?);
        held.filter = Some(Filter::drop(place.port, Packets::OfClient)?);
        shut(&held.clients)?;
        shut(&held.servers)?;
        all_in(&held.clients, Closing)?;
        Ok(held)
    },
    finish: |_, held| {
        reset(held.servers)?;
        all_in(&held.clients, Close)
    },
    sockets: &[Closing, FinWait1],
    has_listener: true,
    leaves: |n| {
        let client = Trace::client(&[FinWait1, Closing], ResetReceived);
        with_listener(&client.and(Trace::server(&[FinWait1], LingerZero)), n)
    },
};

fn shut(sockets: &[Socket]) -> Result<()> {
    let mut sockets = sockets.iter();
    Ok(sockets.try_for_each(|socket| socket.shutdown(Shutdown::Write))?)
}

fn with_listener(each: &Trace, n: usize) -> Trace {
    each.times(n).and(Trace::listener())
}
