//! Segments lost on a cable between two namespaces, and what is told of those sent again.
//!
//! Each test watches the sender's namespace alone and compares three accounts of it: the
//! programs' counters, their records, and the kernel's own `RetransSegs`.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use socket2::SockRef;
use tests::{
    disturbed::{Disturbed, undisturbed},
    link::{Link, lose, lose_once, mend, netstat},
    netns::Netns,
    sender::{Cell, Cells, Sender},
    wait,
};

/// A connection over a cable, the client's namespace watched from before it was opened.
fn connected(link: &Link) -> Result<(Sender<'_>, TcpListener, TcpStream, TcpStream)> {
    let sender = Sender::watch(&link.client)?;
    let listener = link.listen()?;
    let (client, server) = link.connect(&listener)?;
    Ok((sender, listener, client, server))
}

/// Without tail-loss probes, the timeout comes first.
fn without_probes(link: &Link) -> Result<()> {
    link.client.sysctl("tcp_early_retrans", "0")
}

fn only(cell: Cell) -> impl Fn(&Cells) -> bool {
    move |cells| cells.keys().eq([&cell])
}

fn ensure_only(cells: &Cells, cell: Cell) -> Result<()> {
    ensure!(only(cell)(cells), "{cells:?} is not {cell:?} alone");
    Ok(())
}

#[test]
fn a_syn_that_nobody_answers() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        let mut sender = Sender::watch(&link.client)?;
        let listener = link.listen()?;
        lose(&link.server, "")?;
        let _connecting = link.begin_connect(listener.local_addr()?)?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        ensure_only(&cells, ("syn_sent", "syn", "rto"))?;
        let record = sender.records()[0];
        let socket = record.socket;
        ensure!(socket.netns == Some(link.client.inode()), "{record:#?}");
        ensure!(socket.remote == listener.local_addr()?, "{record:#?}");
        ensure!(socket.pid == Some(std::process::id()), "{record:#?}");
        ensure!(socket.cookie.is_some() && !socket.orphan, "{record:#?}");
        Ok(())
    })
}

#[test]
fn a_syn_ack_whose_acknowledgement_is_lost() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        let mut sender = Sender::watch(&link.server)?;
        let listener = link.listen()?;
        // The client takes itself for connected and repeats nothing.
        lose(&link.server, "tcp flags ack / syn,ack")?;
        let _connecting = link.begin_connect(listener.local_addr()?)?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        ensure_only(&cells, ("syn_recv", "synack", "rto"))?;
        let record = sender.records()[0];
        let socket = record.socket;
        ensure!(socket.local == listener.local_addr()?, "{record:#?}");
        ensure!(socket.netns == Some(link.server.inode()), "{record:#?}");
        Ok(())
    })
}

#[test]
fn a_syn_ack_drawn_by_a_repeated_syn() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        let mut sender = Sender::watch(&link.server)?;
        let listener = link.listen()?;
        lose(&link.client, "")?;
        let _connecting = link.begin_connect(listener.local_addr()?)?;
        // The client's SYN timer and the server's SYN-ACK timer run for the same second, so which of
        // them comes first is open; tcp_check_req() answers the SYN in either case.
        let drawn = ("syn_recv", "synack", "other");
        let cells = sender.settle(|cells| cells.contains_key(&drawn))?;
        let timed = ("syn_recv", "synack", "rto");
        ensure!(
            cells.keys().all(|cell| *cell == drawn || *cell == timed),
            "{cells:?}"
        );
        Ok(())
    })
}

#[test]
fn data_on_a_cut_path() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, mut client, _server) = connected(&link)?;
        lose(&link.server, "")?;
        client.write_all(b"lost")?;
        let cells = sender.settle_as("TCPTimeouts", |cells| !cells.is_empty())?;
        ensure_only(&cells, ("established", "data", "rto"))
    })
}

#[test]
fn data_after_the_peers_fin() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, mut client, server) = connected(&link)?;
        server.shutdown(Shutdown::Write)?;
        ensure!(client.read(&mut [0])? == 0, "the peer sent data");
        lose(&link.server, "")?;
        client.write_all(b"lost")?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        ensure_only(&cells, ("close_wait", "data", "rto"))?;
        Ok(())
    })
}

#[test]
fn a_fin_on_a_cut_path() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, client, _server) = connected(&link)?;
        lose(&link.server, "")?;
        drop(client);
        let cells = sender.settle(|cells| !cells.is_empty())?;
        ensure_only(&cells, ("fin_wait1", "fin", "rto"))?;
        ensure!(sender.records().iter().all(|record| record.socket.orphan));
        Ok(())
    })
}

#[test]
fn a_fin_that_answers_a_fin() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, mut client, server) = connected(&link)?;
        drop(server);
        ensure!(client.read(&mut [0])? == 0, "the peer sent data");
        lose(&link.server, "")?;
        drop(client);
        let cells = sender.settle(|cells| !cells.is_empty())?;
        ensure_only(&cells, ("last_ack", "fin", "rto"))?;
        Ok(())
    })
}

/// A distinctive payload; with the IPv4 and TCP headers (20 + 32, timestamps included) the packet
/// is 189 bytes long.
const MARKED: [u8; 137] = [b'm'; 137];
const MARKED_PACKET: &str = "meta length 189";

