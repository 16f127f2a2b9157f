use std::{collections::BTreeSet, time::Duration};

use agent_ebpf::{
    census::CensusCounts,
    close::CloseCause,
    programs::PROGRAMS,
    retransmit::{Packet, Trigger},
    state::TcpState,
};

use super::*;
use crate::{
    census::{Census, NamespaceCensus},
    kernel::{ProgramReport, ProgramStats, Verdict},
    model::Model,
};

/// A view with some of everything.
fn view() -> View {
    let mut view = Model::new("1.2.3", "6.18.0".to_owned(), true).view(Duration::from_secs(9));
    view.transitions[TcpState::Established as usize][TcpState::CloseWait as usize] = 3;
    view.closes[CloseCause::Passive as usize] = 2;
    view.retransmits[TcpState::FinWait1 as usize][Packet::Fin as usize][Trigger::Rto as usize] = 4;
    // A request minisocket.
    view.retransmits[12][Packet::SynAck as usize][Trigger::Rto as usize] = 5;
    view.durations[5].buckets[3] = 1;
    view.durations[5].buckets[18] = 1;
    view.durations[5].sum_ns = 7_200_001_000_000;
    view.events = 11;
    view.census = Some(census());
    view.census_durations.observe(Duration::from_millis(2));
    view.lost.ring_full = 1;
    view.programs = PROGRAMS
        .iter()
        .zip([
            Verdict::Attached,
            refused(),
            Verdict::Attached,
            refused(),
            Verdict::Attached,
        ])
        .map(|(program, verdict)| ProgramReport {
            program,
            stats: verdict.is_attached().then_some(ProgramStats {
                misses: Some(6),
                runs: 100,
                run_time: Duration::from_micros(250),
            }),
            verdict,
        })
        .collect();
    view
}

/// Two namespaces, and one that was not reached.
fn census() -> Census {
    let mut counts = CensusCounts::ZERO;
    counts.states[TcpState::TimeWait as usize] = 20;
    counts.states[TcpState::FinWait1 as usize] = 2;
    counts.orphans[TcpState::FinWait1 as usize] = 1;
    counts.minisockets = 20;
    let namespace = |inode| NamespaceCensus { inode, counts };
    Census {
        completed: Duration::from_millis(1_700_000_000_500),
        took: Duration::from_millis(2),
        namespaces: vec![namespace(1), namespace(2)],
        unreached: 1,
    }
}

fn refused() -> Verdict {
    Verdict::Unsupported {
        reason: "test".to_owned(),
    }
}

/// The text without this process's own families, which differ from run to run.
fn own_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| !line.contains("process_"))
        .collect()
}

#[test]
fn the_whole_page_is_the_golden_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.txt");
    let text = own_lines(&Exposition::default().render(&view()).unwrap());
    if std::env::var_os("CONNSTATE_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (got, want)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "line {} of {path}", line + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn every_label_value_is_there_from_the_start() {
    let empty = Model::new("1.2.3", "6.18.0".to_owned(), false).view(Duration::ZERO);
    let text = Exposition::default().render(&empty).unwrap();
    let zeros = |prefix: &str| {
        text.lines()
            .filter(|line| line.starts_with(prefix) && line.ends_with(" 0"))
            .collect::<BTreeSet<_>>()
            .len()
    };
    assert_eq!(
        zeros("connstate_state_transitions_total{"),
        11 * 11 - 11 - 11 + 1
    );
    assert_eq!(zeros("connstate_closes_total{"), 17);
    assert_eq!(zeros("connstate_retransmits_total{"), 11 * 4 * 4);
    assert_eq!(zeros("connstate_state_duration_seconds_count{"), 7);
    assert_eq!(zeros("connstate_events_lost_total{"), 3);
    assert_eq!(zeros("connstate_events_total"), 1);
    assert!(!text.contains("to=\"time_wait\""));
}

#[test]
fn a_histogram_ends_in_everything() {
    let text = Exposition::default().render(&view()).unwrap();
    for line in [
        "connstate_state_duration_seconds_bucket{state=\"close_wait\",le=\"0.001\"} 1",
        "connstate_state_duration_seconds_bucket{state=\"close_wait\",le=\"3600\"} 1",
        "connstate_state_duration_seconds_bucket{state=\"close_wait\",le=\"+Inf\"} 2",
        "connstate_state_duration_seconds_sum{state=\"close_wait\"} 7200.001",
        "connstate_state_duration_seconds_count{state=\"close_wait\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line}");
    }
    for bound in ["0.001", "0.01", "0.1", "1", "10", "60", "300"] {
        assert!(
            text.contains(&format!("le=\"{bound}\"")),
            "no bucket {bound}"
        );
    }
}

#[test]
fn help_and_type_stand_once_for_each_family() {
    let text = Exposition::default().render(&view()).unwrap();
    for family in FAMILIES {
        for kind in ["HELP", "TYPE"] {
            let start = format!("# {kind} {} ", family.name);
            let found = text.lines().filter(|line| line.starts_with(&start)).count();
            assert_eq!(found, 1, "{start}");
        }
    }
}

#[test]
fn statistics_nobody_asked_for_are_absent() {
    let text = Exposition::default()
        .render(&View {
            bpf_stats: false,
            ..view()
        })
        .unwrap();
    assert!(!text.contains("connstate_bpf_program_run"));
    assert!(text.contains("connstate_bpf_program_misses_total{program=\"inet_sock_set_state\"} 6"));
}
