//! Which transitions each mode tells.

use std::time::{Duration, Instant};

use agent_ebpf::{
    record::{LATE_AFTER_NS, StreamMode},
    state::TcpState::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck},
};
use anyhow::{Context as _, Result, ensure};
use tests::{
    disturbed::{Disturbed, undisturbed},
    exact::{Before, Skipped, unskipped},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    tape::{steps, transitions},
    wait::{minisockets, until},
    watch::Watch,
};

use super::options;

#[test]
fn late_tells_the_socket_that_lingered() -> Result<()> {
    undisturbed(|| unskipped(late))
}

fn late() -> Result<Skipped> {
    let late = Duration::from_nanos(LATE_AFTER_NS);
    let netns = Netns::new()?;
    let mut watch = Watch::with(&options(&netns, StreamMode::Late))?;
    let mut ring = watch.kernel().take_ring()?;
    let before = Before::now(&watch)?;
    let (cookie, prompt) = netns.run(|| {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let mut connections = place.connections(2)?;
        let begun = Instant::now();
        drop(connections.clients);
        minisockets(place.port, 2)?;
        let waiting = Instant::now();
        let late_one = connections.servers.pop().context("two")?;
        drop(connections.servers);
        let prompt = begun.elapsed();
        until("one to be late", || Ok(waiting.elapsed() > late))?;
        Ok((late_one.cookie()?, prompt))
    })?;
    if prompt > late {
        return Err(Disturbed(format!("the prompt ones took {prompt:?}")).into());
    }
    let skipped = before.settle(&watch, 22)?;
    if !skipped.is_none() {
        return Ok(skipped);
    }
    let told = transitions(&mut ring)?;
    ensure!(steps(&told) == [(CloseWait, LastAck)], "{told:#?}");
    ensure!(told[0].socket.cookie == Some(cookie), "{told:#?}");
    ensure!(told[0].duration > Some(late), "{told:#?}");
    Ok(skipped)
}

#[test]
fn lingering_tells_the_ways_in_and_out() -> Result<()> {
    unskipped(lingering)
}

fn lingering() -> Result<Skipped> {
    let netns = Netns::new()?;
    let mut watch = Watch::with(&options(&netns, StreamMode::Lingering))?;
    let mut ring = watch.kernel().take_ring()?;
    let before = Before::now(&watch)?;
    netns.run(|| {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let connections = place.connections(1)?;
        drop(connections.clients);
        minisockets(place.port, 1)
    })?;
    let skipped = before.settle(&watch, 12)?;
    if !skipped.is_none() {
        return Ok(skipped);
    }
    let mut told = steps(&transitions(&mut ring)?);
    told.sort();
    let mut wanted = [
        (Established, FinWait1),
        (FinWait1, FinWait2),
        (FinWait2, Close),
        (Established, CloseWait),
        (CloseWait, LastAck),
        (LastAck, Close),
    ];
    wanted.sort();
    ensure!(told == wanted, "{told:?}");
    Ok(skipped)
}
