//! `agent snapshot`: one census, and what it shows, as a table or as JSON.
//!
//! The table is for people, the JSON, whose shape is versioned, for programs.

use std::{
    fmt::{self, Display},
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result};

use crate::{
    advice::Advice,
    api::snapshot::{Limited, Snapshot, States},
    census::{self, Taker},
    cli::SnapshotArgs,
    clock::monotonic,
    kernel::{Kernel, Options},
    model::Model,
    words,
};

/// Takes a census and prints it.
///
/// # Errors
///
/// Where the programs do not load, no census can be taken, or nobody reads it.
pub fn snapshot(args: &SnapshotArgs) -> Result<ExitCode> {
    let snapshot = take(args)?;
    let text = if args.json {
        serde_json::to_string_pretty(&snapshot)?
    } else {
        Table(&snapshot).to_string()
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

fn take(args: &SnapshotArgs) -> Result<Snapshot> {
    let options = census::Options {
        at_any_cost: true,
        ..args.watched.census(Duration::ZERO)?
    };
    let mut kernel = Kernel::load(&Options {
        only_netns: options.only_netns,
        ..Options::default()
    })?;
    let reader = kernel
        .take_census()?
        .context("this kernel cannot take a census: `agent check` says why")?;
    let mut model = Model::new(args.watched.setup());
    let (before, census) = Taker::once(reader, options).context("no census can be taken")?;
    for census in before.into_iter().chain([census]) {
        model.census(census);
    }
    let now = monotonic();
    model.count(now, kernel.counters()?, kernel.programs());
    Snapshot::of(&model.view(now)).context("the census is not in the view of it")
}

/// Before what belongs to the row above.
const INDENT: &str = "            ";

/// Of a paragraph.
const WIDTH: usize = 96;

/// A snapshot as people read it.
struct Table<'a>(&'a Snapshot);

/// The advice that a table has given, so as to give each once.
type Said<'a> = Vec<&'a [Advice]>;

impl Display for Table<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<12} {:>9} {:>9}", "STATE", "SOCKETS", "ORPHANS")?;
        for state in TcpState::ALL {
            let of = |states: &States| states.get(&state).copied().unwrap_or(0);
            let (sockets, orphans) = (of(&self.0.states), of(&self.0.orphan_sockets));
            writeln!(out, "{:<12} {sockets:>9} {orphans:>9}", state.name())?;
        }
        writeln!(
            out,
            "\n{} network namespaces in {:.1} ms; {} not reached",
            self.0.namespaces.len(),
            self.0.took * 1e3,
            self.0.unreached_namespaces
        )?;
        if self.0.untold_sockets > 0 {
            let count = words::count(self.0.untold_sockets);
            writeln!(out, "{count} sockets counted, but not told apart")?;
        }
        for program in &self.0.unattached_programs {
            writeln!(out, "{program} does not run: `agent check` says why")?;
        }
        self.limits(out)?;
        let mut said = Said::new();
        self.near(out, &mut said)?;
        self.stalls(out, &mut said)
    }
}

impl<'a> Table<'a> {
    fn limits(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\n{:<12} {:<24} {:>9} {:>9} {:>8}",
            "NETNS", "WHAT", "COUNT", "LIMIT", "USED"
        )?;
        let mut row = |netns: &str, what: &str, limited: Limited| {
            let Limited { count, limit } = limited;
            let part = words::share(count, limit);
            writeln!(
                out,
                "{netns:<12} {what:<24} {count:>9} {limit:>9} {part:>8}"
            )
        };
        if let Some(orphans) = self.0.orphans {
            row("host", "tcp_max_orphans", orphans)?;
        }
        for namespace in &self.0.namespaces {
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

    fn stalls(&self, out: &mut fmt::Formatter<'_>, said: &mut Said<'a>) -> fmt::Result {
        let stalls = &self.0.findings.stalls;
        if stalls.is_empty() {
            return writeln!(out, "\nno connection is stuck on its way out");
        }
        writeln!(
            out,
            "\n{:<11} {:<14} {:>6} {:>9} {:<10} {:<28} {:<16} ENDS",
            "STUCK IN", "CAUSE", "COUNT", "OLDEST", "PORT", "WORKLOAD", "PROCESS"
        )?;
        for stall in stalls {
            let ends = stall.sockets.first().map(|socket| words::end(socket.end));
            writeln!(
                out,
                "{:<11} {:<14} {:>6} {:>9} {:<10} {:<28} {:<16} {}",
                words::stuck_in(stall),
                stall.cause.name(),
                stall.count,
                words::age(stall.oldest),
                words::service(stall),
                stall.workload,
                words::process(stall),
                ends.unwrap_or_default(),
            )?;
            writeln!(out, "{INDENT}{}", stall.cause.meaning())?;
            advise(out, said, &stall.advice)?;
        }
        more(out, self.0.findings.stalls_untold)
    }

    /// Limits that are near.
    fn near(&self, out: &mut fmt::Formatter<'_>, said: &mut Said<'a>) -> fmt::Result {
        let findings = &self.0.findings;
        if let Some(orphans) = &findings.orphans {
            writeln!(out, "\n{}", words::orphans(orphans))?;
            advise(out, said, &orphans.advice)?;
        }
        for minisockets in &findings.time_wait {
            writeln!(out, "\n{}", words::minisockets(minisockets))?;
            advise(out, said, &minisockets.advice)?;
        }
        for ports in &findings.ports {
            writeln!(out, "\n{}", words::ports(ports))?;
            advise(out, said, &ports.advice)?;
        }
        more(out, findings.ports_untold)
    }
}

/// What can be done: said once, however many findings need it.
fn advise<'a>(
    out: &mut fmt::Formatter<'_>,
    said: &mut Said<'a>,
    advice: &'a [Advice],
) -> fmt::Result {
    if said.contains(&advice) {
        return writeln!(out, "{INDENT}> as above");
    }
    said.push(advice);
    for advice in advice {
        for (index, paragraph) in words::advice(advice).into_iter().enumerate() {
            let mark = if index == 0 { "> " } else { "  " };
            let options = textwrap::Options::new(WIDTH)
                .initial_indent(mark)
                .subsequent_indent("  ");
            for line in textwrap::wrap(&paragraph, options) {
                writeln!(out, "{INDENT}{line}")?;
            }
        }
    }
    Ok(())
}

/// What there was no room for.
fn more(out: &mut fmt::Formatter<'_>, untold: usize) -> fmt::Result {
    if untold > 0 {
        writeln!(out, "and {untold} more")?;
    }
    Ok(())
}
