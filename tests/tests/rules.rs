//! What Prometheus and Alertmanager are given: their own tools check it and run its tests, each
//! check is shown to fail on a broken copy, and each alert has its runbook and its receiver.

#[path = "rules/files.rs"]
mod files;
#[path = "rules/scrape.rs"]
mod scrape;
#[path = "rules/alertmanager.rs"]
mod alertmanager;

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};

use files::{check_rules, copy, names, replace, root, rule_files, values};

#[test]
fn the_rules_load_and_their_tests_pass() -> Result<()> {
    for (rules, test) in rule_files()? {
        check_rules(&root().join("deploy/prometheus/rules"), &rules, &test)?;
    }
    Ok(())
}

#[test]
fn a_rule_that_is_wrong_fails_its_test() -> Result<()> {
    let kubernetes = "connstate-kubernetes.yml";
    for (rules, old, new) in [
        ("connstate.yml", "> 0.8 * 0.25", "> 0.8"),
        ("connstate.yml", "expr: ", "exp: "),
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
    ] {
        let copy = copy()?;
        let folder = copy.path().join("rules");
        replace(&folder.join(rules), old, new)?;
        let checked = check_rules(&folder, rules, &rules.replace(".yml", "_test.yml"));
        ensure!(checked.is_err(), "{rules} passes with {new:?} for {old:?}");
    }
    Ok(())
}

#[test]
fn every_alert_has_a_test_and_a_runbook_that_names_it() -> Result<()> {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules/connstate.yml"))?;
    let tests = fs::read_to_string(root().join("deploy/prometheus/rules/connstate_test.yml"))?;
    let (alerts, runbooks) = (values(&rules, "alert:"), values(&rules, "runbook_url:"));
    ensure!(alerts.len() == runbooks.len() && alerts.len() >= 15);
    for (alert, runbook) in alerts.iter().zip(&runbooks) {
        let page =
            fs::read_to_string(root().join(runbook)).with_context(|| (*runbook).to_owned())?;
        ensure!(page.contains(alert), "{runbook} does not name {alert}");
        for part in [
            "## What it means",
            "## Confirm it",
            "## What to do",
            "## What not to do",
        ] {
            // That page has a part for each of its alerts.
            let is_agents = runbook.ends_with("agent.md");
            ensure!(is_agents || page.contains(part), "{runbook} lacks {part}");
        }
        ensure!(
            tests.contains(&format!("alertname: {alert}\n")),
            "no test has {alert} fire"
        );
    }
    // No page without an alert.
    let pages = fs::read_dir(root().join("docs/runbooks"))?;
    let pages: BTreeSet<_> = pages
        .map(|page| Ok(format!("docs/runbooks/{}", page?.file_name().display())))
        .collect::<Result<_>>()?;
    let linked: BTreeSet<_> = runbooks.iter().map(|page| (*page).to_owned()).collect();
    ensure!(pages == linked, "{pages:?} {linked:?}");
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
