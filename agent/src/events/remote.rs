//! From a running agent.

use std::{mem, pin::Pin, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use super::{Count, line::Style, output::Output};
use crate::{
    api::{
        event::EventLine,
        events::{EventsQuery, Untold},
    },
    client::{Client, Pieces},
    sse::{Events, Sent},
    workload::{label, plain},
};

/// Bytes of lines that wait for room in the output at most, more than come in one piece.
const WAITING: usize = 1 << 20;

/// Between two lines that tell of losses: a reader that does not read may not for hours.
const LOSSES_EVERY: Duration = Duration::from_secs(10);

/// Characters of what is not understood that are shown.
const LONGEST_STRANGE: usize = 200;

/// The stream that an agent answers with.
pub(super) async fn open(client: &Client, query: &EventsQuery) -> Result<Pieces> {
    let path = format!("/api/v1/events?{}", serde_urlencoded::to_string(query)?);
    Ok(client.stream(&path).await?)
}

/// Prints what the agent tells, until `stop`, its end, or that of whoever reads.
///
/// The stream is read whether the output has room or not: an agent disconnects those that do not
/// take its answers. What finds no room is thrown away and counted.
pub(super) async fn print(
    mut pieces: Pieces,
    style: Style,
    output: &mut Output,
    stop: Pin<&mut impl Future<Output = ()>>,
    count: &mut Count,
) -> Result<()> {
    let mut reader = Reader {
        style,
        count,
        events: Events::default(),
        text: Vec::new(),
        losses: Losses::default(),
    };
    let printed = reader.read(&mut pieces, output, stop).await;
    // There may be room for the last lines; where there is none, they are not waited for.
    let last = mem::take(&mut reader.text);
    if !last.is_empty()
        && let Ok(true) = output.has_room()
    {
        let _gone = output.write(last).await;
    }
    reader.losses.tell();
    printed
}

/// Makes lines of a stream.
struct Reader<'a> {
    style: Style,
    count: &'a mut Count,
    events: Events,
    /// Lines that wait for room.
    text: Vec<u8>,
    losses: Losses,
}

impl Reader<'_> {
    async fn read(
        &mut self,
        pieces: &mut Pieces,
        output: &Output,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<()> {
        let mut greeted = false;
        loop {
            let piece = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                room = output.room(), if !self.text.is_empty() => {
                    let Ok(room) = room else {
                        return Ok(());
                    };
                    room.send(mem::take(&mut self.text));
                    continue;
                }
                piece = pieces.next() => piece?,
            };
            let Some(piece) = piece else {
                eprintln!("the agent at {} has stopped", pieces.place());
                return Ok(());
            };
            if !greeted {
                // The first piece comes once the agent's programs tell what is asked for.
                greeted = true;
                eprintln!("listening to the agent at {}", pieces.place());
            }
            self.take(&piece)?;
            if self.losses.are_due(Instant::now()) {
                self.losses.tell();
            }
        }
    }

    /// Takes in a piece of the stream.
    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.events.add(piece)?;
        while let Some(sent) = self.events.take() {
            match told(sent)? {
                Told::Lost(untold) => {
                    let lost = untold.lost.saturating_add(untold.ring_full);
                    self.count.lost = self.count.lost.saturating_add(lost);
                    self.count.missed = self.count.missed.saturating_add(untold.missed);
                    self.losses.add(0, untold);
                }
                Told::Event(_) if self.text.len() >= WAITING => {
                    self.count.lost = self.count.lost.saturating_add(1);
                    self.losses.add(1, Untold::default());
                }
                Told::Event(line) => {
                    self.style.write(&line, &mut self.text);
                    self.count.printed += 1;
                }
                Told::Strange(what) => {
                    if self.count.strange == 0 {
                        eprintln!(
                            "the agent tells what this one does not understand, being of another \
                             version: {what}; such events are counted"
                        );
                    }
                    self.count.strange += 1;
                }
            }
        }
        Ok(())
    }
}

/// What an agent tells.
#[derive(Debug)]
pub(super) enum Told {
    /// What happened.
    Event(Box<EventLine>),
    /// So many events were lost on the way.
    Lost(Untold),
    /// Something of another version, in its words: a state or cause that is not known here.
    Strange(String),
}

/// Reads what was sent. The agent may be anybody's, so nothing of it is handed on as it came: it is
/// read, cleaned and written anew. What a newer agent adds to an event is left out.
pub(super) fn told(sent: Sent<'_>) -> Result<Told> {
    if sent.kind == b"lost" {
        let untold = serde_json::from_slice(sent.data)
            .map_err(|error| anyhow::anyhow!(plain(&error.to_string(), LONGEST_STRANGE)))
            .context("the agent tells of losses what this one does not understand")?;
        return Ok(Told::Lost(untold));
    }
    if !sent.kind.is_empty() {
        let kind = String::from_utf8_lossy(sent.kind);
        return Ok(Told::Strange(plain(&kind, LONGEST_STRANGE)));
    }
    Ok(match serde_json::from_slice::<EventLine>(sent.data) {
        Ok(mut line) => {
            line.process = line.process.map(|name| label(&name).into());
            Told::Event(Box::new(line))
        }
        Err(error) => Told::Strange(plain(&error.to_string(), LONGEST_STRANGE)),
    })
}

