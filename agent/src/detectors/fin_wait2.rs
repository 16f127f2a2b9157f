//! FIN_WAIT2 as a full socket: the peer has acknowledged our FIN, and does not send its own.
//!
//! Rule: in the state for `--fin-wait2-stall-after` or longer. An orphan becomes a timewait
//! minisocket at once, unless `tcp_fin_timeout` (or TCP_LINGER2) is above 60 s: then it stays a
//! full socket for what is above (`tcp_rcv_state_process()`, `__tcp_close()`). Causes:
//!
//! 1. `half_closed`: a process still holds it, so that no limit ends it.
//! 2. `orphan_waiting`: none does.

use agent_ebpf::state::TcpState;

use super::stall::{Cause, Detector, Stall, gather};
use crate::census::{Lingering, NamespaceCensus};

/// The stalls among `stalled`.
pub(super) fn find<'a>(
    namespace: &NamespaceCensus,
    stalled: impl Iterator<Item = &'a Lingering>,
) -> Vec<Stall> {
    let sockets = stalled.filter(|socket| socket.state == TcpState::FinWait2);
    gather(Detector::FinWait2, namespace, sockets, cause)
}

fn cause(socket: &Lingering) -> Cause {
    if socket.orphan {
        Cause::OrphanWaiting
    } else {
        Cause::HalfClosed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::fixture::lingering;

    #[test]
    fn who_holds_it_tells_whether_a_limit_ends_it() {
        let mut socket = lingering(TcpState::FinWait2);
        assert_eq!(cause(&socket), Cause::HalfClosed);
        socket.orphan = true;
        assert_eq!(cause(&socket), Cause::OrphanWaiting);
    }
}
