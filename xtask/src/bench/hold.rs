//! Sockets that are held as they are, for a census to find: in a namespace of this process's own,
//! and some more in a hundred others.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{churn, namespace};
use crate::setup::program;

/// Connections toward one address: well below the ports there are, so that finding a free one is
/// quick.
const PER_ADDRESS: u32 = 30_000;

/// What distinguishes the namespaces made here by name.
const PREFIX: &str = "connstate-bench-";

/// Makes the sockets, says so in one line, and holds them until standard input ends.
pub(super) fn generate(time_wait: u32, established: u32, namespaces: u32) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .context("could not raise the limit of open files")?;
    let others = Others::make(namespaces)?;
    namespace::enter()?;
    for (name, value) in [("tcp_max_tw_buckets", "1000000"), ("tcp_tw_reuse", "0")] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).with_context(|| format!("could not write {value} to {path}"))?;
    }
    // Two sockets a connection.
    let held = connections(established / 2, true)?;
    drop(connections(time_wait, false)?);
    println!("ready");
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("could not wait for the end of standard input")?;
    drop((held, others));
    Ok(())
}

/// Connections on loopback, both ends held; or both closed, the connecting ones first, which are
/// then in `TIME_WAIT`.
fn connections(count: u32, hold: bool) -> Result<Vec<[TcpStream; 2]>> {
    let listener = churn::bound_listener(Ipv4Addr::UNSPECIFIED)?;
    let port = listener.local_addr()?.port();
    let accepting = thread::spawn(move || accept(&listener, count, hold));
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
    let servers = accepting
        .join()
        .map_err(|_| anyhow!("the accepting thread panicked"))??;
    Ok(clients
        .into_iter()
        .zip(servers)
        .map(<[TcpStream; 2]>::from)
        .collect())
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
            let name = format!("{PREFIX}{number}");
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
