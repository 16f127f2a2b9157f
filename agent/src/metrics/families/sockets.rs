//! How many sockets there are, and which of them do not finish closing.

use agent_ebpf::{
    census::{CensusCounts, WORKLOAD_STATES},
    state::{STATE_COUNT, TcpState},
};

use super::gauges;
use crate::{
    detectors::Cause,
    metrics::family::{Family, Kind, Sample},
    view::View,
};

/// The families, in the order of the documentation.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "connstate_sockets",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "TCP sockets by state as ss shows them, minisockets included, in every network namespace, by the last census; close is always 0, since nothing shows closed sockets.",
        samples: |view| of_states(view, |counts| counts.states),
    },
    Family {
        name: "connstate_workload_sockets",
        kind: Kind::Gauge,
        labels: &["workload", "state"],
        help: "Full TCP sockets by workload, that of the cgroup they were made in, and by some states; by the last census.",
        samples: |view| {
            let states =
                WORKLOAD_STATES.map(|state| TcpState::from_raw(state).map_or("", TcpState::name));
            gauges(view, &view.rows.workloads, 1, states)
        },
    },
    Family {
        name: "connstate_workload_info",
        kind: Kind::Gauge,
        labels: &["workload", "unit", "pod_uid", "container_id"],
        help: "Always 1; what else is known of a workload with sockets.",
        samples: |view| {
            let workloads = view.rows.workload_info.iter();
            workloads
                .map(|workload| {
                    let known = [&workload.unit, &workload.pod_uid, &workload.container_id];
                    let known = known.map(|label| label.as_deref().unwrap_or_default());
                    let labels = [workload.name.as_str(), known[0], known[1], known[2]];
                    Sample::number(labels, 1.0)
                })
                .collect()
        },
    },
    Family {
        name: "connstate_netns_info",
        kind: Kind::Gauge,
        labels: &["netns", "workload"],
        help: "Always 1; the workload of the first process found in a network namespace.",
        samples: |view| {
            let namespaces = view.rows.namespace_info.iter();
            namespaces
                .map(|labels| Sample::number(labels.iter().map(String::as_str), 1.0))
                .collect()
        },
    },
    Family {
        name: "connstate_orphan_sockets",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "TCP sockets that no process holds any more and TCP still does, by state, by the last census; minisockets are none of them, nor are those of namespaces to which no process and no mount leads any more, which connstate_orphans counts.",
        samples: |view| of_states(view, |counts| counts.orphans),
    },
    Family {
        name: "connstate_fin_wait1_stalled",
        kind: Kind::Gauge,
        labels: &["cause", "workload"],
        help: "TCP sockets in FIN_WAIT1 for longer than --fin-wait1-stall-after, by what keeps the peer from acknowledging everything.",
        samples: |view| gauges(view, &view.rows.fin_wait1, 0, names(Cause::OF_UNFINISHED)),
    },
    Family {
        name: "connstate_fin_wait1_oldest_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Age of the TCP socket that has been in FIN_WAIT1 for longest, of those more than 1 s old; at least that for one older than the agent; 0 without any.",
        samples: |view| {
            let census = view.census.iter();
            census
                .map(|_| Sample::number([], view.rows.fin_wait1_oldest.as_secs_f64()))
                .collect()
        },
    },
    Family {
        name: "connstate_fin_wait2_stalled",
        kind: Kind::Gauge,
        labels: &["cause", "workload"],
        help: "Full TCP sockets in FIN_WAIT2 for longer than --fin-wait2-stall-after: half_closed ones, which no limit ends, and orphans that wait for tcp_fin_timeout.",
        samples: |view| gauges(view, &view.rows.fin_wait2, 0, names(Cause::OF_FIN_WAIT2)),
    },
    Family {
        name: "connstate_last_ack_stalled",
        kind: Kind::Gauge,
        labels: &["cause", "workload"],
        help: "TCP sockets in LAST_ACK or CLOSING for longer than --fin-wait1-stall-after, by what keeps the peer from acknowledging everything.",
        samples: |view| gauges(view, &view.rows.last_ack, 0, names(Cause::OF_UNFINISHED)),
    },
    Family {
        name: "connstate_close_wait_leaked",
        kind: Kind::Gauge,
        labels: &["cause", "workload", "process", "port", "side"],
        help: "TCP sockets in CLOSE_WAIT for longer than --close-wait-leak-after, by how far their process came with reading.",
        samples: |view| gauges(view, &view.rows.close_wait, 0, names(Cause::OF_CLOSE_WAIT)),
    },
    Family {
        name: "connstate_close_wait_oldest_seconds",
        kind: Kind::Gauge,
        labels: &["workload", "process", "port", "side"],
        help: "Age of the oldest of those sockets; at least that for one older than the agent.",
        samples: |view| gauges(view, &view.rows.close_wait_oldest, 0, [""]),
    },
];

/// All states, once there was a census.
fn of_states(view: &View, counts: impl Fn(&CensusCounts) -> [u64; STATE_COUNT]) -> Vec<Sample> {
    let Some(census) = &view.census else {
        return Vec::new();
    };
    let counts = counts(&census.total());
    TcpState::ALL
        .into_iter()
        .map(|state| Sample::count([state.name()], counts[state as usize]))
        .collect()
}

fn names<const CAUSES: usize>(causes: [Cause; CAUSES]) -> [&'static str; CAUSES] {
    causes.map(Cause::name)
}
