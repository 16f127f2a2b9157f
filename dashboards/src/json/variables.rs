//! What Grafana asks for the values that a board's user chooses from, and what "All" of them means.

use serde_json::{Value, json};

use super::datasource;
use crate::{
    board::Board,
    metric::Gauge,
    variable::Variable::{self, Instance, Instances, Job, Workload},
};

/// What every agent exports, whatever it watches.
const BUILD_INFO: Gauge = Gauge::of("connstate_build_info");
const WORKLOAD_SOCKETS: Gauge = Gauge::of("connstate_workload_sockets");

/// The data source, then the board's own variables: each is chosen among what those before it leave.
pub(super) fn variables(board: &Board) -> Vec<Value> {
    let source = json!({
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "refresh": 1,
    });
    let others = board.variables.iter().copied().map(chosen);
    std::iter::once(source).chain(others).collect()
}

fn chosen(variable: Variable) -> Value {
    let many = variable != Instance;
    let mut chosen = json!({
        "type": "query",
        "name": variable.name(),
        "label": label(variable),
        "datasource": datasource(),
        "query": {"query": query(variable), "refId": variable.name()},
        "multi": many,
        "includeAll": many,
        // When the range changes: workloads come and go.
        "refresh": 2,
        "sort": 1,
    });
    if many {
        chosen["current"] = json!({"text": ["All"], "value": ["$__all"]});
    }
    if let Some(all) = all(variable) {
        chosen["allValue"] = json!(all);
    }
    chosen
}

fn label(variable: Variable) -> &'static str {
    match variable {
        Job => "Job",
        Instances => "Hosts",
        Instance => "Host",
        Workload => "Workload",
    }
}

fn query(variable: Variable) -> String {
    match variable {
        Job => BUILD_INFO.values(Job, &[]),
        Instances | Instance => BUILD_INFO.values(variable, &[Job]),
        Workload => WORKLOAD_SOCKETS.values(Workload, &[Job, Instance]),
    }
}

/// What takes the place of a variable when "All" is chosen; where nothing does, Grafana puts in every
/// value that the query lists.
///
/// - Every job listed is one of agents, which `.*` would not be: `up` and `process_*` are
///   everybody's, and node_exporter's hosts and processes would be taken for the agents'.
/// - An agent that did not answer in all of the range is not listed, and yet is a silent host, of
///   which `up` tells. That it is an agent's is what the job says.
/// - A workload without sockets is not listed, and yet has connects and a network namespace. There
///   may be 500 of them, and one matcher is enough.
fn all(variable: Variable) -> Option<&'static str> {
    match variable {
        // Of one host there is no "All".
        Job | Instance => None,
        Instances | Workload => Some(".*"),
    }
}
