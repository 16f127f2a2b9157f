//! More sockets than fit: into the ring, into the table, into a second.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    http::number,
    load::{RESET_BY_LINGER, reset_by_linger},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    session::Session,
    wait,
};

use super::{
    known::Named,
    scene::{PLAINLY, Scene, Start},
};

/// Every transition is told, through a ring of 4 KiB; nothing else is watched, so that every
/// number is this test's own.
pub(super) const RING_OF_ONE_PAGE: Start = Start {
    options: &["--ring-bytes", "4096", "--stream", "all"],
    named: Named::AsTheHost,
    ..PLAINLY
};

const RING_FULL: &str = "connstate_events_lost_total{reason=\"ring_full\"}";
const STATE_FULL: &str = "connstate_events_lost_total{reason=\"state_full\"}";
/// What its log says of either, once.
pub(super) const RECORDS_LOST: &str = "records are lost: the ring buffer was full";
pub(super) const NO_ROOM: &str = "sockets find no room in the table";

const TRANSITIONS: &str = "connstate_state_transitions_total";
const MISSES: &str = "connstate_bpf_program_misses_total{program=\"inet_sock_set_state\"}";

/// For how long connections are made once records are lost.
const GOES_ON: Duration = Duration::from_secs(3);

/// Connections that each of two threads makes between two looks.
const EACH: usize = 500;

