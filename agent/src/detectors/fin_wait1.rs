//! FIN_WAIT1: this side has closed, and the peer has not acknowledged everything.
//!
//! Rule: in the state for `--fin-wait1-stall-after` or longer. What it takes to leave is that the
//! peer acknowledges all data and the FIN; the causes tell what keeps it from doing so, in this
//! order:
//!
//! 1. `zero_window`: data wait to be sent and nothing is in flight, so that the next segment does
//!    not fit into the peer's window; or the window is closed over what is in flight; and the peer
//!    has acknowledged nothing of late.
//! 2. `unacked`: what is in flight is being retransmitted.
//! 3. `draining`: the peer has acknowledged something of late.
//! 4. `unknown`: none of these, as for a socket seen for the first time.
//!
//! A slow reader shows a closed window nearly always: it opens it rarely, and what then goes out is
//! acknowledged at once. So progress tells it from one that does not read.

use agent_ebpf::state::TcpState;

use super::stall::{Cause, Detector, Stall, gather};
use crate::census::{Lingering, NamespaceCensus};

/// The stalls among `stalled`.
pub(super) fn find<'a>(
    namespace: &NamespaceCensus,
    stalled: impl Iterator<Item = &'a Lingering>,
) -> Vec<Stall> {
    let sockets = stalled.filter(|socket| socket.state == TcpState::FinWait1);
    gather(Detector::FinWait1, namespace, sockets, cause)
}

/// Why what is in the send queue does not get through.
pub(super) fn cause(socket: &Lingering) -> Cause {
    let waits = socket.unsent > 0 && socket.packets_out == 0;
    let covered = socket.packets_out > 0 && socket.snd_wnd == 0;
    let progresses = socket.advanced == Some(true);
    if (waits || covered) && !progresses {
        Cause::ZeroWindow
    } else if socket.retransmits > 0 {
        Cause::Unacked
    } else if progresses {
        Cause::Draining
    } else {
        Cause::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::fixture::lingering;

    fn in_flight(bytes: u32) -> Lingering {
        Lingering {
            in_flight: bytes,
            packets_out: bytes.div_ceil(1448),
            snd_wnd: 65_535,
            ..lingering(TcpState::FinWait1)
        }
    }

    #[test]
    fn a_fin_that_nobody_acknowledges_is_unacked() {
        let socket = Lingering {
            retransmits: 3,
            ..in_flight(1)
        };
        assert_eq!(cause(&socket), Cause::Unacked);
    }

    #[test]
    fn a_cut_path_is_unacked_even_with_data_left_to_send() {
        let socket = Lingering {
            retransmits: 5,
            unsent: 62_265,
            advanced: Some(true),
            ..in_flight(11 * 1448)
        };
        assert_eq!(cause(&socket), Cause::Unacked);
    }

    #[test]
    fn data_that_wait_with_nothing_in_flight_wait_for_the_window() {
        for snd_wnd in [0, 100] {
            let socket = Lingering {
                unsent: 621_192,
                snd_wnd,
                ..lingering(TcpState::FinWait1)
            };
            assert_eq!(cause(&socket), Cause::ZeroWindow, "window of {snd_wnd}");
            let slow = Lingering {
                advanced: Some(true),
                ..socket
            };
            assert_eq!(cause(&slow), Cause::Draining, "window of {snd_wnd}");
        }
    }

    #[test]
    fn a_window_closed_over_what_is_in_flight_is_zero_window() {
        let socket = Lingering {
            snd_wnd: 0,
            retransmits: 2,
            ..in_flight(1448)
        };
        assert_eq!(cause(&socket), Cause::ZeroWindow);
    }

    #[test]
    fn acknowledgements_since_the_last_census_are_draining() {
        let socket = Lingering {
            unsent: 10_000,
            advanced: Some(true),
            ..in_flight(1448)
        };
        assert_eq!(cause(&socket), Cause::Draining);
    }

    #[test]
    fn what_was_not_seen_before_is_unknown() {
        for advanced in [None, Some(false)] {
            let socket = Lingering {
                advanced,
                ..in_flight(1448)
            };
            assert_eq!(cause(&socket), Cause::Unknown);
        }
    }
}
