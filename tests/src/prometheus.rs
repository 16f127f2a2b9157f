//! A Prometheus server of the test's own.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::http::request;

/// How long it may take to start and to scrape for the first time.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it with this configuration, on a free port, with its files in this folder.
    ///
    /// # Errors
    ///
    /// Where there is none (Debian's package `prometheus` has it).
    pub fn start(folder: &Path, configuration: &str) -> Result<Self> {
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, configuration)?;
        // It does not say which port it was given, so it is told one that was free just now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("prometheus cannot be run")?;
        Ok(Self { child, address })
    }

    /// The value of an expression, once there is one that is wanted.
    ///
    /// # Errors
    ///
    /// Where it ends, or there is none in time.
    pub fn wait(&mut self, expression: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                bail!("prometheus ended with {status}");
            }
            let path = format!("/api/v1/query?query={expression}");
            if let Ok(response) = request(self.address, "GET", &path) {
                last = response.body;
                if let Some(value) = value(&last).filter(|value| wanted(*value)) {
                    return Ok(value);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{expression} is not as wanted in time: {last}")
    }
}

/// The first sample of an instant vector.
fn value(body: &str) -> Option<f64> {
    let body: Value = serde_json::from_str(body).ok()?;
    body["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
