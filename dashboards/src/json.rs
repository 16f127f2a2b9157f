//! What Grafana reads of a board: its dashboard schema, as `@grafana/schema` declares it.

mod variables;
mod options;

use serde_json::{Value, json};

use crate::{
    board::Board,
    panel::{Kind, Panel, Query},
    variable::Variable,
};

/// The version of the schema that this is written for; Grafana brings older ones up to date itself.
const SCHEMA_VERSION: u32 = 42;
/// Columns of a board.
const COLUMNS: u32 = 24;
/// What finds the other boards, and these in a long list.
const TAG: &str = "connstate";

/// The name of a board's file.
#[must_use]
pub fn file_name(board: &Board) -> String {
    let name = board.uid.strip_prefix("connstate-").unwrap_or(board.uid);
    format!("{name}.json")
}

/// A board, as Grafana reads it.
#[must_use]
pub fn json(board: &Board) -> String {
    let dashboard = json!({
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": true,
        // A crosshair in every panel at once.
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": board.since, "to": "now"},
        "refresh": "30s",
        "links": [links()],
        "annotations": {"list": [alerts(board)]},
        "templating": {"list": variables::variables(board)},
        "panels": panels(board),
    });
    // Maps of JSON values are sorted by key, so that the text is always the same.
    format!("{dashboard:#}\n")
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// The way to the other boards, with what was chosen here.
fn links() -> Value {
    json!({
        "type": "dashboards",
        "title": "connstate",
        "tags": [TAG],
        "asDropdown": false,
        "icon": "external link",
        "includeVars": true,
        "keepTime": true,
        "targetBlank": false,
        "tooltip": "The other boards, for the same hosts and time",
    })
}

/// When the alerts of deploy/prometheus/rules fired.
fn alerts(board: &Board) -> Value {
    let firing = [r#"alertname=~"Connstate.+""#, r#"alertstate="firing""#];
    let mut matchers = firing.map(str::to_owned).to_vec();
    matchers.extend([Variable::Job, Variable::Instance].map(Variable::matcher));
    if board.variables.contains(&Variable::Workload) {
        // Alerts on limits have no workload, and bear on all of them.
        matchers.push(r#"workload=~"$workload|""#.to_owned());
    }
    json!({
        "name": "Alerts",
        "enable": true,
        "iconColor": "red",
        "datasource": datasource(),
        "target": {
            "refId": "Anno",
            "expr": format!("ALERTS{{{}}}", matchers.join(",")),
            "interval": "60s",
        },
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{workload}} {{process}} {{port}} {{cause}}",
    })
}

/// Rows and panels, each in its place: from left to right, a new line where one does not fit.
fn panels(board: &Board) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut line = 0;
    for row in &board.rows {
        placed.push(json!({
            "type": "row",
            "id": placed.len() + 1,
            "title": row.title,
            "collapsed": false,
            "gridPos": {"x": 0, "y": line, "w": COLUMNS, "h": 1},
            "panels": [],
        }));
        line += 1;
        let (mut column, mut height) = (0, 0);
        for panel in &row.panels {
            let (wide, high) = panel.size;
            if column + wide > COLUMNS {
                line += height;
                (column, height) = (0, 0);
            }
            let place = json!({"x": column, "y": line, "w": wide, "h": high});
            placed.push(one(board, panel, placed.len() + 1, &place));
            column += wide;
            height = height.max(high);
        }
        line += height;
    }
    placed
}

fn one(board: &Board, panel: &Panel, id: usize, place: &Value) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|(query, id)| target(panel.kind, query, id))
        .collect();
    let mut value = json!({
        "type": options::plugin(panel.kind),
        "id": id,
        "title": panel.title,
        "description": panel.description,
        "datasource": datasource(),
        "gridPos": place,
        "targets": targets,
        "fieldConfig": options::field_config(board, panel),
        "options": options::options(panel),
    });
    if panel.kind == Kind::Table {
        value["transformations"] = transformations(&panel.queries);
    }
    value
}

/// A query, with the letter by which Grafana tells a panel's queries apart.
fn target(kind: Kind, query: &Query, id: char) -> Value {
    let is_now = matches!(kind, Kind::Number | Kind::Dial | Kind::Table);
    let format = match kind {
        Kind::Table => "table",
        Kind::Heat => "heatmap",
        Kind::Lines | Kind::Stack | Kind::Number | Kind::Dial => "time_series",
    };
    json!({
        "refId": id.to_string(),
        "datasource": datasource(),
        "expr": query.expr.to_string(),
        "legendFormat": query.legend,
        "format": format,
        "instant": is_now,
        "range": !is_now,
        "editorMode": "code",
    })
}

/// One table of all queries, its rows told apart by their labels, its columns by their names.
fn transformations(queries: &[Query]) -> Value {
    // A single query's values are in a column `Value`, those of several in `Value #A` and so on.
    let columns = queries.iter().zip('A'..).map(|(query, id)| {
        let column = match queries.len() {
            1 => "Value".to_owned(),
            _ => format!("Value #{id}"),
        };
        (column, Value::from(query.legend))
    });
    let names: serde_json::Map<_, _> = columns.collect();
    json!([
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {
            "excludeByName": {"Time": true},
            "indexByName": {},
            "renameByName": names,
        }},
    ])
}
