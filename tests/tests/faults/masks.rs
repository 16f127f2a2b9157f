//! What an agent is not let see.

use std::{process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::wait;

use super::{
    known::Named,
    scene::{PLAINLY, Scene, Start},
};

/// In a mount namespace of its own, in which masks can be put on and taken off.
pub(super) const APART: Start = Start {
    before: Some("true"),
    ..PLAINLY
};

/// As of a unit with ProtectProc=invisible and ProcSubset=pid: no sysctls, no others' processes.
pub(super) const PART_OF_PROC: Start = Start {
    before: Some("mount -t proc -o hidepid=2,subset=pid proc /proc"),
    ..PLAINLY
};

/// No cgroups, and none of the file systems that other tracers need.
pub(super) const NO_CGROUPS: Start = Start {
    before: Some(
        "umount --all --lazy --types cgroup,cgroup2 && \
         umount --all --lazy --types tracefs,debugfs,bpf,securityfs",
    ),
    named: Named::WithoutCgroups,
    ..PLAINLY
};

/// A mount at a path that is no UTF-8, as of a drive whose label is in another encoding.
pub(super) const MOUNT_WITHOUT_A_TEXT: Start = Start {
    before: Some(
        "mount -t tmpfs none /mnt && path=\"/mnt/$(printf 'm\\303n')\" && mkdir \"$path\" && \
         mount --bind /mnt \"$path\"",
    ),
    ..PLAINLY
};

/// What its log says while no census is taken, once one is, and of what it does not see at all.
pub(super) const UNTAKEN: &str = "no census";
pub(super) const OVER: &str = "over: no census";
pub(super) const NO_SYSCTLS: &str = "/proc/sys is not to be seen";
pub(super) const NO_HIERARCHY: &str = "no cgroup2 file system is mounted";

/// Hides /proc for some censuses, and shows it again.
pub(super) fn hide_proc(scene: &mut Scene) -> Result<()> {
    inside(scene, &["mount", "-t", "tmpfs", "none", "/proc"])?;
    let complaints = |scene: &Scene| {
        let log = scene.daemon.log();
        log.iter().filter(|line| line.contains(UNTAKEN)).count()
    };
    wait::until("word on the census", || Ok(complaints(scene) > 0))?;
    // Some more that are not taken.
    thread::sleep(Duration::from_secs(3));
    ensure!(scene.get("/metrics")?.status == 200);
    let said = complaints(scene);
    ensure!(said == 1, "said {said} times");
    inside(scene, &["umount", "/proc"])?;
    wait::until("word that it is over", || Ok(complaints(scene) == 2))
}

/// Runs a command in the agent's mount namespace.
fn inside(scene: &Scene, command: &[&str]) -> Result<()> {
    let namespace = format!("--mount=/proc/{}/ns/mnt", scene.pid()?);
    let ran = Command::new("nsenter")
        .arg(namespace)
        .args(command)
        .output()?;
    ensure!(ran.status.success(), "{ran:?}");
    Ok(())
}

/// What was not seen is said, and not told: a limit of 0 is one that everything is over.
pub(super) fn no_limit_is_told(scene: &mut Scene) -> Result<()> {
    let scrape = scene.scrape()?;
    for (series, value) in &scrape.0 {
        let name = series.split('{').next().unwrap_or_default();
        let is_limit = [
            "connstate_sysctl",
            "connstate_orphans_limit",
            "connstate_time_wait_limit",
            "connstate_ephemeral_ports",
        ]
        .contains(&name);
        ensure!(!is_limit, "{series} is {value}");
    }
    Ok(())
}
