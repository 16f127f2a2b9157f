//! `agent events`: what happens to sockets, as it happens.
//!
//! From a running agent ([`remote`]), or where none runs from programs of its own ([`own`]); as
//! JSON lines or as a table ([`line`]), written by [`output`].

mod line;
mod output;
mod own;
mod remote;

use std::{os::unix::fs::MetadataExt as _, path::Path, process::ExitCode};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use self::{line::Style, output::Output};
use crate::{
    api::events::{EventsQuery, Mode},
    cli::EventsArgs,
};

/// Prints events until it is told to stop, or nobody reads them any more.
///
/// # Errors
///
/// Where there is no agent and no program can be loaded, or the agent refuses.
pub fn events(args: &EventsArgs) -> Result<ExitCode> {
    let query = query(args)?;
    let style = Style::new(args.table);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let count = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let mut output = Output::start(style.header())?;
        let printed = match args.agent.client().await? {
            Some(client) => remote::print(&client, &query, style, &mut output, stop).await,
            None => own::print(args, &query, style, &mut output, stop).await,
        };
        // What was heard is written, even where the rest did not come.
        let written = output.finish().await;
        printed.and_then(|count| written.map(|()| count))
    })?;
    eprintln!("{count}");
    Ok(ExitCode::SUCCESS)
}

/// How many events there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    printed: u64,
    /// Told by the programs, and lost on the way.
    lost: u64,
    /// How often the kernel skipped a program, which then told nothing.
    missed: u64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} events; {} lost", self.printed, self.lost)?;
        match self.missed {
            0 => Ok(()),
            missed => write!(out, "; {missed} times the kernel skipped a program"),
        }
    }
}

fn query(args: &EventsArgs) -> Result<EventsQuery> {
    let states: Vec<_> = args.state.iter().copied().map(TcpState::name).collect();
    Ok(EventsQuery {
        mode: if args.all { Mode::All } else { Mode::Lingering },
        state: (!states.is_empty()).then(|| states.join(",")),
        port: args.port,
        pid: args.pid,
        cgroup: args.cgroup.as_deref().map(cgroup_id).transpose()?,
        rate: None,
    })
}

/// The id of a cgroup, which is the inode number of its directory in the second version's
/// hierarchy (`kernfs_node::id`).
fn cgroup_id(path: &Path) -> Result<u64> {
    let directory = std::fs::metadata(path).with_context(|| {
        format!(
            "--cgroup takes a directory such as /sys/fs/cgroup/system.slice/nginx.service, and {} \
             cannot be looked at",
            path.display()
        )
    })?;
    anyhow::ensure!(
        directory.is_dir() && path.join("cgroup.procs").exists(),
        "{} is no cgroup's directory: it has no cgroup.procs",
        path.display()
    );
    Ok(directory.ino())
}
