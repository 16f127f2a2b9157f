//! What a census finds: the sockets of one network namespace at one moment. Counted in the
//! kernel; only those that linger, and listeners, are handed over one by one.

use crate::{record::SocketId, state};

/// The counts of one pass over a namespace; the agent sets them to zero before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CensusCounts {
    /// Sockets by state as `ss` shows them: a request minisocket is in `SYN_RECV`, a timewait
    /// minisocket in its substate.
    pub states: [u64; state::STATE_COUNT],
    /// Full sockets that no process holds any more (`SOCK_DEAD`), by state.
    pub orphans: [u64; state::STATE_COUNT],
    /// Timewait minisockets, of both substates.
    pub minisockets: u64,
    /// At the end of the pass: `jiffies64`, and CLOCK_MONOTONIC in nanoseconds. Together they
    /// tell how long a jiffy is.
    pub jiffies: u64,
    /// See `jiffies`.
    pub clock_ns: u64,
    /// Set by the agent for a full pass: not 0 where it shall make an entry of the table of
    /// sockets for each full socket without.
    pub remember: u64,
    /// Sockets whose cgroup found no room.
    pub cgroups_untold: u64,
    /// Sockets whose range of ephemeral ports found none.
    pub ports_untold: u64,
    /// The programs' own.
    pub scratch: u64,
}

impl CensusCounts {
    /// No socket.
    pub const ZERO: Self = Self {
        states: [0; state::STATE_COUNT],
        orphans: [0; state::STATE_COUNT],
        minisockets: 0,
        jiffies: 0,
        clock_ns: 0,
        remember: 0,
        cgroups_untold: 0,
        ports_untold: 0,
        scratch: 0,
    };

    /// Adds another namespace's; the clocks are the later ones.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in self.states.iter_mut().zip(other.states) {
            *into += from;
        }
        for (into, from) in self.orphans.iter_mut().zip(other.orphans) {
            *into += from;
        }
        self.minisockets += other.minisockets;
        self.cgroups_untold += other.cgroups_untold;
        self.ports_untold += other.ports_untold;
        if other.clock_ns > self.clock_ns {
            (self.jiffies, self.clock_ns) = (other.jiffies, other.clock_ns);
        }
    }
}

impl Default for CensusCounts {
    fn default() -> Self {
        Self::ZERO
    }
}

/// A socket that lingers or listens, with what tells why. Times in jiffies where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRecord {
    /// Which.
    pub socket: SocketId,
    /// The id of its cgroup: that of the task that called `socket()`, for an accepted one that of
    /// its listener's; 0 where the kernel does not tell.
    pub cgroup: u64,
    /// How long it has been in its state, in nanoseconds; 0 where nobody saw it begin.
    pub age_ns: u64,
    /// The process that closed or opened it, in the agent's sight; else 0.
    pub pid: u32,
    /// Of a listener: connections that wait to be accepted (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// Of a listener: how many may (`sk_max_ack_backlog`).
    pub accept_queue_limit: u32,
    /// Bytes received in order and not read, a FIN counted as one (`rcv_nxt − copied_seq`).
    pub unread: u32,
    /// Bytes queued and never sent, a FIN counted as one (`write_seq − snd_nxt`).
    pub unsent: u32,
    /// Bytes sent and not acknowledged, likewise (`snd_nxt − snd_una`).
    pub in_flight: u32,
    /// The first of them.
    pub snd_una: u32,
    /// The peer's window, in bytes.
    pub snd_wnd: u32,
    /// Segments in flight.
    pub packets_out: u32,
    /// The retransmission timeout as backed off, in jiffies.
    pub rto: u32,
    /// Until the retransmission or probe timer fires, in jiffies.
    pub retransmit_in: i32,
    /// Until the timer of keepalives, and of an orphan's FIN_WAIT2, fires, in jiffies.
    pub keepalive_in: i32,
    /// Since the peer last acknowledged anything (`rcv_tstamp`), in jiffies.
    pub since_acknowledged: u32,
    /// Since the first retransmission of what is in flight, in milliseconds; 0 without any.
    pub retransmitting_ms: u32,
    /// Since the first probe of a closed window, in jiffies; 0 without any.
    pub probing: u32,
    /// TCP_USER_TIMEOUT, in milliseconds; 0 where it is not set.
    pub user_timeout_ms: u32,
    /// Its state.
    pub state: u8,
    /// `SOCKET_…`.
    pub flags: u8,
    /// `icsk_retransmits`.
    pub retransmits: u8,
    /// `icsk_backoff`: by how many bits the timeout was shifted.
    pub backoff: u8,
    /// `icsk_probes_out`: unanswered probes.
    pub probes_out: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The socket is of family AF_INET6.
