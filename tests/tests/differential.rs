//! One random workload, watched at once by the agent, by libbpf-tools' tcpstates and by `ss`: they
//! may differ in nothing but what the kernel explains.
//!
//! `CONNSTATE_SEED` repeats a workload. docs/differential.md says what is compared with what, and
//! has the table of what is explained.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use tests::random::seed;

#[path = "differential/standing.rs"]
mod standing;
#[path = "differential/namesake.rs"]
mod namesake;
#[path = "differential/plan.rs"]
mod plan;

#[path = "differential/workload.rs"]
mod workload;

#[path = "differential/step.rs"]
mod step;
#[path = "differential/agents.rs"]
mod agents;
#[path = "differential/tcpstates.rs"]
mod tcpstates;
#[path = "differential/tracefs.rs"]
mod tracefs;
#[path = "differential/sockets.rs"]
mod sockets;
#[path = "differential/watchers.rs"]
mod watchers;

#[path = "differential/observed.rs"]
mod observed;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/evidence.rs"]
mod evidence;
#[path = "differential/rules.rs"]
mod rules;
#[path = "differential/explained.rs"]
mod explained;

#[path = "differential/rings.rs"]
mod rings;
#[cfg(test)]
#[path = "differential/compare_tests.rs"]
mod compare_tests;

/// One at a time on this machine, in whichever process: tcpstates and tracefs tell ports, and no
/// namespaces.
struct Alone {
    _tracefs: tracefs::Mounted,
    /// Free when it is closed.
    _lock: File,
}

/// Waits for the others; nothing, aloud, where this host has no tracefs.
fn alone() -> Result<Option<Alone>> {
    let path = std::env::temp_dir().join("connstate-differential.lock");
    let lock = File::create(&path).with_context(|| format!("no {}", path.display()))?;
    lock.lock()?;
    match tracefs::Mounted::ensure() {
        Ok(tracefs) => Ok(Some(Alone {
            _tracefs: tracefs,
            _lock: lock,
        })),
        Err(error) => {
            eprintln!("skipped: tcpstates needs tracefs: {error:#}");
            Ok(None)
        }
    }
}

#[test]
fn tcpstates_reads_one_processor_s_ring_after_the_other_s() -> Result<()> {
    let Some(_alone) = alone()? else {
        return Ok(());
    };
    rings::are_read_one_after_the_other()
}

/// A run whose differences are beyond an explanation is repeated where a watcher says that it did
/// not see everything.
const ATTEMPTS: usize = 2;

#[test]
fn watchers_differ_in_nothing_that_is_not_explained() -> Result<()> {
    let Some(_alone) = alone()? else {
        return Ok(());
    };
    let plan = plan::Plan::of(seed()?);
    for attempt in 1..=ATTEMPTS {
        let Some(observed) = watchers::watch(&plan)? else {
            eprintln!("skipped: no tcpstates: `cargo xtask setup` installs libbpf-tools");
            return Ok(());
        };
        let verdict = explained::judge(compare::differences(&observed), &observed);
        tell(&plan, &observed, &verdict);
        let unseen = observed.unseen;
        let is_blind =
            unseen.skipped_of_agent + unseen.lost_by_tcpstates + unseen.lost_by_events > 0;
        let differences = &verdict.unexplained;
        if differences.is_empty() {
            return Ok(());
        }
        let count = differences.len();
        ensure!(
            is_blind && attempt < ATTEMPTS,
            "{count} differences that nothing explains: {differences:#?}"
        );
        eprintln!("run {attempt} is repeated: {count} differences, {unseen:?}");
    }
    Ok(())
}

fn tell(plan: &plan::Plan, observed: &observed::Observed, verdict: &explained::Verdict) {
    let connections: usize = plan.groups().map(|group| group.n).sum();
    eprintln!(
        "{connections} connections in {} groups: {} transitions of the agent's events, {} of tcpstates, {} of tracefs; {} sockets and states of ss; {:?}",
        observed.planned.len(),
        observed.told.len(),
        observed.traced.len(),
        observed.recorded.len(),
        observed.glimpses.len(),
        observed.unseen,
    );
    eprintln!("of other namespaces' sockets alone: {}", observed.others);
    for (rule, count) in &verdict.explained {
        eprintln!("explained by {rule}: {count}");
    }
}
