//! The image: built as its recipe says, it holds the agent and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{daemon::binary, files};

use super::rendered::{kustomize, one, root, said};

/// The recipe, from the root of the workspace.
pub(super) const CONTAINERFILE: &str = "deploy/container/Containerfile";

/// buildah with a store of its own. It needs no daemon, and, for an image without commands to run,
/// no container.
struct Builder {
    folder: TempDir,
}

impl Builder {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { folder })
    }

    fn buildah(&self, arguments: &[&str]) -> Result<String> {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(self.folder.path().join("store"));
        buildah.arg("--runroot").arg(self.folder.path().join("run"));
        // No overlay, which not every file system and kernel has.
        buildah.args(["--storage-driver", "vfs"]);
        Ok(said(buildah.args(arguments))?.trim().to_owned())
    }

    /// Builds the image of a context.
    fn build(&self, context: &Path) -> Result<()> {
        let recipe = root().join(CONTAINERFILE);
        let (recipe, context) = (recipe.display().to_string(), context.display().to_string());
        let arguments = ["build", "--isolation", "chroot", "--tag", "connstate-agent"];
        self.buildah(&[&arguments[..], &["--file", &recipe, &context]].concat())?;
        Ok(())
    }
}

/// The static agent beside the package that `CONNSTATE_PACKAGE` names, as `cargo xtask test` does
/// where it runs every test.
fn packaged() -> Option<PathBuf> {
    let package = PathBuf::from(std::env::var_os("CONNSTATE_PACKAGE")?);
    Some(package.parent()?.join("connstate-agent"))
}

#[test]
fn the_image_holds_the_agent_alone() -> Result<()> {
    let packaged = packaged();
    let agent = match &packaged {
        Some(packaged) => packaged.clone(),
        None => binary()?,
    };
    let folder = tempfile::tempdir()?;
    fs::copy(&agent, folder.path().join("connstate-agent"))
        .with_context(|| agent.display().to_string())?;
    // What else may be there stays out of the image.
    fs::write(folder.path().join("other"), "not for the image")?;
    let builder = Builder::new()?;
    builder.build(folder.path())?;
    let told = builder.buildah(&["inspect", "--type", "image", "connstate-agent"])?;
    let told: Value = serde_json::from_str(&told)?;
    let config = &told["OCIv1"]["config"];
    let daemonset = one(&kustomize("base")?, "DaemonSet")?.clone();
    let port = &super::agent(&daemonset)?["ports"][0]["containerPort"];
    ensure!(
        config["Entrypoint"] == json!(["/connstate-agent"]),
        "{config:#}"
    );
    ensure!(config["Cmd"] == json!(["run"]), "{config:#}");
    ensure!(config["User"] == json!("0:0"), "{config:#}");
    ensure!(
        config["ExposedPorts"] == json!({ format!("{port}/tcp"): {} }),
        "{config:#}"
    );
    let version = &config["Labels"]["org.opencontainers.image.version"];
    ensure!(*version == env!("CARGO_PKG_VERSION"), "{config:#}");

    let container = builder.buildah(&["from", "--pull-never", "connstate-agent"])?;
    let mounted = PathBuf::from(builder.buildah(&["mount", &container])?);
    let agent = mounted.join("connstate-agent");
    let found = files::below(&mounted)?;
    ensure!(found == [agent.clone()], "{found:?}");
    ensure!(fs::read(&agent)? == fs::read(folder.path().join("connstate-agent"))?);
    if packaged.is_some() {
        // It runs where there is nothing else: no library, no shell.
        let mut chroot = Command::new("chroot");
        let told = said(chroot.arg(&mounted).args(["/connstate-agent", "--version"]))?;
        ensure!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
    } else {
        eprintln!(
            "skipped: the agent in the image is not run: it is no static one, which whole runs of \
             `cargo xtask test` package"
        );
    }
    builder.buildah(&["umount", &container]).context("umount")?;
    Ok(())
}
