//! Processes that do not close: how many connections each leaks, why, and since when.

use std::{
    collections::BTreeMap,
    net::Shutdown,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use agent::{
    census::Census,
    clock::monotonic,
    detectors::{Cause, Detector, Findings, Side, Stall, Thresholds, detect},
};
use agent_ebpf::state::TcpState::CloseWait;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::Socket;
use tests::{
    censuses::{Censuses, of},
    cgroup::Cgroup,
    daemon::Daemon,
    holder::{Holder, Plan, Role},
    http::Scrape,
    netns::Netns,
    place::{Family, Place},
    wait,
    watch::Watch,
};

/// Of each process.
const COUNT: usize = 200;
const LEAKED: u64 = COUNT as u64;

/// What the peers send where they send anything.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// What jiffies may add to an age or take away: a tick comes late where something holds up its
/// processor.
const JIFFIES: Duration = Duration::from_millis(250);

/// Longer than a census takes where nothing holds it up, in seconds.
const LONG: f64 = 1.0;

/// How old a leak is when it is looked at: enough for an age to be told from a threshold.
const RIPE: Duration = Duration::from_secs(3);

const THRESHOLDS: Thresholds = Thresholds {
    fin_wait1_stall_after: Duration::from_mins(1),
    fin_wait2_stall_after: Duration::from_mins(2),
    close_wait_leak_after: Duration::from_secs(1),
};

/// A process whose peers have closed.
struct Leak {
    holder: Holder,
    /// Removed after the process in it.
    _cgroup: Cgroup,
    /// Half-closed, so that nothing comes from them any more.
    _peers: Vec<Socket>,
    process: &'static str,
    workload: String,
    cause: Cause,
    /// Bytes in each receive queue.
    unread: usize,
    port: u16,
    side: Side,
    /// Between these two moments of CLOCK_MONOTONIC the peers closed.
    closed: (Duration, Duration),
}

/// The processes of every cause, and one that leaks what it connected.
const PLANS: [(&str, Role, Cause, Option<&str>); 5] = [
    ("hung", Role::Hung, Cause::NotAccepted, None),
    ("stuck", Role::Server(false), Cause::DataUnread, None),
    ("pool", Role::Server(false), Cause::EofUnread, None),
    // As Tomcat names its threads: none of them is called as the process is.
    ("java", Role::Server(true), Cause::Drained, Some("http-nio")),
    ("caller", Role::Client, Cause::EofUnread, None),
];

/// Their cgroups, each with the workload it names; nothing where none can be made.
fn cgroups() -> Result<Option<Vec<(Cgroup, String)>>> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let made = PLANS.iter().map(|(process, ..)| {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let own = std::process::id();
        // One is a container.
        let (name, workload) = if *process == "pool" {
            let id = format!("{own:06x}{number:06x}");
            let name = format!("docker-{id}{:052}.scope", 0);
            (name, format!("container:{id}"))
        } else {
            let name = format!("connstate-test-{own}-{number}-{process}.service");
            let workload = format!("unit:{name}");
            (name, workload)
        };
        let cgroup = Cgroup::named(name)?;
        Ok(cgroup.map(|cgroup| (cgroup, workload)))
    });
    made.collect()
}

/// Has every process leak; nothing where cgroups cannot be made.
fn leaks(netns: &Netns) -> Result<Option<Vec<Leak>>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let Some(cgroups) = cgroups()? else {
        return Ok(None);
    };
    let leaks = PLANS.into_iter().zip(cgroups);
    let leaks = leaks.map(|((process, role, cause, thread), (cgroup, workload))| {
        let place = Place::new(Family::V4);
        let plan = Plan {
            process,
            role,
            port: place.port,
            count: COUNT,
            thread,
        };
        let mut holder = Holder::start(env!("CARGO_BIN_EXE_holder"), netns, &cgroup, &plan)?;
        let data = match cause {
            Cause::DataUnread | Cause::Drained => REQUEST,
            _ => &[],
        };
        let (peers, closed) = if role == Role::Client {
            called(netns, place, &mut holder)?
        } else {
            calls(netns, place, &mut holder, data)?
        };
        let unread = match cause {
            Cause::Drained => 0,
            _ => data.len() + 1,
        };
        let side = match role {
            Role::Client => Side::Client,
            _ => Side::Server,
        };
        Ok(Leak {
            holder,
            _cgroup: cgroup,
            _peers: peers,
            process,
            workload,
            cause,
            unread,
            port: place.port,
            side,
            closed,
        })
    });
    leaks.collect::<Result<_>>().map(Some)
}

