//! A host with everything that can be wrong, for tests of the screens.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use agent_ebpf::{
    census::WORKLOAD_STATES,
    close::CloseCause,
    retransmit::{Packet, Trigger},
    state::TcpState,
};

use crate::{
    advice::{Topic, advise},
    api::{
        event::{EventLine, Kind},
        snapshot::{
            Activity, Crowded, Limited, Namespace, Snapshot, TransitionCount, VERSION,
            WorkloadSockets,
        },
    },
    census::Age,
    detectors::{
        Cause, Connector, Detector, End, EndedBy, Findings, KillsFrom, Minisockets, Orphans, Ports,
        Reuse, Side, Stall, StalledSocket,
    },
    limits::Sysctls,
};

/// A host on which nothing happens.
pub(super) fn empty() -> Snapshot {
    let states: BTreeMap<_, _> = TcpState::ALL.into_iter().map(|state| (state, 0)).collect();
    Snapshot {
        version: VERSION,
        agent: "1.2.3".to_owned(),
        kernel: "6.18.0".to_owned(),
        completed: 1_700_000_000.0,
        took: 0.002,
        unreached_namespaces: 0,
        untold_sockets: 0,
        unattached_programs: Vec::new(),
        states: states.clone(),
        orphan_sockets: states,
        orphans: None,
        namespaces: Vec::new(),
        workloads: Vec::new(),
        activity: Activity {
            at: 0.0,
            transitions: Vec::new(),
            closes: CloseCause::ALL
                .into_iter()
                .map(|cause| (cause, 0))
                .collect(),
            retransmits: 0,
            orphan_kills: 0,
            events: 0,
            events_lost: 0,
        },
        findings: Findings::default(),
    }
}

/// The busy host, `second` seconds after the first look at it.
pub(super) fn busy(second: u32) -> Snapshot {
    let mut snapshot = empty();
    let seconds = u64::from(second);
    for (state, count) in [
        (TcpState::Established, 12_345 + seconds % 3),
        (TcpState::SynSent, 3),
        (TcpState::SynRecv, 12),
        (TcpState::FinWait1, 37),
        (TcpState::FinWait2, 1_204),
        (TcpState::TimeWait, 53_207),
        (TcpState::CloseWait, 412 + 4 * seconds),
        (TcpState::LastAck, 9),
        (TcpState::Listen, 41),
        (TcpState::Closing, 1),
    ] {
        snapshot.states.insert(state, count);
    }
    snapshot.activity = activity(seconds);
    snapshot.orphans = Some(Limited {
        count: 20_480,
        limit: 65_536,
    });
    snapshot.namespaces = vec![
        namespace("host", 53_100, Some(("10.0.0.9", 5_432, 25_300))),
        namespace("4026532761", 107, None),
    ];
    snapshot.workloads = [
        ("unit:api.service", [812, 412, 3, 1_180, 0]),
        ("pod:0a1b2c3d/checkout", [9_120, 2, 31, 20, 9]),
        ("unit:nginx.service", [2_400, 0, 0, 0, 0]),
        ("cgroup:user.slice", [13, 0, 3, 4, 0]),
    ]
    .into_iter()
    .map(|(workload, counts)| WorkloadSockets {
        workload: workload.to_owned(),
        states: WORKLOAD_STATES
            .into_iter()
            .filter_map(TcpState::from_raw)
            .zip(counts)
            .collect(),
    })
    .collect();
    snapshot.findings = findings();
    snapshot
}

fn activity(seconds: u64) -> Activity {
    let transition = |from, to, per_second| TransitionCount {
        from,
        to,
        count: 1_000 + per_second * seconds,
    };
    let mut activity = empty().activity;
    activity.at = Duration::from_secs(100 + seconds).as_secs_f64();
    activity.transitions = vec![
        transition(TcpState::SynSent, TcpState::Established, 105),
        transition(TcpState::SynRecv, TcpState::Established, 98),
        transition(TcpState::Established, TcpState::FinWait1, 104),
        transition(TcpState::Established, TcpState::CloseWait, 99),
        transition(TcpState::FinWait1, TcpState::FinWait2, 103),
        transition(TcpState::FinWait1, TcpState::Closing, 1),
        transition(TcpState::FinWait2, TcpState::Close, 102),
        transition(TcpState::Closing, TcpState::Close, 1),
        transition(TcpState::CloseWait, TcpState::LastAck, 95),
        transition(TcpState::LastAck, TcpState::Close, 94),
    ];
    for (cause, per_second) in [
        (CloseCause::TimeWait, 101),
        (CloseCause::FinWait2TimeWait, 2),
        (CloseCause::Passive, 94),
        (CloseCause::ResetReceived, 3),
        (CloseCause::UnreadData, 1),
        (CloseCause::ConnectFailed, 7),
    ] {
        activity.closes.insert(cause, 500 + per_second * seconds);
    }
    activity.retransmits = 12 * seconds;
    activity
}

fn namespace(netns: &str, minisockets: u64, crowded: Option<(&str, u16, u64)>) -> Namespace {
    Namespace {
        netns: netns.to_owned(),
        workload: None,
        states: empty().states,
        minisockets: Some(Limited {
            count: minisockets,
            limit: 65_536,
        }),
        ephemeral_ports: Some(28_232),
        most_crowded: crowded.map(|(destination, port, used)| Crowded {
            source: "10.0.0.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            port,
            used,
        }),
        listeners: Vec::new(),
        listeners_untold: 0,
        sysctls: BTreeMap::new(),
    }
}

