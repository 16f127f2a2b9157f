//! Sockets that stall for one cause and belong to one owner.

use std::{collections::BTreeMap, net::SocketAddr};

use agent_ebpf::state::TcpState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::end::{End, end};
use crate::{
    advice::{Advice, Topic, advise},
    census::{Age, Lingering, NamespaceCensus},
    limits::Sysctls,
};

/// Sockets of a stall that are told one by one, the oldest first.
const SOCKETS_TOLD: usize = 10;

/// Who found it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    /// In FIN_WAIT1.
    FinWait1,
    /// In FIN_WAIT2, as a full socket.
    FinWait2,
    /// In CLOSE_WAIT.
    CloseWait,
    /// In LAST_ACK or CLOSING.
    LastAck,
}

/// Why sockets stall.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The peer's window has no room for the next segment: it reads slowly, or not at all.
    ZeroWindow,
    /// What was sent is not acknowledged: the peer has gone, or the path is cut.
    Unacked,
    /// The peer has acknowledged something of late: it goes on, slowly.
    Draining,
    /// None of these shows (yet).
    Unknown,
    /// The process has shut down its side and holds the socket; the peer does not close. No limit
    /// ends this.
    HalfClosed,
    /// The process has closed the socket; the peer does not, and `tcp_fin_timeout` is above 60 s.
    OrphanWaiting,
    /// The peer has closed a connection that the process has not accepted yet: a hung server.
    NotAccepted,
    /// The process has not read all data: stuck or overloaded.
    DataUnread,
    /// The process has read all data, but not come back for the end since.
    EofUnread,
    /// The process has read everything, and does not close.
    Drained,
}

impl Cause {
    /// The causes of [`Detector::FinWait1`] and [`Detector::LastAck`], as they are tested.
    pub const OF_UNFINISHED: [Self; 4] = [
        Self::ZeroWindow,
        Self::Unacked,
        Self::Draining,
        Self::Unknown,
    ];
    /// The causes of [`Detector::FinWait2`].
    pub const OF_FIN_WAIT2: [Self; 2] = [Self::HalfClosed, Self::OrphanWaiting];
    /// The causes of [`Detector::CloseWait`], as they are tested.
    pub const OF_CLOSE_WAIT: [Self; 4] = [
        Self::NotAccepted,
        Self::DataUnread,
        Self::EofUnread,
        Self::Drained,
    ];

    /// The value of the `cause` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroWindow => "zero_window",
            Self::Unacked => "unacked",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
            Self::HalfClosed => "half_closed",
            Self::OrphanWaiting => "orphan_waiting",
            Self::NotAccepted => "not_accepted",
            Self::DataUnread => "data_unread",
            Self::EofUnread => "eof_unread",
            Self::Drained => "drained",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::ZeroWindow => "the peer does not read: its window is closed",
            Self::Unacked => "the peer does not answer: it is gone, or the path is cut",
            Self::Draining => "the peer reads slowly",
            Self::Unknown => "nothing shows why (yet)",
            Self::HalfClosed => "the peer does not close; this side is shut down, not closed",
            Self::OrphanWaiting => "the peer does not close; this side has",
            Self::NotAccepted => "the process does not accept connections",
            Self::DataUnread => "the process does not read the data it has",
            Self::EofUnread => "the process has not read since the peer closed",
            Self::Drained => "the process has read everything and does not close",
        }
    }
}

/// Which end of the connection the socket is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Something listens on its local port.
    Server,
    /// Nothing does.
    Client,
}

impl Side {
    /// The value of the `side` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Sockets of one network namespace that stall for one cause, of one owner and service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// What they are stuck in.
    pub detector: Detector,
    /// Why.
    pub cause: Cause,
    /// The network namespace: `host`, or its inode number.
    pub netns: String,
    /// Whose: the `workload` label; empty where that is not known.
    pub workload: String,
    /// The process; empty where none is known.
    pub process: String,
    /// The processes that hold them; of orphans, those that closed them.
    pub pids: Vec<u32>,
    /// The service's port: the local one of a server, the remote one of a client.
    pub port: u16,
    /// Which end they are.
    pub side: Side,
    /// How many.
    pub count: u64,
    /// The age of the oldest.
    pub oldest: Age,
    /// The oldest of them.
    pub sockets: Vec<StalledSocket>,
    /// What can be done.
    pub advice: Vec<Advice>,
}

