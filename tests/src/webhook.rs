//! A receiver of Alertmanager's messages.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A message, and the path it was sent to.
pub type Message = (String, Value);

/// The largest message taken.
const LARGEST: usize = 1 << 20;

/// A server that takes whatever is posted to it. Its thread ends with the process.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    messages: Receiver<Message>,
}

impl Webhook {
    /// Starts it in this thread's network namespace, on a free port.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (tell, messages) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let tell = tell.clone();
                // Alertmanager holds a connection for each receiver.
                thread::spawn(move || {
                    if let Err(error) = take(stream, &tell) {
                        eprintln!("the webhook: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, messages })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// Where there is none in time.
    pub fn next(&self, patience: Duration) -> Result<Message> {
        let message = self.messages.recv_timeout(patience);
        message.context("Alertmanager sends nothing")
    }
}

/// Takes every request of a connection.
fn take(stream: TcpStream, tell: &Sender<Message>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).context("no request")?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>()?.min(LARGEST);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let message = serde_json::from_slice(&body)?;
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        if tell.send((path, message)).is_err() {
            return Ok(());
        }
    }
}
