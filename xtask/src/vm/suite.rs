//! Which tests run in the machines, and why the others do not.

/// On which kernels a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// In machines.
    Guest(Kernels, Length),
    /// On the host alone, for this reason.
    Host(&'static str),
}

/// What a test asks of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernels {
    /// No more than that the agent runs.
    Any,
    /// Every program and field: it asks for what is lost without.
    Full,
}

/// How long a test takes under emulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Up to a minute.
    Short,
    /// Up to three, which CI has no time for: it runs on kernels that are asked for by name.
    Long,
}

use Kernels::{Any, Full};
use Length::{Long, Short};
use Where::{Guest, Host};

/// What a machine is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// The agent's report on the kernel alone.
    Report,
    /// The tests that CI has the time for.
    Ci,
    /// All tests.
    All,
    /// These test files.
    Named(&'a [&'static str]),
}

/// The test file of a name, where it runs in machines.
pub(super) fn named(name: &str) -> Result<&'static str, String> {
    match TESTS.iter().find(|(test, _)| *test == name) {
        Some((test, Guest(..))) => Ok(test),
        Some((_, Host(why))) => Err(format!("it stays on the host: {why}")),
        None => Err("there is no test file of that name".to_owned()),
    }
}

/// The test files of machines that are asked for, or all where none is named.
pub(super) fn in_guests(purpose: Purpose<'_>) -> impl Iterator<Item = (&'static str, Where)> {
    let rows = TESTS.into_iter();
    rows.filter(move |(test, place)| match purpose {
        Purpose::Named(names) => names.contains(test),
        _ => !matches!(place, Host(_)),
    })
}

/// Why a test does not run in a machine; nothing where it does.
pub(super) fn left_out(place: Where, purpose: Purpose<'_>, is_full: bool) -> Option<&'static str> {
    match place {
        Host(why) => Some(why),
        Guest(..) if purpose == Purpose::Report => Some("only a report was asked for"),
        Guest(Full, _) if !is_full => Some("it asks for what this kernel lacks"),
        Guest(_, Long) if purpose == Purpose::Ci => {
            Some("it takes minutes; a kernel asked for by name runs it")
        }
        Guest(..) => None,
    }
}

/// Every test file of package `tests`, in the order they run: what needs least comes first.
pub(super) const TESTS: [(&str, Where); 36] = [
    ("verdicts", Guest(Any, Short)),
    ("smoke", Guest(Any, Short)),
    ("orphan_kills", Guest(Any, Short)),
    ("orphans", Guest(Any, Short)),
    ("simultaneous_close", Guest(Any, Short)),
    ("fin_wait2", Guest(Full, Short)),
    ("census", Guest(Full, Short)),
    ("snapshot", Guest(Full, Short)),
    ("metrics", Guest(Full, Short)),
    ("time_wait", Guest(Full, Long)),
    ("fin_wait1", Guest(Full, Long)),
    ("retransmits", Guest(Full, Long)),
    ("last_ack", Guest(Full, Long)),
    ("readers", Guest(Full, Long)),
    ("rights", Guest(Full, Long)),
    ("daemon", Guest(Full, Long)),
    ("close_wait", Guest(Full, Long)),
    ("close_causes", Guest(Any, Long)),
    ("events", Guest(Full, Long)),
    ("machine_faults", Guest(Full, Long)),
    (
        "orphan_limit",
        Host(
            "it goes carefully about a limit of the host's; orphan_kills need not, and shows more",
        ),
    ),
    (
        "transitions",
        Host(
            "under emulation its 50 000 connections hold up those beside them that wait for timers; close_causes makes the same close one way at a time",
        ),
    ),
    (
        "stream",
        Host(
            "under emulation its 100 000 connections take minutes; events holds records against transitions, too",
        ),
    ),
    (
        "table",
        Host(
            "a kernel that preempts programs (6.18, 7.3) skips those of other tasks meanwhile: under emulation in every run of so many connections",
        ),
    ),
    (
        "differential",
        Host("tcpstates, which it compares the agent with, is not in the machines"),
    ),
    (
        "recovery",
        Host(
            "under emulation the sockets it counts to the unit, which last a minute, do not outlast two censuses; machine_faults holds the gauges of every kernel",
        ),
    ),
    (
        "confinement",
        Host(
            "it waits for two censuses, which are as rare as they are dear: under emulation a minute apart",
        ),
    ),
    (
        "api",
        Host("it asks with curl, and no kernel changes what the agent answers"),
    ),
    (
        "client",
        Host("it asks with curl, and no kernel changes what the agent answers"),
    ),
    (
        "web",
        Host("it asks with curl, and no kernel changes what the agent answers"),
    ),
    (
        "top",
        Host("it looks at a terminal of tmux, whatever the kernel"),
    ),
    ("manifests", Host("it reads files, and no kernel")),
    ("rules", Host("it reads files, and no kernel")),
    (
        "monitoring",
        Host("it starts Prometheus, whatever the kernel"),
    ),
    ("package", Host("it installs a Debian system")),
    (
        "faults",
        Host("it holds the agent against deadlines that emulation does not meet"),
    ),
];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;

    use super::*;
    use crate::cargo;

    #[test]
    fn a_test_runs_where_it_can_and_is_asked_for() {
        let runs = |place, purpose, is_full| left_out(place, purpose, is_full).is_none();
        for (purpose, is_full, expected) in [
            (Purpose::Report, true, [false, false, false, false]),
            (Purpose::Ci, true, [true, true, false, false]),
            (Purpose::Ci, false, [true, false, false, false]),
            (Purpose::All, true, [true, true, true, false]),
            (Purpose::All, false, [true, false, true, false]),
            (Purpose::Named(&[]), true, [true, true, true, false]),
            (Purpose::Named(&[]), false, [true, false, true, false]),
        ] {
            let places = [
                Guest(Any, Short),
                Guest(Full, Short),
                Guest(Any, Long),
                Host("it needs a lion"),
            ];
            let found = places.map(|place| runs(place, purpose, is_full));
            assert_eq!(found, expected, "{purpose:?}");
        }
    }

    #[test]
    fn what_is_named_must_be_of_machines() {
        assert_eq!(named("smoke"), Ok("smoke"));
        assert!(named("manifests").unwrap_err().contains("it reads files"));
        assert!(named("lion").is_err());
        let asked: Vec<_> = in_guests(Purpose::Named(&["smoke"])).collect();
        assert_eq!(asked, [("smoke", Guest(Any, Short))]);
    }

    #[test]
    fn every_test_file_has_its_row() {
        for entry in fs::read_dir(cargo::root().join("tests/tests")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() != Some(OsStr::new("rs")) {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let rows = TESTS.iter().filter(|(test, _)| *test == name).count();
            assert_eq!(rows, 1, "{name}");
        }
    }
}
