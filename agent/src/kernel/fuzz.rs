//! What must hold of any types and any fdinfo.

use super::{
    fdinfo::ProgramStats,
    types::{KernelTypes, first_missing},
};

/// Tracepoints that the programs are attached to.
const TRACEPOINTS: [&str; 2] = ["inet_sock_set_state", "tcp_retransmit_skb"];

/// As BTF. Each field is found or not, in bounded time; where one lies fits into a global.
pub(crate) fn types(input: &[u8]) {
    let types = match KernelTypes::parse(input.to_vec()) {
        Ok(types) => types,
        Err(says) => return assert!(!says.is_empty()),
    };
    let report = types.report();
    for found in report.iter().filter(|found| found.location.is_present()) {
        assert!(found.location.offset() < 1 << 16, "{found:?}");
        if let Some((shift, width)) = found.location.bit_range() {
            assert!(width > 0 && shift + width <= 8, "{found:?}");
        }
    }
    assert!(first_missing(&report).is_none_or(|field| {
        let mut paths = field.paths();
        paths.all(|path| !path.is_empty())
    }));
    for tracepoint in TRACEPOINTS {
        let arguments = types.tracepoint_arguments(tracepoint);
        assert!(arguments.is_none_or(|arguments| arguments < 1 << 16));
    }
}

/// As /proc/self/fdinfo/FD. A number told is one that stands there.
pub(crate) fn fdinfo(text: &str) {
    let stats = ProgramStats::parse(text);
    let time = u64::try_from(stats.run_time.as_nanos()).ok();
    assert!(time.is_some());
    for (key, value) in [
        ("recursion_misses:", stats.misses),
        ("run_cnt:", Some(stats.runs).filter(|runs| *runs > 0)),
        ("run_time_ns:", time.filter(|time| *time > 0)),
    ] {
        if let Some(value) = value {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
            let first = lines.next().map(|line| line.trim().trim_start_matches('+'));
            assert_eq!(
                first.and_then(|text| text.parse().ok()),
                Some(value),
                "{key}"
            );
        }
    }
}
