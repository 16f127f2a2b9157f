//! `agent top`: the live view in a terminal.
//!
//! [`app`] is what is shown and where the reader is, [`keys`] what each key asks for, [`rates`]
//! what successive snapshots say together: all pure. A file for each screen ([`diagram`] with [`figure`],
//! [`findings`] with [`detail`], [`workloads`], [`feed`], [`help`]) draws it, with what they share
//! in [`table`], [`filter`], [`bars`] and [`style`]; [`frame`] puts them together, and
//! [`terminal`] is the terminal itself.
//!
//! Whoever runs it tells it [`Update`]s, and is told [`Want`]s.

mod app;
mod keys;
mod filter;
mod rates;
mod style;
mod table;
mod list;
mod bars;
mod figure;
mod diagram;
mod finding;
mod findings;
mod detail;
mod workloads;
mod feed;
mod help;
mod frame;
mod terminal;
mod source;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod app_tests;
#[cfg(test)]
mod screen_tests;

use std::{
    sync::mpsc::{Receiver, Sender, TryRecvError},
    time::{Duration, Instant},
};

use anyhow::Result;

pub use source::top;

use self::{
    app::{App, Outcome},
    style::Look,
    terminal::{Input, Tty},
};
use crate::api::{event::EventLine, snapshot::Snapshot};

/// How long keys are waited for before updates are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Between two drawings that no key asked for.
const PACE: Duration = Duration::from_millis(100);

/// Without news: what says how old the data are goes on.
const REST: Duration = Duration::from_secs(1);

/// Updates taken in before keys are looked at again.
const BATCH: usize = 64;

/// What `agent top` is told.
#[derive(Clone, Debug)]
pub enum Update {
    /// The host, once a second.
    Snapshot(Box<Snapshot>),
    /// Events, and how many were lost before them.
    Events {
        /// The newest last.
        lines: Vec<EventLine>,
        /// Those that the reader was too slow for.
        lost: u64,
    },
    /// Why nothing comes, for the status line. The next snapshot ends it.
    Trouble(String),
}

/// What it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Whether the event feed is on the screen: the stream is raised only then.
    Events(bool),
}

/// Shows what `updates` tell until the reader has seen enough, a signal comes, or the terminal is
/// gone. `source` says where they come from.
///
/// # Errors
///
/// Where there is no terminal, or it cannot be written to.
#[expect(
    clippy::needless_pass_by_value,
    reason = "whoever sends learns by its end that the view is closed"
)]
pub fn run(updates: Receiver<Update>, wants: Sender<Want>, source: &str) -> Result<()> {
    let look = Look::of(|name| std::env::var(name).ok());
    let mut tty = Tty::enter()?;
    let mut app = App::new(source);
    let started = Instant::now();
    // A change that a key made is shown at once, another at the next turn.
    let (mut at_once, mut changed) = (true, true);
    let mut drawn = started;
    let mut more = false;
    loop {
        if tty.ends()? {
            return Ok(());
        }
        at_once |= tty.resized();
        let since = drawn.elapsed();
        if at_once || (changed && since >= PACE) || since >= REST {
            tty.draw(|frame| frame::draw(&mut app, frame, look, started.elapsed()))?;
            (at_once, changed, drawn) = (false, false, Instant::now());
        }
        let patience = if more { Duration::ZERO } else { TICK };
        match tty.input(patience) {
            Input::Key(key) => {
                at_once = true;
                if let Some(command) = keys::command(key, app.is_typing()) {
                    match app.command(command) {
                        Outcome::Stay => {}
                        // Nobody may care; then no events come.
                        Outcome::Ask(want) => drop(wants.send(want)),
                        Outcome::Quit => return Ok(()),
                    }
                }
            }
            Input::Nothing => {}
            Input::Gone => return Ok(()),
        }
        let taken = take(&mut app, &updates, started.elapsed());
        changed |= taken > 0;
        more = taken == BATCH;
    }
}

/// Takes in what has come, as much as a batch; says how much that was.
fn take(app: &mut App, updates: &Receiver<Update>, now: Duration) -> usize {
    for taken in 0..BATCH {
        match updates.try_recv() {
            Ok(update) => app.update(update, now),
            Err(TryRecvError::Disconnected) if app.trouble.is_none() => {
                let trouble = "nothing more will come: what told it has ended";
                app.update(Update::Trouble(trouble.to_owned()), now);
                return taken + 1;
            }
            Err(_) => return taken,
        }
    }
    BATCH
}
