//! The census: every TCP socket of the network namespace in which the iterator was opened.
//!
//! One run at a time: the agent has but one thread for it. The iterator visits listeners, request
//! minisockets, full sockets and timewait minisockets (`net/ipv4/tcp_ipv4.c`).

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::Array, helpers::generated::bpf_skc_to_tcp_timewait_sock, macros::btf_map,
};

use agent_ebpf::{
    census::CensusCounts,
    close::SOCK_DEAD,
    state::{NEW_SYN_RECV, SYN_RECV, TIME_WAIT},
};

use crate::{
    globals::field,
    sock::{Sock, load},
};

#[btf_map]
static CENSUS: Array<CensusCounts, 1> = Array::new();

/// `struct bpf_iter__tcp`, as far as it is used: pointers that are eight bytes each.
#[repr(C)]
struct IterTcp {
    meta: *const c_void,
    socket: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn census_tcp(context: *const IterTcp) -> i32 {
    // SAFETY: the kernel hands over a bpf_iter__tcp.
    let socket = unsafe { (*context).socket };
    // The last call of a pass has no socket.
    if !socket.is_null()
        && let Some(counts) = CENSUS.get_ptr_mut(0)
    {
        // SAFETY: the map's value, which nothing else touches during a pass.
        count(unsafe { &mut *counts }, Sock::new(socket));
    }
    0
}

#[inline(always)]
fn count(counts: &mut CensusCounts, sock: Sock) {
    let (shown, minisockets, orphans) = match sock.state() {
        NEW_SYN_RECV => (SYN_RECV, 0, 0),
        TIME_WAIT => (substate(sock), 1, 0),
        // SOCK_DEAD is the lowest bit: one or none.
        state => (state, 0, sock.flags() & SOCK_DEAD),
    };
    // One check for both arrays: of two, the verifiers of 5.10 and 6.1 follow a path on which the
    // first finds the state out of bounds and the second within.
    let index = usize::from(shown);
    if let (Some(of_state), Some(orphans_of_state)) =
        (counts.states.get_mut(index), counts.orphans.get_mut(index))
    {
        *of_state += 1;
        *orphans_of_state += orphans;
        counts.minisockets += minisockets;
    }
}

/// Whether a timewait minisocket is in `TIME_WAIT` proper or waits for the peer's FIN.
#[inline(always)]
fn substate(sock: Sock) -> u8 {
    // SAFETY: the helper checks the socket itself.
    let minisocket = unsafe { bpf_skc_to_tcp_timewait_sock(sock.as_ptr().cast_mut()) };
    if minisocket.is_null() {
        return TIME_WAIT;
    }
    // SAFETY: the helper gave the pointer its type.
    unsafe { load(minisocket.cast_const().cast(), &field::TW_SUBSTATE) }
}
