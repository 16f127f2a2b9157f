//! Why a socket closed.
//!
//! The kernel emits one event for every end, `X → CLOSE`, and says nothing of the reason. The
//! socket's fields at that moment do, if they are asked in the right order: `sk_err` is set
//! before `tcp_done()`, `sk_shutdown` by `tcp_done()` only after the event, and SOCK_DEAD by
//! `__tcp_close()` only after the transition that `close()` itself makes.

use crate::state;

/// `sk_flags` bits (`enum sock_flags`, `include/net/sock.h`).
pub const SOCK_DEAD: u64 = 1 << 0;
/// A FIN was received.
pub const SOCK_DONE: u64 = 1 << 1;
/// SO_LINGER is set.
pub const SOCK_LINGER: u64 = 1 << 4;

/// `SHUTDOWN_MASK`: neither sending nor receiving any more.
const SHUTDOWN_BOTH: u8 = 3;

/// Errors as in `sk_err`.
const EPIPE: i32 = 32;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;

/// Why a socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum CloseCause {
    /// Both FINs are acknowledged and this side's was first: a true TIME_WAIT follows, unless
    /// `tcp_max_tw_buckets` is reached, which looks the same.
    TimeWait = 0,
    /// An orphan in FIN_WAIT2 handed over to a timewait minisocket that waits for the peer's FIN.
    #[cfg_attr(feature = "user", serde(rename = "fin_wait2_timewait"))]
    FinWait2TimeWait = 1,
    /// The peer closed first and has acknowledged everything.
    Passive = 2,
    /// The peer sent a RST.
    ResetReceived = 3,
    /// The peer sent data after this side's process had closed; the kernel answered with a RST.
    LateData = 4,
    /// The process closed without reading everything; the kernel sent a RST.
    UnreadData = 5,
    /// The process closed with SO_LINGER and no time to linger; the kernel sent a RST.
    LingerZero = 6,
    /// The process had set TCP_LINGER2 below zero: no FIN_WAIT2.
    Linger2 = 7,
    /// The peer stopped answering: retransmissions, probes or the connect ran out, or
    /// FIN_WAIT2's timer on a full socket.
    TimedOut = 8,
    /// The peer left keepalive probes unanswered.
    Keepalive = 9,
    /// `ss -K`, or another user of SOCK_DESTROY.
    Killed = 10,
    /// The listener closed while the connection waited to be accepted.
    NeverAccepted = 11,
    /// An orphan killed at `tcp_max_orphans` or `tcp_mem`.
    OrphanLimit = 12,
    /// A connect that did not come about, but for timeouts: refused, unreachable, given up.
    ConnectFailed = 13,
    /// A connect that found no free local port.
    NoEphemeralPort = 14,
    /// A listening socket.
    Listener = 15,
    /// None of these: `connect()` to AF_UNSPEC, TCP_REPAIR, an MPTCP subflow dropped.
    Other = 16,
}

/// How many causes there are.
pub const CAUSE_COUNT: usize = CloseCause::ALL.len();

impl CloseCause {
    /// Every cause, by its number.
    pub const ALL: [Self; 17] = [
        Self::TimeWait,
        Self::FinWait2TimeWait,
        Self::Passive,
        Self::ResetReceived,
        Self::LateData,
        Self::UnreadData,
        Self::LingerZero,
        Self::Linger2,
        Self::TimedOut,
        Self::Keepalive,
        Self::Killed,
        Self::NeverAccepted,
        Self::OrphanLimit,
        Self::ConnectFailed,
        Self::NoEphemeralPort,
        Self::Listener,
        Self::Other,
    ];

    /// The cause numbered `raw`.
    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.get(usize::from(raw)).copied()
    }

    /// The value of the `cause` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimeWait => "time_wait",
            Self::FinWait2TimeWait => "fin_wait2_timewait",
            Self::Passive => "passive",
            Self::ResetReceived => "reset_received",
            Self::LateData => "late_data",
            Self::UnreadData => "unread_data",
            Self::LingerZero => "linger_zero",
            Self::Linger2 => "linger2",
            Self::TimedOut => "timed_out",
            Self::Keepalive => "keepalive",
            Self::Killed => "killed",
            Self::NeverAccepted => "never_accepted",
            Self::OrphanLimit => "orphan_limit",
            Self::ConnectFailed => "connect_failed",
            Self::NoEphemeralPort => "no_ephemeral_port",
            Self::Listener => "listener",
            Self::Other => "other",
        }
    }
}

