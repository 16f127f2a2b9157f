//! What the programs call where the kernel has it. No program is refused for want of these: each
//! asks a setting first (`agent_ebpf::programs::settings`).

use super::Host;

/// Something that kernels have since a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What the kernel calls it.
    pub name: &'static str,
    /// The first version that has it: major and minor.
    pub since: (u8, u8),
    /// What is lost without.
    pub purpose: &'static str,
}

/// `bpf_get_current_task_btf()` in tracing programs.
pub(super) const CURRENT_TASK: Feature = Feature {
    name: "bpf_get_current_task_btf",
    since: (5, 11),
    purpose: "in events, the name of a process rather than of its thread at work",
};

/// `bpf_get_socket_cookie()` in tracing programs.
pub(super) const SOCKET_COOKIE: Feature = Feature {
    name: "bpf_get_socket_cookie",
    since: (5, 12),
    purpose: "telling sockets apart in events and findings, but for those whose cookie something \
              has asked for (SO_COOKIE, ss)",
};

/// That the iterator of sockets holds the lock of the one it hands over
/// (`bpf_iter_tcp_batch()`).
pub(super) const ITERATOR_LOCKS: Feature = Feature {
    name: "bpf_iter_tcp_batch",
    since: (5, 15),
    purpose: "on hosts with many network namespaces, frequent censuses of sockets that were there \
              before the agent",
};

/// Each of them.
pub static FEATURES: &[Feature] = &[CURRENT_TASK, SOCKET_COOKIE, ITERATOR_LOCKS];

impl Host {
    /// Whether the kernel has it.
    #[must_use]
    pub fn has(&self, feature: &Feature) -> bool {
        let (major, minor) = feature.since;
        self.is_at_least(major, minor)
    }
}