type Closed = (Vec<Socket>, (Duration, Duration));

/// Connects to a server, sends data and closes half.
fn calls(netns: &Netns, place: Place, holder: &mut Holder, data: &[u8]) -> Result<Closed> {
    holder.go_on()?;
    holder.says("listening")?;
    netns.run(|| {
        let peers = (0..COUNT).map(|_| place.connect());
        let peers = peers.collect::<Result<Vec<_>>>()?;
        for peer in &peers {
            ensure!(peer.send(data)? == data.len(), "not all was sent");
        }
        let from = monotonic();
        for peer in &peers {
            peer.shutdown(Shutdown::Write)?;
        }
        wait::servers_in(place.port, "close-wait", COUNT)?;
        let closed = (from, monotonic());
        holder.says("holding")?;
        Ok((peers, closed))
    })
}

/// Accepts a client's connections and closes half.
fn called(netns: &Netns, place: Place, holder: &mut Holder) -> Result<Closed> {
    netns.run(|| {
        let listener = place.listen()?;
        listener.set_read_timeout(Some(wait::DEADLINE))?;
        holder.go_on()?;
        let peers = (0..COUNT).map(|_| Ok(listener.accept()?.0));
        let peers = peers.collect::<Result<Vec<_>>>()?;
        holder.says("holding")?;
        let from = monotonic();
        for peer in &peers {
            peer.shutdown(Shutdown::Write)?;
        }
        wait::clients_in(place.port, "close-wait", COUNT)?;
        Ok((peers, (from, monotonic())))
    })
}

impl Leak {
    /// Whether `stall` is this one, and says so rightly.
    fn is_told(&self, census: &Census, stall: &Stall, exact: bool) -> Result<()> {
        ensure!(stall.detector == Detector::CloseWait);
        ensure!(stall.cause == self.cause);
        ensure!(stall.workload == self.workload);
        ensure!(stall.pids == [self.holder.pid()]);
        ensure!((stall.port, stall.side) == (self.port, self.side));
        ensure!(stall.count == LEAKED);
        self.is_as_old(census, stall, exact)?;
        for socket in &stall.sockets {
            ensure!(socket.state == CloseWait && !socket.orphan);
            ensure!(usize::try_from(socket.unread)? == self.unread, "{socket:?}");
            let ends = [socket.local.port(), socket.remote.port()];
            let place = usize::from(self.side == Side::Client);
            ensure!(ends[place] == self.port && ends[1 - place] != self.port);
            ensure!(socket.age.exact == exact && socket.age <= stall.oldest);
        }
        ensure!(!stall.sockets.is_empty());
        Ok(())
    }

    /// The oldest has waited since the first peer closed. Where the agent did not see that, what
    /// it tells is less or equal; a peer that is silent since leaves no doubt but that of jiffies.
    fn is_as_old(&self, census: &Census, stall: &Stall, exact: bool) -> Result<()> {
        ensure!(stall.oldest.exact == exact);
        let told = stall.oldest.at_least;
        let doubt = if exact { Duration::ZERO } else { JIFFIES };
        let most = census.at.saturating_sub(self.closed.0) + doubt;
        let least = began(census).saturating_sub(self.closed.1 + doubt);
        eprintln!(
            "{} of {}, {:?}: {told:?}, exact: {exact}; measured {least:?} to {most:?}",
            stall.count, self.process, self.cause
        );
        ensure!(told <= most, "older than can be");
        ensure!(told >= least, "too young");
        Ok(())
    }

    /// Its labels in /metrics, but for the cause.
    fn labels(&self) -> String {
        format!(
            "workload=\"{}\",process=\"{}\",port=\"{}\",side=\"{}\"",
            self.workload,
            self.process,
            self.port,
            self.side.name()
        )
    }

    /// Whether the gauges say that it has so many.
    fn is_shown(&self, scrape: &Scrape, count: f64) -> Result<()> {
        let labels = self.labels();
        for cause in Cause::OF_CLOSE_WAIT {
            let expected = if cause == self.cause { count } else { 0.0 };
            let series = format!(
                "connstate_close_wait_leaked{{cause=\"{}\",{labels}}}",
                cause.name()
            );
            is(scrape, &series, expected)?;
        }
        let workload = &self.workload;
        let series =
            format!("connstate_workload_sockets{{workload=\"{workload}\",state=\"close_wait\"}}");
        is(scrape, &series, count)
    }

