//! How Prometheus finds the agents, and what it keeps of them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};

use super::files::{
    check_configuration, copy, instances, names, replace, root, rule_files, values, yaml_files,
};

#[test]
fn every_configuration_loads_and_a_broken_one_does_not() -> Result<()> {
    let whole = copy()?;
    let configurations = yaml_files(whole.path())?;
    for name in &configurations {
        check_configuration(whole.path(), name)?;
    }
    let mut broken = BTreeSet::new();
    for (name, file, old, new) in [
        (
            "prometheus.yml",
            "prometheus.yml",
            "rules/connstate.yml",
            "rules/nonesuch.yml",
        ),
        ("prometheus.yml", "rules/connstate.yml", "expr: ", "exp: "),
        (
            "scrape-static.yml",
            "scrape-static.yml",
            "ca_file:",
            "ca_path:",
        ),
        (
            "scrape-file-sd.yml",
            "scrape-file-sd.yml",
            "targets/connstate.yml",
            "targets/nonesuch.yml",
        ),
        (
            "scrape-file-sd.yml",
            "targets/connstate.yml",
            "targets:",
            "target:",
        ),
        (
            "scrape-kubernetes.yml",
            "scrape-kubernetes.yml",
            "action: keep",
            "action: kept",
        ),
        (
            "scrape-fleet.yml",
            "scrape-fleet.yml",
            "action: hashmod",
            "action: hash",
        ),
    ] {
        let copy = copy()?;
        replace(&copy.path().join(file), old, new)?;
        let checked = check_configuration(copy.path(), name);
        ensure!(
            checked.is_err(),
            "{name} loads with {new:?} for {old:?} in {file}"
        );
        broken.insert(name.to_owned());
    }
    ensure!(broken == configurations, "{broken:?} of {configurations:?}");
    Ok(())
}

/// The hosts of the example of a list, in order.
const LISTED: [&str; 4] = [
    "[2001:db8::17]",
    "db1.example.com",
    "db2.example.com",
    "web1.example.com",
];

#[test]
fn hosts_are_called_by_their_names() -> Result<()> {
    let copy = copy()?;
    let instances = |name| instances(copy.path(), name);
    let named =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| Some((*name).to_owned())).collect() };
    ensure!(instances("scrape-static.yml")? == named(&["db1.example.com", "db2.example.com"]));
    let listed = instances("scrape-file-sd.yml")?;
    ensure!(listed == named(&LISTED), "{listed:?}");
    // The pod that is an agent's, by its port of that name, while it runs.
    let pods = instances("scrape-kubernetes.yml")?;
    let dropped = [None, None, None].into_iter();
    ensure!(
        dropped.chain(named(&["node1"])).eq(pods.clone()),
        "{pods:?}"
    );
    Ok(())
}

#[test]
fn each_host_of_a_fleet_is_one_servers() -> Result<()> {
    let copy = copy()?;
    let text = fs::read_to_string(copy.path().join("scrape-fleet.yml"))?;
    let mut shares = Vec::new();
    for shard in 0..4 {
        let name = format!("shard-{shard}.yml");
        let theirs = text.replace("regex: \"0\"", &format!("regex: \"{shard}\""));
        fs::write(copy.path().join(&name), theirs)?;
        shares.extend(instances(copy.path(), &name)?.into_iter().flatten());
    }
    shares.sort();
    ensure!(shares == LISTED, "{shares:?}");
    Ok(())
}

/// By the family's name: the regex has a histogram's endings in parentheses.
#[test]
fn what_a_fleet_drops_no_rule_asks_for() -> Result<()> {
    let fleet = fs::read_to_string(root().join("deploy/prometheus/scrape-fleet.yml"))?;
    let known = fs::read_to_string(root().join("docs/metrics.md"))?;
    let regexes = values(&fleet, "regex:");
    let dropped = regexes
        .iter()
        .find(|regex| regex.starts_with("connstate_sysctl|"))
        .context("nothing is dropped")?;
    let dropped: BTreeSet<_> = names(dropped)
        .into_iter()
        .map(|name| name.trim_end_matches('_'))
        .collect();
    ensure!(dropped.len() > 5, "{dropped:?}");
    for rules in rule_files()?.keys() {
        let rules = fs::read_to_string(root().join("deploy/prometheus/rules").join(rules))?;
        for name in &dropped {
            ensure!(known.contains(&format!("| {name} |")), "there is no {name}");
            ensure!(!names(&rules).contains(name), "a rule asks for {name}");
        }
        // What is sent elsewhere is chosen by such names.
        for record in values(&rules, "record:") {
            let metric = record.split(':').nth(1).unwrap_or_default();
            ensure!(
                metric.starts_with("connstate_") || metric.starts_with("kube_pod"),
                "{record} is no level:metric:operation"
            );
        }
    }
    Ok(())
}
