//! `agent events --url` and `agent top --url`: over TLS and with a password, with every mistake one
//! can make there, and with a reader that does not read.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
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
    certificates::{Authority, Pair},
    daemon::{Daemon, RUN, binary, output},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    wait,
    ways::graceful::FULL_CLOSE,
};

const PASSWORD: &str = "correct horse battery staple";

/// How long a reader does not read: an agent waits 10 s for one that does not take its answers.
const PAUSE: Duration = Duration::from_secs(15);

/// An agent that serves over TLS and asks for a password.
struct Guarded {
    daemon: Daemon,
    authority: Authority,
}

impl Guarded {
    fn start(authority: Authority, pair: &Pair) -> Result<Self> {
        let hash = bcrypt::hash(PASSWORD, 4)?;
        let config = format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\nbasic_auth_users:\n  me: {hash}\n",
            pair.certificate.display(),
            pair.key.display()
        );
        let folder = authority.folder();
        std::fs::write(folder.join("web.yml"), config)?;
        std::fs::write(folder.join("password"), format!("{PASSWORD}\n"))?;
        std::fs::write(folder.join("wrong"), "wrong\n")?;
        let mut command = Command::new(binary()?);
        command.args(RUN).arg("--api-socket");
        command.arg(folder.join("api.sock"));
        command.arg("--web.config.file").arg(folder.join("web.yml"));
        let daemon = Daemon::launch(&mut command)?;
        Ok(Self { daemon, authority })
    }

    fn url(&self) -> String {
        format!("https://{}", self.daemon.address())
    }

    fn file(&self, name: &str) -> String {
        self.authority.folder().join(name).display().to_string()
    }
}

/// What a mistaken question is answered: both outputs, after a failure.
fn refused(verb: &str, url: &str, options: &[&str]) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args([verb, "--url", url]).args(options);
    let ended = output(&mut command)?;
    let told = [ended.stdout, ended.stderr].concat();
    let told = String::from_utf8(told)?;
    ensure!(!ended.status.success(), "{options:?}: {told}");
    ensure!(!told.contains(PASSWORD), "{told}");
    eprintln!("agent {verb} --url {url}: {told}");
    Ok(told)
}

/// `agent events`, which said that it listens.
struct Listening {
    child: Child,
    out: Option<ChildStdout>,
    errors: BufReader<ChildStderr>,
}

/// What it prints, read as it comes.
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Listening {
    fn start(options: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .args(["events", "--all"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take();
        let mut errors = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut line = String::new();
        errors.read_line(&mut line)?;
        ensure!(line.starts_with("listening to the agent at"), "{line}");
        Ok(Self { child, out, errors })
    }

    /// Begins to read what it prints.
    fn read(&mut self) -> Result<Lines> {
        let out = self.out.take().context("it is read already")?;
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
        Ok(Lines { lines, reader })
    }

    /// Waits for its end: how it ended, and its last words.
    fn ended(mut self) -> Result<(ExitStatus, String)> {
        let mut words = String::new();
        self.errors.read_to_string(&mut words)?;
        Ok((self.child.wait()?, words))
    }

    /// Ends it by SIGINT.
    fn stop(self) -> Result<(ExitStatus, String)> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGINT)?;
        self.ended()
    }
}

impl Lines {
    /// Whether each of these transitions has been told of this port.
    fn tell(&self, port: u16, steps: &[&str]) -> Result<bool> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let end = format!(":{port}");
        let mut told = Vec::new();
        for line in lines.iter().filter(|line| line.contains(&end)) {
            let event: Value = serde_json::from_str(line)?;
            let sides = [&event["local"], &event["remote"]];
            if sides
                .iter()
                .any(|side| side.as_str().is_some_and(|side| side.ends_with(&end)))
            {
                told.push(format!("{} {}", event["from"], event["to"]).replace('"', ""));
            }
        }
        Ok(steps
            .iter()
            .all(|step| told.iter().any(|told| told == step)))
    }

    /// All of them, once there are no more.
    fn all(self) -> Vec<String> {
        while !self.reader.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }
}

/// What both ends of a connection do whose client closes first.
const STEPS: [&str; 5] = [
    "close syn_sent",
    "syn_sent established",
    "established fin_wait1",
    "established close_wait",
    "last_ack close",
];

fn connect(netns: &Netns, place: Place, count: usize) -> Result<()> {
    netns.run(|| {
        own_descriptors()?;
        (FULL_CLOSE.go)(&place, count)
    })
}

/// Makes connections until their transitions are told: the kernel may skip a program now and then.
fn connections_are_told(netns: &Netns, lines: &Lines) -> Result<()> {
    let place = Place::new(Family::V4);
    let mut made = Instant::now();
    connect(netns, place, 1)?;
    wait::until("a connection's transitions", || {
        if made.elapsed() > Duration::from_secs(1) {
            connect(netns, place, 1)?;
            made = Instant::now();
        }
        lines.tell(place.port, &STEPS)
    })
}

