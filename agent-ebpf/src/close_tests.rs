use super::*;

/// A connected socket that its process holds, with nothing in flight.
const HELD: CloseEvidence = CloseEvidence {
    old_state: state::ESTABLISHED,
    err: 0,
    flags: 0,
    shutdown: 0,
    lingertime: 0,
    has_socket: true,
    is_mptcp: false,
    has_local_port: true,
    all_acknowledged: true,
    unread: 0,
    linger2: 0,
    probes_out: 0,
    retransmits: 0,
    reset_in_fin_wait2: false,
};

/// A socket its process has closed, its FIN not acknowledged.
const ORPHAN: CloseEvidence = CloseEvidence {
    old_state: state::FIN_WAIT1,
    flags: SOCK_DEAD,
    shutdown: SHUTDOWN_BOTH,
    has_socket: false,
    all_acknowledged: false,
    ..HELD
};

const ORPHAN_IN_FIN_WAIT2: CloseEvidence = CloseEvidence {
    old_state: state::FIN_WAIT2,
    all_acknowledged: true,
    ..ORPHAN
};

fn assert_cause(cause: CloseCause, evidence: CloseEvidence) {
    assert_eq!(close_cause(&evidence), cause, "{evidence:?}");
}

#[test]
fn causes_keep_their_numbers() {
    for (number, cause) in (0_u8..).zip(CloseCause::ALL) {
        assert_eq!(cause as u8, number);
        assert_eq!(CloseCause::from_raw(number), Some(cause));
    }
    let next = u8::try_from(CAUSE_COUNT).unwrap();
    assert_eq!(CloseCause::from_raw(next), None);
}

#[test]
fn a_fin_from_both_sides_is_time_wait() {
    assert_cause(
        CloseCause::TimeWait,
        CloseEvidence {
            flags: SOCK_DEAD | SOCK_DONE,
            ..ORPHAN_IN_FIN_WAIT2
        },
    );
    // Half-closed by shutdown(), still held when the peer's FIN arrives.
    assert_cause(
        CloseCause::TimeWait,
        CloseEvidence {
            old_state: state::FIN_WAIT2,
            flags: SOCK_DONE,
            shutdown: SHUTDOWN_BOTH,
            ..HELD
        },
    );
    assert_cause(
        CloseCause::TimeWait,
        CloseEvidence {
            old_state: state::CLOSING,
            flags: SOCK_DEAD | SOCK_DONE,
            all_acknowledged: true,
            ..ORPHAN
        },
    );
}

#[test]
fn an_orphan_whose_peer_has_not_closed_is_not_time_wait() {
    assert_cause(CloseCause::FinWait2TimeWait, ORPHAN_IN_FIN_WAIT2);
    assert_cause(
        CloseCause::Linger2,
        CloseEvidence {
            linger2: -1,
            ..ORPHAN_IN_FIN_WAIT2
        },
    );
    assert_cause(
        CloseCause::TimedOut,
        CloseEvidence {
            reset_in_fin_wait2: true,
            ..ORPHAN_IN_FIN_WAIT2
        },
    );
}

#[test]
fn last_ack_ends_by_acknowledgement_reset_timeout_or_kill() {
    let last_ack = CloseEvidence {
        old_state: state::LAST_ACK,
        flags: SOCK_DEAD | SOCK_DONE,
        ..ORPHAN
    };
    assert_cause(
        CloseCause::Passive,
        CloseEvidence {
            all_acknowledged: true,
            ..last_ack
        },
    );
    assert_cause(CloseCause::OrphanLimit, last_ack);
    for (err, cause) in [
        (ECONNRESET, CloseCause::ResetReceived),
        (ETIMEDOUT, CloseCause::TimedOut),
        (113, CloseCause::TimedOut),
        (ECONNABORTED, CloseCause::Killed),
    ] {
        assert_cause(
            cause,
            CloseEvidence {
                err,
                retransmits: 3,
                ..last_ack
            },
        );
    }
}

#[test]
fn a_stale_error_does_not_hide_a_normal_end() {
    // IP_RECVERR leaves EHOSTUNREACH in sk_err without ending anything.
    assert_cause(
        CloseCause::Passive,
        CloseEvidence {
            old_state: state::LAST_ACK,
            err: 113,
            all_acknowledged: true,
            ..ORPHAN
        },
    );
    assert_cause(
        CloseCause::FinWait2TimeWait,
        CloseEvidence {
            err: 113,
            ..ORPHAN_IN_FIN_WAIT2
        },
    );
    assert_cause(
        CloseCause::LingerZero,
        CloseEvidence {
            err: 113,
            flags: SOCK_LINGER,
            shutdown: SHUTDOWN_BOTH,
            ..HELD
        },
    );
}

#[test]
fn a_reset_has_three_errors() {
    assert_cause(
        CloseCause::ResetReceived,
        CloseEvidence {
            err: ECONNRESET,
            ..HELD
        },
    );
    assert_cause(
        CloseCause::ResetReceived,
        CloseEvidence {
            old_state: state::CLOSE_WAIT,
            err: EPIPE,
            flags: SOCK_DONE,
            ..HELD
        },
    );
    // ECONNREFUSED.
    assert_cause(
        CloseCause::ConnectFailed,
        CloseEvidence {
            old_state: state::SYN_SENT,
            err: 111,
            ..HELD
        },
    );
}

