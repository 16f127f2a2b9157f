//! Segments sent again by a full socket (`__tcp_retransmit_skb()`).

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use agent_ebpf::{
    close::SOCK_DEAD,
    record::{FLAG_IPV6, FLAG_ORPHAN, KIND_RETRANSMIT, RetransmitRecord},
    retransmit::{Packet, RetransmitEvidence, Trigger, trigger},
    state::STATE_COUNT,
};

use crate::{
    count::{self, counters},
    globals::{Global, field, setting},
    sock::{Fields as _, Sock, load},
    stream, table,
};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::new(ctx.arg::<*const c_void>(0));
    let skb = Segment(ctx.arg::<*const c_void>(1));
    // Since 6.15 or so the tracepoint fires for attempts that failed, too.
    if setting::RETRANSMIT_HAS_ERR.is_set() && ctx.arg::<i32>(2) != 0 {
        return 0;
    }
    if sock.is_tcp() && sock.is_watched() {
        retransmit(sock, skb);
    }
    0
}

/// A pointer to `struct sk_buff` of the write queue.
#[derive(Clone, Copy)]
struct Segment(*const c_void);

impl Segment {
    /// The field that `global` places in `tcp_skb_cb`, which lies in `sk_buff.cb`.
    #[inline(always)]
    fn load<T: Copy>(self, global: &Global) -> T {
        let cb = self
            .0
            .wrapping_byte_add(field::SKB_CB.location().offset() as usize);
        // SAFETY: cb is the segment's control block, which TCP lays out as tcp_skb_cb.
        unsafe { load(cb, global) }
    }
}

#[inline(always)]
fn retransmit(sock: Sock, segment: Segment) {
    let (Some(counters), Some(tcp)) = (counters(), sock.tcp()) else {
        return;
    };
    let ca_state = field::ICSK_CA_STATE
        .location()
        .extract(tcp.load(&field::ICSK_CA_STATE));
    let trigger = trigger(&RetransmitEvidence {
        sacked: segment.load(&field::CB_SACKED),
        ca_state,
        pending: tcp.load(&field::ICSK_PENDING),
        retransmits: tcp.load(&field::ICSK_RETRANSMITS),
        snd_wnd: tcp.load(&field::TCP_SND_WND),
    });
    let packet = Packet::of_flags(segment.load(&field::CB_TCP_FLAGS));
    let segments = u32::from(segment.load::<u16>(&field::CB_GSO_SEGS)).max(1);
    let pid = match table::find(sock.key()) {
        // SAFETY: entries are never unmapped, and this socket's lock is held.
        Some(entry) if unsafe { (*entry).cookie } == sock.known_cookie() => unsafe { (*entry).pid },
        _ => 0,
    };
    let orphan = sock.flags() & SOCK_DEAD != 0;
    let sent = Retransmitted {
        packet,
        trigger,
        segments,
        pid,
        orphan,
        mark: match stream::settings() {
            Some(settings) => stream::cgroup_mark(settings, sock),
            None => 0,
        },
    };
    tell(counters, sock, &sent);
}

/// What was sent again, and by whom.
pub(crate) struct Retransmitted {
    pub(crate) packet: Packet,
    pub(crate) trigger: Trigger,
    pub(crate) segments: u32,
    pub(crate) pid: u32,
    pub(crate) orphan: bool,
    /// The flag of its cgroup, or none.
    pub(crate) mark: u8,
}

/// Counts the segments and sends their record. `sock` may be a request minisocket.
#[inline(always)]
pub(crate) fn tell(
    counters: *mut agent_ebpf::counters::Counters,
    sock: Sock,
    sent: &Retransmitted,
) {
    let state = sock.state();
    let index = usize::from(state);
    if index >= STATE_COUNT {
        return;
    }
    // SAFETY: state and packet are in bounds, the pointer is this CPU's counters.
    unsafe {
        let by_trigger = &raw mut (*counters).retransmits[index][sent.packet as usize];
        count::add_at(by_trigger, sent.trigger as usize, u64::from(sent.segments));
    }
    let mut flags = sent.mark;
    if sock.is_ipv6() {
        flags |= FLAG_IPV6;
    }
    if sent.orphan {
        flags |= FLAG_ORPHAN;
    }
    let record = RetransmitRecord {
        kind: KIND_RETRANSMIT,
        state,
        packet_trigger: (sent.packet as u8) << 4 | sent.trigger as u8,
        flags,
        at_us: stream::clock_us(),
        segments: sent.segments,
        pid: sent.pid,
        socket: sock.id(sock.known_cookie(), sock.bound_port()),
    };
    // SAFETY: the pointer is this CPU's counters.
    unsafe { stream::send(counters, record) };
}
