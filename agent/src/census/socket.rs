//! A socket as the census hands it over, decoded: pure, and total.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_ebpf::{
    census::{SOCKET_IPV6, SOCKET_ORPHAN, SOCKET_SOFT_ERROR, SOCKET_UNACCEPTED, SocketRecord},
    state::TcpState,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Owner;
use crate::serial::seconds;

/// A full socket in a lingering state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lingering {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Its state.
    pub state: TcpState,
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port.
    pub remote: SocketAddr,
    /// Whether no process holds it any more.
    pub orphan: bool,
    /// Whether no process has accepted it yet.
    pub unaccepted: bool,
    /// How long it has been in its state.
    pub age: Age,
    /// Whether the peer has acknowledged anything in the last ten seconds; nothing where no census
    /// has seen the socket in this state before.
    pub advanced: Option<bool>,
    /// The id of its cgroup; 0 where the kernel does not tell.
    pub cgroup: u64,
    /// The process that closed or opened it, in the agent's sight.
    pub pid: Option<u32>,
    /// Whose it is, as far as that was asked.
    pub owner: Option<Arc<Owner>>,
    /// Bytes received in order and not read, a FIN counted as one.
    pub unread: u32,
    /// Bytes queued and never sent, a FIN counted as one.
    pub unsent: u32,
    /// Bytes sent and not acknowledged, likewise.
    pub in_flight: u32,
    /// Segments in flight.
    pub packets_out: u32,
    /// The first byte that is not acknowledged.
    pub snd_una: u32,
    /// The peer's window, in bytes.
    pub snd_wnd: u32,
    /// Whether a router has reported an error, which keeps retransmissions from being backed off.
    pub soft_error: bool,
    /// Unanswered retransmissions (`icsk_retransmits`).
    pub retransmits: u8,
    /// By how many bits the probes' timeout was shifted (`icsk_backoff`).
    pub backoff: u8,
    /// Unanswered probes (`icsk_probes_out`).
    pub probes_out: u8,
    /// Its timers; nothing where the length of a jiffy is not known.
    pub timers: Option<Timers>,
}

/// How long a socket has been in its state.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Age {
    /// This long, or longer.
    #[serde(rename = "seconds", with = "seconds")]
    #[schemars(with = "f64")]
    pub at_least: Duration,
    /// Whether this long: the agent saw the state begin.
    pub exact: bool,
}

/// What a socket waits for, and how long it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// The retransmission timeout as backed off.
    pub rto: Duration,
    /// Until the retransmission or probe timer fires.
    pub retransmit_in: Duration,
    /// Until the timer of keepalives, and of an orphan's FIN_WAIT2, fires.
    pub keepalive_in: Duration,
    /// Since the first retransmission of what is in flight.
    pub retransmitting: Option<Duration>,
    /// Since the first probe of a closed window.
    pub probing: Option<Duration>,
    /// TCP_USER_TIMEOUT.
    pub user_timeout: Option<Duration>,
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The address and port.
    pub local: SocketAddr,
    /// The id of its cgroup; 0 where the kernel does not tell.
    pub cgroup: u64,
    /// Connections that wait to be accepted.
    pub accept_queue: u32,
    /// How many may.
    pub accept_queue_limit: u32,
}

impl Default for Lingering {
    /// A socket just established, of which nothing is known.
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            cookie: 0,
            state: TcpState::Established,
            local: nowhere,
            remote: nowhere,
            orphan: false,
            unaccepted: false,
            age: Age::default(),
            advanced: None,
            cgroup: 0,
            pid: None,
            owner: None,
            unread: 0,
            unsent: 0,
            in_flight: 0,
            packets_out: 0,
            snd_una: 0,
            snd_wnd: 0,
            soft_error: false,
            retransmits: 0,
            backoff: 0,
            probes_out: 0,
            timers: None,
        }
    }
}

impl Lingering {
    /// Of a record, given the length of a jiffy where that is known; nothing of one that is not
    /// of a lingering socket. What a census alone cannot tell is left open.
    pub(super) fn decode(record: &SocketRecord, jiffy: Option<Duration>) -> Option<Self> {
        let state = TcpState::from_raw(record.state)?;
        if state == TcpState::Listen {
            return None;
        }
        let (local, remote) = addresses(record);
        let has = |flag| record.flags & flag != 0;
        let age = if record.age_ns > 0 {
            Age {
                at_least: Duration::from_nanos(record.age_ns),
                exact: true,
            }
        } else {
            let acknowledged = jiffy.map(|jiffy| jiffy * record.since_acknowledged);
            Age {
                at_least: acknowledged
                    .filter(|_| began_acknowledging(state))
                    .unwrap_or_default(),
                exact: false,
            }
        };
        Some(Self {
            cookie: record.socket.cookie,
            state,
            local,
            remote,
            orphan: has(SOCKET_ORPHAN),
            unaccepted: has(SOCKET_UNACCEPTED),
            age,
            advanced: None,
            cgroup: record.cgroup,
            pid: (record.pid != 0).then_some(record.pid),
            owner: None,
            unread: record.unread,
            unsent: record.unsent,
            in_flight: record.in_flight,
            packets_out: record.packets_out,
            snd_una: record.snd_una,
            snd_wnd: record.snd_wnd,
            soft_error: has(SOCKET_SOFT_ERROR),
            retransmits: record.retransmits,
            backoff: record.backoff,
            probes_out: record.probes_out,
            timers: jiffy.map(|jiffy| timers(record, jiffy)),
        })
    }
}

