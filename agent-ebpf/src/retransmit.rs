//! What a retransmitted segment carried, and what made the kernel send it again.

/// `TCPHDR_FIN` and its neighbours in `tcp_skb_cb.tcp_flags`.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// `TCPCB_LOST` in `tcp_skb_cb.sacked`.
const LOST: u8 = 0x04;

/// `TCP_CA_Recovery` and `TCP_CA_Loss` in `inet_connection_sock.icsk_ca_state`.
const CA_RECOVERY: u8 = 3;
const CA_LOSS: u8 = 4;

/// `ICSK_TIME_LOSS_PROBE` in `inet_connection_sock.icsk_pending`.
const TIME_LOSS_PROBE: u8 = 5;

/// What the segment was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum Packet {
    /// A SYN: the connection is being opened.
    Syn = 0,
    /// A SYN-ACK.
    #[cfg_attr(feature = "user", serde(rename = "synack"))]
    SynAck = 1,
    /// A FIN, with or without data before it.
    Fin = 2,
    /// Data alone.
    Data = 3,
}

impl Packet {
    /// Every kind, by its number.
    pub const ALL: [Self; 4] = [Self::Syn, Self::SynAck, Self::Fin, Self::Data];

    /// The value of the `packet` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "synack",
            Self::Fin => "fin",
            Self::Data => "data",
        }
    }

    /// The kind numbered `raw`.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::Syn,
            1 => Self::SynAck,
            2 => Self::Fin,
            3 => Self::Data,
            _ => return None,
        })
    }

    /// The kind of a segment with these `tcp_skb_cb.tcp_flags` (the low byte, as on the wire).
    #[inline(always)]
    #[must_use]
    pub const fn of_flags(tcp_flags: u8) -> Self {
        if tcp_flags & SYN != 0 {
            if tcp_flags & ACK != 0 {
                Self::SynAck
            } else {
                Self::Syn
            }
        } else if tcp_flags & FIN != 0 {
            Self::Fin
        } else {
            Self::Data
        }
    }
}

/// Why it was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum Trigger {
    /// The retransmission timer ran out (`tcp_retransmit_timer`, `reqsk_timer_handler`).
    Rto = 0,
    /// The peer's ACKs showed a hole (fast retransmit, RACK).
    Fast = 1,
    /// A tail-loss probe (`tcp_send_loss_probe`): the last segment again, to draw an ACK.
    Tlp = 2,
    /// Repair by ACKs after a timeout, a SYN-ACK drawn by a repeated SYN, a changed path MTU.
    Other = 3,
}

impl Trigger {
    /// Every trigger, by its number.
    pub const ALL: [Self; 4] = [Self::Rto, Self::Fast, Self::Tlp, Self::Other];

    /// The value of the `trigger` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rto => "rto",
            Self::Fast => "fast",
            Self::Tlp => "tlp",
            Self::Other => "other",
        }
    }

    /// The trigger numbered `raw`.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::Rto,
            1 => Self::Fast,
            2 => Self::Tlp,
            3 => Self::Other,
            _ => return None,
        })
    }
}

/// What `tcp_retransmit_skb` shows of the socket and the segment.
#[derive(Clone, Copy, Debug)]
pub struct RetransmitEvidence {
    /// `tcp_skb_cb.sacked`.
    pub sacked: u8,
    /// `icsk_ca_state`: 3 is Recovery, 4 is Loss.
    pub ca_state: u8,
    /// `icsk_pending`: the armed timer; `tcp_write_timer_handler` zeroes it before it retransmits.
    pub pending: u8,
    /// `icsk_retransmits`: timeouts in a row.
    pub retransmits: u8,
    /// `snd_wnd`: the peer's window, in bytes.
    pub snd_wnd: u32,
}

/// What made the kernel retransmit.
///
/// `icsk_pending` alone cannot tell a tail-loss probe: most fast retransmits happen while one is
/// armed. The segment's LOST mark can, since a probe repeats a segment nobody thinks lost.
#[inline(always)]
#[must_use]
pub const fn trigger(evidence: &RetransmitEvidence) -> Trigger {
    let lost = evidence.sacked & LOST != 0;
    if evidence.pending == 0
        && (evidence.ca_state == CA_LOSS && evidence.retransmits > 0
            || evidence.retransmits == 0 && evidence.snd_wnd == 0)
    {
        Trigger::Rto
    } else if !lost
        && evidence.pending == TIME_LOSS_PROBE
        && evidence.ca_state < CA_RECOVERY
        && evidence.retransmits == 0
    {
        Trigger::Tlp
    } else if lost && evidence.ca_state == CA_RECOVERY {
        Trigger::Fast
    } else {
        Trigger::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTO: RetransmitEvidence = RetransmitEvidence {
        sacked: LOST,
        ca_state: CA_LOSS,
        pending: 0,
        retransmits: 1,
        snd_wnd: 65_535,
    };

    #[test]
    fn a_timeout_is_told_by_its_spent_timer() {
        assert_eq!(trigger(&RTO), Trigger::Rto);
        let repair = RetransmitEvidence { pending: 1, ..RTO };
        assert_eq!(trigger(&repair), Trigger::Other);
    }

    #[test]
    fn a_timeout_into_a_closed_window_counts_no_retransmits() {
        let closed = RetransmitEvidence {
            ca_state: 0,
            retransmits: 0,
            snd_wnd: 0,
            ..RTO
        };
        assert_eq!(trigger(&closed), Trigger::Rto);
    }

    #[test]
    fn fast_retransmit_with_a_probe_armed_is_not_a_probe() {
        for pending in [1, TIME_LOSS_PROBE, 6] {
            let fast = RetransmitEvidence {
                ca_state: CA_RECOVERY,
                pending,
                retransmits: 0,
                ..RTO
            };
            assert_eq!(trigger(&fast), Trigger::Fast);
        }
    }

    #[test]
    fn a_probe_repeats_a_segment_not_marked_lost() {
        let probe = RetransmitEvidence {
            sacked: 0,
            ca_state: 0,
            pending: TIME_LOSS_PROBE,
            retransmits: 0,
            snd_wnd: 65_535,
        };
        assert_eq!(trigger(&probe), Trigger::Tlp);
        assert_eq!(
            trigger(&RetransmitEvidence {
                ca_state: CA_RECOVERY,
                ..probe
            }),
            Trigger::Other
        );
    }

    #[test]
    fn packets_are_named_by_their_flags() {
        assert_eq!(Packet::of_flags(SYN), Packet::Syn);
        assert_eq!(Packet::of_flags(SYN | ACK), Packet::SynAck);
        assert_eq!(Packet::of_flags(FIN | ACK | 0x08), Packet::Fin);
        assert_eq!(Packet::of_flags(ACK), Packet::Data);
        for packet in Packet::ALL {
            assert_eq!(Packet::from_raw(packet as u8), Some(packet));
        }
        for trigger in Trigger::ALL {
            assert_eq!(Trigger::from_raw(trigger as u8), Some(trigger));
        }
    }
}
