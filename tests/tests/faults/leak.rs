//! A process that does not close its connections.

use std::net::Shutdown;

use anyhow::Result;
use socket2::Socket;
use tests::{
    holder::{Holder, Plan, Role},
    netns::Netns,
    place::{Family, Place},
    wait,
};

use tests::cgroup::Cgroup;

/// A server that holds connections, and their peers.
pub(super) struct Leak {
    /// The process.
    pub(super) holder: Holder,
    /// The port it serves.
    pub(super) port: u16,
    _peers: Vec<Socket>,
}

/// Starts a process of this name, which has made no socket yet.
pub(super) fn start(
    netns: &Netns,
    cgroup: &Cgroup,
    process: &str,
    plan: Sockets,
) -> Result<Holder> {
    let plan = Plan {
        process,
        role: Role::Server(false),
        port: plan.place.port,
        count: plan.established + plan.close_wait,
        thread: None,
    };
    Holder::start(env!("CARGO_BIN_EXE_holder"), netns, cgroup, &plan)
}

/// The sockets that it is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sockets {
    /// Where.
    pub(super) place: Place,
    /// How many whose peers stay,
    pub(super) established: usize,
    /// and how many whose peers close.
    pub(super) close_wait: usize,
}

impl Sockets {
    /// So many in CLOSE_WAIT, at a place of their own.
    pub(super) fn leaked(close_wait: usize) -> Self {
        Self {
            place: Place::new(Family::V4),
            established: 0,
            close_wait,
        }
    }
}

impl Leak {
    /// Has a process that was started so take its connections.
    pub(super) fn of(mut holder: Holder, netns: &Netns, sockets: Sockets) -> Result<Self> {
        let Sockets {
            place,
            established,
            close_wait,
        } = sockets;
        holder.go_on()?;
        holder.says("listening")?;
        let peers = netns.run(|| {
            let peers = (0..established + close_wait).map(|_| place.connect());
            let peers = peers.collect::<Result<Vec<_>>>()?;
            for peer in &peers[established..] {
                peer.shutdown(Shutdown::Write)?;
            }
            wait::servers_in(place.port, "close-wait", close_wait)?;
            Ok(peers)
        })?;
        holder.says("holding")?;
        Ok(Self {
            holder,
            port: place.port,
            _peers: peers,
        })
    }
}
