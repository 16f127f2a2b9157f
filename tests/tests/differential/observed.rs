//! What was planned, and what each watcher made of it: plain data.

use std::collections::BTreeSet;

use tests::{states::States, trace::Trace};

use super::{sockets::Glimpse, step::Told};

/// Everything that is compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// What each group must leave.
    pub(super) planned: Vec<Planned>,
    /// The inode numbers of the plan's namespaces.
    pub(super) namespaces: Vec<u32>,
    /// What the agent of each namespace counted.
    pub(super) counted: Vec<Trace>,
    /// What the agent of the host told, of every namespace, on the plan's ports.
    pub(super) told: Vec<Told>,
    /// What tcpstates told, of every namespace, on the plan's ports.
    pub(super) traced: Vec<Told>,
    /// What tracefs recorded, likewise.
    pub(super) recorded: Vec<Told>,
    /// How many lines of tcpstates were left out of it, being of sockets in other namespaces.
    pub(super) others: u64,
    /// Every state that `ss` showed a socket of the plan in.
    pub(super) glimpses: BTreeSet<Glimpse>,
    /// What was found while everything stood still.
    pub(super) stills: Vec<Still>,
    /// What the watchers say themselves that they did not see.
    pub(super) unseen: Unseen,
}

/// A group's port, and what it must leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// Which namespace it is in.
    pub(super) namespace: usize,
    /// Its port.
    pub(super) port: u16,
    /// The trace.
    pub(super) trace: Trace,
}

/// Sockets by state, at a moment at which none moved.
#[derive(Clone, Debug)]
pub(super) struct Still {
    /// In which phase.
    pub(super) phase: usize,
    /// In which namespace.
    pub(super) namespace: usize,
    /// Of the group with this port, or of all.
    pub(super) port: Option<u16>,
    /// Who says so.
    pub(super) left: (Watcher, States),
    /// And who else.
    pub(super) right: (Watcher, States),
}

/// What a watcher could not see, by its own account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unseen {
    /// Runs of the agents' programs that the kernel skipped, on the whole host: the most of any.
    pub(super) skipped_of_agent: u64,
    /// The same of tcpstates' programs.
    pub(super) skipped_of_tcpstates: u64,
    /// Records that tcpstates had no room for.
    pub(super) lost_by_tcpstates: u64,
    /// Events of the whole host that `agent events` was too slow for.
    pub(super) lost_by_events: u64,
}

/// Who knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watcher {
    /// Nobody watched: it must be so.
    Plan,
    /// The agent's counters.
    Counters,
    /// The agent's events.
    Events,
    /// The agent's census.
    Census,
    /// libbpf-tools' tcpstates.
    Tcpstates,
    /// The kernel's own record of the tracepoint.
    Tracefs,
    /// `ss`.
    Ss,
}

impl Observed {
    /// Leaves out sockets that are in no namespace of the plan, such as clients of others that the
    /// kernel gave a port of the plan: a watcher that began a moment earlier saw more of them. Of
    /// the plan's own sockets nothing can go missing so, since the plan says how many there are.
    pub(super) fn drop_others(&mut self) {
        let told = self.told.iter();
        let own: BTreeSet<_> = told
            .filter(|told| {
                told.netns
                    .is_some_and(|netns| self.namespaces.contains(&netns))
            })
            .map(|told| told.key)
            .collect();
        let before = self.traced.len();
        for all in [&mut self.told, &mut self.traced, &mut self.recorded] {
            all.retain(|told| own.contains(&told.key));
        }
        self.others += (before - self.traced.len()) as u64;
    }
}
