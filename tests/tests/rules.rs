//! What Prometheus and Alertmanager are given: their own tools check it and run its tests, each
//! check is shown to fail on a broken copy, and each alert has its runbook and its receiver.

#[path = "rules/files.rs"]
mod files;
#[path = "rules/scrape.rs"]
mod scrape;
#[path = "rules/alertmanager.rs"]
mod alertmanager;

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, bail, ensure};

use files::{check_rules, copy, names, replace, root, rule_files, values};

#[test]
fn the_rules_load_and_their_tests_pass() -> Result<()> {
    for (rules, test) in rule_files()? {
        check_rules(&root().join("deploy/prometheus/rules"), &rules, &test)?;
    }
    Ok(())
}

/// Of each alert, what decides whether it fires, and what would be wrong.
const WRONG: &[(&str, &str)] = &[
    (
        "(connstate_close_wait_leaked) > 0",
        "(connstate_close_wait_leaked) > 200",
    ),
    (
        "(connstate_close_wait_leaked) > 0",
        "(connstate_close_wait_leaked) >= 0",
    ),
    ("offset 20m)\n            >", "offset 20m)\n            !="),
    ("          and\n", "          or\n"),
    (
        "(connstate_fin_wait1_stalled) > 0",
        "(connstate_fin_wait1_stalled) >= 0",
    ),
    ("> 0.8 * 0.25", "> 0.8"),
    ("> 0.8 * 0.25", "> 0.7 * 0.25"),
    (
        "increase(connstate_orphan_kills_total[5m]) > 0",
        "connstate_orphan_kills_total > 0",
    ),
    (
        "(connstate_time_wait_limit > 0) > 0.8",
        "(connstate_time_wait_limit > 0) > 0.1",
    ),
    (
        "(connstate_time_wait_limit > 0) > 0.8",
        "connstate_time_wait_limit > 0.8",
    ),
    (
        "{netns!=\"_other\"} / (connstate_time_wait_limit",
        " / (connstate_time_wait_limit",
    ),
    (
        "increase(connstate_time_wait_overflows_total[5m]) > 0",
        "connstate_time_wait_overflows_total > 0",
    ),
    (
        "connstate_ephemeral_ports:ratio > 0.8",
        "connstate_ephemeral_ports:ratio > 0.7",
    ),
    ("seconds_left < 1800", "seconds_left < 600"),
    (
        "            and job_instance_netns:connstate_ephemeral_ports:ratio > 0.5\n",
        "",
    ),
    ("ratio_rate5m > 0.05", "ratio_rate5m > 0.03"),
    (
        "{name=\"OutSegs\"}[5m])) > 10",
        "{name=\"OutSegs\"}[5m])) > 0",
    ),
    (" or absent(up{job=\"connstate\"})", ""),
    ("up{job=\"connstate\"} == 0", "up == 0"),
    (
        "connstate_bpf_program_attached == 0",
        "connstate_bpf_program_attached < 2",
    ),
    ("{reason!=\"slow_listener\"}", ""),
    ("2 * connstate_census_interval_seconds + 60", "120"),
    (
        "            unless on (job, instance) connstate_census_last",
        "            and on () connstate_census_last",
    ),
    (
        "connstate_census_unreached_namespaces > 0",
        "connstate_census_unreached_namespaces >= 0",
    ),
    ("expr: ", "exp: "),
];

#[test]
fn a_rule_that_is_wrong_fails_its_test() -> Result<()> {
    let kubernetes = "connstate-kubernetes.yml";
    let of_alerts = WRONG.iter().map(|(old, new)| ("connstate.yml", *old, *new));
    let of_pods = [
        // One of two nodes is not ready.
        (kubernetes, "            > 0\n", "            > 2\n"),
        // Of two kube-state-metrics, of which one tells no node yet.
        (
            kubernetes,
            "max by (pod_uid, namespace, pod)",
            "max by (pod_uid, namespace, pod, node)",
        ),
        // Where two containers have one short id.
        (
            kubernetes,
            "(count by (id) (id:kube_pod_container:info) > 1)",
            "(up > 1)",
        ),
        // Where no name is known.
        (
            kubernetes,
            "            or on (job, instance, workload)\n              job_instance_workload:connstate_pod:workload\n          )",
            "          )",
        ),
        // A restarted container, and a path without one.
        (
            kubernetes,
            "* on (pod_uid) group_left (namespace, pod) pod_uid:kube_pod:info",
            "> 1",
        ),
        // A static pod.
        (
            kubernetes,
            "* on (id) group_left (namespace, pod, container)\n",
            "* on (id, pod_uid) group_left (namespace, pod, container)\n",
        ),
        (kubernetes, "|kube_pod_init_container_info", ""),
    ];
    for (rules, old, new) in of_alerts.chain(of_pods) {
        let copy = copy()?;
        let folder = copy.path().join("rules");
        replace(&folder.join(rules), old, new)?;
        let checked = check_rules(&folder, rules, &rules.replace(".yml", "_test.yml"));
        ensure!(checked.is_err(), "{rules} passes with {new:?} for {old:?}");
    }
    Ok(())
}

