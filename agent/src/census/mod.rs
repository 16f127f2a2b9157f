//! Which sockets there are, in every network namespace of the host, and whose.
//!
//! The [`taker`] is the thread. Each [`round`] it enters one namespace after the other
//! ([`namespaces`]), by [`plan`] has its sockets counted in full or but for what is [`quick`] to
//! tell, and passes over those without. The sockets that linger or listen are handed over one by
//! one ([`socket`]); [`memory`] knows them from one census to the next, [`owners`] whose they are,
//! [`cgroups`] by which name, and [`connects`] who goes whither.

mod namespaces;
mod socket;
mod memory;
mod cgroups;
mod owners;
mod connects;
mod plan;
mod quick;
mod round;
mod taker;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::{net::IpAddr, sync::Arc, time::Duration};

use agent_ebpf::{
    census::{CensusCounts, CgroupCounts},
    state::TcpState,
};

pub use self::{
    namespaces::{Found, Namespace, find, host},
    owners::Owner,
    socket::{Age, Lingering, Listener, Timers},
    taker::{Options, Taker},
};
use crate::{limits::Limits, workload::Workload};

/// What one census found.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// When it was complete: time since 1970.
    pub completed: Duration,
    /// When it was complete: CLOCK_MONOTONIC.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// How long after its beginning the next one is to begin.
    pub interval: Duration,
    /// How long the full passes in it took.
    pub full_took: Duration,
    /// How long the quick pass took; nothing where every namespace had a full one.
    pub known_took: Option<Duration>,
    /// When the oldest of the full passes that these numbers rest on ended: time since 1970.
    pub full_completed: Duration,
    /// The sockets of each namespace.
    pub namespaces: Vec<NamespaceCensus>,
    /// Namespaces that could not be entered or counted, and ways into those beyond 4096.
    pub unreached: usize,
    /// Every namespace that was found, those not reached included, and those beyond 4096 not.
    pub present: Vec<u64>,
    /// The full sockets of each workload, by the cgroup they were made in.
    pub workloads: Vec<(Arc<Workload>, CgroupCounts)>,
    /// Connects since the agent started.
    pub connects: Vec<Connects>,
}

/// The sockets of one network namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceCensus {
    /// Its inode number.
    pub inode: u64,
    /// Whether it is the host's: process 1 is in it.
    pub is_host: bool,
    /// What the first process found in it is part of; nothing where only a mount keeps it.
    pub workload: Option<Arc<Workload>>,
    /// Its sockets by state.
    pub counts: CensusCounts,
    /// Those that have been in a lingering state for more than a second, or for nobody knows how
    /// long.
    pub lingering: Vec<Lingering>,
    /// Those that listen.
    pub listeners: Vec<Listener>,
    /// Sockets that are only counted: lingering or listening ones beyond what is told one by one,
    /// and those whose cgroup or range of ephemeral ports found no room.
    pub untold: u64,
    /// Those of them whose range of ports found none, by the last full pass.
    pub ports_untold: u64,
    /// Its sockets on ephemeral ports.
    pub ports: Vec<PortUse>,
    /// What its kernel allows and has had to refuse.
    pub limits: Limits,
}

/// How many ephemeral ports lead from one address to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The local address.
    pub source: IpAddr,
    /// The remote address.
    pub destination: IpAddr,
    /// The remote port.
    pub port: u16,
    /// Local ports, all distinct.
    pub used: u64,
}

/// How often one workload has connected to one address and port since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connects {
    /// Who.
    pub workload: Arc<Workload>,
    /// The network namespace's inode number.
    pub netns: u64,
    /// The remote address.
    pub destination: IpAddr,
    /// The remote port.
    pub port: u16,
    /// How often.
    pub count: u64,
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

    /// Whether there are sockets that may have been for long in a state that begins with a system
    /// call: unlike others, they hold nothing that tells since when.
    fn may_stall(&self) -> bool {
        let mut sockets = self
            .namespaces
            .iter()
            .flat_map(|namespace| &namespace.lingering);
        sockets.any(|socket| {
            !socket.age.exact && matches!(socket.state, TcpState::FinWait1 | TcpState::LastAck)
        })
    }
}

impl NamespaceCensus {
    /// Its name as a label: `host`, or the inode number.
    #[must_use]
    pub fn name(&self) -> String {
        if self.is_host {
            "host".to_owned()
        } else {
            self.inode.to_string()
        }
    }

    /// Whether something listens on this port.
    #[must_use]
    pub fn listens(&self, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.local.port() == port)
    }
}
