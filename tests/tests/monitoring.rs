//! What is shipped, on a real Prometheus and a real Alertmanager: each panel of each board shows
//! what the sockets make true, each rule loads, and the alert names who leaks, and ends.

#[path = "monitoring/lab.rs"]
mod lab;
#[path = "monitoring/panels.rs"]
mod panels;
#[path = "monitoring/stack.rs"]
mod stack;
#[path = "monitoring/want.rs"]
mod want;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dashboards::{RATE, boards};
use tests::{netns::Netns, wait::until};

use lab::{DRAINED, Lab};
use panels::Expected;
use stack::{AGENT, Stack, shipped};

/// Where nothing answers.
const NOWHERE: &str = "127.0.0.1:1";

/// How long it may take until a rate over half a minute is right.
const PATIENCE: Duration = Duration::from_mins(4);

/// What a board's user has chosen, and Grafana puts in its place.
fn chosen(expression: &str, lab: &Lab) -> String {
    let workloads = [&lab.own, &lab.api.workload, &lab.search.workload];
    let workloads = workloads.map(|name| name.replace('.', "\\\\."));
    expression
        .replace(RATE, "30s")
        .replace("$__range", "1m")
        .replace("$job", "connstate")
        .replace("$instance", "127\\\\.0\\\\.0\\\\.1:.+")
        .replace("$workload", &workloads.join("|"))
}

/// A query, and what it must answer.
struct Question {
    name: String,
    expression: String,
    wants: Vec<want::Want>,
}

/// Every query of every board, each with what is expected.
fn questions(mut expected: Vec<Expected>, lab: &Lab) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for board in boards() {
        for panel in board.panels() {
            let name = format!("{}, {}", board.uid, panel.title);
            let mine = |(uid, title, _): &Expected| (*uid, *title) == (board.uid, panel.title);
            let place = expected.iter().position(mine);
            let (_, _, wants) = expected.remove(place.with_context(|| format!("{name} is new"))?);
            ensure!(wants.len() == panel.queries.len(), "{name}: {wants:?}");
            for (query, wants) in panel.queries.iter().zip(wants) {
                ensure!(!wants.is_empty(), "{name} expects nothing");
                all.push(Question {
                    name: name.clone(),
                    expression: chosen(&query.expr.to_string(), lab),
                    wants,
                });
            }
        }
    }
    ensure!(expected.is_empty(), "no board has {expected:?}");
    Ok(all)
}

