//! The manifests for Kubernetes and the image's recipe: both forms render, say the same, and are
//! what Kubernetes takes; and with the rights they give the agent does its work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::daemon::{binary, output};

#[path = "manifests/rendered.rs"]
mod rendered;

#[path = "manifests/schemas.rs"]
mod schemas;

#[path = "manifests/contained.rs"]
mod contained;

#[path = "manifests/image.rs"]
mod image;

use rendered::{CHART, everything, helm, helm_says, kind, kustomize, root};

/// Directories that `kubectl kustomize` takes, and the kinds that come of each.
const KUSTOMIZATIONS: [(&str, &[&str]); 3] = [
    ("base", &["DaemonSet", "Namespace", "ServiceAccount"]),
    (
        "examples/prometheus-operator",
        &["DaemonSet", "Namespace", "PodMonitor", "ServiceAccount"],
    ),
    (
        "examples/tls",
        &["DaemonSet", "Namespace", "ServiceAccount"],
    ),
];

/// Of a `DaemonSet`, the only container.
fn agent(daemonset: &Value) -> Result<&Value> {
    let containers = daemonset["spec"]["template"]["spec"]["containers"].as_array();
    match containers.map(Vec::as_slice) {
        Some([agent]) => Ok(agent),
        _ => anyhow::bail!("not one container: {daemonset:#}"),
    }
}

/// The strings of a list.
fn strings(list: &Value) -> Result<Vec<&str>> {
    let list = list
        .as_array()
        .with_context(|| format!("no list: {list}"))?;
    let strings = list.iter().map(Value::as_str);
    strings
        .collect::<Option<_>>()
        .with_context(|| format!("not all are strings: {list:?}"))
}

/// Everything that is rendered in any form, with where it came from.
fn all_documents() -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (directory, _) in KUSTOMIZATIONS {
        let documents = kustomize(directory)?.into_iter();
        all.extend(documents.map(|document| (directory.to_owned(), document)));
    }
    for (name, values) in [("helm", Value::Null), ("helm, all", everything()?)] {
        let documents = helm(&values)?.into_iter();
        all.extend(documents.map(|document| (name.to_owned(), document)));
    }
    Ok(all)
}

#[test]
fn every_kustomization_renders() -> Result<()> {
    for (directory, expected) in KUSTOMIZATIONS {
        let documents = kustomize(directory)?;
        let mut kinds: Vec<_> = documents.iter().map(kind).collect();
        kinds.sort_unstable();
        ensure!(kinds == expected, "{directory}: {kinds:?}");
    }
    Ok(())
}

#[test]
fn the_chart_passes_its_lint() -> Result<()> {
    for values in [Value::Null, everything()?] {
        let said = helm_says(&["lint", "--strict"], &values)?;
        ensure!(said.contains("0 chart(s) failed"), "{said}");
    }
    Ok(())
}

#[test]
fn the_chart_refuses_what_it_does_not_know() -> Result<()> {
    let refused = |values: Value, part: &str| {
        let said = helm(&values).err().context("it was taken")?.to_string();
        ensure!(said.contains(part), "{part} is not in: {said}");
        Ok(())
    };
    refused(json!({ "tolerration": [] }), "tolerration")?;
    refused(json!({ "web": { "port": "10735" } }), "/web/port")?;
    refused(json!({ "capabilities": ["CAP_BPF"] }), "/capabilities/0")?;
    let old = ["template", "connstate", "--kube-version", "1.29.0"];
    let said = helm_says(&old, &Value::Null).err();
    let said = said.context("1.29 was taken")?.to_string();
    ensure!(said.contains("1.30"), "{said}");
    Ok(())
}

/// As values.yaml and the chart's README say: Helm merges what is given with what stands there.
#[test]
fn null_leaves_a_profile_out_and_nothing_else_does() -> Result<()> {
    for field in ["seccompProfile", "appArmorProfile", "seLinuxOptions"] {
        let context = |given: Value| {
            let documents = helm(&json!({ field: given }))?;
            let daemonset = rendered::one(&documents, "DaemonSet")?;
            anyhow::Ok(agent(daemonset)?["securityContext"].clone())
        };
        let (empty, null) = (context(json!({}))?, context(Value::Null)?);
        ensure!(
            empty
                .get(field)
                .is_some_and(|default| default["type"].is_string())
        );
        ensure!(null.get(field).is_none(), "{null:#}");
        let others = |context: &Value| context.as_object().map(serde_json::Map::len);
        ensure!(others(&empty) == others(&null).map(|others| others + 1));
    }
    Ok(())
}

