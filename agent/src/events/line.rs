//! An event as a line.

use std::{fmt::Write as _, io::Write as _};

use agent_ebpf::state::TcpState;

use crate::api::event::{EventLine, Kind};

/// How events look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// JSON, one object a line.
    Json,
    /// Columns, as tcpstates has them.
    Table,
}

impl Style {
    pub(super) fn new(table: bool) -> Self {
        if table { Self::Table } else { Self::Json }
    }

    /// What comes before the first line.
    pub(super) fn header(self) -> Vec<u8> {
        match self {
            Self::Json => Vec::new(),
            Self::Table => format!(
                "{:<15} {:<7} {:<16} {:<39} {:<5} {:<39} {:<5} {:<11} -> {:<11} {:>12} CAUSE\n",
                "TIME",
                "PID",
                "COMM",
                "LADDR",
                "LPORT",
                "RADDR",
                "RPORT",
                "OLDSTATE",
                "NEWSTATE",
                "MS"
            )
            .into_bytes(),
        }
    }

    /// Adds a line.
    pub(super) fn write(self, line: &EventLine, into: &mut Vec<u8>) {
        let before = into.len();
        let written = match self {
            Self::Json => serde_json::to_writer(&mut *into, line).is_ok(),
            Self::Table => into.write_all(row(line).as_bytes()).is_ok(),
        };
        // Plain data into memory: if ever this fails, nothing of it is left.
        if written {
            into.push(b'\n');
        } else {
            into.truncate(before);
        }
    }
}

fn row(line: &EventLine) -> String {
    let mut row = String::with_capacity(192);
    let pid = line
        .pid
        .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    // Writing to a String does not fail.
    let _written = write!(
        row,
        "{:<15} {pid:<7} {:<16} {:<39} {:<5} {:<39} {:<5} ",
        time_of_day(line.time),
        line.process.as_deref().unwrap_or("-"),
        line.local.ip().to_string(),
        line.local.port(),
        line.remote.ip().to_string(),
        line.remote.port(),
    );
    let _written = match line.event {
        Kind::Transition => {
            let ms = line
                .ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"));
            let cause = line.cause.map_or("", |cause| cause.name());
            write!(
                row,
                "{:<11} -> {:<11} {ms:>12} {cause}",
                upper(line.from),
                upper(line.to)
            )
        }
        Kind::Retransmit => {
            let packet = line.packet.map_or("", |packet| packet.name());
            let trigger = line.trigger.map_or("", |trigger| trigger.name());
            let segments = line.segments.unwrap_or(0);
            write!(
                row,
                "{:<11} retransmits {segments} {packet} by {trigger}",
                upper(line.state)
            )
        }
    };
    row.truncate(row.trim_end().len());
    row
}

/// As tcpstates writes it.
fn upper(state: Option<TcpState>) -> String {
    state.map_or("", TcpState::name).to_uppercase()
}

/// Hours, minutes, seconds and microseconds of the day, UTC.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time since 1970"
)]
fn time_of_day(seconds: f64) -> String {
    let us = (seconds * 1e6).round() as u64 % 86_400_000_000;
    let second = us / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        us % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> EventLine {
        serde_json::from_str(text).unwrap()
    }

    const CLOSE: &str = r#"{"time":1700000000.25,"event":"transition","from":"close_wait","to":"close","ms":1234.5,"cause":"reset_received","local":"[::1]:80","remote":"[::1]:4000","netns":4026531840,"cookie":7,"pid":42,"process":"api"}"#;

    #[test]
    fn json_is_read_back_as_it_was_written() {
        let mut text = Vec::new();
        Style::Json.write(&line(CLOSE), &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), format!("{CLOSE}\n"));
    }

    #[test]
    fn a_row_has_what_tcpstates_shows() {
        let row = row(&line(CLOSE));
        let words: Vec<_> = row.split_ascii_whitespace().collect();
        assert_eq!(
            words,
            [
                "22:13:20.250000",
                "42",
                "api",
                "::1",
                "80",
                "::1",
                "4000",
                "CLOSE_WAIT",
                "->",
                "CLOSE",
                "1234.500",
                "reset_received"
            ]
        );
        let header = String::from_utf8(Style::Table.header()).unwrap();
        assert_eq!(header.find("OLDSTATE"), row.find("CLOSE_WAIT"));
        assert_eq!(header.find("LADDR"), row.find("::1"));
    }

    #[test]
    fn a_retransmission_says_what_was_sent_again() {
        let row = row(&line(
            r#"{"time":0.0,"event":"retransmit","state":"fin_wait1","packet":"fin","trigger":"rto","segments":1,"local":"127.0.0.1:1","remote":"127.0.0.1:2"}"#,
        ));
        assert!(
            row.ends_with("FIN_WAIT1   retransmits 1 fin by rto"),
            "{row}"
        );
        assert!(row.contains(" -  "), "{row}");
    }
}
