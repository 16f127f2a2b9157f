//! The file of `--web.config.file`, in the format of Prometheus' exporter-toolkit.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use axum::http::HeaderMap;

use super::{
    files::Files,
    headers,
    rate::{Meter, Rate},
    tls::Tls,
    users::Users,
    yaml::{Document, Fault, Node},
};

/// What the file says, with the certificates it names.
#[derive(Debug)]
pub struct Config {
    pub(super) tls: Option<Tls>,
    pub(super) headers: HeaderMap,
    pub(super) users: Users,
    meter: Option<Mutex<Meter>>,
}

/// The file cannot be used: where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {}{says}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default(), key_words(key))]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line in it, where it is known.
    pub line: Option<usize>,
    /// The keys that lead to the mistake, joined by points; empty where it is the whole file.
    pub key: String,
    /// What is wrong, and what to write instead. No secret is quoted.
    pub says: String,
}

fn key_words(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    }
}

impl Config {
    /// Reads the file and those it names; relative names begin at its directory.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read, or a key or value is unknown or asks for what is not offered.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_into(path, &mut Files::default())
    }

    /// As [`Config::read`], and tells which files it read, also where it fails.
    pub(super) fn read_into(path: &Path, files: &mut Files) -> Result<Self, ConfigError> {
        let text = files.read(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            says: format!("cannot be read: {error}"),
        })?;
        Self::parse(text, path, files)
    }

    /// Of the text of the file at `path`.
    pub(super) fn parse(
        text: Vec<u8>,
        path: &Path,
        files: &mut Files,
    ) -> Result<Self, ConfigError> {
        let fail = |line, key: &[String], says| ConfigError {
            file: path.to_owned(),
            line,
            key: key.join("."),
            says,
        };
        let text = String::from_utf8(text)
            .map_err(|error| fail(None, &[], format!("this is no text: {error}")))?;
        let document = Document::parse(text).map_err(|(line, says)| fail(line, &[], says))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::understand(&document.root(), directory, files)
            .map_err(|Fault { key, says }| fail(document.line(&key), &key, says))
    }

    fn understand(root: &Node<'_>, directory: &Path, files: &mut Files) -> Result<Self, Fault> {
        root.only(&[
            "tls_server_config",
            "http_server_config",
            "basic_auth_users",
            "rate_limit",
        ])?;
        let tls = match root.get("tls_server_config") {
            None => None,
            Some(node) => Tls::read(&node, directory, files)?,
        };
        let headers = match root.get("http_server_config") {
            None => HeaderMap::new(),
            Some(node) => http(&node)?,
        };
        let users = match root.get("basic_auth_users") {
            None => Users::default(),
            Some(node) => Users::read(&node)?,
        };
        let rate = match root.get("rate_limit") {
            None => None,
            Some(node) => Rate::read(&node)?,
        };
        Ok(Self {
            tls,
            headers,
            users,
            meter: rate.map(|rate| Mutex::new(Meter::new(rate, Instant::now()))),
        })
    }

    /// Whether nobody is served who has not shown who they are, by a password or a certificate.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        !self.users.is_empty() || self.requires_certificate()
    }

    pub(super) fn requires_certificate(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.certificate_required)
    }

    /// Whether the rate leaves room for a request now; if so it is counted.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.meter.as_ref().is_none_or(|meter| {
            let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
            meter.pass(now)
        })
    }
}

/// Reads `http_server_config`. Answers are HTTP/1.1 whatever `http2` says.
fn http(node: &Node<'_>) -> Result<HeaderMap, Fault> {
    node.only(&["http2", "headers"])?;
    if let Some(node) = node.get("http2") {
        node.boolean()?;
    }
    node.get("headers")
        .map_or_else(|| Ok(HeaderMap::new()), |node| headers::read(&node))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