/// As deploy/kubernetes/README.md has it: a directory of one's own beside a copy.
#[test]
fn a_directory_beside_a_copy_names_its_own_image() -> Result<()> {
    let page = fs::read_to_string(root().join("deploy/kubernetes/README.md"))?;
    let lines = page
        .lines()
        .skip_while(|line| !line.ends_with(": kustomize.config.k8s.io/v1beta1"));
    let lines = lines.map_while(|line| line.strip_prefix("    "));
    let text = lines.collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir()?;
    let mut copy = Command::new("cp");
    copy.arg("--recursive")
        .arg(root().join("deploy/kubernetes"));
    rendered::said(copy.arg(folder.path().join("kubernetes")))?;
    let own = folder.path().join("own");
    fs::create_dir(&own)?;
    fs::write(own.join("kustomization.yaml"), text)?;
    // An absolute path takes the place of the directory that it is joined to.
    let documents = kustomize(own.to_str().context("no text")?)?;
    let image = &agent(rendered::one(&documents, "DaemonSet")?)?["image"];
    let wanted = format!("REGISTRY/connstate-agent:{}", env!("CARGO_PKG_VERSION"));
    ensure!(*image == wanted, "{image}");
    Ok(())
}

#[test]
fn kubernetes_takes_every_document() -> Result<()> {
    let versions = schemas::versions()?;
    let supported: Vec<_> = versions
        .iter()
        .filter(|version| version.minor >= schemas::OLDEST)
        .collect();
    ensure!(supported.len() >= 8, "{versions:?}");
    eprintln!("against {supported:?}");
    let (custom, native): (Vec<_>, Vec<_>) = all_documents()?
        .into_iter()
        .partition(|(_, document)| schemas::is_custom(document));
    for version in supported {
        let mut schemas = version.schemas()?;
        for (origin, document) in &native {
            let wrong = schemas.mistakes(document)?;
            ensure!(wrong.is_empty(), "{origin}, {version:?}: {wrong:#?}");
        }
    }
    let custom: Vec<_> = custom.into_iter().map(|(_, document)| document).collect();
    let kinds: BTreeSet<_> = custom.iter().map(kind).collect();
    ensure!(kinds == BTreeSet::from(["PodMonitor", "PrometheusRule"]));
    schemas::operator_takes(&custom)
}

#[test]
fn broken_documents_are_refused() -> Result<()> {
    let documents = kustomize("base")?;
    let good = rendered::one(&documents, "DaemonSet")?;
    let versions = schemas::versions()?;
    let newest = versions.last().context("no version")?;
    let refused = |version: &schemas::Version, pointer: &str, key: &str, value: Value| {
        let mut broken = good.clone();
        let place = broken.pointer_mut(pointer).context("no such place")?;
        place[key] = value;
        let wrong = version.schemas()?.mistakes(&broken)?;
        ensure!(!wrong.is_empty(), "{version:?} takes {key}");
        Ok(wrong.join("\n"))
    };
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let said = refused(newest, pod, "hostPid", json!(true))?;
    ensure!(said.contains("hostPid"), "{said}");
    refused(newest, pod, "hostNetwork", json!("yes"))?;
    refused(newest, container, "securityContexts", json!({}))?;
    refused(newest, "/spec", "selector", json!("connstate-agent"))?;
    // The oldest version that the manifests are for is the one that first has what they use.
    let before = versions
        .iter()
        .find(|version| version.minor == schemas::OLDEST - 1)
        .context("no schemas of the version before")?;
    let wrong = before.schemas()?.mistakes(good)?.join("\n");
    ensure!(wrong.contains("appArmorProfile"), "{wrong}");

    let documents = kustomize("examples/prometheus-operator")?;
    let mut monitor = rendered::one(&documents, "PodMonitor")?.clone();
    let endpoint = monitor.pointer_mut("/spec/podMetricsEndpoints/0");
    endpoint.context("no endpoint")?["intervall"] = json!("15s");
    let error = schemas::operator_takes(&[monitor]).err();
    let said = error.context("intervall was taken")?.to_string();
    ensure!(said.contains("intervall"), "{said}");
    Ok(())
}

