//! What a person can do about a finding: pure.
//!
//! One table, [`RULES`]. Each rule names the kernel function or RFC it rests on. What does harm is
//! not in it, however often it is recommended: `tcp_tw_recycle` (it broke clients behind NAT, and is
//! gone since 4.12), `tcp_max_tw_buckets=0`, `tcp_fin_timeout` against TIME_WAIT (it has nothing to
//! do with it), or `tcp_orphan_retries` against a peer that answers probes of its closed window (no
//! retry is counted against it).

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    detectors::{Cause, Detector, Reuse},
    limits::Sysctls,
};

/// What can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// Where the remedy lies.
    pub remedy: Remedy,
    /// What to do.
    pub text: Cow<'static, str>,
    /// The kernel parameter to change, if one helps.
    pub parameter: Option<Parameter>,
    /// The kernel function or RFC that this rests on.
    pub evidence: Cow<'static, str>,
}

/// Where the remedy lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// In the program that holds the socket.
    Application,
    /// In what keeps that program from its work.
    Overload,
    /// In the peer, or in the network between.
    Network,
    /// In a kernel parameter.
    KernelParameter,
}

impl Remedy {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Overload => "overload",
            Self::Network => "network",
            Self::KernelParameter => "kernel parameter",
        }
    }
}

/// A change of a kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parameter {
    /// As `sysctl` knows it, in the network namespace of the finding.
    pub name: Cow<'static, str>,
    /// Its present value.
    pub present: String,
    /// The suggested one.
    pub suggested: String,
    /// What the change does.
    pub why: Cow<'static, str>,
    /// What it may do besides.
    pub risk: Cow<'static, str>,
}

/// What advice is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Sockets that stall; whether some of them are orphans, and whether a process holds some.
    Stall {
        /// Who found them.
        detector: Detector,
        /// Why.
        cause: Cause,
        /// Whether some have no process any more.
        orphans: bool,
        /// Whether some have one.
        held: bool,
    },
    /// Orphans near their limit.
    Orphans,
    /// Timewait minisockets near their limit.
    Minisockets,
    /// Ephemeral ports that run out, and whether those in TIME_WAIT can be used again.
    Ports(Reuse),
}

/// What there is to say about a topic in a network namespace with these sysctls.
#[must_use]
pub fn advise(topic: Topic, sysctls: &Sysctls) -> Vec<Advice> {
    RULES
        .iter()
        .filter(|rule| (rule.of)(topic))
        .filter_map(|rule| rule.apply(sysctls))
        .collect()
}

/// A row of the table.
struct Rule {
    of: fn(Topic) -> bool,
    remedy: Remedy,
    text: &'static str,
    parameter: Option<Knob>,
    evidence: &'static str,
}

/// A kernel parameter in the table.
struct Knob {
    name: &'static str,
    /// Its present value and a better one; nothing where there is none.
    values: fn(&Sysctls) -> Option<(String, String)>,
    why: &'static str,
    risk: &'static str,
}

impl Rule {
    fn apply(&self, sysctls: &Sysctls) -> Option<Advice> {
        let parameter = match &self.parameter {
            None => None,
            // Where there is no better value, there is no advice.
            Some(knob) => Some(knob.apply(sysctls)?),
        };
        Some(Advice {
            remedy: self.remedy,
            text: self.text.into(),
            parameter,
            evidence: self.evidence.into(),
        })
    }
}

impl Knob {
    fn apply(&self, sysctls: &Sysctls) -> Option<Parameter> {
        let (present, suggested) = (self.values)(sysctls)?;
        Some(Parameter {
            name: self.name.into(),
            present,
            suggested,
            why: self.why.into(),
            risk: self.risk.into(),
        })
    }
}

/// Stalls in CLOSE_WAIT for that cause.
const fn leak(topic: Topic, of: Cause) -> bool {
    matches!(topic, Topic::Stall { detector: Detector::CloseWait, cause, .. } if cause as u8 == of as u8)
}

/// Stalls in FIN_WAIT1, LAST_ACK or CLOSING for that cause.
const fn unfinished(topic: Topic, of: Cause) -> bool {
    matches!(
        topic,
        Topic::Stall { detector: Detector::FinWait1 | Detector::LastAck, cause, .. }
            if cause as u8 == of as u8
    )
}

