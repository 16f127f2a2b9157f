//! RSTs sent on behalf of a socket (`tcp_v4_send_reset()`, `tcp_send_active_reset()` and their
//! IPv6 kin), as far as they tell what really closed it.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use agent_ebpf::{
    close::{ResetEvidence, SOCK_DEAD, revision},
    socket::RESET_IN_FIN_WAIT2,
    state,
};

use crate::{
    count::{self, counters},
    globals::field,
    sock::{Fields as _, Sock},
    table,
};

#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let sk = ctx.arg::<*const c_void>(0);
    // Both may be missing: a RST to a stray packet has no socket, one of the kernel's own will
    // answers no packet.
    let answers_packet = !ctx.arg::<*const c_void>(1).is_null();
    if sk.is_null() {
        return 0;
    }
    let sock = Sock::new(sk);
    // A minisocket is neither in CLOSE nor, by this field, in FIN_WAIT2.
    match sock.state() {
        state::CLOSE if sock.is_tcp() && sock.is_watched() => revise(sock, answers_packet),
        state::FIN_WAIT2 if !answers_packet && sock.is_tcp() && sock.is_watched() => mark(sock),
        _ => {}
    }
    0
}

/// The socket has closed already; the RST may prove the cause that was told wrong.
#[inline(always)]
fn revise(sock: Sock, answers_packet: bool) {
    let (Some(counters), Some(tcp)) = (counters(), sock.tcp()) else {
        return;
    };
    let evidence = ResetEvidence {
        err: sock.err(),
        flags: sock.flags(),
        linger2: tcp.load(&field::TCP_LINGER2),
        all_acknowledged: tcp.all_acknowledged(),
        answers_packet,
    };
    if let Some(revision) = revision(&evidence) {
        // SAFETY: the pointer is this CPU's counters.
        unsafe { count::add_at(&raw mut (*counters).revisions, revision as usize, 1) };
    }
}

/// An orphan in FIN_WAIT2 is reset before it closes only when its timer ran out on it.
#[inline(always)]
fn mark(sock: Sock) {
    if sock.flags() & SOCK_DEAD == 0 {
        return;
    }
    let key = sock.key();
    let cookie = sock.known_cookie();
    let found = table::find(key);
    // No room is no loss here: inet_sock_set_state has counted it for this socket, and the close
    // that follows at once is told as the usual handover.
    // SAFETY: the pointer is this CPU's counters.
    let claim = || unsafe { table::claim(counters()?, key) };
    let Some(entry) = found.or_else(claim) else {
        return;
    };
    // SAFETY: the table's entries are never unmapped, and the socket's lock is held.
    let entry = unsafe { &mut *entry };
    if found.is_none() || entry.cookie != cookie {
        entry.since_ns = 0;
        entry.cookie = cookie;
        entry.pid = 0;
    }
    entry.flags = RESET_IN_FIN_WAIT2;
}
