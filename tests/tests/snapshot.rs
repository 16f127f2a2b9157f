//! `agent snapshot`, for programs and for people.

use std::{net::Shutdown, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    daemon::binary,
    netns::Netns,
    place::{Family, Place},
    wait,
};

/// What it prints.
fn snapshot(options: &[&str]) -> Result<String> {
    let mut command = Command::new(binary()?);
    let output = command
        .args(["snapshot", "--close-wait-leak-after", "1s"])
        .args(options)
        .output()
        .context("the agent cannot be run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The leak at this port, if it is told.
fn leak(snapshot: &Value, port: u16) -> Option<&Value> {
    let mut stalls = snapshot["findings"]["stalls"].as_array()?.iter();
    stalls.find(|stall| stall["detector"] == "close_wait" && stall["port"] == port)
}

#[test]
fn a_leak_is_named_in_json_and_in_words() -> Result<()> {
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let inode = netns.inode().to_string();
    let place = Place::new(Family::V6);
    let held = netns.run(|| place.connections(3))?;
    for client in &held.clients {
        client.shutdown(Shutdown::Write)?;
    }
    let mut json = Value::Null;
    wait::until("the leak to be old enough", || {
        json = serde_json::from_str(&snapshot(&["--json"])?)?;
        // One of the three may be so before the others.
        Ok(leak(&json, place.port).is_some_and(|stall| stall["count"] == 3))
    })?;
    ensure!(json["version"] == 1);
    let stall = leak(&json, place.port).context("no leak")?;
    ensure!(stall["cause"] == "eof_unread", "{stall:#}");
    ensure!(stall["side"] == "server" && stall["netns"] == *inode);
    ensure!(
        stall["pids"] == serde_json::json!([std::process::id()]),
        "{stall:#}"
    );
    ensure!(stall["oldest"]["exact"] == false, "{stall:#}");
    ensure!(
        stall["oldest"]["seconds"].as_f64() >= Some(1.0),
        "{stall:#}"
    );
    let sockets = stall["sockets"].as_array().context("no sockets")?;
    ensure!(sockets.len() == 3);
    for socket in sockets {
        ensure!(
            socket["end"]["by"] == "nothing" && socket["unread"] == 1,
            "{socket:#}"
        );
        ensure!(socket["local"] == place.address().to_string(), "{socket:#}");
    }
    let mut namespaces = json["namespaces"].as_array().context("none")?.iter();
    let own = namespaces
        .find(|namespace| namespace["netns"] == *inode)
        .context("the namespace is missing")?;
    ensure!(
        own["states"]["close_wait"] == 3 && own["states"]["fin_wait2"] == 3,
        "{own:#}"
    );
    ensure!(
        own["listeners"][0]["accept_queue"]["limit"] == 4096,
        "{own:#}"
    );

    let words = snapshot(&[])?;
    let process = stall["process"].as_str().context("no process")?;
    let line = words
        .lines()
        .find(|line| line.contains(&format!("{}/server", place.port)))
        .with_context(|| format!("it is not among:\n{words}"))?;
    for word in ["close_wait", "eof_unread", " 3 ", ">", process, "nothing"] {
        ensure!(line.contains(word), "no {word} in {line}");
    }
    Ok(())
}
