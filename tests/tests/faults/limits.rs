//! Limits of descriptors, memory and processes.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    daemon::{RUN, binary, output},
    load::churn,
    netns::Netns,
    place::{Family, Place},
    wait,
};

use super::{
    scene::{PLAINLY, Scene, Start},
    verdict,
};

/// The fewest descriptors that an agent starts with.
pub(super) const FEW_DESCRIPTORS: Start = Start {
    through: &["prlimit", "--nofile=64:64"],
    ..PLAINLY
};

/// Few at first, and more for the asking.
pub(super) const FEW_AT_FIRST: Start = Start {
    through: &["prlimit", "--nofile=24:4096"],
    ..PLAINLY
};

/// Addresses for 128 MiB.
pub(super) const FEW_ADDRESSES: Start = Start {
    through: &["prlimit", "--as=134217728"],
    ..PLAINLY
};

/// 128 MiB of memory, half of what the unit allows, the kernel's for the maps included; the first
/// version's controller. With 64 MiB some starts end: reading the types and verifying the programs
/// takes 35 MiB for a moment, and the maps 27.
pub(super) const LITTLE_MEMORY: Start = Start {
    before: Some(
        "path=/sys/fs/cgroup/memory/connstate-fault && if test -d /sys/fs/cgroup/memory; then \
         mkdir -p $path && echo 134217728 >$path/memory.limit_in_bytes && \
         echo $$ >$path/cgroup.procs; fi",
    ),
    ..PLAINLY
};

const MEMORY: &str = "/sys/fs/cgroup/memory/connstate-fault";

/// Connections that ask for nothing, more than there are descriptors.
const IDLE: usize = 100;

/// What its log says once there is none left.
pub(super) const NONE_LEFT: &str = "no connection can be accepted";

const REFUSED: &str = "connstate_http_refused_total{reason=\"system\"}";

/// Takes every descriptor there is, and gives them back.
pub(super) fn take_every_descriptor(scene: &mut Scene) -> Result<()> {
    let address = scene.daemon.address();
    let idle = (0..IDLE).map(|_| TcpStream::connect(address));
    let idle = idle.collect::<Result<Vec<_>, _>>()?;
    let descriptors = PathBuf::from(format!("/proc/{}/fd", scene.pid()?));
    let mut most = 0;
    wait::until("no descriptor to be left", || {
        most = most.max(fs::read_dir(&descriptors)?.count());
        let log = scene.daemon.log();
        Ok(log.iter().any(|line| line.contains("Too many open files")))
    })?;
    eprintln!("{most} descriptors of 64 were open");
    drop(idle);
    wait::until("an answer", || Ok(scene.get("/metrics").is_ok()))
}

/// Those who were turned away.
pub(super) fn refusals_are_counted(scene: &mut Scene) -> Result<()> {
    let refused = scene.scrape()?.value(REFUSED)?;
    eprintln!("{refused} connections were turned away");
    ensure!(refused > 0.0, "{:?}", scene.daemon.log());
    Ok(())
}

/// Connections, closed and held.
pub(super) fn load(scene: &mut Scene) -> Result<()> {
    let netns = Netns::new()?;
    churn(&netns, 5_000)?;
    let inhabitant = netns.inhabit()?;
    let held = netns.run(|| Place::new(Family::V4).connections(3_000))?;
    scene.kept.push(Box::new((held, inhabitant, netns)));
    Ok(())
}

/// The group of processes that has little memory; dropping it removes it.
struct Memory;

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(MEMORY) {
            eprintln!("{MEMORY} is left over: {error}");
        }
    }
}

/// The same within little memory.
pub(super) fn load_in_little_memory(scene: &mut Scene) -> Result<()> {
    if Path::new(MEMORY).exists() {
        scene.kept.push(Box::new(Memory));
    } else {
        eprintln!("skipped: no memory controller of cgroup v1");
    }
    load(scene)
}

/// Nothing was killed for want of more.
pub(super) fn memory_suffices(_: &mut Scene) -> Result<()> {
    let folder = Path::new(MEMORY);
    if !folder.exists() {
        return Ok(());
    }
    let most = fs::read_to_string(folder.join("memory.max_usage_in_bytes"))?;
    let most = most.trim().parse::<u64>()? >> 10;
    eprintln!("{most} KiB at most, of 131072; files that were read are in them");
    let killed = fs::read_to_string(folder.join("memory.oom_control"))?;
    ensure!(killed.contains("oom_kill 0"), "{killed}");
    Ok(())
}

/// The agent refuses fewer descriptors than it needs, and says how to raise the limit.
pub(super) fn too_few_descriptors() -> Result<()> {
    for limit in [24, 40, 63] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}"));
        command.arg(binary()?).args(RUN).env("RUST_BACKTRACE", "0");
        let ended = output(&mut command)?;
        let words = [&limit.to_string(), "LimitNOFILE="];
        eprintln!("{}", verdict::is_refused(&ended, &words)?);
    }
    Ok(())
}

/// The agent refuses to run without threads. Only a user without rights is held to the limit.
pub(super) fn too_few_threads() -> Result<()> {
    const NOBODY: &str = "65534";
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let agent = folder.path().join("agent");
    fs::copy(binary()?, &agent)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    let held = "-all,+bpf,+perfmon";
    command.args([
        "--inh-caps",
        held,
        "--ambient-caps",
        held,
        "--bounding-set",
        held,
    ]);
    command.args(["prlimit", "--nproc=1"]).arg(&agent).args(RUN);
    let ended = output(command.env("RUST_BACKTRACE", "0")).context("of nobody")?;
    let words = ["refused a descriptor or a thread", "LimitNPROC="];
    eprintln!("{}", verdict::is_refused(&ended, &words)?);
    Ok(())
}
