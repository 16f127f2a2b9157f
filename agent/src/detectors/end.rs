//! What will end a stalled socket, and about when.
//!
//! The kernel's timers are stepped as `tcp_retransmit_timer()`, `tcp_probe_timer()` and
//! `tcp_keepalive_timer()` step them (`net/ipv4/tcp_timer.c`), from where the socket is.

use std::time::Duration;

use agent_ebpf::state::TcpState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stall::Cause;
use crate::{
    census::{Lingering, Timers},
    limits::Sysctls,
    serial::optional_seconds,
};

/// `TCP_RTO_MIN`.
const RTO_MIN: Duration = Duration::from_millis(200);
/// `TCP_RTO_MAX`, unless `tcp_rto_max_ms` says otherwise.
const RTO_MAX: Duration = Duration::from_mins(2);
/// `TCP_RETR2`.
const RETRIES2: u32 = 15;
/// What `tcp_orphan_retries` of 0 stands for (`tcp_orphan_retries()`).
const ORPHAN_RETRIES: u32 = 8;

/// Timer expiries that are stepped at most. No sysctl allows more than 255 retries.
const STEPS: usize = 300;

/// What ends a socket, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// What.
    pub by: EndedBy,
    /// From now on; nothing where nothing ends it, or when is not known.
    #[serde(rename = "seconds", with = "optional_seconds")]
    #[schemars(with = "Option<f64>")]
    pub after: Option<Duration>,
    /// Whether it may take longer: routers report errors, which undo the backing off.
    pub at_least: bool,
}

/// What ends a socket, if neither the peer nor the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndedBy {
    /// No limit of the kernel.
    #[serde(rename = "nothing")]
    Nothing,
    /// The sysctl that limits retransmissions and probes of orphans.
    #[serde(rename = "tcp_orphan_retries")]
    OrphanRetries,
    /// The one that limits all others.
    #[serde(rename = "tcp_retries2")]
    Retries2,
    /// The socket option.
    #[serde(rename = "TCP_USER_TIMEOUT")]
    UserTimeout,
    /// The sysctl that limits FIN_WAIT2 without a process.
    #[serde(rename = "tcp_fin_timeout")]
    FinTimeout,
}

impl EndedBy {
    /// The name of the sysctl or socket option.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OrphanRetries => "tcp_orphan_retries",
            Self::Retries2 => "tcp_retries2",
            Self::UserTimeout => "TCP_USER_TIMEOUT",
            Self::FinTimeout => "tcp_fin_timeout",
        }
    }
}

/// What ends a socket that stalls for this cause.
pub(super) fn end(socket: &Lingering, cause: Cause, sysctls: &Sysctls) -> End {
    let patience = Patience::of(socket, sysctls);
    let by = match cause {
        Cause::HalfClosed
        | Cause::NotAccepted
        | Cause::DataUnread
        | Cause::EofUnread
        | Cause::Drained => EndedBy::Nothing,
        Cause::OrphanWaiting => EndedBy::FinTimeout,
        Cause::ZeroWindow | Cause::Unacked | Cause::Draining | Cause::Unknown => {
            patience.ended_by(socket)
        }
    };
    let Some(timers) = socket.timers else {
        return End {
            by,
            after: None,
            at_least: false,
        };
    };
    let after = match cause {
        Cause::OrphanWaiting => Some(timers.keepalive_in),
        Cause::ZeroWindow if socket.packets_out == 0 => patience.probes_end(socket, &timers),
        Cause::ZeroWindow | Cause::Unacked | Cause::Unknown if by != EndedBy::Nothing => {
            patience.retransmissions_end(socket, &timers)
        }
        _ => None,
    };
    // While the peer acknowledges, nothing limits it.
    let goes_on = cause == Cause::Draining || (cause == Cause::ZeroWindow && after.is_none());
    End {
        by: if goes_on { EndedBy::Nothing } else { by },
        after,
        at_least: socket.soft_error && after.is_some(),
    }
}

/// The limits of a socket's retransmissions and probes.
struct Patience {
    orphan: bool,
    retries_of_orphans: u32,
    retries_of_others: u32,
    rto_max: Duration,
    soft_error: bool,
}

