//! All watchers of one run, from before its first transition to after its last.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tempfile::TempDir;
use tests::{netns::Netns, place::own_descriptors, states::States, wait};

use super::{
    agents::{Agent, Listening},
    namesake,
    observed::{Observed, Planned, Still, Unseen, Watcher},
    plan::{NAMESPACES, PHASES, Plan, Script},
    sockets::{self, Glimpse},
    tcpstates::Tcpstates,
    tracefs::Recording,
    workload,
};

/// Between two looks of `ss` at a namespace.
const PERIOD: Duration = Duration::from_millis(250);

/// How often it must have looked to have seen anything of the plan's phases.
const FEWEST_LOOKS: usize = 5;

/// How long nothing is told before what is still missing is given up.
const QUIET: Duration = Duration::from_secs(2);

/// Looks for a moment without a movement.
const LOOKS: usize = 10;

/// Carries out the plan beneath all eyes; nothing where there is no tcpstates.
pub(super) fn watch(plan: &Plan) -> Result<Option<Observed>> {
    let directory = tempfile::tempdir()?;
    let ports: Vec<_> = plan.groups().map(|group| group.place.port).collect();
    let Some(tcpstates) = Tcpstates::start(directory.path(), &ports)? else {
        return Ok(None);
    };
    let namespaces = (0..NAMESPACES).map(|_| Netns::new());
    let namespaces = namespaces.collect::<Result<Vec<_>>>()?;
    let watchers = Watchers::start(&directory, &namespaces, tcpstates)?;
    let seen = Mutex::new(BTreeSet::new());
    let is_over = AtomicBool::new(false);
    let mut stills = Vec::new();
    let done = thread::scope(|scope| {
        let looking = scope.spawn(|| look(&namespaces, &seen, &is_over));
        let done = workload::carry_out(plan, &namespaces, |phase| {
            if phase + 1 == PHASES {
                namesake::strangers(&Netns::new()?)?;
            }
            watchers.stand_still(plan, phase, &mut stills, &seen)
        });
        is_over.store(true, Ordering::Release);
        let looked = looking.join().unwrap_or_else(|_| Err(anyhow!("a panic")));
        done.and(looked)
    });
    done?;
    watchers.settle()?;
    let mut observed = watchers.end(plan)?;
    observed.stills = stills;
    observed.glimpses = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Some(observed))
}

/// Asks `ss` now and then which states sockets are in.
fn look(namespaces: &[Netns], seen: &Mutex<BTreeSet<Glimpse>>, is_over: &AtomicBool) -> Result<()> {
    // Else the workload's threads, whose tables are copies, hold the ends of pipes.
    own_descriptors()?;
    let (mut looks, mut found) = (0, 0);
    while !is_over.load(Ordering::Acquire) {
        looks += 1;
        for (number, netns) in namespaces.iter().enumerate() {
            let glimpses = sockets::list(number, netns)?;
            found += glimpses.len();
            remember(seen, &glimpses);
        }
        thread::sleep(PERIOD);
    }
    eprintln!("ss looked {looks} times at each namespace, and found {found} sockets");
    ensure!(
        looks >= FEWEST_LOOKS && found > 0,
        "{looks} looks found {found} sockets"
    );
    Ok(())
}

fn remember(seen: &Mutex<BTreeSet<Glimpse>>, glimpses: &[Glimpse]) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.extend(glimpses);
}

struct Watchers<'a> {
    namespaces: &'a [Netns],
    agents: Vec<Agent>,
    host: Agent,
    listening: Listening,
    tcpstates: Tcpstates,
    recording: Recording,
}

impl<'a> Watchers<'a> {
    fn start(directory: &TempDir, namespaces: &'a [Netns], tcpstates: Tcpstates) -> Result<Self> {
        let path = directory.path();
        let agents = namespaces.iter();
        let agents = agents.map(|netns| Agent::of_namespace(path, netns));
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let host = Agent::of_host(path)?;
        let listening = Listening::start(path, &host)?;
        Ok(Self {
            namespaces,
            agents,
            host,
            listening,
            tcpstates,
            recording: Recording::start()?,
        })
    }

    /// Counts the sockets by all who can, at a moment at which none moves.
    fn stand_still(
        &self,
        plan: &Plan,
        phase: usize,
        stills: &mut Vec<Still>,
        seen: &Mutex<BTreeSet<Glimpse>>,
    ) -> Result<()> {
        for (namespace, (netns, agent)) in self.namespaces.iter().zip(&self.agents).enumerate() {
            let (listed, census) = at_rest(namespace, netns, agent)?;
            remember(seen, &listed);
            let still = |port, left, right| Still {
                phase,
                namespace,
                port,
                left,
                right,
            };
            stills.push(still(
                None,
                (Watcher::Census, census),
                (Watcher::Ss, sockets::by_state(&listed, None)),
            ));
            for group in plan.phases[phase][namespace].iter().flatten() {
                let Script::Standing(standing) = group.script else {
                    continue;
                };
                let mut planned = States::new();
                for (state, count) in standing.stands(group.n) {
                    *planned.entry(state.name()).or_default() += count;
                }
                let port = Some(group.place.port);
                stills.push(still(
                    port,
                    (Watcher::Plan, planned),
                    (Watcher::Ss, sockets::by_state(&listed, port)),
                ));
            }
        }
        Ok(())
    }

    /// Waits until nothing more is told.
    fn settle(&self) -> Result<()> {
        let (mut last, mut since) = (None, Instant::now());
        wait::until("the last transition to be told", || {
            let mut now = vec![self.tcpstates.count()?, self.listening.count()?];
            for agent in &self.agents {
                now.push(agent.counted()?.trace.total());
            }
            if last.as_ref() != Some(&now) {
                (last, since) = (Some(now), Instant::now());
            }
            thread::sleep(PERIOD);
            Ok(since.elapsed() > QUIET)
        })
    }

    fn end(self, plan: &Plan) -> Result<Observed> {
        let heard = self.listening.end()?;
        let traced = self.tcpstates.end()?;
        let mut skipped = self.host.counted()?.skipped;
        let mut counted = Vec::new();
        for agent in &self.agents {
            let agent = agent.counted()?;
            skipped = skipped.max(agent.skipped);
            counted.push(agent.trace);
        }
        let mut observed = Observed {
            namespaces: self.namespaces.iter().map(Netns::inode).collect(),
            counted,
            told: heard.told,
            traced: traced.told,
            recorded: self.recording.end()?,
            unseen: Unseen {
                skipped_of_agent: skipped,
                skipped_of_tcpstates: traced.skipped,
                lost_by_tcpstates: traced.lost,
                lost_by_events: heard.lost,
            },
            ..Observed::default()
        };
        observed.drop_others();
        let planned = plan.groups().map(|group| Planned {
            namespace: group.namespace,
            port: group.place.port,
            trace: group.leaves(),
        });
        observed.planned = planned.collect();
        Ok(observed)
    }
}

/// What `ss` lists and the agent's census finds while `ss` lists the same before and after it.
fn at_rest(namespace: usize, netns: &Netns, agent: &Agent) -> Result<(Vec<Glimpse>, States)> {
    let list = || {
        let mut listed = sockets::list(namespace, netns)?;
        listed.sort();
        Ok::<_, anyhow::Error>(listed)
    };
    for _ in 0..LOOKS {
        let before = list()?;
        let census = agent.census()?;
        if list()? == before {
            return Ok((before, census));
        }
    }
    Err(anyhow!("sockets never stand still")).with_context(|| format!("namespace {namespace}"))
}
