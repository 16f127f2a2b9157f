//! The boards that are committed are those declared, and these ask for what there is.

use std::{collections::BTreeSet, fs, path::Path};

use agent::metrics::{PROCESS, families};
use dashboards::{Board, Kind, RATE, boards, file_name, json};

/// What Prometheus adds to every series, and to the buckets of a histogram.
const ADDED: [&str; 3] = ["job", "instance", "le"];

fn queries(board: &Board) -> Vec<String> {
    let queries = board.panels().flat_map(|panel| &panel.queries);
    queries.map(|query| query.expr.to_string()).collect()
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'));
    words
        .filter(|word| word.starts_with("connstate_") || PROCESS.contains(word))
        .map(|word| word.trim_end_matches("_bucket"))
        .collect()
}

/// The labels that an expression matches or groups by.
fn labels(expression: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for selector in expression.split('{').skip(1) {
        // No value that is matched has a brace or a comma.
        let matchers = selector.split('}').next().unwrap_or_default().split(',');
        found.extend(matchers.filter_map(|matcher| matcher.split(['=', '!']).next()));
    }
    for keyword in ["by (", "on ("] {
        for list in expression.split(keyword).skip(1) {
            let list = list.split(')').next().unwrap_or_default().split(", ");
            found.extend(list.filter(|label| !label.is_empty()));
        }
    }
    found
}

#[test]
fn the_committed_boards_are_those_declared() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    let mut expected = BTreeSet::new();
    for board in boards() {
        let path = folder.join(file_name(&board));
        let declared = json(&board);
        if std::env::var_os("CONNSTATE_BLESS").is_some() {
            fs::write(&path, &declared).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap();
        assert!(
            committed == declared,
            "{} is not what is declared: write it anew with `cargo xtask dashboards`",
            path.display()
        );
        expected.insert(file_name(&board));
    }
    let there: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, expected);
}

#[test]
fn every_metric_is_on_a_board() {
    let all: Vec<_> = boards().iter().flat_map(queries).collect();
    let shown: BTreeSet<_> = all.iter().flat_map(|query| metrics(query)).collect();
    let names = families().map(|family| family.name).chain(PROCESS);
    let missing: Vec<_> = names.filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn queries_use_labels_that_their_metrics_have() {
    for query in boards().iter().flat_map(queries) {
        let names = metrics(&query);
        let mine = families().filter(|family| names.contains(family.name));
        let known: BTreeSet<_> = mine.flat_map(|family| family.labels).copied().collect();
        for label in labels(&query) {
            let is_known = known.contains(label) || ADDED.contains(&label);
            assert!(is_known, "{label} in {query}");
        }
    }
}

/// What does not fit into 100 label sets is summed as `_other`, limits included: no limit of anything.
#[test]
fn no_limit_is_that_of_the_namespaces_not_told_apart() {
    let limited = [
        "connstate_time_wait_sockets{",
        "connstate_time_wait_limit{",
        "connstate_ephemeral_ports{",
        "connstate_ephemeral_ports_used{",
    ];
    let mut found = BTreeSet::new();
    for query in boards().iter().flat_map(queries) {
        for metric in limited {
            for selector in query.split(metric).skip(1) {
                let matchers = selector.split('}').next().unwrap_or_default();
                assert!(matchers.contains(r#"netns!="_other""#), "{metric} {query}");
                found.insert(metric);
            }
        }
    }
    assert_eq!(found.len(), limited.len());
}

#[test]
fn the_test_of_labels_finds_them_all() {
    let query = r#"sum by (le, state) (rate(x_bucket{job=~"$job",kind!="a"}[5m])) / on (netns) y"#;
    let expected = BTreeSet::from(["job", "kind", "le", "netns", "state"]);
    assert_eq!(labels(query), expected);
}

#[test]
fn queries_name_only_what_their_board_lets_one_choose() {
    for board in boards() {
        let mut known: BTreeSet<_> = board.variables.iter().map(|one| one.name()).collect();
        known.extend([RATE.trim_start_matches('$'), "__range"]);
        for query in queries(&board) {
            for part in query.split('$').skip(1) {
                let end = part.find(|sign: char| !(sign.is_alphanumeric() || sign == '_'));
                let name = &part[..end.unwrap_or(part.len())];
                assert!(known.contains(name), "${name} in {query}");
            }
        }
    }
}

#[test]
fn panels_are_told_apart_explained_and_in_their_place() {
    for board in boards() {
        assert!((8..=40).contains(&board.uid.len()), "{}", board.uid);
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let title = panel.title;
            assert!(titles.insert(title), "{title} twice");
            let description = panel.description.trim();
            assert!(description.ends_with('.'), "{title} says nothing");
            assert!(!panel.queries.is_empty(), "{title} asks for nothing");
            assert!((1..=24).contains(&panel.size.0), "{title} is too wide");
            let named = |query: &dashboards::Query| !query.legend.is_empty();
            let needs_names = panel.kind != Kind::Number;
            assert!(!needs_names || panel.queries.iter().all(named), "{title}");
        }
        let written: serde_json::Value = serde_json::from_str(&json(&board)).unwrap();
        let mut taken = BTreeSet::new();
        for panel in written["panels"].as_array().unwrap() {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for column in at("x")..at("x") + at("w") {
                for line in at("y")..at("y") + at("h") {
                    assert!(column < 24 && taken.insert((column, line)), "{panel}");
                }
            }
        }
    }
}
