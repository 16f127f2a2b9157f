//! TLS as the file asks for it.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    Error, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::NoServerSessionStorage,
};

use super::{
    client_certificates,
    files::Files,
    suites,
    yaml::{Fault, Node},
};

const KEYS: [&str; 13] = [
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
];

/// How connections are encrypted.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    /// Whether nobody is served without a certificate of their own.
    pub(super) certificate_required: bool,
}

impl Tls {
    /// Reads `tls_server_config`; none where it is empty.
    pub(super) fn read(
        node: &Node<'_>,
        directory: &Path,
        files: &mut Files,
    ) -> Result<Option<Self>, Fault> {
        node.only(&KEYS)?;
        if node.table()?.iter().all(|(key, _)| node.get(key).is_none()) {
            return Ok(None);
        }
        let versions = suites::versions(node)?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites::suites(node, &versions)?,
            kx_groups: suites::curves(node)?,
            ..ring::default_provider()
        });
        let demand = client_certificates::read(node, directory, files, &provider)?;
        let (chain, key) = identity(node, directory, files)?;

        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| node.fault(format!("these settings leave nothing: {error}")))?;
        let certificate_required = demand.as_ref().is_some_and(|demand| demand.required);
        let builder = match demand {
            None => builder.with_no_client_auth(),
            Some(demand) => builder.with_client_cert_verifier(demand.verifier),
        };
        let (key_node, key) = key;
        let mut server = builder.with_single_cert(chain, key).map_err(|error| {
            key_node.fault(match error {
                Error::InconsistentKeys(_) => {
                    "the key is not that of the certificate: write the pair that was made together"
                        .to_owned()
                }
                error => format!("the certificate and its key cannot be used: {error}"),
            })
        })?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.ignore_client_order = match node.get("prefer_server_cipher_suites") {
            None => true,
            Some(node) => node.boolean()?,
        };
        // Every handshake is judged anew, and nothing is kept between two: scrapers keep their
        // connections.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Some(Self {
            server: Arc::new(server),
            certificate_required,
        }))
    }
}

type Identity<'a> = (
    Vec<CertificateDer<'static>>,
    (Node<'a>, PrivateKeyDer<'static>),
);

/// The certificate with its chain, and its key.
fn identity<'a>(
    tls: &Node<'a>,
    directory: &Path,
    files: &mut Files,
) -> Result<Identity<'a>, Fault> {
    let missing =
        |what: &str| tls.fault(format!("TLS takes a certificate and its key: write {what}"));
    let (node, text) = pem(tls, "cert", "cert_file", directory, files)?
        .ok_or_else(|| missing("cert_file, or cert with the PEM text itself"))?;
    let chain = certificates(&node, &text)?;
    let (node, text) = pem(tls, "key", "key_file", directory, files)?
        .ok_or_else(|| missing("key_file, or key with the PEM text itself"))?;
    // The parser's own words are not repeated: they could quote the key.
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        node.fault(
            "there is no private key in PEM: it begins with a line BEGIN PRIVATE KEY, BEGIN EC \
             PRIVATE KEY or BEGIN RSA PRIVATE KEY, and is not encrypted",
        )
    })?;
    Ok((chain, (node, key)))
}

/// The text under one of two keys, inline or of a file, and which of the two it was.
pub(super) fn pem<'a>(
    tls: &Node<'a>,
    inline: &str,
    file: &str,
    directory: &Path,
    files: &mut Files,
) -> Result<Option<(Node<'a>, Vec<u8>)>, Fault> {
    match (tls.get(inline), tls.get(file)) {
        (None, None) => Ok(None),
        (Some(_), Some(node)) => Err(node.fault(format!(
            "both {inline} and {file} are given: remove one of them"
        ))),
        (Some(node), None) => Ok(Some((node.clone(), node.text()?.into_bytes()))),
        (None, Some(node)) => {
            let path = directory.join(node.text()?);
            let content = files.read(&path).map_err(|error| {
                node.fault(format!(
                    "cannot read {}: {error}; relative paths begin at the directory of this file",
                    path.display()
                ))
            })?;
            Ok(Some((node, content)))
        }
    }
}

/// All certificates of a PEM text; at least one.
pub(super) fn certificates(
    node: &Node<'_>,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(node.fault(
            "there is no certificate in PEM: it begins with a line BEGIN CERTIFICATE and ends \
             with END CERTIFICATE",
        )),
    }
}