/// One stalled socket, with the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StalledSocket {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
    /// Its state.
    pub state: TcpState,
    /// Whether no process holds it any more.
    pub orphan: bool,
    /// How long it has been in its state.
    pub age: Age,
    /// Bytes received and not read, a FIN counted as one.
    pub unread: u32,
    /// Bytes queued and never sent, likewise.
    pub unsent: u32,
    /// Bytes sent and not acknowledged, likewise.
    pub in_flight: u32,
    /// The peer's window, in bytes.
    pub peer_window: u32,
    /// Unanswered retransmissions.
    pub retransmits: u8,
    /// Unanswered probes of the window.
    pub probes: u8,
    /// What will end it, and when.
    pub end: End,
}

/// Puts the `sockets` of a namespace together by cause and owner.
pub(super) fn gather<'a>(
    detector: Detector,
    namespace: &NamespaceCensus,
    sockets: impl Iterator<Item = &'a Lingering>,
    cause: impl Fn(&Lingering) -> Cause,
) -> Vec<Stall> {
    let mut groups: BTreeMap<_, Vec<&Lingering>> = BTreeMap::new();
    for socket in sockets {
        let (port, side) = service(namespace, socket);
        let owner = socket.owner.as_deref();
        let (workload, process) = owner.map_or(("", ""), |owner| {
            (owner.workload.name.as_str(), owner.process.as_str())
        });
        let group = (cause(socket), workload, process, port, side);
        groups.entry(group).or_default().push(socket);
    }
    let sysctls = &namespace.limits.sysctls;
    let stalls = groups.into_iter();
    stalls
        .map(|((cause, workload, process, port, side), mut sockets)| {
            sockets.sort_by_key(|socket| std::cmp::Reverse(socket.age));
            let owners = sockets.iter().filter_map(|socket| socket.owner.as_ref());
            let mut pids: Vec<u32> = owners.flat_map(|owner| owner.pids.clone()).collect();
            pids.sort_unstable();
            pids.dedup();
            let topic = Topic::Stall {
                detector,
                cause,
                orphans: sockets.iter().any(|socket| socket.orphan),
                held: sockets.iter().any(|socket| !socket.orphan),
            };
            Stall {
                detector,
                cause,
                netns: namespace.name(),
                workload: workload.to_owned(),
                process: process.to_owned(),
                pids,
                port,
                side,
                count: sockets.len() as u64,
                oldest: sockets
                    .first()
                    .map_or_else(Age::default, |socket| socket.age),
                sockets: sockets
                    .into_iter()
                    .take(SOCKETS_TOLD)
                    .map(|socket| stalled(socket, cause, sysctls))
                    .collect(),
                advice: advise(topic, sysctls),
            }
        })
        .collect()
}

/// The port by which the service is known, and which end of the connection this is.
fn service(namespace: &NamespaceCensus, socket: &Lingering) -> (u16, Side) {
    if namespace.listens(socket.local.port()) {
        (socket.local.port(), Side::Server)
    } else {
        (socket.remote.port(), Side::Client)
    }
}

fn stalled(socket: &Lingering, cause: Cause, sysctls: &Sysctls) -> StalledSocket {
    StalledSocket {
        cookie: socket.cookie,
        local: socket.local,
        remote: socket.remote,
        state: socket.state,
        orphan: socket.orphan,
        age: socket.age,
        unread: socket.unread,
        unsent: socket.unsent,
        in_flight: socket.in_flight,
        peer_window: socket.snd_wnd,
        retransmits: socket.retransmits,
        probes: socket.probes_out,
        end: end(socket, cause, sysctls),
    }
}
