//! The mirror of Debian that this machine uses, asked for other releases than its own: by apt, in
//! directories of its own, so that nothing of these can be installed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::series::{Archive, Suite};
use crate::cargo;
use crate::setup::debian;

/// The keys that Debian signs its releases with, as they are named from release to release. With
/// neither, apt goes by those that it trusts for anything.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A package, as the lists tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// In bytes, packed.
    pub(super) size: u64,
}

/// Lists of packages, and where these come from.
pub(super) struct Mirror {
    directory: PathBuf,
}

impl Mirror {
    /// Fetches the lists of these suites to `directory`, and verifies their signatures.
    pub(super) fn open(suites: &[Suite], directory: &Path) -> Result<Self> {
        if !debian::is_here() {
            bail!("this is not Debian, whose kernels the virtual machines boot: apt is missing");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part)).context("could not make a directory")?;
        }
        let mirror = Self {
            directory: directory.to_owned(),
        };
        let addresses = addresses()?;
        let mut sources = String::new();
        for (archive, suite) in suites {
            match address(&addresses, *archive) {
                Some(address) => sources += &source(address, suite),
                None => println!("apt names no archive {}: without {suite}", archive.label()),
            }
        }
        fs::write(mirror.sources(), sources).context("could not write the list of sources")?;
        // One suite that is gone keeps apt from none of the others.
        if let Err(error) = cargo::run(mirror.apt("apt-get").arg("update")) {
            println!("{error:#}; going on with what there is");
        }
        Ok(mirror)
    }

    /// Every package, in its newest version.
    pub(super) fn packages(&self) -> Result<Vec<Package>> {
        let mut list = self.apt("apt-cache");
        let output = list.arg("dumpavail").stderr(Stdio::inherit()).output();
        let output = output.context("could not start apt-cache")?;
        if !output.status.success() {
            bail!("apt-cache failed ({})", output.status);
        }
        Ok(packages(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Fetches packages to `directory`. apt verifies their digests by the signed lists.
    pub(super) fn download(&self, packages: &[String], directory: &Path) -> Result<()> {
        let mut download = self.apt("apt-get");
        download.arg("download").args(packages);
        cargo::run(download.current_dir(directory))
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    /// One of apt's programs, which knows of nothing but these lists.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // In English, whatever the user reads.
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command.arg("--quiet=2");
        let directory = self.directory.display();
        for option in [
            format!("Dir::Etc::sourcelist={}", self.sources().display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // What this machine may have asked for beside the packages themselves.
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Default-Release=".to_owned(),
            // Root's downloads are otherwise another user's, who may not write here.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// The addresses of this machine's mirrors, each with the label of what is there.
fn addresses() -> Result<String> {
    let list = || {
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", "$(REPO_URI) $(LABEL)"]);
        let output = targets.arg("Identifier: Packages").output();
        let output = output.context("could not start apt-get")?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = list()?;
    if address(&listed, Archive::Main).is_some() {
        return Ok(listed);
    }
    // The labels stand in the lists of packages, which a fresh machine has not.
    debian::update()?;
    let listed = list()?;
    if address(&listed, Archive::Main).is_none() {
        bail!("apt's configuration names no mirror of Debian");
    }
    Ok(listed)
}

/// The first mirror of an archive.
fn address(addresses: &str, archive: Archive) -> Option<&str> {
    let mut lines = addresses.lines().filter_map(|line| line.split_once(' '));
    let (address, _) = lines.find(|(_, label)| *label == archive.label())?;
    Some(address)
}

/// A line of apt's sources.
fn source(address: &str, suite: &str) -> String {
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let signed_by = keyring.map_or_else(String::new, |path| format!(" signed-by={path}"));
    format!("deb [arch=amd64{signed_by}] {address} {suite} main\n")
}

/// The packages of a list, whose paragraphs are `Field: value` lines.
fn packages(list: &str) -> Vec<Package> {
    let paragraphs = list.split("\n\n");
    let packages = paragraphs.filter_map(|paragraph| {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Package {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            size: field("Size")?.parse().ok()?,
        })
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_are_told_apart_by_their_labels() {
        let addresses =
            "http://backports/ Debian Backports\nhttp://a/ Debian\nhttp://b/ Debian-Security\n";
        assert_eq!(address(addresses, Archive::Main), Some("http://a/"));
        assert_eq!(address(addresses, Archive::Security), Some("http://b/"));
        assert_eq!(address("", Archive::Main), None);
    }

    #[test]
    fn lists_are_read_by_paragraphs() {
        let list = "Package: a\nDescription: Version: 9\n more\nVersion: 1-2\nSize: 12\n\n\
                    Package: without\nVersion: 1\n\nPackage: b\nVersion: 2~bpo\nSize: 7\n\n";
        let package = |name: &str, version: &str, size| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            size,
        };
        let expected = [package("a", "1-2", 12), package("b", "2~bpo", 7)];
        assert_eq!(packages(list), expected);
    }
}
