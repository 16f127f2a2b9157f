//! The agent's HTTP server among friends and others: TLS, passwords, Prometheus, and clients that
//! never finish what they began.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use agent::web::Config;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    certificates::{Authority, Pair},
    curl::{Answer, curl},
    daemon::{Daemon, RUN, binary, output},
    http::request,
    place::own_descriptors,
    prometheus::Prometheus,
    wait::until,
};

const PASSWORD: &str = "correct horse battery staple";

/// What a scrape may take while others misbehave.
const BUDGET: Duration = Duration::from_millis(50);

/// What is asserted of it, for the machine may have other things to do: still half of the time that
/// one who waited for the others to be cut off would take.
const LONGEST: Duration = Duration::from_secs(5);

/// What the agent may grow by meanwhile.
const MEMORY_KIB: u64 = 32 * 1024;

/// An agent that serves over TLS and asks for a password.
struct Guarded {
    daemon: Daemon,
    authority: Authority,
    config: PathBuf,
}

fn tls_section(pair: &Pair) -> String {
    // The certificate by a path from the file's directory, the key by a whole one.
    let certificate = pair.certificate.file_name().unwrap_or_default();
    format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
        certificate.display(),
        pair.key.display()
    )
}

fn users_section(user: &str, password: &str) -> Result<String> {
    let hash = bcrypt::hash(password, 10)?;
    Ok(format!("basic_auth_users:\n  {user}: {hash}\n"))
}

