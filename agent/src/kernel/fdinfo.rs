//! What the kernel says of a loaded program (`bpf_prog_show_fdinfo()`).

use std::time::Duration;

/// The kernel's own statistics of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Runs skipped because the program was running on that CPU already; nothing before 5.12,
    /// which does not tell.
    pub misses: Option<u64>,
    /// Runs, while BPF statistics are on.
    pub runs: u64,
    /// Time spent in them, while BPF statistics are on.
    pub run_time: Duration,
}

impl ProgramStats {
    /// Reads the lines of `/proc/self/fdinfo/FD`; what is missing or no number counts as absent.
    #[must_use]
    pub fn parse(fdinfo: &str) -> Self {
        let value = |key: &str| {
            fdinfo
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| *name == key)
                .and_then(|(_, value)| value.trim().parse().ok())
        };
        Self {
            misses: value("recursion_misses"),
            runs: value("run_cnt").unwrap_or(0),
            run_time: Duration::from_nanos(value("run_time_ns").unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_jited:\t1\n\
                      run_time_ns:\t1500\nrun_cnt:\t3\nrecursion_misses:\t7\n";
        assert_eq!(
            ProgramStats::parse(fdinfo),
            ProgramStats {
                misses: Some(7),
                runs: 3,
                run_time: Duration::from_nanos(1500),
            }
        );
    }

    #[test]
    fn an_old_kernel_does_not_tell_misses() {
        assert_eq!(ProgramStats::parse("run_cnt:\t3\n").misses, None);
        assert_eq!(
            ProgramStats::parse("recursion_misses:\tmany\n").misses,
            None
        );
        assert_eq!(ProgramStats::parse(""), ProgramStats::default());
    }
}
