//! As much of the Prometheus text format as a sum over a family needs.

/// The sum of a family's samples whose labels include all those given, as `name="value"`. A
/// family without samples sums to nothing, which is what a counter that never moved means.
pub(super) fn sum(text: &str, family: &str, labels: &[&str]) -> f64 {
    let samples = text.lines().filter_map(sample);
    let family = samples.filter(|sample| sample.0 == family);
    let chosen = family.filter(|sample| labels.iter().all(|label| sample.1.contains(label)));
    chosen.fold(0.0, |sum, sample| sum + sample.2)
}

/// Name, labels and value of a line; none for comments and blanks. The agent writes no
/// timestamps, so the value is the last word.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.trim_end().rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((
        name.trim_end(),
        labels.trim_end_matches('}'),
        value.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP connstate_state_transitions_total Transitions.
# TYPE connstate_state_transitions_total counter
connstate_state_transitions_total{from="close",to="syn_sent"} 60000
connstate_state_transitions_total{from="syn_sent",to="established"} 6e4

connstate_bpf_program_misses_total{program="inet_sock_set_state"} 3
connstate_bpf_program_misses_total{program="tcp_retransmit_skb"} 5
connstate_workload_info{workload="a b {c}"} 1
connstate_events_total 12
"#;

    #[test]
    fn a_family_is_summed() {
        assert_eq!(
            sum(TEXT, "connstate_state_transitions_total", &[]).to_bits(),
            120_000f64.to_bits()
        );
        assert_eq!(
            sum(TEXT, "connstate_events_total", &[]).to_bits(),
            12f64.to_bits()
        );
    }

    #[test]
    fn labels_select() {
        let misses = sum(
            TEXT,
            "connstate_bpf_program_misses_total",
            &[r#"program="inet_sock_set_state""#],
        );
        assert_eq!(misses.to_bits(), 3f64.to_bits());
    }

    #[test]
    fn names_match_whole_and_the_unknown_sums_to_nothing() {
        assert_eq!(sum(TEXT, "connstate_events", &[]).to_bits(), 0f64.to_bits());
        assert_eq!(
            sum(TEXT, "connstate_workload_info", &[]).to_bits(),
            1f64.to_bits()
        );
        assert_eq!(
            sum("", "connstate_events_total", &[]).to_bits(),
            0f64.to_bits()
        );
    }
}
