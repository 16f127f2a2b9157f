//! LAST_ACK and CLOSING: both sides have closed, and the peer has not acknowledged everything.
//!
//! Rule: in the state for `--fin-wait1-stall-after` or longer. What they wait for is what
//! FIN_WAIT1 waits for, so the causes are [`fin_wait1`]'s, in its order.

use agent_ebpf::state::TcpState;

use super::{
    fin_wait1::cause,
    stall::{Detector, Stall, gather},
};
use crate::census::{Lingering, NamespaceCensus};

/// The stalls among `stalled`.
pub(super) fn find<'a>(
    namespace: &NamespaceCensus,
    stalled: impl Iterator<Item = &'a Lingering>,
) -> Vec<Stall> {
    let waits = |socket: &&Lingering| matches!(socket.state, TcpState::LastAck | TcpState::Closing);
    gather(Detector::LastAck, namespace, stalled.filter(waits), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::{fixture::lingering, stall::Cause};

    #[test]
    fn both_states_and_no_other_are_told() {
        let mut sockets: Vec<_> = TcpState::ALL.into_iter().map(lingering).collect();
        for socket in &mut sockets {
            socket.retransmits = 1;
            socket.packets_out = 1;
            socket.snd_wnd = 1;
        }
        let stalls = find(&NamespaceCensus::default(), sockets.iter());
        assert_eq!(stalls.len(), 1);
        assert_eq!((stalls[0].cause, stalls[0].count), (Cause::Unacked, 2));
        let mut states: Vec<_> = stalls[0]
            .sockets
            .iter()
            .map(|socket| socket.state)
            .collect();
        states.sort_by_key(|state| *state as u8);
        assert_eq!(states, [TcpState::LastAck, TcpState::Closing]);
    }
}
