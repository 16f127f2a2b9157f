//! What explanations rest on: drawn once from everything that was observed.

use std::collections::{BTreeMap, BTreeSet};

use agent_ebpf::close::CloseCause;

use super::{
    compare::tally,
    observed::Observed,
    step::{Key, Step, Told},
};

/// How often each socket's transitions are short of what tracefs recorded.
type Short = BTreeMap<(Key, Step), u64>;

/// The evidence.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// All that was observed.
    pub(super) observed: &'a Observed,
    /// What tracefs recorded, and neither the agent nor tcpstates told.
    pub(super) hidden: Short,
    /// What tracefs recorded and the agent told, and tcpstates did not.
    pub(super) untraced: Short,
    /// How often the agent told a transition at a port of sockets in other namespaces.
    elsewhere: BTreeMap<(u16, Step), u64>,
    /// The sockets that the agent told of, and why they closed, by the namespace's inode number.
    sockets: BTreeMap<(u32, Key), BTreeSet<CloseCause>>,
}

impl<'a> Evidence<'a> {
    /// That of what was observed.
    pub(super) fn of(observed: &'a Observed) -> Self {
        let recorded = by_socket(&observed.recorded);
        let (told, traced) = (by_socket(&observed.told), by_socket(&observed.traced));
        let count = |of: &Short, one: &(Key, Step)| of.get(one).copied().unwrap_or(0);
        let short = |there_is: &dyn Fn(&(Key, Step)) -> u64| {
            let all = recorded.iter();
            all.map(|(one, recorded)| (*one, recorded.saturating_sub(there_is(one))))
                .filter(|(_, short)| *short > 0)
                .collect::<Short>()
        };
        let mut untraced = short(&|one| count(&traced, one));
        untraced.retain(|one, _| count(&told, one) == count(&recorded, one));
        let is_elsewhere = |told: &&Told| {
            let mut netns = told.netns.iter();
            netns.any(|netns| !observed.namespaces.contains(netns))
        };
        let elsewhere = observed.told.iter().filter(is_elsewhere);
        let mut sockets = BTreeMap::<_, BTreeSet<_>>::new();
        for told in &observed.told {
            if let Some(netns) = told.netns {
                let causes = sockets.entry((netns, told.key)).or_default();
                causes.extend(told.cause);
            }
        }
        let mut hidden = short(&|one| count(&told, one).max(count(&traced, one)));
        // The agent tells none to the same state: such a one may be tcpstates' own loss.
        hidden.retain(|(_, step), _| step.0 != step.1);
        Self {
            observed,
            hidden,
            untraced,
            elsewhere: tally(elsewhere.map(|told| (told.key.port, told.step))),
            sockets,
        }
    }

    /// How often the agent told a transition at this port of sockets in other namespaces.
    pub(super) fn elsewhere(&self, port: u16, step: Step) -> u64 {
        self.elsewhere.get(&(port, step)).copied().unwrap_or(0)
    }

    /// Why a socket of this key closed, each time one did; nothing where none was told of.
    pub(super) fn causes(&self, namespace: usize, key: Key) -> Option<&BTreeSet<CloseCause>> {
        let inode = self.observed.namespaces.get(namespace)?;
        self.sockets.get(&(*inode, key))
    }

    /// Whether a port is one of this namespace's.
    pub(super) fn is_in(&self, namespace: usize, port: u16) -> bool {
        let mut planned = self.observed.planned.iter();
        planned.any(|planned| planned.port == port && planned.namespace == namespace)
    }
}

fn by_socket(told: &[Told]) -> Short {
    tally(told.iter().map(|told| (told.key, told.step)))
}
