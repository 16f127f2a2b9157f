//! After records were lost, and after an agent was killed and restarted, the next census makes
//! every gauge right.

use std::{
    fs,
    net::{Shutdown, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::SystemTime,
};

use agent_ebpf::state::TcpState::{self, CloseWait, Closing, FinWait1, FinWait2, LastAck};
use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    bpf_ids::{self, BpfIds, BpfKind},
    daemon::{Daemon, RUN, binary},
    http::{Scrape, whole},
    link::{Link, lose},
    load::reset_by_linger,
    session::Session,
    states::{self, States},
    wait::{self, all_in},
};

const RING_FULL: &str = "connstate_events_lost_total{reason=\"ring_full\"}";
/// When the oldest pass that the gauges rest on was complete, and when the last was.
const COMPLETED: [&str; 2] = [
    "connstate_census_last_completion_timestamp_seconds{kind=\"full\"}",
    "connstate_census_last_completion_timestamp_seconds{kind=\"known\"}",
];
const CENSUSES: &str = "connstate_census_duration_seconds_count{kind=\"full\"}";

const OPTIONS: [&str; 10] = [
    "--ring-bytes",
    "4096",
    "--stream",
    "all",
    "--close-wait-leak-after",
    "1s",
    "--fin-wait1-stall-after",
    "1s",
    "--fin-wait2-stall-after",
    "1s",
];

/// Starts an agent in the client's namespace that finds no namespaces but those of `link`, so that
/// whatever else happens on the host does not show: it is process 1 of a namespace of processes,
/// a process in the server's namespace is its only company, and it sees no mount that keeps another.
fn start(link: &Link, census_interval: &str) -> Result<Daemon> {
    const SCRIPT: &str = "exec 3<\"$0\" && umount -a -t nsfs; mount -t proc proc /proc && \
        nsenter --net=/proc/self/fd/3 sh -c 'exec 3<&-; sleep 600 >/dev/null 2>&1 &' && \
        exec \"$@\" 3<&-";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--mount", "--fork", "--kill-child"]);
    command.args(["sh", "-c", SCRIPT]).arg(link.server.path());
    command.arg(binary()?).args(RUN).args(OPTIONS);
    command.args(["--census-interval", census_interval]);
    link.client.run(|| Daemon::launch(&mut command))
}

/// The agent's own process, the only child of `unshare`.
fn agent_of(daemon: &Daemon) -> Result<u32> {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().context("not one child")
}

/// A connection to it for questions.
fn ask(link: &Link, daemon: &Daemon) -> Result<Session> {
    link.client.run(|| Session::open(daemon.address()))
}

/// Sockets in many states, which stay in them for a minute.
fn hold(link: &Link) -> Result<Vec<TcpStream>> {
    let listener = link.listen()?;
    let connect = |n: usize| -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
        let pairs = (0..n).map(|_| link.connect(&listener));
        Ok(pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    };
    let shut = |streams: &[TcpStream]| {
        let mut streams = streams.iter();
        streams.try_for_each(|stream| stream.shutdown(Shutdown::Write))
    };
    let established = connect(2)?;
    let half_closed = connect(3)?;
    shut(&half_closed.0)?;
    all_in(&half_closed.0, FinWait2)?;
    let orphaned = connect(4)?;
    drop(orphaned.0);
    all_in(&orphaned.1, CloseWait)?;
    let cut = connect(5)?;
    let left = connect(6)?;
    let crossed = connect(7)?;
    let last = connect(8)?;
    shut(&last.0)?;
    all_in(&last.1, CloseWait)?;
    // From here on nothing of the client's arrives.
    lose(&link.server, "tcp flags ack / syn,ack")?;
    shut(&cut.0)?;
    all_in(&cut.0, FinWait1)?;
    drop(left.0);
    shut(&crossed.0)?;
    all_in(&crossed.0, FinWait1)?;
    shut(&crossed.1)?;
    all_in(&crossed.0, Closing)?;
    shut(&last.1)?;
    all_in(&last.1, LastAck)?;
    let mut held = Vec::new();
    for (clients, servers) in [established, half_closed, cut, crossed, last] {
        held.extend(clients);
        held.extend(servers);
    }
    held.extend(orphaned.1);
    held.extend(left.1);
    Ok(held)
}

