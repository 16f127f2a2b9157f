//! The figures, and the Markdown they are shown in.

use super::load::Outcome;
use super::metrics::Account;

/// One tool's line.
pub(super) struct Row {
    pub(super) tool: String,
    pub(super) verdict: Verdict,
}

/// What there is to say of a tool.
pub(super) enum Verdict {
    /// Not installed here.
    Missing { package: &'static str },
    /// One entry per pair in each list; `owns` and `audits` are empty where nothing ran or nothing
    /// keeps an account.
    Measured {
        without: Vec<Outcome>,
        with: Vec<Outcome>,
        owns: Vec<Own>,
        audits: Vec<Audit>,
    },
}

/// A tool's own CPU time over one run.
pub(super) struct Own {
    /// How long the run took.
    pub(super) seconds: f64,
    /// CPU seconds used in that time.
    pub(super) during: f64,
    /// CPU seconds until the tool had digested the run.
    pub(super) in_all: f64,
}

/// The agent's account of one run against what the load is known to have done.
pub(super) struct Audit {
    pub(super) emitted: Option<u64>,
    pub(super) account: Account,
}

/// Median, least and greatest.
#[derive(Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Audit {
    /// By how much more was seen than was emitted, where that is known: other TCP traffic on the
    /// host, which the agent watches too. Less: the program ran less often than the tracepoint
    /// fired.
    pub(super) fn off(&self) -> Option<i128> {
        let seen = self.account.counted + self.account.misses;
        Some(i128::from(seen) - i128::from(self.emitted?))
    }
}

impl Verdict {
    /// The ratios of the pairs, with ÷ without.
    pub(super) fn ratio(&self) -> Option<Spread> {
        let Self::Measured { without, with, .. } = self else {
            return None;
        };
        let pairs = without.iter().zip(with);
        Spread::of(pairs.map(|(without, with)| with.per_second() / without.per_second()))
    }

    /// The tool's own CPU time in percent of one core, while the runs lasted.
    pub(super) fn share(&self) -> Option<f64> {
        let Self::Measured { owns, .. } = self else {
            return None;
        };
        let during: f64 = owns.iter().map(|own| own.during).sum();
        let seconds: f64 = owns.iter().map(|own| own.seconds).sum();
        (seconds > 0.0).then(|| 100.0 * during / seconds)
    }
}

impl Spread {
    /// None of no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }

    /// As `median (least–greatest)`.
    pub(super) fn show(&self, decimals: usize) -> String {
        format!(
            "{:.decimals$} ({:.decimals$}–{:.decimals$})",
            self.median, self.min, self.max
        )
    }
}

/// The value below which such a part of all lies; none of no values.
pub(super) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of a length is a place in it"
    )]
    let place = (values.len() as f64 * part).ceil() as usize;
    values.get(place.saturating_sub(1)).copied()
}

