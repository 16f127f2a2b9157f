//! Names and capacities of the maps.

/// One [`crate::counters::Counters`] for each CPU.
pub const COUNTERS: &str = "COUNTERS";
/// The ring buffer of [`crate::record`]s.
pub const EVENTS: &str = "EVENTS";
/// One [`crate::stream::StreamSettings`]; the agent may change it at any time.
pub const STREAM: &str = "STREAM";
/// The table of sockets, in [`crate::socket::SocketBucket`]s.
pub const SOCKETS: &str = "SOCKETS";

/// One [`crate::census::CensusCounts`].
pub const CENSUS: &str = "CENSUS";
/// [`crate::census::CgroupCounts`] by cgroup id.
pub const CENSUS_CGROUPS: &str = "CENSUS_CGROUPS";
/// [`crate::census::CensusCounts`] by the inode number of the network namespace.
pub const CENSUS_NAMESPACES: &str = "CENSUS_NAMESPACES";
/// Sockets by [`crate::census::PortKey`].
pub const CENSUS_PORTS: &str = "CENSUS_PORTS";
/// One [`crate::census::PortSet`].
pub const CENSUS_TAKEN_PORTS: &str = "CENSUS_TAKEN_PORTS";
/// The cookies of the sockets whose owners are asked for.
pub const CENSUS_WANTED: &str = "CENSUS_WANTED";
/// [`crate::census::OwnerSlot`]s by process id modulo their number.
pub const OWNERS: &str = "OWNERS";
/// Connects by [`crate::census::ConnectKey`].
pub const CONNECTS: &str = "CONNECTS";

/// Bytes of the ring buffer unless the agent asks for others: a power of two and whole pages.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;
/// Entries of the table of sockets unless the agent asks for others: a power of two. 32 bytes
/// each, allocated at once: 16 MiB.
pub const SOCKET_CAPACITY: u32 = 524_288;
/// Unread bytes above which a record wakes the agent, as a part of the ring: one half.
pub const WAKE_RING_DIVISOR: u32 = 2;
/// Network namespaces whose sockets are told apart by the pass over the table of sockets.
pub const NAMESPACE_CAPACITY: usize = 4096;
/// Cgroups whose sockets are told apart.
pub const CGROUP_CAPACITY: usize = 2048;
/// Pairs of addresses and a remote port whose ephemeral ports are told apart, in one namespace.
pub const PORT_CAPACITY: usize = 16_384;
/// Sockets whose owners can be asked for at once.
pub const WANTED_CAPACITY: usize = 16_384;
/// Cgroups with a destination whose connects are told apart.
pub const CONNECT_CAPACITY: usize = 8_192;
