//! The ABI between connstate's kernel programs and its agent.
//!
//! Everything both sides must agree on is defined here once: states, causes, records, counters,
//! map and program names. The binary of this package is the kernel side and uses this library as
//! it is; the agent uses it with the `user` feature.
//!
//! In reading order, as an event passes through: the [`fields`] the programs read, the [`state`]s
//! a socket takes, how long it stayed ([`duration`]), why it ended ([`close`]), what was sent
//! again ([`retransmit`]), the [`counters`] all this is added to, the [`record`]s that tell of
//! single sockets, what the [`stream`] of them tells, the [`socket`] entry kept for each, the [`census`] of them all, and the
//! [`maps`] and [`programs`] that hold it together.

#![cfg_attr(not(test), no_std)]
#![expect(
    clippy::inline_always,
    reason = "a call costs a BPF program its registers, and the verifier its knowledge of them"
)]

pub mod fields;
pub mod state;
pub mod duration;
pub mod close;
pub mod retransmit;
pub mod counters;
pub mod record;
pub mod stream;
pub mod socket;
pub mod census;
pub mod maps;
pub mod programs;
