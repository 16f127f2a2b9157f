//! What findings are called where people read them: in `agent snapshot`'s table and `agent top`.

use std::{fmt::Write as _, time::Duration};

use agent_ebpf::state::TcpState;

use crate::{
    advice::Advice,
    census::Age,
    detectors::{Cause, End, EndedBy, KillsFrom, Minisockets, Orphans, Ports, Stall},
};

/// A state as RFC 9293 and the kernel write it.
#[must_use]
pub fn state(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::SynRecv => "SYN_RECV",
        TcpState::FinWait1 => "FIN_WAIT1",
        TcpState::FinWait2 => "FIN_WAIT2",
        TcpState::TimeWait => "TIME_WAIT",
        TcpState::Close => "CLOSED",
        TcpState::CloseWait => "CLOSE_WAIT",
        TcpState::LastAck => "LAST_ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
    }
}

/// A cause in as few words as a column has room for.
#[must_use]
pub fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::ZeroWindow => "peer does not read",
        Cause::Unacked => "peer does not answer",
        Cause::Draining => "peer reads slowly",
        Cause::Unknown => "not known yet",
        Cause::HalfClosed | Cause::OrphanWaiting => "peer does not close",
        Cause::NotAccepted => "never accepted",
        Cause::DataUnread => "data not read",
        Cause::EofUnread => "end not read",
        Cause::Drained => "all read, not closed",
    }
}

/// A number with its thousands apart, as `12 345`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number of something per second, to about two figures.
#[must_use]
pub fn rate(rate: f64) -> String {
    match rate {
        _ if rate < 0.05 => "0/s".to_owned(),
        _ if rate < 9.95 => format!("{rate:.1}/s"),
        _ if rate < 9_999.5 => format!("{rate:.0}/s"),
        _ if rate < 999_500.0 => format!("{:.0}k/s", rate / 1e3),
        _ => format!("{:.1}M/s", rate / 1e6),
    }
}

/// A part of a limit, in tenths of a percent.
#[must_use]
pub fn share(count: u64, limit: u64) -> String {
    if limit == 0 {
        return "-".to_owned();
    }
    // Without losing anything on the way.
    let permille = u128::from(count) * 1_000 / u128::from(limit);
    format!("{}.{} %", permille / 10, permille % 10)
}

/// A time to two figures, as `5m12s`.
#[must_use]
pub fn brief(time: Duration) -> String {
    let time = if time < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(time.as_millis() / 100 * 100).unwrap_or(0))
    } else {
        Duration::from_secs(time.as_secs())
    };
    let text = humantime::format_duration(time).to_string();
    let mut units = text.split(' ');
    let first = units.next().unwrap_or_default();
    format!("{first}{}", units.next().unwrap_or_default())
}

/// An age, with `>` before one that may be longer.
#[must_use]
pub fn age(age: Age) -> String {
    let sign = if age.exact { "" } else { ">" };
    format!("{sign}{}", brief(age.at_least))
}

/// What ends a socket, and when.
#[must_use]
pub fn end(end: End) -> String {
    match end.after {
        Some(after) => {
            let at_least = if end.at_least { "at least " } else { "" };
            format!("{} in {at_least}{}", end.by.name(), brief(after))
        }
        None => end.by.name().to_owned(),
    }
}

/// What the sockets of a stall are stuck in: the state of the oldest.
#[must_use]
pub fn stuck_in(stall: &Stall) -> &'static str {
    let oldest = stall.sockets.first();
    oldest.map_or("", |socket| socket.state.name())
}

/// The port and side of a stall, as `8080/server`.
#[must_use]
pub fn service(stall: &Stall) -> String {
    format!("{}/{}", stall.port, stall.side.name())
}

/// The process of a stall with its first id, as `api[123]`.
#[must_use]
pub fn process(stall: &Stall) -> String {
    match stall.pids.first() {
        Some(pid) => format!("{}[{pid}]", stall.process),
        None => stall.process.clone(),
    }
}

/// Orphans near their limit, in a line.
#[must_use]
pub fn orphans(orphans: &Orphans) -> String {
    let Orphans {
        count,
        limit,
        kills,
        killed,
        ..
    } = orphans;
    let kills = match kills {
        None => "",
        Some(KillsFrom::Quarter) => "; those silent for long on a broken path may be killed",
        Some(KillsFrom::Half) => "; those silent for long, or on a broken path, may be killed",
        Some(KillsFrom::Limit) => "; every close() of a socket with data in flight may kill it",
    };
    let killed = match killed {
        0 => String::new(),
        killed => format!("; {killed} were killed since the last census"),
    };
    format!("{count} orphans of {limit} (tcp_max_orphans){kills}{killed}")
}

