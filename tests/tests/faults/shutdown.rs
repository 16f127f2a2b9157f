//! SIGTERM while pages are being read.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use tests::{
    random::Random,
    wait::{self, DEADLINE},
};

use super::scene::Scene;

const TIMES: u64 = 6;
const SCRAPERS: usize = 3;
const LONGEST_MS: u64 = 200;

/// Ends it so at six random moments, and starts it again each time.
pub(super) fn six_times(scene: &mut Scene) -> Result<()> {
    let mut random = Random::new()?;
    let mut whole = 0;
    for _ in 0..TIMES {
        let (stopped, address) = (AtomicBool::new(false), scene.daemon.address());
        whole += thread::scope(|scope| {
            let scrapers = [(); SCRAPERS].map(|()| scope.spawn(|| read_on(address, &stopped)));
            thread::sleep(Duration::from_millis(100 + random.below(LONGEST_MS)));
            let started = Instant::now();
            scene.daemon.signal(Signal::SIGTERM)?;
            let ended = wait::until("its end", || Ok(!scene.is_alive()));
            stopped.store(true, Ordering::Relaxed);
            let (mut pages, mut none) = (0, 0);
            for scraper in scrapers {
                let (whole, nothing) =
                    scraper.join().unwrap_or_else(|_| Err(anyhow!("a panic")))?;
                (pages, none) = (pages + whole, none + nothing);
            }
            eprintln!(
                "{pages} whole pages, {none} times none; it took {:?} to end",
                started.elapsed()
            );
            ended?;
            Ok::<_, anyhow::Error>(pages)
        })?;
        let log = scene.daemon.log();
        let said = log
            .iter()
            .any(|line| line.contains("stopped: every program and map is gone"));
        ensure!(said, "{log:?}");
        scene.restart()?;
    }
    ensure!(whole > 0, "no page was read");
    Ok(())
}

/// Reads pages, one after the other, until it is over: how many there were, and how often none.
fn read_on(address: SocketAddr, stopped: &AtomicBool) -> Result<(usize, usize)> {
    let (mut pages, mut none) = (0, 0);
    while !stopped.load(Ordering::Relaxed) {
        if page(address)? {
            pages += 1;
        } else {
            none += 1;
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok((pages, none))
}

/// Whether there was a whole page, of the length it says; a part of one is an error.
fn page(address: SocketAddr) -> Result<bool> {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, DEADLINE) else {
        return Ok(false);
    };
    stream.set_read_timeout(Some(DEADLINE))?;
    let asked =
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    let read = asked.and_then(|()| stream.read_to_end(&mut bytes));
    if bytes.is_empty() {
        // Closed, or reset.
        return Ok(false);
    }
    read.context("a part of an answer")?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("a part of a head")?;
    let head = head.to_lowercase();
    ensure!(head.starts_with("http/1.1 200 "), "{head}");
    let Some(length) = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
    else {
        bail!("an answer of no length: {head}");
    };
    ensure!(
        length.parse() == Ok(body.len()),
        "{} of {length} bytes",
        body.len()
    );
    ensure!(body.ends_with('\n'), "a part of a line");
    Ok(true)
}
