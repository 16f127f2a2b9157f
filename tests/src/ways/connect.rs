//! Connects that do not come about.

use std::process::Command;

use agent_ebpf::{
    close::{
        CloseCause,
        CloseCause::{ConnectFailed, Killed, LingerZero, NoEphemeralPort, ResetReceived, TimedOut},
    },
    state::TcpState::{Close, SynSent},
};
use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    libc, setsockopt_impl,
    sys::socket::{SetSockOpt as _, sockopt::SetStruct},
};
use socket2::Socket;

use super::Way;
use crate::{
    exact::Unsupported,
    filter::{Filter, Packets},
    place::{Place, reset},
    trace::Trace,
    wait::all_in,
};

#[derive(Clone, Copy)]
struct TcpSynCount;
setsockopt_impl!(
    TcpSynCount,
    libc::IPPROTO_TCP,
    libc::TCP_SYNCNT,
    i32,
    SetStruct<'_, i32>
);

/// Of `include/uapi/linux/in.h`, since 6.3.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

#[derive(Clone, Copy)]
struct IpLocalPortRange;
setsockopt_impl!(
    IpLocalPortRange,
    libc::IPPROTO_IP,
    IP_LOCAL_PORT_RANGE,
    u32,
    SetStruct<'_, u32>
);

fn failed(cause: CloseCause) -> Trace {
    Trace::socket(&[Close, SynSent, Close], cause)
}

/// A port nobody listens at (`tcp_rcv_synsent_state_process`, `tcp_reset`).
pub const REFUSED: Way = Way {
    name: "refused",
    go: |place, n| {
        for _ in 0..n {
            let error = place.socket()?.connect(&place.address().into()).err();
            ensure!(
                error.as_ref().and_then(std::io::Error::raw_os_error) == Some(libc::ECONNREFUSED),
                "not refused: {error:?}"
            );
        }
        Ok(())
    },
    leaves: |n| failed(ConnectFailed).times(n),
};

/// A SYN without an answer, and `close()` before its time is up.
pub const GIVEN_UP: Way = Way {
    name: "given_up",
    go: |place, n| connecting(*place, n).map(drop),
    leaves: |n| failed(ConnectFailed).times(n),
};

/// A SYN without an answer (`tcp_write_timeout`).
pub const TIMED_OUT: Way = Way {
    name: "connect_timed_out",
    go: |place, n| {
        let (_lost, sockets) = connecting(*place, n)?;
        for socket in &sockets {
            TcpSynCount.set(socket, &1)?;
        }
        all_in(&sockets, Close)
    },
    leaves: |n| failed(TimedOut).times(n),
};

/// A SYN answered by ICMP: `tcp_v4_err` ends the connect at the first retransmission, when no
/// process holds the socket.
pub const UNREACHABLE: Way = Way {
    name: "unreachable",
    go: |place, n| {
        let _rule = Filter::unreachable(place.port, Packets::OfClient)?;
        let sockets = (0..n)
            .map(|_| place.connecting())
            .collect::<Result<Vec<_>>>()?;
        all_in(&sockets, Close)
    },
    leaves: |n| failed(ConnectFailed).times(n),
};

/// `ss -K` on a connect under way (`tcp_abort`).
pub const KILLED: Way = Way {
    name: "killed_connecting",
    go: |place, n| {
        let (_lost, sockets) = connecting(*place, n)?;
        kill(&[
            "state",
            "syn-sent",
            "dport",
            "=",
            &format!(":{}", place.port),
        ])?;
        all_in(&sockets, Close)
    },
    leaves: |n| failed(Killed).times(n),
};

const FREE_PORTS: usize = 4;
const FIRST_FREE_PORT: u32 = 40_000;
const LAST_FREE_PORT: u32 = 40_003;

/// More connections to one destination than there are local ports (`__inet_hash_connect`).
pub const NO_EPHEMERAL_PORT: Way = Way {
    name: "no_ephemeral_port",
    go: |place, n| {
        let listener = place.listen()?;
        let connect = || -> Result<(Socket, std::io::Result<()>)> {
            let socket = place.socket()?;
            match IpLocalPortRange.set(&socket, &(LAST_FREE_PORT << 16 | FIRST_FREE_PORT)) {
                Err(Errno::ENOPROTOOPT) => {
                    return Err(Unsupported("no IP_LOCAL_PORT_RANGE before 6.3").into());
                }
                result => result.context("IP_LOCAL_PORT_RANGE")?,
            }
            let connected = socket.connect(&place.address().into());
            Ok((socket, connected))
        };
        let mut taken = Vec::new();
        for _ in 0..FREE_PORTS {
            let (socket, connected) = connect()?;
            connected?;
            taken.push(socket);
        }
        for _ in 0..n {
            let error = connect()?.1.err();
            ensure!(
                error.as_ref().and_then(std::io::Error::raw_os_error) == Some(libc::EADDRNOTAVAIL),
                "a port was free: {error:?}"
            );
        }
        let accepted = (0..FREE_PORTS)
            .map(|_| listener.accept().map(|(socket, _)| socket))
            .collect::<std::io::Result<Vec<_>>>()?;
        reset(taken)?;
        all_in(&accepted, Close)
    },
    leaves: |n| {
        let taken = Trace::client(&[], LingerZero)
            .and(Trace::server(&[], ResetReceived))
            .times(FREE_PORTS);
        failed(NoEphemeralPort)
            .times(n)
            .and(taken)
            .and(Trace::listener())
    },
};

fn connecting(place: Place, n: usize) -> Result<(Filter, Vec<Socket>)> {
    let lost = Filter::drop(place.port, Packets::OfClient)?;
    let sockets = (0..n).map(|_| place.connecting()).collect::<Result<_>>()?;
    Ok((lost, sockets))
}

/// Kills what `ss` finds (SOCK_DESTROY).
///
/// # Errors
///
/// Where `ss` is missing or fails.
pub(super) fn kill(which: &[&str]) -> Result<()> {
    let output = Command::new("ss")
        .args(["-K", "-Htn"])
        .args(which)
        .output()
        .context("ss cannot be run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ss -K failed: {errors}");
    Ok(())
}
