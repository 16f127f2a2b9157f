//! More connections than any agent tells one by one, all at once.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use agent_ebpf::maps::PORT_CAPACITY;
use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Socket, Type};
use tests::{
    netns::{Inhabitant, Netns},
    place::{Family, Place, own_descriptors},
};

/// Connections beyond those that are told apart by where they go.
pub(crate) const UNTOLD: usize = 100;
const CONNECTIONS: usize = PORT_CAPACITY + UNTOLD;

/// As many as wait in the queue of one listener (`somaxconn`).
const TO_ONE_LISTENER: usize = 4000;

/// Connections that go to another address each, held by a thread: only it has room for so many
/// descriptors, and nobody accepts them, so that the other ends take none.
pub(crate) struct Crowd {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    _inhabitant: Inhabitant,
    _netns: Netns,
}

impl Crowd {
    /// Makes them, as fast as one thread can.
    pub(crate) fn new() -> Result<Self> {
        let netns = Netns::new()?;
        let inhabitant = netns.inhabit()?;
        let path = netns.path();
        let (made, is_made) = channel();
        let (over, is_over) = channel::<()>();
        let thread = thread::spawn(move || {
            let inside = std::fs::File::open(path)?;
            nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let held = own_descriptors().and_then(|()| crowd())?;
            made.send(()).context("nobody waits for them")?;
            // Until the other end is dropped.
            let _dropped = is_over.recv();
            // With a reset, so that nothing of them stays.
            for socket in &held {
                socket.set_linger(Some(Duration::ZERO))?;
            }
            Ok(())
        });
        let mut crowd = Self {
            over: Some(over),
            thread: Some(thread),
            _inhabitant: inhabitant,
            _netns: netns,
        };
        if is_made.recv().is_err() {
            crowd.end()?;
        }
        Ok(crowd)
    }

    fn end(&mut self) -> Result<()> {
        drop(self.over.take());
        let ended = self.thread.take().map(JoinHandle::join);
        ended
            .unwrap_or(Ok(Ok(())))
            .map_err(|_| anyhow!("a panic"))?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the crowd: {error:#}");
        }
    }
}

fn crowd() -> Result<Vec<Socket>> {
    let (mut held, mut listeners) = (Vec::new(), Vec::new());
    let mut hosts = (1_u32..).map(|host| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + host));
    while held.len() < CONNECTIONS {
        let Place { port, .. } = Place::new(Family::V4);
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        listener.listen(4096)?;
        let some = TO_ONE_LISTENER.min(CONNECTIONS - held.len());
        for host in hosts.by_ref().take(some) {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let address = SocketAddr::from((host, port));
            client
                .connect(&address.into())
                .with_context(|| format!("cannot connect to {address}"))?;
            held.push(client);
        }
        listeners.push(listener);
    }
    held.append(&mut listeners);
    Ok(held)
}