/// Timewait minisockets near their limit, in a line.
#[must_use]
pub fn minisockets(minisockets: &Minisockets) -> String {
    let Minisockets {
        netns,
        sockets,
        limit,
        overflows,
        ..
    } = minisockets;
    let overflows = match overflows {
        0 => String::new(),
        overflows => format!("; {overflows} found no room since the last census"),
    };
    format!(
        "netns {netns}: {sockets} timewait minisockets of {limit} (tcp_max_tw_buckets){overflows}"
    )
}

/// Ephemeral ports that run out, in a line.
#[must_use]
pub fn ports(ports: &Ports) -> String {
    let mut line = vec![
        format!(
            "netns {}: {} of {} ephemeral ports from {} to {} port {}",
            ports.netns, ports.used, ports.available, ports.source, ports.destination, ports.port,
        ),
        ports.reuse.meaning().to_owned(),
    ];
    line.extend(ports.run_out.map(|after| match after {
        Duration::ZERO => "none is left".to_owned(),
        after => format!("they run out in about {}", brief(after)),
    }));
    line.extend(ports.connectors.iter().map(|connector| {
        let (workload, pace) = (&connector.workload, connector.per_second);
        format!("{workload} connects {pace:.0} times a second")
    }));
    line.join("; ")
}

/// What ends a socket, after "it ends".
#[must_use]
pub fn ends(of: End) -> String {
    match of.by {
        EndedBy::Nothing => "never, unless the process or the peer acts".to_owned(),
        _ => format!("by {}", end(of)),
    }
}

/// What sockets of a stall are stuck in, whose they are and why: a sentence.
#[must_use]
pub fn stall(stall: &Stall) -> String {
    let oldest = stall.sockets.first();
    let sockets = if stall.count == 1 {
        "socket"
    } else {
        "sockets"
    };
    let mut line = format!("{} {sockets} in ", count(stall.count));
    line += oldest.map_or("a state unknown", |socket| state(socket.state));
    let owner = [process(stall), stall.workload.clone()];
    let owner: Vec<_> = owner.into_iter().filter(|name| !name.is_empty()).collect();
    if !owner.is_empty() {
        // Writing to a String cannot fail.
        let _written = write!(line, " of {}", owner.join(" in "));
    }
    let _written = write!(line, ", {} port {}", stall.side.name(), stall.port);
    line + ": " + stall.cause.meaning()
}

/// Advice as paragraphs: what to do, then the parameter, then what both rest on.
#[must_use]
pub fn advice(advice: &Advice) -> Vec<String> {
    let mut paragraphs = vec![format!("{}: {}", advice.remedy.name(), advice.text)];
    if let Some(parameter) = &advice.parameter {
        paragraphs.push(format!(
            "sysctl {}={} (now {}): {}. Risk: {}.",
            parameter.name, parameter.suggested, parameter.present, parameter.why, parameter.risk
        ));
    }
    paragraphs.push(format!("[{}]", advice.evidence));
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_two_figures() {
        assert_eq!(brief(Duration::ZERO), "0s");
        assert_eq!(brief(Duration::from_millis(4_172)), "4s100ms");
        assert_eq!(brief(Duration::from_millis(61_900)), "1m1s");
        assert_eq!(brief(Duration::from_secs(3_600 * 24 + 61)), "1day1m");
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1 000", "1 234 567"]
        );
        let rates = [0.0, 0.04, 0.25, 9.96, 1_234.4, 12_345.0, 2_400_000.0].map(rate);
        assert_eq!(
            rates,
            ["0/s", "0/s", "0.2/s", "10/s", "1234/s", "12k/s", "2.4M/s"]
        );
        assert_eq!(
            [share(1, 3), share(5, 0), share(u64::MAX, u64::MAX)],
            ["33.3 %", "-", "100.0 %"]
        );
    }

    #[test]
    fn an_age_that_may_be_longer_says_so() {
        let at_least = Duration::from_secs(90);
        let of = |exact| age(Age { at_least, exact });
        assert_eq!([of(true), of(false)], ["1m30s", ">1m30s"]);
    }

    #[test]
    fn an_end_that_may_come_later_says_so() {
        let after = Some(Duration::from_secs(30));
        let of = |by, after, at_least| {
            end(End {
                by,
                after,
                at_least,
            })
        };
        assert_eq!(of(EndedBy::Nothing, None, false), "nothing");
        assert_eq!(
            of(EndedBy::Retries2, after, true),
            "tcp_retries2 in at least 30s"
        );
        let ends = |by, after| {
            ends(End {
                by,
                after,
                at_least: false,
            })
        };
        assert_eq!(
            ends(EndedBy::OrphanRetries, after),
            "by tcp_orphan_retries in 30s"
        );
        assert!(ends(EndedBy::Nothing, None).starts_with("never"));
    }
}
