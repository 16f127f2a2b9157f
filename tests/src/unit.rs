//! The agent's systemd unit, as the package brings it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

/// The capabilities that a unit may name, with the kernel's numbers.
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// Where the unit is.
#[must_use]
pub fn path() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.join("../deploy/systemd/connstate-agent.service")
}

/// The capabilities that the agent is given: all it may ever have, as the unit names them twice.
///
/// # Errors
///
/// Where the unit cannot be read, or names them otherwise.
pub fn capabilities() -> Result<Vec<String>> {
    let unit = fs::read_to_string(path())?;
    let named = |key: &str| {
        let mut lines = unit.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.with_context(|| format!("the unit has no {key}"))
    };
    let ambient = named("AmbientCapabilities")?;
    anyhow::ensure!(
        ambient == named("CapabilityBoundingSet")?,
        "the unit's two sets of capabilities differ"
    );
    Ok(ambient.split(' ').map(str::to_owned).collect())
}

/// The set of these as /proc/PID/status writes it.
///
/// # Errors
///
/// Where one is unknown.
pub fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut mask = 0u64;
    for name in names {
        let number = CAPABILITIES.iter().find(|(known, _)| *known == name);
        let (_, number) = number.with_context(|| format!("{name} has no number here"))?;
        mask |= 1 << number;
    }
    Ok(format!("{mask:016x}"))
}
