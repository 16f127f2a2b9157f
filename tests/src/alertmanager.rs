//! An Alertmanager of the test's own.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{http::request, wait::until};

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Alertmanager {
    child: Child,
    address: SocketAddr,
}

impl Alertmanager {
    /// Starts it with this configuration at this address, with its files in this folder.
    ///
    /// # Errors
    ///
    /// Where there is none (Debian's package `prometheus-alertmanager` has it), or it is not ready
    /// in time.
    pub fn start(folder: &Path, configuration: &str, address: SocketAddr) -> Result<Self> {
        let file = folder.join("alertmanager.yml");
        std::fs::write(&file, configuration)?;
        let storage = folder.join("alertmanager");
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", storage.display()))
            .arg(format!("--web.listen-address={address}"))
            // It has no peers.
            .arg("--cluster.listen-address=")
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("prometheus-alertmanager cannot be run")?;
        let mut server = Self { child, address };
        until("Alertmanager to be ready", || {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none(), "Alertmanager ended: {ended:?}");
            let ready = request(server.address, "GET", "/-/ready");
            Ok(ready.is_ok_and(|response| response.status == 200))
        })?;
        Ok(server)
    }

    /// The alerts it has that fire, those that another one inhibits left out.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let path = "/api/v2/alerts?active=true&inhibited=false&silenced=false";
        let response = request(self.address, "GET", path)?;
        ensure!(response.status == 200, "{}", response.body);
        // It answers in chunks where it is asked for HTTP/1.1 alone.
        Ok(serde_json::from_str(&response.body)?)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