/// What a socket shows at `X → CLOSE`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the kernel's, and independent"
)]
#[derive(Clone, Copy, Debug)]
pub struct CloseEvidence {
    /// The state it leaves.
    pub old_state: u8,
    /// `sk_err`: 0, or the error the process would have been told.
    pub err: i32,
    /// `sk_flags`.
    pub flags: u64,
    /// `sk_shutdown`: 1 receiving is over, 2 sending is over.
    pub shutdown: u8,
    /// `sk_lingertime`, in jiffies.
    pub lingertime: u64,
    /// Whether `sk_socket` is set: a process holds, or held, a file of it.
    pub has_socket: bool,
    /// Whether it is an MPTCP subflow, which has no file of its own.
    pub is_mptcp: bool,
    /// `inet_sport`: 0 where no local port was found.
    pub has_local_port: bool,
    /// Whether `snd_una == write_seq`: all that was sent or queued, the FIN too, is acknowledged.
    pub all_acknowledged: bool,
    /// `rcv_nxt - copied_seq`: bytes not read, a received FIN counted as one.
    pub unread: u32,
    /// `linger2`: below zero, FIN_WAIT2 is not wanted.
    pub linger2: i32,
    /// `icsk_probes_out`: keepalive or zero-window probes unanswered.
    pub probes_out: u8,
    /// `icsk_retransmits`: timeouts in a row.
    pub retransmits: u8,
    /// Whether the kernel sent a RST while the orphan was in FIN_WAIT2 (see [`crate::socket`]).
    pub reset_in_fin_wait2: bool,
}

impl CloseEvidence {
    const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// A process has closed it: no file is left, TCP alone holds it.
    #[inline(always)]
    const fn is_orphan(&self) -> bool {
        self.has(SOCK_DEAD)
    }

    #[inline(always)]
    const fn has_unread_data(&self) -> bool {
        self.unread > self.has(SOCK_DONE) as u32
    }
}

/// Why the socket closed.
///
/// Positive evidence comes before `sk_err`, since IP_RECVERR can leave an error there that ended
/// nothing. Two answers can be revised by a RST sent right after the event: see [`Revision`].
#[inline(always)]
#[must_use]
pub const fn close_cause(evidence: &CloseEvidence) -> CloseCause {
    match evidence.old_state {
        state::LISTEN => return CloseCause::Listener,
        state::SYN_SENT => return connect_cause(evidence),
        // tcp_rcv_state_process ends LAST_ACK and CLOSING when the FIN is acknowledged.
        state::LAST_ACK if evidence.all_acknowledged => return CloseCause::Passive,
        state::CLOSING if evidence.all_acknowledged => return CloseCause::TimeWait,
        // tcp_fin() sets SOCK_DONE and goes straight on to tcp_time_wait().
        state::FIN_WAIT2 if evidence.has(SOCK_DONE) => return CloseCause::TimeWait,
        _ => {}
    }
    match evidence.err {
        ECONNRESET | EPIPE => CloseCause::ResetReceived,
        ECONNABORTED => CloseCause::Killed,
        // Keepalive probes go out only while nothing is queued (tcp_keepalive_timer), zero-window
        // probes only while something is (tcp_probe_timer).
        err if err != 0
            && evidence.probes_out > 0
            && evidence.all_acknowledged
            && !evidence.is_orphan() =>
        {
            CloseCause::Keepalive
        }
        ETIMEDOUT => CloseCause::TimedOut,
        _ if evidence.is_orphan() => orphan_cause(evidence),
        _ => local_cause(evidence),
    }
}

/// How a connect ended. `tcp_v4_connect` and `tcp_v6_connect` set SYN_SENT before they look for a
/// local port, and go back to CLOSE where `inet_hash_connect` finds none.
#[inline(always)]
const fn connect_cause(evidence: &CloseEvidence) -> CloseCause {
    if !evidence.has_local_port {
        CloseCause::NoEphemeralPort
    } else if evidence.err == ETIMEDOUT {
        CloseCause::TimedOut
    } else if evidence.err == ECONNABORTED {
        CloseCause::Killed
    } else {
        CloseCause::ConnectFailed
    }
}

