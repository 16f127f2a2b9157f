//! Two sockets that close at once: each FIN crosses the other on the way.

use std::net::{Shutdown, TcpListener, TcpStream};

use agent_ebpf::{
    close::CloseCause::TimeWait,
    state::TcpState::{Close, Closing, FinWait1},
};
use anyhow::Result;
use tests::{
    exact::{Before, unskipped},
    trace::Trace,
    tunnel::{ADDRESSES, Tunnel},
    wait::all_in,
    watch::Watch,
};

const CONNECTIONS: usize = 20;

#[test]
fn both_ends_pass_through_closing_into_time_wait() -> Result<()> {
    unskipped(|| {
        let tunnel = Tunnel::new()?;
        let [client, server] = &tunnel.ends;
        let watches = [Watch::new(client)?, Watch::new(server)?];
        let before = [Before::now(&watches[0])?, Before::now(&watches[1])?];
        close_at_once(&tunnel)?;
        let end = [FinWait1, Closing];
        let predicted = [
            Trace::client(&end, TimeWait).times(CONNECTIONS),
            Trace::server(&end, TimeWait)
                .times(CONNECTIONS)
                .and(Trace::listener()),
        ];
        let client_skipped = before[0].settle(&watches[0], predicted[0].total())?;
        let server_skipped = before[1].settle(&watches[1], predicted[1].total())?;
        if !client_skipped.is_none() {
            return Ok(client_skipped);
        }
        if server_skipped.is_none() {
            predicted[0].compare(&watches[0])?;
            predicted[1].compare(&watches[1])?;
        }
        Ok(server_skipped)
    })
}

fn close_at_once(tunnel: &Tunnel) -> Result<()> {
    let [client, server] = &tunnel.ends;
    let listener = server.run(|| Ok(TcpListener::bind((ADDRESSES[1], 0))?))?;
    let address = listener.local_addr()?;
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(client.run(|| Ok(TcpStream::connect(address)?))?);
        servers.push(listener.accept()?.0);
    }
    tunnel.hold();
    for socket in clients.iter().chain(&servers) {
        socket.shutdown(Shutdown::Write)?;
    }
    all_in(&clients, FinWait1)?;
    all_in(&servers, FinWait1)?;
    tunnel.release();
    all_in(&clients, Close)?;
    all_in(&servers, Close)
}
