//! The programs, maps and links of a process and of the host, by the numbers the kernel gives them.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Programs, maps and links by their numbers, which each kind counts for itself.
pub type BpfIds = BTreeSet<(BpfKind, u32)>;

/// What has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BpfKind {
    /// A program.
    Prog,
    /// A map.
    Map,
    /// What attaches a program.
    Link,
}

impl BpfKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Prog, Self::Map, Self::Link];

    /// As bpftool takes it.
    const fn name(self) -> &'static str {
        match self {
            Self::Prog => "prog",
            Self::Map => "map",
            Self::Link => "link",
        }
    }

    /// In /proc/PID/fdinfo/FD (`bpf_prog_show_fdinfo()`, `bpf_map_show_fdinfo()`,
    /// `bpf_link_show_fdinfo()`).
    const fn key(self) -> &'static str {
        match self {
            Self::Prog => "prog_id:",
            Self::Map => "map_id:",
            Self::Link => "link_id:",
        }
    }
}

/// Those that a process holds open.
///
/// # Errors
///
/// Where /proc does not tell.
pub fn of_process(pid: u32) -> Result<BpfIds> {
    let mut ids = BpfIds::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        for kind in BpfKind::ALL {
            let value = text.lines().find_map(|line| line.strip_prefix(kind.key()));
            if let Some(id) = value.and_then(|value| value.trim().parse().ok()) {
                ids.insert((kind, id));
            }
        }
    }
    Ok(ids)
}

/// Those of the whole host.
///
/// # Errors
///
/// Where bpftool is missing or does not tell.
pub fn of_host() -> Result<BpfIds> {
    let mut ids = BpfIds::new();
    for kind in BpfKind::ALL {
        let shown = Command::new("bpftool")
            .args(["-j", kind.name(), "show"])
            .output()
            .context("bpftool cannot be run")?;
        let list: Vec<Value> = serde_json::from_slice(&shown.stdout)
            .with_context(|| format!("{shown:?} is no list"))?;
        for item in list {
            let id = item["id"].as_u64().context("bpftool shows no id")?;
            ids.insert((kind, u32::try_from(id)?));
        }
    }
    Ok(ids)
}
