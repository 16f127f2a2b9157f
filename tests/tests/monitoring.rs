//! What is shipped, on a real Prometheus and a real Alertmanager: each panel of each board shows
//! what the sockets make true, each rule loads, and the alert names who leaks, and ends.

#[path = "monitoring/lab.rs"]
mod lab;
#[path = "monitoring/crowd.rs"]
mod crowd;
#[path = "monitoring/stack.rs"]
mod stack;
#[path = "monitoring/trouble.rs"]
mod trouble;
#[path = "monitoring/meter.rs"]
mod meter;
#[path = "monitoring/grafana.rs"]
mod grafana;
#[path = "monitoring/want.rs"]
mod want;
#[path = "monitoring/panels.rs"]
mod panels;
#[path = "monitoring/host.rs"]
mod host;
#[path = "monitoring/limits.rs"]
mod limits;
#[path = "monitoring/own.rs"]
mod own;
#[path = "monitoring/ask.rs"]
mod ask;
#[path = "monitoring/alerts.rs"]
mod alerts;

use std::{
    collections::BTreeSet,
    env, slice,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use dashboards::{Board, boards};
use tests::{http::number, netns::Netns, wait::until};

use alerts::{are_about, firing, is_sent};
use ask::{all_answered, questions, some_questions};
use crowd::Crowd;
use grafana::Opened;
use lab::{DRAINED, Lab};
use meter::{Meter, counted_by_kernel};
use stack::{AGENT, JOB, OTHER_JOB, Stack, rules, shipped};
use trouble::{LACKING, Troubled};

/// Where nothing answers.
const NOWHERE: &str = "127.0.0.1:1";

/// One at a time: all of them count what is on the whole host.
static ONE: Mutex<()> = Mutex::new(());

/// The sockets; nothing, aloud, where this host cannot have them. Who runs every test, as
/// `cargo xtask test` does and names the package then, wants to know that these were not run.
fn lab() -> Result<Option<Lab>> {
    let lab = Lab::new()?;
    let is_whole = env::var_os("CONNSTATE_PACKAGE").is_some();
    ensure!(
        lab.is_some() || !is_whole,
        "no cgroup, no test of what is shipped"
    );
    Ok(lab)
}

/// A board as one opens it who looks after the lab's host and workloads.
fn opened(board: &Board, stack: &Stack, lab: &Lab) -> Result<Opened> {
    let workloads = [&lab.own, &lab.api.workload, &lab.search.workload].map(String::as_str);
    let mut choice = vec![("workload", workloads.to_vec())];
    let host = "connstate-host";
    if board.uid == host {
        choice.push(("instance", vec![AGENT]));
    }
    let opened = Opened::new(board, &stack.prometheus, &choice)?;
    ensure!(opened.offered("job")? == [JOB], "no agents' jobs");
    ensure!(opened.offered("instance")? == [AGENT], "no agents");
    Ok(opened)
}

#[test]
fn every_panel_shows_what_the_sockets_give() -> Result<()> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut lab) = lab()? else {
        return Ok(());
    };
    // Some of the host's limits are seen from its own network namespace alone.
    let host = Netns::current()?;
    let killed = counted_by_kernel("TCPAbortOnMemory")?;
    let monitor = Netns::new()?;
    monitor.run(|| {
        let stack = Stack::start(&[NOWHERE])?;
        lab.bother(AGENT.parse()?);
        let jobs = stack.prometheus.label_values("up", "job")?;
        ensure!(jobs == [OTHER_JOB, JOB], "{jobs:?}");
        let mut opened_boards = Vec::new();
        for board in boards() {
            let opened = opened(&board, &stack, &lab)?;
            opened_boards.push((board, opened));
        }
        let mut meter = Meter::new(stack.agent.address(), stack.agent.pid())?;
        all_answered(&stack.prometheus, || {
            lab.goes_on()?;
            lab.crowd()?;
            meter.look()?;
            let lab = &mut lab;
            let mut expected = host.run(move || {
                let [fleet, host] = [panels::fleet(lab), panels::host(lab)];
                Ok([fleet?, host?].concat())
            })?;
            expected.extend(own::own(&stack, &meter)?);
            let mut all = Vec::new();
            for (board, opened) in &opened_boards {
                let filled = |query: &str| opened.over(query, "30s", "1m");
                all.extend(questions(board, &mut expected, filled)?);
            }
            ensure!(expected.is_empty(), "no board has {expected:?}");
            Ok(all)
        })?;
        // That no orphan was killed is what the kernel says, too. To have it kill one takes the
        // limit of the whole host, `tcp_max_orphans`, or all of the memory of TCP, `tcp_mem`: a
        // virtual machine shows that (orphan_kills.rs).
        meter.look()?;
        let told = meter.page()?.value("connstate_orphan_kills_total")?;
        let now = counted_by_kernel("TCPAbortOnMemory")?;
        ensure!(
            now == killed && told.to_bits() == number(now).to_bits(),
            "{told} told, {now} killed, {killed} before"
        );
        every_rule_is_healthy(&stack)
    })
}

