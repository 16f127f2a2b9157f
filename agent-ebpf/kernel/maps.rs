//! The maps, under the names of `agent_ebpf::maps`.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};

use agent_ebpf::{
    counters::Counters,
    maps::{RING_BYTES, SOCKET_CAPACITY},
    record::TransitionRecord,
    socket::SocketEntry,
};

use crate::{globals::setting, sock::Sock};

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

#[btf_map]
static SOCKET_STORAGE: SkStorage<SocketEntry> = SkStorage::new();

/// Where the state of sockets lives: the values of `setting::SOCKET_STATE`.
const PREALLOCATED: u32 = 1;
const STORAGE: u32 = 2;
const NOWHERE: u32 = 3;

#[inline(always)]
fn storage(sock: Sock, value: *const SocketEntry, flags: u32) -> *mut SocketEntry {
    // SAFETY: the map is a socket storage, the socket a tracepoint's argument.
    unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKET_STORAGE).cast_mut().cast(),
            sock.pointer().cast_mut(),
            value.cast_mut().cast(),
            u64::from(flags),
        )
        .cast()
    }
}

/// What is remembered of the socket.
#[inline(always)]
pub(crate) fn socket_entry(sock: Sock) -> Option<*mut SocketEntry> {
    match setting::SOCKET_STATE.get() {
        NOWHERE => None,
        STORAGE => {
            let entry = storage(sock, core::ptr::null(), 0);
            if entry.is_null() { None } else { Some(entry) }
        }
        PREALLOCATED => SOCKETS_PREALLOCATED.get_ptr_mut(sock.key()),
        _ => SOCKETS.get_ptr_mut(sock.key()),
    }
}

/// Remembers the socket, over whatever was there; false where there is no room.
#[inline(always)]
pub(crate) fn remember(sock: Sock, value: &SocketEntry) -> bool {
    match setting::SOCKET_STATE.get() {
        NOWHERE => true,
        STORAGE => {
            let entry = storage(sock, core::ptr::null(), BPF_SK_STORAGE_GET_F_CREATE);
            if entry.is_null() {
                return false;
            }
            // SAFETY: the kernel made the entry.
            unsafe { *entry = *value };
            true
        }
        PREALLOCATED => SOCKETS_PREALLOCATED.insert(sock.key(), value, 0).is_ok(),
        _ => SOCKETS.insert(sock.key(), value, 0).is_ok(),
    }
}

/// Forgets the socket.
#[inline(always)]
pub(crate) fn forget(sock: Sock) {
    // A socket older than the agent, or one there was no room for, was never remembered; what
    // lies in the socket's own storage goes with the socket.
    let _unknown = match setting::SOCKET_STATE.get() {
        NOWHERE | STORAGE => Ok(()),
        PREALLOCATED => SOCKETS_PREALLOCATED.remove(sock.key()),
        _ => SOCKETS.remove(sock.key()),
    };
}
