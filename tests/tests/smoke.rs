//! A first look: the programs load, and one connection leaves the trace it should.

use std::net::{TcpListener, TcpStream};

use anyhow::Result;
use tests::{
    netns::Netns,
    watch::{Watch, closes, transitions},
};

#[test]
fn one_connection_leaves_its_trace() -> Result<()> {
    let netns = Netns::new()?;
    let watch = Watch::new(&netns)?;
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        Ok(())
    })?;
    let view = watch.settled()?;
    assert_eq!(
        transitions(&view),
        [
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
        ]
    );
    // The server acknowledges the FIN with its own.
    assert_eq!(
        closes(&view),
        [("time_wait", 1), ("passive", 1), ("listener", 1)]
    );
    Ok(())
}