impl Patience {
    fn of(socket: &Lingering, sysctls: &Sysctls) -> Self {
        let number = |name| {
            let value = sysctls.get(name)?;
            u32::try_from(value).ok()
        };
        Self {
            orphan: socket.orphan,
            retries_of_orphans: number("tcp_orphan_retries").unwrap_or(0),
            retries_of_others: number("tcp_retries2").unwrap_or(RETRIES2),
            rto_max: number("tcp_rto_max_ms")
                .map_or(RTO_MAX, |ms| Duration::from_millis(ms.into())),
            soft_error: socket.soft_error,
        }
    }

    fn ended_by(&self, socket: &Lingering) -> EndedBy {
        let user_timeout = socket.timers.and_then(|timers| timers.user_timeout);
        match (user_timeout, socket.state) {
            (Some(_), _) => EndedBy::UserTimeout,
            // Both states wait for one acknowledgement; only who waits makes a difference.
            (None, TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing) if self.orphan => {
                EndedBy::OrphanRetries
            }
            (None, _) => EndedBy::Retries2,
        }
    }

    /// `tcp_orphan_retries()`: whoever is `alive` has not reached the largest timeout yet.
    fn of_orphan(&self, alive: bool) -> u32 {
        match self.retries_of_orphans {
            _ if self.soft_error && !alive => 0,
            0 if alive => ORPHAN_RETRIES,
            retries => retries,
        }
    }

    /// `tcp_model_timeout()`: how long this many retransmissions take, each after twice the time
    /// of the one before.
    fn model(&self, retries: u32) -> Duration {
        let doublings = ratio(self.rto_max, RTO_MIN).ilog2();
        let factor = |doublings: u32| 2_u32.saturating_pow(doublings + 1).saturating_sub(1);
        if retries <= doublings {
            RTO_MIN * factor(retries)
        } else {
            RTO_MIN * factor(doublings) + self.rto_max * (retries - doublings)
        }
    }

    /// When `tcp_write_timeout()` gives up.
    fn retransmissions_end(&self, socket: &Lingering, timers: &Timers) -> Option<Duration> {
        let mut now = timers.retransmit_in;
        let mut rto = timers.rto;
        let mut retransmitting = (socket.retransmits > 0)
            .then_some(timers.retransmitting)
            .flatten()
            .map(|already| now + already);
        for _ in 0..STEPS {
            if let Some(time) = retransmitting {
                let retries = if self.orphan {
                    self.of_orphan(rto < self.rto_max)
                } else {
                    self.retries_of_others
                };
                if time >= timers.user_timeout.unwrap_or_else(|| self.model(retries)) {
                    return Some(now);
                }
            }
            let time = retransmitting.unwrap_or_default();
            rto = (rto * 2).min(self.rto_max);
            // tcp_clamp_rto_to_user_timeout()
            let left = timers
                .user_timeout
                .map_or(rto, |timeout| timeout.saturating_sub(time));
            let wait = rto.min(left.max(Duration::from_millis(1)));
            now += wait;
            retransmitting = Some(time + wait);
        }
        None
    }

    /// When `tcp_probe_timer()` gives up; nothing where it does not, since the peer answers.
    fn probes_end(&self, socket: &Lingering, timers: &Timers) -> Option<Duration> {
        // An answer sets the count back to 0 (tcp_ack()), but not the backing off.
        let answers = socket.probes_out <= 1;
        let mut now = timers.retransmit_in;
        let mut backoff = u32::from(socket.backoff);
        let mut unanswered = u32::from(socket.probes_out);
        let mut probing = timers.probing.map(|already| now + already);
        let backed_off = |backoff: u32| {
            let doublings = backoff.min(ratio(self.rto_max, timers.rto).ilog2() + 1);
            (timers.rto.max(RTO_MIN) * 2_u32.saturating_pow(doublings)).min(self.rto_max)
        };
        for _ in 0..STEPS {
            if let (Some(time), Some(timeout)) = (probing, timers.user_timeout)
                && time >= timeout
            {
                return Some(now);
            }
            let most = if self.orphan {
                let alive = backed_off(backoff) < self.rto_max;
                let most = self.of_orphan(alive);
                if !alive && backoff >= most {
                    return Some(now);
                }
                most
            } else {
                self.retries_of_others
            };
            if unanswered >= most {
                return Some(now);
            }
            unanswered = if answers { 0 } else { unanswered + 1 };
            backoff = (backoff + 1).min(self.retries_of_others);
            let mut wait = backed_off(backoff);
            if let (Some(time), Some(timeout)) = (probing, timers.user_timeout) {
                // tcp_clamp_probe0_to_user_timeout()
                wait = wait.min(timeout.saturating_sub(time).max(Duration::from_millis(1)));
            }
            now += wait;
            probing = Some(probing.unwrap_or_default() + wait);
        }
        None
    }
}

