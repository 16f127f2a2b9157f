//! The records that travel through the ring buffer: 64 bytes each, one for a transition, one for
//! a retransmission, told apart by their first byte.

use crate::state;

/// Bytes of every record. The ring buffer adds a header of 8.
pub const RECORD_SIZE: usize = 64;

/// `kind` of a [`TransitionRecord`].
pub const KIND_TRANSITION: u8 = 1;
/// `kind` of a [`RetransmitRecord`].
pub const KIND_RETRANSMIT: u8 = 2;

/// The socket is of family AF_INET6; its addresses may still be v4-mapped.
pub const FLAG_IPV6: u8 = 1 << 0;
/// `duration` is in milliseconds rather than microseconds, which 32 bits hold for 71 minutes only.
pub const FLAG_DURATION_MS: u8 = 1 << 1;
/// When the old state began is known, so `duration` is.
pub const FLAG_DURATION_KNOWN: u8 = 1 << 2;
/// The process had closed the socket: TCP alone holds it.
pub const FLAG_ORPHAN: u8 = 1 << 3;
/// The kernel had not filled in the new socket's cookie, addresses and remote port: up to 6.12
/// `inet_csk_clone_lock()` sets the state first.
pub const FLAG_UNFINISHED: u8 = 1 << 4;
/// The socket is of the cgroup that the agent asked to be marked. Not told of SYN-ACKs.
pub const FLAG_IN_CGROUP: u8 = 1 << 5;

/// `cause` of a transition to a state other than CLOSE.
pub const NO_CAUSE: u8 = u8::MAX;

/// Which socket a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketId {
    /// The kernel's socket cookie; 0 where it has none yet.
    pub cookie: u64,
    /// The network namespace's inode number; 0 where the kernel does not tell.
    pub netns: u32,
    /// The local port, in host order.
    pub local_port: u16,
    /// The remote port, in host order.
    pub remote_port: u16,
    /// The local address in network order; IPv4 in the first four bytes, the rest zero.
    pub local_address: [u8; 16],
    /// The remote address, likewise.
    pub remote_address: [u8; 16],
}

/// A socket went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TransitionRecord {
    /// [`KIND_TRANSITION`].
    pub kind: u8,
    /// The old state in the upper four bits, the new one in the lower.
    pub states: u8,
    /// A [`crate::close::CloseCause`], or [`NO_CAUSE`].
    pub cause: u8,
    /// `FLAG_…`.
    pub flags: u8,
    /// The low 32 bits of CLOCK_MONOTONIC in microseconds. The agent drains the ring many times
    /// in the 71 minutes this takes to wrap, and so knows the rest.
    pub at_us: u32,
    /// How long the old state lasted, in the unit the flags tell.
    pub duration: u32,
    /// The process that opened or closed the socket, as far as one did in its own context; else 0.
    pub pid: u32,
    /// The socket.
    pub socket: SocketId,
}

/// Segments were sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RetransmitRecord {
    /// [`KIND_RETRANSMIT`].
    pub kind: u8,
    /// The socket's state.
    pub state: u8,
    /// A [`crate::retransmit::Packet`] in the upper four bits, a
    /// [`crate::retransmit::Trigger`] in the lower.
    pub packet_trigger: u8,
    /// `FLAG_…`.
    pub flags: u8,
    /// As in [`TransitionRecord`].
    pub at_us: u32,
    /// How many segments.
    pub segments: u32,
    /// As in [`TransitionRecord`].
    pub pid: u32,
    /// The socket.
    pub socket: SocketId,
}

const _: () = assert!(size_of::<TransitionRecord>() == RECORD_SIZE);
const _: () = assert!(size_of::<RetransmitRecord>() == RECORD_SIZE);

/// Which transitions are told as records; retransmissions always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StreamMode {
    /// Leaving a lingering state after more than [`LATE_AFTER_NS`].
    Late = 0,
    /// Every transition into or out of a lingering state.
    Lingering = 1,
    /// Every transition.
    All = 2,
}

/// How long a lingering state lasts before leaving it is worth a record in every mode.
pub const LATE_AFTER_NS: u64 = 1_000_000_000;

impl StreamMode {
    /// The mode numbered `raw`; an unknown one is the quietest.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            2 => Self::All,
            1 => Self::Lingering,
            _ => Self::Late,
        }
    }

    /// Whether a transition is told, its old state having lasted `duration_ns` (0: not known).
    #[inline(always)]
    #[must_use]
    pub const fn tells(self, old: u8, new: u8, duration_ns: u64) -> bool {
        match self {
            Self::All => true,
            Self::Lingering => state::is_lingering(old) || state::is_lingering(new),
            Self::Late => state::is_lingering(old) && duration_ns > LATE_AFTER_NS,
        }
    }
}

/// `duration_ns` as a record holds it: the number, and the flags that tell its unit.
#[inline(always)]
#[must_use]
pub const fn pack_duration(duration_ns: u64) -> (u32, u8) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "compared before it is cast"
    )]
    const fn capped(value: u64) -> u32 {
        if value <= u32::MAX as u64 {
            value as u32
        } else {
            u32::MAX
        }
    }
    let us = duration_ns / 1_000;
    if us <= u32::MAX as u64 {
        (capped(us), FLAG_DURATION_KNOWN)
    } else {
        (capped(us / 1_000), FLAG_DURATION_KNOWN | FLAG_DURATION_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_tells_only_what_lingered() {
        let late = StreamMode::Late;
        assert!(late.tells(state::FIN_WAIT1, state::CLOSE, LATE_AFTER_NS + 1));
        assert!(!late.tells(state::FIN_WAIT1, state::CLOSE, LATE_AFTER_NS));
        assert!(!late.tells(state::ESTABLISHED, state::CLOSE, u64::MAX));
        assert!(!late.tells(state::ESTABLISHED, state::CLOSE_WAIT, u64::MAX));
    }

    #[test]
    fn lingering_tells_both_ends_and_all_tells_all() {
        let lingering = StreamMode::Lingering;
        assert!(lingering.tells(state::ESTABLISHED, state::CLOSE_WAIT, 0));
        assert!(lingering.tells(state::LAST_ACK, state::CLOSE, 0));
        assert!(!lingering.tells(state::SYN_SENT, state::ESTABLISHED, 0));
        assert!(StreamMode::All.tells(state::SYN_SENT, state::ESTABLISHED, 0));
    }

    #[test]
    fn an_unknown_mode_is_the_quietest() {
        for mode in [StreamMode::Late, StreamMode::Lingering, StreamMode::All] {
            assert_eq!(StreamMode::from_raw(mode as u32), mode);
        }
        assert_eq!(StreamMode::from_raw(u32::MAX), StreamMode::Late);
    }

    #[test]
    fn durations_keep_a_thousandth_until_they_wrap() {
        assert_eq!(pack_duration(1_999), (1, FLAG_DURATION_KNOWN));
        let hour_and_more = 4_294_967_296_000;
        assert_eq!(
            pack_duration(hour_and_more),
            (4_294_967, FLAG_DURATION_KNOWN | FLAG_DURATION_MS)
        );
        assert_eq!(pack_duration(u64::MAX).0, u32::MAX);
    }
}
