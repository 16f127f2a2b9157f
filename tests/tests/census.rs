//! The census against `ss`, state by state.

use std::{
    collections::BTreeSet,
    net::{Shutdown, TcpStream},
};

use agent::{census::Census, detectors::Thresholds};
use agent_ebpf::{
    census::{CensusCounts, PORT_WORDS, SocketRecord},
    state::{
        STATE_COUNT,
        TcpState::{
            self, Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen,
            SynRecv, SynSent, TimeWait,
        },
    },
};
use anyhow::{Context as _, Result, ensure};
use socket2::Socket;
use tests::{
    censuses::{Censuses, of},
    link::{Link, lose},
    netns::Netns,
    place::{Connections, Family, Place},
    states::{States, by_ss},
    wait::{self, all_in},
    watch::Watch,
};

/// The states of `counts` that are not zero.
fn states(counts: &[u64; STATE_COUNT]) -> States {
    let all = TcpState::ALL.into_iter();
    all.map(|state| (state.name(), counts[state as usize]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn expected(states: &[(TcpState, u64)]) -> States {
    let states = states.iter();
    states
        .map(|(state, count)| (state.name(), *count))
        .collect()
}

/// Sockets that are held as they are.
#[derive(Default)]
struct Held {
    streams: Vec<TcpStream>,
    sockets: Vec<Socket>,
    connections: Vec<Connections>,
}

/// Two namespaces with sockets in every state but close.
fn every_state(held: &mut Held) -> Result<(Link, [States; 2])> {
    let link = Link::new()?;
    let listener = link.listen()?;
    let connect = |n: usize| -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
        let pairs = (0..n).map(|_| link.connect(&listener));
        Ok(pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    };
    let shut = |streams: &[TcpStream]| {
        streams
            .iter()
            .try_for_each(|stream| stream.shutdown(Shutdown::Write))
    };
    let established = connect(2)?;
    // FIN_WAIT2 as full sockets, as minisockets, and TIME_WAIT.
    let half_closed = connect(3)?;
    shut(&half_closed.0)?;
    all_in(&half_closed.0, FinWait2)?;
    let orphaned = connect(4)?;
    drop(orphaned.0);
    all_in(&orphaned.1, CloseWait)?;
    let done = connect(5)?;
    drop(done.0);
    all_in(&done.1, CloseWait)?;
    drop(done.1);
    // From here on nothing of the client's arrives.
    let cut = connect(6)?;
    let crossed = connect(7)?;
    let last = connect(8)?;
    shut(&last.0)?;
    all_in(&last.1, CloseWait)?;
    lose(&link.server, "tcp flags ack / syn,ack")?;
    shut(&cut.0)?;
    all_in(&cut.0, FinWait1)?;
    shut(&crossed.0)?;
    all_in(&crossed.0, FinWait1)?;
    shut(&crossed.1)?;
    all_in(&crossed.0, Closing)?;
    // The client's own FIN was acknowledged before: it passes into TIME_WAIT.
    shut(&last.1)?;
    all_in(&last.1, LastAck)?;
    all_in(&last.0, Close)?;
    // The handshake's last segment is lost, too: the client takes itself for connected.
    let half_open = (0..9)
        .map(|_| link.begin_connect(listener.local_addr()?))
        .collect::<Result<Vec<_>>>()?;
    all_in(&half_open, Established)?;
    lose(&link.server, "")?;
    let connecting = (0..10)
        .map(|_| link.begin_connect(listener.local_addr()?))
        .collect::<Result<Vec<_>>>()?;
    let client = expected(&[
        (Established, 2 + 9),
        (SynSent, 10),
        (FinWait1, 6),
        (FinWait2, 3 + 4),
        (TimeWait, 5 + 8),
        (Closing, 7),
    ]);
    let server = expected(&[
        (Established, 2 + 6),
        (SynRecv, 9),
        (FinWait1, 7),
        (CloseWait, 3 + 4),
        (LastAck, 8),
        (Listen, 1),
    ]);
    for (clients, servers) in [established, half_closed, cut, crossed, last] {
        held.streams.extend(clients);
        held.streams.extend(servers);
    }
    held.streams.extend(orphaned.1);
    held.sockets.extend(half_open);
    held.sockets.extend(connecting);
    held.sockets.push(listener.into());
    Ok((link, [client, server]))
}

/// Waits for a census that finds what is `expected` in each namespace, and has `ss` say the same.
fn agrees(censuses: &Censuses, expected: &[(&Netns, &States)]) -> Result<Census> {
    for (netns, expected) in expected {
        let mut found = States::new();
        let waited = wait::until("the sockets to be as they shall", || {
            found = by_ss(netns)?;
            Ok(found == **expected)
        });
        waited.with_context(|| format!("ss finds {found:?}, not {expected:?}"))?;
    }
    let census = censuses.fresh()?;
    for (netns, expected) in expected {
        let namespace = of(&census, netns).context("a namespace is missing")?;
        let found = states(&namespace.counts.states);
        ensure!(found == **expected, "{found:?}, not {expected:?}");
        ensure!(found == by_ss(netns)?, "ss finds something else by now");
    }
    Ok(census)
}

#[test]
fn every_state_in_three_namespaces_is_what_ss_shows() -> Result<()> {
    let mut held = Held::default();
    let (link, [client, server]) = every_state(&mut held)?;
    let third = Netns::new()?;
    third.run(|| {
        for family in Family::ALL {
            held.connections.push(Place::new(family).connections(11)?);
        }
        Ok(())
    })?;
    let local = expected(&[(Established, 66), (Listen, 3)]);
    let _inhabitants = [
        link.client.inhabit()?,
        link.server.inhabit()?,
        third.inhabit()?,
    ];
    let mut watch = Watch::new(&third)?;
    let censuses = Censuses::start(&mut watch, 0, Thresholds::default())?;
    let all = [
        (&link.client, &client),
        (&link.server, &server),
        (&third, &local),
    ];
    let census = agrees(&censuses, &all)?;
    let counts = of(&census, &link.client)
        .context("the client's is gone")?
        .counts;
    ensure!(counts.minisockets == 4 + 5 + 8, "{}", counts.minisockets);
    ensure!(counts.orphans.iter().sum::<u64>() == 0);
    // A process that goes leaves what TCP still holds. The client's FINs are lost, the server's
    // arrive: only where the server never had a connection does its end stay in FIN_WAIT1.
    drop(held);
    let mut found = [States::new(), States::new()];
    let waited = wait::until("the orphans", || {
        let census = censuses.next()?;
        found = [&link.client, &link.server].map(|netns| {
            let counts = of(&census, netns).map(|found| found.counts.orphans);
            states(&counts.unwrap_or([0; STATE_COUNT]))
        });
        Ok(found
            == [
                expected(&[(FinWait1, 9), (Closing, 7 + 6 + 2)]),
                expected(&[(FinWait1, 7 + 6 + 2), (LastAck, 8 + 3 + 4)]),
            ])
    });
    waited.with_context(|| format!("{found:?}"))?;
    Ok(())
}

#[test]
fn namespaces_come_and_go_while_they_are_counted() -> Result<()> {
    let staying = Netns::new()?;
    let _inhabitant = staying.inhabit()?;
    let _held = staying.run(|| Place::new(Family::V6).connections(3))?;
    let expected = expected(&[(Established, 6), (Listen, 1)]);
    let mut watch = Watch::new(&staying)?;
    let censuses = Censuses::start(&mut watch, 0, Thresholds::default())?;
    let mut seen = 0;
    let mut rounds = 0;
    while seen < 3 {
        ensure!(rounds < 50, "seen {seen} times in {rounds} rounds");
        rounds += 1;
        let passing = Netns::new()?;
        let inhabitant = passing.inhabit()?;
        let held = passing.run(|| Place::new(Family::V4).connections(2))?;
        let census = censuses.next()?;
        seen += usize::from(of(&census, &passing).is_some());
        let counts = of(&census, &staying).context("the other is gone")?.counts;
        ensure!(states(&counts.states) == expected);
        drop((held, inhabitant));
    }
    Ok(())
}

#[test]
fn one_namespace_alone_where_asked_for() -> Result<()> {
    let [asked, other] = [Netns::new()?, Netns::new()?];
    let _inhabitants = [asked.inhabit()?, other.inhabit()?];
    let _held = other.run(|| Place::new(Family::V4).connections(2))?;
    let mut watch = Watch::new(&asked)?;
    let censuses = Censuses::start(&mut watch, asked.inode(), Thresholds::default())?;
    let census = censuses.next()?;
    ensure!(census.namespaces.len() == 1 && census.unreached == 0);
    let counts = of(&census, &asked).context("it was not counted")?.counts;
    ensure!(counts == CensusCounts::ZERO);
    Ok(())
}

/// Full sockets by state, and the cookies of those that were told one by one.
type Found = (States, BTreeSet<u64>);

fn found(counts: &CensusCounts, sockets: &[SocketRecord]) -> Found {
    let cookies = sockets.iter().map(|record| record.socket.cookie);
    (states(&counts.states), cookies.collect())
}

#[test]
fn a_quick_pass_finds_the_full_sockets_that_a_full_one_finds() -> Result<()> {
    let netns = Netns::new()?;
    let place = Place::new(Family::V6);
    // These are older than the programs, the others are not.
    let old = netns.run(|| place.connections(10))?;
    let mut watch = Watch::new(&netns)?;
    let young = netns.run(|| Place::new(Family::V4).connections(20))?;
    let mut reader = watch.kernel().take_census()?.context("no census")?;
    for connections in [&old, &young] {
        let clients = &connections.clients[..4];
        clients
            .iter()
            .try_for_each(|client| client.shutdown(Shutdown::Write))?;
        all_in(clients, FinWait2)?;
        all_in(&connections.servers[..4], CloseWait)?;
    }
    let everything_taken = [u64::MAX; PORT_WORDS];
    let mut pass = |remember| -> Result<[Found; 2]> {
        let full = netns.run(|| Ok(reader.read(&everything_taken, remember)?))?;
        let known = reader.read_known()?;
        let mut namespaces = known.namespaces.iter();
        let counts = namespaces
            .find(|(inode, _)| *inode == netns.inode())
            .map_or(CensusCounts::ZERO, |(_, counts)| *counts);
        Ok([
            found(&full.counts, &full.sockets),
            found(&counts, &known.sockets),
        ])
    };
    let [full, known] = pass(false)?;
    let expected = expected(&[
        (Established, 44),
        (FinWait2, 8),
        (CloseWait, 8),
        (Listen, 2),
    ]);
    ensure!(full.0 == expected, "{full:?}");
    // Of the old ones, at most those that changed their state under the programs' eyes are known.
    ensure!(known.0["established"] <= 32, "{known:?}");
    // A full pass that remembers makes the rest known; and once they linger, all are told.
    let mut last = [full, known];
    wait::until("both passes to find the same", || {
        last = pass(true)?;
        Ok(last[0] == last[1] && last[0].0 == expected && last[0].1.len() == 18)
    })
    .with_context(|| format!("{last:?}"))?;
    drop((old, young));
    Ok(())
}