/// Whether these states begin with a segment that acknowledges: then the time since the last one
/// is a lower bound on their age. FIN_WAIT1 and LAST_ACK begin with a system call.
fn began_acknowledging(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::CloseWait | TcpState::FinWait2 | TcpState::Closing
    )
}

fn timers(record: &SocketRecord, jiffy: Duration) -> Timers {
    let until = |jiffies: i32| jiffy * u32::try_from(jiffies).unwrap_or(0);
    let millis = |millis: u32| (millis > 0).then(|| Duration::from_millis(millis.into()));
    Timers {
        rto: jiffy * record.rto,
        retransmit_in: until(record.retransmit_in),
        keepalive_in: until(record.keepalive_in),
        retransmitting: millis(record.retransmitting_ms),
        probing: (record.probing > 0).then(|| jiffy * record.probing),
        user_timeout: millis(record.user_timeout_ms),
    }
}

impl Listener {
    /// Of a record; nothing of one that is not of a listener.
    pub(super) fn decode(record: &SocketRecord) -> Option<Self> {
        if TcpState::from_raw(record.state)? != TcpState::Listen {
            return None;
        }
        Some(Self {
            cookie: record.socket.cookie,
            local: addresses(record).0,
            cgroup: record.cgroup,
            accept_queue: record.accept_queue,
            accept_queue_limit: record.accept_queue_limit,
        })
    }

    /// Whether a connection to `local` came to this listener: its address and port, or the
    /// unspecified address of either family.
    pub(super) fn accepts(&self, local: SocketAddr) -> bool {
        self.local.port() == local.port()
            && (self.local.ip().is_unspecified()
                || self.local.ip().to_canonical() == local.ip().to_canonical())
    }
}

fn addresses(record: &SocketRecord) -> (SocketAddr, SocketAddr) {
    let ipv6 = record.flags & SOCKET_IPV6 != 0;
    let address = |bytes: [u8; 16]| {
        if ipv6 {
            return IpAddr::V6(Ipv6Addr::from(bytes));
        }
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    let socket = &record.socket;
    (
        SocketAddr::new(address(socket.local_address), socket.local_port),
        SocketAddr::new(address(socket.remote_address), socket.remote_port),
    )
}

/// How long a jiffy is, given `jiffies64` and CLOCK_MONOTONIC at one moment.
///
/// The kernel starts its jiffies 300 s before they reach 2³² (`INITIAL_JIFFIES`), so both clocks
/// tell how many make a second, but for the moments around 300 s after the start, when every
/// number of them does: then nothing.
pub(super) fn jiffy(jiffies: u64, clock: Duration) -> Option<Duration> {
    /// Every HZ that a kernel of x86-64 or arm64 can be configured with.
    const HZ: [u32; 4] = [100, 250, 300, 1000];
    let since_wrap = |hz: u32| (clock.as_secs_f64() - 300.0) * f64::from(hz);
    let error = |hz: u32| {
        let expected = since_wrap(hz);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let actual = jiffies.wrapping_sub(1 << 32).cast_signed() as f64;
        (actual - expected).abs()
    };
    let [best, next, ..] = {
        let mut by_error = HZ;
        by_error.sort_by(|a, b| error(*a).total_cmp(&error(*b)));
        by_error
    };
    // The clocks start within some seconds of each other.
    (error(best) < 0.5 * error(next)).then(|| Duration::from_secs(1) / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_jiffy_follows_from_two_clocks() {
        for hz in [100_u64, 250, 300, 1000] {
            for seconds in [20, 200, 1_000, 1_000_000] {
                // The ticks began a second after the clock.
                let jiffies = (1 << 32) + hz * (seconds - 1) - 300 * hz;
                let told = jiffy(jiffies, Duration::from_secs(seconds));
                let expected = Duration::from_secs(1) / u32::try_from(hz).unwrap();
                assert_eq!(told, Some(expected), "{hz} Hz after {seconds} s");
            }
        }
    }

    #[test]
    fn around_300_s_every_number_fits_and_none_is_told() {
        assert_eq!(jiffy((1 << 32) - 250, Duration::from_mins(5)), None);
    }

    #[test]
    fn a_listener_takes_what_comes_to_its_address_or_to_any() {
        let listener = |local: &str| Listener {
            cookie: 1,
            local: local.parse().unwrap(),
            cgroup: 0,
            accept_queue: 0,
            accept_queue_limit: 0,
        };
        let to = |text: &str| text.parse().unwrap();
        assert!(listener("0.0.0.0:80").accepts(to("10.0.0.1:80")));
        assert!(listener("[::]:80").accepts(to("[::ffff:10.0.0.1]:80")));
        assert!(listener("10.0.0.1:80").accepts(to("[::ffff:10.0.0.1]:80")));
        assert!(!listener("10.0.0.2:80").accepts(to("10.0.0.1:80")));
        assert!(!listener("0.0.0.0:81").accepts(to("10.0.0.1:80")));
    }
}
