//! `agent events`: every transition, told once, from a running agent or by programs of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
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
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    errors: BufReader<ChildStderr>,
}

/// Starts `agent events`, and waits until it says that it listens: from then on it tells all.
fn listen(options: &[&str]) -> Result<(Child, ChildStdout, BufReader<ChildStderr>)> {
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
    Ok((child, out, errors))
}

impl Listening {
    fn start(options: &[&str]) -> Result<Self> {
        let (child, out, errors) = listen(options)?;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self {
            child,
            lines,
            reader,
            errors,
        })
    }

    /// What it printed so far.
    fn heard(&self) -> Result<Vec<Value>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let values = lines.iter().map(|line| serde_json::from_str(line));
        Ok(values.collect::<Result<_, _>>()?)
    }

    /// Waits until it has printed so many steps of this port, or none for two seconds.
    fn settle(&self, port: u16, steps_of_it: u64) -> Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        wait::until("what is told", || {
            let told = steps(&self.heard()?, port).len() as u64;
            if told != last {
                (last, since) = (told, Instant::now());
            }
            Ok(told >= steps_of_it || since.elapsed() > Duration::from_secs(2))
        })
    }

    /// Ends it by SIGINT. What it printed, and its last words.
    fn stop(mut self) -> Result<(Vec<Value>, String)> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGINT,
        )?;
        let mut words = String::new();
        self.errors.read_to_string(&mut words)?;
        ensure!(self.child.wait()?.success(), "{words}");
        while !self.reader.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((self.heard()?, words))
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

/// Longer than an agent takes to read its counters again.
const REFRESHED: Duration = Duration::from_millis(500);

/// How often the kernel skipped the program that tells transitions, in a running agent.
fn misses(daemon: &Daemon) -> Result<f64> {
    let scrape = daemon.scrape()?;
    scrape.value("connstate_bpf_program_misses_total{program=\"inet_sock_set_state\"}")
}

/// Opens and closes connections beside a listener; each transition is told. A run in which the
/// kernel skipped a program, the test's own or the one that tells, is repeated.
fn every_transition_is_told(options: &[&str], daemon: Option<&Daemon>) -> Result<()> {
    const N: usize = 50;
    unskipped(|| {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        let listening = Listening::start(&[options, &["--all"]].concat())?;
        let before = Before::now(&watch)?;
        let missed_before = daemon.map(misses).transpose()?;
        let place = Place::new(Family::V4);
        let predicted = netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&place, N)?;
            Ok((FULL_CLOSE.leaves)(N))
        })?;
        let mut skipped = before.settle(&watch, predicted.total())?;
        listening.settle(place.port, predicted.total())?;
        std::thread::sleep(REFRESHED);
        let missed = daemon.map(misses).transpose()? != missed_before;
        let (events, words) = listening.stop()?;
        ensure!(words.contains("; 0 lost"), "{words}");
        if missed || words.contains("skipped a program") {
            skipped.transitions += 1;
        }
        if skipped.is_none() {
            let told = steps(&events, place.port);
            // None is from a state to itself, which would be no change.
            let changes = predicted.total();
            ensure!(
                told.len() as u64 == changes,
                "{} of {changes}: {told:?}; {words}",
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
    every_transition_is_told(&["--api-socket", &nowhere(directory.path())?], None)
}

#[test]
fn a_running_agent_tells_every_transition_and_then_falls_quiet() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let daemon = Daemon::start(&["--api-socket", &socket])?;
    every_transition_is_told(&["--api-socket", &socket], Some(&daemon))?;
    let received = || daemon.scrape()?.value("connstate_events_total");
    let netns = Netns::new()?;
    // Nobody listens any more, which the agent notices by itself: of 200 transitions none lingers,
    // so none is told. It still hears of retransmissions, the whole host's.
    wait::until("a stream that has fallen back", || {
        let before = received()?;
        netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&Place::new(Family::V4), 20)
        })?;
        std::thread::sleep(REFRESHED);
        let more = received()? - before;
        eprintln!("{more} of 200 were told");
        Ok(more < 100.0)
    })
}

#[test]
fn filters_leave_what_they_name() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let daemon = Daemon::start(&["--api-socket", &socket])?;
    let own = std::process::id();
    unskipped(|| {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        let (one, other) = (Place::new(Family::V4), Place::new(Family::V6));
        let listen = |more: &[&str]| Listening::start(&[&["--api-socket", &socket], more].concat());
        let of_port = listen(&["--all", "--port", &one.port.to_string()])?;
        let of_state = listen(&["--state", "syn_sent"])?;
        let of_process = listen(&["--pid", &own.to_string()])?;
        let (before, missed_before) = (Before::now(&watch)?, misses(&daemon)?);
        netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&one, 3)?;
            (FULL_CLOSE.go)(&other, 3)
        })?;
        let each = (FULL_CLOSE.leaves)(3).total();
        let mut skipped = before.settle(&watch, 2 * each)?;
        of_port.settle(one.port, each)?;
        of_state.settle(other.port, 6)?;
        of_process.settle(other.port, 1)?;
        std::thread::sleep(REFRESHED);
        if misses(&daemon)? > missed_before {
            skipped.transitions += 1;
        }
        let (of_port, of_state, of_process) =
            (of_port.stop()?, of_state.stop()?, of_process.stop()?);
        if !skipped.is_none() {
            return Ok(skipped);
        }
        let events = of_port.0;
        ensure!(steps(&events, one.port).len() as u64 == each, "{events:?}");
        ensure!(steps(&events, other.port).is_empty(), "{events:?}");
        let events = of_state.0;
        for place in [&one, &other] {
            let told = steps(&events, place.port);
            ensure!(told.len() == 6, "{told:?}");
            ensure!(
                told.iter().all(|step| step.contains("syn_sent")),
                "{told:?}"
            );
        }
        let events = of_process.0;
        ensure!(!events.is_empty());
        for event in &events {
            ensure!(
                event["pid"] == own && event["process"].is_string(),
                "{event}"
            );
        }
        Ok(skipped)
    })
}

#[test]
fn whoever_reads_may_stop_reading() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = nowhere(directory.path())?;
    let (mut child, out, mut errors) = listen(&["--all", "--table", "--api-socket", &socket])?;
    drop(out);
    let netns = Netns::new()?;
    let mut status = None;
    wait::until("its end", || {
        netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&Place::new(Family::V4), 5)
        })?;
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    let mut words = String::new();
    errors.read_to_string(&mut words)?;
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
