//! Full sockets that stay in FIN_WAIT2.

use std::time::Duration;

use agent::detectors::{Cause, Detector, EndedBy};
use agent_ebpf::state::TcpState::FinWait2;
use anyhow::{Context as _, Result, ensure};
use tests::stall::{Fate, First, Vigil, foretold, is_own, on_scene, punctually};

#[test]
fn a_socket_shut_down_waits_for_ever_for_its_peer() -> Result<()> {
    on_scene(&[], |scene| {
        let closed = scene.connect(First::Own)?.close(Fate::Held)?;
        let first = scene.find(closed.local, |_| true)?;
        let later = first.socket.age.at_least + Duration::from_secs(1);
        let later = scene.find(closed.local, |found| found.socket.age.at_least >= later)?;
        for found in [first, later] {
            is_own(&found, FinWait2, Fate::Held, scene.port()?)?;
            ensure!(
                found.stall.detector == Detector::FinWait2
                    && found.stall.cause == Cause::HalfClosed,
                "{found:#?}"
            );
            let end = found.socket.end;
            ensure!(
                end.by == EndedBy::Nothing && end.after.is_none(),
                "something ends it: {found:#?}"
            );
        }
        Ok(())
    })
}

#[test]
fn an_orphan_waits_for_what_tcp_fin_timeout_is_above_a_minute() -> Result<()> {
    on_scene(&[("tcp_fin_timeout", "90")], |scene| {
        let closed = scene.connect(First::Own)?.close(Fate::Closed)?;
        let found = scene.find(closed.local, |_| true)?;
        is_own(&found, FinWait2, Fate::Closed, scene.port()?)?;
        ensure!(
            found.stall.cause == Cause::OrphanWaiting && found.socket.end.by == EndedBy::FinTimeout,
            "{found:#?}"
        );
        let after = found.socket.end.after.context("no end is foretold")?;
        let total = (found.socket.age.at_least + after).as_secs_f64();
        eprintln!("an orphan with tcp_fin_timeout at 90 s is foretold {total:.2} s");
        ensure!((29.0..31.5).contains(&total), "{found:#?}");
        Ok(())
    })
}

#[test]
fn tcp_fin_timeout_ends_an_orphan_when_foretold() -> Result<()> {
    punctually(|| {
        on_scene(&[("tcp_fin_timeout", "64")], |scene| {
            let connection = scene.connect(First::Own)?;
            let vigil = Vigil::over(&scene.link.client, connection.local)?;
            let closed = connection.close(Fate::Closed)?;
            let found = scene.find(closed.local, |_| true)?;
            is_own(&found, FinWait2, Fate::Closed, scene.port()?)?;
            ensure!(
                found.stall.cause == Cause::OrphanWaiting
                    && found.socket.end.by == EndedBy::FinTimeout,
                "{found:#?}"
            );
            foretold(&found, &closed, vigil.end()?)
        })
    })
}
