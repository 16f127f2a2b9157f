//! Writes docs/metrics.md.

use std::fmt::Write as _;

use super::families::families;

/// What the agent's own process shows as, which the `prometheus` crate collects.
pub const PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

/// The table of families as Markdown, as docs/metrics.md holds it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Every family that `/metrics` serves. This page is generated from the table in \
         `agent/src/metrics/families`; a test compares the two, and \
         `CONNSTATE_BLESS=1 cargo test -p agent --test metrics_doc` writes it anew.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in families() {
        let labels = if family.labels.is_empty() {
            "–".to_owned()
        } else {
            family.labels.join(", ")
        };
        // Writing to a String cannot fail.
        let _written = writeln!(
            text,
            "| {} | {} | {labels} | {} |",
            family.name,
            family.kind.name(),
            family.help
        );
    }
    let process = PROCESS.map(|name| format!("`{name}`"));
    let (last, others) = (&process[process.len() - 1], &process[..process.len() - 1]);
    // Writing to a String cannot fail.
    let _written = writeln!(
        text,
        "\nThe agent's own process shows as the usual {} and {last}.",
        others.join(", ")
    );
    text
}
