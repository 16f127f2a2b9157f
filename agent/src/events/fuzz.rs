//! What must hold of any stream that an agent, or whoever poses as one, answers with.

use super::{
    line::Style,
    remote::{self, Told},
};
use crate::{
    sse::{Events, Sent},
    workload::steers,
};

/// The first byte is the length of the pieces that the rest comes in. However it is cut, the same
/// events are found in it, and nothing of them reaches a terminal as it came.
pub(crate) fn stream(input: &[u8]) {
    let Some((length, answer)) = input.split_first() else {
        return;
    };
    let mut whole = Events::default();
    assert_eq!(whole.add(answer), Ok(()));
    let mut pieces = Events::default();
    let mut cut = Vec::new();
    for piece in answer.chunks(usize::from(*length).max(1)) {
        if pieces.add(piece).is_err() {
            return;
        }
        while let Some(Sent { kind, data }) = pieces.take() {
            cut.push((kind.to_vec(), data.to_vec()));
        }
    }
    let mut cut = cut.into_iter();
    while let Some(sent) = whole.take() {
        assert_eq!(cut.next(), Some((sent.kind.to_vec(), sent.data.to_vec())));
        event(sent);
    }
    assert_eq!(cut.next(), None);
}

fn event(sent: Sent<'_>) {
    match remote::told(sent) {
        Ok(Told::Event(line)) => {
            for style in [Style::Json, Style::Table] {
                let mut text = Vec::new();
                style.write(&line, &mut text);
                let text = String::from_utf8(text).unwrap_or_default();
                let line = text.strip_suffix('\n').unwrap_or("\n");
                assert!(!line.chars().any(steers), "{line:?}");
            }
        }
        Ok(Told::Lost(_)) => assert_eq!(sent.kind, b"lost"),
        Ok(Told::Strange(what)) => clean(&what),
        Err(error) => clean(&format!("{error:#}")),
    }
}

fn clean(text: &str) {
    assert!(
        text.chars().count() <= 300 && !text.chars().any(steers),
        "{text:?}"
    );
}
