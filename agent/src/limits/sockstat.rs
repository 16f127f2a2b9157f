//! `/proc/net/sockstat` and `sockstat6`: how many TCP sockets a network namespace has.

use super::Files;

/// What these two files tell of TCP; absent is what they lack or what is no number.
///
/// `inuse` and `tw` are the namespace's own. `orphan`, and what is not kept here, `alloc` and
/// `mem`, are of the whole host, whichever namespace is asked (`sockstat_seq_show()` in
/// net/ipv4/proc.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockstat {
    /// Full sockets over IPv4 that have a port, listeners included.
    pub inuse: Option<u64>,
    /// The same over IPv6.
    pub inuse6: Option<u64>,
    /// Timewait minisockets of both families, those whose substate is FIN_WAIT2 included: what
    /// `tcp_max_tw_buckets` limits.
    pub tw: Option<u64>,
    /// Sockets that no process holds any more, of the whole host: what `tcp_max_orphans` limits.
    pub orphan: Option<u64>,
}

impl Sockstat {
    /// That of the calling thread's namespace.
    #[must_use]
    pub fn read() -> Self {
        Self::read_with(&mut Files::default())
    }

    pub(super) fn read_with(files: &mut Files) -> Self {
        let mut both = Self::default();
        both.parse(files.net("sockstat"));
        both.parse6(files.net("sockstat6"));
        both
    }

    /// Whether there is a full socket or a timewait minisocket. Where there is none, an iterator,
    /// which walks the whole host's hash table, need not be run to find that.
    ///
    /// What is not understood counts as one: then the iterator tells.
    #[must_use]
    pub fn has_tcp(&self) -> bool {
        [self.inuse, self.inuse6, self.tw] != [Some(0); 3]
    }

    /// Full sockets over both; nothing where the kernel tells neither.
    #[must_use]
    pub fn full_sockets(&self) -> Option<u64> {
        Some(self.inuse?.saturating_add(self.inuse6.unwrap_or(0)))
    }

    /// Takes in the text of sockstat.
    pub(super) fn parse(&mut self, text: &str) {
        self.inuse = value(text, "TCP:", "inuse");
        self.tw = value(text, "TCP:", "tw");
        self.orphan = value(text, "TCP:", "orphan");
    }

    /// Takes in the text of sockstat6.
    pub(super) fn parse6(&mut self, text: &str) {
        self.inuse6 = value(text, "TCP6:", "inuse");
    }
}

/// The number that follows `name` in the line that begins with `line`.
fn value(text: &str, line: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|text| text.strip_prefix(line))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKSTAT: &str =
        "sockets: used 3\nTCP: inuse 0 orphan 7 tw 0 alloc 9 mem 2\nUDP: inuse 1 mem 0\n";
    const SOCKSTAT6: &str = "TCP6: inuse 0\nUDP6: inuse 1\n";

    fn parse(sockstat: &str, sockstat6: &str) -> Sockstat {
        let mut both = Sockstat::default();
        both.parse(sockstat);
        both.parse6(sockstat6);
        both
    }

    #[test]
    fn each_number_is_found() {
        let sockstat = "sockets: used 11\nTCP: inuse 5 orphan 2 tw 131072 alloc 8 mem 78\n\
            UDP: inuse 1 mem 0\nUDPLITE: inuse 4\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";
        let sockstat6 = "TCP6: inuse 6\nUDP6: inuse 0\n";
        assert_eq!(
            parse(sockstat, sockstat6),
            Sockstat {
                inuse: Some(5),
                inuse6: Some(6),
                tw: Some(131_072),
                orphan: Some(2),
            }
        );
    }

    #[test]
    fn what_is_missing_or_no_number_is_absent() {
        for (sockstat, sockstat6) in [
            ("", ""),
            ("sockets: used 3\n", "UDP6: inuse 1\n"),
            ("TCP:", "TCP6: inuse"),
            (
                "TCP: inuse -1 orphan x tw 18446744073709551616",
                "TCP6: inuse 0x1",
            ),
            ("TCP6: inuse 1 tw 1 orphan 1", "TCP: inuse 1"),
        ] {
            assert_eq!(
                parse(sockstat, sockstat6),
                Sockstat::default(),
                "{sockstat}"
            );
        }
        // A kernel without IPv6 has no sockstat6.
        assert_eq!(parse(SOCKSTAT, "").inuse, Some(0));
    }

    #[test]
    fn orphans_and_allocations_are_those_of_the_whole_host() {
        assert!(!parse(SOCKSTAT, SOCKSTAT6).has_tcp());
    }

    #[test]
    fn a_socket_of_either_family_or_a_minisocket_is_seen() {
        let one = |name| SOCKSTAT.replacen(&format!("{name} 0"), &format!("{name} 1"), 1);
        assert!(parse(&one("inuse"), SOCKSTAT6).has_tcp());
        assert!(parse(&one("tw"), SOCKSTAT6).has_tcp());
        assert!(parse(SOCKSTAT, &SOCKSTAT6.replacen('0', "1", 1)).has_tcp());
    }

    #[test]
    fn what_is_not_understood_counts_as_a_socket() {
        assert!(Sockstat::default().has_tcp());
        assert!(parse(SOCKSTAT, "TCP6: inuse many\n").has_tcp());
    }

    #[test]
    fn more_sockets_than_there_are_numbers_are_the_highest() {
        let all = "TCP: inuse 18446744073709551615\n";
        let both = parse(all, "TCP6: inuse 1\n");
        assert_eq!(both.full_sockets(), Some(u64::MAX));
    }

    #[test]
    fn a_listener_is_counted_here() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let own = Sockstat::read();
        assert!(own.inuse >= Some(1) && own.has_tcp(), "{own:?}");
        assert!(own.tw.is_some() && own.orphan.is_some(), "{own:?}");
        drop(listener);
    }
}
