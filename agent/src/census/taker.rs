//! The thread that takes a census again and again.
//!
//! It enters one network namespace after the other, which changes what the whole thread sees, so
//! it does nothing else.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    thread::JoinHandle,
    time::Duration,
};

use rustix::time::ClockId;
use tracing::{debug, error};

use super::{Census, round::Rounds};
use crate::{
    clock,
    confinement::{self, Role},
    detectors::Thresholds,
    kernel::CensusReader,
    logging::Complaint,
};

/// Which censuses are taken.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often, or less often where they would take more than 1 % of one core.
    pub interval: Duration,
    /// Every one of them in full and at its time, whatever they cost.
    pub at_any_cost: bool,
    /// The inode number of the only network namespace to count; 0 for all.
    pub only_netns: u32,
    /// From when on a socket stalls, and its owner is asked for.
    pub thresholds: Thresholds,
}

/// A running thread; dropping it stops it once the namespace it counts is done.
pub struct Taker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Taker {
    /// Takes one census, on a thread of its own; and a second one, before which the first stands,
    /// where some sockets may have stalled already: nobody saw their state begin, and only whether
    /// they are still in it after the threshold tells.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left, or no /proc.
    pub fn once(reader: CensusReader, options: Options) -> io::Result<(Option<Census>, Census)> {
        let mut rounds = Rounds::new(reader, options);
        let thread = std::thread::Builder::new()
            .name("census".to_owned())
            .spawn(move || {
                let (_never, stopped) = channel();
                let mut take = || Ok::<_, io::Error>(rounds.census(&stopped)?.unwrap_or_default());
                let census = take()?;
                if !census.may_stall() {
                    return Ok((None, census));
                }
                std::thread::sleep(options.thresholds.fin_wait1_stall_after);
                Ok((Some(census), take()?))
            })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the census's thread ended in a panic")))
    }

    /// Starts the thread: a census at once, then one each interval. Waits where `censuses` is
    /// full.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left.
    pub fn start(
        reader: CensusReader,
        options: Options,
        censuses: SyncSender<Census>,
    ) -> io::Result<Self> {
        let rounds = Rounds::new(reader, options);
        let (stop, stopped) = channel();
        let thread = confinement::spawn(Role::Census, "census", move || {
            run(rounds, &censuses, &stopped);
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the census's thread ended in a panic");
        }
    }
}

/// Takes censuses until it is told to stop.
fn run(mut rounds: Rounds, censuses: &SyncSender<Census>, stopped: &Receiver<()>) {
    // What hides /proc may stay, and a line for each census would fill the log.
    let mut untaken = Complaint::default();
    loop {
        let (started, worked) = (clock::monotonic(), clock::read(ClockId::ThreadCPUTime));
        let taken = untaken.about(rounds.census(stopped), "no census: /proc cannot be read");
        let cost = clock::read(ClockId::ThreadCPUTime).saturating_sub(worked);
        let interval = rounds.space(cost);
        let send = |census| censuses.send(Census { interval, ..census }).is_err();
        // Nothing in it: told to stop. Not to be sent: the engine has gone.
        if let Some(census) = taken
            && census.is_none_or(send)
        {
            return;
        }
        let pause = (started + interval).saturating_sub(clock::monotonic());
        debug!(?cost, ?pause, "a census is over");
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
