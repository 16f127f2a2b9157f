//! The table of sockets: finding, claiming and releasing a [`SocketEntry`].
//!
//! Nothing locks. A socket's entry is touched only under that socket's lock; sockets compete only
//! for free entries. The claim is an addition to the key's word, which every kernel's BPF can do
//! atomically (compare-and-swap came with 5.12): whoever then reads its own key has the entry,
//! since a holder's key stays part of the sum until it is released.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{btf_maps::Array, macros::btf_map};

use agent_ebpf::{
    counters::Counters,
    maps::SOCKET_CAPACITY,
    socket::{BUCKET_ENTRIES, SocketBucket, SocketEntry, home_buckets},
};

use crate::{
    count::{self, atomic_add},
    globals::setting,
};

#[btf_map]
static SOCKETS: Array<SocketBucket, { (SOCKET_CAPACITY / BUCKET_ENTRIES) as usize }> = Array::new();

/// What a socket is found by: its distance from a global of this object's. A socket's address
/// would do, but the verifier lets nobody multiply a pointer, and takes the difference of two for
/// the number it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of the socket at `sk`.
    #[inline(always)]
    pub(crate) fn of(sk: *const c_void) -> Self {
        let mut key = sk as u64;
        let origin = &raw const setting::SOCKET_BUCKET_MASK as u64;
        // SAFETY: a subtraction; written out, lest the compiler turn it into other arithmetic.
        unsafe { asm!("{0} -= {1}", inout(reg) key, in(reg) origin) };
        Self(key)
    }
}

impl Key {
    /// The address of the socket with this key. `scratch` is a word of a map: the origin is
    /// written there and read back as a number, since the verifier lets nobody add one to a
    /// pointer to somewhere else.
    #[inline(always)]
    pub(crate) fn address(key: u64, scratch: &mut u64) -> u64 {
        let origin = &raw const setting::SOCKET_BUCKET_MASK as u64;
        // SAFETY: a reference is valid; volatile, so that what is read is what the map holds.
        unsafe {
            core::ptr::write_volatile(scratch, origin);
            key.wrapping_add(core::ptr::read_volatile(scratch))
        }
    }
}

/// The entries that the socket may have.
#[inline(always)]
fn places(key: Key, mut visit: impl FnMut(*mut SocketEntry) -> bool) -> Option<*mut SocketEntry> {
    for home in home_buckets(key.0, setting::SOCKET_BUCKET_MASK.get()) {
        let bucket: *mut SocketBucket = SOCKETS.get_ptr_mut(home)?;
        for index in 0..BUCKET_ENTRIES {
            // SAFETY: the bucket has this many entries.
            let entry = unsafe { bucket.cast::<SocketEntry>().add(index as usize) };
            if visit(entry) {
                return Some(entry);
            }
        }
    }
    None
}

#[inline(always)]
fn holder(entry: *mut SocketEntry) -> u64 {
    // SAFETY: places() visits entries of the table; volatile, since other CPUs write the key.
    unsafe { core::ptr::read_volatile(&raw const (*entry).key) }
}

/// The entry of the socket, if it has one.
#[inline(always)]
pub(crate) fn find(key: Key) -> Option<*mut SocketEntry> {
    places(key, |entry| holder(entry) == key.0)
}

/// An entry for the socket, with whatever was in it; nothing where there is no room.
///
/// # Safety
///
/// `counters` must be this CPU's.
#[inline(always)]
pub(crate) unsafe fn claim(counters: *mut Counters, key: Key) -> Option<*mut SocketEntry> {
    let mut was_free = false;
    let entry = places(key, |entry| {
        let held = holder(entry);
        if held == 0 {
            // SAFETY: as in holder().
            unsafe { atomic_add(&raw mut (*entry).key, key.0) };
            if holder(entry) == key.0 {
                was_free = true;
                return true;
            }
            // Another socket was faster, or at it at the same time: then neither has it.
            // SAFETY: as above.
            unsafe { atomic_add(&raw mut (*entry).key, key.0.wrapping_neg()) };
            return false;
        }
        // Left by a socket at the same address whose close was missed.
        held == key.0
    });
    if was_free {
        // SAFETY: the caller's pointer is this CPU's counters.
        unsafe { count::add(&raw mut (*counters).sockets_claimed, 1) };
    }
    entry
}

/// Frees the entry of the socket.
///
/// # Safety
///
/// `entry` must be the socket's, by [`find`] or [`claim`] in this run; `counters` this CPU's.
#[inline(always)]
pub(crate) unsafe fn release(counters: *mut Counters, entry: *mut SocketEntry, key: Key) {
    // SAFETY: the caller's entry is one of the table, its counters this CPU's.
    unsafe {
        atomic_add(&raw mut (*entry).key, key.0.wrapping_neg());
        count::add(&raw mut (*counters).sockets_released, 1);
    }
}
