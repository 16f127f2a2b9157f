//! Which sockets do not finish closing, why, and how far the host is from the limits that bite.
//!
//! A file for each detector: [`orphans`], [`fin_wait1`], [`fin_wait2`], [`close_wait`],
//! [`last_ack`], [`time_wait`]. The four that look at single sockets tell a [`Cause`] for each,
//! [`stall`] puts those of one cause and owner together, and [`end`] tells what will end them.
//!
//! Plain data in, plain data out: a census, and the one before it.

mod end;
mod stall;
mod orphans;
mod fin_wait1;
mod fin_wait2;
mod close_wait;
mod last_ack;
mod time_wait;
#[cfg(test)]
mod fixture;

use std::time::Duration;

use agent_ebpf::state::TcpState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    end::{End, EndedBy},
    orphans::{KillsFrom, Orphans},
    stall::{Cause, Detector, Side, Stall, StalledSocket},
    time_wait::{Connector, Minisockets, Ports, Reuse},
};
use crate::census::{Census, Lingering};

/// Findings of one kind that are told; the others are in the series alone.
const FINDINGS_TOLD: usize = 1_000;

/// From when on a socket stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// In FIN_WAIT1, LAST_ACK and CLOSING.
    pub fin_wait1_stall_after: Duration,
    /// In FIN_WAIT2, as a full socket.
    pub fin_wait2_stall_after: Duration,
    /// In CLOSE_WAIT.
    pub close_wait_leak_after: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            fin_wait1_stall_after: Duration::from_secs(5),
            fin_wait2_stall_after: Duration::from_mins(1),
            close_wait_leak_after: Duration::from_mins(1),
        }
    }
}

impl Thresholds {
    /// Whether a socket has been in its state for too long.
    #[must_use]
    pub fn stalls(&self, socket: &Lingering) -> bool {
        let after = match socket.state {
            TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => {
                self.fin_wait1_stall_after
            }
            TcpState::FinWait2 => self.fin_wait2_stall_after,
            TcpState::CloseWait => self.close_wait_leak_after,
            _ => return false,
        };
        socket.age.at_least >= after
    }
}

/// What a census shows that should not be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    /// Sockets that stall, by cause and owner; the oldest first.
    pub stalls: Vec<Stall>,
    /// Stalls beyond those told.
    pub stalls_untold: usize,
    /// Orphans, where they near the limit or were killed.
    pub orphans: Option<Orphans>,
    /// Namespaces whose timewait minisockets near their limit or overflowed it.
    pub time_wait: Vec<Minisockets>,
    /// Destinations toward which ephemeral ports run out.
    pub ports: Vec<Ports>,
    /// Such destinations beyond those told.
    pub ports_untold: usize,
}

impl Findings {
    /// As many as are told: the 1 000 oldest stalls and most crowded destinations, and the number
    /// of the others.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.stalls_untold += cut(&mut self.stalls);
        self.ports_untold += cut(&mut self.ports);
        self
    }
}

/// Leaves as many as are told, and counts those it takes away.
fn cut<T>(findings: &mut Vec<T>) -> usize {
    let untold = findings.len().saturating_sub(FINDINGS_TOLD);
    findings.truncate(FINDINGS_TOLD);
    untold
}

/// What `census` shows, compared with the one before it.
#[must_use]
pub fn detect(census: &Census, before: Option<&Census>, thresholds: &Thresholds) -> Findings {
    let mut stalls = Vec::new();
    for namespace in &census.namespaces {
        let stalled = || {
            let sockets = namespace.lingering.iter();
            sockets.filter(|socket| thresholds.stalls(socket))
        };
        stalls.extend(fin_wait1::find(namespace, stalled()));
        stalls.extend(fin_wait2::find(namespace, stalled()));
        stalls.extend(close_wait::find(namespace, stalled()));
        stalls.extend(last_ack::find(namespace, stalled()));
    }
    stalls.sort_by_key(|stall| std::cmp::Reverse(stall.oldest.at_least));
    Findings {
        stalls,
        stalls_untold: 0,
        orphans: orphans::find(census, before),
        time_wait: time_wait::find_minisockets(census, before),
        ports: time_wait::find_ports(census, before),
        ports_untold: 0,
    }
}
