//! Network namespaces of the tests' own.

use std::{
    fs::File,
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    path::PathBuf,
    process::{Child, Command},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A new network namespace with its loopback interface up. It lives as long as this value and
/// the sockets made in it.
#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u32,
}

impl Netns {
    /// Makes one; needs root.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or `ip` is missing.
    pub fn new() -> Result<Self> {
        in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace: these tests run as root")?;
            run("ip", &["link", "set", "lo", "up"])?;
            Self::current().context("the new namespace cannot be opened")
        })
    }

    /// That of the calling thread, which is not made.
    ///
    /// # Errors
    ///
    /// Where there is no /proc.
    pub fn current() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let inode = u32::try_from(file.metadata()?.st_ino())?;
        Ok(Self { file, inode })
    }

    /// Its inode number, by which the programs know it.
    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Where another process finds it while this one lives, as `nsenter --net=` takes it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Does something inside, on a thread that lives there. Sockets made there stay there;
    /// children started there run there.
    ///
    /// # Errors
    ///
    /// Those of `inside`, or where the namespace cannot be entered.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_new_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("the namespace cannot be entered")?;
            inside()
        })
    }

    /// Sets a parameter below /proc/sys/net/ipv4, e.g. `tcp_fin_timeout`.
    ///
    /// # Errors
    ///
    /// Where this kernel has none of that name for each namespace, or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
                .with_context(|| format!("{name} cannot be set to {value}"))
        })
    }

    /// Starts a process inside, so that others find the namespace as they find any: by its
    /// processes. It ends with the value.
    ///
    /// # Errors
    ///
    /// Where `sleep` is missing.
    pub fn inhabit(&self) -> Result<Inhabitant> {
        self.run(|| {
            let sleep = Command::new("sleep").arg("600").spawn();
            Ok(Inhabitant(sleep.context("sleep cannot be run")?))
        })
    }

    /// Runs a command inside and returns what it prints.
    ///
    /// # Errors
    ///
    /// Where it is missing or fails.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(|| run(program, args))
    }
}

/// A process in a namespace, for no other purpose.
#[derive(Debug)]
pub struct Inhabitant(Child);

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} cannot be run: `cargo xtask setup` installs it"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {args:?} failed: {errors}"
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