#[test]
fn connects_fail_in_four_ways() {
    let syn_sent = CloseEvidence {
        old_state: state::SYN_SENT,
        ..HELD
    };
    assert_cause(CloseCause::ConnectFailed, syn_sent);
    assert_cause(
        CloseCause::NoEphemeralPort,
        CloseEvidence {
            has_local_port: false,
            ..syn_sent
        },
    );
    assert_cause(
        CloseCause::TimedOut,
        CloseEvidence {
            err: ETIMEDOUT,
            ..syn_sent
        },
    );
    assert_cause(
        CloseCause::Killed,
        CloseEvidence {
            err: ECONNABORTED,
            ..syn_sent
        },
    );
}

#[test]
fn close_with_unread_data_comes_before_linger() {
    let closing = CloseEvidence {
        shutdown: SHUTDOWN_BOTH,
        flags: SOCK_LINGER,
        ..HELD
    };
    assert_cause(CloseCause::LingerZero, closing);
    assert_cause(
        CloseCause::UnreadData,
        CloseEvidence {
            unread: 1,
            ..closing
        },
    );
    // A FIN nobody read is not data.
    let after_fin = CloseEvidence {
        old_state: state::CLOSE_WAIT,
        flags: SOCK_LINGER | SOCK_DONE,
        ..closing
    };
    assert_cause(
        CloseCause::LingerZero,
        CloseEvidence {
            unread: 1,
            ..after_fin
        },
    );
    assert_cause(
        CloseCause::UnreadData,
        CloseEvidence {
            unread: 2,
            ..after_fin
        },
    );
    assert_cause(
        CloseCause::Other,
        CloseEvidence {
            lingertime: 250,
            ..closing
        },
    );
}

#[test]
fn probes_that_go_unanswered_are_keepalive_only_with_nothing_queued() {
    let probed = CloseEvidence {
        err: ETIMEDOUT,
        probes_out: 3,
        ..HELD
    };
    assert_cause(CloseCause::Keepalive, probed);
    assert_cause(CloseCause::Keepalive, CloseEvidence { err: 113, ..probed });
    assert_cause(
        CloseCause::TimedOut,
        CloseEvidence {
            all_acknowledged: false,
            ..probed
        },
    );
    assert_cause(
        CloseCause::LingerZero,
        CloseEvidence {
            err: 0,
            flags: SOCK_LINGER,
            shutdown: SHUTDOWN_BOTH,
            ..probed
        },
    );
}

#[test]
fn a_connection_nobody_accepted_has_no_socket_and_is_no_orphan() {
    let child = CloseEvidence {
        has_socket: false,
        ..HELD
    };
    assert_cause(CloseCause::NeverAccepted, child);
    assert_cause(
        CloseCause::Other,
        CloseEvidence {
            is_mptcp: true,
            ..child
        },
    );
    assert_cause(
        CloseCause::TimedOut,
        CloseEvidence {
            err: 113,
            retransmits: 5,
            all_acknowledged: false,
            ..child
        },
    );
}

#[test]
fn the_rest_is_told_apart_from_the_known() {
    assert_cause(CloseCause::Other, HELD);
    assert_cause(
        CloseCause::Listener,
        CloseEvidence {
            old_state: state::LISTEN,
            ..HELD
        },
    );
    assert_cause(
        CloseCause::Killed,
        CloseEvidence {
            err: ECONNABORTED,
            ..HELD
        },
    );
    assert_cause(CloseCause::OrphanLimit, ORPHAN);
}

/// An orphan in CLOSE on whose behalf a RST answers a packet.
const ANSWERED: ResetEvidence = ResetEvidence {
    err: ECONNRESET,
    flags: SOCK_DEAD,
    linger2: 0,
    all_acknowledged: true,
    answers_packet: true,
};

#[test]
fn a_reset_that_answers_for_a_closed_orphan_was_drawn_by_late_data() {
    assert_eq!(revision(&ANSWERED), Some(Revision::ResetReceivedToLateData));
    assert_eq!(
        revision(&ResetEvidence { err: 0, ..ANSWERED }),
        Some(Revision::FinWait2ToLateData)
    );
}

#[test]
fn a_reset_of_the_kernels_own_will_tells_an_orphan_killed_at_close() {
    let own = ResetEvidence {
        err: 0,
        answers_packet: false,
        ..ANSWERED
    };
    assert_eq!(revision(&own), Some(Revision::FinWait2ToOrphanLimit));
    // In FIN_WAIT1 the cause was told right at the event.
    assert_eq!(
        revision(&ResetEvidence {
            all_acknowledged: false,
            ..own
        }),
        None
    );
}

#[test]
fn other_resets_revise_nothing() {
    for evidence in [
        // Unread data, SO_LINGER 0: the process still holds the socket.
        ResetEvidence {
            err: 0,
            flags: 0,
            answers_packet: false,
            ..ANSWERED
        },
        ResetEvidence {
            err: 0,
            linger2: -1,
            ..ANSWERED
        },
        ResetEvidence {
            answers_packet: false,
            ..ANSWERED
        },
        ResetEvidence {
            err: ECONNABORTED,
            answers_packet: false,
            ..ANSWERED
        },
    ] {
        assert_eq!(revision(&evidence), None, "{evidence:?}");
    }
}

#[test]
fn a_revision_moves_between_two_causes() {
    for revision in Revision::ALL {
        let (told, real) = revision.causes();
        assert_ne!(told, real);
    }
}
