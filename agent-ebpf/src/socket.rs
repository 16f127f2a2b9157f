//! What the programs remember of each socket between its transitions.
//!
//! The entries lie in a table of their own rather than in a hash map of the kernel's: a socket's
//! entry is made and dropped once a connection and looked up at every transition, and there a
//! hash map's lock and allocator cost more than all the rest of the programs. A socket has two
//! home buckets, and may have any entry of either; one that finds both full is counted, not
//! remembered.

/// An entry of the table [`crate::maps::SOCKETS`].
///
/// A socket's address is used again within milliseconds, so the entry carries the cookie, and the
/// first transition of a socket overwrites whatever a missed `→ CLOSE` left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketEntry {
    /// The socket's key; 0 where the entry is free. See `table` of the kernel programs.
    pub key: u64,
    /// When the present state began, CLOCK_MONOTONIC in nanoseconds; 0 where that is not known.
    pub since_ns: u64,
    /// The socket's cookie; 0 for a child that the kernel has not finished.
    pub cookie: u64,
    /// The process that opened or closed it, where one did in its own context; else 0.
    pub pid: u32,
    /// [`RESET_IN_FIN_WAIT2`].
    pub flags: u32,
}

/// The kernel reset an orphan in FIN_WAIT2 whose timer ran out (`tcp_keepalive_timer`): what
/// follows is not the usual handover to a timewait minisocket.
pub const RESET_IN_FIN_WAIT2: u32 = 1 << 0;

/// Entries of a bucket: two cache lines of them.
pub const BUCKET_ENTRIES: u32 = 4;

/// One element of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketBucket {
    /// Each free or one socket's.
    pub entries: [SocketEntry; BUCKET_ENTRIES as usize],
}

/// The two home buckets of the socket with this key, in a table of `mask + 1` buckets, at most
/// 2²⁴.
///
/// Sockets lie in slabs, at a stride: this is how `MurmurHash3` ends, and it spreads them.
#[inline(always)]
#[must_use]
pub const fn home_buckets(key: u64, mask: u32) -> [u32; 2] {
    let hash = (key ^ key >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    // The upper 24 bits, and the 24 below them.
    [(hash >> 40) as u32 & mask, (hash << 24 >> 40) as u32 & mask]
}

const _: () = assert!(size_of::<SocketEntry>() == 32 && size_of::<SocketBucket>() == 128);

#[cfg(feature = "user")]
mod user {
    // SAFETY: SocketEntry is repr(C) integers without padding.
    unsafe impl aya::Pod for super::SocketEntry {}
    // SAFETY: so is an array of them.
    unsafe impl aya::Pod for super::SocketBucket {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `sockets` find no room in a table of `buckets`, each taking the first free
    /// entry of its home buckets as the programs do. The sockets lie as in the kernel: `stride`
    /// bytes apart in slabs of eight pages, the slabs anywhere.
    fn without_room(buckets: u32, sockets: u64, stride: u64) -> u64 {
        let mut used = vec![0_u32; buckets as usize];
        let mut lost = 0;
        for socket in 0..sockets {
            let per_slab = 0x8000 / stride;
            let (slab, place) = (socket / per_slab, socket % per_slab);
            // Any odd factor puts the slabs in an order that is not theirs.
            let page = slab.wrapping_mul(0x9_E3B1) & 0xF_FFFF;
            let key = 0xFFFF_8880_0000_0000 + page * 0x8000 + place * stride;
            let home = home_buckets(key, buckets - 1)
                .into_iter()
                .find(|&bucket| used[bucket as usize] < BUCKET_ENTRIES);
            match home {
                Some(bucket) => used[bucket as usize] += 1,
                None => lost += 1,
            }
        }
        lost
    }

    /// Sockets of TCP over IPv4 and IPv6 take, on several kernels, between 2 and 3 KiB.
    const STRIDES: [u64; 5] = [0x7C0, 0x8C0, 0x940, 0x9C0, 0xA40];

    #[test]
    fn half_a_table_of_sockets_finds_room_but_for_one_in_two_hundred() {
        let buckets = 1 << 14;
        let entries = u64::from(buckets * BUCKET_ENTRIES);
        for stride in STRIDES {
            for (part, at_most_one_in) in [(8, 10_000), (4, 5_000), (2, 200)] {
                let sockets = entries / part;
                let lost = without_room(buckets, sockets, stride);
                assert!(
                    lost <= sockets / at_most_one_in,
                    "stride {stride}: {lost} of {sockets}"
                );
            }
        }
    }
}
