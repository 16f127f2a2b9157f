//! Reads a hash map in a few system calls (5.6), where aya takes one or two for each key.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Pod,
    maps::{HashMap, IterableMap as _, MapData},
};

use super::bpf::{Attributes, Command, bpf, number};

/// Entries asked for at a time. The kernel hands over whole buckets, and refuses where one has
/// more entries than that.
const BATCH: usize = 1_024;

/// The part of `union bpf_attr` for commands that work on batches.
#[repr(C)]
struct Batch {
    /// `in_batch` and `out_batch` there.
    begin: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

// SAFETY: it has the kernel's layout, and [`read`] keeps what it points to.
unsafe impl Attributes for Batch {}

/// All entries, as far as they do not change meanwhile.
pub(super) fn entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> io::Result<Vec<(K, V)>> {
    read(map.map().fd().as_fd(), Command::MapLookupBatch)
}

/// All entries, which are in the map no more.
pub(super) fn take<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> io::Result<Vec<(K, V)>> {
    read(map.map().fd().as_fd(), Command::MapLookupAndDeleteBatch)
}

fn read<K: Pod, V: Pod>(map: BorrowedFd<'_>, command: Command) -> io::Result<Vec<(K, V)>> {
    // SAFETY: a Pod is any bytes, so zeros, too.
    let mut keys = vec![unsafe { std::mem::zeroed::<K>() }; BATCH];
    // SAFETY: as above.
    let mut values = vec![unsafe { std::mem::zeroed::<V>() }; BATCH];
    let mut found = Vec::new();
    // The kernel's place in the map: the number of a bucket.
    let mut place = 0_u32;
    let mut first = true;
    loop {
        let at = std::ptr::from_mut(&mut place).expose_provenance() as u64;
        let mut batch = Batch {
            begin: if first { 0 } else { at },
            next: at,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(BATCH).unwrap_or(u32::MAX),
            map_fd: number(map),
            elem_flags: 0,
            flags: 0,
        };
        first = false;
        let is_last = match bpf(command, &mut batch) {
            Ok(_) => false,
            // Beyond the last bucket; what came before it was handed over.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let count = batch.count as usize;
        found.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        if is_last {
            return Ok(found);
        }
    }
}
