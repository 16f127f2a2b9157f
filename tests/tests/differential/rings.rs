//! Makes tcpstates print transitions in another order than they were made in.

use anyhow::{Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use tests::{
    netns::Netns,
    place::{Family, Place, own_descriptors},
    wait,
};

use super::{
    compare::{Of, differences},
    explained::judge,
    observed::Observed,
    plan::{FIRST_PORT, PORTS},
    step::Told,
    tcpstates::Tcpstates,
};

const CONNECTIONS: usize = 10;

/// Opens connections on one processor and closes them on another, while tcpstates is held up. The
/// other one's ring had something before, so that it is emptied first.
pub(super) fn are_read_one_after_the_other() -> Result<()> {
    if std::thread::available_parallelism()?.get() < 2 {
        eprintln!("skipped: there is one processor");
        return Ok(());
    }
    let [first, place] = [PORTS - 2, PORTS - 1].map(|port| Place {
        family: Family::V6,
        port: FIRST_PORT + port,
    });
    let directory = tempfile::tempdir()?;
    let Some(tcpstates) = Tcpstates::start(directory.path(), &[first.port, place.port])? else {
        eprintln!("skipped: no tcpstates: `cargo xtask setup` installs libbpf-tools");
        return Ok(());
    };
    let netns = Netns::new()?;
    tcpstates.signal(Signal::SIGSTOP)?;
    let opened_and_closed = netns.run(|| {
        own_descriptors()?;
        run_on(0)?;
        let first = first.connections(1)?;
        run_on(1)?;
        let connections = place.connections(CONNECTIONS)?;
        run_on(0)?;
        drop((first, connections));
        Ok(())
    });
    tcpstates.signal(Signal::SIGCONT)?;
    opened_and_closed?;
    // Five of each end, and two of each listener.
    let made = (1 + CONNECTIONS as u64) * 2 * 5 + 2 * 2;
    wait::until("what it was held up for", || Ok(tcpstates.count()? >= made))?;
    let traced = tcpstates.end()?.told;
    let mut told = traced.clone();
    told.sort_by_key(is_of_the_end);
    let observed = Observed {
        told,
        traced,
        ..Observed::default()
    };
    let mut found = differences(&observed);
    found.retain(|difference| matches!(difference.of, Of::Order(_)));
    let (apart, verdict) = (found.len(), judge(found, &observed));
    eprintln!("{apart} sockets in another order");
    ensure!(apart >= CONNECTIONS, "{:#?}", observed.traced);
    ensure!(verdict.unexplained.is_empty(), "{verdict:#?}");
    Ok(())
}

/// Whether it is made by a close, not by an open.
fn is_of_the_end(told: &Told) -> bool {
    use agent_ebpf::state::TcpState::{Close, Listen, SynRecv, SynSent};
    !matches!(told.step.0, Close | Listen | SynRecv | SynSent)
}

fn run_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    // Of the calling thread alone.
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
