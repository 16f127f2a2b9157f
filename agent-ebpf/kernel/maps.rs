//! The maps, under the names of `agent_ebpf::maps`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};

use agent_ebpf::{
    counters::Counters,
    maps::{RING_BYTES, SOCKET_CAPACITY},
    record::TransitionRecord,
    socket::SocketEntry,
};

use crate::globals::setting;

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<TransitionRecord, { RING_BYTES as usize }> = RingBuf::new();

#[btf_map]
pub(crate) static STREAM_MODE: Array<u32, 1> = Array::new();

#[btf_map]
static SOCKETS: HashMap<
    u64,
    SocketEntry,
    { SOCKET_CAPACITY as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
static SOCKETS_PREALLOCATED: HashMap<u64, SocketEntry, 1> = HashMap::new();

/// What is remembered of the socket at `key`.
#[inline(always)]
pub(crate) fn socket_entry(key: u64) -> Option<*mut SocketEntry> {
    if setting::PREALLOCATED.is_set() {
        SOCKETS_PREALLOCATED.get_ptr_mut(key)
    } else {
        SOCKETS.get_ptr_mut(key)
    }
}

/// Remembers the socket at `key`, over whatever was there; false where there is no room.
#[inline(always)]
pub(crate) fn remember(key: u64, entry: &SocketEntry) -> bool {
    if setting::PREALLOCATED.is_set() {
        SOCKETS_PREALLOCATED.insert(key, entry, 0).is_ok()
    } else {
        SOCKETS.insert(key, entry, 0).is_ok()
    }
}

/// Forgets the socket at `key`.
#[inline(always)]
pub(crate) fn forget(key: u64) {
    // A socket older than the agent, or one there was no room for, was never remembered.
    let _unknown = if setting::PREALLOCATED.is_set() {
        SOCKETS_PREALLOCATED.remove(key)
    } else {
        SOCKETS.remove(key)
    };
}
