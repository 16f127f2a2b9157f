//! The kernel programs: what each hooks, and what is lost without it.

use crate::fields::Need;

/// A program and what it hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, and the value of the `program` label.
    pub name: &'static str,
    /// What it hooks.
    pub hook: Hook,
    /// Whether the agent can do without it.
    pub need: Need,
    /// What is lost without it.
    pub purpose: &'static str,
}

/// What a program hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The tracepoint of the same name, from the moment it is attached.
    Tracepoint,
    /// The kernel's iterator of this name, whenever the agent opens and reads one.
    Iterator(&'static str),
}

/// The census of TCP sockets.
pub const CENSUS_TCP: &str = "census_tcp";

/// The pass over the sockets that the programs remember.
pub const CENSUS_KNOWN: &str = "census_known";

/// Whose sockets they are.
pub const CENSUS_OWNERS: &str = "census_owners";

/// The programs that tell events.
pub const TELLING: [&str; 2] = ["inet_sock_set_state", "tcp_retransmit_skb"];

/// Every program.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "inet_sock_set_state",
        hook: Hook::Tracepoint,
        need: Need::Needed,
        purpose: "transitions, durations, close causes, the stream",
    },
    Program {
        name: "tcp_retransmit_skb",
        hook: Hook::Tracepoint,
        need: Need::Optional,
        purpose: "retransmits but those of SYN-ACKs",
    },
    Program {
        name: "tcp_retransmit_synack",
        hook: Hook::Tracepoint,
        need: Need::Optional,
        purpose: "retransmits of SYN-ACKs",
    },
    Program {
        name: "tcp_send_reset",
        hook: Hook::Tracepoint,
        need: Need::Optional,
        purpose: "close causes: late_data (counted as reset_received or fin_wait2_timewait)",
    },
    Program {
        name: CENSUS_TCP,
        hook: Hook::Iterator("tcp"),
        need: Need::Optional,
        purpose: "the number of sockets in each state, and which of them stall",
    },
    Program {
        name: CENSUS_KNOWN,
        hook: Hook::Iterator("bpf_map_elem"),
        need: Need::Optional,
        purpose: "frequent censuses of hosts with many network namespaces",
    },
    Program {
        name: CENSUS_OWNERS,
        hook: Hook::Iterator("task_file"),
        need: Need::Optional,
        purpose: "the processes that hold the sockets",
    },
];

/// Settings of the programs, read-only globals as the [`crate::fields`] are.
pub mod settings {
    /// 1 where the kernel lets a program interrupt itself on the same CPU (before 6.1), so that
    /// plain additions could be lost.
    pub const ATOMIC_COUNTERS: &str = "ATOMIC_COUNTERS";
    /// 1 where tracing programs may call `bpf_get_socket_cookie` (5.12).
    pub const HAS_COOKIE_HELPER: &str = "HAS_COOKIE_HELPER";
    /// 1 where they may call `bpf_get_current_task_btf` (5.11).
    pub const HAS_CURRENT_TASK: &str = "HAS_CURRENT_TASK";
    /// 1 where the iterator of sockets holds the lock of the one it hands over (5.15).
    pub const ITERATOR_LOCKS: &str = "ITERATOR_LOCKS";
    /// 1 where `tcp_retransmit_skb` has a third argument, the error, and fires on failure too.
    pub const RETRANSMIT_HAS_ERR: &str = "RETRANSMIT_HAS_ERR";
    /// One less than the buckets of [`crate::maps::SOCKETS`], a power of two.
    pub const SOCKET_BUCKET_MASK: &str = "SOCKET_BUCKET_MASK";
    /// The inode number of the only network namespace to watch; 0 for all.
    pub const ONLY_NETNS: &str = "ONLY_NETNS";
    /// Unread bytes of the ring above which a record wakes the agent.
    pub const WAKE_BYTES: &str = "WAKE_BYTES";
}
