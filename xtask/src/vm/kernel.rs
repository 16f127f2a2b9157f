//! The kernel: that of Debian's cloud flavour, which has all that is needed built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::setup::debian;

/// Depends on the newest kernel of the release that this machine runs.
const NEWEST: &str = "linux-image-cloud-amd64";

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// The package it is of, which names its version.
    pub(super) package: String,
    /// The file that is booted.
    pub(super) image: PathBuf,
}

/// The kernel of this machine's own release. Once fetched it is kept below `directory`, and no
/// newer one is asked for until it is removed there.
pub(super) fn own(directory: &Path) -> Result<Kernel> {
    let directory = directory.join(NEWEST);
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    if let Some(kept) = kept(&directory)? {
        println!("ok: kernel: {}", kept.package);
        return Ok(kept);
    }
    if !debian::is_here() {
        bail!("this is not Debian, whose kernel the virtual machine boots: apt is missing");
    }
    // On a fresh machine the lists are missing, on an old one they name versions that are gone.
    fetch(&directory)
        .or_else(|error| {
            println!("{error:#}; the lists of packages may be old");
            debian::update()?;
            fetch(&directory)
        })
        .with_context(|| format!("could not fetch the kernel that {NEWEST} depends on"))
}

/// A kernel fetched before. Its file bears its package's name.
fn kept(directory: &Path) -> Result<Option<Kernel>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("could not list {}", directory.display()))?;
    let files = entries.filter_map(Result::ok);
    let mut files = files.filter(|entry| entry.path().is_file());
    Ok(files.next().map(|entry| Kernel {
        package: entry.file_name().to_string_lossy().into_owned(),
        image: entry.path(),
    }))
}

/// Fetches the package, and keeps the kernel alone.
fn fetch(directory: &Path) -> Result<Kernel> {
    let package = newest()?;
    let scratch = tempfile::tempdir_in(directory).context("could not make a directory")?;
    let mut download = Command::new("apt-get");
    // Root's downloads are otherwise another user's, who may not write here.
    download.args(["--quiet=2", "-o", "APT::Sandbox::User=root"]);
    download.args(["download", &package]);
    cargo::run(download.current_dir(&scratch))?;
    let archive = only(scratch.path(), ".deb")?;
    let unpacked = scratch.path().join("unpacked");
    let mut unpack = Command::new("dpkg-deb");
    cargo::run(unpack.arg("--extract").arg(&archive).arg(&unpacked))?;
    let image = directory.join(&package);
    fs::rename(image_in(&unpacked)?, &image)
        .with_context(|| format!("could not keep {}", image.display()))?;
    Ok(Kernel { package, image })
}

/// The package that holds the kernel: the last in a chain of dependencies. From 6.19 on there is
/// one more link, since linux-image-* is empty there and depends on linux-binary-*.
fn newest() -> Result<String> {
    let mut package = NEWEST.to_owned();
    loop {
        let mut depends = Command::new("apt-cache");
        // In English, whatever the user reads.
        depends.env("LC_ALL", "C").stdin(Stdio::null());
        depends.args(["depends", &package]);
        let output = depends.output().context("could not start apt-cache")?;
        if !output.status.success() {
            bail!("apt knows no package {package}");
        }
        match next(&String::from_utf8_lossy(&output.stdout)) {
            Some(dependency) => dependency.clone_into(&mut package),
            None if package == NEWEST => bail!("{NEWEST} depends on no kernel"),
            None => return Ok(package),
        }
    }
}

/// The kernel among the dependencies that `apt-cache depends` lists.
fn next(depends: &str) -> Option<&str> {
    let lines = depends.lines().map(str::trim_start);
    let mut dependencies = lines.filter_map(|line| line.strip_prefix("Depends: "));
    dependencies.find(|name| name.starts_with("linux-image-") || name.starts_with("linux-binary-"))
}

/// The kernel in an unpacked package: in /boot, and from 7.2 on beside its modules.
fn image_in(unpacked: &Path) -> Result<PathBuf> {
    let boot = unpacked.join("boot");
    if boot.is_dir() {
        return only(&boot, "vmlinuz");
    }
    let modules = only(&unpacked.join("usr/lib/modules"), "")?;
    only(&modules, "vmlinuz")
}

/// The first file in a directory whose name has `part` in it.
fn only(directory: &Path, part: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("could not list {}", directory.display()))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let has_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().contains(part)
    };
    let path = paths.find(has_part);
    path.with_context(|| format!("there is no {part} in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_at_the_end_of_the_dependencies() {
        let newest = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(next(newest), Some("linux-image-6.1.0-56-cloud-amd64"));
        let shell = "linux-image-7.0.1+deb14-cloud-amd64\n  Depends: linux-base\n  Depends: linux-binary-7.0.1+deb14-cloud-amd64\n";
        assert_eq!(next(shell), Some("linux-binary-7.0.1+deb14-cloud-amd64"));
        let kernel = "linux-image-6.1.0-56-cloud-amd64\n  Depends: kmod\n |Depends: initramfs-tools\n  Depends: <linux-initramfs-tool>\n    dracut\n  Conflicts: linux-image-6.1.0-56-cloud-amd64-unsigned\n";
        assert_eq!(next(kernel), None);
    }

    #[test]
    fn the_image_is_found_in_boot_and_beside_the_modules() {
        for place in [
            "boot/vmlinuz-6.1.0-56-cloud-amd64",
            "usr/lib/modules/7.2.1-cloud-amd64/vmlinuz",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let image = directory.path().join(place);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(image.with_file_name("config"), "").unwrap();
            fs::write(&image, "").unwrap();
            assert_eq!(image_in(directory.path()).unwrap(), image);
        }
    }
}
