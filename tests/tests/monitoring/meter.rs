//! What an agent and the kernel tell of the same half a minute that Prometheus takes its rates over.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    net::SocketAddr,
    os::linux::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use rustix::param::clock_ticks_per_second;
use tests::{
    http::{Scrape, number},
    session::Session,
};

/// What rates are taken over.
pub(crate) const OVER: Duration = Duration::from_secs(30);

/// Looks at an agent, now and then.
pub(crate) struct Meter {
    address: SocketAddr,
    pid: u32,
    /// One connection for all questions, so that they hardly show.
    session: Session,
    /// The last at the end.
    looks: VecDeque<Look>,
}

struct Look {
    at: Instant,
    page: Scrape,
    /// Of processor time, its threads' that have ended among them.
    cpu_seconds: f64,
}

impl Meter {
    /// Has not looked yet.
    pub(crate) fn new(address: SocketAddr, pid: u32) -> Result<Self> {
        Ok(Self {
            address,
            pid,
            session: Session::open(address)?,
            looks: VecDeque::new(),
        })
    }

    /// Looks, and forgets what was before the rates began.
    pub(crate) fn look(&mut self) -> Result<()> {
        // One that was idle for long may have been closed.
        let page = if let Ok(page) = self.session.scrape() {
            page
        } else {
            self.session = Session::open(self.address)?;
            self.session.scrape()?
        };
        self.looks.push_back(Look {
            at: Instant::now(),
            page,
            cpu_seconds: cpu_seconds(self.pid)?,
        });
        while self.looks.len() > 2 && self.looks[1].at.elapsed() > OVER {
            self.looks.pop_front();
        }
        Ok(())
    }

    /// Its page.
    pub(crate) fn page(&self) -> Result<&Scrape> {
        Ok(&self.last()?.page)
    }

    /// How much a counter rose a second; not a number where there was one look alone.
    pub(crate) fn rate(&self, series: &str) -> Result<f64> {
        self.per_second(|look| look.page.value(series))
    }

    /// The part of a processor it took.
    pub(crate) fn processor(&self) -> Result<f64> {
        self.per_second(|look| Ok(look.cpu_seconds))
    }

    fn per_second(&self, value: impl Fn(&Look) -> Result<f64>) -> Result<f64> {
        let (first, last) = (self.first()?, self.last()?);
        let risen = value(last)? - value(first)?;
        Ok(risen / (last.at - first.at).as_secs_f64())
    }

    fn first(&self) -> Result<&Look> {
        self.looks.front().context("nobody has looked")
    }

    fn last(&self) -> Result<&Look> {
        self.looks.back().context("nobody has looked")
    }

    /// How many seconds ago a time on its page was.
    pub(crate) fn age(&self, series: &str) -> Result<f64> {
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
        Ok(now - self.page()?.value(series)?)
    }
}

/// User and system time of a process, those of its ended threads among them.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // utime and stime are the 14th and 15th of all, and the name is the second.
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(number(ticks) / number(clock_ticks_per_second()))
}

/// Every network namespace that a process is in, and one such process.
fn inhabited() -> Result<BTreeMap<u64, PathBuf>> {
    let mut all = BTreeMap::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let path = process.path();
        let is_number = process.file_name().to_string_lossy().parse::<u32>().is_ok();
        // Perhaps it has ended.
        if let Ok(namespace) = fs::metadata(path.join("ns/net"))
            && is_number
        {
            all.entry(namespace.st_ino()).or_insert(path);
        }
    }
    Ok(all)
}

/// How many network namespaces this host has: those that processes are in, or a mount keeps.
pub(crate) fn namespaces() -> Result<usize> {
    let mut all: BTreeSet<u64> = inhabited()?.into_keys().collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    all.extend(mounts.lines().filter_map(|line| {
        let root = line.split(' ').nth(3)?;
        root.strip_prefix("net:[")?
            .strip_suffix(']')?
            .parse::<u64>()
            .ok()
    }));
    Ok(all.len())
}

/// A counter of TCP's in all network namespaces together (`TcpExt` in /proc/net/netstat).
pub(crate) fn counted_by_kernel(counter: &str) -> Result<u64> {
    let mut sum = 0;
    for process in inhabited()?.into_values() {
        // Perhaps it has ended meanwhile.
        let Ok(netstat) = fs::read_to_string(process.join("net/netstat")) else {
            continue;
        };
        let mut lines = netstat
            .lines()
            .filter_map(|line| line.strip_prefix("TcpExt:"));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let values = lines.next().unwrap_or_default().split_whitespace();
        let mut both = names.zip(values);
        let value = both.find(|(name, _)| *name == counter);
        let (_, value) = value.with_context(|| format!("this kernel does not count {counter}"))?;
        sum += value.parse::<u64>()?;
    }
    Ok(sum)
}