    /// Whether the gauges show all of it, and an age that was read between these two moments of
    /// CLOCK_MONOTONIC; false where that is less than it can be unless it was read long before the
    /// second.
    fn is_shown_as_old(&self, scrape: &Scrape, [from, to]: [f64; 2]) -> Result<bool> {
        self.is_shown(scrape, f64::from(u32::try_from(COUNT)?))?;
        let told = self.oldest(scrape)?;
        let closed = [self.closed.0, self.closed.1].map(|at| at.as_secs_f64());
        let doubt = JIFFIES.as_secs_f64();
        let (least, most) = (from - closed[1] - doubt, to - closed[0] + doubt);
        eprintln!(
            "{}: {told:.3} s, measured {least:.3} s to {most:.3} s",
            self.process
        );
        ensure!(told <= most, "older than can be");
        ensure!(told >= least, "too young");
        Ok(told + LONG >= to - closed[1])
    }

    fn oldest(&self, scrape: &Scrape) -> Result<f64> {
        scrape.value(&self.oldest_series())
    }

    fn oldest_series(&self) -> String {
        format!("connstate_close_wait_oldest_seconds{{{}}}", self.labels())
    }
}

fn is(scrape: &Scrape, series: &str, expected: f64) -> Result<()> {
    let value = scrape.value(series)?;
    let same = (value - expected).abs() < f64::EPSILON;
    ensure!(same, "{series} is {value}, not {expected}");
    Ok(())
}

fn began(census: &Census) -> Duration {
    census.at.saturating_sub(census.took)
}

/// Lets every process close.
fn close(leaks: &mut [Leak]) -> Result<()> {
    for leak in leaks {
        leak.holder.go_on()?;
        leak.holder.says("closed")?;
    }
    Ok(())
}

/// The findings of a census that began when all leaks were ripe, by process.
fn ripe(censuses: &Censuses, leaks: &[Leak]) -> Result<(Census, BTreeMap<String, Stall>)> {
    let youngest = leaks.iter().map(|leak| leak.closed.1).max();
    let from = youngest.context("no leak")? + RIPE;
    let census = begun_after(censuses, from)?;
    let Findings { stalls, .. } = detect(&census, None, &THRESHOLDS);
    ensure!(stalls.len() == leaks.len(), "{stalls:#?}");
    let stalls = stalls.into_iter();
    let stalls = stalls.map(|stall| (stall.process.clone(), stall));
    Ok((census, stalls.collect()))
}

/// The first census that began after this moment.
fn begun_after(censuses: &Censuses, moment: Duration) -> Result<Census> {
    loop {
        let census = censuses.next()?;
        if began(&census) > moment {
            return Ok(census);
        }
    }
}

fn all_told(censuses: &Censuses, netns: &Netns, leaks: &[Leak], exact: bool) -> Result<()> {
    let (census, stalls) = ripe(censuses, leaks)?;
    for leak in leaks {
        let stall = stalls.get(leak.process);
        let stall = stall.with_context(|| format!("nothing of {}", leak.process))?;
        let told = leak.is_told(&census, stall, exact);
        told.with_context(|| format!("{stall:#?}"))?;
        ensure!(stall.netns == netns.inode().to_string());
    }
    let counts = of(&census, netns)
        .context("the namespace is missing")?
        .counts;
    ensure!(counts.states[CloseWait as usize] == LEAKED * leaks.len() as u64);
    ensure!(counts.orphans.iter().sum::<u64>() == 0);
    Ok(())
}

#[test]
fn cause_owner_and_age_are_told_and_a_close_ends_it() -> Result<()> {
    let netns = Netns::new()?;
    let mut watch = Watch::new(&netns)?;
    let Some(mut leaks) = leaks(&netns)? else {
        return Ok(());
    };
    let censuses = Censuses::start(&mut watch, netns.inode(), THRESHOLDS)?;
    all_told(&censuses, &netns, &leaks, true)?;
    // Another agent that comes now has seen none of it begin.
    let mut late = Watch::new(&netns)?;
    let late = Censuses::start(&mut late, netns.inode(), THRESHOLDS)?;
    all_told(&late, &netns, &leaks, false)?;

    close(&mut leaks)?;
    let closed = monotonic();
    for censuses in [censuses, late] {
        let census = begun_after(&censuses, closed)?;
        let findings = detect(&census, None, &THRESHOLDS);
        ensure!(findings.stalls.is_empty(), "{:#?}", findings.stalls);
        let counts = of(&census, &netns)
            .context("the namespace is missing")?
            .counts;
        ensure!(counts.states[CloseWait as usize] == 0, "{counts:?}");
    }
    Ok(())
}

