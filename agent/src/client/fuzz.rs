//! What must hold of any URL.

use hyper::{Uri, header::HeaderValue};

use super::{AgentUrl, ClientError};

/// As it is given on the command line.
pub(crate) fn url(text: &str) {
    match AgentUrl::parse(text) {
        Ok(url) => {
            assert!(!text.contains('@') && !url.host.is_empty() && url.port > 0);
            assert_eq!(
                AgentUrl::parse(&url.to_string()).ok().as_ref(),
                Some(&url),
                "{url}"
            );
            assert!(HeaderValue::from_str(&url.authority()).is_ok());
            let target = format!("{}/api/v1/events", url.prefix).parse::<Uri>();
            assert!(
                target.is_ok_and(|target| target.path().ends_with("/api/v1/events")),
                "{url}"
            );
            let _either = url.is_loopback();
        }
        Err(ClientError::Url { url, reason }) => {
            assert!(!reason.is_empty());
            if let Some((before, after)) = text.rsplit_once('@') {
                let shown = url.strip_suffix(after).unwrap_or_default();
                assert!(shown.ends_with("…@"), "{url}");
                // The scheme is all that is left of it.
                assert!(
                    shown
                        .chars()
                        .all(|sign| sign.is_ascii_alphabetic() || ":/…@".contains(sign))
                );
                assert!(before.starts_with(shown.trim_end_matches("…@")), "{url}");
            }
        }
        Err(error) => assert!(matches!(error, ClientError::Url { .. }), "{error}"),
    }
}
