//! What Grafana is provisioned with: its fields, and that they fit the boards.
//!
//! Grafana itself refuses to start where one of them is broken, and shows nothing where one is
//! misspelt.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use dashboards::{boards, json};
use serde_json::Value;

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The only entry of a list in a file of `provisioning/`.
fn entry(file: &str, list: &str) -> Result<Value> {
    let all: Value = serde_yaml_ng::from_str(&read(&format!("provisioning/{file}"))?)?;
    ensure!(all["apiVersion"] == 1, "{all}");
    let entries = all[list].as_array().context("no list")?;
    ensure!(entries.len() == 1, "{all}");
    Ok(entries[0].clone())
}

/// A field's text, which must not be empty.
fn text<'a>(entry: &'a Value, field: &str) -> Result<&'a str> {
    let text = entry[field].as_str().filter(|text| !text.is_empty());
    text.with_context(|| format!("no {field} in {entry}"))
}

/// Fields that nobody knows are misspelt ones.
fn has_only(entry: &Value, known: &[&str]) -> Result<()> {
    let fields = entry.as_object().context("no fields")?;
    let unknown: Vec<_> = fields
        .keys()
        .filter(|field| !known.contains(&field.as_str()))
        .collect();
    ensure!(unknown.is_empty(), "{unknown:?}");
    Ok(())
}

#[test]
fn the_boards_are_read_from_where_they_are_installed() -> Result<()> {
    let provider = entry("dashboards.yml", "providers")?;
    has_only(
        &provider,
        &["name", "folder", "type", "allowUiUpdates", "options"],
    )?;
    text(&provider, "name")?;
    text(&provider, "folder")?;
    ensure!(text(&provider, "type")? == "file", "{provider}");
    ensure!(provider["allowUiUpdates"].is_boolean(), "{provider}");
    has_only(&provider["options"], &["path"])?;
    let path = text(&provider["options"], "path")?;
    ensure!(Path::new(path).is_absolute(), "{path}");
    let install = format!("--target-directory={path} dashboards/grafana/*.json");
    ensure!(
        read("README.md")?.contains(&install),
        "the boards are not installed in {path}"
    );
    Ok(())
}

#[test]
fn the_data_source_is_one_that_the_boards_can_ask() -> Result<()> {
    let source = entry("datasource.yml", "datasources")?;
    has_only(
        &source,
        &["name", "type", "uid", "access", "url", "jsonData"],
    )?;
    text(&source, "name")?;
    let kind = text(&source, "type")?;
    // As Grafana's own check of them says.
    let uid = text(&source, "uid")?;
    let is_allowed = |sign: char| sign.is_ascii_alphanumeric() || "-_".contains(sign);
    ensure!(uid.len() <= 40 && uid.chars().all(is_allowed), "{uid}");
    // By the server: the browser cannot reach its loopback interface.
    ensure!(text(&source, "access")? == "proxy", "{source}");
    ensure!(text(&source, "url")?.starts_with("http://"), "{source}");
    for board in boards() {
        let board: Value = serde_json::from_str(&json(&board))?;
        let variables = board["templating"]["list"].as_array();
        let mut variables = variables.into_iter().flatten();
        let chosen = variables.find(|variable| variable["type"] == "datasource");
        let chosen = chosen.context("no data source is chosen")?;
        ensure!(chosen["query"] == kind, "{chosen}");
        let uid = format!("${{{}}}", text(chosen, "name")?);
        let mut asked = BTreeSet::new();
        collect(&board, &mut asked);
        let expected = BTreeSet::from([(kind.to_owned(), uid)]);
        ensure!(asked == expected, "{asked:?}");
    }
    Ok(())
}

/// The data sources that a board, or a part of it, names.
fn collect(part: &Value, found: &mut BTreeSet<(String, String)>) {
    if let Some(source) = part.get("datasource") {
        let field = |name: &str| source[name].as_str().unwrap_or_default().to_owned();
        found.insert((field("type"), field("uid")));
    }
    let parts: Vec<&Value> = match part {
        Value::Array(parts) => parts.iter().collect(),
        Value::Object(parts) => parts.values().collect(),
        _ => Vec::new(),
    };
    for part in parts {
        collect(part, found);
    }
}

/// The same scrape interval as in the configuration that is shipped: it is what the rates rest on.
#[test]
fn rates_rest_on_the_interval_of_the_scrapes() -> Result<()> {
    let source = entry("datasource.yml", "datasources")?;
    let prometheus: Value = serde_yaml_ng::from_str(&read("../deploy/prometheus/prometheus.yml")?)?;
    ensure!(
        source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"],
        "{source} {prometheus}"
    );
    Ok(())
}
