//! A first look: the programs load, and one connection leaves the trace it should.

use std::net::{TcpListener, TcpStream};

use agent_ebpf::close::CloseCause::FinWait2TimeWait;
use anyhow::{Result, ensure};
use tests::{
    disturbed::{Disturbed, undisturbed},
    exact::{Before, Skipped, unskipped},
    netns::Netns,
    watch::{Watch, closes, transitions},
};

#[test]
fn one_connection_leaves_its_trace() -> Result<()> {
    undisturbed(|| unskipped(one_connection))
}

fn one_connection() -> Result<Skipped> {
    let netns = Netns::new()?;
    let watch = Watch::new(&netns)?;
    let before = Before::now(&watch)?;
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        Ok(())
    })?;
    let skipped = before.settle(&watch, 12)?;
    if !skipped.is_none() {
        return Ok(skipped);
    }
    let view = watch.settled()?;
    let counted = transitions(&view);
    ensure!(
        counted
            == [
                ("established", "fin_wait1", 1),
                ("established", "close_wait", 1),
                ("syn_sent", "established", 1),
                ("syn_recv", "established", 1),
                ("fin_wait1", "fin_wait2", 1),
                ("fin_wait2", "close", 1),
                ("close", "syn_sent", 1),
                ("close", "listen", 1),
                ("close_wait", "last_ack", 1),
                ("last_ack", "close", 1),
                ("listen", "syn_recv", 1),
                ("listen", "close", 1),
            ],
        "{counted:?}"
    );
    let closes = closes(&view);
    // tcp_fin() delays the acknowledgement by 40 ms, in which the server closes unless it is held up.
    if closes.contains(&(FinWait2TimeWait.name(), 1)) {
        return Err(Disturbed(format!("the server was late: {closes:?}")).into());
    }
    // The server acknowledges the FIN with its own.
    ensure!(
        closes == [("time_wait", 1), ("passive", 1), ("listener", 1)],
        "{closes:?}"
    );
    Ok(skipped)
}