/// How many times `part` goes into `whole`; at least 1.
fn ratio(whole: Duration, part: Duration) -> u32 {
    let ratio = whole.as_millis() / part.as_millis().max(1);
    u32::try_from(ratio).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::fixture::lingering;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// An orphan in FIN_WAIT1 whose FIN is being retransmitted, the first time 600 ms ago.
    fn retransmitting() -> Lingering {
        Lingering {
            orphan: true,
            in_flight: 1,
            packets_out: 1,
            snd_wnd: 65_535,
            retransmits: 2,
            timers: Some(Timers {
                rto: ms(800),
                retransmit_in: ms(600),
                retransmitting: Some(ms(600)),
                ..Timers::default()
            }),
            ..lingering(TcpState::FinWait1)
        }
    }

    fn with_timers(socket: &Lingering, change: impl FnOnce(&mut Timers)) -> Lingering {
        let mut timers = socket.timers.unwrap();
        change(&mut timers);
        Lingering {
            timers: Some(timers),
            ..socket.clone()
        }
    }

    #[test]
    fn an_orphan_dies_at_the_first_expiry_past_the_model_of_its_retries() {
        // Retransmissions 0, 0.4 and 1.2 s after the first; the model of two is 1.4 s, so the
        // timer that fires 2.8 s after the first gives up: 600 + 1600 ms from now.
        let sysctls = Sysctls::of(&[("tcp_orphan_retries", 2)]);
        let told = end(&retransmitting(), Cause::Unacked, &sysctls);
        assert_eq!(told.by, EndedBy::OrphanRetries);
        assert_eq!(told.after, Some(ms(2_200)));
        assert!(!told.at_least);
    }

    #[test]
    fn eight_retries_take_about_107_s() {
        let mut socket = retransmitting();
        socket.retransmits = 0;
        let socket = with_timers(&socket, |timers| {
            timers.rto = ms(204);
            timers.retransmit_in = ms(204);
            timers.retransmitting = None;
        });
        let after = end(&socket, Cause::Unknown, &Sysctls::default()).after;
        // The model: 511 × 200 ms = 102.2 s since the first; 204 ms doubled nine times is 104.4.
        let after = after.unwrap().as_secs_f64();
        assert!((102.0..110.0).contains(&after), "{after}");
    }

    #[test]
    fn a_held_socket_goes_by_tcp_retries2() {
        let mut socket = retransmitting();
        socket.orphan = false;
        let told = end(&socket, Cause::Unacked, &Sysctls::default());
        assert_eq!(told.by, EndedBy::Retries2);
        // RFC 1122 asks for 100 s at least; 15 retries are 924.6 s by the kernel's documentation.
        let after = told.after.unwrap().as_secs_f64();
        assert!((924.0..1_050.0).contains(&after), "{after}");
    }

    #[test]
    fn the_user_timeout_counts_from_the_first_retransmission() {
        let socket = with_timers(&retransmitting(), |timers| {
            timers.user_timeout = Some(ms(2_000));
        });
        let told = end(&socket, Cause::Unacked, &Sysctls::default());
        assert_eq!(
            (told.by, told.after),
            (EndedBy::UserTimeout, Some(ms(1_400)))
        );
    }

    #[test]
    fn an_error_reported_by_a_router_makes_it_at_least() {
        let socket = Lingering {
            soft_error: true,
            ..retransmitting()
        };
        let sysctls = Sysctls::of(&[("tcp_orphan_retries", 2)]);
        assert!(end(&socket, Cause::Unacked, &sysctls).at_least);
    }

    /// A socket that probes a closed window.
    fn probing(orphan: bool, backoff: u8, probes_out: u8) -> Lingering {
        Lingering {
            orphan,
            unsent: 100_000,
            backoff,
            probes_out,
            timers: Some(Timers {
                rto: ms(204),
                retransmit_in: ms(100),
                probing: Some(ms(3_000)),
                ..Timers::default()
            }),
            ..lingering(TcpState::FinWait1)
        }
    }

    #[test]
    fn an_orphan_whose_peer_answers_lasts_until_the_largest_timeout() {
        // From the first probe on: 0.2 + 0.4 + … + 104.4 s, and 120 s more: about 5½ minutes.
        for retries in [0, 1, 8] {
            let sysctls = Sysctls::of(&[("tcp_orphan_retries", retries)]);
            let told = end(&probing(true, 0, 0), Cause::ZeroWindow, &sysctls);
            assert_eq!(told.by, EndedBy::OrphanRetries);
            let after = told.after.unwrap().as_secs_f64();
            assert!((200.0..345.0).contains(&after), "{after} s of {retries}");
        }
        let sysctls = Sysctls::of(&[("tcp_rto_max_ms", 2_000)]);
        let after = end(&probing(true, 0, 0), Cause::ZeroWindow, &sysctls).after;
        let after = after.unwrap().as_secs_f64();
        assert!((2.5..5.5).contains(&after), "{after}");
    }

    #[test]
    fn an_orphan_whose_peer_is_silent_dies_after_its_retries() {
        // Two probes went unanswered; the third goes out in 0.1 s, and 1.6 s later it ends.
        let sysctls = Sysctls::of(&[("tcp_orphan_retries", 3)]);
        let told = end(&probing(true, 2, 2), Cause::ZeroWindow, &sysctls);
        assert_eq!(told.after, Some(ms(100 + 204 * 8)));
    }

    #[test]
    fn nothing_ends_a_held_socket_whose_peer_answers() {
        let told = end(
            &probing(false, 7, 0),
            Cause::ZeroWindow,
            &Sysctls::default(),
        );
        assert_eq!((told.by, told.after), (EndedBy::Nothing, None));
        let told = end(
            &probing(false, 7, 7),
            Cause::ZeroWindow,
            &Sysctls::default(),
        );
        assert_eq!(told.by, EndedBy::Retries2);
        assert!(told.after.is_some());
    }

    #[test]
    fn the_user_timeout_ends_even_those_that_answer() {
        let socket = with_timers(&probing(false, 4, 0), |timers| {
            timers.user_timeout = Some(ms(10_000));
        });
        let told = end(&socket, Cause::ZeroWindow, &Sysctls::default());
        assert_eq!(
            (told.by, told.after),
            (EndedBy::UserTimeout, Some(ms(7_000)))
        );
    }

    #[test]
    fn an_orphans_fin_wait2_ends_with_its_timer_and_a_held_one_never() {
        let mut socket = lingering(TcpState::FinWait2);
        socket.timers = Some(Timers {
            keepalive_in: ms(28_000),
            ..Timers::default()
        });
        let told = end(&socket, Cause::OrphanWaiting, &Sysctls::default());
        assert_eq!(
            (told.by, told.after),
            (EndedBy::FinTimeout, Some(ms(28_000)))
        );
        let told = end(&socket, Cause::HalfClosed, &Sysctls::default());
        assert_eq!((told.by, told.after), (EndedBy::Nothing, None));
    }

    #[test]
    fn without_timers_the_limit_is_told_alone() {
        let socket = Lingering {
            timers: None,
            ..retransmitting()
        };
        let told = end(&socket, Cause::Unacked, &Sysctls::default());
        assert_eq!((told.by, told.after), (EndedBy::OrphanRetries, None));
    }
}
