//! Certificates for tests, made by `openssl`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// How every key is made: elliptic ones take no time.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// An authority that lasts for a day, and a folder for all it signs.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    ///
    /// Where openssl fails.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let arguments = ["-x509", "-days", "1", "-subj", "/CN=authority"];
        openssl(folder.path(), "req", |command| {
            command.args(arguments).args(NEW_KEY);
            command.args(["-keyout", "authority.key", "-out", "authority.pem"]);
        })?;
        Ok(Self { folder })
    }

    /// Where its files are, and others may be put.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder().join("authority.pem")
    }

    /// Signs a new certificate for a name, as openssl writes them: `IP:127.0.0.1`, `DNS:host`.
    ///
    /// # Errors
    ///
    /// Where openssl fails.
    pub fn issue(&self, file: &str, name: &str) -> Result<Pair> {
        let [key, request, certificate] = ["key", "csr", "pem"].map(|end| format!("{file}.{end}"));
        openssl(self.folder(), "req", |command| {
            command
                .args(NEW_KEY)
                .args(["-subj", "/CN=holder", "-addext"]);
            command.arg(format!("subjectAltName={name}"));
            command.args(["-keyout", &key, "-out", &request]);
        })?;
        openssl(self.folder(), "x509", |command| {
            command.args(["-req", "-days", "1", "-copy_extensions", "copy"]);
            command.args([
                "-CA",
                "authority.pem",
                "-CAkey",
                "authority.key",
                "-CAcreateserial",
            ]);
            command.args(["-in", &request, "-out", &certificate]);
        })?;
        Ok(Pair {
            certificate: self.folder().join(certificate),
            key: self.folder().join(key),
        })
    }
}

fn openssl(folder: &Path, verb: &str, arguments: impl FnOnce(&mut Command)) -> Result<()> {
    let mut command = Command::new("openssl");
    arguments(command.current_dir(folder).arg(verb));
    let ran = command.output().context("openssl cannot be run")?;
    let told = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{command:?} failed: {told}");
    Ok(())
}
