//! Writes to standard output, on a thread of its own: whoever reads it may be slow, or gone.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{
        mpsc::{Permit, Receiver, Sender, channel, error::TrySendError},
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
    /// Lines written so far, the header not among them.
    lines: Arc<AtomicU64>,
    /// How writing ended.
    ended: oneshot::Receiver<io::Result<()>>,
    _thread: JoinHandle<()>,
}

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What has become of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    /// So many were written.
    pub(super) lines: u64,
    /// Whether the reader had gone before, having seen enough.
    pub(super) is_closed: bool,
}

impl Output {
    /// Writes `header` first.
    pub(super) fn start(header: Vec<u8>) -> Result<Self> {
        // Without a buffer of its own: what is counted as written is.
        let out = io::stdout().as_fd().try_clone_to_owned();
        let out = File::from(out.context("standard output cannot be written to")?);
        let (pieces, to_write) = channel(PIECES);
        let (end, ended) = oneshot::channel();
        let lines = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lines);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                // Fails only where nobody asks how it ended.
                let _nobody = end.send(write(out, &header, to_write, &counted));
            })
            .context("the system refused a thread")?;
        Ok(Self {
            pieces: Some(pieces),
            lines,
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

    /// Waits for room for a piece. Whoever gives up waiting has lost nothing.
    pub(super) async fn room(&self) -> Result<Permit<'_, Vec<u8>>, Closed> {
        match &self.pieces {
            Some(pieces) => pieces.reserve().await.map_err(|_| Closed),
            None => Err(Closed),
        }
    }

    /// Waits until all is written, though not for ever.
    pub(super) async fn finish(&mut self) -> (Farewell, Result<()>) {
        self.pieces = None;
        let ended = timeout(FAREWELL, &mut self.ended).await;
        let (is_closed, ended) = match ended {
            // A reader that has gone has seen enough.
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::BrokenPipe => (true, Ok(())),
            Ok(Ok(Err(error))) => (false, Err(error).context("the events cannot be written")),
            // One that does not read is not waited for.
            _ => (false, Ok(())),
        };
        let lines = self.lines.load(Ordering::Acquire);
        (Farewell { lines, is_closed }, ended)
    }
}

fn write(
    mut out: File,
    header: &[u8],
    mut pieces: Receiver<Vec<u8>>,
    lines: &AtomicU64,
) -> io::Result<()> {
    out.write_all(header)?;
    while let Some(piece) = pieces.blocking_recv() {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let taken = match out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            let (written, left) = rest.split_at(taken);
            let ends = written.split(|byte| *byte == b'\n').skip(1).count();
            lines.fetch_add(ends as u64, Ordering::Release);
            rest = left;
        }
    }
    Ok(())
}
