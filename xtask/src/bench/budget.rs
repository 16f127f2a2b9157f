//! What the design allows, and whether it was kept. Pure.

use super::census::{Censuses, Watched};
use super::idle::Idle;
use super::soak::Soak;
use super::table::{Audit, Row, Verdict, quantile};

/// A limit and what was measured against it.
#[derive(Debug, PartialEq)]
pub(super) struct Budget {
    what: String,
    allowed: String,
    measured: String,
    is_met: bool,
}

impl Budget {
    fn at_most(what: &str, limit: f64, unit: &str, measured: f64) -> Self {
        Self {
            what: what.to_owned(),
            allowed: format!("at most {limit}{unit}"),
            measured: format!("{measured:.2}{unit}"),
            is_met: measured <= limit,
        }
    }

    fn at_least(what: &str, limit: f64, measured: f64) -> Self {
        Self {
            what: what.to_owned(),
            allowed: format!("at least {limit}"),
            measured: format!("{measured:.2}"),
            is_met: measured >= limit,
        }
    }

    fn none(what: &str, measured: u128) -> Self {
        Self {
            what: what.to_owned(),
            allowed: "none".to_owned(),
            measured: measured.to_string(),
            is_met: measured == 0,
        }
    }

    fn row(&self) -> String {
        let verdict = if self.is_met { "met" } else { "**not met**" };
        format!(
            "| {} | {} | {} | {verdict} |\n",
            self.what, self.allowed, self.measured
        )
    }
}

/// The table of all.
pub(super) fn render<'a>(budgets: impl IntoIterator<Item = &'a Budget>) -> String {
    let head = "| budget | allowed | measured | |\n|---|---|---|---|\n";
    let rows: String = budgets.into_iter().map(Budget::row).collect();
    format!("{head}{rows}")
}

/// Of the bare churn under the agent, by its row.
pub(super) fn of_churn(row: &Row) -> Vec<Budget> {
    let mut budgets = Vec::new();
    if let Some(ratio) = row.verdict.ratio() {
        let what = "churn: connections/s with ÷ without, median";
        budgets.push(Budget::at_least(what, 0.85, ratio.median));
    }
    if let Some(share) = row.verdict.share() {
        let what = "churn: the agent's own CPU, of one core";
        budgets.push(Budget::at_most(what, 10.0, " %", share));
    }
    if let Verdict::Measured { audits, .. } = &row.verdict {
        let lost = audits.iter().map(|audit| u128::from(audit.account.lost));
        budgets.push(Budget::none("churn: records lost", lost.sum()));
        let off = audits.iter().filter_map(Audit::off).map(i128::unsigned_abs);
        let what = "churn: emitted − counted − misses, all runs";
        budgets.push(Budget::none(what, off.sum()));
    }
    budgets
}

/// Of the real server under the agent, by its row.
pub(super) fn of_server(row: &Row) -> Vec<Budget> {
    let what = "server: requests/s with ÷ without, median";
    let ratio = row.verdict.ratio();
    ratio
        .map(|ratio| Budget::at_least(what, 0.92, ratio.median))
        .into_iter()
        .collect()
}

/// Of censuses, memory and pages.
pub(super) fn of_censuses(censuses: &Censuses) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for cost in &censuses.costs {
        let Some([by_ss, by_exporter]) = cost.mix.budget else {
            continue;
        };
        let than = |peer: &str| format!("census of {} ÷ {peer}, median", cost.mix.name);
        let what = than("`ss -tanH`");
        budgets.push(Budget::part(&what, by_ss, cost.by_ss.median));
        if let Some(spread) = &cost.by_exporter {
            let what = than("node_exporter's scrape");
            budgets.push(Budget::part(&what, by_exporter, spread.median));
        }
    }
    let most = |of: fn(&Watched) -> f64| censuses.watched.iter().map(of).fold(0.0, f64::max);
    budgets.extend([
        Budget::at_most(
            "all censuses together, of one core",
            1.0,
            " %",
            most(|watched| watched.censuses),
        ),
        Budget::at_most(
            "age of a gauge with 300 000 sockets, 100 namespaces too",
            30.0,
            " s",
            most(|watched| watched.oldest[0]),
        ),
        Budget::at_most(
            "resident memory with 300 000 sockets",
            64.0,
            " MiB",
            most(|watched| watched.resident_mib),
        ),
        Budget::at_most(
            "/metrics with 300 000 sockets, 99th percentile",
            5.0,
            " ms",
            most(|watched| quantile(&watched.scrapes, 0.99).unwrap_or(f64::INFINITY)),
        ),
    ]);
    budgets
}

impl Budget {
    /// At most such a part of what a peer takes.
    fn part(what: &str, limit: f64, measured: f64) -> Self {
        Self {
            allowed: format!("at most {limit:.2}"),
            ..Self::at_most(what, limit, "", measured)
        }
    }
}

/// Of an agent that starts and has nothing to do.
pub(super) fn of_idle(idle: &Idle) -> Vec<Budget> {
    vec![
        Budget::at_most("start to attached, median", 300.0, " ms", idle.start.median),
        Budget::at_most("resident memory, idle", 30.0, " MiB", idle.resident_mib),
    ]
}

/// Of the long run.
pub(super) fn of_soak(soak: &Soak) -> Vec<Budget> {
    vec![
        Budget::none("soak: records lost", u128::from(soak.audit.account.lost)),
        Budget::none(
            "soak: emitted − counted − misses",
            soak.audit.off().unwrap_or(i128::MAX).unsigned_abs(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_met_up_to_itself() {
        let at = |measured| Budget::at_most("a", 30.0, " MiB", measured).is_met;
        assert!(at(30.0) && !at(30.1));
        let at = |measured| Budget::at_least("a", 0.85, measured).is_met;
        assert!(at(0.85) && !at(0.849));
        assert!(Budget::none("a", 0).is_met && !Budget::none("a", 1).is_met);
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(!Budget::at_most("a", 5.0, " ms", f64::INFINITY).is_met);
        assert!(!Budget::at_most("a", 5.0, " ms", f64::NAN).is_met);
        assert!(!Budget::at_least("a", 5.0, f64::NAN).is_met);
    }

    #[test]
    fn each_has_a_row_with_its_verdict() {
        let budgets = [
            Budget::part("one", 1.0 / 6.0, 0.12),
            Budget::none("other", 3),
        ];
        assert_eq!(
            render(&budgets),
            "| budget | allowed | measured | |\n|---|---|---|---|\n\
             | one | at most 0.17 | 0.12 | met |\n| other | none | 3 | **not met** |\n"
        );
    }
}
