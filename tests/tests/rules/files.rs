//! The files that are shipped, copies of them to break, and the programs that check them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a program says, once it has ended well.
pub(crate) fn run(program: &str, folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("{program} cannot be run: `cargo xtask setup` installs it"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(said)
}

/// The names of the files of YAML in a folder.
pub(crate) fn yaml_files(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().display().to_string()));
    let names = names.collect::<Result<BTreeSet<_>>>()?;
    let is_yaml = |name: &String| Path::new(name).extension().is_some_and(|end| end == "yml");
    Ok(names.into_iter().filter(is_yaml).collect())
}

/// The files of rules, each with the file of its tests.
pub(crate) fn rule_files() -> Result<BTreeMap<String, String>> {
    let files = yaml_files(&root().join("deploy/prometheus/rules"))?;
    let of_rules = files.iter().filter(|name| !name.ends_with("_test.yml"));
    let pairs: BTreeMap<_, _> = of_rules
        .map(|rules| (rules.clone(), rules.replace(".yml", "_test.yml")))
        .collect();
    for test in pairs.values() {
        ensure!(files.contains(test), "there is no {test}");
    }
    ensure!(
        pairs.len() * 2 == files.len(),
        "tests of nothing: {files:?}"
    );
    Ok(pairs)
}

pub(crate) fn check_rules(folder: &Path, rules: &str, test: &str) -> Result<()> {
    let said = run("promtool", folder, &["check", "rules", rules])?;
    ensure!(said.contains("SUCCESS"), "{said}");
    run("promtool", folder, &["test", "rules", test])?;
    Ok(())
}

/// A copy of deploy/prometheus that may be broken, of which Debian's promtool understands all: it
/// is built without the discovery of Kubernetes, so some pods stand there as it would tell of them.
pub(crate) fn copy() -> Result<TempDir> {
    let copy = TempDir::new()?;
    for folder in ["", "rules", "targets"] {
        let from = root().join("deploy/prometheus").join(folder);
        fs::create_dir_all(copy.path().join(folder))?;
        for name in yaml_files(&from)? {
            fs::copy(from.join(&name), copy.path().join(folder).join(&name))?;
        }
    }
    let name = copy.path().join("scrape-kubernetes.yml");
    let text = fs::read_to_string(&name)?;
    let (before, rest) = text
        .split_once("    kubernetes_sd_configs:\n")
        .context("no discovery")?;
    let (_, after) = rest
        .split_once("    # Where the agent serves TLS")
        .context("no end of it")?;
    fs::write(&name, format!("{before}{PODS}    # {after}"))?;
    Ok(copy)
}

/// An agent's pod; another port of it; another pod; an agent's pod that has been evicted.
pub(crate) const PODS: &str = r#"    static_configs:
      - targets: ["10.0.0.1:10735"]
        labels: {__meta_kubernetes_pod_label_app_kubernetes_io_name: connstate-agent, __meta_kubernetes_pod_container_port_name: metrics, __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_node_name: node1}
      - targets: ["10.0.0.1:1"]
        labels: {__meta_kubernetes_pod_label_app_kubernetes_io_name: connstate-agent, __meta_kubernetes_pod_container_port_name: other, __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_node_name: node1}
      - targets: ["10.0.0.2:10735"]
        labels: {__meta_kubernetes_pod_label_app_kubernetes_io_name: other, __meta_kubernetes_pod_container_port_name: metrics, __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_node_name: node2}
      - targets: ["10.0.0.3:10735"]
        labels: {__meta_kubernetes_pod_label_app_kubernetes_io_name: connstate-agent, __meta_kubernetes_pod_container_port_name: metrics, __meta_kubernetes_pod_phase: Failed, __meta_kubernetes_pod_node_name: node3}
"#;

/// Writes one thing for another in a file that has it.
pub(crate) fn replace(file: &Path, old: &str, new: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    ensure!(text.contains(old), "{} has no {old}", file.display());
    Ok(fs::write(file, text.replace(old, new))?)
}

/// That a configuration loads with all it names; what is missing is only a warning to promtool.
pub(crate) fn check_configuration(folder: &Path, name: &str) -> Result<()> {
    let said = run("promtool", folder, &["check", "config", name])?;
    ensure!(
        said.contains("SUCCESS") && !said.contains("WARNING"),
        "{said}"
    );
    Ok(())
}

/// The targets of the job `connstate`, in order: nothing for one that is dropped, else the name by
/// which it is known.
pub(crate) fn instances(folder: &Path, name: &str) -> Result<Vec<Option<String>>> {
    let mut targets: Vec<Value> = Vec::new();
    // promtool takes all of the time that it is given, so it is given more only where it needs it.
    for timeout in ["--timeout=1s", "--timeout=5s", "--timeout=20s"] {
        let output = Command::new("promtool")
            .args(["check", "service-discovery", timeout, name, "connstate"])
            .current_dir(folder)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        targets = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
        if !targets.is_empty() {
            break;
        }
    }
    let instances = targets.iter().map(|target| {
        let labels = &target["labels"];
        let named = labels["instance"].as_str().map(ToOwned::to_owned);
        ensure!(named.is_none() || labels["job"] == "connstate", "{labels}");
        Ok(named)
    });
    let mut instances = instances.collect::<Result<Vec<_>>>()?;
    // It tells groups of targets in any order.
    instances.sort();
    Ok(instances)
}

/// The values of a key, wherever it stands in a rule file or its tests.
pub(crate) fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches([' ', '-', '{']));
    let values = lines.filter_map(|line| line.strip_prefix(key));
    values.map(str::trim).collect()
}

/// The names of metrics, of ours and made of them, in a text.
pub(crate) fn names(text: &str) -> BTreeSet<&str> {
    let is_of_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || sign == ':';
    text.split(|sign| !is_of_name(sign))
        // The last are the files of tests.
        .filter(|word| word.starts_with("connstate_") && *word != "connstate_test")
        .collect()
}
