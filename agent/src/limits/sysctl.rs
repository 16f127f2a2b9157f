//! `/proc/sys/net`: what the kernel has been told to allow.

use std::ops::RangeInclusive;

use super::Files;

/// A knob of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, which is its file's.
    pub name: &'static str,
    /// Its file, below /proc/sys/net.
    pub file: &'static str,
    /// How the file is written, and under which names the numbers in it are exported.
    pub form: Form,
    /// What the numbers count.
    pub unit: &'static str,
    /// What it limits, and where the kernel does.
    pub limits: &'static str,
}

/// How a knob's file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One number, exported under the knob's name.
    Number,
    /// The lowest and the highest port.
    Range {
        /// The name of the lowest.
        low: &'static str,
        /// The name of the highest.
        high: &'static str,
    },
    /// Three numbers, as those of memory are.
    Thresholds {
        /// The name of the first: below it nothing is done.
        min: &'static str,
        /// The name of the second: above it the kernel saves.
        pressure: &'static str,
        /// The name of the third: above it the kernel refuses.
        max: &'static str,
    },
    /// Ports and ranges of them, `8080,9000-9010`; their number is exported under the knob's name.
    Ports,
}

/// Every knob that is read. Those of the whole host, `tcp_max_orphans` and `tcp_mem`, have a file
/// in the first namespace alone.
pub static SYSCTLS: &[Sysctl] = &[
    Sysctl {
        name: "tcp_max_orphans",
        file: "ipv4/tcp_max_orphans",
        form: Form::Number,
        unit: "sockets",
        limits: "orphans of the whole host, above which they are reset; from a quarter or half of it for those that do not get on (tcp_out_of_resources())",
    },
    Sysctl {
        name: "tcp_orphan_retries",
        file: "ipv4/tcp_orphan_retries",
        form: Form::Number,
        unit: "retransmissions",
        limits: "how long an orphan is kept that is not acknowledged; 0 means 8 (tcp_orphan_retries())",
    },
    Sysctl {
        name: "tcp_fin_timeout",
        file: "ipv4/tcp_fin_timeout",
        form: Form::Number,
        unit: "seconds",
        limits: "how long an orphan waits in FIN_WAIT2, and no other state (tcp_fin_time())",
    },
    Sysctl {
        name: "tcp_max_tw_buckets",
        file: "ipv4/tcp_max_tw_buckets",
        form: Form::Number,
        unit: "minisockets",
        limits: "timewait minisockets of the namespace, FIN_WAIT2 ones included, above which a socket closes without one (inet_twsk_alloc())",
    },
    Sysctl {
        name: "tcp_tw_reuse",
        file: "ipv4/tcp_tw_reuse",
        form: Form::Number,
        unit: "switch",
        limits: "whether connect() may take over a TIME_WAIT's port: 0 never, 1 always, 2 on loopback (tcp_twsk_unique())",
    },
    Sysctl {
        name: "tcp_tw_reuse_delay",
        file: "ipv4/tcp_tw_reuse_delay",
        form: Form::Number,
        unit: "milliseconds",
        limits: "how old a TIME_WAIT must be for that; a second where the kernel has no such knob (tcp_twsk_unique())",
    },
    Sysctl {
        name: "tcp_timestamps",
        file: "ipv4/tcp_timestamps",
        form: Form::Number,
        unit: "switch",
        limits: "whether segments carry timestamps, without which no TIME_WAIT is taken over: 0 no, 1 from a random start, 2 as they are",
    },
    Sysctl {
        name: "ip_local_port_range",
        file: "ipv4/ip_local_port_range",
        form: Form::Range {
            low: "ip_local_port_range_low",
            high: "ip_local_port_range_high",
        },
        unit: "port",
        limits: "the ports connect() and bind() choose from, which each destination has for itself (__inet_hash_connect())",
    },
    Sysctl {
        name: "ip_local_reserved_ports",
        file: "ipv4/ip_local_reserved_ports",
        form: Form::Ports,
        unit: "ports",
        limits: "ports that are not chosen, though in the range (inet_is_local_reserved_port())",
    },
    Sysctl {
        name: "tcp_retries2",
        file: "ipv4/tcp_retries2",
        form: Form::Number,
        unit: "retransmissions",
        limits: "how long a connection that is no orphan is kept when it is not acknowledged (tcp_write_timeout())",
    },
    Sysctl {
        name: "tcp_syn_retries",
        file: "ipv4/tcp_syn_retries",
        form: Form::Number,
        unit: "retransmissions",
        limits: "how long connect() tries, SYN_SENT (tcp_write_timeout())",
    },
    Sysctl {
        name: "tcp_synack_retries",
        file: "ipv4/tcp_synack_retries",
        form: Form::Number,
        unit: "retransmissions",
        limits: "how long a request waits for the last ACK of its handshake, SYN_RECV (reqsk_timer_handler())",
    },
    Sysctl {
        name: "tcp_max_syn_backlog",
        file: "ipv4/tcp_max_syn_backlog",
        form: Form::Number,
        unit: "requests",
        limits: "requests of a listener, of which the last quarter is for known peers, where there are no SYN cookies (tcp_conn_request())",
    },
    Sysctl {
        name: "somaxconn",
        file: "core/somaxconn",
        form: Form::Number,
        unit: "connections",
        limits: "the backlog that listen() may ask for: connections not yet accepted, and requests",
    },
    Sysctl {
        name: "tcp_syncookies",
        file: "ipv4/tcp_syncookies",
        form: Form::Number,
        unit: "switch",
        limits: "whether a full listener answers a SYN with a cookie rather than dropping it: 0 never, 1 when full, 2 always (tcp_conn_request())",
    },
    Sysctl {
        name: "tcp_abort_on_overflow",
        file: "ipv4/tcp_abort_on_overflow",
        form: Form::Number,
        unit: "switch",
        limits: "whether a connection that finds the accept queue full is reset rather than left to try again (tcp_check_req())",
    },
    Sysctl {
        name: "tcp_keepalive_time",
        file: "ipv4/tcp_keepalive_time",
        form: Form::Number,
        unit: "seconds",
        limits: "how long a connection with SO_KEEPALIVE is idle before it is probed (tcp_keepalive_timer())",
    },
    Sysctl {
        name: "tcp_keepalive_intvl",
        file: "ipv4/tcp_keepalive_intvl",
        form: Form::Number,
        unit: "seconds",
        limits: "the time between those probes (tcp_keepalive_timer())",
    },
    Sysctl {
        name: "tcp_keepalive_probes",
        file: "ipv4/tcp_keepalive_probes",
        form: Form::Number,
        unit: "probes",
        limits: "probes without an answer after which the connection is reset (tcp_keepalive_timer())",
    },
    Sysctl {
        name: "tcp_rto_max_ms",
        file: "ipv4/tcp_rto_max_ms",
        form: Form::Number,
        unit: "milliseconds",
        limits: "the longest time between retransmissions; 120 000 where the kernel has no such knob (TCP_RTO_MAX)",
    },
    Sysctl {
        name: "tcp_mem",
        file: "ipv4/tcp_mem",
        form: Form::Thresholds {
            min: "tcp_mem_min",
            pressure: "tcp_mem_pressure",
            max: "tcp_mem_max",
        },
        unit: "pages",
        limits: "memory of all TCP sockets of the host; above the last, orphans are reset (tcp_check_oom())",
    },
];

