//! What the stream tells, and to whom.

use crate::record::StreamMode;

/// What is told: to the agent at all times, and to those who listen for as long as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StreamSettings {
    /// A [`StreamMode`]: what the agent itself wants to know.
    pub own: u32,
    /// Another: what the listeners want to know besides, as far as the filter lets it through.
    pub listeners: u32,
    /// The id of the cgroup whose sockets' records are marked
    /// ([`crate::record::FLAG_IN_CGROUP`]); 0 for none.
    pub marked_cgroup: u64,
    /// What of it.
    pub filter: Filter,
}

/// Which events a listener is told of. A field that is zero lets everything through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Filter {
    /// The id of the socket's cgroup.
    pub cgroup: u64,
    /// The process that opened or closed the socket.
    pub pid: u32,
    /// A bit for each state, by the kernel's number: those that the socket leaves or takes.
    pub states: u16,
    /// A port of the socket, on either end.
    pub port: u16,
}

impl StreamSettings {
    /// The agent alone, in this mode.
    #[must_use]
    pub const fn own(mode: StreamMode) -> Self {
        Self {
            own: mode as u32,
            listeners: StreamMode::Late as u32,
            marked_cgroup: 0,
            filter: Filter::ANY,
        }
    }
}

impl Filter {
    /// Everything passes.
    pub const ANY: Self = Self {
        cgroup: 0,
        pid: 0,
        states: 0,
        port: 0,
    };

    /// Whether a transition between these states passes.
    #[inline(always)]
    #[must_use]
    pub const fn passes_states(&self, from: u8, to: u8) -> bool {
        let either = (1_u32 << (from & 15)) | (1_u32 << (to & 15));
        self.states == 0 || self.states as u32 & either != 0
    }

    /// Whether a socket with these ports, opened or closed by this process, passes.
    #[inline(always)]
    #[must_use]
    pub const fn passes_socket(&self, ports: (u16, u16), pid: u32) -> bool {
        (self.port == 0 || self.port == ports.0 || self.port == ports.1)
            && (self.pid == 0 || self.pid == pid)
    }

    /// A filter that lets through what either does: a field counts where both agree.
    #[must_use]
    pub const fn either(&self, other: &Self) -> Self {
        let mut either = *self;
        if self.cgroup != other.cgroup {
            either.cgroup = 0;
        }
        if self.pid != other.pid {
            either.pid = 0;
        }
        if self.port != other.port {
            either.port = 0;
        }
        either.states = if self.states == 0 || other.states == 0 {
            0
        } else {
            self.states | other.states
        };
        either
    }
}

const _: () = assert!(size_of::<Filter>() == 16 && size_of::<StreamSettings>() == 32);

#[cfg(feature = "user")]
// SAFETY: repr(C) integers without padding, as the sizes above show.
unsafe impl aya::Pod for StreamSettings {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK};

    const OF_PORT: Filter = Filter {
        port: 80,
        ..Filter::ANY
    };
    const OF_CLOSE_WAIT: Filter = Filter {
        states: 1 << CLOSE_WAIT,
        ..Filter::ANY
    };

    #[test]
    fn an_empty_filter_lets_everything_through() {
        assert!(Filter::ANY.passes_states(ESTABLISHED, FIN_WAIT1));
        assert!(Filter::ANY.passes_socket((1, 2), 0));
    }

    #[test]
    fn a_state_passes_as_it_is_entered_and_left() {
        assert!(OF_CLOSE_WAIT.passes_states(ESTABLISHED, CLOSE_WAIT));
        assert!(OF_CLOSE_WAIT.passes_states(CLOSE_WAIT, LAST_ACK));
        assert!(!OF_CLOSE_WAIT.passes_states(LAST_ACK, CLOSE));
    }

    #[test]
    fn a_port_passes_on_either_end_and_a_process_as_it_is() {
        assert!(OF_PORT.passes_socket((80, 4_000), 7) && OF_PORT.passes_socket((4_000, 80), 0));
        assert!(!OF_PORT.passes_socket((8_080, 4_000), 7));
        let of_process = Filter { pid: 7, ..OF_PORT };
        assert!(of_process.passes_socket((80, 1), 7) && !of_process.passes_socket((80, 1), 8));
    }

    #[test]
    fn two_filters_together_let_through_what_either_does() {
        let other_port = Filter {
            port: 81,
            pid: 7,
            ..OF_CLOSE_WAIT
        };
        let one = Filter {
            pid: 7,
            states: 1 << LAST_ACK,
            ..OF_PORT
        };
        let both = one.either(&other_port);
        assert_eq!((both.port, both.pid), (0, 7));
        assert!(both.passes_states(LAST_ACK, CLOSE) && both.passes_states(CLOSE_WAIT, LAST_ACK));
        assert!(!both.passes_states(ESTABLISHED, FIN_WAIT1));
        assert_eq!(one.either(&Filter::ANY), Filter::ANY);
    }
}
