//! `/api/v1/findings`: the findings as one list, filtered, sorted and paged.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    census::Age,
    detectors::{Detector, Findings, Minisockets, Orphans, Ports, Stall},
};

/// Findings on a page unless more or fewer are asked for.
const PAGE: usize = 100;

/// Findings on a page at most: as many as there are of one kind.
const LONGEST_PAGE: usize = 1_000;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingsQuery {
    /// Only findings of this kind.
    pub kind: Option<Kind>,
    /// Only those of this workload.
    pub workload: Option<String>,
    /// Only those of this process.
    pub process: Option<String>,
    /// Only those at this port.
    pub port: Option<u16>,
    /// Only those in this network namespace: `host`, or an inode number.
    pub netns: Option<String>,
    /// What comes first: the oldest, unless it says otherwise.
    #[serde(default)]
    pub sort: Sort,
    /// How many to leave out at the beginning.
    #[serde(default)]
    pub offset: usize,
    /// How many to tell at most, 1 to 1000; 100 unless it says otherwise.
    pub limit: Option<usize>,
}

/// What a finding is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Orphans near their limit.
    Orphans,
    /// Timewait minisockets near theirs.
    TimeWait,
    /// Ephemeral ports that run out.
    EphemeralPorts,
    /// Sockets stuck in FIN_WAIT1.
    FinWait1,
    /// Sockets stuck in FIN_WAIT2.
    FinWait2,
    /// Sockets leaked in CLOSE_WAIT.
    CloseWait,
    /// Sockets stuck in LAST_ACK or CLOSING.
    LastAck,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Limits about to bite, then the oldest stalls.
    #[default]
    Age,
    /// What concerns most sockets.
    Count,
}

/// A page of findings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FindingsPage<'a> {
    /// Of the shape: 1.
    pub version: u32,
    /// When the census was complete, in seconds since 1970.
    pub completed: f64,
    /// How many findings match.
    pub total: usize,
    /// How many of them come before this page.
    pub offset: usize,
    /// Those of this page.
    pub findings: Vec<Finding<'a>>,
}

/// A finding, with its kind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Finding<'a> {
    /// What it is about.
    pub kind: Kind,
    /// What it says.
    #[serde(flatten)]
    pub detail: Detail<'a>,
}

/// What a finding says, by its kind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Detail<'a> {
    /// Of the four kinds that are about single sockets.
    Stall(&'a Stall),
    /// Of orphans.
    Orphans(&'a Orphans),
    /// Of minisockets.
    Minisockets(&'a Minisockets),
    /// Of ports.
    Ports(&'a Ports),
}

impl From<Detector> for Kind {
    fn from(detector: Detector) -> Self {
        match detector {
            Detector::FinWait1 => Self::FinWait1,
            Detector::FinWait2 => Self::FinWait2,
            Detector::CloseWait => Self::CloseWait,
            Detector::LastAck => Self::LastAck,
        }
    }
}

impl FindingsQuery {
    /// The page of `findings` that is asked for; `completed` says when their census was.
    ///
    /// # Errors
    ///
    /// Where more is asked for than a page may hold, in words.
    pub fn page<'a>(
        &self,
        findings: &'a Findings,
        completed: f64,
    ) -> Result<FindingsPage<'a>, String> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            return Err(format!("limit is {limit}; it may be 1 to {LONGEST_PAGE}"));
        }
        let mut found: Vec<_> = all(findings)
            .filter(|finding| self.matches(finding))
            .collect();
        // Stable: what is equal stays in the order of the kinds.
        match self.sort {
            Sort::Age => {
                found.sort_by_key(|finding| (finding.age().is_some(), Reverse(finding.age())));
            }
            Sort::Count => found.sort_by_key(|finding| Reverse(finding.count())),
        }
        Ok(FindingsPage {
            version: super::snapshot::VERSION,
            completed,
            total: found.len(),
            offset: self.offset,
            findings: found.into_iter().skip(self.offset).take(limit).collect(),
        })
    }

    fn matches(&self, finding: &Finding<'_>) -> bool {
        let (netns, port, workload, process) = match &finding.detail {
            Detail::Stall(stall) => (
                Some(stall.netns.as_str()),
                Some(stall.port),
                vec![stall.workload.as_str()],
                Some(stall.process.as_str()),
            ),
            // Of the whole host.
            Detail::Orphans(_) => (Some("host"), None, Vec::new(), None),
            Detail::Minisockets(minisockets) => {
                (Some(minisockets.netns.as_str()), None, Vec::new(), None)
            }
            Detail::Ports(ports) => {
                let connectors = ports.connectors.iter();
                (
                    Some(ports.netns.as_str()),
                    Some(ports.port),
                    connectors.map(|who| who.workload.as_str()).collect(),
                    None,
                )
            }
        };
        let is = |asked: &Option<String>, is: Option<&str>| {
            asked.as_deref().is_none_or(|asked| is == Some(asked))
        };
        self.kind.is_none_or(|kind| kind == finding.kind)
            && self.port.is_none_or(|asked| port == Some(asked))
            && is(&self.netns, netns)
            && is(&self.process, process)
            && self
                .workload
                .as_deref()
                .is_none_or(|asked| workload.contains(&asked))
    }
}

