//! The agent's binary from the outside: what it answers, says, refuses and leaves behind.

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use agent_ebpf::programs::{Hook, PROGRAMS};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    bpf_ids::{self, BpfKind},
    daemon::{Daemon, RUN, binary, output},
    http::request,
    load::{RESET_BY_LINGER, reset_by_linger},
    netns::Netns,
    wait::DEADLINE,
};

#[test]
fn every_path_is_answered_and_nothing_but_get() -> Result<()> {
    let daemon = Daemon::start(&[])?;
    for (path, content) in [
        ("/", "<a href=\"/metrics\">"),
        ("/healthz", "ok\n"),
        ("/readyz", "ready\n"),
        ("/metrics", "# HELP connstate_closes_total "),
    ] {
        let response = daemon.get(path)?;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.contains(content), "{path}: {}", response.body);
        let posted = request(daemon.address(), "POST", path)?;
        assert_eq!(posted.status, 405, "{path}");
    }
    let head = daemon.get("/metrics")?.head.to_lowercase();
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for path in ["/nothing", "/metrics/", "/api/v1/snapshot"] {
        assert_eq!(daemon.get(path)?.status, 404, "{path}");
    }
    Ok(())
}

#[test]
fn the_start_up_line_names_programs_and_addresses() -> Result<()> {
    let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
    let all = names.join(" ");
    let second = ["--web.listen-address", "[::1]:0"];

    let text = Daemon::start(&second)?;
    let log = text.log();
    let line = log.iter().find(|line| line.contains("running"));
    let line = line.context("no start-up line")?;
    assert!(line.contains(&all), "{line}");
    assert!(line.contains(&text.address().to_string()), "{line}");
    assert!(line.contains("[::1]:"), "{line}");
    // A budget rather than a promise: a busy host takes longer.
    eprintln!("running after {:?}, budget 300 ms", text.start_up());
    drop(text);

    let options = ["--log-format", "json", second[0], second[1]];
    let json = Daemon::start(&options)?;
    let address = json.address().to_string();
    let (_, _, log) = json.end(Signal::SIGTERM)?;
    let lines = log.iter().map(|line| serde_json::from_str::<Value>(line));
    let lines = lines
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("not JSON: {log:?}"))?;
    let line = lines.iter().find(|line| line["message"] == "running");
    let line = line.context("no start-up line")?;
    assert_eq!(line["attached"], all);
    assert_eq!(line["level"], "INFO");
    let listening = line["listening"].as_str().unwrap_or_default();
    assert!(listening.starts_with(&address), "{listening}");
    assert!(listening.contains(" [::1]:"), "{listening}");
    Ok(())
}

#[test]
fn sigint_and_sigterm_leave_nothing_behind() -> Result<()> {
    if let Err(error) = bpf_ids::of_host() {
        eprintln!("skipped: {error:#}");
        return Ok(());
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let pins_before = pins();
        let daemon = Daemon::start(&[])?;
        let ids = bpf_ids::of_process(daemon.pid())?;
        let count = |kind| ids.iter().filter(|(found, _)| *found == kind).count();
        assert_eq!(count(BpfKind::Prog), PROGRAMS.len(), "{ids:?}");
        // An iterator is linked only while it is read.
        let tracepoints = PROGRAMS.iter().map(|program| program.hook);
        let tracepoints = tracepoints.filter(|hook| *hook == Hook::Tracepoint).count();
        assert_eq!(count(BpfKind::Link), tracepoints, "{ids:?}");
        assert!(count(BpfKind::Map) > 0, "{ids:?}");
        assert!(ids.is_subset(&bpf_ids::of_host()?), "{ids:?}");
        let (status, took, log) = daemon.end(signal)?;
        eprintln!("{signal}: {status} after {took:?}; it held {ids:?}");
        assert!(status.success(), "{signal}: {status}: {log:?}");
        assert!(took < Duration::from_secs(5), "{signal}: {took:?}");
        let named = |line: &String| line.contains("stopping") && line.contains(signal.as_str());
        assert!(log.iter().any(named), "{log:?}");
        // The kernel frees them a moment after the last descriptor is closed (bpf_prog_put()).
        let started = Instant::now();
        while let left = &ids & &bpf_ids::of_host()?
            && !left.is_empty()
        {
            ensure!(
                started.elapsed() < DEADLINE,
                "{signal} leaves {left:?} behind"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        // Others' may have gone meanwhile.
        assert!(pins().is_subset(&pins_before), "{:?}", pins());
    }
    Ok(())
}

/// The entries of the file system in which programs and maps outlive their process.
fn pins() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn sighup_reloads_nothing_and_says_so() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait("word on SIGHUP", |daemon| {
        let says = |line: &String| line.contains("SIGHUP reloads nothing");
        daemon.log().iter().any(says).then_some(())
    })?;
    assert_eq!(daemon.get("/healthz")?.status, 200);
    Ok(())
}

#[test]
fn an_address_in_use_or_of_another_host_is_refused() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let in_use = taken.local_addr()?.to_string();
    // Of the addresses for documentation (RFC 5737): no host's own.
    let elsewhere = "203.0.113.1:10735".to_owned();
    for (address, cause, remedy) in [
        (in_use, "in use", "--web.listen-address"),
        (elsewhere, "Cannot assign", "ip address"),
    ] {
        let mut command = Command::new(binary()?);
        let ended = output(command.args(["run", "--web.listen-address", &address]))?;
        let errors = String::from_utf8(ended.stderr)?;
        assert_eq!(ended.status.code(), Some(1), "{errors}");
        for part in [&address, cause, remedy] {
            assert!(errors.contains(part), "{part} is not in: {errors}");
        }
    }
    Ok(())
}

