//! What the kernel allows the connections of a network namespace ([`Sysctls`]), what it has had to
//! refuse them ([`Mibs`]), and how much of it they use ([`Sockstat`]).
//!
//! All of it is that of the namespace the calling thread is in: /proc/sys/net and
//! /proc/thread-self/net are looked up anew for whoever opens a file below them.

mod sysctl;
mod mib;
mod sockstat;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::{fs::File, os::unix::fs::FileExt as _};

pub use self::{
    mib::{MIBS, Mibs},
    sockstat::Sockstat,
    sysctl::{Form, SYSCTLS, Sysctl, Sysctls},
};

/// The limits of one network namespace, and how near it is to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What is allowed.
    pub sysctls: Sysctls,
    /// What has happened, refusals above all.
    pub mibs: Mibs,
    /// What is in use.
    pub sockstat: Sockstat,
}

impl Limits {
    /// Those of the calling thread's namespace, as far as they can be read.
    #[must_use]
    pub fn read() -> Self {
        let mut files = Files::default();
        Self {
            sysctls: Sysctls::read(&mut files),
            mibs: Mibs::read(&mut files),
            sockstat: Sockstat::read_with(&mut files),
        }
    }
}

/// Reads small files of /proc one after the other into the same buffer.
#[derive(Debug, Default)]
struct Files {
    buffer: Vec<u8>,
}

impl Files {
    /// No file read here is longer: the longest list of reserved ports, every second one, is less
    /// than 200 kB.
    const LONGEST: usize = 1 << 20;

    /// What a file says, if it can be read and is text; `room` is what is expected to hold it.
    ///
    /// It is read by one call, and by another with twice the room where it filled that. Reading on
    /// from there would not do: a sysctl's file gives what fits, and at any later position nothing
    /// (`proc_do_large_bitmap()`), so that [`std::fs::read_to_string`], which begins with a few
    /// bytes, finds a long list cut.
    fn text(&mut self, path: &str, room: usize) -> Option<&str> {
        let file = File::open(path).ok()?;
        let mut room = room;
        let length = loop {
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
            let length = file.read_at(&mut self.buffer[..room], 0).ok()?;
            if length < room {
                break length;
            }
            room *= 2;
            if room > Self::LONGEST {
                return None;
            }
        };
        str::from_utf8(&self.buffer[..length]).ok()
    }

    /// What a file of the namespace's /proc/net says; nothing where it cannot be read.
    fn net(&mut self, name: &str) -> &str {
        // netstat, the longest, has some 5 kB.
        let text = self.text(&format!("/proc/thread-self/net/{name}"), 16 << 10);
        text.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_namespace_has_limits() {
        let limits = Limits::read();
        assert!(limits.sysctls.get("tcp_fin_timeout").is_some());
        assert!(limits.mibs.get("OutSegs").is_some());
        assert!(limits.sockstat.inuse.is_some());
    }

    #[test]
    fn a_file_longer_than_expected_is_read_whole() {
        let mut files = Files::default();
        let path = "/proc/thread-self/limits";
        let text = fs::read_to_string(path).unwrap();
        for room in [1, text.len(), text.len() + 1] {
            assert_eq!(files.text(path, room), Some(text.as_str()), "{room}");
        }
    }

    #[test]
    fn a_short_file_does_not_show_the_longer_one_before_it() {
        let mut files = Files::default();
        assert!(files.net("netstat").len() > 100);
        let text = files.text("/proc/sys/net/ipv4/tcp_fin_timeout", 256);
        let mut words = text.unwrap().split_ascii_whitespace();
        assert!(words.next().unwrap().parse::<u32>().is_ok());
        assert_eq!(words.next(), None);
    }

    #[test]
    fn what_is_not_there_or_no_text_or_without_end_is_absent() {
        let mut files = Files::default();
        assert_eq!(files.text("/proc/sys/net/ipv4/no_such_knob", 256), None);
        assert_eq!(files.text("/proc/sys/net", 256), None);
        assert_eq!(files.text("/proc/self/auxv", 4096), None);
        assert_eq!(files.text("/dev/zero", 256), None);
        assert_eq!(files.net("no_such_file"), "");
    }
}
