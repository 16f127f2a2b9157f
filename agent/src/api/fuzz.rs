//! What must hold of any query.

use axum::{extract::Query, http::Uri};
use serde::de::DeserializeOwned;

use super::{events::EventsQuery, findings::FindingsQuery};
use crate::detectors::Findings;

/// Findings to choose from.
const FINDINGS: &str = r#"{"orphans":{"count":5,"limit":8,"kills":null,"killed":1,"advice":[]},"time_wait":[],"ports":[],"stalls":[]}"#;

/// As what follows the question mark in a request.
pub(crate) fn query(text: &str) {
    if let Some(asked) = read::<EventsQuery>(text) {
        events(&asked);
    }
    if let Some(asked) = read::<FindingsQuery>(text) {
        findings(&asked);
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    let uri: Uri = format!("/api/v1/any?{text}").parse().ok()?;
    match Query::try_from_uri(&uri) {
        Ok(Query(asked)) => Some(asked),
        Err(error) => {
            assert!(!error.body_text().is_empty());
            None
        }
    }
}

/// What is asked for is what is wished, no more and no less.
fn events(asked: &EventsQuery) {
    let text = serde_urlencoded::to_string(asked).unwrap_or_default();
    assert_eq!(read(&text).as_ref(), Some(asked), "{text}");
    let wish = match asked.wish() {
        Ok(wish) => wish,
        Err(says) => return assert!(!says.is_empty()),
    };
    let filter = wish.filter;
    for (asked, wished) in [
        (asked.port.map(u64::from), filter.port.into()),
        (asked.pid.map(u64::from), filter.pid.into()),
        (asked.cgroup, filter.cgroup),
    ] {
        // Zero lets everything through.
        assert_eq!(asked.filter(|asked| *asked != 0), asked);
        assert_eq!(asked.unwrap_or(0), wished);
    }
    assert_eq!(asked.state.is_none(), filter.states == 0);
    assert!(filter.states >> 12 <= 1, "{:b}", filter.states);
}

/// A page has no more than was asked for, and what is left out is counted.
fn findings(asked: &FindingsQuery) {
    let there: Findings = serde_json::from_str(FINDINGS).unwrap_or_default();
    match asked.page(&there, 0.0) {
        Ok(page) => {
            let limit = asked.limit.unwrap_or(100);
            assert!((1..=1_000).contains(&limit) && page.findings.len() <= limit);
            assert!(page.total <= 1 && page.offset == asked.offset);
            assert!(page.findings.len() == page.total.saturating_sub(asked.offset).min(limit));
        }
        Err(says) => assert!(says.contains("1 to 1000"), "{says}"),
    }
}