impl Guarded {
    /// With users, and these lines below `tls_server_config`.
    fn start(authority: Authority, tls: &str, rest: &str) -> Result<Self> {
        let pair = authority.issue("server", "IP:127.0.0.1")?;
        let config = authority.folder().join("web.yml");
        std::fs::write(&config, format!("{}{tls}{rest}", tls_section(&pair)))?;
        let mut command = Command::new(binary()?);
        command.args(RUN).arg("--web.config.file").arg(&config);
        let daemon = Daemon::launch(&mut command)?;
        Ok(Self {
            daemon,
            authority,
            config,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.daemon.address())
    }

    /// Asks as curl does with these options.
    fn ask(&self, path: &str, options: &[&str]) -> Result<Answer> {
        let authority = self.authority.certificate().display().to_string();
        let url = self.url(path);
        let mut arguments = vec!["--cacert", &authority, &url];
        arguments.extend(options);
        curl(&arguments)
    }

    fn as_user(&self, path: &str, user: &str, password: &str) -> Result<Answer> {
        self.ask(path, &["--user", &format!("{user}:{password}")])
    }

    fn wait_for_log(&mut self, part: &str) -> Result<String> {
        self.daemon.wait(part, |daemon| {
            daemon.log().into_iter().find(|line| line.contains(part))
        })
    }
}

#[test]
fn tls_and_the_right_password_are_asked_for_on_every_path() -> Result<()> {
    let headers = "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n";
    let rest = format!("{headers}{}", users_section("prometheus", PASSWORD)?);
    let guarded = Guarded::start(Authority::new()?, "", &rest)?;

    for path in ["/", "/healthz", "/metrics", "/no/such/path"] {
        for options in [
            &[][..],
            &["--user", "prometheus:wrong"],
            &["--user", "nobody:wrong"],
            &["--user", &format!("nobody:{PASSWORD}")],
            &["--header", "Authorization: Bearer x"],
        ] {
            let answer = guarded.ask(path, options)?;
            assert_eq!(answer.status, 401, "{path} {options:?}: {answer:?}");
            let text = answer.text.to_lowercase();
            assert!(text.contains("www-authenticate: basic\r\n"), "{text}");
            assert!(text.contains("x-frame-options: deny\r\n"), "{text}");
        }
    }
    // There are no metrics before.
    until("the agent to be ready", || {
        let answer = guarded.as_user("/readyz", "prometheus", PASSWORD)?;
        Ok(answer.status == 200)
    })?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let answer = guarded.as_user("/metrics", "prometheus", PASSWORD)?;
        times.push(started.elapsed());
        // It is HTTP/1.1 though curl would speak HTTP/2.
        assert!(answer.text.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert!(
            answer.text.contains("# HELP connstate_sockets "),
            "{answer:?}"
        );
    }
    eprintln!("answers to a user who is known, curl's start included: {times:?}");

    let plain = format!("http://{}/metrics", guarded.daemon.address());
    let answer = curl(&[&plain])?;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(
        answer.text.contains("HTTP request to an HTTPS server"),
        "{answer:?}"
    );
    let answer = curl(&[&guarded.url("/metrics")])?;
    assert_eq!(answer.status, 0, "its authority is unknown: {answer:?}");
    let answer = guarded.ask("/metrics", &["--tls-max", "1.1"])?;
    assert_eq!(answer.status, 0, "{answer:?}");
    let answer = guarded.ask(
        "/healthz",
        &[
            "--tls-max",
            "1.2",
            "--user",
            &format!("prometheus:{PASSWORD}"),
        ],
    )?;
    assert_eq!(answer.status, 200, "{answer:?}");

    let (_, _, log) = guarded.daemon.end(Signal::SIGTERM)?;
    for secret in [PASSWORD, "$2b$", "PRIVATE"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{log:?}");
    }
    Ok(())
}

#[test]
fn clients_show_certificates_of_the_right_authority_and_name() -> Result<()> {
    let authority = Authority::new()?;
    let strangers = Authority::new()?.issue("stranger", "DNS:scraper.example")?;
    let friend = authority.issue("friend", "DNS:scraper.example")?;
    let other = authority.issue("other", "DNS:other.example")?;
    let tls = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: authority.pem\n  \
               client_allowed_sans:\n    - scraper.example\n";
    let guarded = Guarded::start(authority, tls, "")?;
    let with = |pair: &Pair, version: &str| {
        let [certificate, key] =
            [&pair.certificate, &pair.key].map(|path| path.display().to_string());
        guarded.ask(
            "/healthz",
            &["--cert", &certificate, "--key", &key, "--tls-max", version],
        )
    };
    for version in ["1.2", "1.3"] {
        assert_eq!(with(&friend, version)?.status, 200, "{version}");
        for pair in [&strangers, &other] {
            let answer = with(pair, version)?;
            assert_eq!(answer.status, 0, "{version} {pair:?}: {answer:?}");
        }
    }
    assert_eq!(guarded.ask("/healthz", &[])?.status, 0);
    Ok(())
}

#[test]
fn a_certificate_is_asked_for_but_not_needed_where_so_written() -> Result<()> {
    let authority = Authority::new()?;
    let stranger = Authority::new()?.issue("stranger", "DNS:scraper.example")?;
    let tls = "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: authority.pem\n";
    let guarded = Guarded::start(authority, tls, "")?;
    assert_eq!(guarded.ask("/healthz", &[])?.status, 200);
    let [certificate, key] =
        [&stranger.certificate, &stranger.key].map(|path| path.display().to_string());
    let answer = guarded.ask("/healthz", &["--cert", &certificate, "--key", &key])?;
    assert_eq!(answer.status, 0, "{answer:?}");
    Ok(())
}

#[test]
fn prometheus_scrapes_over_tls_with_a_password() -> Result<()> {
    let guarded = Guarded::start(
        Authority::new()?,
        "",
        &users_section("prometheus", PASSWORD)?,
    )?;
    let folder = tempfile::tempdir()?;
    let configuration = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: connstate\n  \
         scheme: https\n  basic_auth: {{username: prometheus, password: {PASSWORD}}}\n  \
         tls_config: {{ca_file: {}}}\n  static_configs: [{{targets: ['{}']}}]\n",
        guarded.authority.certificate().display(),
        guarded.daemon.address()
    );
    let mut prometheus = Prometheus::start(folder.path(), &configuration)?;
    prometheus.wait("up", |up| up > 0.5)?;
    let samples = prometheus.wait("scrape_samples_scraped", |samples| samples > 100.0)?;
    // Each that succeeds is a 1, each that fails a 0.
    prometheus.wait("sum_over_time(up%5B1m%5D)", |scrapes| scrapes > 4.0)?;
    let took = prometheus.wait("scrape_duration_seconds", |_| true)?;
    eprintln!(
        "{samples} samples, the last scrape took {:.1} ms",
        took * 1000.0
    );
    Ok(())
}

