//! Every way in which a socket closes, and the cause that is told of it.
//!
//! Each test makes connections of IPv4, IPv6 and v4-mapped addresses go one way and expects every
//! transition and every cause of both ends to be counted, to the unit.

use anyhow::Result;
use tests::{
    exact::{exactly, exactly_of},
    place::Family,
    ways::{connect, graceful, listener, reset, silence},
};

macro_rules! ways {
    ($($test:ident: $way:expr, $n:literal;)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                exactly(&$way, $n)
            }
        )*
    };
}

ways! {
    full_close: graceful::FULL_CLOSE, 100;
    held_fin_wait2: graceful::HELD_FIN_WAIT2, 100;
    orphan_fin_wait2: graceful::ORPHAN_FIN_WAIT2, 100;
    full_fin_wait2: graceful::FULL_FIN_WAIT2, 50;
    shutdown_then_close: graceful::SHUTDOWN_THEN_CLOSE, 100;
    close_unacknowledged: graceful::CLOSE_UNACKNOWLEDGED, 50;
    self_connection: graceful::SELF_CONNECTION, 50;

    linger_zero: reset::LINGER_ZERO, 100;
    linger_zero_in_fin_wait2: reset::LINGER_ZERO_IN_FIN_WAIT2, 100;
    unread_data: reset::UNREAD_DATA, 100;
    unread_data_and_fin: reset::UNREAD_DATA_AND_FIN, 100;
    late_data_in_fin_wait1: reset::LATE_DATA_IN_FIN_WAIT1, 100;
    late_data_in_fin_wait2: reset::LATE_DATA_IN_FIN_WAIT2, 100;
    late_data_with_ack: reset::LATE_DATA_WITH_ACK, 100;
    late_data_to_minisocket: reset::LATE_DATA_TO_MINISOCKET, 100;
    reset_in_fin_wait1: reset::RESET_IN_FIN_WAIT1, 100;
    reset_in_fin_wait2: reset::RESET_IN_FIN_WAIT2, 100;
    reset_in_last_ack: reset::RESET_IN_LAST_ACK, 100;
    linger2_at_ack: reset::LINGER2_AT_ACK, 100;
    linger2_at_close: reset::LINGER2_AT_CLOSE, 100;
    disconnected: reset::DISCONNECTED, 100;

    refused: connect::REFUSED, 100;
    given_up: connect::GIVEN_UP, 100;
    connect_timed_out: connect::TIMED_OUT, 20;
    unreachable: connect::UNREACHABLE, 20;
    killed_connecting: connect::KILLED, 100;
    no_ephemeral_port: connect::NO_EPHEMERAL_PORT, 50;

    never_accepted: listener::NEVER_ACCEPTED, 100;
    never_accepted_in_close_wait: listener::NEVER_ACCEPTED_IN_CLOSE_WAIT, 100;
    killed: listener::KILLED, 100;
    killed_listener: listener::KILLED_LISTENER, 20;

    keepalive: silence::KEEPALIVE, 20;
    retransmissions: silence::RETRANSMISSIONS, 20;
    soft_error: silence::SOFT_ERROR, 20;
    orphan_in_fin_wait1: silence::ORPHAN_IN_FIN_WAIT1, 20;
    orphan_in_last_ack: silence::ORPHAN_IN_LAST_ACK, 20;
    zero_window: silence::ZERO_WINDOW, 20;
}

#[test]
fn full_fin_wait2_cut_short() -> Result<()> {
    // tcp_fin_timeout is the namespace's: each family has one of its own.
    let mut families = Family::ALL.iter();
    families.try_for_each(|family| exactly_of(&graceful::FULL_FIN_WAIT2_CUT_SHORT, 20, &[*family]))
}
