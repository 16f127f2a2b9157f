//! Readers of the event stream who never read.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    daemon::Daemon,
    netns::Netns,
    place::{Family, Place, own_descriptors},
    wait,
    ways::graceful::FULL_CLOSE,
};

/// More than are served at once: 64.
const READERS: usize = 100;

/// What the agent's memory may grow by: the batches that wait for the slowest reader, 17 MiB, and
/// for each of 64 a batch as text and what the kernel has not taken of it.
const MEMORY_KIB: u64 = 64 * 1024;

const UNHEARD: &str = "connstate_events_lost_total{reason=\"slow_listener\"}";
const REFUSED: &str = "connstate_http_refused_total{reason=\"streams\"}";
const CUT_OFF: &str = "connstate_http_refused_total{reason=\"slow_reader\"}";

/// Asks for all events, and reads but the first bytes: whether it was refused.
fn reader(daemon: &Daemon) -> Result<(TcpStream, bool)> {
    let mut stream = TcpStream::connect(daemon.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /api/v1/events?mode=all HTTP/1.1\r\nHost: agent\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok((stream, status == *b"HTTP/1.1 503"))
}

#[test]
fn a_hundred_readers_who_never_read_slow_nobody() -> Result<()> {
    own_descriptors()?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("api.sock");
    let socket = socket.to_str().unwrap_or_default();
    let daemon = Daemon::start(&["--web.enable-api", "--api-socket", socket])?;
    let before = daemon.resident_kib()?;
    let readers = (0..READERS)
        .map(|_| reader(&daemon))
        .collect::<Result<Vec<_>>>()?;
    let refused = readers.iter().filter(|(_, refused)| *refused).count();
    ensure!(refused == READERS - 64, "{refused} were refused");

    // Until the readers' buffers are full: then they lose events, or are cut off after 10 s, and
    // either is counted. Everybody else is served meanwhile.
    let netns = Netns::new()?;
    let (mut longest, mut told) = (Duration::ZERO, String::new());
    wait::until("readers that do not take what they asked for", || {
        netns.run(|| {
            own_descriptors()?;
            (FULL_CLOSE.go)(&Place::new(Family::V4), 400)
        })?;
        let started = Instant::now();
        let scrape = daemon.scrape()?;
        longest = longest.max(started.elapsed());
        let (unheard, cut_off) = (scrape.value(UNHEARD)?, scrape.value(CUT_OFF)?);
        told = format!("{unheard} events lost by readers, {cut_off} readers cut off");
        Ok(unheard + cut_off > 0.0 && scrape.value(REFUSED)? >= 36.0)
    })?;
    let grown = daemon.resident_kib()?.saturating_sub(before);
    eprintln!(
        "{told}; the longest scrape took {longest:?}; memory grew by {grown} KiB of {MEMORY_KIB} KiB"
    );
    ensure!(longest < Duration::from_secs(1), "{longest:?}");
    ensure!(grown < MEMORY_KIB, "{grown} KiB");
    Ok(())
}
