//! What Grafana makes of a board's committed JSON before Prometheus sees any of it: it asks for the
//! values of each variable, and puts what is chosen of them into every query.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use dashboards::{Board, RATE, file_name};
use serde_json::Value;
use tests::prometheus::Prometheus;

/// A board as its user has it before him.
pub(crate) struct Opened {
    /// The query of its annotations, filled in.
    pub(crate) annotation: String,
    /// The name of each variable, what there was to choose from, and what takes its place.
    variables: Vec<Variable>,
}

struct Variable {
    name: String,
    offered: Vec<String>,
    place: String,
}

/// What its user chooses of some variables; of the others it is "All".
pub(crate) type Choice<'a> = [(&'a str, Vec<&'a str>)];

impl Opened {
    /// Opens it; each variable's values are those that what was chosen before leaves.
    pub(crate) fn new(board: &Board, prometheus: &Prometheus, choice: &Choice) -> Result<Self> {
        let grafana = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/grafana");
        let path = grafana.join(file_name(board));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let json: Value = serde_json::from_str(&text)?;
        let mut opened = Self {
            annotation: String::new(),
            variables: Vec::new(),
        };
        let variables = json["templating"]["list"].as_array();
        for json in variables.context("no variables")? {
            if json["type"] == "query" {
                let variable = opened.variable(json, prometheus, choice);
                let variable = variable.with_context(|| json["name"].to_string())?;
                opened.variables.push(variable);
            }
        }
        let annotation = json["annotations"]["list"][0]["target"]["expr"].as_str();
        opened.annotation = opened.filled(annotation.context("no annotation")?);
        Ok(opened)
    }

    fn variable(&self, json: &Value, prometheus: &Prometheus, choice: &Choice) -> Result<Variable> {
        let name = json["name"].as_str().context("no name")?;
        let query = json["query"]["query"].as_str().context("no query")?;
        let asked = query.strip_prefix("label_values(");
        let asked = asked.and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "));
        let (selector, label) = asked.with_context(|| format!("{query} is another query"))?;
        let offered = prometheus.label_values(&self.filled(selector), label)?;
        let mine = choice.iter().find(|(chosen, _)| *chosen == name);
        let place = if let Some((_, chosen)) = mine {
            let missing = chosen
                .iter()
                .find(|value| !offered.iter().any(|is| is == *value));
            ensure!(missing.is_none(), "{missing:?} is not among {offered:?}");
            match (json["multi"].as_bool(), chosen.as_slice()) {
                (Some(true), _) => any_of(chosen),
                // What stands alone is put in as it is.
                (_, [one]) => (*one).to_owned(),
                _ => anyhow::bail!("only one can be chosen: {chosen:?}"),
            }
        } else {
            ensure!(json["includeAll"] == true, "there is no \"All\"");
            ensure!(!offered.is_empty(), "there is nothing to choose");
            let all = json["allValue"].as_str().map(str::to_owned);
            all.unwrap_or_else(|| any_of(&offered))
        };
        Ok(Variable {
            name: name.to_owned(),
            offered,
            place,
        })
    }

    /// What its user could choose from.
    pub(crate) fn offered(&self, name: &str) -> Result<&[String]> {
        let variable = self.variables.iter().find(|variable| variable.name == name);
        let variable = variable.with_context(|| format!("no variable {name}"))?;
        Ok(&variable.offered)
    }

    /// A query with all variables in their places, as over a board's range of so long.
    pub(crate) fn over(&self, query: &str, rate: &str, range: &str) -> String {
        let query = query.replace(RATE, rate).replace("$__range", range);
        self.filled(&query)
    }

    fn filled(&self, query: &str) -> String {
        let fill = |query: String, variable: &Variable| {
            query.replace(&format!("${}", variable.name), &variable.place)
        };
        self.variables.iter().fold(query.to_owned(), fill)
    }
}

/// A regular expression within a string, as Grafana's Prometheus data source writes it
/// (`interpolateQueryExpr` and `prometheusSpecialRegexEscape`).
fn any_of(values: &[impl AsRef<str>]) -> String {
    let escaped = values.iter().map(|value| {
        let characters = value.as_ref().chars().map(|character| match character {
            '\\' => r"\\\\".to_owned(),
            '$' | '^' | '*' | '{' | '}' | '[' | ']' | '\'' | '+' | '?' | '.' | '(' | ')' | '|' => {
                format!(r"\\{character}")
            }
            _ => character.to_string(),
        });
        characters.collect()
    });
    let escaped: Vec<String> = escaped.collect();
    match escaped.as_slice() {
        [one] => one.clone(),
        _ => format!("({})", escaped.join("|")),
    }
}
