//! Orphans killed at `tcp_max_orphans`, in a virtual machine that `cargo xtask vm` boots: there
//! the limit is nobody else's and can stay low, and no socket is made or ended but by this test,
//! so that every number is exact.

use std::{env, fs, net::Shutdown, time::Duration};

use agent::{
    detectors::{KillsFrom, Thresholds},
    kernel::Options,
    limits::Limits,
    metrics::Exposition,
    model::{Model, Setup},
};
use agent_ebpf::{
    close::CloseCause::{LingerZero, OrphanLimit, ResetReceived},
    state::TcpState::{Close, CloseWait, FinWait1, FinWait2},
};
use anyhow::{Context as _, Result, ensure};
use nix::libc;
use socket2::{SockFilter, Socket};
use tests::{
    censuses::Censuses,
    exact::{Before, Skipped, unskipped},
    place::{Family, Place, reset, set_linger2},
    trace::Trace,
    wait::{all_in, until},
    watch::Watch,
};

/// Set in the virtual machine alone, to a line that this test prints when it has seen everything.
const PROOF: &str = "CONNSTATE_VM";
const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_orphans";
/// Connections of each kind: one survives, three are killed.
const N: usize = 100;
const SURVIVORS: u64 = N as u64;
const KILLED: u64 = 3 * N as u64;

#[test]
fn every_orphan_killed_is_told() -> Result<()> {
    let Ok(proof) = env::var(PROOF) else {
        eprintln!("skipped: the limit is the whole host's; `cargo xtask vm` runs this elsewhere");
        return Ok(());
    };
    unskipped(kill_and_compare)?;
    println!("{proof}");
    Ok(())
}

fn kill_and_compare() -> Result<Skipped> {
    let mut watch = Watch::with(&Options::default())?;
    let before = Before::now(&watch)?;
    let censuses = Censuses::start(&mut watch, 0, Thresholds::default())?;
    let mut model = Model::new(Setup::default());
    model.census(censuses.fresh()?);
    let predicted = kill_orphans(|killed| compare_census(&censuses, &mut model, killed))?;
    let skipped = before.settle(&watch, predicted.total())?;
    if skipped.is_none() {
        predicted.compare(&watch)?;
        let told = watch.settled()?.closes[OrphanLimit as usize];
        eprintln!("{told} closes told as {}", OrphanLimit.name());
    }
    Ok(skipped)
}

/// Has orphans killed in every way there is; `meanwhile` is told how many ever were, and looks at
/// those that survive. Tells what all of it leaves.
fn kill_orphans(meanwhile: impl FnOnce(u64) -> Result<()>) -> Result<Trace> {
    let killed_before = killed()?;
    let survivors = Place::new(Family::V4).connections(N)?;
    let at_timer = Place::new(Family::Mapped).connections(N)?;
    let in_fin_wait1 = Place::new(Family::V4).connections(N)?;
    let in_fin_wait2 = Place::new(Family::V6).connections(N)?;
    shut_down(&survivors.clients)?;
    shut_down(&in_fin_wait2.clients)?;
    deafen(&at_timer.clients)?;
    deafen(&in_fin_wait1.clients)?;
    drop(survivors.clients);
    drop(at_timer.clients);
    let orphans = orphans()?;
    ensure!(orphans == 2 * SURVIVORS, "{orphans} orphans");

    let allowed = fs::read_to_string(LIMIT)?;
    fs::write(LIMIT, "0").with_context(|| format!("{LIMIT} cannot be written"))?;
    // At the next retransmission (tcp_out_of_resources), and only once the count that
    // tcp_too_many_orphans() reads, which a timer refreshes every 100 ms, is above zero. It stays
    // above, for the survivors: from here on close() kills.
    all_in(&at_timer.servers, Close)?;
    let by_timers = killed()? - killed_before;
    drop(in_fin_wait1.clients);
    let at_close = killed()? - killed_before - by_timers;
    drop(in_fin_wait2.clients);
    let later = killed()? - killed_before - by_timers - at_close;
    let killed = [by_timers, at_close, later];
    eprintln!("killed by timers, at close() in FIN_WAIT1 and in FIN_WAIT2: {killed:?}");
    ensure!(killed == [N as u64; 3], "the kernel killed {killed:?}");
    all_in(&in_fin_wait1.servers, Close)?;
    all_in(&in_fin_wait2.servers, Close)?;
    meanwhile(killed_before + KILLED)?;
    fs::write(LIMIT, allowed)?;
    reset(survivors.servers)?;
    until("the survivors' end", || Ok(self::orphans()? == 0))?;

    let reset_by_kernel = Trace::server(&[CloseWait], ResetReceived);
    let in_fin_wait1 = Trace::client(&[FinWait1], OrphanLimit).and(reset_by_kernel);
    let in_fin_wait2 = Trace::client(&[FinWait1, FinWait2, FinWait2], OrphanLimit);
    let surviving = Trace::client(&[FinWait1, FinWait2, FinWait2], ResetReceived);
    Ok(in_fin_wait1
        .times(2)
        .and(in_fin_wait2.and(reset_by_kernel))
        .and(surviving.and(Trace::server(&[CloseWait], LingerZero)))
        .times(N)
        .and(Trace::listener().times(4)))
}

