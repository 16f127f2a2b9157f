//! What became of each program.

use agent_ebpf::programs::{Program, TELLING};
use aya::programs::ProgramError;

use super::fdinfo::ProgramStats;

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Attached,
    /// This kernel does not offer what it needs; nothing is wrong with either.
    Unsupported {
        /// What is missing.
        reason: String,
    },
    /// The kernel refused it: a bug in connstate, or a kernel it does not know.
    Broken {
        /// What failed.
        reason: String,
        /// The verifier's log; empty where it did not come to that.
        verifier_log: String,
    },
}

impl Verdict {
    /// The verdict on a program that could not be loaded or attached.
    #[must_use]
    pub fn of_error(error: &ProgramError) -> Self {
        match error {
            ProgramError::Btf(error) => Self::Unsupported {
                reason: format!("this kernel has no such hook ({error})"),
            },
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let verifier_log = verifier_log.to_string();
                match missing_helper(&verifier_log) {
                    Some(helper) => Self::Unsupported {
                        reason: format!("this kernel has no helper {helper} for it"),
                    },
                    None => Self::Broken {
                        reason: format!("the kernel refused to load it: {io_error}"),
                        verifier_log,
                    },
                }
            }
            ProgramError::SyscallError(error) => Self::Broken {
                reason: format!("{error}: {}", error.io_error),
                verifier_log: String::new(),
            },
            other => Self::Broken {
                reason: other.to_string(),
                verifier_log: String::new(),
            },
        }
    }

    /// The verifier's log on lines of its own; nothing where there is none.
    #[must_use]
    pub fn log(&self) -> String {
        match self {
            Self::Broken { verifier_log, .. } if !verifier_log.is_empty() => {
                format!("; the verifier's log:\n{}", verifier_log.trim_end())
            }
            _ => String::new(),
        }
    }

    /// Whether the program runs.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        matches!(self, Self::Attached)
    }
}

/// The helper that the verifier does not know (`check_helper_call()`): by number where the kernel
/// has none of that number, else by name.
fn missing_helper(verifier_log: &str) -> Option<&str> {
    let mut lines = verifier_log.lines();
    lines.find_map(|line| {
        line.strip_prefix("invalid func unknown#")
            .or_else(|| line.strip_prefix("unknown func "))
    })
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attached => formatter.write_str("attached"),
            Self::Unsupported { reason } => write!(formatter, "unsupported: {reason}"),
            Self::Broken { reason, .. } => write!(formatter, "broken: {reason}"),
        }
    }
}

/// A program, its verdict, and what the kernel says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramReport {
    /// The program.
    pub program: &'static Program,
    /// What became of it.
    pub verdict: Verdict,
    /// The kernel's statistics; nothing where it does not run.
    pub stats: Option<ProgramStats>,
}

/// How often the kernel skipped a program that tells events.
#[must_use]
pub fn missed(reports: &[ProgramReport]) -> u64 {
    let telling = reports
        .iter()
        .filter(|report| TELLING.contains(&report.program.name));
    telling.filter_map(|report| report.stats?.misses).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_stands_on_lines_of_its_own() {
        let broken = |verifier_log: &str| Verdict::Broken {
            reason: "refused".to_owned(),
            verifier_log: verifier_log.to_owned(),
        };
        assert_eq!(broken("0: exit\n").log(), "; the verifier's log:\n0: exit");
        assert_eq!(broken("").log(), "");
        assert_eq!(Verdict::Attached.log(), "");
    }

    #[test]
    fn a_helper_that_is_missing_is_no_fault_of_the_program() {
        let log = "5: (85) call unknown#162\ninvalid func unknown#162\nprocessed 7 insns";
        assert_eq!(missing_helper(log), Some("162"));
        let log = "5: (85) call bpf_x#9\nunknown func bpf_x#9\nprocessed 7 insns";
        assert_eq!(missing_helper(log), Some("bpf_x#9"));
        assert_eq!(missing_helper("invalid access to map value"), None);
    }
}