impl Finding<'_> {
    /// The age of the oldest socket; nothing of limits.
    pub(crate) fn age(&self) -> Option<Age> {
        match &self.detail {
            Detail::Stall(stall) => Some(stall.oldest),
            Detail::Orphans(_) | Detail::Minisockets(_) | Detail::Ports(_) => None,
        }
    }

    /// How many sockets or ports it is about.
    pub(crate) fn count(&self) -> u64 {
        match &self.detail {
            Detail::Stall(stall) => stall.count,
            Detail::Orphans(orphans) => orphans.count,
            Detail::Minisockets(minisockets) => minisockets.sockets,
            Detail::Ports(ports) => ports.used,
        }
    }
}

/// All findings, limits first.
pub(crate) fn all(findings: &Findings) -> impl Iterator<Item = Finding<'_>> {
    let finding = |kind, detail| Finding { kind, detail };
    let orphans = findings.orphans.iter();
    let minisockets = findings.time_wait.iter();
    let ports = findings.ports.iter();
    let stalls = findings.stalls.iter();
    orphans
        .map(move |orphans| finding(Kind::Orphans, Detail::Orphans(orphans)))
        .chain(
            minisockets
                .map(move |minisockets| finding(Kind::TimeWait, Detail::Minisockets(minisockets))),
        )
        .chain(ports.map(move |ports| finding(Kind::EphemeralPorts, Detail::Ports(ports))))
        .chain(stalls.map(move |stall| finding(stall.detector.into(), Detail::Stall(stall))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::detectors::{Cause, Side};

    fn stall(detector: Detector, process: &str, port: u16, count: u64, seconds: u64) -> Stall {
        Stall {
            detector,
            cause: Cause::Unknown,
            netns: "host".to_owned(),
            workload: format!("unit:{process}.service"),
            process: process.to_owned(),
            pids: vec![1],
            port,
            side: Side::Server,
            count,
            oldest: Age {
                at_least: Duration::from_secs(seconds),
                exact: true,
            },
            sockets: Vec::new(),
            advice: Vec::new(),
        }
    }

    fn findings() -> Findings {
        Findings {
            stalls: vec![
                stall(Detector::CloseWait, "api", 80, 7, 60),
                stall(Detector::FinWait1, "api", 81, 9, 600),
                stall(Detector::CloseWait, "db", 5432, 1, 90),
            ],
            orphans: Some(Orphans {
                count: 5,
                limit: 8,
                kills: None,
                killed: 1,
                advice: Vec::new(),
            }),
            ..Findings::default()
        }
    }

    /// The counts of the findings on a page.
    fn counts(query: &FindingsQuery) -> Vec<u64> {
        let findings = findings();
        let page = query.page(&findings, 0.0).unwrap();
        page.findings.iter().map(Finding::count).collect()
    }

    #[test]
    fn limits_come_first_then_the_oldest_stalls() {
        assert_eq!(counts(&FindingsQuery::default()), [5, 9, 1, 7]);
        let by_count = FindingsQuery {
            sort: Sort::Count,
            ..FindingsQuery::default()
        };
        assert_eq!(counts(&by_count), [9, 7, 5, 1]);
    }

    #[test]
    fn each_filter_leaves_what_matches() {
        let query = |text: &str| serde_json::from_str::<FindingsQuery>(text).unwrap();
        assert_eq!(counts(&query(r#"{"kind":"close_wait"}"#)), [1, 7]);
        assert_eq!(counts(&query(r#"{"process":"api"}"#)), [9, 7]);
        assert_eq!(counts(&query(r#"{"port":5432}"#)), [1]);
        assert_eq!(counts(&query(r#"{"workload":"unit:db.service"}"#)), [1]);
        assert_eq!(counts(&query(r#"{"netns":"host"}"#)), [5, 9, 1, 7]);
        assert_eq!(counts(&query(r#"{"netns":"4026532000"}"#)), [0; 0]);
    }

    #[test]
    fn a_page_tells_how_many_there_are_in_all() {
        let query = FindingsQuery {
            offset: 1,
            limit: Some(2),
            ..FindingsQuery::default()
        };
        let findings = findings();
        let page = query.page(&findings, 0.0).unwrap();
        assert_eq!((page.total, page.offset), (4, 1));
        assert_eq!(counts(&query), [9, 1]);
        let beyond = FindingsQuery {
            offset: 9,
            ..FindingsQuery::default()
        };
        assert_eq!(counts(&beyond), [0; 0]);
    }

    #[test]
    fn a_page_has_a_size() {
        for limit in [0, 1_001] {
            let query = FindingsQuery {
                limit: Some(limit),
                ..FindingsQuery::default()
            };
            let error = query.page(&findings(), 0.0).unwrap_err();
            assert!(error.contains("1 to 1000"), "{error}");
        }
    }
}
