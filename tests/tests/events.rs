//! `agent events`: every transition, told once, from a running agent or by programs of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    daemon::{Daemon, binary},
    exact::{Before, unskipped},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    wait,
    watch::Watch,
    ways::graceful::FULL_CLOSE,
};

/// `agent events`, listening.
struct Listening {
    child: Child,
    out: ChildStdout,
    errors: BufReader<ChildStderr>,
}

impl Listening {
    /// Starts it, and waits until it says that it listens.
    fn start(options: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .arg("events")
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        let mut errors = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut line = String::new();
        errors.read_line(&mut line)?;
        ensure!(line.contains("listening"), "{line}");
        Ok(Self { child, out, errors })
    }

    /// Ends it by SIGINT. What it printed, and its last words.
    fn stop(mut self) -> Result<(Vec<Value>, String)> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGINT,
        )?;
        let (mut text, mut words) = (String::new(), String::new());
        self.out.read_to_string(&mut text)?;
        self.errors.read_to_string(&mut words)?;
        ensure!(self.child.wait()?.success(), "{words}");
        let lines = text.lines().map(serde_json::from_str);
        Ok((lines.collect::<Result<_, _>>()?, words))
    }
}

/// A socket path at which nobody listens.
fn nowhere(directory: &Path) -> Result<String> {
    let path = directory.join("nobody.sock");
    Ok(path.to_str().context("a name without a text")?.to_owned())
}

/// The transitions among them that are of this port, as `from to`.
fn steps(events: &[Value], port: u16) -> Vec<String> {
    let of_port = |event: &&Value| {
        let end = format!(":{port}");
        ["local", "remote"].iter().any(|side| {
            event[side]
                .as_str()
                .is_some_and(|text| text.ends_with(&end))
        })
    };
    let transitions = events.iter().filter(|event| event["event"] == "transition");
    transitions
        .filter(of_port)
        .map(|event| format!("{} {}", event["from"], event["to"]).replace('"', ""))
        .collect()
}

/// Opens and closes `n` connections beside a listener; each transition is told.
fn every_transition_is_told(options: &[&str]) -> Result<()> {
    const N: usize = 50;
    unskipped(|| {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        let listening = Listening::start(&[options, &["--all"]].concat())?;
        // A running agent looks for wishes with each turn.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let before = Before::now(&watch)?;
        let place = Place::new(Family::V4);
        let predicted = netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&place, N)?;
            Ok((FULL_CLOSE.leaves)(N))
        })?;
        let skipped = before.settle(&watch, predicted.total())?;
        // A busy agent drains its ring every 20 ms, an idle one every 100.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let (events, words) = listening.stop()?;
        ensure!(words.contains("; 0 lost"), "{words}");
        if skipped.is_none() {
            let told = steps(&events, place.port);
            // None is from a state to itself, which would be no change.
            let changes = predicted.total();
            ensure!(
                told.len() as u64 == changes,
                "{} of {changes}: {told:?}",
                told.len()
            );
            let passive = told
                .iter()
                .filter(|step| *step == "established close_wait")
                .count();
            ensure!(passive == N, "{passive}");
        }
        Ok(skipped)
    })
}

#[test]
fn programs_of_its_own_tell_every_transition() -> Result<()> {
    let directory = tempfile::tempdir()?;
    every_transition_is_told(&["--api-socket", &nowhere(directory.path())?])
}

#[test]
fn a_running_agent_tells_every_transition_and_then_falls_quiet() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let daemon = Daemon::start(&["--api-socket", &socket])?;
    every_transition_is_told(&["--api-socket", &socket])?;
    // Nobody listens any more: of the 200 transitions that follow none lingers, so none is told.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let received = || daemon.scrape()?.value("connstate_events_total");
    let before = received()?;
    ensure!(before >= 500.0, "{before}");
    let netns = Netns::new()?;
    netns.run(|| {
        own_descriptors()?;
        (FULL_CLOSE.go)(&Place::new(Family::V4), 20)
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    // The agent itself hears of retransmissions, the whole host's.
    let more = received()? - before;
    ensure!(more < 20.0, "{more} more were told");
    Ok(())
}

#[test]
fn filters_leave_what_they_name() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let _daemon = Daemon::start(&["--api-socket", &socket])?;
    let netns = Netns::new()?;
    let (one, other) = (Place::new(Family::V4), Place::new(Family::V6));
    let port = one.port.to_string();
    let own = std::process::id().to_string();
    let of_port = Listening::start(&["--api-socket", &socket, "--all", "--port", &port])?;
    let of_state = Listening::start(&["--api-socket", &socket, "--state", "syn_sent"])?;
    let of_process = Listening::start(&["--api-socket", &socket, "--pid", &own])?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    netns.run(|| {
        own_descriptors()?;
        (FULL_CLOSE.go)(&one, 3)?;
        (FULL_CLOSE.go)(&other, 3)
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (events, _) = of_port.stop()?;
    ensure!(steps(&events, one.port).len() >= 30, "{events:?}");
    ensure!(steps(&events, other.port).is_empty(), "{events:?}");
    let (events, _) = of_state.stop()?;
    for place in [&one, &other] {
        let told = steps(&events, place.port);
        ensure!(told.len() == 6, "{told:?}");
        ensure!(
            told.iter().all(|step| step.contains("syn_sent")),
            "{told:?}"
        );
    }
    let (events, _) = of_process.stop()?;
    ensure!(!events.is_empty());
    for event in &events {
        ensure!(
            event["pid"] == std::process::id() && event["process"].is_string(),
            "{event}"
        );
    }
    Ok(())
}

#[test]
fn whoever_reads_may_stop_reading() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut listening = Listening::start(&[
        "--all",
        "--table",
        "--api-socket",
        &nowhere(directory.path())?,
    ])?;
    drop(listening.out);
    let netns = Netns::new()?;
    let mut status = None;
    wait::until("its end", || {
        netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&Place::new(Family::V4), 5)
        })?;
        status = listening.child.try_wait()?;
        Ok(status.is_some())
    })?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    let mut words = String::new();
    listening.errors.read_to_string(&mut words)?;
    ensure!(!words.contains("rror"), "{words}");
    Ok(())
}

#[test]
fn two_cgroups_at_a_time_are_refused_aloud() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let _daemon = Daemon::start(&["--api-socket", &socket])?;
    let ask = |cgroup: u64| {
        let url = format!("http://agent/api/v1/events?cgroup={cgroup}");
        tests::curl::curl(&["--unix-socket", &socket, "--max-time", "1", &url])
    };
    let url = "http://agent/api/v1/events?cgroup=7";
    let mut first = Command::new("curl")
        .args([
            "--silent",
            "--no-buffer",
            "--unix-socket",
            &socket,
            "--max-time",
            "10",
            url,
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut greeting = [0; 12];
    first
        .stdout
        .as_mut()
        .context("no standard output")?
        .read_exact(&mut greeting)?;
    ensure!(greeting == *b": listening\n");
    let refused = ask(8)?;
    ensure!(
        refused.status == 409 && refused.text.contains("cgroup 7"),
        "{refused:?}"
    );
    first.kill()?;
    first.wait()?;
    Ok(())
}