/// What must be found of those states that questions to the agent make no sockets in.
const HELD: [(TcpState, u64); 5] = [
    (FinWait1, 5 + 6 + 7),
    (FinWait2, 3 + 4),
    (CloseWait, 3 + 4),
    (Closing, 7),
    (LastAck, 8),
];

/// Full sockets and minisockets among those in FIN_WAIT2.
const FIN_WAIT2: [u64; 2] = [3, 4];

/// Those of both namespaces, zeros too.
fn by_ss(link: &Link) -> Result<States> {
    let all = TcpState::ALL.into_iter();
    let mut states: States = all.map(|state| (state.name(), 0)).collect();
    for netns in [&link.client, &link.server] {
        for (state, count) in states::by_ss(netns)? {
            *states.entry(state).or_default() += count;
        }
    }
    Ok(states)
}

/// The same by the agent.
fn by_agent(scrape: &Scrape) -> Result<States> {
    let all = TcpState::ALL.into_iter();
    all.map(|state| {
        let name = state.name();
        let value = scrape.value(&format!("connstate_sockets{{state=\"{name}\"}}"))?;
        Ok((name, whole(value)))
    })
    .collect()
}

fn is(scrape: &Scrape, name: &str, label: &str, expected: u64) -> Result<()> {
    let found = whole(scrape.sum(name, label));
    ensure!(found == expected, "{name} {label}: {found}, not {expected}");
    Ok(())
}

/// Gauges of single sockets, their owners and orphans. Those of what begins with a system call
/// need the agent to have watched for as long as a stall takes.
fn evidence(scrape: &Scrape, watched: bool) -> Result<()> {
    is(scrape, "connstate_orphan_sockets", "\"fin_wait1\"", 6)?;
    is(scrape, "connstate_orphan_sockets", "", 6)?;
    is(scrape, "connstate_close_wait_leaked", "", 7)?;
    is(scrape, "connstate_close_wait_leaked", "\"eof_unread\"", 7)?;
    let [full, _] = FIN_WAIT2;
    is(
        scrape,
        "connstate_fin_wait2_stalled",
        "\"half_closed\"",
        full,
    )?;
    for (state, count) in HELD {
        let count = match state {
            // Those of the workloads do not tell.
            Closing => continue,
            FinWait2 => full,
            _ => count,
        };
        let state = format!("state=\"{}\"", state.name());
        is(scrape, "connstate_workload_sockets", &state, count)?;
    }
    if watched {
        is(
            scrape,
            "connstate_fin_wait1_stalled",
            "\"unacked\"",
            5 + 6 + 7,
        )?;
        is(scrape, "connstate_last_ack_stalled", "\"unacked\"", 7 + 8)?;
    }
    Ok(())
}

/// The first gauges that rest on passes completed after this moment alone.
fn complete_after(session: &mut Session, moment: f64) -> Result<Scrape> {
    let mut scrape = session.scrape()?;
    wait::until("a census", || {
        scrape = session.scrape()?;
        Ok(scrape.value(COMPLETED[0])? > moment)
    })?;
    Ok(scrape)
}

/// The first gauges that rest on passes begun after this call alone.
fn next(session: &mut Session) -> Result<Scrape> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    // They may have been under way.
    let under_way = complete_after(session, now)?.value(COMPLETED[1])?;
    complete_after(session, under_way)
}

/// Every gauge is right after the next census: what `ss` finds before and after it.
fn all_right(session: &mut Session, link: &Link) -> Result<Scrape> {
    let mut scrape = session.scrape()?;
    wait::until("nothing to change during a census", || {
        let before = by_ss(link)?;
        scrape = next(session)?;
        if by_ss(link)? != before {
            return Ok(false);
        }
        let found = by_agent(&scrape)?;
        ensure!(found == before, "{found:?}, not {before:?}");
        let [_, minisockets] = FIN_WAIT2;
        let minisockets = before["time_wait"] + minisockets;
        is(&scrape, "connstate_time_wait_sockets", "", minisockets)?;
        Ok(true)
    })?;
    let found = by_agent(&scrape)?;
    eprintln!("{found:?}");
    for (state, count) in HELD {
        ensure!(found[state.name()] == count, "{found:?}");
    }
    Ok(scrape)
}

