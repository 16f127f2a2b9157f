//! What the detectors' tests begin with.

use std::time::Duration;

use agent_ebpf::state::TcpState;

use crate::census::{Age, Lingering};

/// A socket in `state` for a minute, of which nothing else is known.
pub(super) fn lingering(state: TcpState) -> Lingering {
    Lingering {
        cookie: 1,
        state,
        age: Age {
            at_least: Duration::from_mins(1),
            exact: true,
        },
        ..Lingering::default()
    }
}