/// How a socket that a process had already closed ended, neither reset nor acknowledged.
#[inline(always)]
const fn orphan_cause(evidence: &CloseEvidence) -> CloseCause {
    match evidence.old_state {
        state::FIN_WAIT2 => {
            if evidence.linger2 < 0 {
                CloseCause::Linger2
            } else if evidence.reset_in_fin_wait2 {
                CloseCause::TimedOut
            } else {
                CloseCause::FinWait2TimeWait
            }
        }
        // sk_err_soft, an ICMP error remembered, takes the place of ETIMEDOUT in tcp_write_err();
        // tcp_out_of_resources() sets none.
        state::FIN_WAIT1 | state::LAST_ACK | state::CLOSING => {
            if evidence.err == 0 {
                CloseCause::OrphanLimit
            } else {
                CloseCause::TimedOut
            }
        }
        _ => CloseCause::Other,
    }
}

/// How a socket ended that a process still held, or nobody had accepted yet.
#[inline(always)]
const fn local_cause(evidence: &CloseEvidence) -> CloseCause {
    if !evidence.has_socket && !evidence.is_mptcp && evidence.err == 0 {
        CloseCause::NeverAccepted
    } else if evidence.shutdown == SHUTDOWN_BOTH && evidence.has_unread_data() {
        // __tcp_close() asks for unread data before it asks for SO_LINGER.
        CloseCause::UnreadData
    } else if evidence.shutdown == SHUTDOWN_BOTH
        && evidence.has(SOCK_LINGER)
        && evidence.lingertime == 0
    {
        CloseCause::LingerZero
    } else if evidence.err != 0 && (evidence.retransmits > 0 || evidence.probes_out > 0) {
        // tcp_write_err() puts sk_err_soft, an ICMP error remembered, before ETIMEDOUT.
        CloseCause::TimedOut
    } else {
        CloseCause::Other
    }
}

/// A cause told at `X → CLOSE` that the RST sent right after it proves to be another.
///
/// The programs count each revision beside the causes; the agent takes it off the one and adds it
/// to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Revision {
    /// `tcp_rcv_state_process` calls `tcp_reset()` for data after close, which sets ECONNRESET as
    /// if a RST had come; the RST that answers the data tells.
    ResetReceivedToLateData = 0,
    /// Data came with the acknowledgement of the FIN: ended without an error, then answered.
    FinWait2ToLateData = 1,
    /// `tcp_check_oom()` at `close()` of a socket in FIN_WAIT2: ended, then reset.
    FinWait2ToOrphanLimit = 2,
}

/// How many revisions there are.
pub const REVISION_COUNT: usize = Revision::ALL.len();

impl Revision {
    /// Every revision, by its number.
    pub const ALL: [Self; 3] = [
        Self::ResetReceivedToLateData,
        Self::FinWait2ToLateData,
        Self::FinWait2ToOrphanLimit,
    ];

    /// The cause that was told, and the true one.
    #[must_use]
    pub const fn causes(self) -> (CloseCause, CloseCause) {
        match self {
            Self::ResetReceivedToLateData => (CloseCause::ResetReceived, CloseCause::LateData),
            Self::FinWait2ToLateData => (CloseCause::FinWait2TimeWait, CloseCause::LateData),
            Self::FinWait2ToOrphanLimit => (CloseCause::FinWait2TimeWait, CloseCause::OrphanLimit),
        }
    }
}

/// What `tcp_send_reset` shows of a socket that is already in CLOSE.
#[derive(Clone, Copy, Debug)]
pub struct ResetEvidence {
    /// `sk_err`.
    pub err: i32,
    /// `sk_flags`.
    pub flags: u64,
    /// `linger2`.
    pub linger2: i32,
    /// Whether `snd_una == write_seq`.
    pub all_acknowledged: bool,
    /// Whether a received packet is answered, rather than the RST sent of the kernel's own will.
    pub answers_packet: bool,
}

/// Which cause a RST sent from CLOSE revises, if any.
///
/// A closed socket discards what it receives without an answer, so a RST that answers a packet on
/// behalf of one can only belong to the packet that closed it.
#[inline(always)]
#[must_use]
pub const fn revision(evidence: &ResetEvidence) -> Option<Revision> {
    let orphan = evidence.flags & SOCK_DEAD != 0;
    let fin_received = evidence.flags & SOCK_DONE != 0;
    if !orphan {
        None
    } else if evidence.err == ECONNRESET {
        if evidence.answers_packet {
            Some(Revision::ResetReceivedToLateData)
        } else {
            None
        }
    } else if evidence.linger2 < 0
        || fin_received
        || matches!(evidence.err, ECONNABORTED | ETIMEDOUT | EPIPE)
    {
        None
    } else if evidence.answers_packet {
        Some(Revision::FinWait2ToLateData)
    } else if evidence.all_acknowledged {
        Some(Revision::FinWait2ToOrphanLimit)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "close_tests.rs"]
mod tests;
