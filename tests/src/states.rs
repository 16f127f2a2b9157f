//! Sockets by their states, as `ss` counts them.

use std::collections::BTreeMap;

use agent_ebpf::state::TcpState::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
    TimeWait,
};
use anyhow::{Result, bail};

use crate::netns::Netns;

/// Numbers of sockets by the names of their states.
pub type States = BTreeMap<&'static str, u64>;

/// Those of a namespace that are not zero.
///
/// # Errors
///
/// Where `ss` is missing, fails, or names a state unknown here.
pub fn by_ss(netns: &Netns) -> Result<States> {
    let mut states = States::new();
    for line in netns.command("ss", &["-Htan"])?.lines() {
        let state = match line.split_ascii_whitespace().next().unwrap_or_default() {
            "ESTAB" => Established,
            "SYN-SENT" => SynSent,
            "SYN-RECV" => SynRecv,
            "FIN-WAIT-1" => FinWait1,
            "FIN-WAIT-2" => FinWait2,
            "TIME-WAIT" => TimeWait,
            "UNCONN" => Close,
            "CLOSE-WAIT" => CloseWait,
            "LAST-ACK" => LastAck,
            "LISTEN" => Listen,
            "CLOSING" => Closing,
            other => bail!("a state unknown here: {other}"),
        };
        *states.entry(state.name()).or_default() += 1;
    }
    Ok(states)
}