const OPTIONS: [&str; 4] = [
    "--close-wait-leak-after",
    "1s",
    "--census-interval",
    "500ms",
];
const COMPLETED: &str = "connstate_census_last_completion_timestamp_seconds{kind=\"known\"}";

/// What a daemon shows once every leak is ripe.
fn ripe_shown(daemon: &mut Daemon, leaks: &[Leak]) -> Result<Scrape> {
    let all_ripe = |scrape: &Scrape| {
        let mut oldest = leaks.iter().map(|leak| leak.oldest(scrape));
        oldest.all(|oldest| oldest.is_ok_and(|age| age >= RIPE.as_secs_f64()))
    };
    let ripe = daemon.wait("leaks that are ripe", |daemon| {
        daemon.scrape().ok().filter(all_ripe)
    });
    ripe.with_context(|| {
        let shown = daemon.get("/metrics").map(|page| page.body);
        let shown = shown.unwrap_or_default();
        let lines = shown.lines();
        let lines = lines.filter(|line| line.starts_with("connstate_close_wait"));
        format!("{:#?}", lines.collect::<Vec<_>>())
    })
}

/// The gauges after a census that was complete after this moment.
fn complete_after(daemon: &mut Daemon, moment: f64) -> Result<Scrape> {
    daemon.wait("a census", |daemon| {
        let scrape = daemon.scrape().ok()?;
        (scrape.value(COMPLETED).ok()? > moment).then_some(scrape)
    })
}

/// The gauges after the first census that began after this moment: the one after the first that
/// was complete by then.
fn after(daemon: &mut Daemon, moment: f64) -> Result<Scrape> {
    let under_way = complete_after(daemon, moment)?.value(COMPLETED)?;
    complete_after(daemon, under_way)
}

/// Whether a daemon's gauges show every leak, as old as it is. A census that is held up, as this
/// test between two looks at clocks may be, leaves more doubt: the next one is looked at then.
fn all_shown(daemon: &mut Daemon, leaks: &[Leak]) -> Result<()> {
    const CENSUSES: usize = 10;
    let mut before = ripe_shown(daemon, leaks)?.value(COMPLETED)?;
    for _ in 0..CENSUSES {
        // A census begins once the one before it is complete: so each age was read between two
        // moments that are known.
        let scrape = complete_after(daemon, before)?;
        let completed = scrape.value(COMPLETED)?;
        let earliest = monotonic();
        let now = since_1970()?;
        let latest = monotonic();
        let between = [
            earliest.as_secs_f64() - (now - before),
            latest.as_secs_f64() - (now - completed),
        ];
        let mut punctual = true;
        for leak in leaks {
            punctual &= leak.is_shown_as_old(&scrape, between)?;
        }
        if punctual {
            return Ok(());
        }
        eprintln!("looked at again: something was held up");
        before = completed;
    }
    bail!("too young in each of {CENSUSES} censuses")
}

/// As the censuses are dated.
fn since_1970() -> Result<f64> {
    Ok(SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64())
}

#[test]
fn the_gauges_name_each_leak_and_fall_to_zero_within_a_census() -> Result<()> {
    let netns = Netns::new()?;
    let mut daemon = Daemon::start(&OPTIONS)?;
    let Some(mut leaks) = leaks(&netns)? else {
        return Ok(());
    };
    all_shown(&mut daemon, &leaks)?;
    // One that comes now has seen none of it begin.
    all_shown(&mut Daemon::start(&OPTIONS)?, &leaks)?;

    close(&mut leaks)?;
    let closed = since_1970()?;
    let scrape = after(&mut daemon, closed)?;
    let later = scrape.value(COMPLETED)? - closed;
    eprintln!("the census was complete {later:.3} s after the last close");
    for leak in &leaks {
        leak.is_shown(&scrape, 0.0)?;
        is(&scrape, &leak.oldest_series(), 0.0)?;
    }
    Ok(())
}
