//! SYN-ACKs sent again for a request minisocket (`tcp_rtx_synack()`): by its timer, or because
//! the client repeated its SYN.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_jiffies64, macros::btf_tracepoint, programs::BtfTracePointContext};

use agent_ebpf::retransmit::{Packet, Trigger};

use crate::{
    count::counters,
    globals::field,
    sock::{Sock, load},
    tcp_retransmit_skb::{Retransmitted, tell},
};

#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let listener = Sock::new(ctx.arg::<*const c_void>(0));
    let request = ctx.arg::<*const c_void>(1);
    if listener.is_tcp()
        && listener.is_watched()
        && let Some(counters) = counters()
    {
        let sent = Retransmitted {
            packet: Packet::SynAck,
            trigger: trigger(request),
            segments: 1,
            pid: 0,
            orphan: false,
            mark: 0,
        };
        // A request minisocket begins with the same sock_common as a full one.
        tell(counters, Sock::new(request), &sent);
    }
    0
}

/// `reqsk_timer_handler` runs at or after the time its timer was set for, and sets it anew only
/// after the SYN-ACK; a repeated SYN finds the timer set for later.
#[inline(always)]
fn trigger(request: *const c_void) -> Trigger {
    if !field::REQ_TIMER_EXPIRES.location().is_present() {
        return Trigger::Other;
    }
    // SAFETY: the tracepoint's second argument is a struct request_sock.
    let expires: u64 = unsafe { load(request, &field::REQ_TIMER_EXPIRES) };
    // SAFETY: the helper has no preconditions.
    if expires <= unsafe { bpf_jiffies64() } {
        Trigger::Rto
    } else {
        Trigger::Other
    }
}
