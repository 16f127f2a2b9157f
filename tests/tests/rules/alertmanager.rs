//! Who is told of which alert.

use std::{collections::BTreeMap, fs, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{alertmanager::Alertmanager, wait::until};

use super::files::{replace, root, rule_files, run, values};

const ALERTMANAGER: &str = "alertmanager.yml";

#[test]
fn every_alert_has_a_receiver() -> Result<()> {
    let folder = root().join("deploy/alertmanager");
    run("amtool", &folder, &["check-config", ALERTMANAGER])?;
    let routed = |labels: &[&str], receiver: &str| {
        let file = format!("--config.file={ALERTMANAGER}");
        let receiver = format!("--verify.receivers={receiver}");
        let arguments = [&["config", "routes", "test", &file, &receiver], labels].concat();
        run("amtool", &folder, &arguments)
    };
    let mut rules = String::new();
    for file in rule_files()?.keys() {
        rules += &fs::read_to_string(root().join("deploy/prometheus/rules").join(file))?;
    }
    let (alerts, severities) = (values(&rules, "alert:"), values(&rules, "severity:"));
    ensure!(alerts.len() == severities.len() && alerts.len() >= 16);
    for (alert, severity) in alerts.iter().zip(&severities) {
        let labels = [format!("alertname={alert}"), format!("severity={severity}")];
        let labels = labels.each_ref().map(String::as_str);
        let (theirs, others) = if *severity == "critical" {
            ("pager", "tickets")
        } else {
            ("tickets", "pager")
        };
        routed(&labels, theirs)?;
        ensure!(
            routed(&labels, others).is_err(),
            "{alert} goes to {others}, too"
        );
    }
    routed(&["alertname=ConnstateNew", "severity=odd"], "chat")?;
    routed(&["alertname=OfSomebodyElse", "severity=critical"], "chat")?;
    Ok(())
}

#[test]
fn an_alertmanager_refuses_what_is_broken() -> Result<()> {
    for (old, new) in [
        ("receiver: tickets", "receiver: nobody"),
        (
            "matchers: ['severity=\"warning\"']",
            "matchers: ['severity']",
        ),
        ("target_matchers:", "targets:"),
    ] {
        let copy = TempDir::new()?;
        let file = copy.path().join(ALERTMANAGER);
        fs::copy(root().join("deploy/alertmanager").join(ALERTMANAGER), &file)?;
        replace(&file, old, new)?;
        let checked = run("amtool", copy.path(), &["check-config", ALERTMANAGER]);
        ensure!(checked.is_err(), "it is taken with {new:?} for {old:?}");
    }
    Ok(())
}

/// What is known of it, the alert that inhibits, the one that is inhibited, and a host or port of
/// which nothing worse is known, where the latter must be told.
const INHIBITIONS: [(&str, &str, &str, &str); 6] = [
    (
        "",
        "ConnstateAgentDown",
        "ConnstateRetransmits",
        "instance=h9",
    ),
    (
        "",
        "ConnstateCensusLate",
        "ConnstateFinWait1Stalled",
        "instance=h9",
    ),
    (
        "workload=w process=p port=1 side=server",
        "ConnstateCloseWaitGrowing",
        "ConnstateCloseWaitLeak",
        "port=9",
    ),
    (
        "",
        "ConnstateOrphansKilled",
        "ConnstateOrphansNearKills",
        "instance=h9",
    ),
    (
        "netns=host",
        "ConnstateTimeWaitOverflow",
        "ConnstateTimeWaitNearLimit",
        "netns=9",
    ),
    (
        "netns=host source=s destination=d port=1",
        "ConnstateEphemeralPortsRunOut",
        "ConnstateEphemeralPortsFew",
        "destination=9",
    ),
];

/// The names and hosts of the alerts that are told of, in order; and each as often as it is
/// told.
fn told_by(alertmanager: &Alertmanager) -> Result<Vec<String>> {
    let alerts = alertmanager.alerts()?;
    let names = alerts.iter().map(|alert| {
        let value = |label| alert["labels"][label].as_str().unwrap_or_default();
        format!("{}/{}", value("alertname"), value("instance"))
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

#[test]
fn of_two_alerts_about_one_thing_the_worse_is_told() -> Result<()> {
    let example = root().join("deploy/alertmanager").join(ALERTMANAGER);
    let mut example = fs::read_to_string(example)?;
    // It tells nobody.
    for receiver in ["pager", "tickets", "chat"] {
        let url = format!("https://{receiver}.example.com/");
        ensure!(example.contains(&url), "there is no {url}");
        example = example.replace(&url, "http://127.0.0.1:1/");
    }
    let folder = TempDir::new()?;
    // It does not say which port it was given, so it is told one that was free just now.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let alertmanager = Alertmanager::start(folder.path(), &example, address)?;
    let url = format!("--alertmanager.url=http://{address}");
    let mut told = Vec::new();
    for (number, (labels, worse, lesser, elsewhere)) in INHIBITIONS.into_iter().enumerate() {
        let instance = format!("instance=h{number}");
        let known: BTreeMap<_, _> = ["job=connstate", &instance]
            .into_iter()
            .chain(labels.split_whitespace())
            .filter_map(|label| label.split_once('='))
            .collect();
        let mut another = known.clone();
        another.extend(elsewhere.split_once('='));
        for (alert, labels) in [(worse, &known), (lesser, &known), (lesser, &another)] {
            let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
            let labels: Vec<_> = [format!("alertname={alert}")]
                .into_iter()
                .chain(labels)
                .collect();
            let labels = labels.iter().map(String::as_str);
            let arguments: Vec<_> = [url.as_str(), "alert", "add"]
                .into_iter()
                .chain(labels)
                .collect();
            run("amtool", folder.path(), &arguments)?;
        }
        told.push(format!("{worse}/h{number}"));
        told.push(format!("{lesser}/{}", another["instance"]));
    }
    told.sort();
    let mut last = Vec::new();
    until("the inhibitions", || {
        last = told_by(&alertmanager)?;
        Ok(last == told)
    })
    .with_context(|| format!("{last:?} instead of {told:?}"))?;
    Ok(())
}
