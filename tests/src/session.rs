//! One connection to the agent for any number of questions, so that asking opens no sockets.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    http::Scrape,
    wait::{self, DEADLINE},
};

/// An open connection.
#[derive(Debug)]
pub struct Session(BufReader<TcpStream>);

impl Session {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// Where nobody listens.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Waits until the agent is ready, and reads /metrics.
    ///
    /// # Errors
    ///
    /// Where it is not ready in time, or has no numbers.
    pub fn first_scrape(&mut self) -> Result<Scrape> {
        wait::until(
            "the agent to be ready",
            || Ok(self.get("/readyz")?.0 == 200),
        )?;
        self.scrape()
    }

    /// Reads /metrics.
    ///
    /// # Errors
    ///
    /// Where there is no answer, or it is not numbers.
    pub fn scrape(&mut self) -> Result<Scrape> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "{status}: {body}");
        Scrape::parse(&body)
    }

    /// The status and the body of what is at `path`.
    fn get(&mut self, path: &str) -> Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(self.0.read_line(&mut head)? > 0, "cut off after {head:?}");
        }
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        let length = length.context("the answer does not tell its length")?;
        let mut body = vec![0; length.parse()?];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }
}
