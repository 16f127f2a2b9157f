//! Every change of a TCP socket's state (`inet_sk_set_state()` and `inet_sk_state_store()`, which
//! trace before they store).

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;

use agent_ebpf::{
    close::{CloseCause, CloseEvidence, SOCK_DEAD, close_cause},
    counters::Counters,
    duration::{bucket, histogram_of},
    record::{
        FLAG_IPV6, FLAG_ORPHAN, FLAG_UNFINISHED, KIND_TRANSITION, NO_CAUSE, TransitionRecord,
        pack_duration,
    },
    socket::{RESET_IN_FIN_WAIT2, SocketEntry},
    state::{self, STATE_COUNT},
    stream::StreamSettings,
};

use crate::{
    connects,
    count::{self, counters},
    globals::field,
    sock::{Fields as _, Sock, TcpSock},
    stream::{self, Audience},
    table::{self, Key},
    task,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::new(ctx.arg::<*const c_void>(0));
    let (old, new) = (ctx.arg::<u32>(1), ctx.arg::<u32>(2));
    if sock.is_tcp() && sock.is_watched() {
        transition(&ctx, sock, old as usize, new as usize);
    }
    0
}

#[inline(always)]
fn transition(ctx: &BtfTracePointContext, sock: Sock, old: usize, new: usize) {
    let Some(counters) = counters() else { return };
    if old >= STATE_COUNT || new >= STATE_COUNT {
        debug!(ctx, "a state unknown here: {} to {}", old, new);
        return;
    }
    // SAFETY: the pointer is this CPU's counters.
    unsafe { count::add_at(&raw mut (*counters).transitions[old], new, 1) };

    let (old, new) = (old as u8, new as u8);
    let passage = remember_passage(counters, sock, old, new);
    if new == state::SYN_SENT {
        connects::count(counters, sock);
    }
    if old == new {
        // close() after shutdown() says so by a transition to the same state.
        return;
    }
    if passage.duration_ns > 0 {
        count_duration(counters, old, passage.duration_ns);
    }
    let cause = if new == state::CLOSE {
        count_close(ctx, counters, sock, old, passage.flags)
    } else {
        NO_CAUSE
    };
    let Some(settings) = stream::settings() else {
        return;
    };
    let filtered = match stream::audience(settings, old, new, passage.duration_ns) {
        Audience::Nobody => return,
        Audience::Agent => false,
        Audience::Listeners => true,
    };
    tell(
        counters,
        sock,
        (old, new),
        cause,
        &passage,
        settings,
        filtered,
    );
}

/// What is known of a socket as it changes its state.
struct Passage {
    /// How long the old state lasted; 0 where that is not known.
    duration_ns: u64,
    /// The process that opened or closed it; 0 where that is not known.
    pid: u32,
    /// Flags of its [`SocketEntry`].
    flags: u32,
}

/// Looks up what is remembered of the socket, and brings it up to date.
#[inline(always)]
fn remember_passage(counters: *mut Counters, sock: Sock, old: u8, new: u8) -> Passage {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut passage = Passage {
        duration_ns: 0,
        pid: acting_process(sock, old, new),
        flags: 0,
    };
    if passage.pid != 0 {
        task::remember(passage.pid);
    }
    let child = old == state::LISTEN && new == state::SYN_RECV;
    let newborn = child || old == state::CLOSE;
    let key = sock.key();

    let found = if newborn { None } else { table::find(key) };
    let Some(entry) = found.or_else(|| room_for(counters, key, new)) else {
        return passage;
    };
    // SAFETY: entries are never unmapped, and only programs that hold the socket's lock, as this
    // one does, touch that socket's.
    let entry = unsafe { &mut *entry };
    let known = found.is_some() && (entry.cookie == 0 || entry.cookie == sock.known_cookie());
    if known {
        // An entry without a time was made for a socket older than the agent.
        if entry.since_ns != 0 {
            passage.duration_ns = (now - entry.since_ns).max(1);
        }
        if passage.pid == 0 {
            passage.pid = entry.pid;
        }
        passage.flags = entry.flags;
    }
    if new == state::CLOSE {
        // SAFETY: it was found by this key, and the pointer is this CPU's counters.
        unsafe { table::release(counters, entry, key) };
        return passage;
    }
    if !known {
        entry.flags = 0;
        entry.since_ns = 0;
    }
    if !known || entry.cookie == 0 {
        entry.cookie = if child { 0 } else { sock.cookie() };
    }
    // close() after shutdown() is a transition to the same state, which goes on.
    if old != new {
        entry.since_ns = now;
    }
    entry.pid = passage.pid;
    passage
}

