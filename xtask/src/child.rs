//! A child process that cannot outlive its purpose.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, set_parent_process_death_signal,
};

/// How long a process that was asked to end may take before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A process that is killed when this value goes, and by the kernel if this process goes first.
pub(crate) struct Guarded {
    name: String,
    child: Child,
}

impl Guarded {
    /// Runs a command to its end, and gives what it printed: a few lines, which must fit into a
    /// pipe.
    pub(crate) fn output(command: &mut Command, deadline: Duration) -> Result<String> {
        let mut process = Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let status = process.wait(deadline)?;
        let name = &process.name;
        let status = status
            .with_context(|| format!("{name} did not end within {} s", deadline.as_secs()))?;
        if !status.success() {
            bail!("{name} failed ({status}); its own message above says why");
        }
        let mut text = String::new();
        let stdout = process
            .child
            .stdout
            .as_mut()
            .context("the output was not piped")?;
        stdout
            .read_to_string(&mut text)
            .with_context(|| format!("could not read the output of {name}"))?;
        Ok(text)
    }

    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // SAFETY: the closure runs between fork and exec and makes a single prctl system call; it
        // neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        Ok(Self { name, child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its output, once, if it was piped.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the process to end, without waking up meanwhile: nothing may disturb a
    /// measurement. None when the deadline passes first.
    pub(crate) fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .with_context(|| format!("could not watch {}", self.name))?;
        let timeout = Timespec::try_from(deadline).context("the deadline is too far away")?;
        loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                result => {
                    result.with_context(|| format!("could not wait for {}", self.name))?;
                    break;
                }
            }
        }
        self.child
            .try_wait()
            .with_context(|| format!("could not wait for {}", self.name))
    }

    /// Ends the process's standard input, which was piped, and waits for it to end by itself.
    pub(crate) fn finish(&mut self, deadline: Duration) -> Result<()> {
        drop(self.child.stdin.take());
        let ended = self.wait(deadline)?;
        ended
            .with_context(|| format!("{} did not end with its input and was killed", self.name))?;
        Ok(())
    }

    /// Asks the process to end, as Ctrl-C would, and waits for it to do so.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).with_context(|| format!("could not stop {}", self.name))?;
        let ended = self.wait(STOP_DEADLINE)?;
        ended.with_context(|| format!("{} did not end on SIGINT and was killed", self.name))?;
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when the process has already ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
