//! Reads server-sent events (HTML Living Standard, 9.2.6), as far as the API sends them: pure.

/// Bytes of an event at most; the API's own stay far below.
const LONGEST: usize = 64 * 1024;

/// Gathers pieces of a stream, and takes events from it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    /// How many bytes of the buffer were taken already.
    taken: usize,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent<'a> {
    /// Its type; empty where it has none.
    pub(crate) kind: &'a [u8],
    /// Its data, of one line.
    pub(crate) data: &'a [u8],
}

/// An event that is longer than any the API sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream sends an event of more than {LONGEST} bytes: this is no connstate API")]
pub(crate) struct TooLong;

impl Events {
    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// Where what was not taken grows too long.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let is_whole = self.buffer.is_empty() || self.buffer.len() <= LONGEST;
        self.buffer.extend_from_slice(piece);
        if is_whole { Ok(()) } else { Err(TooLong) }
    }

    /// The next whole event, comments left out.
    pub(crate) fn take(&mut self) -> Option<Sent<'_>> {
        loop {
            let rest = self.buffer.get(self.taken..)?;
            let end = rest.windows(2).position(|two| two == b"\n\n")?;
            let start = self.taken;
            self.taken += end + 2;
            let block = start..start + end;
            let has_data = data(self.buffer.get(block.clone())?).is_some();
            if has_data {
                let block = self.buffer.get(block)?;
                return Some(Sent {
                    kind: field(block, b"event: ").unwrap_or_default(),
                    data: data(block)?,
                });
            }
        }
    }
}

fn data(block: &[u8]) -> Option<&[u8]> {
    field(block, b"data: ")
}

/// The rest of the line that begins so.
fn field<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = block.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(events: &mut Events) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut all = Vec::new();
        while let Some(Sent { kind, data }) = events.take() {
            all.push((text(kind), text(data)));
        }
        all
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream = b": listening\n\ndata: {\"a\":1}\n\nevent: lost\ndata: {\"lost\":2}\n\n";
        for cut in 0..stream.len() {
            let mut events = Events::default();
            events.add(&stream[..cut]).unwrap();
            let mut found = all(&mut events);
            events.add(&stream[cut..]).unwrap();
            found.extend(all(&mut events));
            let expected = [("", r#"{"a":1}"#), ("lost", r#"{"lost":2}"#)];
            let expected = expected.map(|(kind, data)| (kind.to_owned(), data.to_owned()));
            assert_eq!(found, expected, "{cut}");
        }
    }

    #[test]
    fn an_event_that_does_not_end_is_refused() {
        let mut events = Events::default();
        let mut added = Ok(());
        for _ in 0..LONGEST / 1_000 + 2 {
            added = added.and(events.add(&[b'x'; 1_000]));
            assert!(events.take().is_none());
        }
        assert_eq!(added, Err(TooLong));
    }
}