#[test]
fn both_forms_make_the_same() -> Result<()> {
    let tls = json!({ "web": { "configSecret": "connstate-web" } });
    let scraped = json!({ "podMonitor": { "enabled": true } });
    for (directory, values, kinds) in [
        ("base", Value::Null, &["DaemonSet", "ServiceAccount"][..]),
        ("examples/tls", tls, &["DaemonSet"]),
        (
            "examples/prometheus-operator",
            scraped,
            &["DaemonSet", "PodMonitor"],
        ),
    ] {
        let (kustomized, templated) = (kustomize(directory)?, helm(&values)?);
        for kind in kinds {
            let mut both = [&kustomized, &templated].map(|documents| {
                let mut document = rendered::one(documents, kind)?.clone();
                // Helm names itself and the chart there, and nothing selects by it.
                let labels = document["metadata"]["labels"].as_object_mut();
                let labels = labels.context("no labels")?;
                for own in ["managed-by", "version"] {
                    labels.remove(&format!("app.kubernetes.io/{own}"));
                }
                labels.remove("helm.sh/chart");
                anyhow::Ok(document)
            });
            let [kustomized, templated] = &mut both;
            let (kustomized, templated) = (kustomized.as_ref(), templated.as_ref());
            let (Ok(kustomized), Ok(templated)) = (kustomized, templated) else {
                anyhow::bail!("{directory}: {both:?}");
            };
            ensure!(
                kustomized == templated,
                "{directory}, {kind}: {kustomized:#}\nand of Helm: {templated:#}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_documented_rights_are_those_given() -> Result<()> {
    let documents = kustomize("base")?;
    let daemonset = rendered::one(&documents, "DaemonSet")?;
    let context = &agent(daemonset)?["securityContext"];
    ensure!(strings(&context["capabilities"]["drop"])? == ["ALL"]);
    let given = strings(&context["capabilities"]["add"])?;
    // With the prefix the API server refuses CAP_SYS_ADMIN beside allowPrivilegeEscalation.
    ensure!(given.iter().all(|name| !name.starts_with("CAP_")));
    for page in [
        "deploy/kubernetes/README.md",
        "deploy/helm/connstate/README.md",
    ] {
        let text = fs::read_to_string(root().join(page)).context(page)?;
        let named = text.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("| `CAP_")?.split_once('`')?;
            Some(name)
        });
        let named: Vec<_> = named.collect();
        ensure!(
            named == given,
            "{page} names {named:?}, given are {given:?}"
        );
    }
    for (field, expected) in [
        ("allowPrivilegeEscalation", json!(false)),
        ("privileged", json!(false)),
        ("readOnlyRootFilesystem", json!(true)),
        ("runAsUser", json!(0)),
        ("seccompProfile", json!({ "type": "RuntimeDefault" })),
    ] {
        ensure!(context[field] == expected, "{field}: {context:#}");
    }
    let pod = &daemonset["spec"]["template"]["spec"];
    ensure!(pod["automountServiceAccountToken"] == json!(false));
    let account = rendered::one(&documents, "ServiceAccount")?;
    ensure!(account["automountServiceAccountToken"] == json!(false));
    Ok(())
}

#[test]
fn every_argument_is_an_option_of_the_agent() -> Result<()> {
    let help = output(Command::new(binary()?).args(["run", "--help"]))?;
    let help = String::from_utf8(help.stdout)?;
    let options: BTreeSet<_> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .collect();
    let mut given = BTreeSet::new();
    for (origin, document) in all_documents()? {
        if kind(&document) != "DaemonSet" {
            continue;
        }
        let agent = agent(&document)?;
        let Some((verb, arguments)) = strings(&agent["args"])?
            .split_first()
            .map(|(verb, rest)| (*verb, rest.to_vec()))
        else {
            anyhow::bail!("{origin}: no arguments");
        };
        ensure!(verb == "run", "{origin}: {verb}");
        for argument in arguments {
            let option = argument.split('=').next().unwrap_or_default();
            ensure!(options.contains(option), "{origin}: {option}: {help}");
            given.insert(option.to_owned());
        }
    }
    // Those of the base, of TLS, and what was added by a value.
    ensure!(given.len() >= 3, "{given:?}");
    Ok(())
}

#[test]
fn ports_and_names_are_said_once() -> Result<()> {
    for (origin, document) in all_documents()? {
        match kind(&document) {
            "DaemonSet" => {
                let agent = agent(&document)?;
                let [port] = agent["ports"].as_array().map_or(&[][..], Vec::as_slice) else {
                    anyhow::bail!("{origin}: not one port");
                };
                let number = port["containerPort"].as_u64().context("no port")?;
                ensure!(port["hostPort"] == number && port["name"] == "metrics");
                let listen = format!("--web.listen-address=$(HOST_IP):{number}");
                let arguments = strings(&agent["args"])?;
                ensure!(arguments.contains(&&*listen), "{origin}: {arguments:?}");
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    let probe = &agent[probe];
                    let how = probe.get("httpGet").or(probe.get("tcpSocket"));
                    ensure!(how.context("no probe")?["port"] == "metrics", "{origin}");
                }
                // What selects the pods is on them.
                let selector = document["spec"]["selector"]["matchLabels"].as_object();
                let labels = &document["spec"]["template"]["metadata"]["labels"];
                for (name, value) in selector.context("no selector")? {
                    ensure!(labels[name] == *value, "{origin}: {name}");
                }
                ensure!(labels["app.kubernetes.io/name"] == "connstate-agent");
            }
            "PodMonitor" => {
                let endpoint = &document["spec"]["podMetricsEndpoints"][0];
                ensure!(endpoint["port"] == "metrics" && endpoint["path"] == "/metrics");
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn versions_are_those_of_the_workspace() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let image = format!("connstate-agent:{version}");
    for documents in [kustomize("base")?, helm(&Value::Null)?] {
        let daemonset = rendered::one(&documents, "DaemonSet")?;
        ensure!(agent(daemonset)?["image"] == image);
    }
    let recipe = fs::read_to_string(root().join(image::CONTAINERFILE))?;
    ensure!(recipe.contains(&format!("\nARG VERSION={version}\n")));
    let chart = fs::read_to_string(root().join(CHART).join("Chart.yaml"))?;
    ensure!(chart.contains(&format!("\nversion: {version}\n")));
    Ok(())
}

#[test]
fn the_chart_brings_the_rules_and_dashboards_there_are() -> Result<()> {
    let prefix = "https://runbooks.example/";
    let values = everything()?;
    let documents = helm(&values)?;
    // An archive holds what the links lead to.
    ensure!(rendered::helm_packaged(&values)? == documents);
    let rules: BTreeMap<_, _> = documents
        .iter()
        .filter(|document| kind(document) == "PrometheusRule")
        .map(|rule| (rule["metadata"]["name"].as_str(), &rule["spec"]))
        .collect();
    for (name, file) in [
        ("connstate-agent", "connstate.yml"),
        ("connstate-agent-kubernetes", "connstate-kubernetes.yml"),
    ] {
        let path = root().join("deploy/prometheus/rules").join(file);
        let text = fs::read_to_string(path).context(file)?;
        let text = text.replace("runbook_url: ", &format!("runbook_url: {prefix}"));
        let there = rendered::documents(&text)?;
        let brought = rules.get(&Some(name)).context(name)?;
        ensure!(
            there.first() == Some(*brought),
            "{file} is brought otherwise"
        );
    }
    let mut there = BTreeMap::new();
    for file in rendered::dashboards()? {
        let name = file.file_name().context("no name")?.display().to_string();
        let dashboard: Value = serde_json::from_slice(&fs::read(&file)?)?;
        there.insert(format!("connstate-{name}"), dashboard);
    }
    let mut brought = BTreeMap::new();
    for map in documents
        .iter()
        .filter(|document| kind(document) == "ConfigMap")
    {
        ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1");
        for (name, text) in map["data"].as_object().context("no data")? {
            let dashboard = serde_json::from_str(text.as_str().context("no text")?)?;
            brought.insert(name.clone(), dashboard);
        }
    }
    ensure!(there == brought, "{:?} {:?}", there.keys(), brought.keys());
    if there.is_empty() {
        eprintln!("skipped: there are no dashboards in dashboards/grafana");
    }
    Ok(())
}
