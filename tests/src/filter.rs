//! Packets thrown away on their way, by rules of nftables at the input hook: the sender sees a
//! silent loss there, where the output hook would tell it of an error.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Which packets of a connection to a server's port.
#[derive(Clone, Copy, Debug)]
pub enum Packets {
    /// Those of both ends.
    All,
    /// The server's.
    OfServer,
    /// The client's.
    OfClient,
    /// The client's that carry a FIN.
    ClientFins,
    /// The server's that carry a FIN.
    ServerFins,
    /// The server's that acknowledge and do nothing else.
    ServerAcks,
    /// Those of both ends that acknowledge and do nothing else.
    Acks,
}

/// A rule of the namespace that the calling thread is in. It ends with this value.
#[derive(Debug)]
#[must_use]
pub struct Filter {
    table: String,
}

impl Filter {
    /// Drops `packets` of connections to `port`.
    ///
    /// # Errors
    ///
    /// Where `nft` is missing or fails.
    pub fn drop(port: u16, packets: Packets) -> Result<Self> {
        Self::new(port, packets, "drop")
    }

    /// Answers `packets` with ICMP host unreachable (`tcp_v4_err`, `tcp_v6_err`).
    ///
    /// # Errors
    ///
    /// Where `nft` is missing or fails.
    pub fn unreachable(port: u16, packets: Packets) -> Result<Self> {
        Self::new(port, packets, "reject with icmpx type host-unreachable")
    }

    fn new(port: u16, packets: Packets, verdict: &str) -> Result<Self> {
        const BARE_ACK: &str = "tcp flags & (fin|syn|rst|psh|ack) == ack";
        const FIN: &str = "tcp flags & fin == fin";
        let (server, client) = (format!("tcp sport {port}"), format!("tcp dport {port}"));
        let rules = match packets {
            Packets::All => format!("{server} {verdict}; {client} {verdict};"),
            Packets::OfServer => format!("{server} {verdict};"),
            Packets::OfClient => format!("{client} {verdict};"),
            Packets::ClientFins => format!("{client} {FIN} {verdict};"),
            Packets::ServerFins => format!("{server} {FIN} {verdict};"),
            Packets::ServerAcks => format!("{server} {BARE_ACK} {verdict};"),
            Packets::Acks => {
                format!("{server} {BARE_ACK} {verdict}; {client} {BARE_ACK} {verdict};")
            }
        };
        let table = format!("connstate_{port}");
        nft(&format!(
            "table inet {table} {{\n chain input {{\n type filter hook input priority 0; {rules}\n }}\n}}"
        ))?;
        Ok(Self { table })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // A rule left behind ends with the namespace.
        let _left = nft(&format!("delete table inet {}", self.table));
    }
}

fn nft(command: &str) -> Result<()> {
    let output = Command::new("nft")
        .arg(command)
        .output()
        .context("nft cannot be run: `cargo xtask setup` installs it")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {command:?} failed: {errors}");
    Ok(())
}
