//! What is watched: one run of a load in a process of its own, so that its CPU time is its own
//! and its sockets go with its namespace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::{churn, server};
use crate::child::Guarded;
use crate::setup;

/// The loads there are.
#[derive(Clone, Subcommand)]
pub(crate) enum Load {
    /// Connections opened, accepted and closed on loopback
    Churn {
        /// How many
        #[arg(long)]
        connections: u32,
        /// So many a second, rather than as fast as it goes
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        per_second: Option<u32>,
    },
    /// Requests to nginx by wrk
    Server {
        /// For how long
        #[arg(long)]
        seconds: u32,
    },
}

/// What one run achieved and spent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Connections or requests.
    pub(crate) operations: f64,
    pub(crate) seconds: f64,
    /// User and system time of the load itself.
    pub(crate) cpu_seconds: f64,
    /// Sockets that were still not closed long after the run.
    pub(crate) unfinished: u64,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.operations / self.seconds
    }

    pub(crate) fn cpu_micros_each(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.operations
    }
}

impl Load {
    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Churn { .. } => "churn",
            Self::Server { .. } => "server",
        }
    }

    /// The name of one operation.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Churn { .. } => "connection",
            Self::Server { .. } => "request",
        }
    }

    /// The state transitions one run makes, where its size is known beforehand.
    ///
    /// Per connection ten: two to connect, two to accept (the child is born in `SYN_RECV`), and
    /// three on each side to close, whoever closes first or both at once. The listener adds
    /// `CLOSE` to `LISTEN` and back.
    pub(crate) fn transitions(&self) -> Option<u64> {
        match self {
            Self::Churn { connections, .. } => Some(u64::from(*connections) * 10 + 2),
            Self::Server { .. } => None,
        }
    }

    /// The Debian package without which this load cannot run, where it is missing.
    pub(crate) fn missing_package(&self) -> Option<&'static str> {
        let needed: &[(&str, &str)] = match self {
            Self::Churn { .. } => &[("ip", "iproute2")],
            Self::Server { .. } => &[("ip", "iproute2"), ("nginx", "nginx"), ("wrk", "wrk")],
        };
        needed
            .iter()
            .find(|(program, _)| setup::program::path(program).is_none())
            .map(|(_, package)| *package)
    }

    /// Makes the load: what the child process does.
    pub(crate) fn generate(&self) -> Result<Outcome> {
        match self {
            Self::Churn {
                connections,
                per_second,
            } => churn::generate(*connections, *per_second),
            Self::Server { seconds } => server::generate(*seconds),
        }
    }

    /// Runs the load once, in a child process.
    pub(crate) fn run(&self) -> Result<Outcome> {
        self.outcome(Command::new(myself()?).args(self.arguments()))
    }

    /// The same, started by another program: its arguments end where the load's own begin.
    pub(crate) fn run_under(&self, mut starter: Command) -> Result<Outcome> {
        self.outcome(starter.arg(myself()?).args(self.arguments()))
    }

    fn outcome(&self, command: &mut Command) -> Result<Outcome> {
        let text = Guarded::output(command, self.deadline()).context("a run of the load failed")?;
        serde_json::from_str(&text)
            .with_context(|| format!("the load's outcome is not what was expected: {text}"))
    }

    fn arguments(&self) -> Vec<String> {
        let (option, size) = match self {
            Self::Churn { connections, .. } => ("--connections", connections),
            Self::Server { seconds } => ("--seconds", seconds),
        };
        let words = ["bench", "load", self.name(), option, &size.to_string()];
        let mut arguments = words.map(str::to_owned).to_vec();
        if let Self::Churn {
            per_second: Some(per_second),
            ..
        } = self
        {
            arguments.extend(["--per-second".to_owned(), per_second.to_string()]);
        }
        arguments
    }

    /// Far beyond what the slowest peer needs (100 µs per connection), so that only a hang hits it.
    fn deadline(&self) -> Duration {
        match self {
            Self::Churn {
                connections,
                per_second,
            } => {
                let paced = per_second.map_or(0, |per_second| connections / per_second);
                Duration::from_mins(1)
                    + Duration::from_millis(1) * *connections
                    + Duration::from_secs(1) * paced
            }
            Self::Server { seconds } => Duration::from_mins(1) + Duration::from_secs(1) * *seconds,
        }
    }
}

fn myself() -> Result<PathBuf> {
    std::env::current_exe().context("could not find this program's own file")
}
