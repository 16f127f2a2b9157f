//! Two network namespaces joined by a cable on which packets can be lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use crate::{netns::Netns, wait::DEADLINE};

/// Of the addresses for documentation (RFC 5737), so that none can be meant elsewhere.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CLIENT_MAC: &str = "02:00:00:00:00:01";
const SERVER_MAC: &str = "02:00:00:00:00:02";

/// Two namespaces and the veth pair between them.
#[derive(Debug)]
pub struct Link {
    /// The one that connects, 192.0.2.1.
    pub client: Netns,
    /// The one that listens, 192.0.2.2.
    pub server: Netns,
}

impl Link {
    /// Makes both.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or `ip` or `nft` is missing.
    pub fn new() -> Result<Self> {
        let link = Self {
            client: Netns::new()?,
            server: Netns::new()?,
        };
        let peer = link.server.path();
        let peer = peer.to_str().context("the namespace's path is not text")?;
        let pair = "link add cable type veth peer name cable netns";
        let pair: Vec<_> = pair.split(' ').chain([peer]).collect();
        link.client.command("ip", &pair)?;
        plug(&link.client, CLIENT_MAC, CLIENT, SERVER_MAC, SERVER)?;
        plug(&link.server, SERVER_MAC, SERVER, CLIENT_MAC, CLIENT)?;
        Ok(link)
    }

    /// A listener in the server's namespace, on a port of the kernel's choice.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn listen(&self) -> Result<TcpListener> {
        self.server
            .run(|| Ok(TcpListener::bind((IpAddr::V4(SERVER), 0))?))
    }

    /// A connection between the two, both of its ends; each write becomes a segment at once.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn connect(&self, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
        let address = listener.local_addr()?;
        let client = self
            .client
            .run(|| Ok(TcpStream::connect_timeout(&address, DEADLINE)?))?;
        client.set_nodelay(true)?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        Ok((client, server))
    }

    /// Sends a SYN from the client and waits for nothing.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn begin_connect(&self, address: SocketAddr) -> Result<Socket> {
        self.client.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => {
                    Err(error.into())
                }
                _ => Ok(socket),
            }
        })
    }
}

fn plug(netns: &Netns, own_mac: &str, own: Ipv4Addr, peer_mac: &str, peer: Ipv4Addr) -> Result<()> {
    let ip = |command: String| {
        let args: Vec<_> = command.split(' ').collect();
        netns.command("ip", &args)
    };
    ip(format!("link set cable address {own_mac}"))?;
    ip(format!("address add {own}/24 dev cable"))?;
    ip("link set cable up".to_owned())?;
    // Lest a dropped packet or a slow answer of ARP be taken for a lost segment.
    ip(format!(
        "neighbour replace {peer} lladdr {peer_mac} nud permanent dev cable"
    ))?;
    // Before routing, as if the cable had lost the packet: a packet dropped on its way out would
    // make tcp_transmit_skb() fail, and that is no retransmission.
    netns.command("nft", &["add", "table", "ip", "loss"])?;
    let chain = "{ type filter hook prerouting priority 0; policy accept; }";
    netns.command("nft", &["add", "chain", "ip", "loss", "arriving", chain])?;
    Ok(())
}

/// Loses the packets that arrive in `netns` and match, in nft's language; all if it is empty.
///
/// # Errors
///
/// Where nft refuses.
pub fn lose(netns: &Netns, matching: &str) -> Result<()> {
    let rule = format!("add rule ip loss arriving {matching} drop");
    netns.command("nft", &[&rule])?;
    Ok(())
}

/// Loses the first packet that arrives in `netns` and matches, and no other.
///
/// # Errors
///
/// Where nft refuses.
pub fn lose_once(netns: &Netns, matching: &str) -> Result<()> {
    lose(
        netns,
        &format!("{matching} limit rate 1/day burst 1 packets"),
    )
}

/// Loses no more.
///
/// # Errors
///
/// Where nft refuses.
pub fn mend(netns: &Netns) -> Result<()> {
    netns.command("nft", &["flush", "chain", "ip", "loss", "arriving"])?;
    Ok(())
}

/// A counter of `netns` in /proc/net/snmp or /proc/net/netstat, e.g. `RetransSegs`, among those
/// of `group` (`Tcp`, `TcpExt`).
///
/// # Errors
///
/// Where this kernel has none of that name.
pub fn netstat(netns: &Netns, group: &str, name: &str) -> Result<u64> {
    let file = if group == "TcpExt" { "netstat" } else { "snmp" };
    // /proc/net is that of the process's first thread, which lives elsewhere.
    let text = netns.run(|| {
        Ok(std::fs::read_to_string(format!(
            "/proc/thread-self/net/{file}"
        ))?)
    })?;
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values = lines.next().unwrap_or_default().split_whitespace();
    let (_, value) = names
        .zip(values)
        .find(|(found, _)| *found == name)
        .with_context(|| format!("this kernel does not count {group} {name}"))?;
    Ok(value.parse()?)
}