#[test]
fn a_changed_file_takes_effect_and_a_broken_one_does_not() -> Result<()> {
    let authority = Authority::new()?;
    let mut guarded = Guarded::start(authority, "", &users_section("alice", PASSWORD)?)?;
    let pair = guarded.authority.issue("second", "IP:127.0.0.1")?;
    let second = format!("{}{}", tls_section(&pair), users_section("bob", PASSWORD)?);
    assert_eq!(guarded.as_user("/healthz", "alice", PASSWORD)?.status, 200);
    assert_eq!(guarded.as_user("/healthz", "bob", PASSWORD)?.status, 401);

    std::fs::write(&guarded.config, &second)?;
    guarded.wait_for_log("the changed web configuration is in force")?;
    assert_eq!(guarded.as_user("/healthz", "alice", PASSWORD)?.status, 401);
    assert_eq!(guarded.as_user("/healthz", "bob", PASSWORD)?.status, 200);

    let broken = second.replace("key_file", "keyfile");
    std::fs::write(&guarded.config, broken)?;
    let line = guarded.wait_for_log("stays in force")?;
    for part in [
        "ERROR",
        "web.yml:3: ",
        "tls_server_config.keyfile",
        "key_file",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    assert_eq!(guarded.as_user("/healthz", "bob", PASSWORD)?.status, 200);
    // Nor one without what protected it.
    std::fs::write(&guarded.config, "")?;
    let line = guarded.wait_for_log("it would serve without TLS")?;
    assert!(line.contains("takes a restart"), "{line}");
    assert_eq!(guarded.as_user("/healthz", "bob", PASSWORD)?.status, 200);

    // Once it is whole again, a certificate that is replaced is served, too.
    std::fs::write(&guarded.config, &second)?;
    guarded.daemon.wait("the second change", |daemon| {
        let log = daemon.log();
        let told = log
            .iter()
            .filter(|line| line.contains("the changed web configuration"));
        (told.count() >= 2).then_some(())
    })?;
    let elsewhere = Authority::new()?;
    let replaced = elsewhere.issue("replaced", "IP:127.0.0.1")?;
    std::fs::copy(&replaced.certificate, &pair.certificate)?;
    std::fs::copy(&replaced.key, &pair.key)?;
    let [authority, url] = [
        elsewhere.certificate().display().to_string(),
        guarded.url("/healthz"),
    ];
    guarded.daemon.wait("the new certificate", |_| {
        let answer = curl(&["--cacert", &authority, &url]).ok()?;
        (answer.status == 401).then_some(())
    })?;
    let (_, _, log) = guarded.daemon.end(Signal::SIGTERM)?;
    // A look between the copies of the last certificate and of its key finds a third one.
    for mistake in ["tls_server_config.keyfile", "it would serve without TLS"] {
        let told = log.iter().filter(|line| line.contains(mistake)).count();
        assert_eq!(told, 1, "{mistake}: {log:?}");
    }
    Ok(())
}

#[test]
fn a_broken_file_refuses_to_start_before_anything_is_loaded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("web.yml");
    std::fs::write(&config, "basic_auth_users:\n  alice: hunter2\n")?;
    let mut command = Command::new(binary()?);
    let ended = output(command.args(RUN).arg("--web.config.file").arg(&config))?;
    let errors = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    let place = format!("{}:2: basic_auth_users.alice: ", config.display());
    for part in [place.as_str(), "no bcrypt hash", "htpasswd"] {
        assert!(errors.contains(part), "{part} is not in: {errors}");
    }
    assert!(!errors.contains("hunter2"), "{errors}");
    Ok(())
}

#[test]
fn certificates_and_keys_are_checked_when_they_are_read() -> Result<()> {
    let authority = Authority::new()?;
    let one = authority.issue("one", "IP:127.0.0.1")?;
    let other = authority.issue("other", "IP:127.0.0.1")?;
    let config = authority.folder().join("web.yml");
    let read = |text: String| {
        std::fs::write(&config, text)?;
        Ok::<_, anyhow::Error>(Config::read(&config))
    };
    let mixed = Pair {
        key: other.key,
        certificate: one.certificate.clone(),
    };
    let error = read(tls_section(&mixed))?
        .err()
        .context("a key of another certificate")?;
    assert!(
        error.says.contains("is not that of the certificate"),
        "{error}"
    );
    assert_eq!(
        (error.line, error.key.as_str()),
        (Some(3), "tls_server_config.key_file")
    );
    let no_key = Pair {
        key: one.certificate.clone(),
        certificate: one.certificate.clone(),
    };
    let error = read(tls_section(&no_key))?
        .err()
        .context("a certificate for a key")?;
    assert!(error.says.contains("no private key in PEM"), "{error}");

    // Inline, with all that can be asked for.
    let indented = |path: &Path| -> Result<String> {
        let text = std::fs::read_to_string(path)?;
        Ok(format!("    {}\n", text.trim_end().replace('\n', "\n    ")))
    };
    let text = format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}  client_ca: |\n{}  \
         client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS12\n  max_version: TLS12\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
         curve_preferences: [CurveP384]\n  prefer_server_cipher_suites: false\n",
        indented(&one.certificate)?,
        indented(&one.key)?,
        indented(&authority.certificate())?
    );
    let config = read(text)??;
    assert!(config.authenticates());
    let shown = format!("{config:?}");
    let key = std::fs::read_to_string(&one.key)?;
    let secret = key.lines().nth(1).context("a key has lines")?;
    assert!(!shown.contains(secret), "{shown}");
    Ok(())
}