/// Compares what a census and the agent's metrics tell with the kernel's own counts.
fn compare_census(censuses: &Censuses, model: &mut Model, killed: u64) -> Result<()> {
    let census = censuses.fresh()?;
    let found = census.total().orphans;
    ensure!(
        found[FinWait2 as usize] == SURVIVORS && found.iter().sum::<u64>() == SURVIVORS,
        "orphans found: {found:?}"
    );
    let counted = orphans()?;
    ensure!(counted == SURVIVORS, "{counted} orphans by sockstat");
    model.census(census);
    let view = model.view(Duration::ZERO);
    let told = view.findings.orphans.as_ref();
    let told = told.map(|told| (told.count, told.limit, told.kills, told.killed));
    let expected = (SURVIVORS, 0, Some(KillsFrom::Limit), KILLED);
    ensure!(told == Some(expected), "the detector tells {told:?}");
    let metrics = Exposition::default().render(&view)?;
    for (name, value) in [
        ("connstate_orphans", SURVIVORS),
        ("connstate_orphans_limit", 0),
        ("connstate_orphan_sockets{state=\"fin_wait2\"}", SURVIVORS),
        ("connstate_orphan_kills_total", killed),
    ] {
        let shown = metrics.lines().find_map(|line| line.strip_prefix(name));
        let shown = shown.with_context(|| format!("no {name}"))?;
        ensure!(
            shown.trim() == value.to_string(),
            "{name} is{shown}, not {value}"
        );
        eprintln!("{name}{shown}");
    }
    Ok(())
}

/// Brings sockets into FIN_WAIT2, and to stay there as full sockets once they are closed.
fn shut_down(sockets: &[Socket]) -> Result<()> {
    for socket in sockets {
        set_linger2(socket, 120)?;
        socket.shutdown(Shutdown::Write)?;
    }
    all_in(sockets, FinWait2)
}

/// Has every packet to these sockets dropped: their FIN is never acknowledged.
fn deafen(sockets: &[Socket]) -> Result<()> {
    let take = u16::try_from(libc::BPF_RET | libc::BPF_K)?;
    let no_byte = [SockFilter::new(take, 0, 0, 0)];
    for socket in sockets {
        socket.attach_filter(&no_byte)?;
    }
    Ok(())
}

/// How many orphans this kernel has killed.
fn killed() -> Result<u64> {
    let mibs = Limits::read().mibs;
    mibs.get("TCPAbortOnMemory").context("no TCPAbortOnMemory")
}

/// How many there are, by the kernel's own count.
fn orphans() -> Result<u64> {
    let sockstat = Limits::read().sockstat;
    sockstat.orphan.context("sockstat tells of no orphans")
}
