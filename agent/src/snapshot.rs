//! `agent snapshot`: a census, as a person or a program reads it.

use std::{
    fmt::{self, Display},
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use agent_ebpf::state::{STATE_COUNT, TcpState};
use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    census::{self, Age, Census, Taker},
    cli::SnapshotArgs,
    detectors::{Findings, Orphans, Ports, Stall, detect},
    kernel::{Kernel, Options},
    run::{kernel_release, log_verifier},
};

/// The shape of the JSON; it rises with every change that could break a reader.
const VERSION: u32 = 1;

/// Takes a census and prints it.
///
/// # Errors
///
/// Where the programs do not load, no census can be taken, or nobody reads it.
pub fn snapshot(args: &SnapshotArgs) -> Result<ExitCode> {
    let only_netns = args.watched.only_netns()?;
    let thresholds = args.watched.thresholds();
    let mut kernel = Kernel::load(&Options {
        only_netns,
        ..Options::default()
    })
    .inspect_err(log_verifier)?;
    let reader = kernel
        .take_census()?
        .context("this kernel cannot take a census: `agent check` says why")?;
    let options = census::Options {
        interval: Duration::ZERO,
        at_any_cost: true,
        only_netns,
        thresholds,
    };
    let (before, census) = Taker::once(reader, options).context("no census can be taken")?;
    drop(kernel);
    let findings = detect(&census, before.as_ref(), &thresholds).told();
    let snapshot = Snapshot::of(&census, findings);
    let text = if args.json {
        serde_json::to_string_pretty(&snapshot)?
    } else {
        snapshot.to_string()
    };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        printed => {
            printed.context("the snapshot cannot be printed")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Of the shape.
    version: u32,
    /// The agent's.
    agent: &'static str,
    /// The kernel's release.
    kernel: String,
    /// When the census was complete, in seconds since 1970.
    completed: f64,
    /// How long it took, in seconds.
    took: f64,
    /// Namespaces that could not be entered or counted.
    unreached_namespaces: usize,
    /// Sockets by state, of all namespaces.
    states: States,
    /// Those that no process holds any more.
    orphan_sockets: States,
    /// The kernel's count of orphans, and its limit.
    orphans: Option<Limited>,
    /// Every namespace.
    namespaces: Vec<Namespace>,
    /// What should not be.
    findings: Findings,
}

/// Sockets by the state's name.
#[derive(Clone, Copy, Debug)]
struct States([u64; STATE_COUNT]);

/// How much there is of what is limited.
#[derive(Clone, Copy, Debug, Serialize)]
struct Limited {
    count: u64,
    limit: u64,
}

/// A network namespace.
#[derive(Clone, Debug, Serialize)]
struct Namespace {
    netns: String,
    workload: Option<String>,
    states: States,
    minisockets: Option<Limited>,
    ephemeral_ports: Option<u32>,
    listeners: Vec<Listener>,
    sysctls: Sysctls,
}

/// A listening socket.
#[derive(Clone, Debug, Serialize)]
struct Listener {
    address: String,
    accept_queue: Limited,
}

#[derive(Clone, Debug)]
struct Sysctls(crate::limits::Sysctls);

impl Snapshot {
    /// Of a census and what it shows.
    #[must_use]
    pub fn of(census: &Census, findings: Findings) -> Self {
        let total = census.total();
        let namespaces = census.namespaces.iter();
        Self {
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION"),
            kernel: kernel_release(),
            completed: census.completed.as_secs_f64(),
            took: census.took.as_secs_f64(),
            unreached_namespaces: census.unreached,
            states: States(total.states),
            orphan_sockets: States(total.orphans),
            orphans: Orphans::of(census).map(|(count, limit)| Limited { count, limit }),
            namespaces: namespaces.map(Namespace::of).collect(),
            findings,
        }
    }
}

impl Namespace {
    fn of(namespace: &census::NamespaceCensus) -> Self {
        let limits = &namespace.limits;
        let minisockets = limits
            .sockstat
            .tw
            .zip(limits.sysctls.get("tcp_max_tw_buckets"));
        let listeners = namespace.listeners.iter();
        Self {
            netns: namespace.name(),
            workload: namespace
                .workload
                .as_ref()
                .map(|workload| workload.name.clone()),
            states: States(namespace.counts.states),
            minisockets: minisockets.map(|(count, limit)| Limited { count, limit }),
            ephemeral_ports: limits.sysctls.ephemeral_ports(),
            listeners: listeners
                .map(|listener| Listener {
                    address: listener.local.to_string(),
                    accept_queue: Limited {
                        count: listener.accept_queue.into(),
                        limit: listener.accept_queue_limit.into(),
                    },
                })
                .collect(),
            sysctls: Sysctls(limits.sysctls.clone()),
        }
    }
}

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for state in TcpState::ALL {
            map.serialize_entry(state.name(), &self.0[state as usize])?;
        }
        map.end()
    }
}

impl Serialize for Sysctls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

