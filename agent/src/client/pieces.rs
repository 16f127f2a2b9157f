//! An answer that goes on, piece by piece.

use std::{error::Error, time::Duration};

use axum::body::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::ClientError;

/// How long nothing may come. An agent sends something every 10 s, a comment if there is no more to
/// tell: a host that has lost its power, or its way here, would be waited for without end.
const SILENCE: Duration = Duration::from_secs(30);

/// Once that time is over, how long what has come is looked for. Where the process itself was
/// stopped (Ctrl-Z) the time ran out before anything could be looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The pieces of an answer.
#[derive(Debug)]
pub struct Pieces<B = Incoming> {
    place: String,
    body: B,
    silence: Duration,
    /// When the last piece came.
    heard: Instant,
}

impl<B> Pieces<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) fn new(place: String, body: B) -> Self {
        Self {
            place,
            body,
            silence: SILENCE,
            heard: Instant::now(),
        }
    }

    /// Who answers, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The next piece; nothing at the end. Whoever gives up waiting for it misses none.
    ///
    /// # Errors
    ///
    /// Where the answer breaks off, or none comes for 30 s.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match timeout_at(self.heard + self.silence, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_elapsed) => {
                    let late = timeout(LOOK.min(self.silence), self.body.frame()).await;
                    late.map_err(|_elapsed| ClientError::Silent {
                        place: self.place.clone(),
                        seconds: self.silence.as_secs(),
                    })?
                }
            };
            self.heard = Instant::now();
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| ClientError::BrokeOff {
                place: self.place.clone(),
                source: error.into(),
            })?;
            // What is no data would be trailers, which no agent sends.
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn pieces<S>(stream: S) -> Pieces<StreamBody<S>>
    where
        S: futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Unpin,
    {
        let mut pieces = Pieces::new("there".to_owned(), StreamBody::new(stream));
        pieces.silence = Duration::from_millis(50);
        pieces
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn pieces_come_until_the_end() {
        let mut pieces = pieces(stream::iter([data("a"), data("b")].map(Ok)));
        assert_eq!(pieces.next().await.unwrap().unwrap(), "a");
        // What was there when the time ran out still counts.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(pieces.next().await.unwrap().unwrap(), "b");
        assert_eq!(pieces.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn silence_is_an_end() {
        let stream = stream::iter([Ok(data("a"))]).chain(stream::pending());
        let mut pieces = pieces(stream);
        assert!(pieces.next().await.unwrap().is_some());
        let started = Instant::now();
        let error = pieces.next().await.unwrap_err().to_string();
        assert!(error.contains("nothing has come from the agent at there"));
        assert!(started.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn giving_up_waiting_does_not_begin_the_time_anew() {
        let mut pieces = pieces(stream::pending());
        let heard = pieces.heard;
        let given_up = timeout(Duration::from_millis(1), pieces.next()).await;
        assert!(given_up.is_err());
        assert_eq!(pieces.heard, heard);
    }

    #[tokio::test]
    async fn a_break_is_no_end() {
        let mut pieces = pieces(stream::iter([Err(io::Error::other("cut"))]));
        let error = pieces.next().await.unwrap_err();
        assert_eq!(error.to_string(), "the agent at there broke off");
    }
}
