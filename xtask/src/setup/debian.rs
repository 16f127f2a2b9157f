//! Debian's packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::program;
use crate::{cargo, superuser};

/// Whether this is Debian or a descendant: what matters is that apt is there to ask.
pub(crate) fn is_here() -> bool {
    Path::new("/etc/debian_version").exists() && program::path("apt-get").is_some()
}

/// The version of a package, where it is installed.
pub(super) fn version(package: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args([
        "--show",
        "--showformat",
        "${db:Status-Status} ${Version}",
        package,
    ]);
    let output = query.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

/// Installs packages, and nothing they merely recommend; a service that comes with them is
/// neither started nor enabled.
pub(super) fn install(packages: &[&str], service: Option<&str>) -> Result<()> {
    let names = packages.join(" ");
    if !is_here() {
        bail!(
            "this is not Debian, so setup cannot install {names}; install what your distribution calls them, then run setup again"
        );
    }
    // Without systemd the init scripts run, and skip what this runlevel does not start; with it,
    // a masked unit is not started.
    let systemd = Path::new("/run/systemd/system").exists();
    let service = service.filter(|_| systemd);
    if let Some(unit) = service {
        cargo::run(superuser::command("systemctl", &[]).args(["mask", "--runtime", unit]))?;
    }
    let installed = apt_get_install(packages);
    if let Some(unit) = service {
        cargo::run(superuser::command("systemctl", &[]).args(["unmask", "--runtime", unit]))?;
        cargo::run(superuser::command("systemctl", &[]).args(["disable", "--now", unit]))?;
    }
    installed.with_context(|| format!("apt could not install {names}; its own words are above"))
}

fn apt_get_install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut command = apt_get();
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages);
        cargo::run(&mut command)
    };
    // On a fresh machine the lists are missing, on an old one they name versions that are gone:
    // either way they are worth fetching only when the first try has failed.
    if install().is_ok() {
        return Ok(());
    }
    update()?;
    install()
}

/// Fetches the lists of packages anew.
pub(crate) fn update() -> Result<()> {
    cargo::run(apt_get().arg("update"))
}

fn apt_get() -> Command {
    let noninteractive = ("DEBIAN_FRONTEND", "noninteractive".as_ref());
    let mut command = superuser::command("apt-get", &[noninteractive, ("RUNLEVEL", "1".as_ref())]);
    // Without a terminal of its own dpkg draws no progress bar.
    command.args(["--quiet=2", "-o", "Dpkg::Use-Pty=0"]);
    command
}
