//! An agent beside sockets that are known.

use std::{
    cell::RefCell,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    curl::curl,
    daemon::{Daemon, RUN, binary},
    http::{Response, Scrape},
    session::Session,
};

use super::known::{Known, Named};

/// What every agent here is told: to look often, and to tell of a leak at once.
pub(super) const OPTIONS: [&str; 4] = [
    "--census-interval",
    "500ms",
    "--close-wait-leak-after",
    "1s",
];

/// When the last census was complete, in seconds since 1970.
pub(super) const COMPLETED: &str =
    "connstate_census_last_completion_timestamp_seconds{kind=\"known\"}";

/// Where censuses are dear, the agent takes one every 25 s alone; this is as long as two of them and
/// their own time may last.
const CENSUS_DEADLINE: Duration = Duration::from_mins(2);

/// How an agent is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Its options besides.
    pub(super) options: &'static [&'static str],
    /// What is done before, by a shell in a mount namespace of its own that the agent then is in.
    pub(super) before: Option<&'static str>,
    /// A command that runs the agent in the place of itself, or as its only child.
    pub(super) through: &'static [&'static str],
    /// How it names what it tells of the known sockets; as the host's it runs beside them, and
    /// watches nothing else.
    pub(super) named: Named,
}

/// As on any host.
pub(super) const PLAINLY: Start = Start {
    options: &[],
    before: None,
    through: &[],
    named: Named::Fully,
};

/// An agent and its surroundings. What is dropped first is declared first.
pub(super) struct Scene {
    /// The agent.
    pub(super) daemon: Daemon,
    /// How it was started.
    pub(super) start: Start,
    /// What it told before the fault.
    pub(super) before: Scrape,
    /// What a fault leaves behind for the verdict to be given beside.
    pub(super) kept: Vec<Box<dyn std::any::Any>>,
    /// The known sockets.
    pub(super) known: Known,
    folder: TempDir,
    session: RefCell<Option<Session>>,
}

impl Scene {
    /// Makes the sockets, then starts the agent; nothing, aloud, where this host cannot.
    pub(super) fn new(start: Start) -> Result<Option<Self>> {
        let Some(known) = Known::new()? else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let daemon = launch(&known, &folder, &start)?;
        let mut scene = Self {
            daemon,
            start,
            before: Scrape::parse("")?,
            kept: Vec::new(),
            known,
            folder,
            session: RefCell::default(),
        };
        scene.ready()?;
        scene.settle()?;
        Ok(Some(scene))
    }

    /// Waits until the leak is old enough, and everything is told rightly before anything happens.
    fn settle(&mut self) -> Result<()> {
        // Of none, nothing need be told.
        self.known.minisockets()?;
        let mut told = Ok(());
        let waited = patiently("the known sockets to be told", || {
            self.before = self.scrape()?;
            let minisockets = self.known.minisockets_now()?;
            let named = self.start.named;
            told = self.known.is_told(&self.before, named, minisockets);
            Ok(told.is_ok())
        });
        told.and(waited)
    }