const fn has_orphans(topic: Topic) -> bool {
    matches!(topic, Topic::Stall { orphans: true, .. })
}

const fn has_held(topic: Topic) -> bool {
    matches!(topic, Topic::Stall { held: true, .. })
}

/// A sysctl that is above `most`, and `most`.
fn above(sysctls: &Sysctls, name: &str, most: u64) -> Option<(String, String)> {
    let present = sysctls.get(name)?;
    (present > most).then(|| (present.to_string(), most.to_string()))
}

/// A sysctl, and twice as much.
fn doubled(sysctls: &Sysctls, name: &str) -> Option<(String, String)> {
    let present = sysctls.get(name)?;
    let suggested = present.max(1_024).saturating_mul(2);
    // The kernel keeps these in an int.
    let fits = i32::try_from(suggested).is_ok();
    fits.then(|| (present.to_string(), suggested.to_string()))
}

/// A switch that is not at `to`.
fn switched(sysctls: &Sysctls, name: &str, to: u64) -> Option<(String, String)> {
    let present = sysctls.get(name)?;
    (present != to).then(|| (present.to_string(), to.to_string()))
}

/// The rules, in the order in which advice is given.
static RULES: &[Rule] = &[
    Rule {
        of: |topic| leak(topic, Cause::Drained),
        remedy: Remedy::Application,
        text: "The program has read everything, the end included, and never calls close(): look for \
               the path that forgets to, after an error, a timeout, or a connection given back to a \
               pool. Restarting it frees the sockets; no kernel parameter does.",
        parameter: None,
        evidence: "tcp_close(), net/ipv4/tcp.c: nothing but the process leads out of CLOSE_WAIT",
    },
    Rule {
        of: |topic| leak(topic, Cause::EofUnread),
        remedy: Remedy::Application,
        text: "The program has not come back to the socket since the peer closed: an idle pool that \
               nobody checks, or an event loop that forgot it. Give pooled connections a lifetime \
               shorter than the peer's idle timeout, and check them before use.",
        parameter: None,
        evidence: "tcp_fin(), net/ipv4/tcp_input.c: the FIN waits in the receive queue to be read",
    },
    Rule {
        of: |topic| leak(topic, Cause::DataUnread),
        remedy: Remedy::Overload,
        text: "Data has come that the program does not read: it is stuck or overloaded. Look at what \
               its threads wait for (a stack dump; /proc/PID/task/*/wchan), a lock, a disk, another \
               service. The peer has given up meanwhile.",
        parameter: None,
        evidence: "tcp_recvmsg(), net/ipv4/tcp.c: rcv_nxt is ahead of copied_seq by more than the FIN",
    },
    Rule {
        of: |topic| leak(topic, Cause::NotAccepted),
        remedy: Remedy::Overload,
        text: "The program does not call accept(): it hangs, or cannot keep up, and peers give up \
               before they are served. Look at what its accepting thread waits for, and at its limit \
               of open files. A longer accept queue (somaxconn) would only hold more of them.",
        parameter: None,
        evidence: "inet_csk_accept(), net/ipv4/inet_connection_sock.c: the socket is still in the \
                   listener's queue",
    },
    Rule {
        of: |topic| {
            matches!(
                topic,
                Topic::Stall {
                    detector: Detector::FinWait2,
                    cause: Cause::HalfClosed,
                    ..
                }
            )
        },
        remedy: Remedy::Application,
        text: "The program has called shutdown() and holds the socket, waiting for the peer's end \
               for as long as that takes. Let it read with a timeout, then close(): then the wait \
               has a limit (tcp_fin_timeout).",
        parameter: None,
        evidence: "tcp_rcv_state_process(), net/ipv4/tcp_input.c: a socket with a process has no \
                   timer in FIN_WAIT2",
    },
    Rule {
        of: |topic| {
            matches!(
                topic,
                Topic::Stall {
                    detector: Detector::FinWait2,
                    cause: Cause::OrphanWaiting,
                    ..
                }
            )
        },
        remedy: Remedy::KernelParameter,
        text: "tcp_fin_timeout is above 60 s, so orphans wait for the peer's FIN as full sockets, \
               and count as orphans, until only 60 s are left.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_fin_timeout",
            values: |sysctls| above(sysctls, "tcp_fin_timeout", 60),
            why: "at 60 s or less they become timewait minisockets at once, which are far smaller",
            risk: "a peer that still sends after that time gets a RST",
        }),
        evidence: "tcp_rcv_state_process(), net/ipv4/tcp_input.c: tmo > TCP_TIMEWAIT_LEN keeps the \
                   full socket",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::ZeroWindow),
        remedy: Remedy::Network,
        text: "The peer does not read: its window is closed. Look there for a stuck program; where \
               the peers are strangers, they may hold your sockets on purpose.",
        parameter: None,
        evidence: "tcp_probe_timer(), net/ipv4/tcp_timer.c: probes that are answered reset the count",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::ZeroWindow) && has_held(topic),
        remedy: Remedy::Application,
        text: "The program holds the socket, so nothing ends it while the peer answers probes. Set \
               TCP_USER_TIMEOUT on its sockets, or close with SO_LINGER of 0 s after a deadline of \
               its own.",
        parameter: None,
        evidence: "tcp_probe_timer(), net/ipv4/tcp_timer.c: icsk_user_timeout ends probing; RFC 5482",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::Unacked),
        remedy: Remedy::Network,
        text: "Nothing that was sent is acknowledged: the peer has gone without a word, or the path \
               is cut. Look for a firewall or NAT that dropped the connection's state, a route that \
               changed, a host that went down.",
        parameter: None,
        evidence: "tcp_retransmit_timer(), net/ipv4/tcp_timer.c; RFC 6298",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::Unacked) && has_orphans(topic),
        remedy: Remedy::KernelParameter,
        text: "If such orphans near their limit, let them go sooner.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_orphan_retries",
            values: |sysctls| match sysctls.get("tcp_orphan_retries")? {
                0 => Some(("0 (8 retries)".to_owned(), "5".to_owned())),
                retries => (retries > 5).then(|| (retries.to_string(), "5".to_owned())),
            },
            why: "each retry doubles the wait: 8 last about 100 s after an RTO of 200 ms, 5 about 13 s",
            risk: "a peer whose path is down for longer loses the end of what was sent to it",
        }),
        evidence: "tcp_out_of_resources() and tcp_orphan_retries(), net/ipv4/tcp_timer.c",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::Unacked) && has_held(topic),
        remedy: Remedy::KernelParameter,
        text: "Better than the parameter, which is for every connection: TCP_USER_TIMEOUT on the \
               program's own sockets.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_retries2",
            values: |sysctls| above(sysctls, "tcp_retries2", 8),
            why: "15 retries last about 15 minutes after an RTO of 200 ms, 8 about 100 s, the least \
                  that RFC 1122 allows",
            risk: "every connection breaks in an outage of that length, rather than outliving it",
        }),
        evidence: "tcp_write_timeout(), net/ipv4/tcp_timer.c; RFC 1122 4.2.3.5",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::Draining),
        remedy: Remedy::Network,
        text: "The peer reads slowly, but goes on: there is nothing to mend here. Many at once can \
               be an attack that holds sockets with little effort.",
        parameter: None,
        evidence: "tcp_ack(), net/ipv4/tcp_input.c: snd_una advances",
    },
    Rule {
        of: |topic| unfinished(topic, Cause::Unknown),
        remedy: Remedy::Network,
        text: "Nothing shows yet why: the next census may tell.",
        parameter: None,
        evidence: "tcp_retransmit_timer(), net/ipv4/tcp_timer.c: no retransmission and no probe so far",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Orphans),
        remedy: Remedy::Network,
        text: "Find out first which sockets these are: those stuck in FIN_WAIT1 and LAST_ACK are told \
               with their cause.",
        parameter: None,
        evidence: "tcp_close(), net/ipv4/tcp.c: every socket closed before its peer is an orphan",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Orphans),
        remedy: Remedy::KernelParameter,
        text: "Where they are a busy host's usual share, make room for them.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_max_orphans",
            values: |sysctls| doubled(sysctls, "tcp_max_orphans"),
            why: "above the limit every close() resets its connection, and what was not yet sent is \
                  lost; some orphans are killed from a quarter of it on",
            risk: "each may hold its unsent data: up to tcp_wmem of memory that cannot be swapped",
        }),
        evidence: "tcp_too_many_orphans(), net/ipv4/tcp.c; tcp_out_of_resources(), \
                   net/ipv4/tcp_timer.c",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Minisockets),
        remedy: Remedy::Application,
        text: "Whoever closes first keeps the TIME_WAIT: let connections live longer (keep-alive, \
               pools), and the other side close.",
        parameter: None,
        evidence: "tcp_time_wait(), net/ipv4/tcp_minisocks.c; RFC 9293 3.6",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Minisockets),
        remedy: Remedy::KernelParameter,
        text: "Room for more is cheap.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_max_tw_buckets",
            values: |sysctls| doubled(sysctls, "tcp_max_tw_buckets"),
            why: "a connection that finds no room skips TIME_WAIT: late segments of it may then reach \
                  the next one with its addresses and ports",
            risk: "a few hundred bytes of memory for each",
        }),
        evidence: "inet_twsk_alloc(), net/ipv4/inet_timewait_sock.c; RFC 1337",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Ports(_)),
        remedy: Remedy::Application,
        text: "Each connection to that address and port takes a local port, and keeps it for 60 s in \
               TIME_WAIT if this side closes first: let the program keep connections open and use \
               them again.",
        parameter: None,
        evidence: "__inet_hash_connect(), net/ipv4/inet_hashtables.c; TCP_TIMEWAIT_LEN",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Ports(Reuse::NoTimestamps)),
        remedy: Remedy::KernelParameter,
        text: "Without timestamps no port in TIME_WAIT can be used again.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_timestamps",
            values: |sysctls| switched(sysctls, "tcp_timestamps", 1),
            why: "they let the kernel tell segments of an old connection from those of a new one",
            risk: "twelve bytes a segment",
        }),
        evidence: "tcp_twsk_unique(), net/ipv4/tcp_ipv4.c; RFC 6191",
    },
    Rule {
        of: |topic| {
            matches!(
                topic,
                Topic::Ports(Reuse::Off | Reuse::LoopbackOnly | Reuse::NoTimestamps)
            )
        },
        remedy: Remedy::KernelParameter,
        text: "Let connect() use ports in TIME_WAIT again.",
        parameter: Some(Knob {
            name: "net.ipv4.tcp_tw_reuse",
            values: |sysctls| switched(sysctls, "tcp_tw_reuse", 1),
            why: "a port in TIME_WAIT for a second or more (tcp_tw_reuse_delay) serves again, for \
                  outgoing connections with timestamps alone",
            risk: "a late segment of the old connection is told from the new one's by its timestamp alone",
        }),
        evidence: "tcp_twsk_unique(), net/ipv4/tcp_ipv4.c; RFC 6191",
    },
    Rule {
        of: |topic| matches!(topic, Topic::Ports(_)),
        remedy: Remedy::KernelParameter,
        text: "Give connect() more ports to choose from; keep those of your services out of it by \
               ip_local_reserved_ports.",
        parameter: Some(Knob {
            name: "net.ipv4.ip_local_port_range",
            values: |sysctls| {
                let low = sysctls.get("ip_local_port_range_low")?;
                let high = sysctls.get("ip_local_port_range_high")?;
                let wider = (low > 10_000 || high < 65_535)
                    .then(|| format!("{} 65535", low.min(10_000)))?;
                Some((format!("{low} {high}"), wider))
            },
            why: "each (source, destination, destination port) has the whole range for itself",
            risk: "a service that starts later may find its port taken by an outgoing connection",
        }),
        evidence: "inet_sk_get_local_port_range(), net/ipv4/inet_connection_sock.c",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own values.
    fn defaults() -> Sysctls {
        Sysctls::of(&[
            ("tcp_max_orphans", 65_536),
            ("tcp_orphan_retries", 0),
            ("tcp_fin_timeout", 90),
            ("tcp_max_tw_buckets", 65_536),
            ("tcp_tw_reuse", 2),
            ("tcp_timestamps", 1),
            ("tcp_retries2", 15),
            ("ip_local_port_range_low", 32_768),
            ("ip_local_port_range_high", 60_999),
        ])
    }

    /// Every topic there is.
    fn topics() -> Vec<Topic> {
        let mut topics = vec![Topic::Orphans, Topic::Minisockets];
        let reuses = [
            Reuse::Applies,
            Reuse::Off,
            Reuse::LoopbackOnly,
            Reuse::NoTimestamps,
        ];
        topics.extend(reuses.map(Topic::Ports));
        let stalls = [
            (Detector::FinWait1, &Cause::OF_UNFINISHED[..]),
            (Detector::LastAck, &Cause::OF_UNFINISHED),
            (Detector::FinWait2, &Cause::OF_FIN_WAIT2),
            (Detector::CloseWait, &Cause::OF_CLOSE_WAIT),
        ];
        for (detector, causes) in stalls {
            for cause in causes {
                for (orphans, held) in [(true, false), (false, true), (true, true)] {
                    topics.push(Topic::Stall {
                        detector,
                        cause: *cause,
                        orphans,
                        held,
                    });
                }
            }
        }
        topics
    }

    fn parameters(topic: Topic, sysctls: &Sysctls) -> Vec<Parameter> {
        let advice = advise(topic, sysctls).into_iter();
        advice.filter_map(|advice| advice.parameter).collect()
    }

    #[test]
    fn every_finding_has_advice_and_every_advice_its_evidence() {
        for topic in topics() {
            let advice = advise(topic, &defaults());
            assert!(!advice.is_empty(), "{topic:?}");
            for advice in advice {
                let source =
                    advice.evidence.contains("net/ipv4/") || advice.evidence.contains("RFC");
                assert!(source, "{topic:?}: {}", advice.evidence);
                let of_parameter = advice.remedy == Remedy::KernelParameter;
                assert_eq!(of_parameter, advice.parameter.is_some(), "{topic:?}");
            }
        }
    }

    #[test]
    fn a_parameter_is_suggested_with_another_value_than_it_has_and_its_risk() {
        for topic in topics() {
            for parameter in parameters(topic, &defaults()) {
                assert_ne!(parameter.present, parameter.suggested, "{topic:?}");
                assert!(!parameter.why.is_empty() && !parameter.risk.is_empty());
            }
            // Of a knob that the kernel lacks there is nothing to say.
            assert_eq!(parameters(topic, &Sysctls::default()), []);
        }
    }

    #[test]
    fn harmful_remedies_are_never_given() {
        let tight = Sysctls::of(&[("tcp_max_tw_buckets", 0), ("tcp_fin_timeout", 600)]);
        for sysctls in [defaults(), tight] {
            for topic in topics() {
                for parameter in parameters(topic, &sysctls) {
                    let name = parameter.name.as_ref();
                    assert!(!name.contains("tw_recycle"));
                    assert!(name != "net.ipv4.tcp_max_tw_buckets" || parameter.suggested != "0");
                    let in_fin_wait2 = matches!(
                        topic,
                        Topic::Stall {
                            detector: Detector::FinWait2,
                            ..
                        }
                    );
                    assert!(
                        name != "net.ipv4.tcp_fin_timeout" || in_fin_wait2,
                        "{topic:?}"
                    );
                    assert!(
                        name != "net.ipv4.tcp_orphan_retries"
                            || unfinished(topic, Cause::Unacked) && has_orphans(topic),
                        "{topic:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let tuned = Sysctls::of(&[
            ("tcp_orphan_retries", 3),
            ("tcp_retries2", 8),
            ("tcp_tw_reuse", 1),
            ("ip_local_port_range_low", 10_000),
            ("ip_local_port_range_high", 65_535),
        ]);
        let unacked = Topic::Stall {
            detector: Detector::FinWait1,
            cause: Cause::Unacked,
            orphans: true,
            held: true,
        };
        assert_eq!(parameters(unacked, &tuned), []);
        assert_eq!(parameters(Topic::Ports(Reuse::Applies), &tuned), []);
    }

    #[test]
    fn the_present_value_is_told_as_the_kernel_takes_it() {
        let orphan = Topic::Stall {
            detector: Detector::LastAck,
            cause: Cause::Unacked,
            orphans: true,
            held: false,
        };
        let parameters = parameters(orphan, &defaults());
        assert_eq!(parameters.len(), 1);
        assert_eq!(parameters[0].present, "0 (8 retries)");
        assert_eq!(parameters[0].suggested, "5");
    }

    #[test]
    fn a_limit_that_cannot_grow_is_left_alone() {
        let most = u64::from(i32::MAX.unsigned_abs());
        assert_eq!(
            parameters(Topic::Orphans, &Sysctls::of(&[("tcp_max_orphans", most)])),
            []
        );
    }
}
