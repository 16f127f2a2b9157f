//! The ways in which connections open and close, and the trace each must leave.
//!
//! The predictions follow the kernel's sources, not what the programs were seen to count: each
//! way names the function that makes its transitions.

use anyhow::Result;

use crate::{place::Place, trace::Trace};

pub mod connect;
pub mod graceful;
pub mod listener;
pub mod reset;
pub mod silence;

/// A way to open and close connections.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Its name.
    pub name: &'static str,
    /// Makes as many connections go it, in the calling thread's namespace, and returns when the
    /// last of them is closed or about to be.
    pub go: fn(&Place, usize) -> Result<()>,
    /// The trace that so many connections leave, that of their listener included.
    pub leaves: fn(usize) -> Trace,
}

/// Every way that takes no more time than its packets do.
pub const FAST: &[Way] = &[
    graceful::FULL_CLOSE,
    graceful::SELF_CONNECTION,
    reset::LINGER_ZERO,
    reset::UNREAD_DATA,
    reset::LATE_DATA_WITH_ACK,
    reset::LATE_DATA_IN_FIN_WAIT1,
    reset::RESET_IN_FIN_WAIT1,
    reset::LINGER2_AT_ACK,
    reset::DISCONNECTED,
    connect::REFUSED,
    connect::GIVEN_UP,
    listener::NEVER_ACCEPTED,
];

/// Every way that waits for a delayed acknowledgement, 40 ms, or a retransmission.
pub const DELAYED: &[Way] = &[
    graceful::HELD_FIN_WAIT2,
    graceful::ORPHAN_FIN_WAIT2,
    graceful::SHUTDOWN_THEN_CLOSE,
    graceful::CLOSE_UNACKNOWLEDGED,
    reset::LINGER_ZERO_IN_FIN_WAIT2,
    reset::UNREAD_DATA_AND_FIN,
    reset::LATE_DATA_IN_FIN_WAIT2,
    reset::LATE_DATA_TO_MINISOCKET,
    reset::RESET_IN_FIN_WAIT2,
    reset::RESET_IN_LAST_ACK,
    reset::LINGER2_AT_CLOSE,
    listener::NEVER_ACCEPTED_IN_CLOSE_WAIT,
    listener::KILLED,
    connect::KILLED,
    connect::NO_EPHEMERAL_PORT,
];

/// Every way that waits for a timer of seconds.
pub const SLOW: &[Way] = &[
    graceful::FULL_FIN_WAIT2,
    connect::TIMED_OUT,
    connect::UNREACHABLE,
    silence::KEEPALIVE,
    silence::RETRANSMISSIONS,
    silence::SOFT_ERROR,
    silence::ORPHAN_IN_FIN_WAIT1,
    silence::ORPHAN_IN_LAST_ACK,
    silence::ZERO_WINDOW,
];