/// Connections that ask and never finish.
fn unfinished(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let ask = |_| {
        let mut stream = TcpStream::connect(address)?;
        // The place may be another's already.
        let _displaced = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        Ok(stream)
    };
    (0..count).map(ask).collect()
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(size.parse()?)
}

/// The longest and the median of many scrapes, each over a connection of its own.
fn scrapes(address: SocketAddr, count: usize) -> Result<(Duration, Duration)> {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let response = request(address, "GET", "/metrics")?;
        times.push(started.elapsed());
        ensure!(response.status == 200, "{response:?}");
    }
    times.sort();
    let median = times.get(count / 2).copied().context("no scrapes")?;
    Ok((times.last().copied().unwrap_or(median), median))
}

#[test]
fn a_thousand_clients_that_never_finish_do_not_keep_others_from_metrics() -> Result<()> {
    own_descriptors()?;
    let daemon = Daemon::start(&[])?;
    let address = daemon.address();
    let (quiet, quiet_median) = scrapes(address, 20)?;
    let before = resident_kib(daemon.pid())?;

    let slow = unfinished(address, 1000)?;
    let large = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nX-Large: ")?;
        let mut sent = 0;
        let part = [b'x'; 16 * 1024];
        // Until it is refused, or all of 10 MB is sent.
        while sent < 10_000_000 && stream.write_all(&part).is_ok() {
            sent += part.len();
        }
        Ok::<_, std::io::Error>(sent)
    });
    let garbage = std::thread::spawn(move || {
        for seed in 0_u8..100 {
            let mut stream = TcpStream::connect(address)?;
            let bytes: Vec<u8> = (0..5000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
                .collect();
            let _refused = stream.write_all(&bytes);
            let mut answer = [0; 64];
            let _closed = stream.read(&mut answer);
        }
        Ok::<_, std::io::Error>(())
    });
    let (longest, median) = scrapes(address, 50)?;
    let sent = large.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    garbage.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    let after = resident_kib(daemon.pid())?;
    let grown = after.saturating_sub(before);
    eprintln!(
        "scrapes: median {median:?}, longest {longest:?}, budget {BUDGET:?} (alone: {quiet_median:?}, \
         {quiet:?}); resident {before} KiB before, {after} KiB with them, grown by {grown} KiB of \
         {MEMORY_KIB}; {sent} bytes of a head of 10 MB were taken"
    );
    ensure!(longest < LONGEST, "a scrape took {longest:?}");
    ensure!(grown < MEMORY_KIB, "it grew by {grown} KiB");
    ensure!(
        sent < 10_000_000,
        "a head of {sent} bytes was read to its end"
    );

    drop(slow);
    let (longest, _) = scrapes(address, 20)?;
    eprintln!("the longest scrape after they ended: {longest:?}");
    let (status, _, log) = daemon.end(Signal::SIGTERM)?;
    ensure!(status.success(), "{status}: {log:?}");
    // Of the server: the host may give others cause for complaint.
    let complaints = log.iter().filter(|line| {
        let mut ours = ["agent::web", "HTTP", "connection"].into_iter();
        !line.contains(" INFO ") && ours.any(|part| line.contains(part))
    });
    ensure!(complaints.count() < 3, "{log:?}");
    Ok(())
}

#[test]
fn an_agent_short_of_descriptors_says_so_once_and_recovers() -> Result<()> {
    own_descriptors()?;
    let mut command = Command::new("prlimit");
    command.arg("--nofile=128:128").arg(binary()?).args(RUN);
    let mut daemon = Daemon::spawn(&mut command)?;
    let slow = unfinished(daemon.address(), 300)?;
    let told = |daemon: &Daemon| {
        let log = daemon.log();
        log.iter()
            .filter(|line| line.contains("no connection can be accepted"))
            .count()
    };
    daemon.wait("word on it", |daemon| (told(daemon) > 0).then_some(()))?;
    drop(slow);
    daemon.wait("an answer", |daemon| daemon.get("/healthz").ok())?;
    assert_eq!(told(&daemon), 1, "{:?}", daemon.log());
    Ok(())
}