/// As fast as two threads can.
pub(super) fn until_records_are_lost(scene: &mut Scene) -> Result<()> {
    let (netns, address) = (&scene.known.netns, scene.daemon.address());
    let mut session = netns.run(|| Session::open(address))?;
    let deadline = Instant::now() + wait::DEADLINE;
    let mut until = None;
    let (mut connections, mut lost) = (0, 0.0);
    while until.is_none_or(|until| Instant::now() < until) {
        ensure!(Instant::now() < deadline, "the ring never overflows");
        thread::scope(|scope| {
            let loads = [(); 2].map(|()| scope.spawn(|| reset_by_linger(netns, EACH)));
            loads
                .into_iter()
                .try_for_each(|load| load.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
        })?;
        connections += 2 * EACH;
        lost = session.scrape()?.value(RING_FULL)?;
        if lost > 0.0 && until.is_none() {
            until = Some(Instant::now() + GOES_ON);
        }
    }
    eprintln!("{connections} connections, {lost} records lost so far");
    Ok(())
}

/// Each transition and retransmission was told once: received, or counted as lost.
pub(super) fn told_is_received_or_lost(scene: &mut Scene) -> Result<()> {
    // One connection for all questions, for each is told of, too.
    let address = scene.daemon.address();
    let mut session = scene.known.netns.run(|| Session::open(address))?;
    let mut found = (0.0, 0.0, 0.0);
    wait::until("everything to be received", || {
        let scrape = session.scrape()?;
        let told = scrape.sum("connstate_state_transitions_total", "")
            + scrape.sum("connstate_retransmits_total", "");
        let received = scrape.value("connstate_events_total")?;
        found = (told, received, scrape.value(RING_FULL)?);
        Ok((told - received - found.2).abs() < f64::EPSILON)
    })
    .map_err(|error| error.context(format!("told, received, lost: {found:?}")))?;
    let (told, received, lost) = found;
    let misses = session.scrape()?.value(MISSES)?;
    eprintln!("{told} told = {received} received + {lost} lost; {misses} never seen");
    ensure!(lost > 0.0 && received > 0.0, "{found:?}");
    Ok(())
}

/// Sockets that never connect, connections that nobody takes, and ones that are reset: each of
/// these two have one socket and two.
const UNUSED: usize = 20_000;
const REFUSED: usize = 20_000;
const RESET: usize = 30_000;

/// Beside the known sockets, so that every number is this test's own.
pub(super) const WATCHED_ALONE: Start = Start {
    named: Named::AsTheHost,
    ..PLAINLY
};

/// One process opens and closes a hundred thousand sockets, on two threads.
pub(super) fn a_hundred_thousand_sockets(scene: &mut Scene) -> Result<()> {
    let netns = &scene.known.netns;
    let started = Instant::now();
    thread::scope(|scope| {
        let resets = scope.spawn(|| reset_by_linger(netns, RESET));
        let others = scope.spawn(|| {
            netns.run(|| {
                own_descriptors()?;
                for _ in 0..UNUSED {
                    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                }
                // A port that nobody listens on any more.
                let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                for _ in 0..REFUSED {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                    ensure!(socket.connect(&nobody.into()).is_err(), "somebody listens");
                }
                Ok(())
            })
        });
        [resets, others]
            .into_iter()
            .try_for_each(|made| made.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
    })?;
    eprintln!("opened and closed in {:?}", started.elapsed());
    Ok(())
}

/// Each end was counted by its cause, but for those that the kernel says it skipped.
pub(super) fn all_were_counted(scene: &mut Scene) -> Result<()> {
    const CONNECT_FAILED: &str = "connstate_closes_total{cause=\"connect_failed\"}";
    let [all_reset, all_refused] = [RESET, REFUSED].map(|count| number(count as u64));
    let mut risen = [0.0; 3];
    let counted = wait::until("all to be counted", || {
        let scrape = scene.scrape()?;
        for (rise, series) in risen
            .iter_mut()
            .zip([RESET_BY_LINGER, CONNECT_FAILED, MISSES])
        {
            *rise = scrape.value(series)? - scene.before.value(series)?;
        }
        // Of connections whose beginning was skipped, too.
        Ok(risen.iter().sum::<f64>() >= all_reset + all_refused)
    });
    eprintln!("reset, refused, skipped: {risen:?} of {RESET} and {REFUSED}");
    counted?;
    let [reset, refused, skipped] = risen;
    let of = |all: f64| all - skipped..=all;
    ensure!(of(all_reset).contains(&reset) && of(all_refused).contains(&refused));
    Ok(())
}

/// The smallest there is.
pub(super) const SMALL_TABLE: Start = Start {
    options: &["--socket-capacity", "1024"],
    ..PLAINLY
};

/// Connections held open at a time: six sockets for each place.
const HELD: usize = 3_000;

/// Holds so many that the table is full while the verdict is given.
pub(super) fn more_than_there_is_room_for(scene: &mut Scene) -> Result<()> {
    let netns = Netns::new()?;
    let inhabitant = netns.inhabit()?;
    let held = netns.run(|| Place::new(Family::V4).connections(HELD))?;
    scene.kept.push(Box::new((held, inhabitant, netns)));
    Ok(())
}

/// What found no room is counted as that, and as a socket all the same.
pub(super) fn no_room_is_counted(scene: &mut Scene) -> Result<()> {
    let scrape = scene.next_census()?;
    let lost = scrape.value(STATE_FULL)?;
    let entries = scrape.value("connstate_socket_state_entries")?;
    let established = scrape.value("connstate_sockets{state=\"established\"}")?;
    let [held, capacity] = [2 * HELD as u64, 1024].map(number);
    ensure!(entries > capacity * 0.9 && entries <= capacity, "{entries}");
    ensure!(established >= held, "{established}");

    // Each held socket made two transitions to where it is, and one that has no entry found no room
    // at either. Once more it found none in the first full pass over its namespace, and perhaps in
    // those beside quick passes: they make entries for those that have none (`remembered()`).
    let risen = |label| scrape.sum(TRANSITIONS, label) - scene.before.sum(TRANSITIONS, label);
    let transitions = risen("") - risen("to=\"close\"");
    let all = scrape.sum("connstate_sockets", "");
    let quick = scrape.value("connstate_census_duration_seconds_count{kind=\"known\"}")?;
    let lost = lost - scene.before.value(STATE_FULL)?;
    let least = 2.0 * (held - entries) - scrape.value(MISSES)?;
    let most = transitions + (1.0 + quick) * (all - entries);
    eprintln!(
        "{established} established, {entries} remembered, {lost} times no room of {least} to \
         {most}; {quick} quick passes"
    );
    ensure!((least..=most).contains(&lost), "{lost}");
    Ok(())
}
