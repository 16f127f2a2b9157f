//! Carries out the plan, and lets everything stand still in between.

use std::{
    panic::resume_unwind,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use tests::{
    netns::Netns,
    place::{Place, own_descriptors},
};

use super::{
    plan::{Group, Plan, Script},
    standing::{Held, Standing},
};

/// Does all of it; `still` is called in each phase while nothing moves.
pub(super) fn carry_out(
    plan: &Plan,
    namespaces: &[Netns],
    mut still: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let lanes: Vec<Vec<&[Group]>> = (0..namespaces.len() * 2)
        .map(|lane| {
            let phases = plan.phases.iter();
            phases
                .map(|phase| phase[lane / 2][lane % 2].as_slice())
                .collect()
        })
        .collect();
    // The lanes, and whoever counts.
    let meeting = Barrier::new(lanes.len() + 1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Started before anybody has sockets, of which their tables would hold copies.
        let lanes = lanes.iter().enumerate().map(|(number, phases)| {
            let (netns, meeting, is_over) = (&namespaces[number / 2], &meeting, &is_over);
            scope.spawn(move || lane(netns, phases, meeting, is_over))
        });
        let lanes: Vec<_> = lanes.collect();
        let mut counted = Ok(());
        for phase in 0..plan.phases.len() {
            meeting.wait();
            // A lane that failed says why; what stands then is not what was planned.
            if counted.is_ok() && !is_over.load(Ordering::Acquire) {
                counted = still(phase);
                is_over.fetch_or(counted.is_err(), Ordering::AcqRel);
            }
            meeting.wait();
        }
        let mut lanes = lanes.into_iter();
        lanes
            .try_for_each(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .and(counted)
    })
}

/// One thread's groups. Whatever fails, it comes to every meeting.
fn lane(netns: &Netns, phases: &[&[Group]], meeting: &Barrier, is_over: &AtomicBool) -> Result<()> {
    netns.run(|| {
        let mut done = own_descriptors();
        for groups in phases {
            let mut held = Vec::new();
            for group in *groups {
                if done.is_ok() && !is_over.load(Ordering::Acquire) {
                    done = begin(group, &mut held)
                        .with_context(|| format!("{:?} of {group:?}", group.script));
                }
            }
            is_over.fetch_or(done.is_err(), Ordering::AcqRel);
            meeting.wait();
            meeting.wait();
            for (standing, place, sockets) in held {
                if done.is_ok() {
                    done = (standing.finish)(&place, sockets)
                        .with_context(|| format!("{} does not end", standing.name));
                }
            }
        }
        is_over.fetch_or(done.is_err(), Ordering::AcqRel);
        done
    })
}

fn begin(group: &Group, held: &mut Vec<(&'static Standing, Place, Held)>) -> Result<()> {
    match group.script {
        Script::Way(way) => (way.go)(&group.place, group.n),
        Script::Standing(standing) => {
            let sockets = (standing.open)(&group.place, group.n)?;
            held.push((standing, group.place, sockets));
            Ok(())
        }
    }
}
