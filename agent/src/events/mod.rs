//! `agent events`: what happens to sockets, as it happens.
//!
//! From a running agent ([`remote`]), or where none runs from programs of its own ([`own`]); as
//! JSON lines or as a table ([`line`]), written by [`output`].

mod line;
mod output;
mod own;
mod remote;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::{os::unix::fs::MetadataExt as _, path::Path, pin::pin, process::ExitCode};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    line::Style,
    output::{Farewell, Output},
};
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
    let listened = runtime.block_on(listen(args, &query, style));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    listened?;
    Ok(ExitCode::SUCCESS)
}

async fn listen(args: &EventsArgs, query: &EventsQuery, style: Style) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stop = pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let stream = match args.agent.client().await? {
        Some(client) => tokio::select! {
            () = &mut stop => return Ok(()),
            stream = remote::open(&client, query) => Some(stream?),
        },
        None => None,
    };
    let mut output = Output::start(style.header())?;
    let mut count = None;
    let printed = match stream {
        Some(stream) => {
            let count = count.insert(Count::default());
            remote::print(stream, style, &mut output, stop, count).await
        }
        None => own::print(args, query, style, &mut output, stop)
            .await
            .map(|told| count = Some(told)),
    };
    // What was heard is written, even where the rest did not come.
    let (farewell, written) = output.finish().await;
    if let Some(mut count) = count {
        count.settle(farewell);
        eprintln!("{count}");
    }
    printed.and(written)
}

/// How many events there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    printed: u64,
    /// Told by the programs, and lost on the way.
    lost: u64,
    /// How often the kernel skipped a program, which then told nothing.
    missed: u64,
    /// Told by an agent of another version, and not understood.
    strange: u64,
}

impl Count {
    /// Takes from those printed what was not written in the end.
    fn settle(&mut self, farewell: Farewell) {
        let unwritten = self.printed.saturating_sub(farewell.lines);
        self.printed -= unwritten;
        // To a reader that has gone nothing is lost.
        if !farewell.is_closed {
            self.lost = self.lost.saturating_add(unwritten);
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} events; {} lost", self.printed, self.lost)?;
        if self.missed > 0 {
            write!(out, "; {} times the kernel skipped a program", self.missed)?;
        }
        if self.strange > 0 {
            write!(out, "; {} not understood", self.strange)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_lost_unless_nobody_reads() {
        let before = Count {
            printed: 10,
            lost: 5,
            ..Count::default()
        };
        for (lines, is_closed, says) in [
            (10, false, "10 events; 5 lost"),
            (7, false, "7 events; 8 lost"),
            (7, true, "7 events; 5 lost"),
        ] {
            let mut count = before;
            count.settle(Farewell { lines, is_closed });
            assert_eq!(count.to_string(), says);
        }
    }
}
