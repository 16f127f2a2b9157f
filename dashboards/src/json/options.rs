//! How each kind of panel is drawn.

use serde_json::{Value, json};

use crate::panel::{Colour, Kind, Panel, Unit};

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
pub(super) fn field_config(panel: &Panel) -> Value {
    let mut defaults = json!({
        "unit": unit(panel.unit),
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps(panel.thresholds)},
        "color": {"mode": colour_mode(panel.kind)},
        "custom": custom(panel),
    });
    let mut overrides = Vec::new();
    match panel.kind {
        Kind::Dial => defaults["max"] = json!(1),
        Kind::Table => {
            overrides.push(by_name("instance", "links", &json!([to_host()])));
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

fn steps(thresholds: &[(f64, Colour)]) -> Value {
    let colour = |colour| match colour {
        Colour::Good => "green",
        Colour::Warning => "orange",
        Colour::Bad => "red",
    };
    let first = json!({"value": null, "color": colour(Colour::Good)});
    let others = thresholds
        .iter()
        .map(|(from, to)| json!({"value": from, "color": colour(*to)}));
    std::iter::once(first).chain(others).collect()
}

/// The link from a host's name to its board.
fn to_host() -> Value {
    json!({
        "title": "This host",
        "url": "/d/connstate-host?var-datasource=${datasource}&var-instance=${__value.raw}&${__url_time_range}",
        "targetBlank": false,
    })
}

fn by_name(field: &str, property: &str, value: &Value) -> Value {
    json!({
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": property, "value": value}],
    })
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
            "textMode": "value",
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
        Kind::Heat => heat(),
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

fn heat() -> Value {
    json!({
        "calculate": false,
        "cellGap": 1,
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
        "yAxis": {"axisPlacement": "left", "unit": "s"},
    })
}