#[test]
fn a_ring_of_one_page_is_accepted_and_an_odd_one_refused() -> Result<()> {
    let daemon = Daemon::start(&["--ring-bytes", "4096"])?;
    assert_eq!(daemon.get("/readyz")?.status, 200);
    let mut command = Command::new(binary()?);
    let ended = output(command.args(RUN).args(["--ring-bytes", "5000"]))?;
    let errors = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(2), "{errors}");
    for part in ["--ring-bytes", "5000", "power of two"] {
        assert!(errors.contains(part), "{part} is not in: {errors}");
    }
    Ok(())
}

#[test]
fn bpf_statistics_are_shown_where_asked_for() -> Result<()> {
    let runs = "connstate_bpf_program_runs_total";
    let first = format!("{runs}{{program=\"inet_sock_set_state\"}}");
    let quiet = Daemon::start(&[])?;
    let mut counting = Daemon::start(&["--bpf-stats"])?;
    let before = counting.scrape()?.value(&first)?;
    reset_by_linger(&Netns::new()?, 10)?;
    // Five transitions at least for each connection, three of the client and two of the server.
    let after = counting.wait("fifty runs", |daemon| {
        let now = daemon.scrape().ok()?.value(&first).ok()?;
        (now >= before + 50.0).then_some(now)
    })?;
    eprintln!("runs rose from {before} to {after}");
    let scrape = counting.scrape()?;
    assert_eq!(scrape.series(runs), PROGRAMS.len());
    let seconds = "connstate_bpf_program_run_seconds_total{program=\"inet_sock_set_state\"}";
    assert!(scrape.value(seconds)? > 0.0);
    // The kernel keeps statistics for all programs; who did not ask does not show them.
    assert_eq!(quiet.scrape()?.series(runs), 0);
    Ok(())
}

#[test]
fn the_programs_log_only_where_debug_is_wanted() -> Result<()> {
    let mut silent = Daemon::start(&[])?;
    let mut command = Command::new(binary()?);
    command.args(RUN).args(["--log-format", "json"]);
    let mut talking = Daemon::spawn(command.env("RUST_LOG", "info,connstate::kernel=debug"))?;
    let closed = "connstate_closes_total{cause=\"other\"}";
    let before = silent.scrape()?.value(closed)?;
    let netns = Netns::new()?;
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let _server = listener.accept()?;
        // tcp_disconnect() closes it for no cause of its own.
        rustix::net::connect_unspec(&client)?;
        Ok(())
    })?;
    // Other sockets of the host may close so, too, from another state.
    let line = talking.wait("the line of the kernel programs", |daemon| {
        let log = daemon.log();
        let lines = log.iter().map(|line| serde_json::from_str::<Value>(line));
        lines.flatten().find(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            line["target"] == "connstate::kernel" && message.contains("from state 1,")
        })
    })?;
    assert_eq!(line["level"], "DEBUG");
    eprintln!("{}", line["message"]);
    silent.wait("the close", |daemon| {
        let now = daemon.scrape().ok()?.value(closed).ok()?;
        (now > before).then_some(())
    })?;
    let (_, _, log) = silent.end(Signal::SIGTERM)?;
    assert!(
        !log.iter().any(|line| line.contains("closed for")),
        "{log:?}"
    );
    Ok(())
}

#[test]
fn two_agents_count_the_same() -> Result<()> {
    let mut one = Daemon::start(&[])?;
    let other = Daemon::start(&[])?;
    let before = (
        one.scrape()?.value(RESET_BY_LINGER)?,
        other.scrape()?.value(RESET_BY_LINGER)?,
    );
    reset_by_linger(&Netns::new()?, 100)?;
    let counted = one.wait("the same hundred closes twice", |one| {
        let counted = (
            one.scrape().ok()?.value(RESET_BY_LINGER).ok()? - before.0,
            other.scrape().ok()?.value(RESET_BY_LINGER).ok()? - before.1,
        );
        let same = (counted.0 - counted.1).abs() < f64::EPSILON;
        (same && counted.0 >= 100.0).then_some(counted)
    })?;
    eprintln!("counted {counted:?}");
    Ok(())
}

#[test]
fn the_hosts_namespace_alone_where_asked_for() -> Result<()> {
    // As process 1 of its own, for looking at another's namespace takes CAP_SYS_PTRACE, which
    // even root may lack.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
        .arg(binary()?)
        .args(RUN)
        .args(["--netns", "host", "--log-format", "json"]);
    let mut host = Daemon::spawn(&mut command)?;
    let mut all = Daemon::start(&[])?;
    let before = (
        host.scrape()?.value(RESET_BY_LINGER)?,
        all.scrape()?.value(RESET_BY_LINGER)?,
    );
    reset_by_linger(&Netns::new()?, 50)?;
    all.wait("fifty closes", |all| {
        let now = all.scrape().ok()?.value(RESET_BY_LINGER).ok()?;
        (now >= before.1 + 50.0).then_some(())
    })?;
    // Its own HTTP connections are in its own namespace: once those made now are counted, so is
    // all that came before them.
    let opened = "connstate_state_transitions_total{from=\"syn_recv\",to=\"established\"}";
    let earlier = host.scrape()?.value(opened)?;
    host.wait("its own connections", |host| {
        let now = host.scrape().ok()?.value(opened).ok()?;
        (now > earlier).then_some(())
    })?;
    let counted = host.scrape()?.value(RESET_BY_LINGER)? - before.0;
    eprintln!("of fifty closes elsewhere the host's agent counted {counted}");
    ensure!(counted < 50.0, "{counted} closes of another namespace");
    Ok(())
}
