//! The names a certificate is made out to (RFC 5280, 4.2.1.6).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The object identifier 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

const SEQUENCE: u8 = 0x30;
/// The third optional field of a certificate's body.
const EXTENSIONS: u8 = 0xa3;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const E_MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// The DNS names, e-mail addresses, URIs and IP addresses of a certificate in DER, as text;
/// nothing where it has none or is cut short.
pub(super) fn of(certificate: &[u8]) -> Vec<String> {
    names(certificate).unwrap_or_default()
}

fn names(certificate: &[u8]) -> Option<Vec<String>> {
    let mut body = Der(Der(Der(certificate).expect(SEQUENCE)?).expect(SEQUENCE)?);
    let mut extensions = Der(Der(body.find(EXTENSIONS)?).expect(SEQUENCE)?);
    loop {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_IDENTIFIER)? == SUBJECT_ALT_NAME {
            let mut names = Der(Der(extension.find(OCTET_STRING)?).expect(SEQUENCE)?);
            return Some(
                std::iter::from_fn(|| names.next())
                    .filter_map(text)
                    .collect(),
            );
        }
    }
}

fn text((tag, content): (u8, &[u8])) -> Option<String> {
    match tag {
        E_MAIL | DNS | URI => String::from_utf8(content.to_vec()).ok(),
        IP => {
            let four = <[u8; 4]>::try_from(content).map(|bytes| Ipv4Addr::from(bytes).to_string());
            let sixteen = <[u8; 16]>::try_from(content)
                .map(|bytes| Ipv6Addr::from(bytes).to_canonical().to_string());
            four.or(sixteen).ok()
        }
        _ => None,
    }
}

/// Elements of DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let bytes;
            (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > size_of::<u32>() {
                return None;
            }
            length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next element's content, where it has this tag.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, content)| content)
    }

    /// The content of the first of the next elements to have this tag.
    fn find(&mut self, wanted: u8) -> Option<&'a [u8]> {
        loop {
            let (tag, content) = self.next()?;
            if tag == wanted {
                return Some(content);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut element = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length) if length < 0x80 => element.push(length),
            _ => {
                element.push(0x82);
                element.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        element.extend(content);
        element
    }

    fn certificate(names: &[&[u8]]) -> Vec<u8> {
        let usage = element(
            SEQUENCE,
            &[&element(OBJECT_IDENTIFIER, &[&[0x55, 0x1d, 0x0f]])],
        );
        let names = element(OCTET_STRING, &[&element(SEQUENCE, names)]);
        let critical = element(0x01, &[&[0xff]]);
        let id = element(OBJECT_IDENTIFIER, &[&SUBJECT_ALT_NAME]);
        let alt = element(SEQUENCE, &[&id, &critical, &names]);
        let extensions = element(EXTENSIONS, &[&element(SEQUENCE, &[&usage, &alt])]);
        let body = element(SEQUENCE, &[&element(0x02, &[&[1; 200]]), &extensions]);
        element(SEQUENCE, &[&body])
    }

    #[test]
    fn every_kind_of_name_is_read() {
        let mut v6 = [0; 16];
        v6[15] = 1;
        let certificate = certificate(&[
            &element(DNS, &[b"scraper.example"]),
            &element(E_MAIL, &[b"sre@example.org"]),
            &element(0xa4, &[b"a directory name"]),
            &element(URI, &[b"spiffe://example/prometheus"]),
            &element(IP, &[&[192, 0, 2, 1]]),
            &element(IP, &[&v6]),
        ]);
        let expected = [
            "scraper.example",
            "sre@example.org",
            "spiffe://example/prometheus",
            "192.0.2.1",
            "::1",
        ];
        assert_eq!(of(&certificate), expected);
    }

    #[test]
    fn a_certificate_cut_short_has_no_names() {
        let certificate = certificate(&[&element(DNS, &[b"scraper.example"])]);
        assert_eq!(of(&certificate).len(), 1);
        for length in 0..certificate.len() {
            assert!(of(&certificate[..length]).is_empty(), "{length}");
        }
    }
}
