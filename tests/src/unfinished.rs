//! What keeps a socket in FIN_WAIT1, and another in LAST_ACK: both wait for the peer to
//! acknowledge everything, so each is put through the same.

use std::{
    io::{ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use agent::detectors::{Cause, Detector, EndedBy};
use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;

use crate::{
    disturbed::Disturbed,
    stall::{
        Closed, Connection, Fate, First, Found, Scene, SlowReader, Vigil, foretold, is_own,
        on_scene,
    },
};

const FATES: [Fate; 2] = [Fate::Closed, Fate::Held];

/// A state that waits for the peer to acknowledge everything.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    state: TcpState,
    detector: Detector,
    first: First,
}

/// This end has closed first.
pub const FIN_WAIT1: Unfinished = Unfinished {
    state: TcpState::FinWait1,
    detector: Detector::FinWait1,
    first: First::Own,
};

/// The peer has.
pub const LAST_ACK: Unfinished = Unfinished {
    state: TcpState::LastAck,
    detector: Detector::LastAck,
    first: First::Peer,
};

impl Unfinished {
    /// A path cut with the FIN alone in flight, as an orphan and held.
    ///
    /// # Errors
    ///
    /// Where something else is found.
    pub fn cut_with_the_fin_alone(self) -> Result<()> {
        self.each_fate(
            |scene| {
                let connection = scene.connect(self.first)?;
                scene.cut(&connection)?;
                Ok(connection)
            },
            |found, fate| {
                has_cause(found, Cause::Unacked)?;
                let socket = &found.socket;
                ensure!(socket.in_flight == 1 && socket.unsent == 0, "{socket:#?}");
                ensure!(socket.retransmits > 0, "{socket:#?}");
                ends_by_retries(found, fate)
            },
        )
    }

    /// A path cut with data queued, of which the first part is in flight.
    ///
    /// # Errors
    ///
    /// Where something else is found.
    pub fn cut_with_data_queued(self) -> Result<()> {
        self.each_fate(
            |scene| {
                let connection = scene.connect(self.first)?;
                scene.cut(&connection)?;
                send_some(&connection.client)?;
                Ok(connection)
            },
            |found, fate| {
                has_cause(found, Cause::Unacked)?;
                let socket = &found.socket;
                ensure!(socket.in_flight > 1 && socket.unsent > 1, "{socket:#?}");
                ensure!(
                    socket.retransmits > 0 && socket.peer_window > 0,
                    "{socket:#?}"
                );
                ends_by_retries(found, fate)
            },
        )
    }

    /// A peer that has closed its window, never reads, and answers probes.
    ///
    /// # Errors
    ///
    /// Where something else is found.
    pub fn a_peer_that_never_reads(self) -> Result<()> {
        self.each_fate(
            |scene| scene.connect_and_fill(self.first),
            |found, fate| {
                has_cause(found, Cause::ZeroWindow)?;
                let socket = &found.socket;
                ensure!(socket.unsent > 1 && socket.in_flight == 0, "{socket:#?}");
                let end = socket.end;
                match (fate, end.after) {
                    (Fate::Held, None) => ensure!(end.by == EndedBy::Nothing, "{end:?}"),
                    // Whatever the retries: once the time between probes is the longest.
                    (Fate::Closed, Some(after)) => {
                        let total = (socket.age.at_least + after).as_secs();
                        eprintln!("an orphan whose peer never reads lives for {total} s");
                        ensure!(end.by == EndedBy::OrphanRetries, "{end:?}");
                        ensure!((200..500).contains(&total), "it would live for {total} s");
                    }
                    _ => anyhow::bail!("{fate:?} ends so: {end:?}"),
                }
                Ok(())
            },
        )
    }

    /// A peer that reads a little now and then. What it makes room for is sent and acknowledged
    /// at once, so that nothing is in flight nearly always; what is acknowledged tells.
    ///
    /// # Errors
    ///
    /// Where something else is found.
    pub fn a_peer_that_reads_slowly(self) -> Result<()> {
        on_scene(&[], |scene| {
            let mut peers = Vec::new();
            for fate in FATES {
                let connection = scene.connect_and_fill(self.first)?;
                let reader = SlowReader::of(&connection.server)?;
                peers.push((reader, connection.close(fate)?));
            }
            for (_, closed) in &peers {
                // It shows once two censuses have seen a part acknowledged.
                let first =
                    scene.find(closed.local, |found| found.stall.cause == Cause::Draining)?;
                self.belongs(&first, closed, scene.port()?)?;
                let then = first.socket.unsent;
                let later = scene.find(closed.local, |found| found.socket.unsent < then)?;
                has_cause(&later, Cause::Draining)?;
                let end = later.socket.end;
                ensure!(end.by == EndedBy::Nothing && end.after.is_none(), "{end:?}");
            }
            Ok(())
        })
    }

    /// A peer that reads at once, at the end of a slow path: something is in flight always, and
    /// something of it acknowledged.
    ///
    /// # Errors
    ///
    /// Where something else is found; [`Disturbed`] where the retransmission timer fired.
    pub fn a_slow_path(self) -> Result<()> {
        on_scene(&[], |scene| {
            let mut all = Vec::new();
            for fate in FATES {
                let connection = scene.connect(self.first)?;
                SockRef::from(&connection.client).set_send_buffer_size(200 << 10)?;
                all.push((fate, connection));
            }
            // Some 12 kB a second, so that a send buffer takes long enough, and a segment so short a
            // time that the retransmission timer does not fire.
            let slow = "qdisc add dev cable root tbf rate 100kbit burst 3kb latency 60s";
            let slow: Vec<_> = slow.split(' ').collect();
            scene.link.client.command("tc", &slow)?;
            let mut closed = Vec::new();
            for (fate, connection) in all {
                send_some(&connection.client)?;
                closed.push(connection.close(fate)?);
            }
            for closed in &closed {
                let found =
                    scene.find(closed.local, |found| found.stall.cause == Cause::Draining)?;
                self.belongs(&found, closed, scene.port()?)?;
                let socket = &found.socket;
                if socket.retransmits > 0 {
                    // Its end is foretold then.
                    let message = format!("the timer was faster than the path: {socket:#?}");
                    return Err(Disturbed(message).into());
                }
                ensure!(socket.in_flight > 0, "{socket:#?}");
                ensure!(
                    socket.end.by == EndedBy::Nothing && socket.end.after.is_none(),
                    "{socket:#?}"
                );
            }
            Ok(())
        })
    }

    /// `tcp_orphan_retries` ends an orphan when it was foretold, and no socket that is held.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn orphan_retries_end_an_orphan(self) -> Result<()> {
        on_scene(&[("tcp_orphan_retries", "2")], |scene| {
            let held = scene.connect(self.first)?;
            scene.cut(&held)?;
            let held = held.close(Fate::Held)?;
            let connection = scene.connect(self.first)?;
            scene.cut(&connection)?;
            let [(found, orphan)] = self.until_gone(scene, [(connection, Fate::Closed)])?;
            ensure!(found.socket.end.by == EndedBy::OrphanRetries, "{found:#?}");
            let held_then = scene.find(held.local, |found| {
                found.socket.age.at_least > orphan.at.elapsed()
            })?;
            ensure!(
                held_then.socket.end.by == EndedBy::Retries2,
                "{held_then:#?}"
            );
            Ok(())
        })
    }

    /// TCP_USER_TIMEOUT ends both an orphan and a socket that is held, when it was foretold.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn the_user_timeout_ends_both(self) -> Result<()> {
        on_scene(&[], |scene| {
            let patient = |fate| {
                let connection = scene.connect(self.first)?;
                SockRef::from(&connection.client)
                    .set_tcp_user_timeout(Some(Duration::from_secs(3)))?;
                scene.cut(&connection)?;
                Ok::<_, anyhow::Error>((connection, fate))
            };
            let both = [patient(Fate::Closed)?, patient(Fate::Held)?];
            for (found, _) in self.until_gone(scene, both)? {
                ensure!(found.socket.end.by == EndedBy::UserTimeout, "{found:#?}");
            }
            Ok(())
        })
    }

    /// An orphan whose peer answers every probe of its closed window ends all the same, once the
    /// time between probes is the longest (`tcp_probe_timer()`).
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn the_longest_timeout_ends_an_orphan_that_probes(self) -> Result<()> {
        const KNOB: &str = "tcp_rto_max_ms";
        if !Path::new("/proc/sys/net/ipv4").join(KNOB).exists() {
            eprintln!("skipped: this kernel has no {KNOB}, and 2 minutes are too long to wait");
            return Ok(());
        }
        on_scene(&[(KNOB, "2000")], |scene| {
            let connection = scene.connect_and_fill(self.first)?;
            let [(found, _)] = self.until_gone(scene, [(connection, Fate::Closed)])?;
            has_cause(&found, Cause::ZeroWindow)?;
            ensure!(found.socket.end.by == EndedBy::OrphanRetries, "{found:#?}");
            Ok(())
        })
    }

    /// Makes a connection of each fate, closes it, and checks the first thing found of it.
    fn each_fate(
        self,
        connect: impl Fn(&Scene<'_>) -> Result<Connection> + Sync,
        check: impl Fn(&Found, Fate) -> Result<()> + Sync,
    ) -> Result<()> {
        on_scene(&[], |scene| {
            let mut closed = Vec::new();
            for fate in FATES {
                closed.push(connect(scene)?.close(fate)?);
            }
            let mut both = Vec::new();
            for closed in &closed {
                both.push(scene.find(closed.local, |_| true)?);
            }
            for (found, closed) in both.iter().zip(&closed) {
                self.belongs(found, closed, scene.port()?)?;
                check(found, closed.fate).with_context(|| format!("{:?}", closed.fate))?;
            }
            Ok(())
        })
    }

    /// Closes, takes the first thing found of each socket, and compares the end it foretells with
    /// the real one.
    fn until_gone<const N: usize>(
        self,
        scene: &mut Scene<'_>,
        connections: [(Connection, Fate); N],
    ) -> Result<[(Found, Closed); N]> {
        let mut closed = Vec::new();
        for (connection, fate) in connections {
            let vigil = Vigil::over(&scene.link.client, connection.local)?;
            closed.push((vigil, connection.close(fate)?));
        }
        let locals: Vec<SocketAddr> = closed.iter().map(|(_, closed)| closed.local).collect();
        let mut found = Vec::new();
        for local in locals {
            found.push(scene.find(local, |_| true)?);
        }
        let mut all = Vec::new();
        for (found, (vigil, closed)) in found.into_iter().zip(closed) {
            self.belongs(&found, &closed, scene.port()?)?;
            foretold(&found, &closed, vigil.end()?)?;
            all.push((found, closed));
        }
        all.try_into()
            .map_err(|_| anyhow::anyhow!("one is missing"))
    }

    fn belongs(self, found: &Found, closed: &Closed, port: u16) -> Result<()> {
        ensure!(found.stall.detector == self.detector, "{found:#?}");
        is_own(found, self.state, closed.fate, port)
    }
}

fn has_cause(found: &Found, cause: Cause) -> Result<()> {
    ensure!(found.stall.cause == cause, "not {cause:?}: {found:#?}");
    Ok(())
}

/// What ends a socket whose peer is gone, with every knob as the kernel sets it.
fn ends_by_retries(found: &Found, fate: Fate) -> Result<()> {
    let end = found.socket.end;
    let (by, seconds) = match fate {
        // 8 retries, and 15.
        Fate::Closed => (EndedBy::OrphanRetries, 95..140),
        Fate::Held => (EndedBy::Retries2, 900..1_100),
    };
    let total = found.socket.age.at_least + end.after.context("it does not end")?;
    ensure!(
        end.by == by && seconds.contains(&total.as_secs()),
        "{fate:?} ends after {total:?} so: {end:?}"
    );
    Ok(())
}

/// Sends as much as fits into the send buffer at once.
fn send_some(mut client: &TcpStream) -> Result<()> {
    client.set_nonblocking(true)?;
    match client.write(&vec![0; 128 << 10]) {
        Ok(sent) => ensure!(sent > 32 << 10, "only {sent} bytes fit"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!("nothing fits"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
