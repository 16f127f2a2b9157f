use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use agent_ebpf::{
    census::CensusCounts,
    close::CloseCause,
    programs::PROGRAMS,
    retransmit::{Packet, Trigger},
    state::TcpState,
};

use super::*;
use crate::{
    census::{Census, Connects, Lingering, NamespaceCensus, Owner, PortUse},
    detectors::Thresholds,
    kernel::{ProgramReport, ProgramStats, Verdict},
    limits::{Limits, Mibs, Sockstat, Sysctls},
    model::{Model, Setup},
    workload::Workload,
};

fn setup(bpf_stats: bool) -> Setup {
    Setup {
        version: "1.2.3",
        kernel: "6.18.0".to_owned(),
        bpf_stats,
        socket_capacity: 1024,
        thresholds: Thresholds {
            close_wait_leak_after: Duration::ZERO,
            ..Thresholds::default()
        },
        ..Setup::default()
    }
}

/// A view with some of everything.
fn view() -> View {
    let mut model = Model::new(setup(true));
    model.census(census());
    let mut view = model.view(Duration::from_secs(9));
    view.transitions[TcpState::Established as usize][TcpState::CloseWait as usize] = 3;
    view.closes[CloseCause::Passive as usize] = 2;
    view.retransmits[TcpState::FinWait1 as usize][Packet::Fin as usize][Trigger::Rto as usize] = 4;
    // A request minisocket.
    view.retransmits[12][Packet::SynAck as usize][Trigger::Rto as usize] = 5;
    view.durations[5].buckets[3] = 1;
    view.durations[5].buckets[18] = 1;
    view.durations[5].sum_ns = 7_200_001_000_000;
    view.events = 11;
    view.lost.ring_full = 1;
    view.programs = PROGRAMS
        .iter()
        .zip([
            Verdict::Attached,
            refused(),
            Verdict::Attached,
            refused(),
            Verdict::Attached,
            refused(),
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
    let leak = |cookie| Lingering {
        cookie,
        state: TcpState::CloseWait,
        owner: Some(Arc::new(Owner {
            process: "a \"b\"".to_owned(),
            pids: vec![5],
            workload: nginx(),
        })),
        ..Lingering::default()
    };
    let namespace = |inode| NamespaceCensus {
        inode,
        is_host: inode == 1,
        workload: Some(nginx()),
        counts,
        lingering: vec![leak(2 * inode), leak(2 * inode + 1)],
        ports: vec![PortUse {
            source: IpAddr::from([192, 0, 2, 1]),
            destination: IpAddr::from([192, 0, 2, 2]),
            port: 443,
            used: 17,
        }],
        limits: Limits {
            sysctls: Sysctls::of(&[
                ("tcp_max_orphans", 100),
                ("tcp_max_tw_buckets", 1_000),
                ("ip_local_port_range_low", 32_768),
                ("ip_local_port_range_high", 60_999),
            ]),
            mibs: Mibs::of(&[("TCPAbortOnMemory", inode), ("TCPTimeWaitOverflow", 3)]),
            sockstat: Sockstat {
                tw: Some(20),
                orphan: Some(1),
                ..Sockstat::default()
            },
        },
        ..NamespaceCensus::default()
    };
    Census {
        completed: Duration::from_millis(1_700_000_000_500),
        took: Duration::from_millis(2),
        full_took: Duration::from_millis(2),
        full_completed: Duration::from_secs(1_700_000_001),
        namespaces: vec![namespace(1), namespace(2)],
        unreached: 1,
        present: vec![1, 2, 3],
        workloads: vec![(nginx(), [7, 4, 2, 0, 0])],
        connects: vec![Connects {
            workload: nginx(),
            netns: 1,
            destination: IpAddr::from([192, 0, 2, 2]),
            port: 443,
            count: 12,
        }],
        ..Census::default()
    }
}

fn nginx() -> Arc<Workload> {
    Arc::new(Workload::of_cgroup("/system.slice/nginx.service"))
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
fn a_limit_that_is_not_known_is_absent() {
    let mut census = census();
    census.namespaces[1].limits.sysctls = Sysctls::default();
    let mut model = Model::new(setup(false));
    model.census(census);
    let text = Exposition::default()
        .render(&model.view(Duration::ZERO))
        .unwrap();
    let has = |name: &str, netns: &str| text.contains(&format!("\n{name}{{netns=\"{netns}\"}} "));
    for name in ["connstate_time_wait_limit", "connstate_ephemeral_ports"] {
        assert!(has(name, "host") && !has(name, "2"), "{text}");
    }
    assert!(has("connstate_time_wait_sockets", "2"), "{text}");
}

#[test]
fn every_label_value_is_there_from_the_start() {
    let empty = Model::new(setup(false)).view(Duration::ZERO);
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
    assert_eq!(zeros("connstate_events_lost_total{"), 4);
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
    for family in families() {
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

#[test]
fn processor_time_is_told_in_fractions_of_a_second() {
    let exposition = Exposition::default();
    let taken = || {
        let text = exposition.render(&view()).unwrap();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    let before = taken();
    let after = taken();
    assert!(before < after && after < before + 1.0, "{before} {after}");
}