/// The comparison, the load's absolute figures, and the audit where an agent was among the tools.
pub(super) fn render(rows: &[Row], unit: &str) -> String {
    let mut lines = vec![
        format!(
            "| tool | {unit}s/s with ÷ without: median (min–max) | added CPU per {unit}, in the load itself | tool's own CPU per run | % of one core meanwhile |"
        ),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(comparison));
    lines.extend(absolute(rows, unit));
    let audits: Vec<String> = rows.iter().filter_map(audit).collect();
    if !audits.is_empty() {
        lines.push(String::new());
        lines.push(
            "| tool | runs | emitted | counted | misses | lost | emitted = counted + misses |"
                .to_owned(),
        );
        lines.push("|---|---|---|---|---|---|---|".to_owned());
        lines.extend(audits);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn comparison(row: &Row) -> String {
    let tool = &row.tool;
    let (without, with, owns) = match &row.verdict {
        Verdict::Missing { package } => {
            return format!("| {tool} | not installed (Debian's package {package}) | – | – | – |");
        }
        Verdict::Measured {
            without,
            with,
            owns,
            ..
        } => (without, with, owns),
    };
    let pairs = without.iter().zip(with);
    let added =
        Spread::of(pairs.map(|(without, with)| with.cpu_micros_each() - without.cpu_micros_each()));
    let own = Spread::of(owns.iter().map(|own| own.in_all));
    let share = row.verdict.share();
    let show = |spread: Option<Spread>, decimals, unit: &str| {
        spread.map_or("–".to_owned(), |spread| {
            format!("{}{unit}", spread.show(decimals))
        })
    };
    format!(
        "| {tool} | {} | {} | {} | {} |",
        show(row.verdict.ratio(), 2, ""),
        show(added, 1, " µs"),
        show(own, 2, " s"),
        share.map_or("–".to_owned(), |share| format!("{share:.1} %"))
    )
}

/// What all the ratios are ratios of.
fn absolute(rows: &[Row], unit: &str) -> Option<String> {
    let runs = rows.iter().filter_map(|row| match &row.verdict {
        Verdict::Missing { .. } => None,
        Verdict::Measured { without, .. } => Some(without),
    });
    let runs: Vec<&Outcome> = runs.flatten().collect();
    let rate = Spread::of(runs.iter().map(|run| run.per_second()))?;
    let cpu = Spread::of(runs.iter().map(|run| run.cpu_micros_each()))?;
    Some(format!(
        "\nWithout a tool, over {} runs: {} {unit}s/s, {} µs CPU each.",
        runs.len(),
        rate.show(0),
        cpu.show(1)
    ))
}

fn audit(row: &Row) -> Option<String> {
    let Verdict::Measured { audits, .. } = &row.verdict else {
        return None;
    };
    if audits.is_empty() {
        return None;
    }
    let sum = |of: fn(&Account) -> u64| audits.iter().map(|audit| of(&audit.account)).sum::<u64>();
    let (counted, misses, lost) = (
        sum(|account| account.counted),
        sum(|account| account.misses),
        sum(|account| account.lost),
    );
    let emitted: Option<u64> = audits.iter().map(|audit| audit.emitted).sum();
    let (emitted, equal) = match emitted {
        None => ("–".to_owned(), "not known beforehand".to_owned()),
        Some(emitted) => (emitted.to_string(), agreement(audits)),
    };
    Some(format!(
        "| {} | {} | {emitted} | {counted} | {misses} | {lost} | {equal} |",
        row.tool,
        audits.len()
    ))
}

/// Whether every single run adds up; if not, by how much each is off.
fn agreement(audits: &[Audit]) -> String {
    let off: Vec<i128> = audits.iter().filter_map(Audit::off).collect();
    if off.iter().all(|off| *off == 0) {
        return "yes, in every run".to_owned();
    }
    let off: Vec<String> = off.iter().map(|off| format!("{off:+}")).collect();
    format!("no, off by {}", off.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seconds: f64) -> Outcome {
        Outcome {
            operations: 1000.0,
            seconds,
            cpu_seconds: seconds / 2.0,
            unfinished: 0,
        }
    }

    fn measured(audits: Vec<Audit>) -> Row {
        let owns = vec![
            Own {
                seconds: 1.0,
                during: 0.05,
                in_all: 0.07,
            },
            Own {
                seconds: 1.0,
                during: 0.15,
                in_all: 0.17,
            },
        ];
        let verdict = Verdict::Measured {
            without: vec![outcome(1.0), outcome(1.0)],
            with: vec![outcome(2.0), outcome(1.25)],
            owns,
            audits,
        };
        Row {
            tool: "tool".to_owned(),
            verdict,
        }
    }

    fn seen(counted: u64, misses: u64) -> Audit {
        Audit {
            emitted: Some(10),
            account: Account {
                counted,
                misses,
                lost: 0,
            },
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of([4.0, 1.0]),
            Some(Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(100.0));
        assert_eq!(quantile(&values, 0.99), Some(198.0));
        assert_eq!(quantile(&values, 1.0), Some(200.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_row_shows_ratio_cost_and_share() {
        let table = render(&[measured(Vec::new())], "connection");
        assert!(
            table.contains(
                "| tool | 0.65 (0.50–0.80) | 312.5 (125.0–500.0) µs | 0.12 (0.07–0.17) s | 10.0 % |"
            ),
            "{table}"
        );
        assert!(
            table.contains(
                "over 2 runs: 1000 (1000–1000) connections/s, 500.0 (500.0–500.0) µs CPU each."
            ),
            "{table}"
        );
        assert!(!table.contains("emitted"), "{table}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let row = Row {
            tool: "tcplife".to_owned(),
            verdict: Verdict::Missing {
                package: "libbpf-tools",
            },
        };
        let table = render(&[row], "request");
        assert!(
            table.contains(
                "| tcplife | not installed (Debian's package libbpf-tools) | – | – | – |"
            ),
            "{table}"
        );
        assert!(!table.contains("Without a tool"), "{table}");
    }

    #[test]
    fn an_audit_adds_up_or_says_by_how_much_not() {
        let exact = render(&[measured(vec![seen(10, 0), seen(7, 3)])], "connection");
        assert!(
            exact.contains("| tool | 2 | 20 | 17 | 3 | 0 | yes, in every run |"),
            "{exact}"
        );
        // Two errors that cancel are two errors.
        let off = render(&[measured(vec![seen(12, 0), seen(8, 0)])], "connection");
        assert!(off.contains("| no, off by +2 -2 |"), "{off}");
    }

    #[test]
    fn an_unknown_emission_is_not_judged() {
        let unknown = Audit {
            emitted: None,
            account: Account {
                counted: 5,
                misses: 0,
                lost: 0,
            },
        };
        let table = render(&[measured(vec![unknown])], "request");
        assert!(
            table.contains("| tool | 1 | – | 5 | 0 | 0 | not known beforehand |"),
            "{table}"
        );
    }
}
