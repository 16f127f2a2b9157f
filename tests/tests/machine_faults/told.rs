//! What the agent tells a listener.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::wait::DEADLINE;

use super::scene::{Scene, socket_of};

/// A listener to all events, through the agent's socket: it makes no connection that is counted.
pub(super) struct Listener(BufReader<UnixStream>);

impl Listener {
    /// Asks for them. Of HTTP/1.0, so that the answer comes as it is.
    pub(super) fn new(scene: &Scene) -> Result<Self> {
        let mut stream = UnixStream::connect(socket_of(scene.api_socket()?))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /api/v1/events?mode=all HTTP/1.0\r\nHost: agent\r\n\r\n")?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The time, in seconds since 1970, of the next event that is the beginning of a listening
    /// socket.
    pub(super) fn next_listen(&mut self) -> Result<f64> {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).context("no event")?;
            ensure!(read > 0, "the stream of events ended");
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value = serde_json::from_str(data)?;
            if event["to"] == "listen" {
                return event["time"].as_f64().context("an event without a time");
            }
        }
    }
}
