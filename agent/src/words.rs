//! What findings are called where people read them: in `agent snapshot`'s table and `agent top`.

use std::time::Duration;

use crate::{
    advice::Advice,
    census::Age,
    detectors::{End, KillsFrom, Minisockets, Orphans, Ports, Stall},
};

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
    use crate::detectors::EndedBy;

    #[test]
    fn a_time_has_two_figures() {
        assert_eq!(brief(Duration::ZERO), "0s");
        assert_eq!(brief(Duration::from_millis(4_172)), "4s100ms");
        assert_eq!(brief(Duration::from_millis(61_900)), "1m1s");
        assert_eq!(brief(Duration::from_secs(3_600 * 24 + 61)), "1day1m");
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
    }
}
