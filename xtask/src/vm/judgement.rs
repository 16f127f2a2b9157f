//! What a machine's run is worth: each test file's verdict, and what fails the whole. Pure.

use super::console::{self, End, Run, Verdict};
use super::guest::CHECK;
use super::qemu::PROOF;
use super::suite::{Purpose, in_guests, left_out};

/// The tests that show something only where they print [`PROOF`].
const PROVEN: [&str; 2] = ["orphan_kills", "machine_faults"];

/// What became of a test file on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) passed: usize,
    pub(super) failed: Vec<String>,
    /// What was skipped, and why.
    pub(super) skipped: Vec<String>,
    /// Why the file's run as a whole is worth nothing.
    pub(super) broken: Option<String>,
}

impl File {
    /// As little as a table has room for.
    pub(super) fn brief(&self) -> String {
        if self.broken.is_some() {
            return "broken".to_owned();
        }
        if self.passed == 0 && self.failed.is_empty() {
            return "skipped".to_owned();
        }
        let mut words = Vec::new();
        if self.passed > 0 {
            words.push(format!("{} passed", self.passed));
        }
        if !self.failed.is_empty() {
            words.push(format!("{} failed", self.failed.len()));
        }
        if !self.skipped.is_empty() {
            words.push(format!("{} skipped", self.skipped.len()));
        }
        words.join(", ")
    }

    /// What is wrong with it, in words.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = self
            .failed
            .iter()
            .map(|test| format!("{}: {test} failed", self.name));
        let broken = self
            .broken
            .iter()
            .map(|why| format!("{}: {why}", self.name));
        failed.chain(broken).collect()
    }
}

/// Every test file of machines that was asked for, judged by what a console says.
pub(super) fn files(runs: &[Run], purpose: Purpose<'_>, is_full: bool) -> Vec<File> {
    let files = in_guests(purpose).map(|(name, place)| match left_out(place, purpose, is_full) {
        Some(why) => File {
            name,
            passed: 0,
            failed: Vec::new(),
            skipped: vec![why.to_owned()],
            broken: None,
        },
        None => file(name, runs.iter().find(|run| run.name == *name)),
    });
    files.collect()
}

fn file(name: &'static str, run: Option<&Run>) -> File {
    let tests = run.map_or_else(Vec::new, |run| console::tests(&run.output));
    let of = |verdict| tests.iter().filter(move |test| test.verdict == verdict);
    let failed: Vec<_> = of(Verdict::Failed).map(|test| test.name.clone()).collect();
    let unfinished: Vec<_> = of(Verdict::Unfinished)
        .map(|test| test.name.as_str())
        .collect();
    let skipped = tests.iter().flat_map(|test| {
        let skips = test.skips.iter();
        skips.map(|why| format!("{}: {why}", test.name))
    });
    let passed = of(Verdict::Passed).count();
    let counted = run.and_then(|run| console::summary(&run.output));
    let at = if unfinished.is_empty() {
        String::new()
    } else {
        format!(" in {}", unfinished.join(", "))
    };
    let broken = match run.map(|run| run.end) {
        None => Some("it never began".to_owned()),
        Some(End::Killed) => Some(format!("it took too long and was killed{at}")),
        Some(End::Cut) => Some(format!("the machine ended{at}")),
        Some(End::Signal) => Some(format!("it crashed{at}")),
        Some(End::Status(status)) => {
            let is_proven = run.is_some_and(|run| run.output.lines().any(|line| line == PROOF));
            if counted != Some((passed, failed.len())) {
                Some(format!("its console does not tell of all tests{at}"))
            } else if (status == 0) != failed.is_empty() {
                Some(format!(
                    "it ended with status {status}, against its tests' verdicts"
                ))
            } else if passed + failed.len() == 0 {
                Some("it has no tests".to_owned())
            } else if PROVEN.contains(&name) && failed.is_empty() && !is_proven {
                Some(format!(
                    "it passed without the line `{PROOF}`, and has shown nothing"
                ))
            } else {
                None
            }
        }
    };
    File {
        name,
        passed,
        failed,
        skipped: skipped.collect(),
        broken,
    }
}

/// The agent's report on the kernel, where it says what such a kernel should: all where `is_full`,
/// and else that something is lost.
pub(super) fn check(runs: &[Run], is_full: bool) -> Result<&str, String> {
    let run = runs.iter().find(|run| run.name == CHECK);
    let run = run.ok_or("agent check never began")?;
    let expected = End::Status(i32::from(!is_full));
    if run.end == expected {
        Ok(&run.output)
    } else {
        Err(format!(
            "agent check ended with {:?} instead of {expected:?}:\n{}",
            run.end, run.output
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, end: End, output: &str) -> Run {
        Run {
            name: name.to_owned(),
            end,
            output: output.to_owned(),
        }
    }

    const PASSED: &str = "test one ... skipped: a part\nok\ntest result: ok. 1 passed; 0 failed;\n";

    #[test]
    fn a_file_passes_where_all_its_tests_do() {
        let passed = file("smoke", Some(&run("smoke", End::Status(0), PASSED)));
        assert_eq!(passed.failures(), [""; 0]);
        assert_eq!(passed.brief(), "1 passed, 1 skipped");
        assert_eq!(passed.skipped, ["one: a part"]);
        let output = "test one ... FAILED\ntest result: FAILED. 0 passed; 1 failed;\n";
        let failed = file("smoke", Some(&run("smoke", End::Status(101), output)));
        assert_eq!(failed.failures(), ["smoke: one failed"]);
        assert_eq!(failed.brief(), "1 failed");
    }

    #[test]
    fn a_run_without_a_clear_end_is_broken() {
        let begun = "test one ... \n";
        for run in [
            None,
            Some(run("smoke", End::Killed, begun)),
            Some(run("smoke", End::Cut, begun)),
            Some(run("smoke", End::Signal, begun)),
            Some(run("smoke", End::Status(0), begun)),
            Some(run("smoke", End::Status(101), PASSED)),
            Some(run(
                "smoke",
                End::Status(0),
                "test result: ok. 0 passed; 0 failed;",
            )),
        ] {
            let file = file("smoke", run.as_ref());
            assert!(file.broken.is_some(), "{run:?}");
            assert_eq!(file.brief(), "broken");
        }
    }

    #[test]
    fn what_only_a_machine_shows_must_be_shown() {
        let proven =
            format!("test one ... 3 killed\n{PROOF}\nok\ntest result: ok. 1 passed; 0 failed;\n");
        for name in PROVEN {
            let proven = run(name, End::Status(0), &proven);
            assert_eq!(file(name, Some(&proven)).broken, None);
            let skipped = run(name, End::Status(0), PASSED);
            assert!(file(name, Some(&skipped)).broken.is_some());
        }
    }

    #[test]
    fn a_kernel_is_as_full_as_it_should_be() {
        let full = [run(CHECK, End::Status(0), "kernel")];
        let reduced = [run(CHECK, End::Status(1), "kernel")];
        assert_eq!(check(&full, true), Ok("kernel"));
        assert_eq!(check(&reduced, false), Ok("kernel"));
        assert!(check(&reduced, true).is_err());
        assert!(check(&full, false).is_err());
        assert!(check(&[], true).is_err());
    }

    #[test]
    fn a_reduced_kernel_skips_what_needs_all() {
        let files = files(&[], Purpose::All, false);
        let rights = files.iter().find(|file| file.name == "rights").unwrap();
        assert!(rights.failures().is_empty() && rights.skipped.len() == 1);
    }
}
