//! Headers that the configuration adds to every answer.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::yaml::{Fault, Node};

/// The headers that may be set, and the values each takes; none: any.
const ALLOWED: [(&str, HeaderName, &[&str]); 5] = [
    (
        "Content-Security-Policy",
        header::CONTENT_SECURITY_POLICY,
        &[],
    ),
    (
        "X-Frame-Options",
        header::X_FRAME_OPTIONS,
        &["deny", "sameorigin"],
    ),
    (
        "X-Content-Type-Options",
        header::X_CONTENT_TYPE_OPTIONS,
        &["nosniff"],
    ),
    ("X-XSS-Protection", header::X_XSS_PROTECTION, &[]),
    (
        "Strict-Transport-Security",
        header::STRICT_TRANSPORT_SECURITY,
        &[],
    ),
];

/// Reads `http_server_config.headers`.
pub(super) fn read(node: &Node<'_>) -> Result<HeaderMap, Fault> {
    node.only(&ALLOWED.map(|(name, _, _)| name))?;
    let mut headers = HeaderMap::new();
    for (name, header, values) in ALLOWED {
        let Some(node) = node.get(name) else { continue };
        let text = node.text()?;
        if !values.is_empty() && !values.contains(&text.as_str()) {
            let values = values.join(" or ");
            return Err(node.fault(format!("{text:?} is no value of it: write {values}")));
        }
        let value = HeaderValue::from_str(&text).map_err(|_| {
            node.fault("a header is one line: remove the line breaks and control characters")
        })?;
        headers.insert(header, value);
    }
    Ok(headers)
}