pub const SOCKET_IPV6: u8 = 1 << 0;
/// No process holds it any more.
pub const SOCKET_ORPHAN: u8 = 1 << 1;
/// No process has accepted it yet.
pub const SOCKET_UNACCEPTED: u8 = 1 << 2;
/// A router has reported an error (`sk_err_soft`).
pub const SOCKET_SOFT_ERROR: u8 = 1 << 3;

/// The states whose sockets are counted by cgroup.
pub const WORKLOAD_STATES: [u8; 5] = [
    state::ESTABLISHED,
    state::CLOSE_WAIT,
    state::FIN_WAIT1,
    state::FIN_WAIT2,
    state::LAST_ACK,
];

/// The place of a state in [`WORKLOAD_STATES`].
#[inline(always)]
#[must_use]
pub const fn workload_state(state: u8) -> Option<usize> {
    match state {
        state::ESTABLISHED => Some(0),
        state::CLOSE_WAIT => Some(1),
        state::FIN_WAIT1 => Some(2),
        state::FIN_WAIT2 => Some(3),
        state::LAST_ACK => Some(4),
        _ => None,
    }
}

/// Full sockets of one cgroup, by the place in [`WORKLOAD_STATES`].
pub type CgroupCounts = [u64; WORKLOAD_STATES.len()];

/// Who connects whither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ConnectKey {
    /// The id of the connecting task's cgroup.
    pub cgroup: u64,
    /// The remote address, an IPv4 one as v4-mapped.
    pub destination: [u8; 16],
    /// The network namespace's inode number.
    pub netns: u32,
    /// The remote port.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// What shares one range of ephemeral ports: the sockets of one namespace that lead from one
/// address to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct PortKey {
    /// The local address, an IPv4 one as v4-mapped.
    pub source: [u8; 16],
    /// The remote address, likewise.
    pub destination: [u8; 16],
    /// The network namespace's inode number.
    pub netns: u32,
    /// The remote port.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// A bit for each port: whether it is none that `connect()` chooses. The agent sets those outside
/// of the range and the reserved ones, the census those on which something listens.
pub type PortSet = [u64; PORT_WORDS];

/// Words of a [`PortSet`].
pub const PORT_WORDS: usize = 1024;

/// A process as it was when it opened or closed a socket, by its id modulo [`OWNER_SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OwnerSlot {
    /// The id of its cgroup.
    pub cgroup: u64,
    /// The name of its thread-group leader, NUL-terminated.
    pub comm: [u8; COMM_LEN],
    /// Its id; 0 where the slot is free.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A process that holds a socket it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OwnerRecord {
    /// The socket's.
    pub cookie: u64,
    /// The process.
    pub owner: OwnerSlot,
}

/// Bytes of a task's name, its NUL included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// Slots for processes: a power of two. Processes whose ids lie that far apart share one.
pub const OWNER_SLOTS: u32 = 8192;

const _: () = assert!(size_of::<SocketRecord>() == 136 && size_of::<OwnerRecord>() == 40);
const _: () = assert!(size_of::<ConnectKey>() == 32 && size_of::<PortKey>() == 40);

#[cfg(feature = "user")]
mod user {
    // SAFETY: CensusCounts is repr(C) and holds nothing but u64s.
    unsafe impl aya::Pod for super::CensusCounts {}
    // SAFETY: repr(C) integers and arrays of them, without padding, as the sizes above show.
    unsafe impl aya::Pod for super::SocketRecord {}
    // SAFETY: likewise.
    unsafe impl aya::Pod for super::ConnectKey {}
    // SAFETY: likewise.
    unsafe impl aya::Pod for super::PortKey {}
    // SAFETY: likewise.
    unsafe impl aya::Pod for super::OwnerSlot {}
    // SAFETY: likewise.
    unsafe impl aya::Pod for super::OwnerRecord {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_counted_by_cgroup_at_its_own_place() {
        for state in 0..=u8::MAX {
            let place = WORKLOAD_STATES.iter().position(|other| *other == state);
            assert_eq!(workload_state(state), place);
        }
    }
}
