//! The programs, maps and links of a process and of the host, by the numbers the kernel gives them.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, bail};
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

/// How often bpftool is asked anew, where something went while it listed.
const ATTEMPTS: usize = 50;

/// Those of the whole host.
///
/// # Errors
///
/// Where bpftool is missing or does not tell.
pub fn of_host() -> Result<BpfIds> {
    let mut ids = BpfIds::new();
    for kind in BpfKind::ALL {
        ids.extend(of_kind(kind)?.into_iter().map(|id| (kind, id)));
    }
    Ok(ids)
}

fn of_kind(kind: BpfKind) -> Result<Vec<u32>> {
    let mut shown = String::new();
    for _ in 0..ATTEMPTS {
        let output = Command::new("bpftool")
            .args(["-j", kind.name(), "show"])
            .output()
            .context("bpftool cannot be run")?;
        shown = format!("{output:?}");
        let list: Vec<Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{shown} is no list"))?;
        // It ends its list with an error once one of those it found is gone.
        let ids = list.iter().map(|item| item["id"].as_u64()?.try_into().ok());
        if let Some(ids) = ids.collect() {
            return Ok(ids);
        }
    }
    bail!("not one whole list of {ATTEMPTS}: {shown}")
}
