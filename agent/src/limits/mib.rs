//! `/proc/net/netstat` and `snmp`: the kernel's own counters (its MIBs), those that tell why
//! connections do not finish or do not begin.

use super::Files;

/// The counters that are kept, by the kernel's names.
pub const MIBS: &[&str] = &[
    // Ended by the kernel rather than by both ends.
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPAbortOnData",
    "TCPAbortOnClose",
    "TCPAbortOnLinger",
    "TCPAbortFailed",
    // Timewait minisockets.
    "TCPTimeWaitOverflow",
    "TW",
    "TWRecycled",
    "TWKilled",
    // Connections that a listener had no room for.
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDoCookies",
    "TCPReqQFullDrop",
    "SyncookiesSent",
    "SyncookiesRecv",
    "SyncookiesFailed",
    // The other end does not answer, or has no room.
    "TCPTimeouts",
    "TCPSynRetrans",
    "TCPRetransFail",
    "TCPKeepAlive",
    "TCPWinProbe",
    // This end has no room.
    "TCPFromZeroWindowAdv",
    "TCPToZeroWindowAdv",
    "TCPWantZeroWindowAdv",
    "TCPMemoryPressures",
    // All connections, to compare with: these are of snmp.
    "ActiveOpens",
    "PassiveOpens",
    "AttemptFails",
    "EstabResets",
    "OutSegs",
    "RetransSegs",
    "InErrs",
    "OutRsts",
];

/// The counters of one network namespace, from its beginning; absent are those the kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mibs([Option<u64>; MIBS.len()]);

impl Default for Mibs {
    fn default() -> Self {
        Self([None; MIBS.len()])
    }
}

impl Mibs {
    /// Those of the calling thread's namespace.
    pub(super) fn read(files: &mut Files) -> Self {
        let mut mibs = Self::default();
        mibs.parse("TcpExt:", files.net("netstat"));
        mibs.parse("Tcp:", files.net("snmp"));
        mibs
    }

    /// The counter of that name among [`MIBS`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0[position(name)?]
    }

    /// All there are, in the order of [`MIBS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let values = MIBS.iter().zip(&self.0);
        values.filter_map(|(name, value)| Some((*name, (*value)?)))
    }

    /// Takes in one group of a file, which has two lines that begin with its name: first the
    /// names, then the values, or as many of them as there are.
    pub(super) fn parse(&mut self, group: &str, text: &str) {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return;
        };
        let names = names.split_ascii_whitespace();
        for (name, value) in names.zip(values.split_ascii_whitespace()) {
            if let Some(position) = position(name) {
                self.0[position] = value.parse().ok();
            }
        }
    }

    /// As if the kernel had these counters and no other; for tests.
    #[cfg(test)]
    pub(crate) fn of(values: &[(&str, u64)]) -> Self {
        let mut mibs = Self::default();
        for (name, value) in values {
            mibs.0[position(name).expect("a name of MIBS")] = Some(*value);
        }
        mibs
    }
}

fn position(name: &str) -> Option<usize> {
    MIBS.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    const NETSTAT: &str = "\
TcpExt: SyncookiesSent EmbryonicRsts TW TWRecycled TWKilled ListenOverflows TCPAbortOnMemory
TcpExt: 0 4 8885 -3 18446744073709551615 4294967296 7
IpExt: InNoRoutes TW
IpExt: 0 99
";
    const SNMP: &str = "\
Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens OutSegs RetransSegs
Tcp: 1 200 120000 -1 9141 373532 72
";

    fn parse(netstat: &str, snmp: &str) -> Mibs {
        let mut mibs = Mibs::default();
        mibs.parse("TcpExt:", netstat);
        mibs.parse("Tcp:", snmp);
        mibs
    }

    #[test]
    fn values_are_found_by_the_names_above_them() {
        let expected = [
            ("SyncookiesSent", 0),
            ("TW", 8885),
            ("TWKilled", u64::MAX),
            ("ListenOverflows", 1 << 32),
            ("TCPAbortOnMemory", 7),
            ("ActiveOpens", 9141),
            ("OutSegs", 373_532),
            ("RetransSegs", 72),
        ];
        assert_eq!(parse(NETSTAT, SNMP), Mibs::of(&expected));
    }

    #[test]
    fn what_the_kernel_lacks_is_absent() {
        let mibs = parse(NETSTAT, SNMP);
        assert_eq!(mibs.get("TCPTimeWaitOverflow"), None);
        // There, but not of those kept, or below zero.
        assert_eq!(mibs.get("EmbryonicRsts"), None);
        assert_eq!(mibs.get("TWRecycled"), None);
        assert_eq!(mibs.get(""), None);
    }

    #[test]
    fn they_come_in_the_order_of_their_table() {
        let names: Vec<_> = parse(NETSTAT, SNMP).iter().collect();
        assert_eq!(
            names,
            [
                ("TCPAbortOnMemory", 7),
                ("TW", 8885),
                ("TWKilled", u64::MAX),
                ("ListenOverflows", 1 << 32),
                ("SyncookiesSent", 0),
                ("ActiveOpens", 9141),
                ("OutSegs", 373_532),
                ("RetransSegs", 72),
            ]
        );
    }

    #[test]
    fn lines_that_are_missing_or_cut_give_what_is_there() {
        for (netstat, expected) in [
            ("", &[][..]),
            ("TcpExt:", &[]),
            ("TcpExt: TW TWKilled\n", &[]),
            ("TcpExt: TW TWKilled\nIpExt: 1 2\n", &[]),
            ("TcpExt:\nTcpExt:\n", &[]),
            ("TcpExt: TW TWKilled\nTcpExt: 5\n", &[("TW", 5)]),
            ("TcpExt: TW\nTcpExt: 5 6 7\n", &[("TW", 5)]),
            ("TcpExt: TW TWKilled\nTcpExt: x 6\n", &[("TWKilled", 6)]),
            ("TcpExt: TW\nTcpExt: 18446744073709551616\n", &[]),
            (
                "TcpExt: TW\nTcpExt: 5\nTcpExt: TW\nTcpExt: 6\n",
                &[("TW", 5)],
            ),
            ("Tcp: TW\nTcp: 5\n", &[]),
        ] {
            assert_eq!(parse(netstat, ""), Mibs::of(expected), "{netstat}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        assert_eq!(BTreeSet::from_iter(MIBS).len(), MIBS.len());
    }

    #[test]
    fn this_kernel_has_them_all_and_they_rise() {
        let whole = |name: &str| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
            text.replace('\n', " \n")
        };
        let (netstat, snmp) = (whole("netstat"), whole("snmp"));
        let (before, after) = (parse(&netstat, &snmp), Mibs::read(&mut Files::default()));
        for name in MIBS {
            let there = |text: &str| text.contains(&format!(" {name} "));
            let there = there(&netstat) || there(&snmp);
            assert_eq!(there, before.get(name).is_some(), "{name}");
            assert!(before.get(name) <= after.get(name), "{name}");
        }
        assert!(before.get("TW").is_some() && before.get("OutSegs").is_some());
    }
}
