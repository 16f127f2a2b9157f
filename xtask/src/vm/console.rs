//! What a machine wrote on its console: which commands ran, which tests in them, and how they
//! ended. Pure: text in, plain data out.

/// A command of the plan, as process 1 told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) end: End,
    /// What it printed.
    pub(super) output: String,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With this exit status.
    Status(i32),
    /// By a signal, or it could not be run at all.
    Signal,
    /// Process 1 killed it, since it took too long.
    Killed,
    /// The machine ended first.
    Cut,
}

/// A test of a test file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// Why it skipped, or parts of it: whatever it prints behind `skipped: `.
    pub(super) skips: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// Its file's run ended first.
    Unfinished,
}

/// What process 1 begins its own lines with.
const INIT: &str = "init: ";

/// The commands that were begun.
pub(super) fn runs(console: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for line in console.lines() {
        let told = line
            .strip_prefix(INIT)
            .and_then(|line| line.split_once(' '));
        let last = runs.last_mut().filter(|run| run.end == End::Cut);
        match (told, last) {
            (Some((name, "begins")), _) => runs.push(Run {
                name: name.to_owned(),
                end: End::Cut,
                output: String::new(),
            }),
            (Some((name, end)), Some(run)) if name == run.name => run.end = self::end(end),
            (_, Some(run)) => {
                run.output.push_str(line);
                run.output.push('\n');
            }
            (_, None) => {}
        }
    }
    runs
}

/// Of what process 1 tells: `ended: exit status: 1 after 2 s`.
fn end(told: &str) -> End {
    if told.starts_with("was killed") {
        return End::Killed;
    }
    let status = told.strip_prefix("ended: exit status: ");
    let status = status.and_then(|told| told.split(' ').next()?.parse().ok());
    status.map_or(End::Signal, End::Status)
}

/// The tests in what a test file's run printed, one at a time: libtest begins a line with the
/// test's name, and ends it, or a later one, with the verdict.
pub(super) fn tests(output: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for line in output.lines() {
        let begun = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... "));
        let rest = match begun {
            // A test may say so of others, while it runs itself; no name has a space.
            Some((name, rest)) if !name.contains(' ') => {
                tests.push(Test {
                    name: name.to_owned(),
                    verdict: Verdict::Unfinished,
                    skips: Vec::new(),
                });
                rest
            }
            _ => line,
        };
        let open = tests.last_mut();
        let Some(test) = open.filter(|test| test.verdict == Verdict::Unfinished) else {
            continue;
        };
        match rest {
            "ok" => test.verdict = Verdict::Passed,
            "FAILED" => test.verdict = Verdict::Failed,
            rest => {
                let skip = rest.strip_prefix("skipped: ");
                test.skips.extend(skip.map(str::to_owned));
            }
        }
    }
    tests
}

/// How many tests libtest says passed and failed, in its last line.
pub(super) fn summary(output: &str) -> Option<(usize, usize)> {
    let mut lines = output.lines().rev();
    let line = lines.find_map(|line| line.strip_prefix("test result: "))?;
    let count = |what: &str| {
        let (before, _) = line.split_once(what)?;
        before.rsplit([' ', '.']).next()?.parse().ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

/// What a kernel begins the account of a fault with that need not end the machine. It says so at
/// levels that `quiet` lets through, or lifts that first (`oops_begin()`); a mere `WARNING: ` it
/// keeps to itself (`__warn()`).
const FAULTS: [&str; 6] = [
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "self-detected stall",
    "detected stalls on CPUs",
];

/// The first fault that the kernel tells of.
pub(super) fn fault(console: &str) -> Option<&str> {
    let mut told = console.lines().filter_map(by_kernel);
    told.find(|told| FAULTS.iter().any(|fault| told.contains(fault)))
}

/// What the kernel says in a line: what follows its clock, `[   12.345678]`. A test may have begun
/// the line.
fn by_kernel(line: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    line.match_indices('[').find_map(|(place, _)| {
        let (clock, told) = line[place + 1..].split_once(']')?;
        let (seconds, fraction) = clock.trim_start().split_once('.')?;
        (is_number(seconds) && is_number(fraction)).then(|| told.trim_start())
    })
}

#[cfg(test)]
mod tests_of_the_console {
    use super::*;

    const CONSOLE: &str = "\
[    0.1] Linux
init: check begins
kernel        6.1.0

init: check ended: exit status: 0 after 3 s
init: smoke begins

running 2 tests
test one ... ok
test two ... run 1 is repeated: it was slow
skipped: no cable here
ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s


init: smoke ended: exit status: 0 after 4 s
init: broken begins
test three ... thread 'three' panicked
FAILED
test four ... FAILED
test result: FAILED. 0 passed; 2 failed; 0 ignored
init: broken ended: exit status: 101 after 4 s
init: slow begins
test five ...
init: slow was killed after 240 s
init: gone begins
init: gone ended: signal: 9 (SIGKILL) after 0 s
init: last begins
test six ... init: this is no end
Kernel panic - not syncing
";

    #[test]
    fn commands_are_told_apart() {
        let runs = runs(CONSOLE);
        let ends: Vec<_> = runs
            .iter()
            .map(|run| (run.name.as_str(), run.end))
            .collect();
        let expected = [
            ("check", End::Status(0)),
            ("smoke", End::Status(0)),
            ("broken", End::Status(101)),
            ("slow", End::Killed),
            ("gone", End::Signal),
            ("last", End::Cut),
        ];
        assert_eq!(ends, expected);
        assert_eq!(runs[0].output, "kernel        6.1.0\n\n");
        assert!(runs[5].output.contains("Kernel panic"));
    }

    #[test]
    fn tests_are_told_apart() {
        let runs = runs(CONSOLE);
        let smoke = tests(&runs[1].output);
        let expected = [("one", Verdict::Passed), ("two", Verdict::Passed)];
        let found: Vec<_> = smoke
            .iter()
            .map(|test| (test.name.as_str(), test.verdict))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(smoke[1].skips, ["no cable here"]);
        let broken = tests(&runs[2].output);
        assert!(broken.iter().all(|test| test.verdict == Verdict::Failed));
        assert_eq!(tests(&runs[5].output)[0].verdict, Verdict::Unfinished);
    }

    #[test]
    fn a_fault_that_ends_nothing_is_seen() {
        for told in [
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "BUG: scheduling while atomic: agent/812/0x00000002",
            "kernel BUG at net/ipv4/tcp.c:1!",
            "Oops: general protection fault: 0000 [#1] SMP",
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        ] {
            for before in ["", "test two ... "] {
                let more = "[   12.4] Call Trace:\ntest two ... ok\n";
                let console = format!("{CONSOLE}{before}[   12.345678] {told}\n{more}");
                assert_eq!(fault(&console), Some(told));
            }
        }
    }

    #[test]
    fn what_a_test_prints_is_no_fault_of_the_kernel() {
        assert_eq!(fault(CONSOLE), None);
        let printed = "thread panicked: BUG: [1, 2] Oops: [a.b] self-detected stall\n";
        assert_eq!(fault(printed), None);
    }

    #[test]
    fn libtests_own_count_is_read() {
        let runs = runs(CONSOLE);
        assert_eq!(summary(&runs[1].output), Some((2, 0)));
        assert_eq!(summary(&runs[2].output), Some((0, 2)));
        assert_eq!(summary(&runs[3].output), None);
    }
}
