//! `cargo xtask bench`: what watching costs the watched.
//!
//! A load runs again and again, by turns without and with an observer, and what counts is the
//! ratio within each pair: absolute figures shift from machine to machine and from minute to
//! minute. In reading order: the [`load`]s, which are the bare [`churn`] and a real [`server`],
//! each in its own [`namespace`], where all its [`sockets`] are waited for; the observing
//! [`tool`]s, the [`cpu`] time they use, and what the
//! agent's own [`metrics`] ([`prom`]) say of a run; the [`pairs`] of runs, or the [`profile`] of
//! one, or what the programs [`cost`] by the kernel's account; an agent that is [`idle`]; sockets that
//! [`hold`] still, for a [`census`]; how cost grows, which is the [`scaling`], each a [`study`]; the
//! long run, which is the [`soak`]; the [`table`] and the [`machine`] it holds for; and what is held
//! against the [`budget`] in one [`document`].

mod load;

mod churn;

mod server;

mod namespace;

mod sockets;

mod tool;

mod cpu;

mod metrics;

mod prom;

mod pairs;

mod profile;

mod cost;

mod idle;

mod hold;

mod census;

mod scaling;

mod study;

mod soak;

mod table;

mod machine;

mod budget;

mod document;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::setup::{self, Need};
use crate::{cargo, superuser};
use load::Load;
use tool::{Subject, Tool};

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Connect, accept, close on loopback: nothing but state transitions
    Churn {
        #[command(flatten)]
        options: Options,
        /// Connections per run
        #[arg(long, default_value_t = 60_000)]
        connections: u32,
        /// So many a second, rather than as fast as it goes
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        per_second: Option<u32>,
    },
    /// nginx under wrk, a connection per request
    Server {
        #[command(flatten)]
        options: Options,
        /// Seconds per run
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// Both, once for each tool: the part of the processor's time that goes into BPF programs
    Profile {
        #[command(flatten)]
        observers: Observers,
        /// Connections of the churn
        #[arg(long, default_value_t = 200_000)]
        connections: u32,
        /// Seconds of the server
        #[arg(long, default_value_t = 8)]
        seconds: u32,
    },
    /// A census of the sockets there are, beside ss and node_exporter
    Census {
        /// Rounds, in each of which all three count
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        observers: Observers,
    },
    /// What the cost grows with: sockets, network namespaces, connections a second
    Scaling {
        #[command(flatten)]
        observers: Observers,
    },
    /// A long run at a steady rate
    Soak {
        /// How long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        #[command(flatten)]
        observers: Observers,
    },
    /// All of these and more, in some 35 minutes, and docs/benchmarks.md anew
    All {
        #[command(flatten)]
        extent: document::Extent,
        #[command(flatten)]
        observers: Observers,
    },
    /// Sockets that a census finds, held until standard input ends (what `census` starts)
    #[command(hide = true)]
    Hold(hold::Sockets),
    /// One run of a load, by itself (what the others start again and again)
    #[command(subcommand, hide = true)]
    Load(Load),
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Pairs of runs, without and with the tool
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    #[command(flatten)]
    observers: Observers,
}

#[derive(clap::Args)]
pub(crate) struct Observers {
    /// Only these tools (repeatable); all that are installed otherwise
    #[arg(long = "tool", value_enum)]
    tools: Vec<Tool>,
    /// An argument for `agent run` (repeatable)
    #[arg(long = "agent-arg", allow_hyphen_values = true)]
    agent_args: Vec<String>,
    /// The agent to measure; built from this workspace otherwise
    #[arg(long)]
    agent: Option<PathBuf>,
}

pub(crate) fn main(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Churn {
            options,
            connections,
            per_second,
        } => compare(
            options,
            &Load::Churn {
                connections: *connections,
                per_second: *per_second,
            },
        ),
        Bench::Server { options, seconds } => compare(options, &Load::Server { seconds: *seconds }),
        Bench::Profile {
            observers,
            connections,
            seconds,
        } => profile(
            observers,
            &[
                Load::Churn {
                    connections: *connections,
                    per_second: None,
                },
                Load::Server { seconds: *seconds },
            ],
        ),
        Bench::Census { rounds, observers } => {
            let (_, subject) = prepare(observers, &[])?;
            println!("\n{}", census::run(*rounds, &subject)?.render());
            println!("{}", census::describe(&subject));
            Ok(())
        }
        Bench::Scaling { observers } => {
            let (_, subject) = prepare(observers, &[])?;
            for study in [
                scaling::with_sockets(&subject)?,
                scaling::with_namespaces(&subject)?,
                scaling::with_rate(&subject)?,
            ] {
                println!("\n{}", study.table());
            }
            println!("{}", census::describe(&subject));
            Ok(())
        }
        Bench::Soak { minutes, observers } => {
            let (_, subject) = prepare(observers, &[])?;
            let soak = soak::run(Duration::from_mins(*minutes), &subject)?;
            println!("\n{}", soak.render());
            Ok(())
        }
        Bench::All { extent, observers } => {
            let (tools, subject) = prepare(observers, &document::LOADS)?;
            document::write(*extent, &tools, &subject)
        }
        Bench::Hold(sockets) => hold::generate(*sockets),
        Bench::Load(load) => {
            println!("{}", serde_json::to_string(&load.generate()?)?);
            Ok(())
        }
    }
}

fn compare(options: &Options, load: &Load) -> Result<()> {
    let (tools, subject) = prepare(&options.observers, slice::from_ref(load))?;
    let rows = pairs::run(load, &tools, options.pairs, &subject)?;
    println!("\n{}", table::render(&rows, load.unit()));
    println!(
        "{}",
        machine::describe(&tools, slice::from_ref(load), &subject)
    );
    Ok(())
}

fn profile(observers: &Observers, loads: &[Load]) -> Result<()> {
    let (tools, subject) = prepare(observers, loads)?;
    println!("\n{}", profile::run(loads, &tools, &subject)?);
    println!("{}", machine::describe(&tools, loads, &subject));
    Ok(())
}

/// Builds what is to be measured, and starts anew as root where this is not.
fn prepare(observers: &Observers, loads: &[Load]) -> Result<(Vec<Tool>, Subject)> {
    let tools = if observers.tools.is_empty() {
        Tool::ALL.to_vec()
    } else {
        observers.tools.clone()
    };
    let agent = agent(observers, &tools)?;
    if !superuser::is_root() {
        return again_as_root(agent);
    }
    if let Some(package) = loads.iter().find_map(Load::missing_package) {
        bail!(
            "this load needs Debian's package {package}; `cargo xtask setup --bench` installs it"
        );
    }
    tools.iter().try_for_each(|tool| tool.require())?;
    let subject = Subject {
        agent,
        arguments: observers.agent_args.clone(),
    };
    Ok((tools, subject))
}

/// The agent's binary, where a row needs it.
fn agent(observers: &Observers, tools: &[Tool]) -> Result<Option<PathBuf>> {
    if observers.agent.is_some() || !tools.iter().any(|tool| tool.is_agent()) {
        return Ok(observers.agent.clone());
    }
    setup::ensure(&[Need::Build])?;
    cargo::build_agent().map(Some)
}

/// Namespaces and BPF programs take root, building does not: everything is built by now.
fn again_as_root<T>(agent: Option<PathBuf>) -> Result<T> {
    let myself = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = superuser::command(&myself, &[]);
    command.args(std::env::args_os().skip(1));
    if let Some(agent) = agent {
        command.arg("--agent").arg(agent);
    }
    Err(command.exec()).context("could not start sudo; run this as root")
}
