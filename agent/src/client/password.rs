//! Who asks: basic authentication (RFC 7617).

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;

use super::{ClientError, file};

/// Bytes of a password's file at most.
const MOST: u32 = 4 * 1024;

/// A user and a password, as they are sent. Nothing prints them: the value is marked as sensitive.
#[derive(Clone, Debug)]
pub(super) struct Credentials(HeaderValue);

impl Credentials {
    /// Of this user, with the password that is the file's first line.
    pub(super) fn read(name: &str, path: &Path) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::Password {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let bad_name = |reason| ClientError::Username {
            name: name.to_owned(),
            reason,
        };
        if name.is_empty() || name.contains(char::is_control) {
            return Err(bad_name("it is empty, or has a control character"));
        }
        if name.contains(':') {
            return Err(bad_name(
                "a colon ends the name, and what follows would be part of the password",
            ));
        }
        let content = file::read(path, MOST)
            .map_err(|error| bad(&format!("the password cannot be read: {error}")))?;
        let password = first_line(&content);
        if password.is_empty() {
            return Err(bad("its first line is empty, and should be the password"));
        }
        let both = [name.as_bytes(), b":", password].concat();
        let text = format!("Basic {}", STANDARD.encode(both));
        // Base64 fits into every header.
        let mut value =
            HeaderValue::try_from(text).map_err(|_| bad("the password cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn first_line(content: &[u8]) -> &[u8] {
    let line = content.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: &str, content: &[u8]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, content).unwrap();
        let credentials = Credentials::read(name, &path).map_err(|error| error.to_string())?;
        assert_eq!(format!("{credentials:?}"), "Credentials(Sensitive)");
        let header = credentials.header();
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        Ok(STANDARD.decode(encoded).unwrap())
    }

    #[test]
    fn the_first_line_without_its_end_is_the_password() {
        for content in ["a b:c", "a b:c\n", "a b:c\r\n", "a b:c\nmore\n"] {
            assert_eq!(sent("me", content.as_bytes()).unwrap(), b"me:a b:c");
        }
        assert_eq!(sent("é", b" \xff ").unwrap(), b"\xc3\xa9: \xff ");
    }

    #[test]
    fn what_is_no_password_is_refused_and_not_repeated() {
        for (name, content, says) in [
            ("me", &b""[..], "first line is empty"),
            ("me", b"\nsecret", "first line is empty"),
            ("me", &[b's'; MOST as usize + 1], "longer than 4096 bytes"),
            ("m:e", b"secret", "a colon ends the name"),
            ("", b"secret", "it is empty"),
            ("m\ne", b"secret", "control character"),
        ] {
            let error = sent(name, content).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = Credentials::read("me", Path::new("/nowhere")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("--password-file /nowhere: the password cannot be read"));
    }
}
