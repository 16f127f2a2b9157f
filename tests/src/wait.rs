//! Waiting for conditions, with a deadline.

use std::{
    collections::HashMap,
    io::{ErrorKind, Write},
    mem::{self, MaybeUninit},
    os::fd::AsFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use agent_ebpf::state::TcpState;
use anyhow::{Context as _, Result, ensure};
use nix::{
    getsockopt_impl, libc,
    sys::socket::{GetSockOpt as _, sockopt::GetStruct},
};
use socket2::{SockRef, Socket};

/// The longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The beginning of the kernel's `struct tcp_info`. New kernels lengthen it, and each fills as much
/// as it is asked for: of this, all of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TcpInfo {
    /// The state, by the kernel's number.
    pub tcpi_state: u8,
    _between: [u8; 23],
    /// Packets sent that are not acknowledged.
    pub tcpi_unacked: u32,
}

const _: () = assert!(
    mem::offset_of!(TcpInfo, tcpi_unacked) == mem::offset_of!(libc::tcp_info, tcpi_unacked)
);

#[derive(Clone, Copy)]
struct GetTcpInfo;
getsockopt_impl!(
    GetTcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfo,
    GetStruct<TcpInfo>
);

/// Waits until `condition` holds.
///
/// # Errors
///
/// The condition's own, or where it does not hold after [`DEADLINE`]; `what` says what was waited
/// for.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    while !condition()? {
        ensure!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// What the kernel tells of a TCP socket.
///
/// # Errors
///
/// Where it is none.
pub fn tcp_info(socket: &impl AsFd) -> Result<TcpInfo> {
    GetTcpInfo.get(socket).context("TCP_INFO")
}

/// Waits until every one of `sockets` is in `state`.
///
/// # Errors
///
/// Where one is not after [`DEADLINE`].
pub fn all_in(sockets: &[impl AsFd], state: TcpState) -> Result<()> {
    for socket in sockets {
        until(state.name(), || {
            Ok(tcp_info(socket)?.tcpi_state == state as u8)
        })?;
    }
    Ok(())
}

/// Waits until every one of `sockets` has something to read.
///
/// # Errors
///
/// Where one has nothing after [`DEADLINE`].
pub fn unread(sockets: &[Socket]) -> Result<()> {
    for socket in sockets {
        socket.set_read_timeout(Some(DEADLINE))?;
        socket
            .peek(&mut [MaybeUninit::uninit()])
            .context("nothing to read")?;
    }
    Ok(())
}

/// Waits until as many as `count` sockets whose remote port is `port` are in `state`, in the
/// words of `ss`, which sees orphans and minisockets too.
///
/// # Errors
///
/// Where they are not after [`DEADLINE`].
pub fn clients_in(port: u16, state: &str, count: usize) -> Result<()> {
    until(state, || Ok(list("dport", port, state)?.len() == count))
}

/// The same of sockets whose local port is `port`.
///
/// # Errors
///
/// Where they are not after [`DEADLINE`].
pub fn servers_in(port: u16, state: &str, count: usize) -> Result<()> {
    until(state, || Ok(list("sport", port, state)?.len() == count))
}

/// Waits until as many as `count` of the sockets whose remote port is `port` are minisockets in
/// FIN_WAIT2, which alone have a timer of that name.
///
/// # Errors
///
/// Where they are not after [`DEADLINE`].
pub fn minisockets(port: u16, count: usize) -> Result<()> {
    until("minisockets", || {
        let mut sockets = list("dport", port, "fin-wait-2")?;
        sockets.retain(|_, timer| timer.starts_with("timer:(timewait,"));
        Ok(sockets.len() == count)
    })
}

/// The sockets that `ss` finds: their timers by their addresses. It may find one twice, as a full
/// socket and as its minisocket.
fn list(side: &str, port: u16, state: &str) -> Result<HashMap<String, String>> {
    let output = Command::new("ss")
        .args(["-Htano", "state", state, side, "=", &format!(":{port}")])
        .output()
        .context("ss cannot be run: `cargo xtask setup` installs it")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ss failed: {errors}");
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().map(addresses_and_timer).collect())
}

/// Of a line like `0 0 127.0.0.1:41000 127.0.0.1:10000 timer:(timewait,59sec,0)`.
fn addresses_and_timer(line: &str) -> (String, String) {
    let mut words = line.split_whitespace().rev().peekable();
    let timer = words.next_if(|word| word.starts_with("timer:"));
    let mut addresses: Vec<_> = words.take(2).collect();
    addresses.reverse();
    (addresses.join(" "), timer.unwrap_or_default().to_owned())
}

/// Sends until nothing fits any more, and all that could be sent is acknowledged. From then on
/// the client does not block.
///
/// # Errors
///
/// Where the connection breaks, or its window never fills.
pub fn fill<Client: AsFd>(client: &Client) -> Result<()>
where
    for<'a> &'a Client: Write,
{
    let chunk = [0; 16 << 10];
    SockRef::from(client).set_nonblocking(true)?;
    until("a full window", || {
        loop {
            let mut sender = client;
            match sender.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(tcp_info(client)?.tcpi_unacked == 0);
                }
                Err(error) => return Err(error.into()),
            }
        }
    })
}
