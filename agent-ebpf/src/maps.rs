//! Names and capacities of the maps.

/// One [`crate::counters::Counters`] for each CPU.
pub const COUNTERS: &str = "COUNTERS";
/// The ring buffer of [`crate::record`]s.
pub const EVENTS: &str = "EVENTS";
/// One `u32`: the [`crate::record::StreamMode`]; the agent may change it at any time.
pub const STREAM_MODE: &str = "STREAM_MODE";
/// [`crate::socket::SocketEntry`]s by socket address, allocated as they come.
pub const SOCKETS: &str = "SOCKETS";
/// The same, allocated at once: for kernels before 6.1, where allocation from a tracing program
/// may deadlock. Only one of the two is used; the other is made as small as can be.
pub const SOCKETS_PREALLOCATED: &str = "SOCKETS_PREALLOCATED";

/// Bytes of the ring buffer unless the agent asks for others: a power of two and whole pages.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;
/// Sockets remembered at once unless the agent asks for more.
pub const SOCKET_CAPACITY: u32 = 1_048_576;
/// Unread bytes above which a record wakes the agent, as a part of the ring: one half.
pub const WAKE_RING_DIVISOR: u32 = 2;