impl Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<12} {:>9} {:>9}", "STATE", "SOCKETS", "ORPHANS")?;
        for state in TcpState::ALL {
            let (sockets, orphans) = (
                self.states.0[state as usize],
                self.orphan_sockets.0[state as usize],
            );
            writeln!(out, "{:<12} {sockets:>9} {orphans:>9}", state.name())?;
        }
        writeln!(
            out,
            "\n{} network namespaces in {:.1} ms; {} not reached",
            self.namespaces.len(),
            self.took * 1e3,
            self.unreached_namespaces
        )?;
        self.limits(out)?;
        self.stalls(out)?;
        self.ports(out)
    }
}

impl Snapshot {
    fn limits(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\n{:<12} {:<24} {:>9} {:>9} {:>8}",
            "NETNS", "WHAT", "COUNT", "LIMIT", "USED"
        )?;
        let mut row = |netns: &str, what: &str, limited: Limited| {
            let part = if limited.limit == 0 {
                "-".to_owned()
            } else {
                // In tenths of a percent, without losing anything on the way.
                let permille = u128::from(limited.count) * 1_000 / u128::from(limited.limit);
                format!("{}.{} %", permille / 10, permille % 10)
            };
            let Limited { count, limit } = limited;
            writeln!(
                out,
                "{netns:<12} {what:<24} {count:>9} {limit:>9} {part:>8}"
            )
        };
        if let Some(orphans) = self.orphans {
            row("host", "tcp_max_orphans", orphans)?;
        }
        for namespace in &self.namespaces {
            if let Some(minisockets) = namespace.minisockets {
                row(&namespace.netns, "tcp_max_tw_buckets", minisockets)?;
            }
            for listener in &namespace.listeners {
                // A queue that is empty is no news.
                if listener.accept_queue.count > 0 {
                    let what = format!("listen {}", listener.address);
                    row(&namespace.netns, &what, listener.accept_queue)?;
                }
            }
        }
        Ok(())
    }

    fn stalls(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stalls = &self.findings.stalls;
        if stalls.is_empty() {
            return writeln!(out, "\nno connection is stuck on its way out");
        }
        writeln!(
            out,
            "\n{:<11} {:<14} {:>6} {:>9} {:<10} {:<28} {:<16} ENDS",
            "STUCK IN", "CAUSE", "COUNT", "OLDEST", "PORT", "WORKLOAD", "PROCESS"
        )?;
        for stall in stalls {
            stall_row(out, stall)?;
        }
        let untold = self.findings.stalls_untold;
        if untold > 0 {
            writeln!(out, "and {untold} more")?;
        }
        Ok(())
    }

    fn ports(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ports in &self.findings.ports {
            write!(out, "\n{}", PortsLine(ports))?;
        }
        if self.findings.ports_untold > 0 {
            write!(out, "\nand {} more", self.findings.ports_untold)?;
        }
        for minisockets in &self.findings.time_wait {
            write!(
                out,
                "\nnetns {}: {} timewait minisockets of {} (tcp_max_tw_buckets)",
                minisockets.netns, minisockets.sockets, minisockets.limit
            )?;
        }
        Ok(())
    }
}

fn stall_row(out: &mut fmt::Formatter<'_>, stall: &Stall) -> fmt::Result {
    let detector = stall
        .sockets
        .first()
        .map_or("", |socket| socket.state.name());
    let end = stall.sockets.first().map(|socket| socket.end);
    let end = match end {
        Some(end) => match end.after {
            Some(after) => {
                let at_least = if end.at_least { "at least " } else { "" };
                format!("{} in {at_least}{}", end.by.name(), brief(after))
            }
            None => end.by.name().to_owned(),
        },
        None => String::new(),
    };
    let port = format!("{}/{}", stall.port, stall.side.name());
    let pid = stall
        .pids
        .first()
        .map_or(String::new(), |pid| format!("[{pid}]"));
    writeln!(
        out,
        "{detector:<11} {:<14} {:>6} {:>9} {port:<10} {:<28} {:<16} {end}",
        stall.cause.name(),
        stall.count,
        AgeText(stall.oldest).to_string(),
        stall.workload,
        format!("{}{pid}", stall.process),
    )?;
    writeln!(out, "            {}", stall.cause.meaning())
}

/// An age, with `>` before one that may be longer.
struct AgeText(Age);

impl Display for AgeText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0.exact { "" } else { ">" };
        write!(out, "{sign}{}", brief(self.0.at_least))
    }
}

struct PortsLine<'a>(&'a Ports);

impl Display for PortsLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0;
        write!(
            out,
            "netns {}: {} of {} ephemeral ports from {} to {} port {}; {}",
            ports.netns,
            ports.used,
            ports.available,
            ports.source,
            ports.destination,
            ports.port,
            ports.reuse.meaning()
        )?;
        match ports.run_out {
            Some(Duration::ZERO) => write!(out, "; none is left")?,
            Some(after) => write!(out, "; they run out in about {}", brief(after))?,
            None => {}
        }
        for connector in &ports.connectors {
            write!(out, "; {} connects", connector.workload)?;
        }
        Ok(())
    }
}

/// A time to two figures, as 5m12s.
fn brief(time: Duration) -> String {
    let time = if time < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(time.as_millis() / 100 * 100).unwrap_or(0))
    } else {
        Duration::from_secs(time.as_secs())
    };
    let text = humantime::format_duration(time).to_string();
    let mut units = text.split(' ');
    let first = units.next().unwrap_or_default();
    format!("{first}{}", units.next().unwrap_or_default())
}
