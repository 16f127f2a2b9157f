//! Writes to standard output, on a thread of its own: whoever reads it may be slow, or gone.

use std::{
    io::{self, Write as _},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{
        mpsc::{Receiver, Sender, channel, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

/// Pieces that wait to be written.
const PIECES: usize = 16;

/// How long the last ones may take once there is nothing more to come.
const FAREWELL: Duration = Duration::from_millis(500);

/// Standard output.
pub(super) struct Output {
    pieces: Option<Sender<Vec<u8>>>,
    /// How writing ended.
    ended: oneshot::Receiver<io::Result<()>>,
    _thread: JoinHandle<()>,
}

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Output {
    /// Writes `header` first.
    pub(super) fn start(header: Vec<u8>) -> Result<Self> {
        let (pieces, to_write) = channel(PIECES);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                // Fails only where nobody asks how it ended.
                let _nobody = end.send(write(&header, to_write));
            })
            .context("the system refused a thread")?;
        Ok(Self {
            pieces: Some(pieces),
            ended,
            _thread: thread,
        })
    }

    /// Waits for room, and has `piece` written.
    pub(super) async fn write(&self, piece: Vec<u8>) -> Result<(), Closed> {
        match &self.pieces {
            Some(pieces) => pieces.send(piece).await.map_err(|_| Closed),
            None => Err(Closed),
        }
    }

    /// Whether there is room for a piece.
    pub(super) fn has_room(&self) -> Result<bool, Closed> {
        match self.pieces.as_ref().map(Sender::try_reserve) {
            Some(Ok(_)) => Ok(true),
            Some(Err(TrySendError::Full(()))) => Ok(false),
            Some(Err(TrySendError::Closed(()))) | None => Err(Closed),
        }
    }

    /// Waits until all is written, though not for ever.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.pieces = None;
        match timeout(FAREWELL, &mut self.ended).await {
            // A reader that has gone has seen enough; one that does not read is not waited for.
            Ok(Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("the events cannot be written")
            }
            _ => Ok(()),
        }
    }
}

fn write(header: &[u8], mut pieces: Receiver<Vec<u8>>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(header)?;
    out.flush()?;
    while let Some(piece) = pieces.blocking_recv() {
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(())
}
