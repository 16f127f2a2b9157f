//! From a running agent.

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;

use super::{Count, line::Style, output::Output};
use crate::{
    api::{
        event::EventLine,
        events::{EventsQuery, Untold},
    },
    client::Client,
    sse::{Events, Sent},
};

/// Prints what the agent tells, until `stop`, its end, or that of whoever reads.
pub(super) async fn print(
    client: &Client,
    query: &EventsQuery,
    style: Style,
    output: &mut Output,
    stop: impl Future<Output = ()>,
) -> Result<Count> {
    let path = format!("/api/v1/events?{}", serde_urlencoded::to_string(query)?);
    let mut body = client.open(&path).await?.into_body();
    let mut stop = std::pin::pin!(stop);
    let mut events = Events::default();
    let mut count = Count::default();
    let mut greeted = false;
    loop {
        let frame = tokio::select! {
            () = &mut stop => return Ok(count),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else {
            eprintln!("the agent at {} has stopped", client.place());
            return Ok(count);
        };
        let frame = frame.with_context(|| format!("{} broke off", client.place()))?;
        if !greeted {
            // The first piece comes once the agent's programs tell what is asked for.
            greeted = true;
            eprintln!("listening to the agent at {}", client.place());
        }
        if let Ok(data) = frame.into_data() {
            events.add(&data)?;
        }
        let mut text = Vec::new();
        while let Some(sent) = events.take() {
            take(sent, style, &mut text, &mut count)?;
        }
        if !text.is_empty() && output.write(text).await.is_err() {
            return Ok(count);
        }
    }
}

fn take(sent: Sent<'_>, style: Style, text: &mut Vec<u8>, count: &mut Count) -> Result<()> {
    let strange = "the agent tells what this one does not understand";
    if sent.kind == b"lost" {
        let untold: Untold = serde_json::from_slice(sent.data).context(strange)?;
        count.lost += untold.lost;
        eprintln!(
            "{} events lost: this reader, or what it writes to, is too slow",
            untold.lost
        );
        return Ok(());
    }
    match style {
        // It is one already.
        Style::Json => {
            text.extend_from_slice(sent.data);
            text.push(b'\n');
        }
        Style::Table => {
            let line: EventLine = serde_json::from_slice(sent.data).context(strange)?;
            style.write(&line, text);
        }
    }
    count.printed += 1;
    Ok(())
}