/// An entry for a socket that has none, but for one that closes.
#[inline(always)]
fn room_for(counters: *mut Counters, key: Key, new: u8) -> Option<*mut SocketEntry> {
    if new == state::CLOSE {
        return None;
    }
    // SAFETY: the pointer is this CPU's counters.
    let entry = unsafe { table::claim(counters, key) };
    if entry.is_none() {
        // SAFETY: as above.
        unsafe { count::add(&raw mut (*counters).lost_state_full, 1) };
    }
    entry
}

/// The process at work, where the transition is made in its own context, by `listen()`,
/// `connect()`, `close()` or `shutdown()`. Anywhere else the current process is whoever was
/// interrupted.
#[inline(always)]
fn acting_process(sock: Sock, old: u8, new: u8) -> u32 {
    let own = match new {
        state::LISTEN | state::SYN_SENT | state::LAST_ACK => true,
        // A child with a pending shutdown() goes from SYN_RECV to FIN_WAIT1 in a softirq.
        state::FIN_WAIT1 => old != state::SYN_RECV,
        _ => old == new,
    };
    // The FIN of an MPTCP subflow is sent by a kernel worker.
    if !own || sock.tcp().is_some_and(TcpSock::is_mptcp) {
        return 0;
    }
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn count_duration(counters: *mut Counters, state: u8, duration_ns: u64) {
    let Some(histogram) = histogram_of(state) else {
        return;
    };
    // SAFETY: histogram_of returns an index in bounds, the pointer is this CPU's counters.
    unsafe {
        let histogram = &raw mut (*counters).durations[histogram];
        count::add_at(&raw mut (*histogram).buckets, bucket(duration_ns), 1);
        count::add(&raw mut (*histogram).sum_ns, duration_ns);
    }
}

/// Tells why the socket closes, and counts it.
#[inline(always)]
fn count_close(
    ctx: &BtfTracePointContext,
    counters: *mut Counters,
    sock: Sock,
    old: u8,
    entry_flags: u32,
) -> u8 {
    let Some(tcp) = sock.tcp() else {
        return NO_CAUSE;
    };
    let evidence = CloseEvidence {
        old_state: old,
        err: sock.err(),
        flags: sock.flags(),
        shutdown: sock.shutdown(),
        lingertime: sock.lingertime(),
        has_socket: tcp.has_socket(),
        is_mptcp: tcp.is_mptcp(),
        has_local_port: tcp.source_port() != 0,
        all_acknowledged: tcp.all_acknowledged(),
        unread: tcp.unread(),
        linger2: tcp.load(&field::TCP_LINGER2),
        probes_out: tcp.load(&field::ICSK_PROBES_OUT),
        retransmits: tcp.load(&field::ICSK_RETRANSMITS),
        reset_in_fin_wait2: entry_flags & RESET_IN_FIN_WAIT2 != 0,
    };
    let cause = close_cause(&evidence);
    if matches!(cause, CloseCause::Other) {
        debug!(
            ctx,
            "closed for another cause: from state {}, sk_err {}, sk_flags {}, sk_shutdown {}",
            old,
            evidence.err,
            evidence.flags,
            evidence.shutdown
        );
    }
    // SAFETY: the pointer is this CPU's counters.
    unsafe { count::add_at(&raw mut (*counters).closes, cause as usize, 1) };
    cause as u8
}

/// Sends the record of a transition, if `filtered` only where it passes.
#[inline(always)]
fn tell(
    counters: *mut Counters,
    sock: Sock,
    (old, new): (u8, u8),
    cause: u8,
    passage: &Passage,
    settings: &StreamSettings,
    filtered: bool,
) {
    let unfinished = old == state::LISTEN && new == state::SYN_RECV && sock.remote_port() == 0;
    let (duration, mut flags) = if passage.duration_ns > 0 {
        pack_duration(passage.duration_ns)
    } else {
        (0, 0)
    };
    let mut local_port = sock.bound_port();
    if local_port == 0
        && let Some(tcp) = sock.tcp()
    {
        local_port = tcp.source_port();
    }
    let mark = stream::cgroup_mark(settings, sock);
    if filtered {
        let filter = &settings.filter;
        if !filter.passes_socket((local_port, sock.remote_port()), passage.pid)
            || (filter.cgroup != 0 && mark == 0)
        {
            return;
        }
    }
    flags |= mark;
    let cookie = if unfinished {
        flags |= FLAG_UNFINISHED;
        0
    } else {
        sock.cookie()
    };
    if sock.is_ipv6() {
        flags |= FLAG_IPV6;
    }
    if sock.flags() & SOCK_DEAD != 0 {
        flags |= FLAG_ORPHAN;
    }
    let record = TransitionRecord {
        kind: KIND_TRANSITION,
        states: old << 4 | new,
        cause,
        flags,
        at_us: stream::clock_us(),
        duration,
        pid: passage.pid,
        socket: sock.id(cookie, local_port),
    };
    // SAFETY: the pointer is this CPU's counters.
    unsafe { stream::send(counters, record) };
}
