//! What happened to a socket, as `agent events` prints it and `/api/v1/events` serves it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use agent_ebpf::{
    close::CloseCause,
    retransmit::{Packet, Trigger},
    state::TcpState,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    decode::{Event, Socket},
    feed::Told,
};

/// An event. A transition has `from` and `to`, a retransmission `state`, `packet`, `trigger` and
/// `segments`; what is not known is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventLine {
    /// When, in seconds since 1970, to the microsecond.
    pub time: f64,
    /// What happened.
    pub event: Kind,
    /// The state that the socket left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TcpState>,
    /// The state it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TcpState>,
    /// How long it had been in the state that it left, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// Why it closed, as far as that is known then. A close by late data is told as `reset_received`
    /// or `fin_wait2_timewait`, for the kernel shows them after it (`tcp_rcv_state_process()`); only
    /// `connstate_closes_total` counts it as `late_data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CloseCause>,
    /// The state in which it sent segments again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TcpState>,
    /// What these segments were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// Why they were sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// How many they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<u32>,
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
    /// The network namespace's inode number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// The kernel's socket cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// The process that opened or closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The name of that one's thread-group leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
    /// Whether no process held the socket any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphan: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The socket changed its state.
    Transition,
    /// It sent segments again.
    Retransmit,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl EventLine {
    /// An event; `boot` is the time since 1970 at which CLOCK_MONOTONIC was zero.
    #[must_use]
    pub fn of(told: &Told, boot: Duration) -> Self {
        let line = |at, socket| Self::bare(at, socket, told.process.clone(), boot);
        match &told.event {
            Event::Transition(transition) => Self {
                from: Some(transition.from),
                to: Some(transition.to),
                ms: transition.duration.map(|time| time.as_secs_f64() * 1e3),
                cause: transition.cause,
                ..line(transition.at, &transition.socket)
            },
            Event::Retransmit(retransmit) => Self {
                event: Kind::Retransmit,
                state: Some(retransmit.state),
                packet: Some(retransmit.packet),
                trigger: Some(retransmit.trigger),
                segments: Some(retransmit.segments),
                ..line(retransmit.at, &retransmit.socket)
            },
        }
    }

    fn bare(at: Duration, socket: &Socket, process: Option<Arc<str>>, boot: Duration) -> Self {
        Self {
            time: (boot + at).as_secs_f64(),
            event: Kind::Transition,
            from: None,
            to: None,
            ms: None,
            cause: None,
            state: None,
            packet: None,
            trigger: None,
            segments: None,
            local: socket.local,
            remote: socket.remote,
            netns: socket.netns,
            cookie: socket.cookie,
            pid: socket.pid,
            process,
            orphan: socket.orphan,
        }
    }
}
