//! connstate's kernel programs, one file a hook.
//!
//! [`globals`] says where the kernel's fields lie, [`sock`] and [`task`] read them, [`maps`] holds
//! what the programs share, [`table`] what they remember of sockets; [`count`], [`connects`],
//! [`stream`] and [`seq`] take their results. Built for the BPF target alone; elsewhere this
//! binary is empty.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::inline_always,
        reason = "a call costs a BPF program its registers, and the verifier its knowledge of them"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "finding a place in a struct behind a pointer, and using it, is one thing"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_pass_by_value,
        reason = "aya-ebpf's macro hands the context over by value"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::cast_possible_truncation,
        reason = "states and causes fit a byte, and the verifier needs no checks of what cannot be"
    )
)]

#[cfg(target_arch = "bpf")]
mod census;
#[cfg(target_arch = "bpf")]
mod connects;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod globals;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod seq;
#[cfg(target_arch = "bpf")]
mod sock;
#[cfg(target_arch = "bpf")]
mod stream;
#[cfg(target_arch = "bpf")]
mod table;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(target_arch = "bpf")]
mod census_known;
#[cfg(target_arch = "bpf")]
mod census_owners;
#[cfg(target_arch = "bpf")]
mod census_tcp;
#[cfg(target_arch = "bpf")]
mod inet_sock_set_state;
#[cfg(target_arch = "bpf")]
mod tcp_retransmit_skb;
#[cfg(target_arch = "bpf")]
mod tcp_retransmit_synack;
#[cfg(target_arch = "bpf")]
mod tcp_send_reset;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The kernel lets only GPL-compatible programs call the helpers that tracing needs.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could loop here.
    loop {}
}
