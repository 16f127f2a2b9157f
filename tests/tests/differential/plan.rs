//! What the workload does: a pure function of a seed.

use std::fmt;

use tests::{
    place::{Family, Place},
    random::Random,
    trace::Trace,
    ways::{DELAYED, FAST, SLOW, Way, connect, graceful},
};

use super::{namesake, standing::Standing};

/// How many namespaces it is done in.
pub(super) const NAMESPACES: usize = 3;

/// How often everything is let stand still.
pub(super) const PHASES: usize = 4;

/// Beneath the ephemeral range, and above what other tests listen at.
pub(super) const FIRST_PORT: u16 = 30_000;

/// Ports that groups may have.
pub(super) const PORTS: u16 = 2_700;

/// Groups of each kind in a phase of a namespace, and how many connections one has.
const FAST_GROUPS: (usize, u64, u64) = (8, 10, 40);
const DELAYED_GROUPS: (usize, u64, u64) = (4, 5, 15);
const SLOW_GROUPS: (usize, u64, u64) = (2, 3, 8);
const STANDING_GROUPS: (usize, u64, u64) = (4, 3, 12);

/// What the connections of a group do.
#[derive(Clone, Copy)]
pub(super) enum Script {
    /// They come and go.
    Way(&'static Way),
    /// They come, stand still while sockets are counted, and go.
    Standing(&'static Standing),
}

impl Script {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Way(way) => way.name,
            Self::Standing(standing) => standing.name,
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Connections to one port, which nothing else has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Which namespace they are in.
    pub(super) namespace: usize,
    /// Their addresses' family, and the port.
    pub(super) place: Place,
    /// What they do.
    pub(super) script: Script,
    /// How many they are.
    pub(super) n: usize,
}

impl Group {
    /// The trace that they leave, that of their listener included.
    pub(super) fn leaves(&self) -> Trace {
        match self.script {
            Script::Way(way) => (way.leaves)(self.n),
            Script::Standing(standing) => (standing.leaves)(self.n),
        }
    }
}

/// One thread's part of a phase, in this order.
pub(super) type Lane = Vec<Group>;

/// The whole.
#[derive(Debug)]
pub(super) struct Plan {
    /// By phase and namespace: what waits for timers of seconds, and all else.
    pub(super) phases: Vec<[[Lane; 2]; NAMESPACES]>,
}

impl Plan {
    /// That of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let mut port = FIRST_PORT;
        let decks = |scripts: Vec<Script>| Deck {
            all: scripts,
            left: Vec::new(),
        };
        let ways = |ways: &[&'static Way]| ways.iter().map(|way| Script::Way(way)).collect();
        // The first two take ports that the plan does not know; the last looks for what is there for
        // a second, which a busy host misses.
        let left_out = [
            graceful::SELF_CONNECTION.name,
            connect::NO_EPHEMERAL_PORT.name,
            graceful::FULL_FIN_WAIT2.name,
        ];
        let known = |table: &'static [Way]| {
            let known = |way: &&Way| !left_out.contains(&way.name);
            table.iter().filter(known).collect::<Vec<_>>()
        };
        let mut fast = known(FAST);
        fast.push(&namesake::SELF_CONNECTED);
        let mut decks = [
            (SLOW_GROUPS, decks(ways(&known(SLOW)))),
            (FAST_GROUPS, decks(ways(&fast))),
            (DELAYED_GROUPS, decks(ways(&known(DELAYED)))),
            (
                STANDING_GROUPS,
                decks(Standing::ALL.iter().map(Script::Standing).collect()),
            ),
        ];
        let phases = (0..PHASES).map(|_| {
            std::array::from_fn(|namespace| {
                let mut lanes = [Lane::new(), Lane::new()];
                for (number, ((groups, least, most), deck)) in decks.iter_mut().enumerate() {
                    for _ in 0..*groups {
                        let family = Family::ALL[random.index(Family::ALL.len())];
                        let n = *least + random.below(*most - *least + 1);
                        lanes[number.min(1)].push(Group {
                            namespace,
                            place: Place { family, port },
                            script: deck.draw(&mut random),
                            n: usize::try_from(n).unwrap_or_default(),
                        });
                        port += 1;
                    }
                }
                random.shuffle(&mut lanes[1]);
                lanes
            })
        });
        Self {
            phases: phases.collect(),
        }
    }

    /// Every group.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.phases.iter().flatten().flatten().flatten()
    }
}

/// Scripts in an order of chance, each as often as any other.
struct Deck {
    all: Vec<Script>,
    left: Vec<Script>,
}

impl Deck {
    fn draw(&mut self, random: &mut Random) -> Script {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            random.shuffle(&mut self.left);
        }
        self.left.pop().unwrap_or(self.all[0])
    }
}

mod tests_of_it {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let told = |seed| format!("{:?}", Plan::of(seed));
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    #[test]
    fn every_plan_has_every_script_in_thousands_of_connections_on_ports_of_their_own() {
        for seed in 0..100 {
            let plan = Plan::of(seed);
            let scripts: BTreeSet<_> = plan.groups().map(|group| group.script.name()).collect();
            // Three ways are left out, and one is the plan's own.
            let known = FAST.len() + DELAYED.len() + SLOW.len() - 3 + 1 + Standing::ALL.len();
            assert_eq!(scripts.len(), known, "{scripts:?}");
            let families: BTreeSet<_> = plan
                .groups()
                .map(|group| format!("{:?}", group.place.family))
                .collect();
            assert_eq!(families.len(), Family::ALL.len());
            let connections: usize = plan.groups().map(|group| group.n).sum();
            assert!((2_000..5_000).contains(&connections), "{connections}");
            let ports: BTreeSet<_> = plan.groups().map(|group| group.place.port).collect();
            assert_eq!(ports.len(), plan.groups().count());
            assert!(
                ports
                    .iter()
                    .all(|port| (FIRST_PORT..FIRST_PORT + PORTS).contains(port))
            );
        }
    }
}
