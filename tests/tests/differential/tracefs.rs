//! What the kernel itself writes down of its tracepoint, in an instance of tracefs of the test's
//! own: no BPF program is between. It shows whether a transition that nobody told was made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result, ensure};

use super::{
    plan::{FIRST_PORT, PORTS},
    step::{Key, Told},
};

/// Where it is mounted, by systemd at the start of most hosts; tcpstates looks for it here, too.
const TRACEFS: &str = "/sys/kernel/tracing";

/// For each processor: some 50 000 transitions.
const BUFFER_KIB: &str = "8192";

/// That it is mounted, until this value goes where it was not.
#[derive(Debug)]
pub(super) struct Mounted {
    is_ours: bool,
}

impl Mounted {
    /// Mounts it if need be; an error where this host does not let anyone.
    pub(super) fn ensure() -> Result<Self> {
        if Path::new(TRACEFS).join("instances").is_dir() {
            return Ok(Self { is_ours: false });
        }
        let mounted = Command::new("mount")
            .args(["-t", "tracefs", "tracefs", TRACEFS])
            .output()?;
        ensure!(mounted.status.success(), "{mounted:?}");
        Ok(Self { is_ours: true })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_ours {
            let unmounted = Command::new("umount").arg(TRACEFS).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("{TRACEFS} stays mounted");
            }
        }
    }
}

/// A recording.
#[derive(Debug)]
pub(super) struct Recording(PathBuf);

impl Recording {
    /// Starts one of the plan's ports.
    pub(super) fn start() -> Result<Self> {
        let path = PathBuf::from(format!(
            "{TRACEFS}/instances/connstate_{}",
            std::process::id()
        ));
        fs::create_dir(&path).context("tracefs takes no instance")?;
        let recording = Self(path);
        let end = FIRST_PORT + PORTS;
        let planned = |port: &str| format!("({port} >= {FIRST_PORT} && {port} < {end})");
        let filter = format!(
            "protocol == 6 && ({} || {})",
            planned("sport"),
            planned("dport")
        );
        recording.write("buffer_size_kb", BUFFER_KIB)?;
        recording.write("events/sock/inet_sock_set_state/filter", &filter)?;
        recording.write("events/sock/inet_sock_set_state/enable", "1")?;
        Ok(recording)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.0.join(file), text).with_context(|| format!("{file} does not take {text}"))
    }

    /// Ends it, and reads what was recorded.
    pub(super) fn end(self) -> Result<Vec<Told>> {
        self.write("events/sock/inet_sock_set_state/enable", "0")?;
        for processor in fs::read_dir(self.0.join("per_cpu"))? {
            let stats = fs::read_to_string(processor?.path().join("stats"))?;
            let mut lines = stats.lines();
            ensure!(
                lines.any(|line| line == "overrun: 0"),
                "it is full: {stats}"
            );
        }
        let text = fs::read_to_string(self.0.join("trace"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let told = lines.map(parse).collect::<Result<Vec<_>>>()?;
        Ok(told.into_iter().flatten().collect())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What is left behind says so by its name.
        let _left = fs::remove_dir(&self.0);
    }
}

/// Of a line that ends like `inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=30001
/// dport=0 saddr=… oldstate=TCP_CLOSE newstate=TCP_LISTEN`.
fn parse(line: &str) -> Result<Option<Told>> {
    let value = |key: &str| {
        let mut words = line.split_ascii_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.with_context(|| format!("no {key}: {line}"))
    };
    let state = |key: &str| {
        let name = value(key)?.trim_start_matches("TCP_").to_lowercase();
        let state = TcpState::ALL.into_iter().find(|state| state.name() == name);
        state.with_context(|| format!("a state unknown here: {line}"))
    };
    let key = Key::of(value("sport")?.parse()?, value("dport")?.parse()?);
    let step = (state("oldstate")?, state("newstate")?);
    Ok(key.map(|key| Told {
        key,
        netns: None,
        step,
        cause: None,
    }))
}

#[test]
fn a_record_of_tracefs_names_ports_and_states() -> Result<()> {
    let line = "  some-name-4 [001] ..s2. 1.5: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=30001 dport=41496 saddr=127.0.0.1 daddr=127.0.0.1 saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.0.0.1 oldstate=TCP_FIN_WAIT1 newstate=TCP_CLOSE";
    let told = parse(line)?.context("it is of the plan")?;
    assert_eq!(Some(told.key), Key::of(30_001, 41_496));
    assert_eq!(told.step, (TcpState::FinWait1, TcpState::Close));
    assert!(parse("some-name-4 [001] 1.5: another: sport=1").is_err());
    Ok(())
}
