//! What the running agent can no longer do, and that it still does what it is for.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    curl::curl,
    daemon::{Daemon, RUN, binary},
    http::{Scrape, number},
    netns::Netns,
    place::{Family, Place},
};

const CONNECTIONS: usize = 7;

/// `CAP_SYS_PTRACE` is 19, `CAP_SYS_ADMIN` 21.
const ENTERS_NAMESPACES: u64 = 1 << 19 | 1 << 21;

/// `CAP_BPF`, which kernels below 5.19 want for every use of a map.
const BPF: u64 = 1 << 39;

/// A user's name and password, which a thread beside the one that serves compares.
const USER: (&str, &str) = ("reader", "correct horse battery staple");

/// Such a thread's name begins so (tokio's, for all that would block).
const BLOCKING: &str = "tokio";

/// A thread as its status shows it.
#[derive(Debug)]
struct Thread {
    name: String,
    /// All sets of capabilities together.
    held: u64,
    no_new_privileges: String,
    seccomp: String,
}

/// Every one.
fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let status = fs::read_to_string(task.join("status"))?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let value = line.map(str::trim).map(str::to_owned);
            value.with_context(|| format!("no {key} in {status}"))
        };
        let mut held = 0;
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            held |= u64::from_str_radix(&value(set)?, 16)?;
        }
        all.push(Thread {
            name,
            held,
            no_new_privileges: value("NoNewPrivs:")?,
            seccomp: value("Seccomp:")?,
        });
    }
    Ok(all)
}

#[test]
fn only_the_census_keeps_rights_and_no_thread_keeps_all_calls() -> Result<()> {
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let place = Place::new(Family::V4);
    let _connections = netns.run(|| place.connections(CONNECTIONS))?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("web.yml");
    let (reader, password) = USER;
    let hash = bcrypt::hash(password, 4)?;
    fs::write(&config, format!("basic_auth_users:\n  {reader}: {hash}\n"))?;
    let mut command = Command::new(binary()?);
    command.args(RUN).args(["--census-interval", "500ms"]);
    command.arg("--web.config.file").arg(&config);
    let mut daemon = Daemon::launch(command.arg("--api-socket").arg(folder.path().join("api")))?;
    daemon.wait("numbers for a user", |daemon| scrape(daemon).ok())?;
    let found = threads(daemon.pid())?;
    eprintln!("{found:x?}");
    for name in ["engine", "census", BLOCKING] {
        let mut names = found.iter().map(|thread| &thread.name);
        ensure!(
            names.any(|found| found.starts_with(name)),
            "no {name}: {found:?}"
        );
    }
    ensure!(
        found.len() >= 4,
        "the one that serves is missing: {found:?}"
    );
    let (major, minor) = release()?;
    let for_maps = if (major, minor) < (5, 19) { BPF } else { 0 };
    for Thread {
        name,
        held,
        no_new_privileges,
        seccomp,
    } in &found
    {
        let expected = match name.as_str() {
            "census" => ENTERS_NAMESPACES | for_maps,
            "engine" => for_maps,
            _ => 0,
        };
        ensure!(*held == expected, "{name} holds {held:x}");
        ensure!(no_new_privileges == "1" && seccomp == "2", "{name}");
    }
    // Taken after all was given up, in the namespace and elsewhere.
    let ports = format!(
        "connstate_ephemeral_ports_used{{netns=\"{}\",source=\"127.0.0.1\",destination=\"127.0.0.1\",port=\"{}\"}}",
        netns.inode(),
        place.port
    );
    let more = netns.run(|| place.connect())?;
    daemon.wait("one connection more in the namespace", |daemon| {
        let used = scrape(daemon).ok()?.value(&ports).ok()?;
        (used >= number(CONNECTIONS as u64 + 1)).then_some(())
    })?;
    drop(more);
    let (status, _, log) = daemon.end(Signal::SIGTERM)?;
    ensure!(status.success(), "{status}");
    let complaints = ["WARN", "ERROR", "not permitted"];
    let is_one = |line: &&String| complaints.iter().any(|word| line.contains(word));
    let complaint = log.iter().find(is_one);
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

/// Reads /metrics as the user.
fn scrape(daemon: &Daemon) -> Result<Scrape> {
    let (user, password) = USER;
    let url = format!("http://{}/metrics", daemon.address());
    let answer = curl(&["--user", &format!("{user}:{password}"), &url])?;
    ensure!(answer.status == 200, "{answer:?}");
    let (_, body) = answer.text.split_once("\r\n\r\n").context("no body")?;
    Scrape::parse(body)
}

fn release() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    Ok((
        numbers.next().context("no major version")?,
        numbers.next().context("no minor version")?,
    ))
}
