//! A cgroup of a test's own, so that nothing else is counted with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::id,
};

use anyhow::{Context as _, Result};

/// A new cgroup of the second version. It ends with the value, once its processes have.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    name: String,
}

impl Cgroup {
    /// Makes one; nothing, aloud, where this host has no room for one.
    ///
    /// # Errors
    ///
    /// Where there is no /proc.
    pub fn new(purpose: &str) -> Result<Option<Self>> {
        Self::named(format!("connstate-{purpose}-{}", id()))
    }

    /// Makes one of this name, right below the hierarchy's mount; nothing, aloud, as above.
    ///
    /// # Errors
    ///
    /// Where there is no /proc, or there is one of that name.
    pub fn named(name: String) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut mounts = mounts.lines().filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let path = mount.split(' ').nth(4)?;
            file_system.starts_with("cgroup2 ").then_some(path)
        });
        let Some(root) = mounts.next() else {
            eprintln!("skipped: no cgroup2 file system is mounted");
            return Ok(None);
        };
        let path = Path::new(root).join(&name);
        match fs::create_dir(&path) {
            Ok(()) => Ok(Some(Self { path, name })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(error).context("a cgroup is left over")
            }
            Err(error) => {
                eprintln!("skipped: no cgroup can be made at {root}: {error}");
                Ok(None)
            }
        }
    }

    /// Its name, without its parents'.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that moves a process in once its id is written there.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{} is left over: {error}", self.path.display());
        }
    }
}