/// Waits until every held socket stalls, and the gauges say so.
fn all_stalled(session: &mut Session) -> Result<()> {
    let mut found = Ok(());
    let waited = wait::until("the stalls", || {
        found = evidence(&next(session)?, true);
        Ok(found.is_ok())
    });
    found.and(waited)
}

/// Makes the held sockets while the ring overflows.
fn hold_in_a_flood(session: &mut Session, link: &Link) -> Result<Vec<TcpStream>> {
    let mut overflows = |than: f64| {
        let mut lost = 0.0;
        wait::until("the ring to overflow", || {
            lost = session.scrape()?.value(RING_FULL)?;
            Ok(lost > than)
        })?;
        Ok::<_, anyhow::Error>(lost)
    };
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                reset_by_linger(&link.client, 100)?;
            }
            Ok(())
        });
        let mut flooded = || {
            let before = overflows(0.0)?;
            let held = hold(link)?;
            let after = overflows(before)?;
            eprintln!("{before} records were lost before, {after} after the sockets were made");
            Ok(held)
        };
        let held = flooded();
        enough.store(true, Ordering::Relaxed);
        let ended: Result<()> = flood.join().unwrap_or_else(|_| Err(anyhow!("a panic")));
        ended.and(held)
    })
}

/// Waits until the kernel has freed them, a moment after the last descriptor (`bpf_prog_put()`).
fn are_gone(ids: &BpfIds) -> Result<()> {
    if let Err(error) = bpf_ids::of_host() {
        eprintln!("skipped: whether programs are left: {error:#}");
        return Ok(());
    }
    wait::until("the programs to go", || {
        Ok(ids.is_disjoint(&bpf_ids::of_host()?))
    })
}

#[test]
fn every_gauge_is_right_after_an_overflow_and_after_sigkill() -> Result<()> {
    let link = Link::new()?;
    let daemon = start(&link, "500ms")?;
    let mut session = ask(&link, &daemon)?;
    session.first_scrape()?;
    let _held = hold_in_a_flood(&mut session, &link)?;
    all_right(&mut session, &link)?;
    all_stalled(&mut session)?;

    let agent = agent_of(&daemon)?;
    let ids = bpf_ids::of_process(agent)?;
    let programs = ids.iter().filter(|(kind, _)| *kind == BpfKind::Prog);
    ensure!(programs.count() > 0, "{ids:?}");
    drop(session);
    kill(Pid::from_raw(i32::try_from(agent)?), Signal::SIGKILL)?;
    let (_, _, log) = daemon.ended()?;
    ensure!(!log.iter().any(|line| line.contains("stopping")), "{log:?}");
    are_gone(&ids)?;

    let before = by_ss(&link)?;
    // No second census comes, however late the first is asked for.
    let daemon = start(&link, "1h")?;
    let mut session = ask(&link, &daemon)?;
    let first = session.first_scrape()?;
    let after = by_ss(&link)?;
    ensure!(whole(first.value(CENSUSES)?) == 1, "not the first census");
    // The connection to it may be younger than the census, and one to its predecessor end.
    for (state, found) in by_agent(&first)? {
        let (before, after) = (before[state], after[state]);
        let few = before.min(after)..=before.max(after);
        ensure!(few.contains(&found), "{found} in {state}, not {few:?}");
    }
    evidence(&first, false)?;
    drop((session, daemon));

    let daemon = start(&link, "500ms")?;
    let mut session = ask(&link, &daemon)?;
    session.first_scrape()?;
    let again = all_right(&mut session, &link)?;
    evidence(&again, false)?;
    all_stalled(&mut session)?;
    Ok(())
}
