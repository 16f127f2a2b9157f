//! Asking Prometheus everything, until all is right at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dashboards::{Board, Panel};
use tests::prometheus::Prometheus;

use super::{
    panels::Expected,
    want::{Want, wrong},
};

/// How long it may take until a rate over half a minute is right.
const PATIENCE: Duration = Duration::from_mins(4);

/// Between two passes: a few scrapes.
const PAUSE: Duration = Duration::from_secs(2);

/// A query, and what it must answer.
pub(crate) struct Question {
    name: &'static str,
    expression: String,
    wants: Vec<Want>,
}

/// Every query of a board, filled in, each with what is expected; that is taken out.
pub(crate) fn questions(
    board: &Board,
    expected: &mut Vec<Expected>,
    filled: impl Fn(&str) -> String,
) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for panel in board.panels() {
        let mine = |(uid, title, _): &Expected| (*uid, *title) == (board.uid, panel.title);
        let place = expected.iter().position(mine);
        let place = place.with_context(|| format!("{}, {} is new", board.uid, panel.title))?;
        let (_, _, wants) = expected.remove(place);
        all.extend(of_panel(panel, wants, &filled)?);
    }
    Ok(all)
}

/// The same of those of its panels alone of which something is expected.
pub(crate) fn some_questions(
    board: &Board,
    expected: Vec<Expected>,
    filled: impl Fn(&str) -> String,
) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for (_, title, wants) in expected {
        let panel = board.panels().find(|panel| panel.title == title);
        let panel = panel.with_context(|| format!("{} has no {title}", board.uid))?;
        all.extend(of_panel(panel, wants, &filled)?);
    }
    Ok(all)
}

fn of_panel(
    panel: &Panel,
    wants: Vec<Vec<Want>>,
    filled: impl Fn(&str) -> String,
) -> Result<Vec<Question>> {
    let name = panel.title;
    ensure!(wants.len() == panel.queries.len(), "{name}: {wants:?}");
    ensure!(!wants.iter().any(Vec::is_empty), "{name} expects nothing");
    let queries = panel.queries.iter().zip(wants);
    let questions = queries.map(|(query, wants)| Question {
        name,
        expression: filled(&query.expr.to_string()),
        wants,
    });
    Ok(questions.collect())
}

/// Asks everything anew until one pass finds all answers right: what was right a while ago may not
/// be any more, and gauges move. What is expected is told anew for each pass, too.
pub(crate) fn all_answered(
    prometheus: &Prometheus,
    mut questions: impl FnMut() -> Result<Vec<Question>>,
) -> Result<()> {
    let began = Instant::now();
    for pass in 1_u32.. {
        let questions = questions()?;
        let expressions = questions.iter().map(|question| question.expression.clone());
        let answers = prometheus.ask(&expressions.collect::<Vec<_>>())?;
        let told = questions
            .iter()
            .zip(answers)
            .filter_map(|(question, samples)| {
                let Question {
                    name,
                    expression,
                    wants,
                } = question;
                let wrong = wrong(wants, &samples)?;
                Some(format!(
                    "{name}\n  {expression}\n  {wrong}\n  has {samples:?}"
                ))
            });
        let told: Vec<String> = told.collect();
        if told.is_empty() {
            let (all, after) = (questions.len(), began.elapsed());
            eprintln!("{all} answers were right in pass {pass}, after {after:.1?}");
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{}", told.join("\n"));
        thread::sleep(PAUSE);
    }
    Ok(())
}
