//! A Prometheus server of the test's own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http::request;

/// How long it may take to start and to scrape for the first time.
const DEADLINE: Duration = Duration::from_mins(1);

/// One series of an instant vector.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its labels, its name among them as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

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

    /// What these expressions are now, all asked for over one connection, so that the questions
    /// hardly show among the connections watched.
    ///
    /// # Errors
    ///
    /// Where one is no expression, or there is no answer.
    pub fn ask(&self, expressions: &[String]) -> Result<Vec<Vec<Sample>>> {
        let mut urls = String::new();
        for expression in expressions {
            let (address, query) = (self.address, encoded(expression));
            writeln!(
                urls,
                "url = \"http://{address}/api/v1/query?query={query}\""
            )?;
        }
        let mut curl = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--config",
                "-",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("curl cannot be run")?;
        let mut stdin = curl.stdin.take().context("curl has no standard input")?;
        // It reads all of its configuration before it asks for anything.
        stdin.write_all(urls.as_bytes())?;
        drop(stdin);
        let ended = curl.wait_with_output()?;
        ensure!(ended.status.success(), "curl failed: {}", ended.status);
        let answers = serde_json::Deserializer::from_slice(&ended.stdout).into_iter::<Value>();
        let mut all = Vec::new();
        for (answer, expression) in answers.zip(expressions) {
            all.push(samples(&answer?).with_context(|| expression.clone())?);
        }
        ensure!(all.len() == expressions.len(), "not all were answered");
        Ok(all)
    }

    /// What it says at another path of its API.
    ///
    /// # Errors
    ///
    /// Where that is no success.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&request(self.address, "GET", path)?.body)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The values that a label has among the series of a selector, in their order: what Grafana asks
    /// for where a board says `label_values(selector, label)`.
    ///
    /// # Errors
    ///
    /// Where that is no selector, or there is no answer.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let selector = encoded(selector);
        let path = format!("/api/v1/label/{label}/values?match%5B%5D={selector}");
        Ok(serde_json::from_value(self.get(&path)?)?)
    }

    /// The alerts that its rules tell of, those that are pending among them; none that has ended.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let mut data = self.get("/api/v1/alerts")?;
        Ok(serde_json::from_value(data["alerts"].take())?)
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

/// The samples of an instant vector.
fn samples(answer: &Value) -> Result<Vec<Sample>> {
    let result = answer["data"]["result"].as_array();
    let result = result.with_context(|| answer.to_string())?;
    let samples = result.iter().map(|series| {
        let value = series["value"][1].as_str().context("no value")?;
        Ok(Sample {
            labels: serde_json::from_value(series["metric"].clone())?,
            value: value.parse()?,
        })
    });
    samples.collect()
}

/// As a URL's query takes it.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    bytes.collect()
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
