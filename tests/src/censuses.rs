//! Censuses, one after the other.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use agent::{
    census::{Census, NamespaceCensus, Options, Taker},
    detectors::Thresholds,
};
use anyhow::{Context as _, Result};

use crate::{netns::Netns, watch::Watch};

/// The shortest there is.
const INTERVAL: Duration = Duration::from_millis(500);

/// Longer than any census.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running taker. It waits with each census until somebody takes that.
pub struct Censuses {
    /// Dropped first: then the taker waits for nobody.
    taken: Receiver<Census>,
    _taker: Taker,
}

impl Censuses {
    /// Starts one for the namespace with this inode number, or for all where that is 0.
    ///
    /// # Errors
    ///
    /// Where this kernel cannot, or a taker has been started on `watch` before.
    pub fn start(watch: &mut Watch, only_netns: u32, thresholds: Thresholds) -> Result<Self> {
        let reader = watch.kernel().take_census()?.context("no census")?;
        let (sender, censuses) = sync_channel(0);
        let options = Options {
            interval: INTERVAL,
            at_any_cost: true,
            only_netns,
            thresholds,
        };
        let taker = Taker::start(reader, options, sender)?;
        Ok(Self {
            taken: censuses,
            _taker: taker,
        })
    }

    /// The next census, which may have begun before.
    ///
    /// # Errors
    ///
    /// Where none comes within a minute.
    pub fn next(&self) -> Result<Census> {
        self.taken.recv_timeout(PATIENCE).context("no census came")
    }

    /// A census that begins after this call.
    ///
    /// # Errors
    ///
    /// Where none comes within a minute.
    pub fn fresh(&self) -> Result<Census> {
        self.next()?;
        self.next()
    }
}

/// What a census found in this namespace.
#[must_use]
pub fn of<'a>(census: &'a Census, netns: &Netns) -> Option<&'a NamespaceCensus> {
    let mut all = census.namespaces.iter();
    all.find(|namespace| namespace.inode == u64::from(netns.inode()))
}
