//! What the ways shared with other tests do not have.

use anyhow::Result;
use tests::{
    netns::Netns,
    place::{Family, Place, own_descriptors},
    ways::{Way, graceful::SELF_CONNECTION, reset::LINGER_ZERO},
};

use super::plan::FIRST_PORT;

/// One socket that is connected to itself, however many are asked for: its port is the group's,
/// and then in TIME_WAIT. What it leaves is what any such socket does.
pub(super) const SELF_CONNECTED: Way = Way {
    name: "self_connected",
    go: |place, _| {
        let socket = place.socket()?;
        socket.bind(&place.address().into())?;
        socket.connect(&place.address().into())?;
        Ok(())
    },
    leaves: |_| (SELF_CONNECTION.leaves)(1),
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
