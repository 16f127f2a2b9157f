//! Questions to the agent over HTTP, and the metrics in its answers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// How long an answer may take that should come at once.
const DEADLINE: Duration = Duration::from_mins(1);

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// What follows them.
    pub body: String,
}

/// Sends one request without a body, of HTTP/1.0: the answer comes in one piece, and its end is
/// that of the connection.
///
/// # Errors
///
/// Where there is no answer.
pub fn request(address: SocketAddr, method: &str, path: &str) -> Result<Response> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    exchange(stream, &address.to_string(), method, path)
}

/// The same over a connection that there is.
///
/// # Errors
///
/// Where there is no answer.
pub fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
) -> Result<Response> {
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let status = head
        .split(' ')
        .nth(1)
        .context("the answer has no status")?
        .parse()?;
    Ok(Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// The samples of one scrape, by name and labels as written.
#[derive(Clone, Debug)]
pub struct Scrape(pub BTreeMap<String, f64>);

impl Scrape {
    /// Reads the text of /metrics.
    ///
    /// # Errors
    ///
    /// Where a line is neither a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').context("a line without a value")?;
            Ok((series.to_owned(), value.parse::<f64>()?))
        });
        Ok(Self(samples.collect::<Result<_>>()?))
    }

    /// A sample's value.
    ///
    /// # Errors
    ///
    /// Where there is none of that name and labels.
    pub fn value(&self, series: &str) -> Result<f64> {
        let value = self.0.get(series).copied();
        value.with_context(|| format!("/metrics has no {series}"))
    }

    /// How many series a name has.
    #[must_use]
    pub fn series(&self, name: &str) -> usize {
        let labelled = format!("{name}{{");
        let mine = |series: &&String| **series == name || series.starts_with(&labelled);
        self.0.keys().filter(mine).count()
    }

    /// All series of a name whose labels contain this text, together.
    #[must_use]
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let labelled = format!("{name}{{");
        let series = self.0.iter();
        let mine =
            series.filter(|(series, _)| series.starts_with(&labelled) && series.contains(label));
        mine.map(|(_, value)| value).sum()
    }
}

/// A sample as the count it shows.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that is far from 2^53"
)]
pub fn whole(value: f64) -> u64 {
    value as u64
}

/// A count as a sample shows it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub fn number(count: u64) -> f64 {
    count as f64
}
