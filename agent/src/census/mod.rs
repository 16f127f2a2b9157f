//! How many sockets are in which state, in every network namespace of the host.
//!
//! The [`taker`] enters one namespace after the other ([`namespaces`]), passes over those without
//! sockets ([`sockstat`]), and counts those of the others.

mod namespaces;
mod sockstat;
mod taker;

use std::time::Duration;

use agent_ebpf::census::CensusCounts;

pub use self::{
    namespaces::{Namespace, find},
    taker::Taker,
};

/// What one census found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// When it was complete: time since 1970.
    pub completed: Duration,
    /// How long it took.
    pub took: Duration,
    /// The sockets of each namespace.
    pub namespaces: Vec<NamespaceCensus>,
    /// Namespaces that could not be entered or counted.
    pub unreached: usize,
}

/// The sockets of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceCensus {
    /// Its inode number.
    pub inode: u64,
    /// Its sockets.
    pub counts: CensusCounts,
}

impl Census {
    /// All namespaces together.
    #[must_use]
    pub fn total(&self) -> CensusCounts {
        let mut total = CensusCounts::ZERO;
        for namespace in &self.namespaces {
            total.add(&namespace.counts);
        }
        total
    }
}