    /// Starts another agent in the place of this one, as this was started.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.daemon = launch(&self.known, &self.folder, &self.start)?;
        self.ready()
    }

    /// The command that starts an agent in the place of this one.
    pub(super) fn command(&self) -> Result<Command> {
        run_in(self.api_socket()?, &self.start)
    }

    /// Waits until the first census is over.
    pub(super) fn ready(&mut self) -> Result<()> {
        patiently("the agent to be ready", || {
            ensure!(self.is_alive(), "it ended: {:?}", self.daemon.log());
            let answer = self.get("/readyz");
            Ok(answer.is_ok_and(|answer| answer.status == 200))
        })
        .with_context(|| format!("{:?}", self.daemon.log()))
    }

    /// The path of its API's socket.
    pub(super) fn api_socket(&self) -> Result<&str> {
        // As `launch` names it.
        let path = self.folder.path();
        path.to_str().context("a name without a text")
    }

    /// The agent's own process: this one, or its only child.
    pub(super) fn pid(&self) -> Result<u32> {
        let pid = self.daemon.pid();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        if comm.trim() != "unshare" {
            return Ok(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        children.trim().parse().context("not one child")
    }

    /// Whether it runs.
    pub(super) fn is_alive(&self) -> bool {
        let status = self
            .pid()
            .and_then(|pid| Ok(fs::read_to_string(format!("/proc/{pid}/status"))?));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    }

    /// Asks for a path with GET, from where the agent is.
    pub(super) fn get(&self, path: &str) -> Result<Response> {
        let daemon = &self.daemon;
        match self.start.named {
            Named::AsTheHost => self.known.netns.run(|| daemon.get(path)),
            _ => daemon.get(path),
        }
    }

    /// What is at a path of its API.
    pub(super) fn api(&self, path: &str) -> Result<Value> {
        let socket = socket_of(self.api_socket()?);
        let answer = curl(&["--unix-socket", &socket, &format!("http://agent{path}")])?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let (_, body) = answer.text.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Reads /metrics: in the namespace of the known sockets over one connection, so that no
    /// question leaves a minisocket there.
    pub(super) fn scrape(&self) -> Result<Scrape> {
        if self.start.named != Named::AsTheHost {
            let page = self.get("/metrics")?;
            ensure!(page.status == 200, "{page:?}");
            return Scrape::parse(&page.body);
        }
        let mut session = self.session.borrow_mut();
        // One that was idle for long may have been closed.
        if let Some(mut open) = session.take()
            && let Ok(scrape) = open.scrape()
        {
            *session = Some(open);
            return Ok(scrape);
        }
        let address = self.daemon.address();
        let mut open = self.known.netns.run(|| Session::open(address))?;
        let scrape = open.scrape()?;
        *session = Some(open);
        Ok(scrape)
    }

    /// The gauges of the first census that began after this call.
    pub(super) fn next_census(&self) -> Result<Scrape> {
        next_census(|| self.scrape()).with_context(|| format!("{:?}", self.daemon.log()))
    }
}

/// The gauges of the first census that began after this call: the one after the first that was
/// complete by then.
pub(super) fn next_census(scrape: impl Fn() -> Result<Scrape>) -> Result<Scrape> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    let complete_after = |moment: f64| {
        let mut last = scrape()?;
        patiently("a census", || {
            last = scrape()?;
            Ok(last.value(COMPLETED).is_ok_and(|last| last > moment))
        })?;
        Ok::<_, anyhow::Error>(last)
    };
    let under_way = complete_after(now)?.value(COMPLETED)?;
    complete_after(under_way)
}

/// Waits for what a census brings, by asking the agent gently: what the asking costs shall not be
/// taken for a spin.
pub(super) fn patiently(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        if condition()? {
            return Ok(());
        }
        ensure!(
            started.elapsed() < CENSUS_DEADLINE,
            "waited in vain for {what}"
        );
        thread::sleep(PAUSE.max(asked.elapsed() * 10));
    }
}

/// Where an agent with this folder has its socket.
pub(super) fn socket_of(folder: &str) -> String {
    format!("{folder}/api.sock")
}

/// The command that starts an agent so.
pub(super) fn command(start: &Start) -> Result<Command> {
    let mut words: Vec<String> = Vec::new();
    if start.named == Named::AsTheHost {
        let own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        words.extend(own.map(str::to_owned));
    }
    if let Some(before) = start.before {
        let script = format!("{before} && exec \"$@\"");
        words.extend(["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned));
    }
    words.extend(start.through.iter().map(|word| (*word).to_owned()));
    let binary = binary()?;
    words.push(binary.to_str().context("a name without a text")?.to_owned());
    let mut command = Command::new(&words[0]);
    // The text of an error is looked at, and a trace of calls is none of it.
    command.args(&words[1..]).env("RUST_BACKTRACE", "0");
    Ok(command)
}

/// The same of one that runs, with its socket in this folder.
fn run_in(folder: &str, start: &Start) -> Result<Command> {
    let mut command = command(start)?;
    command.args(RUN).args(OPTIONS).args(start.options);
    command.args(["--api-socket", &socket_of(folder)]);
    Ok(command)
}

fn launch(known: &Known, folder: &TempDir, start: &Start) -> Result<Daemon> {
    let folder = folder.path().to_str().context("a name without a text")?;
    let mut command = run_in(folder, start)?;
    if start.named == Named::AsTheHost {
        command.args(["--netns", "host"]);
        known.netns.run(|| Daemon::launch(&mut command))
    } else {
        Daemon::launch(&mut command)
    }
}
