//! CLOSE_WAIT: the peer has closed, and this side does not.
//!
//! Rule: in the state for `--close-wait-leak-after` or longer. No limit of the kernel ends it. How
//! far the process came with reading tells what it is doing, in this order:
//!
//! 1. `not_accepted`: nothing has taken it from its listener's queue.
//! 2. `data_unread`: data are left in the receive queue besides the FIN.
//! 3. `eof_unread`: the FIN alone is left: no read since it came, as of a pooled connection.
//! 4. `drained`: nothing is left. That does not prove that a read returned 0: the read of the last
//!    data bytes takes a FIN queued right behind them along (`tcp_recvmsg_locked()`).

use agent_ebpf::state::TcpState;

use super::stall::{Cause, Detector, Stall, gather};
use crate::census::{Lingering, NamespaceCensus};

/// The leaks among `stalled`.
pub(super) fn find<'a>(
    namespace: &NamespaceCensus,
    stalled: impl Iterator<Item = &'a Lingering>,
) -> Vec<Stall> {
    let sockets = stalled.filter(|socket| socket.state == TcpState::CloseWait);
    gather(Detector::CloseWait, namespace, sockets, cause)
}

fn cause(socket: &Lingering) -> Cause {
    match socket.unread {
        _ if socket.unaccepted => Cause::NotAccepted,
        0 => Cause::Drained,
        1 => Cause::EofUnread,
        _ => Cause::DataUnread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::fixture::lingering;

    #[test]
    fn what_is_left_to_read_tells_what_the_process_does() {
        for (unread, expected) in [
            (0, Cause::Drained),
            (1, Cause::EofUnread),
            (2, Cause::DataUnread),
            (u32::MAX, Cause::DataUnread),
        ] {
            let mut socket = lingering(TcpState::CloseWait);
            socket.unread = unread;
            assert_eq!(cause(&socket), expected, "{unread} bytes");
            socket.unaccepted = true;
            assert_eq!(cause(&socket), Cause::NotAccepted, "{unread} bytes");
        }
    }
}