#[test]
fn every_alert_fires_and_is_silent_in_a_test_and_has_a_runbook() -> Result<()> {
    let mut linked = BTreeSet::new();
    let mut count = 0;
    for (file, test) in rule_files()? {
        let folder = root().join("deploy/prometheus/rules");
        let rules = fs::read_to_string(folder.join(file))?;
        let tests = fs::read_to_string(folder.join(test))?;
        for alert in rules.split("- alert: ").skip(1) {
            let name = alert.lines().next().unwrap_or_default();
            let only = |key| match values(alert, key)[..] {
                [value] => Ok(value.to_owned()),
                ref values => bail!("{name} has {values:?} for {key}"),
            };
            let (runbook, summary) = (only("runbook_url:")?, only("summary:")?);
            ensure!(!only("for:")?.is_empty() && !only("severity:")?.is_empty());
            ensure!(!only("description:")?.is_empty());
            // Whose it is stands where a pager shows it, as far as the alert knows.
            for label in ["instance", "workload", "process", "port", "side"] {
                let by = alert
                    .lines()
                    .find(|line| line.contains("sum by (job, instance"));
                let knows =
                    by.is_some_and(|by| by.split([' ', ',', '(', ')']).any(|word| word == label));
                let says = summary.contains(&format!("$labels.{label} "));
                ensure!(says || !knows, "{name} does not say the {label}: {summary}");
            }
            let page = fs::read_to_string(root().join(&runbook)).context(runbook.clone())?;
            let title = page.lines().next().unwrap_or_default();
            ensure!(title.contains(name), "{runbook} is not about {name}");
            for part in [
                "## What it means",
                "## Confirm it",
                "## What to do",
                "## What not to do",
            ] {
                ensure!(page.contains(part), "{runbook} lacks {part}");
            }
            let fires = format!("alertname: {name}\n        exp_alerts:\n");
            ensure!(tests.contains(&fires), "no test has {name} fire");
            let is_silent = format!("alertname: {name}}}\n");
            ensure!(tests.contains(&is_silent), "no test has {name} be silent");
            linked.insert(runbook);
            count += 1;
        }
    }
    ensure!(count >= 16, "{count}");
    // No page without an alert.
    let pages = fs::read_dir(root().join("docs/runbooks"))?;
    let pages: BTreeSet<_> = pages
        .map(|page| Ok(format!("docs/runbooks/{}", page?.file_name().display())))
        .collect::<Result<_>>()?;
    ensure!(pages == linked, "{pages:?} {linked:?}");
    Ok(())
}

/// Every expression that the page shows is asked in a test, to the letter.
#[test]
fn the_joins_of_the_page_are_tested() -> Result<()> {
    let folder = root().join("deploy/prometheus");
    let page = fs::read_to_string(folder.join("README.md"))?;
    let tests = fs::read_to_string(folder.join("rules/connstate-kubernetes_test.yml"))?;
    let (_, joins) = page
        .split_once("## Names in Kubernetes")
        .context("no joins")?;
    let joins: Vec<&str> = joins
        .split("\n\n")
        .filter(|part| part.starts_with("    "))
        .collect();
    ensure!(joins.len() == 2, "{joins:?}");
    for join in joins {
        let lines = join.lines().map(|line| format!("      {line}\n"));
        let lines: String = lines.collect();
        ensure!(tests.contains(&lines), "not tested: {join}");
    }
    Ok(())
}

#[test]
fn rules_name_metrics_that_there_are() -> Result<()> {
    let known = fs::read_to_string(root().join("docs/metrics.md"))?;
    let mut count = 0;
    for rules in rule_files()?.keys() {
        let rules = fs::read_to_string(root().join("deploy/prometheus/rules").join(rules))?;
        for name in names(&rules) {
            ensure!(known.contains(&format!("| {name} |")), "there is no {name}");
            count += 1;
        }
    }
    ensure!(count > 20, "{count}");
    Ok(())
}
