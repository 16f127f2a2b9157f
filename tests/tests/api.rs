//! The HTTP API, as programs ask it, held against its own description.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    net::Shutdown,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    curl::{Answer, curl},
    daemon::Daemon,
    netns::Netns,
    place::{Connections, Family, Place},
    wait,
};

/// An agent with its socket in a directory of its own.
struct Served {
    daemon: Daemon,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start(options: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("api.sock");
        let mut all = vec![
            "--census-interval",
            "500ms",
            "--close-wait-leak-after",
            "1s",
        ];
        all.extend([
            "--api-socket",
            socket.to_str().context("a name without a text")?,
        ]);
        all.extend(options);
        Ok(Self {
            daemon: Daemon::start(&all)?,
            socket,
            _directory: directory,
        })
    }

    /// What is answered on the socket.
    fn ask(&self, path: &str) -> Result<Answer> {
        let socket = self.socket.to_str().context("a name without a text")?;
        curl(&["--unix-socket", socket, &format!("http://agent{path}")])
    }

    /// The data of what is streamed in three seconds, in which `happens` does, once it listens.
    fn stream(&self, path: &str, happens: impl FnOnce() -> Result<()>) -> Result<Vec<Value>> {
        let mut child = Command::new("curl")
            .args([
                "--silent",
                "--no-buffer",
                "--max-time",
                "3",
                "--unix-socket",
            ])
            .arg(&self.socket)
            .arg(format!("http://agent{path}"))
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(out).lines();
        let greeting = lines.next().context("no greeting")??;
        ensure!(greeting == ": listening", "{greeting}");
        happens()?;
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        child.wait()?;
        let data = lines.iter().filter_map(|line| line.strip_prefix("data: "));
        Ok(data.map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    fn json(&self, path: &str) -> Result<Value> {
        let answer = self.ask(path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        body(&answer)
    }
}

fn body(answer: &Answer) -> Result<Value> {
    let (_, body) = answer.text.split_once("\r\n\r\n").context("no body")?;
    Ok(serde_json::from_str(body)?)
}

/// Three sockets of a server whose peers have closed.
fn leak(place: Place) -> Result<Connections> {
    let held = place.connections(3)?;
    for client in &held.clients {
        client.shutdown(Shutdown::Write)?;
    }
    Ok(held)
}

#[test]
fn a_leak_is_found_by_each_filter_and_comes_with_advice() -> Result<()> {
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let place = Place::new(Family::V4);
    let _held = netns.run(|| leak(place))?;
    let served = Served::start(&[])?;
    let mine = format!("kind=close_wait&port={}", place.port);
    let mut page = Value::Null;
    wait::until("the leak to be told", || {
        page = served.json(&format!("/api/v1/findings?{mine}"))?;
        // One of the three may be old enough a census before the others.
        Ok(page["total"] == 1 && page["findings"][0]["count"] == 3)
    })?;
    let finding = &page["findings"][0];
    ensure!(finding["cause"] == "eof_unread", "{finding:#}");
    ensure!(
        finding["advice"][0]["remedy"] == "application",
        "{finding:#}"
    );
    let netns = finding["netns"].as_str().context("no netns")?;
    let process = finding["process"].as_str().context("no process")?;
    for (filter, total) in [
        (format!("&netns={netns}"), 1),
        ("&netns=1".to_owned(), 0),
        (format!("&process={process}&sort=count&limit=1"), 1),
        ("&process=nobody".to_owned(), 0),
        ("&offset=1".to_owned(), 1),
    ] {
        let page = served.json(&format!("/api/v1/findings?{mine}{filter}"))?;
        ensure!(page["total"] == total, "{filter}: {page:#}");
    }
    for bad in [
        "kind=nothing",
        "limit=0",
        "limit=1001",
        "prot=80",
        "port=70000",
    ] {
        let answer = served.ask(&format!("/api/v1/findings?{bad}"))?;
        ensure!(answer.status == 400, "{bad}: {answer:?}");
        ensure!(body(&answer)?["error"].is_string(), "{bad}: {answer:?}");
    }
    Ok(())
}

#[test]
fn answers_are_what_the_description_says() -> Result<()> {
    let place = Place::new(Family::V6);
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let _held = netns.run(|| leak(place))?;
    let served = Served::start(&[])?;
    wait::until("a finding", || {
        Ok(served.json("/api/v1/findings?kind=close_wait")?["total"] != 0)
    })?;
    let document = served.json("/api/v1/openapi.json")?;
    ensure!(document["openapi"] == "3.1.0");
    let paths = document["paths"].as_object().context("no paths")?;
    let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
    let served_paths = ["/api/v1/snapshot", "/api/v1/findings", "/api/v1/events"];
    ensure!(described == BTreeSet::from(served_paths), "{described:?}");
    for (path, operations) in paths {
        let content = &operations["get"]["responses"]["200"]["content"];
        if let Some(schema) = content.pointer("/application~1json/schema") {
            is_as_described(&served.json(path)?, schema, &document)?;
        } else {
            let described = &content["text/event-stream"]["x-events"];
            let events = served.stream(path, || {
                let netns = Netns::new()?;
                netns.run(|| leak(Place::new(Family::V4)).map(drop))
            })?;
            ensure!(!events.is_empty(), "no events");
            for event in events {
                is_as_described(&event, &described["message"], &document)?;
            }
        }
    }
    Ok(())
}

/// Whether an answer matches its schema, beside those that the document names.
fn is_as_described(answer: &Value, schema: &Value, document: &Value) -> Result<()> {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&schema)?;
    let errors: Vec<_> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{answer}: {errors:#?}");
    // The check can fail.
    ensure!(!validator.is_valid(&serde_json::json!({ "version": "one" })));
    Ok(())
}

#[test]
fn addresses_serve_the_api_only_where_it_is_asked_for() -> Result<()> {
    let closed = Served::start(&[])?;
    let paths = ["snapshot", "findings", "events", "openapi.json"];
    for path in paths {
        let url = format!("http://{}/api/v1/{path}", closed.daemon.address());
        ensure!(curl(&[&url])?.status == 404, "{path}");
    }
    drop(closed);
    let open = Served::start(&["--web.enable-api"])?;
    let url = format!("http://{}/api/v1/snapshot", open.daemon.address());
    let answer = curl(&[&url])?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(body(&answer)?["version"] == 1);
    // Nothing is changed by asking otherwise.
    for method in ["POST", "PUT", "DELETE"] {
        ensure!(
            curl(&["--request", method, &url])?.status == 405,
            "{method}"
        );
    }
    Ok(())
}

#[test]
fn only_root_may_use_the_socket_and_it_goes_with_the_agent() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let served = Served::start(&[])?;
    let mode = std::fs::metadata(&served.socket)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let socket = served.socket.clone();
    let (status, ..) = served.daemon.end(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(status.success() && !socket.exists());
    Ok(())
}
