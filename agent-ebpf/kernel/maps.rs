//! The maps, under the names of `agent_ebpf::maps`; that of the sockets is in [`crate::table`].

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};

use agent_ebpf::{
    counters::Counters, maps::RING_BYTES, record::TransitionRecord, stream::StreamSettings,
};

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<TransitionRecord, { RING_BYTES as usize }> = RingBuf::new();

#[btf_map]
pub(crate) static STREAM: Array<StreamSettings, 1> = Array::new();
