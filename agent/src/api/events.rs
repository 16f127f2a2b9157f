//! `/api/v1/events`: events as they happen, as server-sent events (HTML Living Standard, 9.2).
//!
//! Each is a `data:` line with an [`EventLine`] in JSON. An event of the type `lost` tells how many
//! the reader was too slow for; a comment now and then shows that the connection lives.

use std::{convert::Infallible, time::Duration};

use agent_ebpf::{
    record::StreamMode,
    state::{TcpState, is_lingering},
    stream::Filter,
};
use axum::{
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, timeout},
};

use super::{Refusal, event::EventLine};
use crate::{
    clock,
    feed::{Feed, Heard, Listener, Told, Wish},
};

/// How long nothing is written before a comment is: then a reader that has gone is noticed.
const SILENCE: Duration = Duration::from_secs(10);

/// Events that are written for one reader before others have their turn.
const AT_A_TIME: usize = 32;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Of which transitions: those into and out of lingering states (FIN_WAIT1, FIN_WAIT2, CLOSING,
    /// CLOSE_WAIT, LAST_ACK), unless it says otherwise. Retransmissions are always told.
    #[serde(default)]
    pub mode: Mode,
    /// Only those out of or into these states: names with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only those of sockets with this port, on either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only those of sockets that this process opened or closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Only those of sockets of the cgroup with this id, its directory's inode number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// At most so many a second; the others are counted as skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// Of which transitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Into and out of lingering states.
    #[default]
    Lingering,
    /// All.
    All,
}

/// What a reader was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Untold {
    /// Events that it was too slow for.
    pub lost: u64,
    /// Events beyond the rate that it asked for.
    #[serde(default)]
    pub skipped: u64,
    /// Events of the whole host that found the ring buffer full, and reached nobody.
    #[serde(default)]
    pub ring_full: u64,
    /// How often the kernel skipped a program that tells events.
    #[serde(default)]
    pub missed: u64,
}

impl EventsQuery {
    /// As a wish.
    ///
    /// # Errors
    ///
    /// Where a state has no such name, or zero is asked for, in words.
    pub fn wish(&self) -> Result<Wish, String> {
        for (name, zero) in [
            ("port", self.port == Some(0)),
            ("pid", self.pid == Some(0)),
            ("cgroup", self.cgroup == Some(0)),
        ] {
            // A filter lets everything through where it is zero.
            if zero {
                return Err(format!("{name} is 0; leave it out to be told of all"));
            }
        }
        let mut states = 0;
        let mut mode = match self.mode {
            Mode::Lingering => StreamMode::Lingering,
            Mode::All => StreamMode::All,
        };
        for name in self.state.iter().flat_map(|names| names.split(',')) {
            let state = state(name)?;
            states |= 1 << state as u8;
            // Who asks for such a state wants to hear of it.
            if !is_lingering(state as u8) {
                mode = StreamMode::All;
            }
        }
        Ok(Wish {
            mode,
            filter: Filter {
                cgroup: self.cgroup.unwrap_or(0),
                pid: self.pid.unwrap_or(0),
                states,
                port: self.port.unwrap_or(0),
            },
        })
    }
}

/// The state of that name.
///
/// # Errors
///
/// Where there is none, in words.
pub fn state(name: &str) -> Result<TcpState, String> {
    let mut states = TcpState::ALL.into_iter();
    states.find(|state| state.name() == name).ok_or_else(|| {
        let names = TcpState::ALL.map(TcpState::name).join(", ");
        format!("there is no state {name:?}: it may be one of {names}")
    })
}

/// What the streams are made of.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    feed: Feed,
    stop: watch::Receiver<bool>,
}

impl Streams {
    pub(super) fn of(feed: Feed, stop: watch::Receiver<bool>) -> Self {
        Self { feed, stop }
    }
}

