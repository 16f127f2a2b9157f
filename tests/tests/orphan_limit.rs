//! Orphans killed at `tcp_max_orphans`. The limit is the whole host's, so this test has a binary
//! of its own, and lowers it for a few milliseconds at a time.

use std::{
    fs::{File, OpenOptions},
    net::Shutdown,
    os::unix::fs::FileExt as _,
    thread,
    time::Duration,
};

use agent::limits::Limits;
use agent_ebpf::{
    close::CloseCause::{OrphanLimit, ResetReceived},
    state::TcpState::{Close, CloseWait, FinWait1, FinWait2},
};
use anyhow::{Context as _, Result, ensure};
use socket2::Socket;
use tests::{
    exact::{Before, unskipped},
    filter::{Filter, Packets},
    netns::Netns,
    place::{Family, Place, own_descriptors, reset, set_linger2},
    trace::Trace,
    wait::{all_in, clients_in, tcp_info, until},
    watch::Watch,
    ways::{graceful::FULL_CLOSE, reset::RESET_IN_FIN_WAIT2},
};

/// Where it is, which only the first network namespace has.
const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_orphans";
const N: usize = 20;

/// The limit at zero. It is what it was when this value ends.
struct NoOrphans<'a> {
    file: &'a File,
    before: String,
}

impl<'a> NoOrphans<'a> {
    fn allowed(file: &'a File) -> Result<Self> {
        let mut before = [0; 32];
        let length = file.read_at(&mut before, 0)?;
        let before = String::from_utf8_lossy(&before[..length]).into_owned();
        let guard = Self { file, before };
        file.write_at(b"0", 0)?;
        Ok(guard)
    }
}

impl Drop for NoOrphans<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.file.write_at(self.before.as_bytes(), 0) {
            eprintln!("{LIMIT} is not restored to {}: {error}", self.before);
        }
    }
}

#[test]
fn orphans_above_the_limit_are_told() -> Result<()> {
    let limit = match OpenOptions::new().read(true).write(true).open(LIMIT) {
        Ok(limit) => limit,
        Err(error) => {
            eprintln!("skipped: {LIMIT} cannot be written: {error}");
            return Ok(());
        }
    };
    unskipped(|| {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        let before = Before::now(&watch)?;
        let predicted = netns.run(|| {
            own_descriptors()?;
            let predicted = kill_orphans(&limit)?;
            // What connstate_orphan_kills_total adds up: the namespace is new, so all are these.
            let kills = Limits::read().mibs.get("TCPAbortOnMemory");
            ensure!(kills == Some(2 * N as u64 + 1), "{kills:?} killed");
            Ok(predicted)
        })?;
        let skipped = before.settle(&watch, predicted.total())?;
        if skipped.is_none() {
            predicted.compare(&watch)?;
        }
        Ok(skipped)
    })
}

/// Closes sockets at the limit, in FIN_WAIT1 and in FIN_WAIT2, and tells what all of it leaves.
fn kill_orphans(limit: &File) -> Result<Trace> {
    // Orphans that no timer touches: above a limit of zero there must be some.
    let ballast_place = Place::new(Family::V4);
    let ballast = ballast_place.connections(N)?;
    for client in &ballast.clients {
        set_linger2(client, 120)?;
    }
    drop(ballast.clients);
    clients_in(ballast_place.port, "fin-wait-2", N)?;

    let in_fin_wait1 = Place::new(Family::V4).connections(N)?;
    let in_fin_wait2 = Place::new(Family::V6).connections(N)?;
    for client in &in_fin_wait2.clients {
        set_linger2(client, 120)?;
        client.shutdown(Shutdown::Write)?;
    }
    all_in(&in_fin_wait2.clients, FinWait2)?;

    let survivors = wait_for_the_count(limit)?;
    {
        let _low = NoOrphans::allowed(limit)?;
        drop(in_fin_wait1.clients);
        drop(in_fin_wait2.clients);
    }
    all_in(&in_fin_wait1.servers, Close)?;
    all_in(&in_fin_wait2.servers, Close)?;
    reset(ballast.servers)?;
    clients_in(ballast_place.port, "all", 0)?;

    let at_close =
        Trace::client(&[FinWait1], OrphanLimit).and(Trace::server(&[CloseWait], ResetReceived));
    let in_fin_wait2 = Trace::client(&[FinWait1, FinWait2, FinWait2], OrphanLimit)
        .and(Trace::server(&[CloseWait], ResetReceived));
    Ok(at_close
        .times(N + 1)
        .and(in_fin_wait2.times(N))
        .and(Trace::listener().times(2))
        .and((RESET_IN_FIN_WAIT2.leaves)(N))
        .and((FULL_CLOSE.leaves)(survivors)))
}

/// `tcp_too_many_orphans()` reads a count that a timer refreshes every 100 ms, which nothing
/// shows: closes one connection after another until one is killed, and tells how many were not.
fn wait_for_the_count(limit: &File) -> Result<usize> {
    let place = Place::new(Family::V4);
    let listener = place.listen()?;
    let _no_bare_ack = Filter::drop(place.port, Packets::ServerAcks)?;
    let mut survivors = 0;
    until("the orphans to be counted", || {
        let client = place.connect()?;
        let server: Socket = listener.accept()?.0;
        {
            let _low = NoOrphans::allowed(limit)?;
            drop(client);
        }
        let state = || -> Result<u8> { Ok(tcp_info(&server)?.tcpi_state) };
        until("the FIN or the RST", || {
            Ok(state()? == CloseWait as u8 || state()? == Close as u8)
        })?;
        // The RST follows the FIN out of the same close().
        if state()? == Close as u8 {
            return Ok(true);
        }
        survivors += 1;
        thread::sleep(Duration::from_millis(10));
        ensure!(state()? == CloseWait as u8, "killed after close()");
        Ok(false)
    })
    .context("no orphan was killed")?;
    Ok(survivors)
}
