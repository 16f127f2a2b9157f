//! `ss`, again and again: which states sockets are seen in.

use std::net::SocketAddr;

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result, bail};
use tests::{netns::Netns, states::States};

use super::step::Key;

/// A socket that was seen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glimpse {
    /// Which namespace of the plan it is in.
    pub(super) namespace: usize,
    /// Which socket.
    pub(super) key: Key,
    /// The state.
    pub(super) state: TcpState,
}

/// Those that there are in a namespace: as often as each is listed.
pub(super) fn list(namespace: usize, netns: &Netns) -> Result<Vec<Glimpse>> {
    let lines = netns.command("ss", &["-Htan"])?;
    let glimpses = lines.lines().map(|line| parse(namespace, line));
    let glimpses = glimpses.collect::<Result<Vec<_>>>()?;
    Ok(glimpses.into_iter().flatten().collect())
}

/// Their numbers by state, of one port or of all.
pub(super) fn by_state(glimpses: &[Glimpse], port: Option<u16>) -> States {
    let mut states = States::new();
    let of_port = |glimpse: &&Glimpse| port.is_none_or(|port| glimpse.key.port == port);
    for glimpse in glimpses.iter().filter(of_port) {
        *states.entry(glimpse.state.name()).or_default() += 1;
    }
    states
}

/// Of a line like `ESTAB 0 0 127.0.0.1:30001 127.0.0.1:41496`.
fn parse(namespace: usize, line: &str) -> Result<Option<Glimpse>> {
    let mut words = line.split_ascii_whitespace();
    let state = match words.next().unwrap_or_default() {
        "ESTAB" => TcpState::Established,
        "SYN-SENT" => TcpState::SynSent,
        "SYN-RECV" => TcpState::SynRecv,
        "FIN-WAIT-1" => TcpState::FinWait1,
        "FIN-WAIT-2" => TcpState::FinWait2,
        "TIME-WAIT" => TcpState::TimeWait,
        "UNCONN" => TcpState::Close,
        "CLOSE-WAIT" => TcpState::CloseWait,
        "LAST-ACK" => TcpState::LastAck,
        "LISTEN" => TcpState::Listen,
        "CLOSING" => TcpState::Closing,
        other => bail!("a state unknown here: {other}"),
    };
    let mut ends = words.skip(2).map(port);
    let ends = ends.next().zip(ends.next());
    let (local, remote) = ends.with_context(|| format!("a short line: {line}"))?;
    let key = Key::of(local?, remote?);
    Ok(key.map(|key| Glimpse {
        namespace,
        key,
        state,
    }))
}

/// The port of an address; 0 where it is any.
fn port(address: &str) -> Result<u16> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(address.port());
    }
    let (_, port) = address.rsplit_once(':').context("no port")?;
    if port == "*" {
        Ok(0)
    } else {
        Ok(port.parse()?)
    }
}

#[test]
fn a_line_of_ss_names_a_socket_and_its_state() -> Result<()> {
    let read = |line| parse(1, line);
    let of = |local, remote, state| {
        Key::of(local, remote).map(|key| Glimpse {
            namespace: 1,
            key,
            state,
        })
    };
    assert_eq!(
        read("LISTEN 0 4096 [::ffff:127.0.0.1]:30001 *:*")?,
        of(30_001, 0, TcpState::Listen)
    );
    assert_eq!(
        read("FIN-WAIT-2 0 0 [::1]:41496 [::1]:30001")?,
        of(41_496, 30_001, TcpState::FinWait2)
    );
    assert_eq!(read("ESTAB 0 0 127.0.0.1:41496 127.0.0.1:443")?, None);
    assert!(read("BOUND 0 0 127.0.0.1:41496 127.0.0.1:443").is_err());
    Ok(())
}
