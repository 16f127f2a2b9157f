//! Counts who connects whither.

use aya_ebpf::{btf_maps::HashMap, helpers::generated::bpf_get_current_cgroup_id, macros::btf_map};

use agent_ebpf::{census::ConnectKey, counters::Counters, maps::CONNECT_CAPACITY};

use crate::{
    count::{self, atomic_add},
    sock::{Fields as _, Sock},
};

#[btf_map]
static CONNECTS: HashMap<ConnectKey, u64, CONNECT_CAPACITY> = HashMap::new();

/// Counts a socket that goes to SYN_SENT, in its process's context.
#[inline(always)]
pub(crate) fn count(counters: *mut Counters, sock: Sock) {
    let (_, destination) = sock.mapped_addresses();
    let key = ConnectKey {
        // SAFETY: the helper has no preconditions.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        destination,
        netns: sock.netns(),
        port: sock.remote_port(),
        reserved: 0,
    };
    if let Some(connects) = count::entry(&CONNECTS, &key, &0) {
        // SAFETY: the map's value, which other CPUs add to.
        unsafe { atomic_add(connects, 1) };
    } else {
        // SAFETY: the pointer is this CPU's counters.
        unsafe { count::add(&raw mut (*counters).connects_untold, 1) };
    }
}
