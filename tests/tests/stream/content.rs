//! What a record says of its socket.

use std::{net::SocketAddr, time::Instant};

use agent::decode::Transition;
use agent_ebpf::{
    close::CloseCause,
    maps::RING_BYTES,
    state::TcpState::{
        self, Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
    },
};
use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    exact::{Before, Skipped, unskipped},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    tape::{steps, transitions},
    wait::{all_in, minisockets, until},
    watch::{Watch, all_transitions},
};

/// One end of a connection, as its process knows it.
struct End {
    cookie: u64,
    local: SocketAddr,
    remote: SocketAddr,
}

impl End {
    fn of(socket: &Socket) -> Result<Self> {
        let address = |address: socket2::SockAddr| address.as_socket().context("no IP address");
        Ok(Self {
            cookie: socket.cookie()?,
            local: address(socket.local_addr()?)?,
            remote: address(socket.peer_addr()?)?,
        })
    }

    fn records(&self, all: &[Transition]) -> Vec<Transition> {
        let own = |record: &&Transition| record.socket.cookie == Some(self.cookie);
        all.iter().filter(own).copied().collect()
    }
}

#[test]
fn records_tell_the_socket() -> Result<()> {
    Family::ALL
        .into_iter()
        .try_for_each(|family| unskipped(|| one_of(family)))
}

fn one_of(family: Family) -> Result<Skipped> {
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, RING_BYTES))?;
    let mut ring = watch.kernel().take_ring()?;
    let misses = Before::now(&watch)?;
    let (client, server, shortest, longest) = netns.run(|| {
        own_descriptors()?;
        let place = Place::new(family);
        let mut connections = place.connections(1)?;
        let client = connections.clients.pop().context("one")?;
        let (client_end, server_end) = (End::of(&client)?, End::of(&connections.servers[0])?);
        let before = Instant::now();
        drop(client);
        all_in(&connections.servers, CloseWait)?;
        let begun = Instant::now();
        minisockets(place.port, 1)?;
        let shortest = begun.elapsed();
        drop(connections.servers);
        Ok((client_end, server_end, shortest, before.elapsed()))
    })?;
    let skipped = misses.settle(&watch, 12)?;
    if !skipped.is_none() {
        return Ok(skipped);
    }
    let all = transitions(&mut ring)?;
    ensure!(all.len() == 12, "{all:#?}");
    for record in &all {
        ensure!(record.socket.netns == Some(netns.inode()), "{record:#?}");
    }

    let of_client = client.records(&all);
    let way = [
        (Close, SynSent),
        (SynSent, Established),
        (Established, FinWait1),
        (FinWait1, FinWait2),
        (FinWait2, Close),
    ];
    ensure!(steps(&of_client) == way, "{all:#?}");
    // tcp_v4_connect() looks for a local port after it has set SYN_SENT.
    addressed(&of_client[1..], &client)?;
    ensure!(
        of_client[0].socket.remote == client.remote,
        "{of_client:#?}"
    );
    ensure!(of_client[0].socket.local.port() == 0, "{of_client:#?}");
    ensure!(of_client[4].cause == Some(CloseCause::FinWait2TimeWait));
    ensure!(of_client[4].socket.orphan, "{of_client:#?}");

    let of_server = server.records(&all);
    let way = [
        (Listen, SynRecv),
        (SynRecv, Established),
        (Established, CloseWait),
        (CloseWait, LastAck),
        (LastAck, Close),
    ];
    ensure!(steps(&of_server) == way, "{all:#?}");
    addressed(&of_server, &server)?;
    ensure!(of_server[4].cause == Some(CloseCause::Passive));

    // The rest of a connection's records have the process that opened or closed it.
    let own = Some(std::process::id());
    for record in of_client.iter().chain(&of_server) {
        let known = !matches!(record.to, SynRecv | CloseWait) && !matches!(record.from, SynRecv);
        ensure!(
            record.socket.pid == if known { own } else { None },
            "{record:#?}"
        );
        let causeless = record.cause.is_none();
        ensure!(causeless == (record.to != Close), "{record:#?}");
        let timed = !matches!(record.from, Close | Listen);
        ensure!(record.duration.is_some() == timed, "{record:#?}");
    }
    let waited = of_server[3].duration.context("known")?;
    ensure!(
        shortest <= waited && waited <= longest,
        "CLOSE_WAIT lasted {shortest:?} to {longest:?}, not {waited:?}"
    );
    ensure!(all.windows(2).all(|two| two[0].at <= two[1].at), "{all:#?}");
    Ok(skipped)
}

fn addressed(records: &[Transition], end: &End) -> Result<()> {
    for record in records {
        let socket = record.socket;
        ensure!(
            (socket.local, socket.remote) == (end.local, end.remote),
            "not {} to {}: {record:#?}",
            end.local,
            end.remote
        );
    }
    Ok(())
}

/// An MPTCP socket emits the same tracepoint, but is no `tcp_sock`; its subflows are.
#[test]
fn mptcp_counts_by_its_subflows() -> Result<()> {
    unskipped(mptcp)
}

fn mptcp() -> Result<Skipped> {
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, RING_BYTES))?;
    let mut ring = watch.kernel().take_ring()?;
    let before = Before::now(&watch)?;
    let made = netns.run(|| {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
        let listener = match mptcp() {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("skipped: no MPTCP socket can be made: {error}");
                return Ok(false);
            }
        };
        listener.bind(&place.address().into())?;
        listener.listen(1)?;
        let client = mptcp()?;
        client.connect(&place.address().into())?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        Ok(true)
    })?;
    if !made {
        return before.skipped(&watch);
    }
    let closed = |watch: &Watch| -> Result<u64> { Ok(watch.counters()?.closes.iter().sum()) };
    until("both subflows and the listener to close", || {
        Ok(closed(&watch)? >= 3 || !before.skipped(&watch)?.is_none())
    })?;
    let skipped = before.skipped(&watch)?;
    if !skipped.is_none() {
        return Ok(skipped);
    }
    let counters = watch.counters()?;
    let count = |from: TcpState, to: TcpState| counters.transitions[from as usize][to as usize];
    for (from, to) in [
        (Close, Listen),
        (Listen, Close),
        (Close, SynSent),
        (SynSent, Established),
        (Listen, SynRecv),
        (SynRecv, Established),
    ] {
        ensure!(
            count(from, to) == 1,
            "{from:?} -> {to:?}: {}",
            count(from, to)
        );
    }
    ensure!(closed(&watch)? == 3);
    for record in transitions(&mut ring)? {
        ensure!(record.socket.local.ip() == Family::V4.address() || record.from == Close);
        ensure!(record.socket.netns == Some(netns.inode()));
    }
    Ok(skipped)
}
