//! Adds to this CPU's counters.

use core::arch::asm;

use agent_ebpf::counters::Counters;
use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap};

use crate::{globals::setting, maps::COUNTERS};

/// This CPU's counters.
#[inline(always)]
pub(crate) fn counters() -> Option<*mut Counters> {
    COUNTERS.get_ptr_mut(0)
}

/// Adds `n` to the counter at `index`, if there is one: a panic is a loop, which the verifier
/// refuses, so no index is trusted.
///
/// # Safety
///
/// `counters` must point into this CPU's [`Counters`].
#[inline(always)]
pub(crate) unsafe fn add_at<const N: usize>(counters: *mut [u64; N], index: usize, n: u64) {
    if index < N {
        // SAFETY: the caller's array is valid and the index within it.
        unsafe { add(counters.cast::<u64>().add(index), n) };
    }
}

/// Adds `n` to a counter of this CPU.
///
/// # Safety
///
/// `counter` must point into this CPU's [`Counters`].
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, n: u64) {
    if setting::ATOMIC_COUNTERS.is_set() {
        // SAFETY: the caller's pointer is valid; a nested run of this program adds atomically too.
        unsafe { atomic_add(counter, n) };
    } else {
        // SAFETY: the caller's pointer is valid, and the kernel keeps the program that adds to it
        // from interrupting itself on this CPU.
        unsafe { *counter = (*counter).wrapping_add(n) };
    }
}

/// Adds `n` to a word that others may add to at the same time.
///
/// Rust offers no `fetch_add` on a target that cannot compare and swap, as BPF's first instruction
/// sets cannot.
///
/// # Safety
///
/// `word` must point into a map.
#[inline(always)]
pub(crate) unsafe fn atomic_add(word: *mut u64, n: u64) {
    // SAFETY: the caller's pointer is valid, and maps' words are aligned.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) n) };
}

/// The value under `key`, `zero` at first; nothing where the map is full.
#[inline(always)]
pub(crate) fn entry<K, V, const N: usize>(
    map: &HashMap<K, V, N>,
    key: &K,
    zero: &V,
) -> Option<*mut V> {
    map.get_ptr_mut(key).or_else(|| {
        // Refused where another CPU was faster, too: then it is there.
        let _inserted = map.insert(key, zero, u64::from(BPF_NOEXIST));
        map.get_ptr_mut(key)
    })
}