#[test]
fn a_hole_that_later_segments_show() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        let (mut sender, _listener, mut client, mut server) = connected(&link)?;
        lose_once(&link.server, MARKED_PACKET)?;
        // Nine segments fit the initial window of ten, so all are on their way before an ACK.
        for number in 0..9 {
            let payload = if number == 3 { &MARKED[..] } else { b"plain" };
            client.write_all(payload)?;
        }
        server.read_exact(&mut [0; 8 * 5 + MARKED.len()])?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        sender.expect_netstat("TCPLossProbes", 0)?;
        sender.expect_netstat("TCPTimeouts", 0)?;
        sender.expect_netstat("TCPFastRetrans", 1)?;
        let fast = ("established", "data", "fast");
        ensure!(cells == Cells::from([(fast, 1)]), "{cells:?}");
        Ok(())
    })
}

#[test]
fn a_tail_that_nothing_follows() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        // The default, which a host's own setting may have changed.
        link.client.sysctl("tcp_early_retrans", "3")?;
        let (mut sender, _listener, mut client, mut server) = connected(&link)?;
        lose_once(&link.server, MARKED_PACKET)?;
        for payload in [&b"plain"[..], b"plain", &MARKED] {
            client.write_all(payload)?;
        }
        server.read_exact(&mut [0; 2 * 5 + MARKED.len()])?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        sender.expect_netstat("TCPTimeouts", 0)?;
        sender.expect_netstat("TCPFastRetrans", 0)?;
        sender.expect_netstat("TCPLossProbes", 1)?;
        let probe = ("established", "data", "tlp");
        ensure!(cells == Cells::from([(probe, 1)]), "{cells:?}");
        Ok(())
    })
}

#[test]
fn data_into_a_window_that_has_closed() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        if let Err(error) = link.server.sysctl("tcp_shrink_window", "1") {
            eprintln!("skipped: no receiver of this kernel takes a window back ({error:#})");
            return Ok(());
        }
        // Without SACK one duplicate ACK is no reason to repeat anything.
        link.client.sysctl("tcp_sack", "0")?;
        let (mut sender, _listener, mut client, server) = connected(&link)?;
        SockRef::from(&server).set_recv_buffer_size(1)?;
        lose(&link.server, MARKED_PACKET)?;
        client.write_all(&MARKED)?;
        // It arrives out of order, and its duplicate ACK closes the window.
        client.write_all(&[0; 1000])?;
        let cells = sender.settle(|cells| !cells.is_empty())?;
        // In tcp_retransmit_timer() the branch for a window of zero counts no timeout.
        sender.expect_netstat("TCPTimeouts", 0)?;
        ensure_only(&cells, ("established", "data", "rto"))
    })
}

#[test]
fn one_retransmission_of_several_segments() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, mut client, mut server) = connected(&link)?;
        lose(&link.server, "")?;
        // A whole initial window, which veth carries as few packets of many segments, and no more:
        // tcp_process_loss() would rather send new data than repair.
        let flight = [0; 10 * 1448];
        client.write_all(&flight)?;
        let rto = ("established", "data", "rto");
        sender.settle(only(rto))?;
        mend(&link.server)?;
        server.read_exact(&mut flight.clone())?;
        let repair = ("established", "data", "other");
        let cells = sender.settle(|cells| cells.contains_key(&repair))?;
        ensure!(cells.keys().eq([&repair, &rto]), "{cells:?}");
        ensure!(cells.values().sum::<u64>() >= 10, "{cells:?}");
        // tcp_retransmit_timer() repeats one segment, tcp_xmit_retransmit_queue() what cwnd allows.
        let segments: Vec<_> = sender.records().iter().map(|told| told.segments).collect();
        eprintln!("segments of each: {segments:?}");
        ensure!(segments.iter().any(|count| *count > 1), "{segments:?}");
        Ok(())
    })
}

#[test]
fn nothing_lost_on_loopback() -> Result<()> {
    undisturbed(|| {
        let netns = Netns::new()?;
        let mut sender = Sender::watch(&netns)?;
        netns.run(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            for _ in 0..100 {
                let mut client = TcpStream::connect(listener.local_addr()?)?;
                let (mut server, _) = listener.accept()?;
                client.write_all(b"through")?;
                server.read_exact(&mut [0; 7])?;
            }
            Ok(())
        })?;
        let cells = sender.settle(|_| true)?;
        if cells.is_empty() {
            return Ok(());
        }
        // Three accounts agree on it, one of them the kernel's own.
        Err(Disturbed(format!("an acknowledgement was late: {cells:?}")).into())
    })
}

#[test]
fn an_attempt_that_fails_is_none() -> Result<()> {
    undisturbed(|| {
        let link = Link::new()?;
        without_probes(&link)?;
        let (mut sender, _listener, mut client, _server) = connected(&link)?;
        // Dropped on its way out, a segment fails to be sent; the first is let through and lost.
        lose(&link.server, "")?;
        link.client.command(
            "nft",
            &["add chain ip loss leaving { type filter hook output priority 0; }"],
        )?;
        client.write_all(b"lost")?;
        link.client
            .command("nft", &["add rule ip loss leaving meta l4proto tcp drop"])?;
        let failed = || netstat(&link.client, "TcpExt", "TCPRetransFail");
        wait::until("two failed attempts", || Ok(failed()? >= 2))?;
        link.client
            .command("nft", &["flush chain ip loss leaving"])?;
        // RetransSegs counts the attempts, too; what was sent is told in full.
        let failed = failed()?;
        let cells = sender.settle_beside(failed, |cells| !cells.is_empty())?;
        ensure_only(&cells, ("established", "data", "rto"))?;
        Ok(())
    })
}