pub(super) async fn events(
    State(streams): State<Streams>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return Refusal::answer(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let wish = match query.wish() {
        Ok(wish) => wish,
        Err(error) => return Refusal::answer(StatusCode::BAD_REQUEST, error),
    };
    let listener = match streams.feed.listen(wish) {
        Ok(listener) => listener,
        Err(error) => return Refusal::answer(StatusCode::CONFLICT, error.to_string()),
    };
    let reader = Reader {
        listener,
        pace: Pace::new(query.rate),
        greeted: false,
        stop: streams.stop,
    };
    let chunks = stream::unfold(reader, Reader::next);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// Whoever reads a stream.
struct Reader {
    listener: Listener,
    pace: Pace,
    /// Whether anything was written: the first bytes tell that all is told from here on.
    greeted: bool,
    stop: watch::Receiver<bool>,
}

impl Reader {
    /// The next piece of the stream; nothing once the agent stops.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let mut text = Vec::new();
        if !self.greeted {
            tokio::select! {
                // Its sender going says the same.
                _ = self.stop.wait_for(|stop| *stop) => return None,
                served = timeout(SILENCE, self.listener.is_served()) => {
                    // The engine says why.
                    served.ok()?;
                }
            }
            self.greeted = true;
            return Some((Ok(Bytes::from_static(b": listening\n\n")), self));
        }
        let until = Instant::now() + SILENCE;
        while text.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let heard = tokio::select! {
                // Its sender going says the same.
                _ = self.stop.wait_for(|stop| *stop) => return None,
                heard = timeout(left, self.listener.hear()) => heard,
            };
            match heard {
                Ok(Some(heard)) => self.pace.write(&heard, &mut text).await,
                Ok(None) => return None,
                Err(_elapsed) => text.extend_from_slice(b": still listening\n\n"),
            }
        }
        Some((Ok(Bytes::from(text)), self))
    }
}

/// How many events a reader takes in a second.
pub(crate) struct Pace {
    rate: Option<u32>,
    /// Of this second.
    left: u32,
    since: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<u32>) -> Self {
        Self {
            rate,
            left: rate.unwrap_or(0),
            since: Instant::now(),
        }
    }

    /// Writes what was heard, as far as the pace allows.
    async fn write(&mut self, heard: &Heard, into: &mut Vec<u8>) {
        let boot = clock::boot();
        let mut untold = Untold {
            lost: heard.lost,
            skipped: 0,
            ring_full: heard.missing.ring_full,
            missed: heard.missing.missed,
        };
        for some in heard.events.chunks(AT_A_TIME) {
            for told in some {
                if self.allows() {
                    write_event(told, boot, into);
                } else {
                    untold.skipped += 1;
                }
            }
            // All streams share one thread with those who scrape.
            yield_now().await;
        }
        if untold != Untold::default() {
            write_line(b"event: lost\n", &untold, into);
        }
    }

    /// Whether it takes one more.
    pub(crate) fn allows(&mut self) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.left, self.since) = (rate, Instant::now());
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

fn write_event(told: &Told, boot: Duration, into: &mut Vec<u8>) {
    write_line(b"", &EventLine::of(told, boot), into);
}

fn write_line<T: Serialize>(kind: &[u8], value: &T, into: &mut Vec<u8>) {
    let before = into.len();
    into.extend_from_slice(kind);
    into.extend_from_slice(b"data: ");
    // Plain data into memory: if ever this fails, nothing of it is left.
    match serde_json::to_writer(&mut *into, value) {
        Ok(()) => into.extend_from_slice(b"\n\n"),
        Err(_) => into.truncate(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_not_taken_for_all() {
        for (text, name) in [
            (r#"{"port":0}"#, "port"),
            (r#"{"pid":0}"#, "pid"),
            (r#"{"cgroup":0}"#, "cgroup"),
        ] {
            let query: EventsQuery = serde_json::from_str(text).unwrap();
            let error = query.wish().unwrap_err();
            assert!(error.starts_with(&format!("{name} is 0")), "{error}");
        }
        assert_eq!(EventsQuery::default().wish().unwrap().filter, Filter::ANY);
    }
}
