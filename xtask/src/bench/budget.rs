//! What the design allows, and whether it was kept. Pure.

use super::census::{Censuses, Watched};
use super::idle::Idle;
use super::soak::Soak;
use super::table::{Row, Verdict};

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
            measured: figure(measured, unit),
            is_met: measured <= limit,
        }
    }

    fn at_least(what: &str, limit: f64, measured: f64) -> Self {
        Self {
            what: what.to_owned(),
            allowed: format!("at least {limit}"),
            measured: figure(measured, ""),
            is_met: measured.is_finite() && measured >= limit,
        }
    }

    fn none(what: &str, measured: Option<u128>) -> Self {
        Self {
            what: what.to_owned(),
            allowed: "none".to_owned(),
            measured: measured.map_or_else(|| NOT_MEASURED.to_owned(), |count| count.to_string()),
            is_met: measured == Some(0),
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

const NOT_MEASURED: &str = "not measured";

fn figure(measured: f64, unit: &str) -> String {
    if measured.is_finite() {
        format!("{measured:.2}{unit}")
    } else {
        NOT_MEASURED.to_owned()
    }
}

/// The table of all.
pub(super) fn render<'a>(budgets: impl IntoIterator<Item = &'a Budget>) -> String {
    let head = "| budget | allowed | measured | |\n|---|---|---|---|\n";
    let rows: String = budgets.into_iter().map(Budget::row).collect();
    format!("{head}{rows}")
}

/// Of the bare churn under the agent, by its row, if it has one.
pub(super) fn of_churn(row: Option<&Row>) -> Vec<Budget> {
    let verdict = row.map(|row| &row.verdict);
    let share = verdict.and_then(Verdict::share);
    let audits = match verdict {
        Some(Verdict::Measured { audits, .. }) => audits.as_slice(),
        _ => &[],
    };
    let audits = (!audits.is_empty()).then_some(audits);
    let lost = audits.map(|audits| {
        let lost = audits.iter().map(|audit| u128::from(audit.account.lost));
        lost.sum()
    });
    let off = audits.and_then(|audits| {
        audits
            .iter()
            .map(|audit| Some(audit.off()?.unsigned_abs()))
            .sum()
    });
    vec![
        Budget::at_least(
            "churn: connections/s with ÷ without, median",
            0.85,
            median(verdict),
        ),
        Budget::at_most(
            "churn: the agent's own CPU, of one core",
            10.0,
            " %",
            share.unwrap_or(f64::NAN),
        ),
        Budget::none("churn: records lost", lost),
        Budget::none("churn: emitted − counted − misses, all runs", off),
    ]
}

/// Of the real server under the agent, by its row, if it has one.
pub(super) fn of_server(row: Option<&Row>) -> Vec<Budget> {
    vec![Budget::at_least(
        "server: requests/s with ÷ without, median",
        0.92,
        median(row.map(|row| &row.verdict)),
    )]
}

/// Of the ratios of the pairs.
fn median(verdict: Option<&Verdict>) -> f64 {
    let ratio = verdict.and_then(Verdict::ratio);
    ratio.map_or(f64::NAN, |ratio| ratio.median)
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
        let what = than("node_exporter's scrape");
        let spread = cost.by_exporter.as_ref();
        let measured = spread.map_or(f64::NAN, |spread| spread.median);
        budgets.push(Budget::part(&what, by_exporter, measured));
    }
    // By this order NaN is the greatest: one that was not measured hides behind no other.
    let most = |of: fn(&Watched) -> f64| {
        let all = censuses.watched.iter().map(of);
        all.max_by(f64::total_cmp).unwrap_or(f64::NAN)
    };
    budgets.extend([
        Budget::at_most(
            "all censuses together, of one core",
            1.0,
            " %",
            most(|watched| watched.censuses),
        ),
        Budget::at_most(
            "age of full sockets, limits and findings with 300 000 sockets, 100 namespaces too",
            30.0,
            " s",
            most(|watched| watched.oldest[0]),
        ),
        Budget::at_most(
            "age of minisockets by state, requests and ports, likewise",
            30.0,
            " s",
            most(|watched| watched.oldest[1]),
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
            most(|watched| watched.slow_scrape(|_| true)),
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
        Budget::none(
            "soak: records lost",
            Some(u128::from(soak.audit.account.lost)),
        ),
        Budget::none(
            "soak: emitted − counted − misses",
            soak.audit.off().map(i128::unsigned_abs),
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
        let none = |count| Budget::none("a", Some(count)).is_met;
        assert!(none(0) && !none(1));
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(!Budget::at_most("a", 5.0, " ms", f64::INFINITY).is_met);
        assert!(!Budget::at_most("a", 5.0, " ms", f64::NAN).is_met);
        assert!(!Budget::at_least("a", 5.0, f64::NAN).is_met);
        assert!(!Budget::at_least("a", 5.0, f64::INFINITY).is_met);
        assert!(!Budget::none("a", None).is_met);
    }

    #[test]
    fn what_was_not_measured_has_its_rows() {
        let missing = Row {
            tool: "connstate".to_owned(),
            verdict: Verdict::Missing { package: "none" },
        };
        let censuses = Censuses {
            costs: Vec::new(),
            watched: Vec::new(),
        };
        let budgets = [
            of_churn(None),
            of_churn(Some(&missing)),
            of_server(None),
            of_censuses(&censuses),
        ];
        assert_eq!(budgets.each_ref().map(Vec::len), [4, 4, 1, 5]);
        for budget in budgets.iter().flatten() {
            assert!(!budget.is_met, "{budget:?}");
            assert_eq!(budget.measured, NOT_MEASURED);
        }
    }

    #[test]
    fn each_has_a_row_with_its_verdict() {
        let budgets = [
            Budget::part("one", 1.0 / 6.0, 0.12),
            Budget::none("other", Some(3)),
        ];
        assert_eq!(
            render(&budgets),
            "| budget | allowed | measured | |\n|---|---|---|---|\n\
             | one | at most 0.17 | 0.12 | met |\n| other | none | 3 | **not met** |\n"
        );
    }
}