impl Sysctl {
    /// The names under which its numbers are exported, in the order of the file.
    #[must_use]
    pub fn exports(&self) -> Vec<&'static str> {
        match self.form {
            Form::Number | Form::Ports => vec![self.name],
            Form::Range { low, high } => vec![low, high],
            Form::Thresholds { min, pressure, max } => vec![min, pressure, max],
        }
    }
}

/// The knobs of one network namespace. What the kernel or the namespace lacks is absent, and so
/// is what is not understood, such as a number below zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// By the names they are exported under, in the order of [`SYSCTLS`].
    values: Vec<(&'static str, u64)>,
    /// `ip_local_port_range`, which is asked for each socket.
    range: Option<RangeInclusive<u16>>,
    /// Rising, and apart from each other.
    reserved: Vec<RangeInclusive<u16>>,
}

impl Sysctls {
    /// Those of the calling thread's namespace.
    pub(super) fn read(files: &mut Files) -> Self {
        let (mut values, mut reserved) = (Vec::new(), Vec::new());
        for sysctl in SYSCTLS {
            // The kernel takes as much memory as there is room, and clears it
            // (`proc_sys_call_handler()`).
            let text = files.text(&format!("/proc/sys/net/{}", sysctl.file), 256);
            match text.and_then(|text| parse(sysctl.form, text)) {
                Some(Setting::Numbers(numbers)) => {
                    values.extend(sysctl.exports().into_iter().zip(numbers));
                }
                Some(Setting::Ports(ports)) => {
                    values.push((sysctl.name, count(&ports)));
                    reserved = ports;
                }
                None => {}
            }
        }
        Self::new(values, reserved)
    }

