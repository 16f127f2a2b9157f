//! TLS toward an agent.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{ClientError, file, url::AgentUrl};
use crate::workload::plain;

/// Bytes of a file of authorities at most; that of a distribution has a quarter of it.
const MOST: u32 = 1 << 20;

/// Characters of a reason in the library's words at most: they repeat the names in a certificate.
const LONGEST_REASON: usize = 500;

/// Whom to trust, and who should answer.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// The name that the certificate must bear.
    name: ServerName<'static>,
    /// Where the authorities are from, if not from this host's own.
    ca_file: Option<PathBuf>,
}

impl Tls {
    /// Trusts the authorities of `ca_file` alone, or without one those of this host.
    pub(super) fn new(url: &AgentUrl, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let untrusted = |reason| ClientError::Authorities {
            place: url.to_string(),
            reason,
        };
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| url.bad("no certificate can bear that name"))?;
        let roots = match ca_file {
            Some(path) => of_file(path),
            None => of_this_host(),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| untrusted(error.to_string()))?
            .with_root_certificates(roots.map_err(untrusted)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            name,
            ca_file: ca_file.map(Path::to_owned),
        })
    }

    /// Has whoever answers prove that they are the one.
    pub(super) async fn connect(
        &self,
        url: &AgentUrl,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| self.failed(url, &error))
    }

    fn failed(&self, url: &AgentUrl, error: &io::Error) -> ClientError {
        let place = url.to_string();
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref());
        match fault {
            Some(Error::InvalidCertificate(fault)) => ClientError::Certificate {
                place,
                reason: distrust(fault, self.ca_file.as_deref()),
            },
            Some(Error::InvalidMessage(_)) => ClientError::Handshake {
                place,
                reason: "what answers there speaks another protocol; an agent without TLS has an \
                         http:// URL"
                    .to_owned(),
            },
            Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
                ClientError::Handshake {
                    place,
                    reason: "it asks for a certificate of whoever asks, and this one has none: \
                             ask it on its own host, by its socket"
                        .to_owned(),
                }
            }
            _ => ClientError::Handshake {
                place,
                reason: plain(&error.to_string(), LONGEST_REASON),
            },
        }
    }
}

/// Every certificate of a PEM file.
fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let named = |what: &str| format!("--ca-file {}: {what}", path.display());
    let text = file::read(path, MOST).map_err(|error| named(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| {
            named(&format!(
                "a certificate in it cannot be used: {}",
                plain(&error, LONGEST_REASON)
            ))
        })?;
    }
    if roots.is_empty() {
        return Err(named(
            "there is no certificate in PEM: it begins with a line BEGIN CERTIFICATE and ends \
             with END CERTIFICATE",
        ));
    }
    Ok(roots)
}

/// What this host's programs trust: where its distribution keeps it, or `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` say.
fn of_this_host() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that is of no use does not make the others so.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "none are where distributions keep them".to_owned());
        return Err(format!(
            "this host has no authorities ({why}): install its package ca-certificates, or name \
             a file with --ca-file"
        ));
    }
    Ok(roots)
}

/// Why a certificate is not accepted, and what to do.
fn distrust(fault: &CertificateError, ca_file: Option<&Path>) -> String {
    let of_whom = match ca_file {
        Some(path) => format!(
            "none of the authorities in {} has signed it",
            path.display()
        ),
        None => "none of the authorities that this host trusts has signed it".to_owned(),
    };
    match fault {
        // The second is of another authority with the right one's name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("{of_whom}; name the file of the one that has with --ca-file")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "{}; write a URL with a name that it bears",
                plain(&fault.to_string(), LONGEST_REASON)
            )
        }
        // As webpki calls it; tests/tests/client.rs would see another name.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own (CA:TRUE), which signs others and serves none; where it was \
             made to sign itself, make it anew with -addext basicConstraints=critical,CA:FALSE, \
             and name its file with --ca-file"
                .to_owned()
        }
        other => plain(&other.to_string(), LONGEST_REASON),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_nobody_vouches_for_asks_for_a_file() {
        for fault in [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
        ] {
            let reason = distrust(&fault, None);
            assert!(reason.contains("this host trusts"), "{reason}");
            assert!(reason.contains("--ca-file"), "{reason}");
            let reason = distrust(&fault, Some(Path::new("ca.pem")));
            assert!(reason.contains("in ca.pem has signed it"), "{reason}");
        }
        assert_eq!(distrust(&CertificateError::Revoked, None), "Revoked");
    }

    #[test]
    fn names_in_a_certificate_do_not_steer_the_terminal() {
        let fault = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("db1.example").unwrap(),
            presented: vec!["\u{1b}[2J\u{202e}".to_owned()],
        };
        let reason = distrust(&fault, None);
        assert!(reason.contains("db1.example"), "{reason}");
        assert!(!reason.contains(['\u{1b}', '\u{202e}']), "{reason}");
    }

    #[test]
    fn a_file_without_authorities_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for (content, says) in [
            ("", "no certificate in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
                "no certificate",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
                "cannot be used",
            ),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = of_file(&file).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("--ca-file "), "{error}");
        }
        assert!(of_file(&folder.path().join("none")).is_err());
    }
}
