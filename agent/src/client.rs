//! Asks a running agent: on its Unix socket, or by URL.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{
    Request, Response, StatusCode, Uri, body::Incoming, client::conn::http1, header::HOST,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::api::Refusal;

/// How long a connection, and the head of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer at most: a snapshot with all that it may tell takes a tenth of it.
const LONGEST: usize = 64 << 20;

/// A running agent.
#[derive(Clone, Debug)]
pub enum Client {
    /// It listens on this socket.
    Socket(PathBuf),
    /// It serves this URL.
    Url(Uri),
}

/// It does not answer, or not as it should.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no agent answers at {place}")]
    Connect {
        /// Where it should be.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It breaks off, or takes too long.
    #[error("the agent at {place} does not answer as HTTP asks")]
    Http {
        /// Where it is.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refuses.
    #[error("the agent at {place} answers {status}: {reason}")]
    Refused {
        /// Where it is.
        place: String,
        /// With which status.
        status: StatusCode,
        /// In its words.
        reason: String,
    },
    /// The URL is of no use.
    #[error("{url:?} is no URL of an agent: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong, and what to write.
        reason: &'static str,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// The agent that listens on this socket.
    #[must_use]
    pub fn of_socket(path: &Path) -> Self {
        Self::Socket(path.to_owned())
    }

    /// The agent at this URL.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn of_url(url: &str) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::Url {
            url: url.to_owned(),
            reason,
        };
        let uri: Uri = url.parse().map_err(|_| bad("write http://HOST:PORT"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad(
                "it begins with http://; an agent behind TLS or a password is asked on its own \
                 host, by its socket",
            ));
        }
        if uri.host().is_none() {
            return Err(bad("it names no host"));
        }
        Ok(Self::Url(uri))
    }

    /// Where the agent is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Url(uri) => uri.to_string(),
        }
    }

    /// What the agent answers to this path and query, whole.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or refuses.
    pub async fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        let response = self.open(path).await?;
        let body = Limited::new(response.into_body(), LONGEST).collect();
        match timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.http(error)),
            Err(elapsed) => Err(self.http(elapsed)),
        }
    }

    /// The answer to this path and query, its body still to come.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or refuses.
    pub async fn open(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let connect = |source| ClientError::Connect {
            place: self.place(),
            source,
        };
        let stream = timeout(PATIENCE, self.connect()).await;
        let stream = stream.map_err(|elapsed| connect(elapsed.into()))?;
        let stream = TokioIo::new(stream.map_err(connect)?);
        let answer = async {
            let (mut sender, connection) = http1::handshake(stream).await?;
            // Ends with the connection, as the sender and the body are dropped.
            tokio::spawn(connection);
            sender
                .send_request(self.request(path)?)
                .await
                .map_err(Into::into)
        };
        let response: Response<Incoming> = match timeout(PATIENCE, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(self.http::<Box<dyn std::error::Error + Send + Sync>>(error));
            }
            Err(elapsed) => return Err(self.http(elapsed)),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect();
        let body = timeout(PATIENCE, body).await;
        let text = body.ok().and_then(Result::ok).map(Collected::to_bytes);
        Err(ClientError::Refused {
            place: self.place(),
            status,
            reason: reason(status, &text.unwrap_or_default()),
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Url(uri) => {
                let host = uri.host().unwrap_or_default();
                // An IPv6 address stands in brackets there.
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port = uri.port_u16().unwrap_or(80);
                Ok(Box::new(TcpStream::connect((host, port)).await?))
            }
        }
    }

    fn request(
        &self,
        path: &str,
    ) -> Result<Request<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let (host, prefix) = match self {
            Self::Socket(_) => ("localhost", ""),
            Self::Url(uri) => (
                uri.authority().map_or("", |authority| authority.as_str()),
                uri.path().trim_end_matches('/'),
            ),
        };
        let request = Request::get(format!("{prefix}{path}")).header(HOST, host);
        Ok(request.body(Empty::new())?)
    }

    fn http<E: Into<Box<dyn std::error::Error + Send + Sync>>>(&self, error: E) -> ClientError {
        ClientError::Http {
            place: self.place(),
            source: error.into(),
        }
    }
}

/// What a refusal says, as far as it is one of an agent's.
fn reason(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.error,
        Err(_) if status == StatusCode::NOT_FOUND => {
            "it serves no API there; start it with --web.enable-api".to_owned()
        }
        Err(_) => "it does not say why".to_owned(),
    }
}
