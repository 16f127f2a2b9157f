//! Cargo, as called from a task: in the workspace's root, and asked where it put what it built.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, TargetKind};

/// An executable cargo built, and what it was built from.
pub(crate) struct Executable {
    /// The directory of its package.
    pub(crate) package: PathBuf,
    /// The target's name.
    pub(crate) target: String,
    /// Whether it is a test of the target rather than the target itself.
    pub(crate) is_test: bool,
    pub(crate) path: PathBuf,
}

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A cargo command in the workspace's root: the cargo that runs this task, where one does.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Shows a command, runs it to its end with no input, and makes its failure an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}); its own output above says why");
    }
    Ok(())
}

/// The agent's release binary, built first.
pub(crate) fn build_agent() -> Result<PathBuf> {
    build_agent_with(|_| ())
}

/// The same, with what is different about it: a target, flags.
pub(crate) fn build_agent_with(differ: impl FnOnce(&mut Command)) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "agent", "--bin", "agent"]);
    differ(&mut command);
    let agent = build(&mut command)?
        .into_iter()
        .find(|executable| executable.target == "agent");
    Ok(agent
        .context("cargo built package agent without a binary of that name")?
        .path)
}

/// Runs a cargo command that builds, and lists the executables it made. Asking cargo is the only
/// way that holds whatever `CARGO_TARGET_DIR`, profile or configuration say.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Executable>> {
    println!("$ {}", line(command));
    command.arg("--message-format=json-render-diagnostics");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let line = line(command);
    let mut child = command
        .spawn()
        .with_context(|| format!("could not start `{line}`"))?;
    let stdout = child
        .stdout
        .take()
        .context("cargo's output was not piped")?;
    let mut executables = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        let message = message.with_context(|| format!("could not read the output of `{line}`"))?;
        let Message::CompilerArtifact(artifact) = message else {
            continue;
        };
        let Some(path) = artifact.executable else {
            continue;
        };
        if artifact.target.kind.contains(&TargetKind::CustomBuild) {
            continue;
        }
        let manifest = artifact.manifest_path.into_std_path_buf();
        executables.push(Executable {
            package: manifest.parent().unwrap_or(root()).to_owned(),
            is_test: artifact.profile.test,
            target: artifact.target.name,
            path: path.into(),
        });
    }
    let status = child
        .wait()
        .with_context(|| format!("could not wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}); the compiler's messages above say why");
    }
    Ok(executables)
}

/// The command as one would type it; what cargo itself is called is of no interest.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