    pub(super) fn new(
        values: Vec<(&'static str, u64)>,
        reserved: Vec<RangeInclusive<u16>>,
    ) -> Self {
        let mut sysctls = Self {
            values,
            range: None,
            reserved,
        };
        let port = |name| u16::try_from(sysctls.get(name)?).ok();
        let ends = port("ip_local_port_range_low").zip(port("ip_local_port_range_high"));
        sysctls.range = ends.map(|(low, high)| low..=high);
        sysctls
    }

    /// The number exported under that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        let mut values = self.values.iter();
        values.find_map(|(known, value)| (*known == name).then_some(*value))
    }

    /// All there are, under the names they are exported by, in the order of [`SYSCTLS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.values.iter().copied()
    }

    /// How many ports `connect()` can choose from: those of the range that are not reserved.
    #[must_use]
    pub fn ephemeral_ports(&self) -> Option<u32> {
        let range = self.range.as_ref()?;
        let reserved = self.reserved.iter().map(|ports| {
            let low = *ports.start().max(range.start());
            let high = *ports.end().min(range.end());
            size(&(low..=high))
        });
        Some(size(range) - reserved.sum::<u32>())
    }

    /// Whether `connect()` can choose this port; no where the range is not known.
    #[must_use]
    pub fn is_ephemeral(&self, port: u16) -> bool {
        let range = self.range.as_ref();
        // The first that could have it.
        let reserved = self.reserved.partition_point(|ports| *ports.end() < port);
        let reserved = self.reserved.get(reserved);
        range.is_some_and(|range| range.contains(&port))
            && !reserved.is_some_and(|ports| ports.contains(&port))
    }

    /// As if the kernel had these knobs, by the names they are exported under, and no other; for
    /// tests.
    #[cfg(test)]
    pub(crate) fn of(values: &[(&str, u64)]) -> Self {
        let exports: Vec<_> = SYSCTLS.iter().flat_map(Sysctl::exports).collect();
        for (name, _) in values {
            assert!(exports.contains(name), "{name} is not exported");
        }
        let value = |export| values.iter().find(|(name, _)| *name == export);
        let values = exports.into_iter();
        let values = values.filter_map(|export| Some((export, value(export)?.1)));
        Self::new(values.collect(), Vec::new())
    }

    /// The same with these ports reserved, as the kernel would write them; for tests.
    #[cfg(test)]
    pub(crate) fn reserving(self, ports: &str) -> Self {
        let reserved = parse_ports(ports).expect("a list of ports");
        let mut values: Vec<(&str, u64)> = self.values;
        values.insert(0, ("ip_local_reserved_ports", count(&reserved)));
        Self {
            reserved,
            ..Self::of(&values)
        }
    }
}

/// What a knob's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// As many numbers as the form has.
    Numbers(Vec<u64>),
    /// Rising, and apart from each other.
    Ports(Vec<RangeInclusive<u16>>),
}