/// Asks until all answers were right once.
fn all_answered(stack: &mut Stack, lab: &Lab, mut questions: Vec<Question>) -> Result<()> {
    let began = Instant::now();
    loop {
        lab.goes_on()?;
        let expressions: Vec<_> = questions
            .iter()
            .map(|question| question.expression.clone())
            .collect();
        let answers = stack.prometheus.ask(&expressions)?;
        let mut wrong = Vec::new();
        let mut told = Vec::new();
        for (question, samples) in questions.into_iter().zip(answers) {
            let met = |want: &want::Want| want.is_met(&samples);
            if question.wants.iter().all(met) {
                continue;
            }
            let missing = question.wants.iter().find(|want| !want.is_met(&samples));
            told.push(format!(
                "{}\n  {}\n  wants {missing:?}\n  has {samples:?}",
                question.name, question.expression
            ));
            wrong.push(question);
        }
        if wrong.is_empty() {
            eprintln!("all answers were right after {:.1?}", began.elapsed());
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{}", told.join("\n"));
        questions = wrong;
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn every_panel_shows_what_the_sockets_give() -> Result<()> {
    let Some(mut lab) = Lab::new()? else {
        return Ok(());
    };
    // Some of the host's limits are seen from its own network namespace alone.
    let mut expected = panels::fleet(&lab)?;
    expected.extend(panels::host(&lab)?);
    let monitor = Netns::new()?;
    monitor.run(|| {
        let began = Instant::now();
        let mut stack = Stack::start(&[NOWHERE])?;
        lab.bother(AGENT.parse()?);
        lab.crowd()?;
        expected.extend(panels::own(&stack, began.elapsed())?);
        let questions = questions(expected, &lab)?;
        eprintln!("{} queries", questions.len());
        all_answered(&mut stack, &lab, questions)?;
        every_rule_is_healthy(&stack)
    })
}

/// All of the file's rules are loaded, and none has failed.
fn every_rule_is_healthy(stack: &Stack) -> Result<()> {
    let file = shipped("prometheus/rules/connstate.yml")?;
    let mut written = BTreeSet::new();
    for line in file.lines() {
        let line = line.trim_start_matches([' ', '-']);
        let name = line
            .strip_prefix("alert: ")
            .or(line.strip_prefix("record: "));
        written.extend(name.map(str::to_owned));
    }
    let mut healthy = BTreeSet::new();
    let groups = stack.prometheus.get("/api/v1/rules")?;
    for group in groups["groups"].as_array().context("no groups")? {
        for rule in group["rules"].as_array().context("no rules")? {
            ensure!(rule["health"] == "ok", "{rule:#}");
            healthy.insert(rule["name"].as_str().context("no name")?.to_owned());
        }
    }
    ensure!(
        written == healthy && written.len() > 25,
        "{written:?} {healthy:?}"
    );
    Ok(())
}

#[test]
fn the_alert_names_who_leaks_and_ends_when_it_closes() -> Result<()> {
    let Some(mut lab) = Lab::new()? else {
        return Ok(());
    };
    let monitor = Netns::new()?;
    monitor.run(|| {
        let stack = Stack::start(&[])?;
        let port = lab.api.port.to_string();
        let firing = |process: &str| -> Result<Option<serde_json::Value>> {
            let alerts = stack.alertmanager.alerts()?;
            Ok(alerts.into_iter().find(|alert| {
                alert["labels"]["alertname"] == "ConnstateCloseWaitLeak"
                    && alert["labels"]["process"] == process
            }))
        };
        until("the alert about api", || Ok(firing("api")?.is_some()))?;
        let alert = firing("api")?.context("it is gone")?;
        let labels = &alert["labels"];
        ensure!(
            labels["port"] == port.as_str() && labels["side"] == "server",
            "{alert:#}"
        );
        ensure!(labels["workload"] == lab.api.workload.as_str(), "{alert:#}");
        ensure!(
            labels["cause"] == "drained" && labels["instance"] == AGENT,
            "{alert:#}"
        );
        let summary = alert["annotations"]["summary"].as_str();
        let summary = summary.context("no summary")?;
        let workload = &lab.api.workload;
        ensure!(
            summary == format!("api ({workload}) does not close {DRAINED} connections on {AGENT}"),
            "{summary}"
        );
        let description = alert["annotations"]["description"].to_string();
        ensure!(
            description.contains(&format!("server port {port}")),
            "{description}"
        );
        is_sent(&stack, &port)?;
        // Prometheus' own series of alerts, which the boards' annotations show.
        let annotation = r#"ALERTS{alertname=~"Connstate.+",alertstate="firing",process="api"}"#;
        let shown = stack.prometheus.ask(&[annotation.to_owned()])?;
        ensure!(shown[0].len() == 1, "{shown:?}");
        // The other process goes on leaking, and its alert stays.
        lab.api.close()?;
        until(
            "the alert about api to end",
            || Ok(firing("api")?.is_none()),
        )?;
        ensure!(firing("search")?.is_some(), "search still leaks");
        Ok(())
    })
}

/// A message about it comes to where tickets are made, as its severity says.
fn is_sent(stack: &Stack, port: &str) -> Result<()> {
    loop {
        let (path, message) = stack.webhook.next(Duration::from_mins(1))?;
        let alerts = message["alerts"].as_array().context("no alerts")?;
        let mine = |alert: &&serde_json::Value| {
            alert["labels"]["alertname"] == "ConnstateCloseWaitLeak"
                && alert["labels"]["port"] == port
        };
        if let Some(alert) = alerts.iter().find(mine) {
            ensure!(path == "/tickets/hooks/connstate", "{path}");
            ensure!(alert["labels"]["process"] == "api", "{alert:#}");
            return Ok(());
        }
    }
}
