//! Makes events of the ring buffer's records: pure, total, and wary of every byte.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use agent_ebpf::{
    close::CloseCause,
    record::{
        FLAG_DURATION_KNOWN, FLAG_DURATION_MS, FLAG_IN_CGROUP, FLAG_IPV6, FLAG_ORPHAN,
        FLAG_UNFINISHED, KIND_RETRANSMIT, KIND_TRANSITION, NO_CAUSE, RECORD_SIZE,
    },
    retransmit::{Packet, Trigger},
    state::TcpState,
};
use thiserror::Error;

/// Something that happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It changed its state.
    Transition(Transition),
    /// It sent segments again.
    Retransmit(Retransmit),
}

impl Event {
    /// The socket it is about.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        match self {
            Self::Transition(transition) => &transition.socket,
            Self::Retransmit(retransmit) => &retransmit.socket,
        }
    }
}

/// A socket changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When: CLOCK_MONOTONIC, to the microsecond.
    pub at: Duration,
    /// The state it left.
    pub from: TcpState,
    /// The state it took.
    pub to: TcpState,
    /// How long it had been in the old state, where that is known.
    pub duration: Option<Duration>,
    /// Why it closed, where `to` is close.
    pub cause: Option<CloseCause>,
    /// The socket.
    pub socket: Socket,
}

/// A socket sent segments again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// When: CLOCK_MONOTONIC, to the microsecond.
    pub at: Duration,
    /// The state it was in.
    pub state: TcpState,
    /// What the segments were.
    pub packet: Packet,
    /// Why they were sent again.
    pub trigger: Trigger,
    /// How many.
    pub segments: u32,
    /// The socket.
    pub socket: Socket,
}

/// Which socket an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's socket cookie, unique until the host restarts; nothing where it had none yet.
    pub cookie: Option<u64>,
    /// The network namespace's inode number, where the kernel tells.
    pub netns: Option<u32>,
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port; unspecified for a listener.
    pub remote: SocketAddr,
    /// The process that opened or closed it, as far as one did in its own context.
    pub pid: Option<u32>,
    /// Whether its process had closed it, so that TCP alone held it.
    pub orphan: bool,
    /// Whether the kernel had filled in the new socket only in part.
    pub unfinished: bool,
    /// Whether it is of the cgroup that was to be marked.
    pub in_cgroup: bool,
}

/// A record that is none. The programs and the agent come from one source, so this is a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not as long as every record is.
    #[error("a record of {0} bytes, not {RECORD_SIZE}")]
    Length(usize),
    /// Not a kind of record.
    #[error("a record of the unknown kind {0}")]
    Kind(u8),
    /// A number outside of its range.
    #[error("{field} {value} is unknown")]
    Value {
        /// Which number.
        field: Field,
        /// What it was.
        value: u8,
    },
}

/// A number with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A TCP state.
    State,
    /// A close cause.
    Cause,
    /// A kind of segment.
    Packet,
    /// A trigger of a retransmission.
    Trigger,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::State => "state",
            Self::Cause => "close cause",
            Self::Packet => "packet kind",
            Self::Trigger => "retransmission trigger",
        })
    }
}

/// Decodes one record, read at `now` (CLOCK_MONOTONIC), at most 71 minutes after it was written.
///
/// # Errors
///
/// Where the bytes are no record.
pub fn decode(bytes: &[u8], now: Duration) -> Result<Event, DecodeError> {
    let record: &[u8; RECORD_SIZE] = bytes
        .try_into()
        .map_err(|_| DecodeError::Length(bytes.len()))?;
    match record[0] {
        KIND_TRANSITION => transition(record, now).map(Event::Transition),
        KIND_RETRANSMIT => retransmit(record, now).map(Event::Retransmit),
        kind => Err(DecodeError::Kind(kind)),
    }
}

// The offsets below are those of TransitionRecord, RetransmitRecord and SocketId; a test builds
// records of those types and decodes them.

fn transition(record: &[u8; RECORD_SIZE], now: Duration) -> Result<Transition, DecodeError> {
    let [_, states, cause, flags] = array(record, 0);
    let duration = u64::from(u32::from_le_bytes(array(record, 8)));
    Ok(Transition {
        at: moment(u32::from_le_bytes(array(record, 4)), now),
        from: state(states >> 4)?,
        to: state(states & 0xf)?,
        duration: match flags & (FLAG_DURATION_KNOWN | FLAG_DURATION_MS) {
            FLAG_DURATION_KNOWN => Some(Duration::from_micros(duration)),
            0 | FLAG_DURATION_MS => None,
            _ => Some(Duration::from_millis(duration)),
        },
        cause: match cause {
            NO_CAUSE => None,
            raw => Some(CloseCause::from_raw(raw).ok_or(DecodeError::Value {
                field: Field::Cause,
                value: raw,
            })?),
        },
        socket: socket(record, flags),
    })
}

fn retransmit(record: &[u8; RECORD_SIZE], now: Duration) -> Result<Retransmit, DecodeError> {
    let [_, raw_state, packet_trigger, flags] = array(record, 0);
    let (packet, trigger) = (packet_trigger >> 4, packet_trigger & 0xf);
    Ok(Retransmit {
        at: moment(u32::from_le_bytes(array(record, 4)), now),
        state: state(raw_state)?,
        packet: Packet::from_raw(packet).ok_or(DecodeError::Value {
            field: Field::Packet,
            value: packet,
        })?,
        trigger: Trigger::from_raw(trigger).ok_or(DecodeError::Value {
            field: Field::Trigger,
            value: trigger,
        })?,
        segments: u32::from_le_bytes(array(record, 8)),
        socket: socket(record, flags),
    })
}

fn state(raw: u8) -> Result<TcpState, DecodeError> {
    TcpState::from_raw(raw).ok_or(DecodeError::Value {
        field: Field::State,
        value: raw,
    })
}

fn socket(record: &[u8; RECORD_SIZE], flags: u8) -> Socket {
    let cookie = u64::from_le_bytes(array(record, 16));
    let netns = u32::from_le_bytes(array(record, 24));
    let pid = u32::from_le_bytes(array(record, 12));
    let ipv6 = flags & FLAG_IPV6 != 0;
    let endpoint = |address: [u8; 16], port| SocketAddr::new(self::address(address, ipv6), port);
    Socket {
        cookie: (cookie != 0).then_some(cookie),
        netns: (netns != 0).then_some(netns),
        local: endpoint(array(record, 32), u16::from_le_bytes(array(record, 28))),
        remote: endpoint(array(record, 48), u16::from_le_bytes(array(record, 30))),
        pid: (pid != 0).then_some(pid),
        orphan: flags & FLAG_ORPHAN != 0,
        unfinished: flags & FLAG_UNFINISHED != 0,
        in_cgroup: flags & FLAG_IN_CGROUP != 0,
    }
}

/// An AF_INET6 socket keeps its family here even where its address is v4-mapped, as in `ss`.
fn address(bytes: [u8; 16], ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::from(bytes))
    } else {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

/// The latest time not after `now` whose microseconds end in `low_us`.
fn moment(low_us: u32, now: Duration) -> Duration {
    let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
    let ago = (now_us as u32).wrapping_sub(low_us);
    Duration::from_micros(now_us.saturating_sub(u64::from(ago)))
}

/// `N` bytes of the record from `offset`; zeros beyond its end, which no caller asks for.
fn array<const N: usize>(record: &[u8; RECORD_SIZE], offset: usize) -> [u8; N] {
    record
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

#[cfg(any(test, fuzzing))]
#[path = "decode_fuzz.rs"]
pub(crate) mod fuzz;
#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
