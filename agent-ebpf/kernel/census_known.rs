//! The quick pass of a census: every full socket that the programs remember, of all network
//! namespaces at once, by one walk over the table of sockets.

use core::ffi::c_void;

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};

use agent_ebpf::{
    census::CensusCounts,
    maps::NAMESPACE_CAPACITY,
    socket::{BUCKET_ENTRIES, SocketBucket, SocketEntry},
    state,
};

use crate::{
    census::{self, Full},
    count,
    seq::{IterMeta, SeqFile},
    sock::{Fields as _, Remembered},
    table::Key,
};

/// What is counted, by network namespace.
#[btf_map]
static CENSUS_NAMESPACES: HashMap<u32, CensusCounts, NAMESPACE_CAPACITY> = HashMap::new();

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
struct IterMapElem {
    meta: *const IterMeta,
    map: *const c_void,
    key: *const c_void,
    value: *const SocketBucket,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn census_known(context: *const IterMapElem) -> i32 {
    // SAFETY: the kernel hands over a bpf_iter__bpf_map_elem.
    let (meta, bucket) = unsafe { ((*context).meta, (*context).value) };
    let Some(counts) = census::counts() else {
        return 0;
    };
    // SAFETY: the map's value, which nothing else touches during a pass.
    let counts = unsafe { &mut *counts };
    if bucket.is_null() {
        // The last call of a pass.
        census::end(counts);
        return 0;
    }
    // SAFETY: the kernel hands over the iterator's meta data.
    let output = unsafe { SeqFile::of(meta) };
    // A bucket whose records find no room is visited again, and those already counted would be
    // counted twice: so it is counted once all is told. What is told twice has one cookie.
    for index in 0..BUCKET_ENTRIES as usize {
        if !tell(output, counts, bucket, index) {
            return 0;
        }
    }
    for index in 0..BUCKET_ENTRIES as usize {
        count_one(counts, bucket, index);
    }
    0
}

/// The socket of an entry, if it is still the one.
#[inline(always)]
fn socket(
    counts: &mut CensusCounts,
    bucket: *const SocketBucket,
    index: usize,
) -> Option<Full<Remembered>> {
    let (key, cookie) = entry(bucket, index, |entry| (entry.key, entry.cookie));
    // A child that the kernel has not finished has no cookie yet.
    if key == 0 || cookie == 0 {
        return None;
    }
    let address = Key::address(key, &mut counts.scratch);
    let fields = Remembered::at(address, &mut counts.scratch);
    if fields.known_cookie() != cookie {
        return None;
    }
    let state = fields.state();
    let full = Full {
        fields,
        state,
        cookie,
    };
    (state != state::CLOSE).then_some(full)
}

/// Looks at an entry, which other CPUs may write meanwhile.
#[inline(always)]
fn entry<T>(bucket: *const SocketBucket, index: usize, look: impl FnOnce(SocketEntry) -> T) -> T {
    // SAFETY: the value is one bucket of the table, and every index used lies within.
    look(unsafe { core::ptr::read_volatile(&raw const (*bucket).entries[index]) })
}

/// False where there was no room.
#[inline(always)]
fn tell(
    output: SeqFile,
    counts: &mut CensusCounts,
    bucket: *const SocketBucket,
    index: usize,
) -> bool {
    let Some(full) = socket(counts, bucket, index) else {
        return true;
    };
    let (since_ns, pid) = entry(bucket, index, |entry| (entry.since_ns, entry.pid));
    full.tell(output, since_ns, pid)
}

#[inline(always)]
fn count_one(counts: &mut CensusCounts, bucket: *const SocketBucket, index: usize) {
    let Some(full) = socket(counts, bucket, index) else {
        return;
    };
    match count::entry(
        &CENSUS_NAMESPACES,
        &full.fields.netns(),
        &CensusCounts::ZERO,
    ) {
        // SAFETY: the map's value, which nothing else touches during a pass.
        Some(of_namespace) => full.count(unsafe { &mut *of_namespace }),
        // Of a namespace beyond those there is room for.
        None => full.count(counts),
    }
}