/// The kernel's own values.
fn sysctls() -> Sysctls {
    Sysctls::of(&[
        ("tcp_max_orphans", 65_536),
        ("tcp_orphan_retries", 0),
        ("tcp_max_tw_buckets", 65_536),
        ("tcp_tw_reuse", 2),
        ("tcp_timestamps", 1),
        ("tcp_retries2", 15),
        ("ip_local_port_range_low", 32_768),
        ("ip_local_port_range_high", 60_999),
    ])
}

/// One of each kind.
fn findings() -> Findings {
    Findings {
        orphans: Some(Orphans {
            count: 20_480,
            limit: 65_536,
            kills: Some(KillsFrom::Quarter),
            killed: 3,
            advice: advise(Topic::Orphans, &sysctls()),
        }),
        time_wait: vec![Minisockets {
            netns: "host".to_owned(),
            sockets: 53_100,
            limit: 65_536,
            overflows: 0,
            advice: advise(Topic::Minisockets, &sysctls()),
        }],
        ports: vec![Ports {
            netns: "host".to_owned(),
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.9".parse().unwrap(),
            port: 5_432,
            used: 25_300,
            available: 28_232,
            run_out: Some(Duration::from_secs(25)),
            connectors: vec![Connector {
                workload: "unit:api.service".to_owned(),
                per_second: 118.0,
            }],
            reuse: Reuse::LoopbackOnly,
            advice: advise(Topic::Ports(Reuse::LoopbackOnly), &sysctls()),
        }],
        stalls: vec![
            leak(),
            stall(
                (Detector::FinWait2, Cause::HalfClosed, TcpState::FinWait2),
                ("unit:api.service", "api", 8_080),
                (20, 400),
            ),
            stall(
                (Detector::FinWait1, Cause::Unacked, TcpState::FinWait1),
                ("pod:0a1b2c3d/checkout", "", 443),
                (12, 45),
            ),
            stall(
                (Detector::LastAck, Cause::ZeroWindow, TcpState::LastAck),
                ("pod:0a1b2c3d/checkout", "", 443),
                (2, 9),
            ),
        ],
        ..Findings::default()
    }
}

/// The leak that everybody looks for.
fn leak() -> Stall {
    let mut leak = stall(
        (Detector::CloseWait, Cause::Drained, TcpState::CloseWait),
        ("unit:api.service", "api", 8_080),
        (412, 4_000),
    );
    leak.pids = vec![812, 813];
    leak.oldest.exact = false;
    leak
}

/// A stall by what, whose, and how many for how many seconds; with two of its sockets.
pub(super) fn stall(
    (detector, cause, state): (Detector, Cause, TcpState),
    (workload, process, port): (&str, &str, u16),
    (count, seconds): (u64, u64),
) -> Stall {
    let orphan = process.is_empty();
    let oldest = Age {
        at_least: Duration::from_secs(seconds),
        exact: true,
    };
    let end = End {
        by: if orphan {
            EndedBy::OrphanRetries
        } else {
            EndedBy::Nothing
        },
        after: orphan.then_some(Duration::from_secs(58)),
        at_least: false,
    };
    let socket = |cookie: u16| StalledSocket {
        cookie: cookie.into(),
        local: SocketAddr::from(([10, 0, 0, 1], port)),
        remote: SocketAddr::from(([10, 0, 3, 4], 40_000 + cookie)),
        state,
        orphan,
        age: oldest,
        unread: 1,
        unsent: 0,
        in_flight: if orphan { 1_461 } else { 0 },
        peer_window: 64_256,
        retransmits: if orphan { 6 } else { 0 },
        probes: 0,
        end,
    };
    let topic = Topic::Stall {
        detector,
        cause,
        orphans: orphan,
        held: !orphan,
    };
    Stall {
        detector,
        cause,
        netns: "host".to_owned(),
        workload: workload.to_owned(),
        process: process.to_owned(),
        pids: if orphan { Vec::new() } else { vec![812] },
        port,
        side: Side::Server,
        count,
        oldest,
        sockets: (1..=2).map(socket).collect(),
        advice: advise(topic, &sysctls()),
    }
}

/// An event in each `second`: transitions, and now and then a retransmission.
pub(super) fn event(second: u32) -> EventLine {
    let retransmit = second % 5 == 4;
    EventLine {
        time: 1_700_000_000.0 + f64::from(second) + 0.25,
        event: if retransmit {
            Kind::Retransmit
        } else {
            Kind::Transition
        },
        from: (!retransmit).then_some(TcpState::CloseWait),
        to: (!retransmit).then_some(TcpState::LastAck),
        ms: (!retransmit).then_some(1_250.0),
        cause: None,
        state: retransmit.then_some(TcpState::FinWait1),
        packet: retransmit.then_some(Packet::Fin),
        trigger: retransmit.then_some(Trigger::Rto),
        segments: retransmit.then_some(1),
        local: SocketAddr::from(([10, 0, 0, 1], 8_080)),
        remote: SocketAddr::from(([10, 0, 3, 4], 40_000)),
        netns: Some(4_026_531_840),
        cookie: Some(second.into()),
        pid: (!retransmit).then_some(812),
        process: (!retransmit).then(|| "api".into()),
        orphan: retransmit,
    }
}
