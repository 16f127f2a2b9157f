//! What Kubernetes' versions and the Prometheus operator take.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Formatter, Write as _},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use jsonschema::Validator;
use serde_json::Value;

use super::rendered::{kind, said, tool};

/// The oldest minor version that the manifests are for.
pub(super) const OLDEST: u32 = 30;

/// A version of Kubernetes whose schemas are here.
pub(super) struct Version {
    /// Of 1.N, N.
    pub(super) minor: u32,
    directory: PathBuf,
}

impl Debug for Version {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "1.{}", self.minor)
    }
}

/// Every version, the oldest first.
pub(super) fn versions() -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(tool("python/kubernetes_validate/kubernetes-json-schema")?)? {
        let entry = entry?;
        let name = entry.file_name().display().to_string();
        // The strict ones refuse fields that they do not know.
        let Some(version) = name.strip_suffix("-local-strict") else {
            continue;
        };
        let minor = version.strip_prefix("v1.").and_then(|rest| {
            let (minor, _) = rest.split_once('.')?;
            minor.parse().ok()
        });
        versions.push(Version {
            minor: minor.with_context(|| format!("{name} is no version"))?,
            directory: entry.path(),
        });
    }
    versions.sort_unstable_by_key(|version| version.minor);
    Ok(versions)
}

impl Version {
    pub(super) fn schemas(&self) -> Result<Schemas<'_>> {
        let text = fs::read_to_string(self.directory.join("_definitions.json"))?;
        let mut definitions: Value = serde_json::from_str(&text)?;
        Ok(Schemas {
            version: self,
            definitions: definitions["$defs"].take(),
            compiled: BTreeMap::new(),
        })
    }
}

/// The schemas of one version, compiled as they are asked for.
pub(super) struct Schemas<'a> {
    version: &'a Version,
    definitions: Value,
    compiled: BTreeMap<String, Validator>,
}

impl Schemas<'_> {
    /// What is wrong with a document; nothing is, where this version takes it.
    pub(super) fn mistakes(&mut self, document: &Value) -> Result<Vec<String>> {
        let api = document["apiVersion"].as_str().context("no apiVersion")?;
        // `rbac.authorization.k8s.io/v1` is in the file of `rbac-v1`.
        let api = match api.split_once('/') {
            Some((group, version)) => {
                let group = group.split('.').next().unwrap_or_default();
                format!("{group}-{version}")
            }
            None => api.to_owned(),
        };
        let file = format!("{}-{api}.json", kind(document).to_lowercase());
        if !self.compiled.contains_key(&file) {
            let text =
                fs::read_to_string(self.version.directory.join(&file)).context(file.clone())?;
            // What it refers to, at hand, since nothing is fetched.
            let text = text.replace("/api/_definitions.json#/$defs/", "#/$defs/");
            let mut schema: Value = serde_json::from_str(&text)?;
            schema["$defs"] = self.definitions.clone();
            let validator = jsonschema::draft202012::new(&schema)?;
            self.compiled.insert(file.clone(), validator);
        }
        let errors = self.compiled[&file].iter_errors(document);
        let errors = errors.map(|error| format!("{}: {error}", error.instance_path()));
        Ok(errors.collect())
    }
}

/// Whether the Prometheus operator brings its kind.
pub(super) fn is_custom(document: &Value) -> bool {
    document["apiVersion"] == "monitoring.coreos.com/v1"
}

/// Whether the Prometheus operator takes these documents: the compiler holds them against the types
/// made of its custom resource definitions, which know every field. What a string must look like
/// they do not know.
pub(super) fn operator_takes(documents: &[Value]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let modules = tool("npm/node_modules")?;
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules"))?;
    let mut text = String::new();
    for (place, document) in documents.iter().enumerate() {
        let kind = match kind(document) {
            kind @ ("PodMonitor" | "PrometheusRule") => kind,
            other => bail!("nothing is known of {other}"),
        };
        let module =
            format!("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/{kind}");
        writeln!(
            text,
            "import type {{ I{kind} as T{place} }} from '{module}';"
        )?;
        writeln!(text, "export const d{place}: T{place} = {document};")?;
    }
    fs::write(folder.path().join("documents.ts"), text)?;
    let mut compiler = Command::new("node");
    compiler.arg(modules.join("typescript/bin/tsc"));
    compiler.args(["--noEmit", "--strict", "--skipLibCheck"]);
    compiler.args(["--module", "esnext", "--moduleResolution", "bundler"]);
    said(compiler.arg("documents.ts").current_dir(folder.path()))?;
    Ok(())
}