/// Events that were lost and have not been told of.
#[derive(Debug, Default)]
struct Losses {
    /// For want of room in the output.
    here: u64,
    /// Before they came here.
    untold: Untold,
    /// Since when.
    since: Option<Instant>,
}

impl Losses {
    fn add(&mut self, here: u64, more: Untold) {
        self.here = self.here.saturating_add(here);
        for (sum, more) in [
            (&mut self.untold.lost, more.lost),
            (&mut self.untold.ring_full, more.ring_full),
            (&mut self.untold.missed, more.missed),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.since.get_or_insert_with(Instant::now);
    }

    fn are_due(&self, now: Instant) -> bool {
        let waited = self.since.map(|since| now.saturating_duration_since(since));
        waited.is_some_and(|waited| waited >= LOSSES_EVERY)
    }

    fn tell(&mut self) {
        let Untold {
            lost,
            ring_full,
            missed,
            ..
        } = self.untold;
        for (count, what) in [
            (
                self.here,
                "events lost: whoever reads them is too slow, or does not read",
            ),
            (
                lost,
                "events lost: this reader, or the way to it, is too slow",
            ),
            (
                ring_full,
                "events of that host lost: the agent's ring buffer was full",
            ),
            (
                missed,
                "times the kernel skipped a program, and what happened then is not told",
            ),
        ] {
            if count > 0 {
                eprintln!("{count} {what}");
            }
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, data: &str) -> Result<Told> {
        told(Sent {
            kind: kind.as_bytes(),
            data: data.as_bytes(),
        })
    }

    fn written(data: &str, style: Style) -> String {
        let Told::Event(line) = read("", data).unwrap() else {
            panic!("{data}")
        };
        let mut text = Vec::new();
        style.write(&line, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn an_event_is_written_anew_and_clean() {
        let hostile = r#"{ "time": 1.0, "new": "\u001b[2J", "event": "transition", "local": "[::1]:80",
            "remote": "[::1]:4", "process": "a\u001b]0;x\u0007\u009b\u202eb" }"#;
        let json = written(hostile, Style::Json);
        assert_eq!(
            json,
            "{\"time\":1.0,\"event\":\"transition\",\"local\":\"[::1]:80\",\"remote\":\
             \"[::1]:4\",\"process\":\"a\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}b\"}\n"
        );
        let row = written(hostile, Style::Table);
        assert!(
            row.contains(" a\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}b "),
            "{row}"
        );
        // Escapes that JSON needs stay.
        let quoted = hostile.replace("\\u0007", "\\\"");
        let json = written(&quoted, Style::Json);
        assert!(serde_json::from_str::<EventLine>(&json).is_ok(), "{json}");
    }

    #[test]
    fn another_version_is_counted_and_its_words_are_clean() {
        for (kind, data) in [
            ("", r#"{"time":0.0,"event":"\u001b[2J"}"#),
            ("", "\u{1b}[2J"),
            ("\u{1b}[2J", "{}"),
        ] {
            let Ok(Told::Strange(what)) = read(kind, data) else {
                panic!("{data}")
            };
            assert!(!what.contains('\u{1b}'), "{what}");
        }
        let Ok(Told::Lost(untold)) = read("lost", r#"{"lost":7,"new":1}"#) else {
            panic!("nothing was lost")
        };
        assert_eq!(untold.lost, 7);
        let error = format!("{:#}", read("lost", r#"{"lost":"\u001b[2J"}"#).unwrap_err());
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn beyond_what_waits_events_are_lost_and_no_count_overflows() {
        let mut count = Count::default();
        let mut reader = Reader {
            style: Style::Json,
            count: &mut count,
            events: Events::default(),
            text: vec![b' '; WAITING],
            losses: Losses::default(),
        };
        let event = r#"{"time":0.0,"event":"transition","local":"[::1]:1","remote":"[::1]:2"}"#;
        let event = format!("data: {event}\n\n");
        reader.take(event.as_bytes()).unwrap();
        reader.text.clear();
        reader.take(event.as_bytes()).unwrap();
        assert_eq!((reader.losses.here, reader.losses.untold.lost), (1, 0));
        let most = u64::MAX;
        let lost =
            format!("event: lost\ndata: {{\"lost\":{most},\"ring_full\":{most},\"missed\":5}}\n\n");
        reader.take(lost.as_bytes()).unwrap();
        assert_eq!(reader.losses.untold.ring_full, u64::MAX);
        assert_eq!((count.printed, count.lost, count.missed), (1, u64::MAX, 5));
    }

    #[test]
    fn losses_are_told_now_and_then() {
        let mut losses = Losses::default();
        let now = Instant::now();
        assert!(!losses.are_due(now + LOSSES_EVERY));
        losses.add(1, Untold::default());
        losses.add(1, Untold::default());
        assert!(!losses.are_due(now));
        let later = Instant::now() + LOSSES_EVERY;
        assert!(losses.are_due(later));
        losses.tell();
        assert!(!losses.are_due(later));
    }
}