/// Understands a file of that form; nothing where it is not of that form.
pub(super) fn parse(form: Form, text: &str) -> Option<Setting> {
    let (count, highest) = match form {
        Form::Number => (1, u64::MAX),
        Form::Range { .. } => (2, u16::MAX.into()),
        Form::Thresholds { .. } => (3, u64::MAX),
        Form::Ports => return Some(Setting::Ports(parse_ports(text.trim())?)),
    };
    let numbers = text
        .split_ascii_whitespace()
        .map(|word| word.parse().ok().filter(|number| *number <= highest))
        .collect::<Option<Vec<u64>>>()?;
    let ordered = !matches!(form, Form::Range { .. }) || numbers.is_sorted();
    (numbers.len() == count && ordered).then_some(Setting::Numbers(numbers))
}

/// The kernel writes them rising and as few ranges as can be; what is not so is made so.
fn parse_ports(list: &str) -> Option<Vec<RangeInclusive<u16>>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let mut ranges = Vec::new();
    for range in list.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (low.parse::<u16>().ok()?, high.parse::<u16>().ok()?);
        if low > high {
            return None;
        }
        ranges.push(low..=high);
    }
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut apart: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(below) if *range.start() <= below.end().saturating_add(1) => {
                *below = *below.start()..=*below.end().max(range.end());
            }
            _ => apart.push(range),
        }
    }
    Some(apart)
}

/// How many ports there are in ranges that are apart from each other.
fn count(ranges: &[RangeInclusive<u16>]) -> u64 {
    ranges.iter().map(|ports| u64::from(size(ports))).sum()
}

