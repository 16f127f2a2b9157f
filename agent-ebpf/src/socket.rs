//! What the programs remember of each socket between its transitions.

/// An entry of the map [`crate::maps::SOCKETS`], keyed by the socket's address in the kernel.
///
/// Addresses are used again within milliseconds, so the entry carries the cookie, and the first
/// transition of a socket overwrites whatever a missed `→ CLOSE` left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketEntry {
    /// When the present state began, CLOCK_MONOTONIC in nanoseconds.
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

const _: () = assert!(size_of::<SocketEntry>() == 24);

#[cfg(feature = "user")]
mod user {
    // SAFETY: SocketEntry is repr(C) integers without padding.
    unsafe impl aya::Pod for super::SocketEntry {}
}
