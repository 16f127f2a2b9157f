//! What kubectl and helm make of the manifests.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The chart's directory, from the root of the workspace.
pub(super) const CHART: &str = "deploy/helm/connstate";

/// Values that turn on whatever the chart has.
pub(super) fn everything() -> Result<Value> {
    Ok(json!({
        "image": {
            "repository": "registry.example/connstate-agent",
            "digest": format!("sha256:{}", "0123456789abcdef".repeat(4)),
        },
        "imagePullSecrets": [{ "name": "registry" }],
        "web": { "port": 19735, "configSecret": "connstate-web" },
        "extraArgs": ["--close-wait-leak-after=5m", "--log-format=json"],
        "extraEnv": [{ "name": "RUST_LOG", "value": "debug" }],
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"] },
            ] }],
        } } },
        "podLabels": { "team": "sre" },
        "podAnnotations": { "example.com/a": "b" },
        "podMonitor": {
            "enabled": true,
            "labels": { "release": "prometheus" },
            "scrapeTimeout": "10s",
            "scheme": "https",
            "tlsConfig": {
                "ca": { "secret": { "name": "connstate-scrape", "key": "ca.crt" } },
                "serverName": "connstate-agent",
            },
            "basicAuth": {
                "username": { "name": "connstate-scrape", "key": "username" },
                "password": { "name": "connstate-scrape", "key": "password" },
            },
        },
        "prometheusRule": {
            "enabled": true,
            "labels": { "release": "prometheus" },
            "runbookUrlPrefix": "https://runbooks.example/",
            "podNames": true,
        },
        "dashboards": {
            "enabled": !dashboards()?.is_empty(),
            "annotations": { "grafana_folder": "connstate" },
        },
    }))
}

/// The workspace's root.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A tool that `cargo xtask setup` installs for tests alone.
pub(super) fn tool(path: &str) -> Result<PathBuf> {
    let path = root().join("target/tools").join(path);
    ensure!(
        path.exists(),
        "there is no {}: `cargo xtask setup` installs it",
        path.display()
    );
    Ok(path.canonicalize()?)
}

/// The dashboards for Grafana; none where there is no such directory.
pub(super) fn dashboards() -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root().join("dashboards/grafana")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

/// What a directory of deploy/kubernetes becomes.
pub(super) fn kustomize(directory: &str) -> Result<Vec<Value>> {
    let mut kubectl = Command::new(tool("kubernetes/kubectl/kubectl")?);
    kubectl.arg("kustomize");
    documents(&said(
        kubectl.arg(root().join("deploy/kubernetes").join(directory)),
    )?)
}

/// What the chart becomes with these values, as a release called connstate.
pub(super) fn helm(values: &Value) -> Result<Vec<Value>> {
    let release = ["template", "connstate", "--namespace", "connstate"];
    documents(&helm_says(&release, values)?)
}

/// The same of the archive that `helm package` makes.
pub(super) fn helm_packaged(values: &Value) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    fs::write(&file, values.to_string())?;
    let mut package = helm_command(&["package", "--destination"])?;
    said(package.arg(folder.path()).arg(root().join(CHART)))?;
    let archive = format!("connstate-{}.tgz", env!("CARGO_PKG_VERSION"));
    let mut template = helm_command(&["template", "connstate", "--namespace", "connstate"])?;
    template.arg(folder.path().join(archive));
    documents(&said(template.arg("--values").arg(&file))?)
}

/// What helm says when it does something with the chart.
pub(super) fn helm_says(arguments: &[&str], values: &Value) -> Result<String> {
    let mut file = tempfile::NamedTempFile::new()?;
    if !values.is_null() {
        // JSON is YAML, too.
        file.write_all(values.to_string().as_bytes())?;
    }
    let mut helm = helm_command(arguments)?;
    helm.arg(root().join(CHART));
    said(helm.arg("--values").arg(file.path()))
}

/// helm with nothing of whoever runs the test.
fn helm_command(arguments: &[&str]) -> Result<Command> {
    let mut helm = Command::new(tool("kubernetes/helm/helm")?);
    helm.args(arguments).env_remove("KUBECONFIG");
    Ok(helm)
}

/// The documents of a stream of YAML, without the empty ones.
pub(super) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    let documents: Vec<_> = documents.collect::<Result<_, _>>()?;
    let filled = documents.into_iter().filter(|value| !value.is_null());
    Ok(filled.collect())
}

pub(super) fn kind(document: &Value) -> &str {
    document["kind"].as_str().unwrap_or_default()
}

/// The only document of a kind.
pub(super) fn one<'a>(documents: &'a [Value], wanted: &str) -> Result<&'a Value> {
    let mut found = documents.iter().filter(|document| kind(document) == wanted);
    let one = found.next().with_context(|| format!("no {wanted}"))?;
    ensure!(found.next().is_none(), "more than one {wanted}");
    Ok(one)
}

/// What a command prints; its errors where it fails.
pub(super) fn said(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} cannot be run: `cargo xtask setup` installs it"))?;
    let printed = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {printed}{errors}");
    Ok(printed)
}
