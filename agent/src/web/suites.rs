//! Versions, cipher suites and curves by the names Go gives them, which the file uses.

use tokio_rustls::rustls::{
    CipherSuite, NamedGroup, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{SupportedKxGroup, ring},
    version,
};

use super::yaml::{Fault, Node};

/// Oldest first.
static VERSIONS: [(&str, &SupportedProtocolVersion); 2] =
    [("TLS12", &version::TLS12), ("TLS13", &version::TLS13)];

const SUITES: [(&str, CipherSuite); 9] = [
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

/// Reads `min_version` and `max_version`: by default, both there are.
pub(super) fn versions(tls: &Node<'_>) -> Result<Vec<&'static SupportedProtocolVersion>, Fault> {
    let place = |key, default| match tls.get(key) {
        None => Ok(default),
        Some(node) => version_place(&node),
    };
    let least = place("min_version", 0)?;
    let most = place("max_version", VERSIONS.len() - 1)?;
    let wanted = VERSIONS.iter().take(most + 1).skip(least);
    let wanted: Vec<_> = wanted.map(|(_, version)| *version).collect();
    if wanted.is_empty() {
        let node = tls.get("max_version").unwrap_or_else(|| tls.clone());
        return Err(node.fault("max_version is older than min_version: no version is left"));
    }
    Ok(wanted)
}

fn version_place(node: &Node<'_>) -> Result<usize, Fault> {
    let text = node.text()?;
    let place = VERSIONS.iter().position(|(name, _)| *name == text);
    place.ok_or_else(|| {
        node.fault(match text.as_str() {
            "TLS10" | "TLS11" => {
                format!(
                    "{text} is refused: rustls has nothing older than TLS 1.2; write TLS12 or TLS13"
                )
            }
            _ => format!("{text:?} is no version of TLS: write TLS12 or TLS13"),
        })
    })
}

/// Reads `cipher_suites`: by default, all that rustls has. As in Go, the list is about TLS 1.2;
/// those of TLS 1.3 are always there.
pub(super) fn suites(
    tls: &Node<'_>,
    versions: &[&SupportedProtocolVersion],
) -> Result<Vec<SupportedCipherSuite>, Fault> {
    let Some(node) = tls.get("cipher_suites") else {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    };
    let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut chosen = ring::ALL_CIPHER_SUITES.to_vec();
    chosen.retain(is_tls13);
    let items = node.list()?;
    for item in &items {
        let text = item.text()?;
        let named = SUITES.iter().find(|(name, _)| *name == text);
        let (_, wanted) = named.ok_or_else(|| item.fault(unknown_suite(&text)))?;
        let mut all = ring::ALL_CIPHER_SUITES.iter();
        if let Some(suite) = all.find(|suite| suite.suite() == *wanted)
            && !chosen.contains(suite)
        {
            chosen.push(*suite);
        }
    }
    let tls12_alone = versions
        .iter()
        .all(|version| version.version == ProtocolVersion::TLSv1_2);
    if items.is_empty() {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    }
    if tls12_alone && chosen.iter().all(is_tls13) {
        return Err(node.fault(format!(
            "none of these is for TLS 1.2, which max_version asks for: add one of {}",
            names(&SUITES, "_WITH_")
        )));
    }
    Ok(chosen)
}

fn unknown_suite(text: &str) -> String {
    let offered = names(&SUITES, "TLS_");
    let weak = if text.starts_with("TLS_RSA_") {
        "an RSA key exchange"
    } else if text.contains("_CBC_") {
        "CBC"
    } else if text.contains("_RC4_") {
        "RC4"
    } else {
        return format!("{text:?} is no cipher suite known here; there are {offered}");
    };
    format!("{text} is refused: rustls has no suite with {weak}; write some of {offered}")
}

/// Reads `curve_preferences`: by default, all that rustls has.
pub(super) fn curves(tls: &Node<'_>) -> Result<Vec<&'static dyn SupportedKxGroup>, Fault> {
    let all = ring::ALL_KX_GROUPS;
    let Some(node) = tls.get("curve_preferences") else {
        return Ok(all.to_vec());
    };
    let items = node.list()?;
    let chosen = items.iter().map(|item| {
        let text = item.text()?;
        let named = CURVES.iter().find(|(name, _)| *name == text);
        let group = named.and_then(|(_, group)| all.iter().find(|known| known.name() == *group));
        group.copied().ok_or_else(|| {
            let known = names(&CURVES, "");
            item.fault(format!(
                "{text:?} is no curve that is offered here: write some of {known}"
            ))
        })
    });
    let chosen: Vec<_> = chosen.collect::<Result<_, _>>()?;
    Ok(if chosen.is_empty() {
        all.to_vec()
    } else {
        chosen
    })
}

fn names<T>(table: &[(&str, T)], part: &str) -> String {
    let names = table
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.contains(part));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_and_curve_of_the_tables_is_there() {
        for (name, suite) in SUITES {
            let mut all = ring::ALL_CIPHER_SUITES.iter();
            assert!(all.any(|known| known.suite() == suite), "{name}");
        }
        assert_eq!(SUITES.len(), ring::ALL_CIPHER_SUITES.len());
        for (name, group) in CURVES {
            assert!(
                ring::ALL_KX_GROUPS
                    .iter()
                    .any(|known| known.name() == group),
                "{name}"
            );
        }
        assert_eq!(CURVES.len(), ring::ALL_KX_GROUPS.len());
    }
}
