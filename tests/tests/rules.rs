//! The rules for Prometheus: promtool runs their tests, and each alert has its runbook.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn promtool(arguments: &[&str]) -> Result<String> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("deploy/prometheus/rules"))
        .output()
        .context("promtool cannot be run: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}

/// The values of a key, wherever it stands in a rule file or its tests.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches([' ', '-', '{']));
    let values = lines.filter_map(|line| line.strip_prefix(key));
    values.map(str::trim).collect()
}

#[test]
fn the_rules_load_and_their_tests_pass() -> Result<()> {
    let said = promtool(&["check", "rules", "connstate.yml"])?;
    ensure!(said.contains("SUCCESS"), "{said}");
    promtool(&["test", "rules", "connstate_test.yml"])?;
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
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules/connstate.yml"))?;
    let known = fs::read_to_string(root().join("docs/metrics.md"))?;
    let is_of_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || sign == ':';
    let names: BTreeSet<_> = rules
        .split(|sign| !is_of_name(sign))
        // The last is the file of tests.
        .filter(|word| word.starts_with("connstate_") && *word != "connstate_test")
        .collect();
    ensure!(names.len() > 15, "{names:?}");
    for name in names {
        ensure!(known.contains(&format!("| {name} |")), "there is no {name}");
    }
    Ok(())
}
