//! How each kind of panel is drawn.

use serde_json::{Value, json};

use crate::{
    board::Board,
    panel::{Colour, Kind, Panel, Query, Thresholds, Unit},
    variable::Variable,
};

/// The panel type of a kind, as Grafana calls it.
pub(super) fn plugin(kind: Kind) -> &'static str {
    match kind {
        Kind::Lines | Kind::Stack => "timeseries",
        Kind::Number => "stat",
        Kind::Dial => "gauge",
        Kind::Heat => "heatmap",
        Kind::Table => "table",
    }
}

/// How its values are read: unit, bounds, colours.
pub(super) fn field_config(board: &Board, panel: &Panel) -> Value {
    let mut defaults = json!({
        "unit": unit(panel.unit),
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps(panel.thresholds, "green")},
        "color": {"mode": colour_mode(panel.kind)},
        "custom": custom(panel),
    });
    let mut overrides = Vec::new();
    match panel.kind {
        Kind::Dial => defaults["max"] = json!(1),
        Kind::Table => {
            if !board.variables.contains(&Variable::Instance) {
                let links = property("links", &json!([to_host(board)]));
                overrides.push(by_name("instance", &[links]));
            }
            let judged = panel
                .queries
                .iter()
                .filter(|query| !query.thresholds.is_empty());
            overrides.extend(judged.map(coloured));
        }
        Kind::Lines | Kind::Stack | Kind::Number | Kind::Heat => {}
    }
    json!({"defaults": defaults, "overrides": overrides})
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "short",
        Unit::PerSecond => "cps",
        Unit::Part => "percentunit",
        Unit::Seconds => "s",
        Unit::Bytes => "bytes",
    }
}

fn colour_mode(kind: Kind) -> &'static str {
    match kind {
        Kind::Number | Kind::Dial => "thresholds",
        // A state has one colour wherever it shows.
        Kind::Lines | Kind::Stack | Kind::Heat | Kind::Table => "palette-classic-by-name",
    }
}

fn steps(thresholds: Thresholds, good: &str) -> Value {
    let colour = |colour| match colour {
        Colour::Good => good,
        Colour::Warning => "orange",
        Colour::Bad => "red",
    };
    let mut steps = Vec::new();
    if thresholds.first().is_none_or(|(from, _)| from.is_finite()) {
        steps.push(json!({"value": null, "color": good}));
    }
    // Grafana writes null for minus infinity, as JSON has none.
    let others = thresholds.iter().map(|(from, to)| {
        let from = from.is_finite().then_some(from);
        json!({"value": from, "color": colour(*to)})
    });
    steps.extend(others);
    Value::from(steps)
}

/// The link from a host's name to its board, with all else that was chosen, as the links between
/// boards do it. `queryparam` makes a whole `var-job=…` of a variable, or one for each of its values.
fn to_host(board: &Board) -> Value {
    let variables = board.variables.iter().copied();
    let kept = variables.filter(|variable| *variable != Variable::Instances);
    let mut parameters = vec!["${datasource:queryparam}".to_owned()];
    parameters.extend(kept.map(|variable| format!("${{{}:queryparam}}", variable.name())));
    parameters.push("var-instance=${__value.raw}&${__url_time_range}".to_owned());
    let url = format!("/d/connstate-host?{}", parameters.join("&"));
    json!({"title": "This host", "url": url, "targetBlank": false})
}

/// The cells of a query's column, coloured where they are not as they should be.
fn coloured(query: &Query) -> Value {
    let steps = steps(query.thresholds, "transparent");
    let cell = json!({"type": "color-background", "mode": "basic"});
    by_name(
        query.legend,
        &[
            property("thresholds", &json!({"mode": "absolute", "steps": steps})),
            property("color", &json!({"mode": "thresholds"})),
            property("custom.cellOptions", &cell),
        ],
    )
}

fn by_name(field: &str, properties: &[Value]) -> Value {
    json!({
        "matcher": {"id": "byName", "options": field},
        "properties": properties,
    })
}

fn property(id: &str, value: &Value) -> Value {
    json!({"id": id, "value": value})
}

/// What the kind of panel alone knows.
fn custom(panel: &Panel) -> Value {
    match panel.kind {
        Kind::Lines | Kind::Stack => {
            let is_stack = panel.kind == Kind::Stack;
            json!({
                "drawStyle": "line",
                "lineInterpolation": "linear",
                "lineWidth": 1,
                "fillOpacity": if is_stack { 30 } else { 5 },
                "stacking": {"mode": if is_stack { "normal" } else { "none" }},
                "showPoints": "never",
                // A missing scrape is a gap, not a slope.
                "spanNulls": false,
                "thresholdsStyle": {
                    "mode": if panel.thresholds.is_empty() { "off" } else { "dashed" },
                },
            })
        }
        Kind::Table => json!({
            "align": "auto",
            "cellOptions": {"type": "auto"},
            "filterable": true,
            "inspect": false,
        }),
        Kind::Heat => json!({"hideFrom": {"legend": false, "tooltip": false, "viz": false}}),
        Kind::Number | Kind::Dial => json!({}),
    }
}

/// How it is drawn.
pub(super) fn options(panel: &Panel) -> Value {
    let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
    match panel.kind {
        Kind::Lines | Kind::Stack => json!({
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": true,
                "calcs": ["lastNotNull", "max"],
                "sortBy": "Last *",
                "sortDesc": true,
            },
            "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": true},
        }),
        Kind::Number => json!({
            "colorMode": if panel.thresholds.is_empty() { "none" } else { "value" },
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": last,
            "showPercentChange": false,
            // Several have names, by which they are told apart.
            "textMode": if panel.queries.iter().all(|query| query.legend.is_empty()) {
                "value"
            } else {
                "value_and_name"
            },
            "wideLayout": true,
        }),
        Kind::Dial => json!({
            "barShape": "flat",
            "barWidthFactor": 0.5,
            "effects": {},
            "minVizHeight": 75,
            "minVizWidth": 75,
            "orientation": "auto",
            "reduceOptions": last,
            "segmentCount": 1,
            "segmentSpacing": 0.3,
            "shape": "gauge",
            "showThresholdLabels": false,
            "showThresholdMarkers": true,
            "sizing": "auto",
        }),
        Kind::Heat => heat(panel),
        Kind::Table => json!({
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": true,
            // The last column: what is counted, the most first.
            "sortBy": panel.queries.iter().take(1)
                .map(|query| json!({"displayName": query.legend, "desc": true}))
                .collect::<Vec<_>>(),
        }),
    }
}

fn heat(panel: &Panel) -> Value {
    json!({
        "calculate": false,
        "cellGap": 1,
        // The panel's unit is that of its buckets; a cell is how many fell into one.
        "cellValues": {"unit": unit(Unit::Count)},
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            // So that the few slow ones show beside the many quick ones.
            "scale": "exponential",
            "exponent": 0.5,
            "reverse": false,
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": true},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": true, "showColorScale": true},
        "yAxis": {"axisPlacement": "left", "unit": unit(panel.unit)},
    })
}
