//! The agent's binary, started as a host would start it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::http::{Response, Scrape, request};

/// How long anything may take that should come at once.
const DEADLINE: Duration = Duration::from_mins(1);

/// Runs the daemon on a port of the kernel's choice.
pub const RUN: [&str; 3] = ["run", "--web.listen-address", "127.0.0.1:0"];

/// The agent's binary: what `CONNSTATE_AGENT` names, or the one built beside the tests.
///
/// # Errors
///
/// Where there is none.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("CONNSTATE_AGENT") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("the tests do not run in cargo's target directory")?
            .join("agent"),
    };
    ensure!(
        path.is_file(),
        "there is no agent at {}: build it with `cargo build --release`, or let CONNSTATE_AGENT \
         name it",
        path.display()
    );
    Ok(path)
}

/// Runs the agent until it ends by itself.
///
/// # Errors
///
/// Where it cannot be started, or does not end in time.
pub fn output(command: &mut Command) -> Result<Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be run"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (ended, waiting) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waiting.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _gone_already = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output();
    drop(ended);
    let _panicked = guard.join();
    let output = output?;
    ensure!(
        output.status.signal().is_none(),
        "{command:?} did not end in time"
    );
    Ok(output)
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
    address: SocketAddr,
    start_up: Duration,
}

type Log = Arc<Mutex<Vec<String>>>;

impl Daemon {
    /// Starts `agent run` with these options on a port of the kernel's choice.
    ///
    /// # Errors
    ///
    /// Where it ends, or is not ready in time.
    pub fn start(options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(RUN).args(options);
        Self::spawn(&mut command)
    }

    /// As [`Daemon::start`]; `command` ends in the agent's binary, [`RUN`] and options.
    ///
    /// # Errors
    ///
    /// Where it ends, or is not ready in time.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut daemon = Self::launch(command)?;
        daemon.wait("an answer on /readyz", |daemon| {
            let response = daemon.get("/readyz").ok()?;
            (response.status == 200).then_some(())
        })?;
        Ok(daemon)
    }

    /// As [`Daemon::spawn`], but asks it nothing: it serves, and may not be ready yet.
    ///
    /// # Errors
    ///
    /// Where it ends, or does not serve in time.
    pub fn launch(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} cannot be run"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let log = Log::default();
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        let mut daemon = Self {
            child,
            log,
            reader: Some(reader),
            address: SocketAddr::from(([0; 4], 0)),
            start_up: Duration::ZERO,
        };
        daemon.address = daemon.wait("the start-up line", |daemon| {
            daemon.log().iter().find_map(|line| listening(line))
        })?;
        daemon.start_up = started.elapsed();
        Ok(daemon)
    }

    /// Polls until there is what is waited for, called `what`.
    ///
    /// # Errors
    ///
    /// Where the agent ends, or the time runs out.
    pub fn wait<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = find(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                self.join_reader();
                bail!("the agent ended with {status}: {:?}", self.log());
            }
            ensure!(
                started.elapsed() < DEADLINE,
                "no {what} in time; the log: {:?}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    ///
    /// Where the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        Ok(size.parse()?)
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long it took to say that it runs.
    #[must_use]
    pub fn start_up(&self) -> Duration {
        self.start_up
    }

    /// What it logged so far, line by line.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks for a path with GET.
    ///
    /// # Errors
    ///
    /// Where there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        request(self.address, "GET", path)
    }

    /// Reads /metrics.
    ///
    /// # Errors
    ///
    /// Where the answer is not numbers.
    pub fn scrape(&self) -> Result<Scrape> {
        Scrape::parse(&self.get("/metrics")?.body)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            signal,
        )?)
    }

    /// Sends a signal and waits for the end: how it ended, how long that took, the whole log.
    ///
    /// # Errors
    ///
    /// Where it does not end in time.
    pub fn end(self, signal: Signal) -> Result<(ExitStatus, Duration, Vec<String>)> {
        self.signal(signal)?;
        self.ended()
    }

    /// As [`Daemon::end`], of one that something else ends.
    ///
    /// # Errors
    ///
    /// Where it does not end in time.
    pub fn ended(mut self) -> Result<(ExitStatus, Duration, Vec<String>)> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(started.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = started.elapsed();
        self.join_reader();
        Ok((status, took, self.log()))
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        self.join_reader();
    }
}

/// The address in the start-up line, in either format.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, after) = line
        .split_once("\"listening\":\"")
        .or_else(|| line.split_once("listening=\""))?;
    after.split(['"', ' ']).next()?.parse().ok()
}
