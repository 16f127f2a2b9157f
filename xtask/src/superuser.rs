//! Root, for the one command that needs it.

use std::ffi::OsStr;
use std::process::Command;

/// Whether this process is root already.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command run as root: directly by root, through sudo by anyone else. The variables given are
/// set by `env`, since sudo's policy may drop those of the caller.
pub(crate) fn command(program: impl AsRef<OsStr>, variables: &[(&str, &OsStr)]) -> Command {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return command;
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg("env");
    for (name, value) in variables {
        let mut assignment = OsStr::new(name).to_owned();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    command
}
