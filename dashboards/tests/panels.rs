//! How panels read: each has a unit that fits, says what it means, and shows where it is bad.

use dashboards::{
    Board,
    Colour::{self, Bad, Good},
    Panel, Unit, boards, json,
};
use serde_json::{Value, json};

/// The unit that an expression's values are in.
fn unit(expression: &str) -> Unit {
    let has = |part| expression.contains(part);
    let is_rate = has("rate(");
    if has("histogram_quantile(") || has("_bucket{") || has("deriv(") {
        Unit::Seconds
    } else if has("_seconds_total{") {
        // Seconds a second; or those of one run.
        if has(" / ") {
            Unit::Seconds
        } else {
            Unit::Part
        }
    } else if has("_seconds{") {
        Unit::Seconds
    } else if has("_bytes{") {
        Unit::Bytes
    } else if has(" / ") {
        Unit::Part
    } else if is_rate {
        Unit::PerSecond
    } else {
        Unit::Count
    }
}

#[test]
fn every_panel_has_the_unit_of_its_queries() {
    for board in boards() {
        for panel in board.panels() {
            for query in &panel.queries {
                let expected = unit(&query.expr.to_string());
                assert_eq!(panel.unit, expected, "{}: {}", panel.title, query.expr);
            }
        }
    }
}

#[test]
fn every_panel_is_written_with_a_unit_and_a_description() {
    for board in boards() {
        let written: Value = serde_json::from_str(&json(&board)).unwrap();
        let panels = written["panels"].as_array().unwrap().iter();
        let panels: Vec<_> = panels.filter(|panel| panel["type"] != "row").collect();
        assert_eq!(panels.len(), board.panels().count());
        for (panel, declared) in panels.into_iter().zip(board.panels()) {
            assert_eq!(panel["title"], declared.title);
            assert_eq!(panel["description"], declared.description);
            assert!(declared.description.len() > 20, "{}", declared.title);
            let expected = match declared.unit {
                Unit::Count => "short",
                Unit::PerSecond => "cps",
                Unit::Part => "percentunit",
                Unit::Seconds => "s",
                Unit::Bytes => "bytes",
            };
            assert_eq!(panel["fieldConfig"]["defaults"]["unit"], expected);
            if panel["type"] == "heatmap" {
                assert_eq!(panel["options"]["yAxis"]["unit"], expected);
            }
        }
    }
}

fn board(uid: &str) -> Option<Board> {
    boards().into_iter().find(|board| board.uid == uid)
}

fn panel(uid: &str, title: &str) -> Option<Panel> {
    let board = board(uid)?;
    board.panels().find(|panel| panel.title == title).cloned()
}

/// A panel's `fieldConfig`, as Grafana reads it.
fn field_config(uid: &str, title: &str) -> Option<Value> {
    let written: Value = serde_json::from_str(&json(&board(uid)?)).ok()?;
    let mut panels = written["panels"].as_array()?.iter();
    let panel = panels.find(|panel| panel["title"] == title)?;
    Some(panel["fieldConfig"].clone())
}

#[test]
fn parts_of_limits_losses_and_ages_have_colours() {
    let judged: [(&str, &[&str]); 3] = [
        (
            "connstate-fleet",
            &["Most orphans", "Most TIME_WAIT", "Most ports taken"],
        ),
        (
            "connstate-host",
            &["Orphans", "TIME_WAIT", "Ephemeral ports"],
        ),
        (
            "connstate-agent",
            &[
                "Records lost",
                "Losses",
                "Oldest census",
                "Age of the gauges",
                "Room for sockets",
            ],
        ),
    ];
    for (uid, titles) in judged {
        for title in titles {
            let thresholds = panel(uid, title).unwrap().thresholds;
            assert_eq!(thresholds.last().map(|(_, to)| *to), Some(Bad), "{title}");
        }
    }
}

/// Ascending, and each another colour than the one before.
#[test]
fn thresholds_follow_each_other() {
    for board in boards() {
        for panel in board.panels() {
            let columns = panel.queries.iter().map(|query| query.thresholds);
            for thresholds in columns.chain([panel.thresholds]) {
                for pair in thresholds.windows(2) {
                    let [(from, one), (to, other)] = pair else {
                        unreachable!("windows of two");
                    };
                    assert!(from < to && one != other, "{}", panel.title);
                }
            }
        }
    }
}

#[test]
fn what_is_left_is_red_where_it_is_little() {
    for title in [
        "Orphans until kills",
        "TIME_WAIT left",
        "Ports left",
        "Time until no port is left",
    ] {
        let left = panel("connstate-host", title).unwrap().thresholds;
        let ends: [Option<&(f64, Colour)>; 2] = [left.first(), left.last()];
        assert_eq!(ends[0], Some(&(f64::NEG_INFINITY, Bad)), "{title}");
        assert_eq!(ends[1].map(|(_, to)| *to), Some(Good), "{title}");
    }
    let written = field_config("connstate-host", "Ports left").unwrap();
    let expected = json!([
        {"value": null, "color": "red"},
        {"value": 100.0, "color": "orange"},
        {"value": 1000.0, "color": "green"},
    ]);
    assert_eq!(written["defaults"]["thresholds"]["steps"], expected);
}

#[test]
fn each_cell_of_the_hosts_nearest_to_a_limit_has_its_colour() {
    let title = "Hosts nearest to a limit";
    let overrides = field_config("connstate-fleet", title).unwrap()["overrides"].take();
    for query in panel("connstate-fleet", title).unwrap().queries {
        let mut overrides = overrides.as_array().unwrap().iter();
        let column = overrides.find(|one| one["matcher"]["options"] == query.legend);
        let properties = &column.unwrap()["properties"];
        let property = |id: &str| {
            let mut all = properties.as_array().unwrap().iter();
            all.find(|property| property["id"] == id).unwrap()["value"].clone()
        };
        assert_eq!(property("color"), json!({"mode": "thresholds"}));
        assert_eq!(property("custom.cellOptions")["type"], "color-background");
        let steps = property("thresholds")["steps"].take();
        let colours: Vec<_> = steps.as_array().unwrap().iter().collect();
        assert_eq!(colours.len(), 3, "{}", query.legend);
        assert_eq!(*colours[0], json!({"value": null, "color": "transparent"}));
        assert_eq!(colours[2]["color"], "red");
    }
}
