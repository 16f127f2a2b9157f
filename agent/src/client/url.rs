//! The URL of an agent: pure.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use hyper::Uri;

use super::ClientError;

/// Where an agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentUrl {
    /// Whether it is asked over TLS.
    pub(super) is_tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the port is written: not where it is the scheme's own.
    names_port: bool,
    /// Before every path, for an agent behind a proxy.
    pub(super) prefix: String,
}

impl AgentUrl {
    /// Reads it.
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::Url {
            url: without_userinfo(text),
            reason,
        };
        // A password may contain what looks like the end of the host, so no part is looked at
        // alone; no agent's path needs this sign.
        if text.contains('@') {
            return Err(bad(
                "a name and a password do not belong there, where others see them: give them \
                 with --username and --password-file",
            ));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| bad("write http://HOST:PORT or https://HOST:PORT"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("it begins with http:// or https://")),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let bracketed = uri.host().unwrap_or_default();
        let host = match bracketed.strip_prefix('[') {
            None => bracketed,
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|address| address.parse::<Ipv6Addr>().is_ok())
                .ok_or_else(|| bad("only an IPv6 address stands in brackets"))?,
        };
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match authority.strip_prefix(bracketed) {
            None | Some("") => None,
            Some(rest) => Some(
                port(rest)
                    .ok_or_else(|| bad("a port is a number from 1 to 65535, after a colon"))?,
            ),
        };
        if uri.query().is_some() {
            return Err(bad(
                "a query has no use there: leave out what follows the ?",
            ));
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            names_port: port.is_some(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Why this URL is of no use.
    pub(super) fn bad(&self, reason: &'static str) -> ClientError {
        ClientError::Url {
            url: self.to_string(),
            reason,
        }
    }

    /// Host and port, as they stand in the URL.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.names_port {
            format!("{host}:{}", self.port)
        } else {
            host
        }
    }

    /// Whether what goes there stays on this host.
    pub(super) fn is_loopback(&self) -> bool {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return address.to_canonical().is_loopback();
        }
        // RFC 6761, 6.3.
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost")
    }
}

impl fmt::Display for AgentUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

fn port(rest: &str) -> Option<u16> {
    let digits = rest.strip_prefix(':')?;
    // `parse` takes a sign, too.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| all_digits && *port > 0)
}

/// The text without what stands between its scheme and its last `@`, which may be a password.
fn without_userinfo(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    let scheme = before.split_once("://").map(|(scheme, _)| scheme);
    match scheme.filter(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        Some(scheme) => format!("{scheme}://…@{after}"),
        None => format!("…@{after}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        AgentUrl::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_url_says_where_and_how() {
        for (text, host, port, prefix) in [
            ("http://db1.example:10735", "db1.example", 10735, ""),
            ("http://db1.example", "db1.example", 80, ""),
            ("https://db1.example/", "db1.example", 443, ""),
            ("https://[::1]:1/tcp/agent/", "::1", 1, "/tcp/agent"),
            ("https://127.0.0.1:65535", "127.0.0.1", 65535, ""),
        ] {
            let url = AgentUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.prefix, prefix);
            assert_eq!(url.is_tls, text.starts_with("https"));
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
        let authority = |text| AgentUrl::parse(text).unwrap().authority();
        assert_eq!(authority("http://[::1]:1/x"), "[::1]:1");
        assert_eq!(authority("https://a"), "a");
    }

    #[test]
    fn what_is_no_url_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "write http://HOST:PORT"),
            ("db1.example:10735", "it begins with http:// or https://"),
            ("ftp://db1.example", "it begins with http:// or https://"),
            ("/metrics", "it begins with http:// or https://"),
            ("http://", "HOST:PORT"),
            ("http://:80", "no host"),
            ("http://[x]:80", "IPv6"),
            ("http://a:99999", "1 to 65535"),
            ("http://a:0", "1 to 65535"),
            ("http://a:", "1 to 65535"),
            ("http://a:+80", "1 to 65535"),
            ("http://a/?rate=1", "leave out"),
        ] {
            let error = refused(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for text in [
            "http://me:secret@db1.example:80",
            "https://me:secret@db1.example",
            "http://me:secret@x@db1.example",
            "http://me:sec/ret?secret@db1.example",
            "http://me:secret://secret@db1.example",
            "me:secret@db1.example",
            "me:secret://x@db1.example",
            "http://me@db1.example",
        ] {
            let error = refused(text);
            assert!(error.contains("--username and --password-file"), "{error}");
            assert!(error.contains("db1.example"), "{error}");
            assert!(
                !error.contains("secret") && !error.contains("me@"),
                "{error}"
            );
        }
    }

    #[test]
    fn this_host_has_names_and_addresses() {
        for (host, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost", true),
            ("a.Localhost.", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
            ("[fe80::1]", false),
        ] {
            let url = AgentUrl::parse(&format!("http://{host}:1")).unwrap();
            assert_eq!(url.is_loopback(), own, "{host}");
        }
    }
}
