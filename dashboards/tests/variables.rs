//! What a board's user chooses from, and what goes with him to the next board.

use dashboards::{Board, Variable, boards, json};
use serde_json::{Value, json};

/// The board, as Grafana reads it.
fn written(board: &Board) -> serde_json::Result<Value> {
    serde_json::from_str(&json(board))
}

fn variables(board: &Board) -> serde_json::Result<Vec<Value>> {
    serde_json::from_value(written(board)?["templating"]["list"].take())
}

const SOURCE: [&str; 2] = ["datasource", "prometheus"];
const JOB: [&str; 2] = ["job", "label_values(connstate_build_info, job)"];
const INSTANCE: [&str; 2] = [
    "instance",
    r#"label_values(connstate_build_info{job=~"$job"}, instance)"#,
];
const WORKLOAD: [&str; 2] = [
    "workload",
    r#"label_values(connstate_workload_sockets{job=~"$job",instance=~"$instance"}, workload)"#,
];

#[test]
fn one_chooses_among_what_the_agents_export() {
    let all: [(&str, &[[&str; 2]]); 3] = [
        ("connstate-fleet", &[SOURCE, JOB, INSTANCE, WORKLOAD]),
        ("connstate-host", &[SOURCE, JOB, INSTANCE, WORKLOAD]),
        ("connstate-agent", &[SOURCE, JOB, INSTANCE]),
    ];
    assert_eq!(boards().len(), all.len());
    for (board, (uid, expected)) in boards().iter().zip(all) {
        assert_eq!(board.uid, uid);
        let expected = expected.iter().map(|[name, query]| {
            let query = if [*name, *query] == SOURCE {
                json!(query)
            } else {
                json!({"query": query, "refId": name})
            };
            (json!(name), query)
        });
        let found = variables(board).unwrap().into_iter();
        let found = found.map(|mut variable| (variable["name"].take(), variable["query"].take()));
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}

/// Where every job of the Prometheus was meant, everybody's `up` and processes were the agents'.
#[test]
fn all_jobs_are_those_of_agents_alone() {
    for board in boards() {
        for variable in variables(&board).unwrap() {
            let (name, all) = (&variable["name"], &variable["allValue"]);
            match name.as_str().unwrap() {
                "datasource" => assert!(variable["includeAll"].is_null()),
                "job" => assert!(all.is_null() && variable["includeAll"] == true),
                // One host has no "All", and of many there are silent ones that no query lists.
                "instance" if board.variables.contains(&Variable::Instance) => {
                    assert!(all.is_null() && variable["includeAll"] == false);
                }
                "instance" | "workload" => {
                    assert!(all == ".*" && variable["includeAll"] == true, "{name}");
                }
                other => panic!("{other} is new"),
            }
        }
    }
}

#[test]
fn a_hosts_name_leads_to_its_board_with_all_that_is_chosen() {
    for board in boards() {
        let mut chosen = vec!["${datasource:queryparam}".to_owned()];
        let kept = board.variables.iter();
        let kept = kept.filter(|variable| **variable != Variable::Instances);
        chosen.extend(kept.map(|variable| format!("${{{}:queryparam}}", variable.name())));
        let expected = format!(
            "/d/connstate-host?{}&var-instance=${{__value.raw}}&${{__url_time_range}}",
            chosen.join("&")
        );
        let mut links = Vec::new();
        for panel in written(&board).unwrap()["panels"].as_array().unwrap() {
            let overrides = panel["fieldConfig"]["overrides"].as_array();
            for one in overrides.into_iter().flatten() {
                let properties = one["properties"].as_array().unwrap().iter();
                let mine = properties.filter(|property| property["id"] == "links");
                links.extend(mine.map(|link| (one["matcher"]["options"].clone(), link.clone())));
            }
        }
        // That board's own tables are about one host.
        assert_eq!(links.is_empty(), board.uid == "connstate-host");
        for (field, link) in links {
            assert_eq!(field, "instance");
            assert_eq!(link["value"][0]["url"], expected.as_str());
        }
    }
}
