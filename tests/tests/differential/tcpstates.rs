//! libbpf-tools' tcpstates, beside the workload.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::wait;

use super::step::{Key, Side, Told};

/// Where Debian has it.
const PROGRAM: &str = "/usr/sbin/tcpstates";

/// What it told, and what it did not.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// In the order of its lines.
    pub(super) told: Vec<Told>,
    /// Records for which its buffers had no room, as it says itself.
    pub(super) lost: u64,
    /// How often the kernel skipped its program (`trace_call_bpf()`).
    pub(super) skipped: u64,
}

/// Two of it: one shows the ends whose own port is of the plan, the other those whose peer's is.
/// It could show everything, but its buffers are small, and the host is not silent.
#[derive(Debug)]
pub(super) struct Tcpstates([Tracer; 2]);

#[derive(Debug)]
struct Tracer {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Tcpstates {
    /// Starts both; nothing where the program is not installed.
    pub(super) fn start(directory: &Path, ports: &[u16]) -> Result<Option<Self>> {
        if !Path::new(PROGRAM).is_file() {
            return Ok(None);
        }
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(",");
        let start = |name: &str, option: &str| Tracer::start(directory, name, option, &ports);
        let tracers = [
            start("local", "--localport")?,
            start("remote", "--remoteport")?,
        ];
        for tracer in &tracers {
            // It prints its header once its buffers are there.
            wait::until("tcpstates", || Ok(!tracer.lines()?.is_empty()))?;
        }
        Ok(Some(Self(tracers)))
    }

    /// Holds both up, or lets them go on.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.0.iter().try_for_each(|tracer| tracer.signal(signal))
    }

    /// How many transitions it has told so far.
    pub(super) fn count(&self) -> Result<u64> {
        let counts = self
            .0
            .iter()
            .map(|tracer| Ok(tracer.lines()?.lines().skip(1).count()));
        let counts = counts.collect::<Result<Vec<_>>>()?;
        Ok(counts.into_iter().sum::<usize>() as u64)
    }

    /// Ends both, and reads what they told.
    pub(super) fn end(self) -> Result<Traced> {
        let mut traced = Traced::default();
        let [local, remote] = self.0;
        for (tracer, is_remote) in [(local, false), (remote, true)] {
            // What is skipped is skipped for both.
            traced.skipped = traced.skipped.max(tracer.skipped()?);
            let (lines, errors) = tracer.end()?;
            for line in errors.lines().filter(|line| !line.is_empty()) {
                traced.lost += lost(line).with_context(|| format!("tcpstates says {line}"))?;
            }
            let told = lines.lines().skip(1).map(parse);
            for told in told.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                // A socket connected to itself is shown by both.
                if is_remote == (told.key.side == Side::Client) {
                    traced.told.push(told);
                }
            }
        }
        Ok(traced)
    }
}

impl Tracer {
    fn start(directory: &Path, name: &str, option: &str, ports: &str) -> Result<Self> {
        let output = directory.join(name);
        let errors = directory.join(format!("{name}.errors"));
        // To a file it would write only when it ends, unless it is told otherwise.
        let child = Command::new("stdbuf")
            .args(["-oL", PROGRAM, "--wide", option, ports])
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()
            .context("stdbuf cannot be run")?;
        Ok(Self {
            child,
            output,
            errors,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(pid, signal)?)
    }

    fn lines(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    /// As the kernel tells of the programs it holds (`bpf_prog_show_fdinfo()`).
    fn skipped(&self) -> Result<u64> {
        let mut skipped = 0;
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let mut lines = text.lines();
            let misses = lines.find_map(|line| line.strip_prefix("recursion_misses:"));
            skipped += misses.map_or(Ok(0), |misses| misses.trim().parse::<u64>())?;
        }
        Ok(skipped)
    }

    fn end(mut self) -> Result<(String, String)> {
        self.signal(Signal::SIGINT)?;
        let status = self.child.wait()?;
        let errors = fs::read_to_string(&self.errors)?;
        ensure!(status.success(), "tcpstates ended with {status}: {errors}");
        Ok((self.lines()?, errors))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Of a line like `lost 3 events on CPU #1`.
fn lost(line: &str) -> Option<u64> {
    let (count, _) = line.strip_prefix("lost ")?.split_once(" events")?;
    count.parse().ok()
}

/// Of a line like `ffff8881196f8940 2998 some name 4 127.0.0.1 80 127.0.0.1 41496 LISTEN ->
/// SYN_RECV 0.000`. A process's name may have spaces, so it is read from the end. Sockets of
/// others are nothing.
fn parse(line: &str) -> Result<Option<Told>> {
    let mut words = line.split_ascii_whitespace().rev();
    let mut word = || {
        words
            .next()
            .with_context(|| format!("a short line: {line}"))
    };
    let (_ms, to, _arrow, from) = (word()?, word()?, word()?, word()?);
    let (remote, remote_address, local, local_address) = (word()?, word()?, word()?, word()?);
    let key = Key::of(local.parse()?, remote.parse()?);
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    ensure!(
        is_address(remote_address) && is_address(local_address),
        "no addresses: {line}"
    );
    let step = (state(from)?, state(to)?);
    Ok(key.map(|key| Told {
        key,
        netns: None,
        step,
        cause: None,
    }))
}

fn state(name: &str) -> Result<TcpState> {
    let lower = name.to_lowercase();
    let state = TcpState::ALL
        .into_iter()
        .find(|state| state.name() == lower);
    state.with_context(|| format!("a state unknown here: {name}"))
}

#[test]
fn a_line_is_read_from_its_end() -> Result<()> {
    let line = "ffff8881196f8940 2998    a b 4  4  127.0.0.1                  30001 127.0.0.1                  41496 LISTEN      -> SYN_RECV    0.000";
    let told = parse(line)?.context("it is of the plan")?;
    assert_eq!(Some(told.key), Key::of(30_001, 41_496));
    assert_eq!(told.step, (TcpState::Listen, TcpState::SynRecv));
    assert!(parse(&line.replace("30001", "443"))?.is_none());
    assert!(parse("ffff8881196f8940 2998 x").is_err());
    assert!(parse(&line.replace("SYN_RECV", "BOUND")).is_err());
    assert_eq!(lost("lost 3 events on CPU #1"), Some(3));
    assert_eq!(lost("error polling perf buffer"), None);
    Ok(())
}
