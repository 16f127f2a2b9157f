//! `/proc/net/sockstat` and `sockstat6`: whether a namespace has any TCP socket at all.

/// Whether these two files tell of a TCP socket or a timewait minisocket. It spares an iterator,
/// which walks the whole host's hash table to find that there is none.
///
/// What is not understood counts as one: then the iterator tells.
pub(super) fn has_tcp(sockstat: &str, sockstat6: &str) -> bool {
    let none = |file, line, name| value(file, line, name) == Some(0);
    !(none(sockstat, "TCP:", "inuse")
        && none(sockstat, "TCP:", "tw")
        && none(sockstat6, "TCP6:", "inuse"))
}

/// The number that follows `name` in the line that begins with `line`.
fn value(file: &str, line: &str, name: &str) -> Option<u64> {
    let line = file.lines().find_map(|text| text.strip_prefix(line))?;
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

    #[test]
    fn orphans_and_allocations_are_those_of_the_whole_host() {
        assert!(!has_tcp(SOCKSTAT, SOCKSTAT6));
    }

    #[test]
    fn a_socket_of_either_family_or_a_minisocket_is_seen() {
        let one = |name| SOCKSTAT.replacen(&format!("{name} 0"), &format!("{name} 1"), 1);
        assert!(has_tcp(&one("inuse"), SOCKSTAT6));
        assert!(has_tcp(&one("tw"), SOCKSTAT6));
        assert!(has_tcp(SOCKSTAT, &SOCKSTAT6.replacen('0', "1", 1)));
    }

    #[test]
    fn what_is_not_understood_counts_as_a_socket() {
        assert!(has_tcp("", ""));
        assert!(has_tcp(SOCKSTAT, "TCP6: inuse many\n"));
    }
}
