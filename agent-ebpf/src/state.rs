//! TCP states, numbered as the kernel numbers them (`include/net/tcp_states.h`).

/// One more than the greatest state number; `TCP_NEW_SYN_RECV` (12) is the greatest.
pub const STATE_COUNT: usize = 13;

/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u8 = 1;
/// `TCP_SYN_SENT`.
pub const SYN_SENT: u8 = 2;
/// `TCP_SYN_RECV`.
pub const SYN_RECV: u8 = 3;
/// `TCP_FIN_WAIT1`.
pub const FIN_WAIT1: u8 = 4;
/// `TCP_FIN_WAIT2`.
pub const FIN_WAIT2: u8 = 5;
/// `TCP_TIME_WAIT`. No full socket is ever in it: `tcp_time_wait()` makes a minisocket.
pub const TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`.
pub const CLOSE: u8 = 7;
/// `TCP_CLOSE_WAIT`.
pub const CLOSE_WAIT: u8 = 8;
/// `TCP_LAST_ACK`.
pub const LAST_ACK: u8 = 9;
/// `TCP_LISTEN`.
pub const LISTEN: u8 = 10;
/// `TCP_CLOSING`.
pub const CLOSING: u8 = 11;
/// `TCP_NEW_SYN_RECV`: a request minisocket, which waits for the handshake's last ACK.
pub const NEW_SYN_RECV: u8 = 12;

/// A TCP state as `ss` and node_exporter name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "snake_case")
)]
#[repr(u8)]
pub enum TcpState {
    /// The handshake is done; data may flow.
    Established = ESTABLISHED,
    /// A SYN was sent, no SYN-ACK has come.
    SynSent = SYN_SENT,
    /// A SYN was answered; the handshake's last ACK has not been processed.
    SynRecv = SYN_RECV,
    /// This side sent its FIN; it is not acknowledged.
    FinWait1 = FIN_WAIT1,
    /// This side's FIN is acknowledged; the peer has not sent its own.
    FinWait2 = FIN_WAIT2,
    /// Both FINs are acknowledged; old segments are waited out.
    TimeWait = TIME_WAIT,
    /// No connection.
    Close = CLOSE,
    /// The peer sent its FIN; this side's process has not closed.
    CloseWait = CLOSE_WAIT,
    /// As in CLOSE_WAIT, and this side's FIN was sent and is not acknowledged.
    LastAck = LAST_ACK,
    /// Accepting connections.
    Listen = LISTEN,
    /// Both sides sent a FIN at once; this side's is not acknowledged.
    Closing = CLOSING,
}

impl TcpState {
    /// Every state, in the kernel's order.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The state the kernel numbers `raw`, or nothing where it has no such state.
    /// `TCP_NEW_SYN_RECV` (12), a request minisocket, is shown as `syn_recv`, as `ss` does.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            ESTABLISHED => Self::Established,
            SYN_SENT => Self::SynSent,
            SYN_RECV | 12 => Self::SynRecv,
            FIN_WAIT1 => Self::FinWait1,
            FIN_WAIT2 => Self::FinWait2,
            TIME_WAIT => Self::TimeWait,
            CLOSE => Self::Close,
            CLOSE_WAIT => Self::CloseWait,
            LAST_ACK => Self::LastAck,
            LISTEN => Self::Listen,
            CLOSING => Self::Closing,
            _ => return None,
        })
    }

    /// The value of the `state`, `from` and `to` labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }
}

/// Whether `state` is one a connection can be stuck in while it closes. Transitions into or out
/// of these are what the stream's `lingering` mode tells.
#[must_use]
pub const fn is_lingering(state: u8) -> bool {
    matches!(
        state,
        FIN_WAIT1 | FIN_WAIT2 | CLOSING | CLOSE_WAIT | LAST_ACK
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_found_by_its_kernel_number() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_raw(state as u8), Some(state));
        }
        assert_eq!(TcpState::from_raw(12), Some(TcpState::SynRecv));
        assert_eq!(TcpState::from_raw(0), None);
        assert_eq!(TcpState::from_raw(13), None);
    }

    #[test]
    fn five_states_linger() {
        let lingering: Vec<_> = TcpState::ALL
            .into_iter()
            .filter(|state| is_lingering(*state as u8))
            .map(TcpState::name)
            .collect();
        assert_eq!(
            lingering,
            [
                "fin_wait1",
                "fin_wait2",
                "close_wait",
                "last_ack",
                "closing"
            ]
        );
    }
}
