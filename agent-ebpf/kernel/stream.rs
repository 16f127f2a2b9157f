//! Sends records through the ring buffer.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ktime_get_ns, generated::bpf_ringbuf_query},
};

use agent_ebpf::{
    counters::Counters,
    record::{FLAG_IN_CGROUP, RECORD_SIZE, StreamMode},
    stream::StreamSettings,
};

use crate::{
    count,
    globals::setting,
    maps::{EVENTS, STREAM},
    sock::{Fields as _, Sock},
};

/// Ring bytes of one record, its header included.
const SLOT: u64 = RECORD_SIZE as u64 + 8;

/// Who is to be told of a transition.
pub(crate) enum Audience {
    Nobody,
    /// Whoever it is about.
    Agent,
    /// If it passes the listeners' filter.
    Listeners,
}

/// What is told now; nothing only where the map is missing, which the loader made.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static StreamSettings> {
    STREAM.get(0)
}

/// Who is to be told of a transition between these states, the old one having lasted
/// `duration_ns` (0: not known).
#[inline(always)]
pub(crate) fn audience(settings: &StreamSettings, old: u8, new: u8, duration_ns: u64) -> Audience {
    if StreamMode::from_raw(settings.own).tells(old, new, duration_ns) {
        Audience::Agent
    } else if settings.listeners != StreamMode::Late as u32
        && StreamMode::from_raw(settings.listeners).tells(old, new, duration_ns)
        && settings.filter.passes_states(old, new)
    {
        Audience::Listeners
    } else {
        Audience::Nobody
    }
}

/// The flag of a socket in the cgroup that is to be marked, or none.
#[inline(always)]
pub(crate) fn cgroup_mark(settings: &StreamSettings, sock: Sock) -> u8 {
    let marked = settings.marked_cgroup;
    if marked != 0 && sock.cgroup() == marked {
        FLAG_IN_CGROUP
    } else {
        0
    }
}

/// The present time as records hold it.
#[inline(always)]
pub(crate) fn clock_us() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_ns() } / 1_000) as u32
}

/// Sends one record, or counts it lost.
///
/// # Safety
///
/// `counters` must be this CPU's, and `T` a record of `agent_ebpf::record`.
#[inline(always)]
pub(crate) unsafe fn send<T: 'static>(counters: *mut Counters, record: T) {
    const { assert!(size_of::<T>() == RECORD_SIZE && align_of::<T>() <= 8) };
    let Some(mut slot) = EVENTS.reserve_untyped::<T>(0) else {
        // SAFETY: the caller's pointer is this CPU's counters.
        unsafe { count::add(&raw mut (*counters).lost_ring_full, 1) };
        return;
    };
    slot.write(record);
    slot.submit(wake_flags());
    // SAFETY: as above.
    unsafe { count::add(&raw mut (*counters).records_sent, 1) };
}

/// The agent drains the ring on a timer and is woken only while the unread bytes pass the mark:
/// a wakeup for each record would cost twenty times the record.
#[inline(always)]
fn wake_flags() -> u64 {
    let mark = u64::from(setting::WAKE_BYTES.get());
    // SAFETY: the map is a ring buffer.
    let unread = unsafe {
        bpf_ringbuf_query(
            (&raw const EVENTS).cast_mut().cast(),
            u64::from(BPF_RB_AVAIL_DATA),
        )
    };
    // Several CPUs may pass the mark at once, so a few records wide.
    if unread >= mark && unread < mark + 16 * SLOT {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
