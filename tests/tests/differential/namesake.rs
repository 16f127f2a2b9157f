//! What the ways shared with other tests do not have.

use agent_ebpf::{
    close::CloseCause::TimeWait,
    state::TcpState::{Close, Closing, Established, FinWait1, SynRecv, SynSent},
};
use anyhow::Result;
use tests::{
    netns::Netns,
    place::{Family, Place, own_descriptors},
    trace::Trace,
    ways::{Way, reset::LINGER_ZERO},
};

use super::plan::FIRST_PORT;

/// One socket that is connected to itself, however many are asked for: its port is the group's,
/// and then in TIME_WAIT (`tcp_rcv_synsent_state_process`; `tcp_fin` in FIN_WAIT1).
pub(super) const SELF_CONNECTED: Way = Way {
    name: "self_connected",
    go: |place, _| {
        let socket = place.socket()?;
        socket.bind(&place.address().into())?;
        socket.connect(&place.address().into())?;
        Ok(())
    },
    leaves: |_| {
        let states = [
            Close,
            SynSent,
            SynRecv,
            Established,
            FinWait1,
            Closing,
            Close,
        ];
        Trace::socket(&states, TimeWait)
    },
};

/// Connections in another namespace, to a port that the plan has, too.
const STRANGERS: usize = 20;

/// Makes them.
pub(super) fn strangers(netns: &Netns) -> Result<()> {
    netns.run(|| {
        own_descriptors()?;
        let place = Place {
            family: Family::V4,
            port: FIRST_PORT,
        };
        (LINGER_ZERO.go)(&place, STRANGERS)
    })
}