#[test]
fn transitions_are_told_over_tls_with_a_password_and_their_end_is_said() -> Result<()> {
    let authority = Authority::new()?;
    let pair = authority.issue("server", "IP:127.0.0.1")?;
    let guarded = Guarded::start(authority, &pair)?;
    let mut listening = Listening::start(&[
        "--url",
        &guarded.url(),
        "--ca-file",
        &guarded.file("authority.pem"),
        "--username",
        "me",
        "--password-file",
        &guarded.file("password"),
    ])?;
    let lines = listening.read()?;
    connections_are_told(&Netns::new()?, &lines)?;

    guarded.daemon.signal(Signal::SIGKILL)?;
    let (status, words) = listening.ended()?;
    eprintln!("{words}");
    ensure!(status.code() == Some(1), "{status}: {words}");
    ensure!(words.contains("broke off"), "{words}");
    let count = format!("{} events; 0 lost", lines.all().len());
    ensure!(words.contains(&count), "{count}: {words}");
    Ok(())
}

#[test]
fn each_mistake_is_told_with_what_to_do() -> Result<()> {
    let authority = Authority::new()?;
    let pair = authority.issue("server", "IP:127.0.0.1")?;
    let guarded = Guarded::start(authority, &pair)?;
    // An authority of the same name.
    let other = Authority::new()?;
    let other = other.certificate().display().to_string();
    let [ca, password, wrong, none] =
        ["authority.pem", "password", "wrong", "none"].map(|name| guarded.file(name));
    let url = guarded.url();
    let port = guarded.daemon.address().port();
    let [localhost, plain, with_password] = [
        format!("https://localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!(
            "https://me:{}@127.0.0.1:{port}",
            PASSWORD.replace(' ', "%20")
        ),
    ];
    let trusted = ["--ca-file", &ca];
    let as_me = ["--username", "me", "--password-file"];
    let mistakes: [(&str, Vec<&str>, &[&str]); 9] = [
        (&url, trusted.to_vec(), &["--username", "--password-file"]),
        (
            &url,
            [&trusted[..], &as_me, &[&wrong]].concat(),
            &["does not know this user with this password"],
        ),
        (
            &url,
            [&trusted[..], &as_me, &[&none]].concat(),
            &["--password-file", "No such file"],
        ),
        (
            &url,
            [&as_me[..], &[&password]].concat(),
            &["this host", "--ca-file"],
        ),
        (
            &url,
            vec!["--ca-file", &other],
            &["none of the authorities in", "--ca-file"],
        ),
        (
            &url,
            vec!["--ca-file", &password],
            &["no certificate in PEM"],
        ),
        (
            &localhost,
            [&trusted[..], &as_me, &[&password]].concat(),
            &[
                "localhost",
                "127.0.0.1",
                "write a URL with a name that it bears",
            ],
        ),
        (&plain, Vec::new(), &["it speaks TLS there: write https://"]),
        (
            &with_password,
            trusted.to_vec(),
            &["--username and --password-file"],
        ),
    ];
    for (url, options, says) in &mistakes {
        // Neither takes the terminal first, of which there is none.
        for verb in ["events", "top"] {
            let told = refused(verb, url, options)?;
            for part in *says {
                ensure!(
                    told.contains(part),
                    "{options:?}: {part:?} is not in {told:?}"
                );
            }
            ensure!(!told.contains("%20"), "{told}");
        }
    }
    Ok(())
}

#[test]
fn a_certificate_that_signs_others_is_refused_with_how_to_make_one() -> Result<()> {
    let authority = Authority::new()?;
    let pair = Pair {
        certificate: authority.certificate(),
        key: authority.folder().join("authority.key"),
    };
    let guarded = Guarded::start(authority, &pair)?;
    let ca = guarded.file("authority.pem");
    let told = refused("events", &guarded.url(), &["--ca-file", &ca])?;
    ensure!(
        told.contains("-addext basicConstraints=critical,CA:FALSE"),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_reader_that_pauses_loses_events_and_not_the_stream() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("api.sock").display().to_string();
    let daemon = Daemon::start(&["--api-socket", &socket, "--web.enable-api"])?;
    let url = format!("http://{}", daemon.address());
    let mut listening = Listening::start(&["--url", &url])?;

    let netns = Netns::new()?;
    let (paused, mut made) = (Instant::now(), 0);
    // Enough to fill every buffer on the way, and then some.
    while paused.elapsed() < PAUSE || made < 10_000 {
        connect(&netns, Place::new(Family::V4), 100)?;
        made += 100;
        std::thread::sleep(Duration::from_millis(30));
        ensure!(paused.elapsed() < 8 * PAUSE, "{made} connections alone");
    }
    eprintln!("{made} connections in {:?}", paused.elapsed());
    if let Some(status) = listening.child.try_wait()? {
        let words = listening.ended()?.1;
        anyhow::bail!("it ended with {status}: {words}");
    }
    let lines = listening.read()?;
    connections_are_told(&netns, &lines)?;

    let (status, words) = listening.stop()?;
    eprintln!("{words}");
    ensure!(status.success(), "{status}: {words}");
    let told = words
        .lines()
        .filter(|line| line.contains("whoever reads them is too slow"));
    // One every 10 s, and one at the end.
    let told = told.count();
    let most = 2 + paused.elapsed().as_secs() / 10;
    ensure!((1..=most).contains(&(told as u64)), "{told}: {words}");
    let count = words.lines().last().context("no words")?;
    let printed = lines.all().len();
    ensure!(
        count.starts_with(&format!("{printed} events; ")),
        "{printed}: {words}"
    );
    ensure!(!count.contains("; 0 lost"), "{count}");
    Ok(())
}
