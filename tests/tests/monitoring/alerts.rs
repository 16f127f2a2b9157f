//! Where the alert about a leak shows: in Prometheus, on every board, and in the messages sent.

use std::{slice, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dashboards::boards;
use serde_json::Value;
use tests::wait::until;

use super::{
    lab::{Lab, Leak},
    opened,
    stack::Stack,
};

const LEAK: &str = "ConnstateCloseWaitLeak";

/// Of this process, as Alertmanager has it; nothing where it does not fire.
pub(crate) fn firing(stack: &Stack, process: &str) -> Result<Option<Value>> {
    let alerts = stack.alertmanager.alerts()?;
    Ok(alerts.into_iter().find(|alert| {
        let labels = &alert["labels"];
        labels["alertname"] == LEAK && labels["process"] == process
    }))
}

/// Waits until Prometheus' own alerts, and the annotations of every board, are those about these
/// of the lab's leaks.
pub(crate) fn are_about(stack: &Stack, lab: &Lab, leaks: &[&Leak]) -> Result<()> {
    let mut expected: Vec<_> = leaks.iter().map(|leak| leak.workload.clone()).collect();
    expected.sort();
    let all = [&lab.api.workload, &lab.search.workload];
    // Others may leak on this host meanwhile.
    let of_the_lab = |workloads: Vec<String>| {
        let mut workloads = workloads;
        workloads.retain(|workload| all.contains(&workload));
        workloads.sort();
        workloads
    };
    until("Prometheus to tell of these leaks", || {
        let alerts = stack.prometheus.alerts()?;
        let leaks = alerts
            .iter()
            .filter(|alert| alert["labels"]["alertname"] == LEAK);
        // One that is about to fire, or has ended, is not among those expected.
        let told = leaks.map(
            |alert| match (&alert["state"], &alert["labels"]["workload"]) {
                (Value::String(state), Value::String(workload)) if state == "firing" => {
                    workload.clone()
                }
                _ => String::new(),
            },
        );
        Ok(of_the_lab(told.collect()) == expected)
    })?;
    for board in boards() {
        let opened = opened(&board, stack, lab)?;
        until("a board to show these leaks", || {
            let mut shown = stack.prometheus.ask(slice::from_ref(&opened.annotation))?;
            let mut shown = shown.pop().context("no answer")?;
            shown.retain(|sample| {
                sample
                    .labels
                    .get("alertname")
                    .is_some_and(|name| name == LEAK)
            });
            let workloads = shown
                .iter()
                .filter_map(|sample| sample.labels.get("workload").cloned());
            Ok(of_the_lab(workloads.collect()) == expected)
        })
        .with_context(|| format!("{}: {}", board.uid, opened.annotation))?;
    }
    Ok(())
}

/// A message about it comes to where tickets are made, as its severity says.
pub(crate) fn is_sent(stack: &Stack, port: &str) -> Result<()> {
    loop {
        let (path, message) = stack.webhook.next(Duration::from_mins(1))?;
        let alerts = message["alerts"].as_array().context("no alerts")?;
        let mine = |alert: &&Value| {
            alert["labels"]["alertname"] == LEAK && alert["labels"]["port"] == port
        };
        if let Some(alert) = alerts.iter().find(mine) {
            ensure!(path == "/tickets/hooks/connstate", "{path}");
            ensure!(alert["labels"]["process"] == "api", "{alert:#}");
            return Ok(());
        }
    }
}
