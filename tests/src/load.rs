//! Connections for an agent that watches the whole host to count.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Result;
use socket2::SockRef;

use crate::netns::Netns;

/// A rare cause, so that whatever else happens on the host is hardly taken for the test's own.
pub const RESET_BY_LINGER: &str = "connstate_closes_total{cause=\"linger_zero\"}";

/// Connections in `netns`, each closed with SO_LINGER 0.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn reset_by_linger(netns: &Netns, connections: usize) -> Result<()> {
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        for _ in 0..connections {
            let client = TcpStream::connect(listener.local_addr()?)?;
            let _server = listener.accept()?;
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    })
}

/// Connections in `netns`, each closed in order, the client first.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn churn(netns: &Netns, connections: usize) -> Result<()> {
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        for _ in 0..connections {
            let client = TcpStream::connect(listener.local_addr()?)?;
            let (server, _) = listener.accept()?;
            drop(client);
            drop(server);
        }
        Ok(())
    })
}
