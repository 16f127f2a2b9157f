//! Sockets that are held as they are, for a census to find: in a namespace of this process's own,
//! and some more in a hundred others.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{churn, namespace};
use crate::child::Guarded;
use crate::setup::program;

/// Connections toward one address: well below the ports there are, so that finding a free one is
/// quick.
const PER_ADDRESS: u32 = 30_000;

/// Longer than it takes to close all sockets.
const FINISH: Duration = Duration::from_mins(1);

/// What distinguishes the namespaces made here by name.
const PREFIX: &str = "connstate-bench-";

/// How many of what, and where.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Sockets {
    /// In `TIME_WAIT`
    #[arg(long, default_value_t = 0)]
    pub(super) time_wait: u32,
    /// Established, both ends counted
    #[arg(long, default_value_t = 0)]
    pub(super) established: u32,
    /// Namespaces with three sockets each
    #[arg(long, default_value_t = 0)]
    pub(super) namespaces: u32,
    /// In the namespace it is started in, rather than in one of its own
    #[arg(long)]
    pub(super) here: bool,
}

impl Sockets {
    /// So many, in a namespace of their own.
    pub(super) const fn of(time_wait: u32, established: u32, namespaces: u32) -> Self {
        Self {
            time_wait,
            established,
            namespaces,
            here: false,
        }
    }
}

/// Makes the sockets, says so in one line, and holds them until standard input ends.
pub(super) fn generate(sockets: Sockets) -> Result<()> {
    let limit = raise_limit()?;
    let others = Others::make(sockets.namespaces)?;
    if !sockets.here {
        namespace::enter()?;
        for (name, value) in [("tcp_max_tw_buckets", "1000000"), ("tcp_tw_reuse", "0")] {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, value)
                .with_context(|| format!("could not write {value} to {path}"))?;
        }
    }
    // Some files are open besides, and the sockets of the other namespaces.
    let most = limit.checked_sub(64 + 3 * sockets.namespaces);
    let most = most.filter(|most| *most > 0);
    let most = most.context("the limit of open files leaves none for sockets")?;
    let own = sockets.established.min(most);
    let mut helpers = Vec::new();
    let mut left = sockets.established - own;
    while left > 0 {
        let part = left.min(most);
        helpers.push(Holder::start(Sockets {
            time_wait: 0,
            established: part,
            namespaces: 0,
            here: true,
        })?);
        left -= part;
    }
    // Two sockets a connection.
    let held = connections(own / 2, true)?;
    drop(connections(sockets.time_wait, false)?);
    println!("ready");
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("could not wait for the end of standard input")?;
    drop((held, helpers, others));
    Ok(())
}

/// Raises the limit of open files as far as this process may, and gives it.
fn raise_limit() -> Result<u32> {
    let most = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, limit).context("could not raise the limit of open files")?;
    Ok(most.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX)))
}

/// A process that holds sockets.
pub(super) struct Holder(Guarded);

impl Holder {
    /// Starts one, and waits until it has made them.
    pub(super) fn start(sockets: Sockets) -> Result<Self> {
        let myself = std::env::current_exe().context("could not find this program's own file")?;
        let mut command = Command::new(myself);
        command.args(["bench", "hold"]);
        for (option, count) in [
            ("--time-wait", sockets.time_wait),
            ("--established", sockets.established),
            ("--namespaces", sockets.namespaces),
        ] {
            command.arg(option).arg(count.to_string());
        }
        if sockets.here {
            command.arg("--here");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guarded::spawn(&mut command)?;
        let output = process.stdout().context("the output was not piped")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("could not hear of the sockets")?;
        if line.trim() != "ready" {
            bail!("the sockets could not be made; the message above says why");
        }
        Ok(Self(process))
    }

    /// Ends it, and with it the namespaces it made.
    pub(super) fn finish(mut self) -> Result<()> {
        self.0.finish(FINISH)
    }

    /// The file that leads to the namespace of its sockets.
    pub(super) fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

/// Connections on loopback, both ends held; or both closed, the connecting ones first, which are
/// then in `TIME_WAIT`. The listener stays, as a server's does.
fn connections(count: u32, hold: bool) -> Result<(TcpListener, Vec<[TcpStream; 2]>)> {
    let listener = churn::bound_listener(Ipv4Addr::UNSPECIFIED)?;
    let port = listener.local_addr()?.port();
    let accepting = thread::spawn(move || {
        let servers = accept(&listener, count, hold)?;
        anyhow::Ok((listener, servers))
    });
    let mut clients = Vec::new();
    for number in 0..count {
        let [high, low] = u16::try_from(number / PER_ADDRESS)?.to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, 1 + high, low, 1), port));
        let client = TcpStream::connect(address)
            .with_context(|| format!("connection {number} of {count} failed"))?;
        if hold {
            clients.push(client);
        }
    }
    let (listener, servers) = accepting
        .join()
        .map_err(|_| anyhow!("the accepting thread panicked"))??;
    let pairs = clients.into_iter().zip(servers);
    Ok((listener, pairs.map(<[TcpStream; 2]>::from).collect()))
}

fn accept(listener: &TcpListener, count: u32, hold: bool) -> Result<Vec<TcpStream>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let (mut server, _) = listener.accept().context("could not accept")?;
        if hold {
            servers.push(server);
        } else {
            // The client closes first: it is the one to wait.
            server.read_to_end(&mut Vec::new())?;
        }
    }
    Ok(servers)
}

/// Namespaces with a listener and a connection each.
struct Others {
    names: Vec<String>,
    sockets: Vec<(TcpListener, [TcpStream; 2])>,
}

impl Others {
    fn make(count: u32) -> Result<Self> {
        let mut others = Self {
            names: Vec::new(),
            sockets: Vec::new(),
        };
        for number in 0..count {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            ip(&["netns", "add", &name])?;
            others.names.push(name.clone());
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            let inside = thread::spawn(move || -> Result<_> {
                let file = fs::File::open(format!("/run/netns/{name}"))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(LinkNameSpaceType::Network),
                )?;
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 80))?;
                let client = TcpStream::connect(listener.local_addr()?)?;
                let (server, _) = listener.accept()?;
                Ok((listener, [client, server]))
            });
            let sockets = inside
                .join()
                .map_err(|_| anyhow!("a thread panicked"))?
                .context("could not make sockets in another namespace")?;
            others.sockets.push(sockets);
        }
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.sockets.clear();
        for name in &self.names {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let ip = program::path("ip").context("ip is missing; it is in Debian's package iproute2")?;
    let status = Command::new(ip)
        .args(arguments)
        .status()
        .context("could not start ip")?;
    if !status.success() {
        bail!("`ip {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}
