//! Processes of their own that hold connections: see the binary of the same name.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
};

use anyhow::{Context as _, Error, Result, bail, ensure};

use crate::{cgroup::Cgroup, netns::Netns, wait::DEADLINE};

/// What a process does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Listens, and never accepts.
    Hung,
    /// Accepts, and reads to the end or nothing at all.
    Server(bool),
    /// Connects, and reads nothing.
    Client,
}

impl Display for Role {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Hung => "hung",
            Self::Server(true) => "reader",
            Self::Server(false) => "idler",
            Self::Client => "client",
        })
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [
            Self::Hung,
            Self::Server(true),
            Self::Server(false),
            Self::Client,
        ];
        let named = all.into_iter().find(|role| role.to_string() == text);
        named.with_context(|| format!("{text} is no role"))
    }
}

/// How a process is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Its name.
    pub process: &'a str,
    /// What it does.
    pub role: Role,
    /// The port it listens on or connects to.
    pub port: u16,
    /// How many connections it takes.
    pub count: usize,
    /// The name of the threads that do all of it, where it is not the first one.
    pub thread: Option<&'a str>,
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    said: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Holder {
    /// Starts `binary` in `netns` and `cgroup`. It has made no socket yet.
    ///
    /// # Errors
    ///
    /// Where it cannot be started or moved.
    pub fn start(binary: &str, netns: &Netns, cgroup: &Cgroup, plan: &Plan<'_>) -> Result<Self> {
        let mut command = Command::new(binary);
        let numbers = [plan.port.to_string(), plan.count.to_string()];
        command.args([plan.process, &plan.role.to_string()]);
        command.args(numbers).args(plan.thread);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = netns.run(|| {
            let child = command.spawn();
            child.with_context(|| format!("{command:?} cannot be run"))
        })?;
        let stdout = child.stdout.take();
        let (say, said) = channel();
        let reader = std::thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|stdout| BufReader::new(stdout).lines());
            for line in lines.map_while(Result::ok) {
                // Nobody may be left to hear it.
                let _ignored = say.send(line);
            }
        });
        let holder = Self {
            child,
            said,
            reader: Some(reader),
        };
        let moved = fs::write(cgroup.processes(), holder.pid().to_string());
        moved.with_context(|| format!("{} does not take it in", cgroup.name()))?;
        Ok(holder)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on to its next step.
    ///
    /// # Errors
    ///
    /// Where it has ended.
    pub fn go_on(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        stdin.write_all(b"\n").context("the holder has ended")
    }

    /// Waits until it says so.
    ///
    /// # Errors
    ///
    /// Where it says something else, ends, or says nothing in time.
    pub fn says(&mut self, expected: &str) -> Result<()> {
        let Ok(line) = self.said.recv_timeout(DEADLINE) else {
            bail!("the holder does not say {expected:?}");
        };
        ensure!(line == expected, "the holder says {line:?}");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}