#[test]
fn the_agents_board_and_alerts_tell_of_trouble() -> Result<()> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Netns::new()?;
    monitor.run(|| {
        let troubled = Troubled::start()?;
        let [cramped, confined] =
            [&troubled.cramped, &troubled.confined].map(|agent| agent.address().to_string());
        let stack = Stack::start(&[&cramped, &confined])?;
        let scraped = "count(connstate_events_total)".to_owned();
        until("all agents to be scraped", || {
            let agents = stack.prometheus.ask(slice::from_ref(&scraped))?;
            Ok(agents[0].first().is_some_and(|agents| agents.value > 2.5))
        })?;
        let before = troubled.cramped.scrape()?;
        let _crowd = Crowd::new()?;
        let worked = troubled.work()?;
        let board = boards().into_iter().find(|board| board.uid == own::OWN);
        let board = board.context("no board of the agents")?;
        let opened_at = |instance: &str| {
            let choice = [("instance", vec![instance])];
            Opened::new(&board, &stack.prometheus, &choice)
        };
        let (at_cramped, at_confined) = (opened_at(&cramped)?, opened_at(&confined)?);
        all_answered(&stack.prometheus, || {
            let mut all = Vec::new();
            let of_the_cramped = troubled.of_the_cramped(&before, worked)?;
            for (opened, expected) in [
                (&at_cramped, of_the_cramped),
                (&at_confined, Troubled::of_the_confined()?),
            ] {
                let filled = |query: &str| opened.over(query, trouble::OVER, trouble::OVER);
                all.extend(some_questions(&board, expected, filled)?);
            }
            Ok(all)
        })?;
        for (series, value) in &troubled.cramped.scrape()?.0 {
            let is_loss = series.contains("_lost_total{") || series.contains("_misses_total{");
            if is_loss && *value > 0.0 {
                eprintln!("{series} {value}");
            }
        }
        for (alert, instance, (label, value)) in [
            (
                "ConnstateProgramNotAttached",
                &cramped,
                ("program", LACKING),
            ),
            ("ConnstateEventsLost", &cramped, ("reason", "ring_full")),
            ("ConnstateEventsLost", &cramped, ("reason", "state_full")),
            ("ConnstateNamespacesUnreached", &confined, ("job", JOB)),
        ] {
            until(alert, || {
                let all = stack.prometheus.alerts()?;
                Ok(all.iter().any(|found| {
                    let labels = &found["labels"];
                    found["state"] == "firing"
                        && labels["alertname"] == alert
                        && labels["instance"] == instance.as_str()
                        && labels[label] == value
                }))
            })?;
        }
        Ok(())
    })
}

/// All rules of all files are loaded, and none has failed.
fn every_rule_is_healthy(stack: &Stack) -> Result<()> {
    let mut written = BTreeSet::new();
    for file in rules()? {
        let mut of_file = BTreeSet::new();
        for line in shipped(&format!("prometheus/rules/{file}"))?.lines() {
            let line = line.trim_start_matches([' ', '-']);
            let name = line
                .strip_prefix("alert: ")
                .or(line.strip_prefix("record: "));
            of_file.extend(name.map(|name| (file.clone(), name.to_owned())));
        }
        ensure!(of_file.len() > 5, "{file}: {of_file:?}");
        written.append(&mut of_file);
    }
    let mut healthy = BTreeSet::new();
    let groups = stack.prometheus.get("/api/v1/rules")?;
    for group in groups["groups"].as_array().context("no groups")? {
        let file = group["file"].as_str().context("no file")?;
        let (_, file) = file.rsplit_once('/').context("no path")?;
        for rule in group["rules"].as_array().context("no rules")? {
            ensure!(rule["health"] == "ok", "{rule:#}");
            let name = rule["name"].as_str().context("no name")?;
            healthy.insert((file.to_owned(), name.to_owned()));
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
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut lab) = lab()? else {
        return Ok(());
    };
    let monitor = Netns::new()?;
    monitor.run(|| {
        let stack = Stack::start(&[])?;
        let port = lab.api.port.to_string();
        until("the alert about api", || {
            Ok(firing(&stack, "api")?.is_some())
        })?;
        let alert = firing(&stack, "api")?.context("it is gone")?;
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
            summary
                == format!(
                    "api ({workload}) does not close {DRAINED} connections, server port {port}, \
                     on {AGENT}"
                ),
            "{summary}"
        );
        is_sent(&stack, &port)?;
        are_about(&stack, &lab, &[&lab.api, &lab.search])?;
        // The other process goes on leaking, and its alert stays.
        lab.api.close()?;
        until("the alert about api to end", || {
            Ok(firing(&stack, "api")?.is_none())
        })?;
        are_about(&stack, &lab, &[&lab.search])?;
        let search = firing(&stack, "search")?;
        ensure!(search.is_some(), "search still leaks");
        Ok(())
    })
}
