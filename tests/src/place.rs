//! Where connections are made: a family of addresses on the loopback interface, and a port.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
    setsockopt_impl,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{SetSockOpt as _, sockopt::SetStruct},
    },
};
use socket2::{Domain, Protocol, Socket, Type};

/// Below the ephemeral range, so that no client takes a server's port.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

#[derive(Clone, Copy)]
struct TcpLinger2;
setsockopt_impl!(
    TcpLinger2,
    libc::IPPROTO_TCP,
    libc::TCP_LINGER2,
    i32,
    SetStruct<'_, i32>
);

/// How a connection is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_INET6 sockets with v4-mapped addresses: IPv4 packets.
    Mapped,
}

impl Family {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// The loopback address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
            Self::Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        }
    }
}

/// A port of its own, unlike that of any other place in this process, so that a filter for it
/// touches nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How it is addressed.
    pub family: Family,
    /// The port a server listens at.
    pub port: u16,
}

/// Connections, both ends of each, and the listener they came to.
#[derive(Debug)]
pub struct Connections {
    /// The listener.
    pub listener: Socket,
    /// The connecting ends.
    pub clients: Vec<Socket>,
    /// The accepting ends, in the same order.
    pub servers: Vec<Socket>,
}

impl Place {
    /// A new one.
    #[must_use]
    pub fn new(family: Family) -> Self {
        let next = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS;
        Self {
            family,
            port: FIRST_PORT + next,
        }
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.family.address(), self.port)
    }

    /// A new TCP socket.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn socket(&self) -> Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(self.address()),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if self.family == Family::Mapped {
            socket.set_only_v6(false)?;
        }
        Ok(socket)
    }

    /// A listening socket.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn listen(&self) -> Result<Socket> {
        let socket = self.socket()?;
        socket.set_reuse_address(true)?;
        socket
            .bind(&self.address().into())
            .with_context(|| format!("cannot bind to {}", self.address()))?;
        socket.listen(4096)?;
        Ok(socket)
    }

    /// A connected socket.
    ///
    /// # Errors
    ///
    /// Where nobody listens.
    pub fn connect(&self) -> Result<Socket> {
        let socket = self.socket()?;
        socket
            .connect(&self.address().into())
            .with_context(|| format!("cannot connect to {}", self.address()))?;
        Ok(socket)
    }

    /// A socket that is connecting, and does not wait for it.
    ///
    /// # Errors
    ///
    /// Where the connect ends at once.
    pub fn connecting(&self) -> Result<Socket> {
        let socket = self.socket()?;
        socket.set_nonblocking(true)?;
        let error = socket.connect(&self.address().into()).err();
        let errno = error.and_then(|error| error.raw_os_error());
        ensure!(
            errno == Some(libc::EINPROGRESS),
            "connecting ended at once: {errno:?}"
        );
        Ok(socket)
    }

    /// `n` connections.
    ///
    /// # Errors
    ///
    /// Where one cannot be made.
    pub fn connections(&self, n: usize) -> Result<Connections> {
        let mut connections = Connections {
            listener: self.listen()?,
            clients: Vec::new(),
            servers: Vec::new(),
        };
        for _ in 0..n {
            connections.clients.push(self.connect()?);
            connections.servers.push(connections.listener.accept()?.0);
        }
        Ok(connections)
    }
}

/// Gives the calling thread a table of descriptors of its own, for the sockets it will make. In a
/// shared one, a child that another thread starts holds copies until it executes its program, and
/// `close()` meanwhile ends nothing. It may hold as many as the kernel allows this process.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn own_descriptors() -> Result<()> {
    unshare(CloneFlags::CLONE_FILES).context("no table of descriptors of its own")?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("the limit of descriptors")
}

/// Sets TCP_LINGER2 in seconds: below zero for no FIN_WAIT2, above 60 for one that stays a full
/// socket (`tcp_rcv_state_process`, `__tcp_close`).
///
/// # Errors
///
/// Where the kernel refuses.
pub fn set_linger2(socket: &Socket, seconds: i32) -> Result<()> {
    TcpLinger2.set(socket, &seconds).context("TCP_LINGER2")
}

/// Closes with SO_LINGER at zero: the kernel sends a RST.
///
/// # Errors
///
/// Where the kernel refuses the option.
pub fn reset(sockets: Vec<Socket>) -> Result<()> {
    for socket in sockets {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}
