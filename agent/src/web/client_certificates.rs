//! Whether clients must show a certificate, whose signature it must bear, and which names.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    files::Files,
    sans, tls,
    yaml::{Fault, Node},
};

const TYPES: &str = "NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert";

/// What is asked of clients.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Whether nobody is served without a certificate.
    pub(super) required: bool,
}

/// Reads `client_auth_type`, `client_ca`, `client_ca_file` and `client_allowed_sans`; none where
/// clients are not asked for certificates.
pub(super) fn read(
    tls: &Node<'_>,
    directory: &Path,
    files: &mut Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Demand>, Fault> {
    let required = demanded(tls)?;
    let authority = tls::pem(tls, "client_ca", "client_ca_file", directory, files)?;
    let sans = tls.get("client_allowed_sans");
    let (required, authority) = match (required, authority) {
        (None, None) => {
            return match sans {
                None => Ok(None),
                Some(node) => Err(node.fault(NO_SANS)),
            };
        }
        (None, Some((node, _))) => {
            return Err(node.fault(
                "an authority for clients has no effect while they are not asked for \
                 certificates: write client_auth_type: RequireAndVerifyClientCert",
            ));
        }
        (Some(_), None) => {
            let node = tls.get("client_auth_type").unwrap_or_else(|| tls.clone());
            return Err(node.fault(
                "nothing says which certificates of clients are good: write client_ca_file, the \
                 certificate of the authority that signs them",
            ));
        }
        (Some(required), Some(authority)) => (required, authority),
    };
    let (node, text) = authority;
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(&node, &text)? {
        roots.add(certificate).map_err(|error| {
            node.fault(format!(
                "a certificate cannot serve as an authority: {error}"
            ))
        })?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let verifier = builder
        .build()
        .map_err(|error| node.fault(format!("these authorities cannot be used: {error}")))?;
    let verifier = match sans {
        None => verifier,
        Some(node) if !required => return Err(node.fault(NO_SANS)),
        Some(node) => Arc::new(Named {
            signed: verifier,
            allowed: allowed(&node)?,
        }),
    };
    Ok(Some(Demand { verifier, required }))
}

const NO_SANS: &str = "names are looked for only where every client shows a certificate: write \
                       client_auth_type: RequireAndVerifyClientCert";

/// Whether clients must show one; none where they are not asked.
fn demanded(tls: &Node<'_>) -> Result<Option<bool>, Fault> {
    let Some(node) = tls.get("client_auth_type") else {
        return Ok(None);
    };
    let text = node.text()?;
    match text.as_str() {
        "NoClientCert" => Ok(None),
        "VerifyClientCertIfGiven" => Ok(Some(false)),
        "RequireAndVerifyClientCert" => Ok(Some(true)),
        "RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert" => {
            Err(node.fault(format!(
                "{text} is refused: it would take a certificate that anyone can make, and \
                 protects nothing; write {TYPES}"
            )))
        }
        _ => Err(node.fault(format!("{text:?} is not known: write {TYPES}"))),
    }
}

fn allowed(node: &Node<'_>) -> Result<Vec<String>, Fault> {
    let names = node
        .list()?
        .iter()
        .map(Node::text)
        .collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(node.fault(
            "an empty list lets nobody in: write the names of those who may, or remove the key",
        ));
    }
    Ok(names)
}

/// Takes certificates that are well signed and made out to one of these names.
#[derive(Debug)]
struct Named {
    signed: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .signed
            .verify_client_cert(certificate, intermediates, now)?;
        let names = sans::of(certificate);
        if names.iter().any(|name| self.allowed.contains(name)) {
            Ok(verified)
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