fn size(ports: &RangeInclusive<u16>) -> u32 {
    (u32::from(*ports.end()) + 1).saturating_sub((*ports.start()).into())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    const RANGE: Form = Form::Range {
        low: "low",
        high: "high",
    };
    const THRESHOLDS: Form = Form::Thresholds {
        min: "min",
        pressure: "pressure",
        max: "max",
    };

    fn ports(low: u64, high: u64, reserved: &str) -> Sysctls {
        let range = [
            ("ip_local_port_range_low", low),
            ("ip_local_port_range_high", high),
        ];
        Sysctls::of(&range).reserving(reserved)
    }

    #[test]
    fn each_form_is_understood() {
        for (form, text, numbers) in [
            (Form::Number, "60\n", &[60][..]),
            (Form::Number, "0\n", &[0]),
            (Form::Number, "18446744073709551615\n", &[u64::MAX]),
            (RANGE, "32768\t60999\n", &[32_768, 60_999]),
            (RANGE, "0 65535", &[0, 65_535]),
            (RANGE, "5\t5\n", &[5, 5]),
            (
                THRESHOLDS,
                "287898\t383867\t575796\n",
                &[287_898, 383_867, 575_796],
            ),
            (THRESHOLDS, "3\t2\t1\n", &[3, 2, 1]),
        ] {
            let expected = Some(Setting::Numbers(numbers.to_vec()));
            assert_eq!(parse(form, text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_of_its_form_is_absent() {
        for (form, text) in [
            (Form::Number, ""),
            (Form::Number, "\n"),
            (Form::Number, "-1\n"),
            (Form::Number, "18446744073709551616\n"),
            (Form::Number, "0x10\n"),
            (Form::Number, "1 2\n"),
            (Form::Number, "cubic\n"),
            (RANGE, "32768\n"),
            (RANGE, "60999\t32768\n"),
            (RANGE, "32768\t65536\n"),
            (RANGE, "1\t2\t3\n"),
            (THRESHOLDS, "1\t2\n"),
            (THRESHOLDS, "1\t2\tmax\n"),
            (THRESHOLDS, "1\t2\t3\t4\n"),
            (Form::Ports, "http\n"),
            (Form::Ports, "1,\n"),
            (Form::Ports, "1,,2\n"),
            (Form::Ports, "5-\n"),
            (Form::Ports, "9-5\n"),
            (Form::Ports, "1-2-3\n"),
            (Form::Ports, "65536\n"),
            (Form::Ports, "80 443\n"),
        ] {
            assert_eq!(parse(form, text), None, "{form:?}: {text}");
        }
    }

    #[test]
    fn reserved_ports_are_ranges_that_rise() {
        for (text, expected) in [
            ("\n", &[][..]),
            ("", &[]),
            ("8080\n", &[8080..=8080]),
            ("8080,9000-9010\n", &[8080..=8080, 9000..=9010]),
            ("0-65535\n", &[0..=65_535]),
            ("9000-9010,8080,9005-9020\n", &[8080..=8080, 9000..=9020]),
            ("1-9,2-3,10,12", &[1..=10, 12..=12]),
            ("65535,65535,65534", &[65_534..=65_535]),
        ] {
            let expected = Some(Setting::Ports(expected.to_vec()));
            assert_eq!(parse(Form::Ports, text), expected, "{text}");
        }
    }

    #[test]
    fn reserved_ports_are_counted() {
        let sysctls = Sysctls::of(&[]).reserving("8080,9000-9010");
        assert_eq!(sysctls.get("ip_local_reserved_ports"), Some(12));
        assert_eq!(sysctls.reserved, [8080..=8080, 9000..=9010]);
        assert_eq!(Sysctls::default().get("ip_local_reserved_ports"), None);
    }

    #[test]
    fn ephemeral_ports_are_those_of_the_range_that_are_not_reserved() {
        for (low, high, reserved, expected) in [
            (32_768, 60_999, "", 28_232),
            (32_768, 60_999, "8080,61000-65535", 28_232),
            (32_768, 60_999, "32768,60999", 28_230),
            (32_768, 60_999, "1-32768,60999-65535", 28_230),
            (32_768, 60_999, "40000-40009,50000", 28_221),
            (32_768, 60_999, "0-65535", 0),
            (0, 65_535, "", 65_536),
            (5, 5, "5", 0),
        ] {
            let sysctls = ports(low, high, reserved);
            assert_eq!(sysctls.ephemeral_ports(), Some(expected), "{reserved}");
            let each = (0..=u16::MAX).filter(|port| sysctls.is_ephemeral(*port));
            assert_eq!(each.count(), expected as usize, "{reserved}");
        }
    }

    #[test]
    fn without_a_range_no_port_is_ephemeral() {
        for sysctls in [
            Sysctls::default(),
            Sysctls::of(&[("ip_local_port_range_low", 1)]),
        ] {
            assert_eq!(sysctls.ephemeral_ports(), None);
            assert!(!sysctls.is_ephemeral(40_000));
        }
    }

    #[test]
    fn they_come_in_the_order_of_their_table() {
        let sysctls = Sysctls::of(&[("tcp_mem_max", 3), ("tcp_mem_min", 1), ("tcp_retries2", 15)]);
        let all: Vec<_> = sysctls.reserving("1").iter().collect();
        assert_eq!(
            all,
            [
                ("ip_local_reserved_ports", 1),
                ("tcp_retries2", 15),
                ("tcp_mem_min", 1),
                ("tcp_mem_max", 3),
            ]
        );
    }

    #[test]
    fn each_knob_has_its_own_file_and_names() {
        for sysctl in SYSCTLS {
            assert!(sysctl.file.ends_with(&format!("/{}", sysctl.name)));
        }
        let exports: Vec<_> = SYSCTLS.iter().flat_map(Sysctl::exports).collect();
        assert_eq!(BTreeSet::from_iter(&exports).len(), exports.len());
    }

    #[test]
    fn this_namespace_has_what_its_files_say() {
        let sysctls = Sysctls::read(&mut Files::default());
        for sysctl in SYSCTLS {
            let text = fs::read_to_string(format!("/proc/sys/net/{}", sysctl.file));
            let exports = sysctl.exports();
            let read: Vec<_> = exports.iter().map(|name| sysctls.get(name)).collect();
            match (text, sysctl.form) {
                // A namespace other than the first, or a kernel that has no such knob.
                (Err(_), _) => assert_eq!(read, vec![None; exports.len()], "{}", sysctl.name),
                (Ok(_), Form::Ports) => assert!(read[0].is_some()),
                (Ok(text), _) => {
                    let words: Vec<_> = text.split_ascii_whitespace().map(str::to_owned).collect();
                    let read: Vec<_> = read.into_iter().flatten().map(|n| n.to_string()).collect();
                    assert_eq!(read, words, "{}", sysctl.name);
                }
            }
        }
    }
}
