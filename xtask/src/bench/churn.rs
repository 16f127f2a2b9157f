//! The bare churn: one process, one thread that connects and one that accepts, and each closes at
//! once. No byte is sent, so all the work is in the states.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::load::Outcome;
use super::{cpu, namespace, sockets};

/// The most the kernel allows by default (somaxconn): a full accept queue would drop the
/// handshake's last segment, and the run would measure a retransmission timer.
const BACKLOG: i32 = 4096;

/// Makes the connections, and says how long they took and what they cost.
pub(super) fn generate(connections: u32, per_second: Option<u32>) -> Result<Outcome> {
    namespace::enter()?;
    let listener = bound_listener(Ipv4Addr::LOCALHOST)?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let cpu = cpu::of_this_process();
    let started = Instant::now();
    let acceptor = thread::spawn(move || accept(&listener, connections));
    for number in 0..connections {
        if let Some(per_second) = per_second {
            wait_for(started + Duration::from_secs(1) * number / per_second);
        }
        TcpStream::connect(address)
            .with_context(|| format!("connection {number} of {connections} failed"))?;
    }
    let accepted = acceptor
        .join()
        .map_err(|_| anyhow!("the accepting thread panicked"))?;
    accepted?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu::of_this_process() - cpu;
    Ok(Outcome {
        operations: f64::from(connections),
        seconds,
        cpu_seconds,
        unfinished: sockets::outlived()?,
    })
}

/// Waits until a connection is due; those due within a millisecond go together, for a sleep is no
/// more exact than that.
fn wait_for(due: Instant) {
    let early = due.saturating_duration_since(Instant::now());
    if early > Duration::from_millis(1) {
        thread::sleep(early);
    }
}

fn accept(listener: &TcpListener, connections: u32) -> Result<()> {
    for number in 0..connections {
        listener
            .accept()
            .with_context(|| format!("could not accept connection {number} of {connections}"))?;
    }
    Ok(())
}

/// A listener with the backlog above, which the standard library does not let one choose.
pub(super) fn bound_listener(address: Ipv4Addr) -> Result<TcpListener> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.context("could not make a socket")?;
    bind(&socket, &SocketAddr::from((address, 0))).context("could not bind to loopback")?;
    if let Err(error) = listen(&socket, BACKLOG) {
        bail!("could not listen: {error}");
    }
    Ok(TcpListener::from(socket))
}
