//! Names and capacities of the maps.

/// One [`crate::counters::Counters`] for each CPU.
pub const COUNTERS: &str = "COUNTERS";
/// The ring buffer of [`crate::record`]s.
pub const EVENTS: &str = "EVENTS";
/// One `u32`: the [`crate::record::StreamMode`]; the agent may change it at any time.
pub const STREAM_MODE: &str = "STREAM_MODE";
/// The table of sockets, in [`crate::socket::SocketBucket`]s.
pub const SOCKETS: &str = "SOCKETS";

/// One [`crate::census::CensusCounts`].
pub const CENSUS: &str = "CENSUS";

/// Bytes of the ring buffer unless the agent asks for others: a power of two and whole pages.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;
/// Entries of the table of sockets unless the agent asks for others: a power of two. 32 bytes
/// each, allocated at once: 16 MiB.
pub const SOCKET_CAPACITY: u32 = 524_288;
/// Unread bytes above which a record wakes the agent, as a part of the ring: one half.
pub const WAKE_RING_DIVISOR: u32 = 2;
