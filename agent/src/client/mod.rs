//! Asks a running agent: on its Unix socket, or by URL.
//!
//! [`url`] reads the URL, [`resolver`] keeps to what can find its host, [`tls`] encrypts what goes
//! there and has the agent prove that it is the one, [`password`] says who asks. [`pieces`] is an
//! answer that goes on, [`error`] what can be wrong.

mod error;
mod url;
mod resolver;
mod tls;
mod password;
mod file;
mod pieces;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

pub use self::{error::ClientError, pieces::Pieces};
use self::{password::Credentials, tls::Tls, url::AgentUrl};
use crate::{api::Refusal, workload::plain};

/// How long a connection, and the head of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer at most: a snapshot with all that it may tell takes a tenth of it.
const LONGEST: usize = 64 << 20;

/// Characters of a refusal's reason at most; an agent's own are a sentence.
const LONGEST_REASON: usize = 1_000;

/// A running agent.
#[derive(Clone, Debug)]
pub struct Client(Way);

/// The way to it.
#[derive(Clone, Debug)]
enum Way {
    /// It listens on this socket.
    Socket(PathBuf),
    /// It serves this URL.
    Url {
        url: AgentUrl,
        tls: Option<Tls>,
        credentials: Option<Credentials>,
    },
}

/// With what an agent is asked at a URL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means<'a> {
    /// The authorities one of which has signed its certificate; without, those of this host.
    pub ca_file: Option<&'a Path>,
    /// A user, and the file that holds the password.
    pub user: Option<(&'a str, &'a Path)>,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// The agent that listens on this socket.
    #[must_use]
    pub fn of_socket(path: &Path) -> Self {
        Self(Way::Socket(path.to_owned()))
    }

    /// The agent at this URL.
    ///
    /// # Errors
    ///
    /// Where it is none, or a file that asking takes is of no use.
    pub fn of_url(url: &str, means: Means<'_>) -> Result<Self, ClientError> {
        let url = AgentUrl::parse(url)?;
        let tls = match means.ca_file {
            ca_file if url.is_tls => Some(Tls::new(&url, ca_file)?),
            Some(_) => {
                return Err(url.bad(
                    "nothing there is signed, so that --ca-file has no use: write https://, or \
                     leave it out",
                ));
            }
            None => None,
        };
        let credentials = match means.user {
            Some((name, file)) => Some(Credentials::read(name, file)?),
            None => None,
        };
        resolver::keep_to_own();
        Ok(Self(Way::Url {
            url,
            tls,
            credentials,
        }))
    }

    /// Where the agent is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.0 {
            Way::Socket(path) => path.display().to_string(),
            Way::Url { url, .. } => url.to_string(),
        }
    }

    /// Whether a password leaves this host as it is, for all on the way to read.
    #[must_use]
    pub fn tells_password(&self) -> bool {
        match &self.0 {
            Way::Socket(_) => false,
            Way::Url {
                url,
                tls,
                credentials,
            } => credentials.is_some() && tls.is_none() && !url.is_loopback(),
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

    /// The answer to this path and query, as it comes: one that goes on.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or refuses.
    pub async fn stream(&self, path: &str) -> Result<Pieces, ClientError> {
        let response = self.open(path).await?;
        Ok(Pieces::new(self.place(), response.into_body()))
    }

    async fn open(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = match timeout(PATIENCE, self.connect()).await {
            Ok(stream) => TokioIo::new(stream?),
            Err(elapsed) => return Err(self.unreachable(elapsed.into())),
        };
        let answer = async {
            let (mut sender, connection) = http1::handshake(stream).await?;
            // Ends with the connection, as the sender and the body are dropped.
            tokio::spawn(connection);
            Ok::<_, Cause>(sender.send_request(self.request(path)?).await?)
        };
        let response = match timeout(PATIENCE, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.http(error)),
            Err(elapsed) => return Err(self.http(elapsed)),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect();
        let body = timeout(PATIENCE, body).await;
        let text = body.ok().and_then(Result::ok).map(Collected::to_bytes);
        Err(self.refused(status, &text.unwrap_or_default()))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        match &self.0 {
            Way::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(self.unreachable(error)),
            },
            Way::Url { url, tls, .. } => {
                let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
                let stream = stream.map_err(|error| self.unreachable(error))?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => Ok(Box::new(tls.connect(url, stream).await?)),
                }
            }
        }
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, Cause> {
        let request = match &self.0 {
            Way::Socket(_) => Request::get(path).header(HOST, "localhost"),
            Way::Url {
                url, credentials, ..
            } => {
                let request = Request::get(format!("{}{path}", url.prefix));
                let request = request.header(HOST, url.authority());
                match credentials {
                    None => request,
                    Some(credentials) => request.header(AUTHORIZATION, credentials.header()),
                }
            }
        };
        Ok(request.body(Empty::new())?)
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Connect {
            place: self.place(),
            source,
        }
    }

    fn http(&self, error: impl Into<Cause>) -> ClientError {
        ClientError::Http {
            place: self.place(),
            source: error.into(),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let place = self.place();
        let credentials = match &self.0 {
            Way::Url { credentials, .. } => credentials.as_ref(),
            Way::Socket(_) => None,
        };
        match (status, credentials) {
            (StatusCode::UNAUTHORIZED, None) => ClientError::Anonymous { place },
            (StatusCode::UNAUTHORIZED, Some(_)) => ClientError::Unknown { place },
            _ => ClientError::Refused {
                place,
                status,
                reason: reason(status, body),
            },
        }
    }
}

/// What a refusal says, as far as it is one of an agent's.
fn reason(status: StatusCode, body: &[u8]) -> String {
    if body.starts_with(b"Client sent an HTTP request to an HTTPS server") {
        return "it speaks TLS there: write https://".to_owned();
    }
    match serde_json::from_slice::<Refusal>(body) {
        // Whoever answers may be no agent at all.
        Ok(refusal) => plain(&refusal.error, LONGEST_REASON),
        Err(_) if status == StatusCode::NOT_FOUND => {
            "it serves no API there; start it with --web.enable-api".to_owned()
        }
        Err(_) => "it does not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_does_not_steer_the_terminal() {
        let body = r#"{"error":"no\u001b[2J\u202e\u009b"}"#;
        assert_eq!(
            reason(StatusCode::CONFLICT, body.as_bytes()),
            "no\u{fffd}[2J\u{fffd}\u{fffd}"
        );
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(5_000));
        let reason = reason(StatusCode::CONFLICT, long.as_bytes());
        assert_eq!(reason.len(), LONGEST_REASON);
    }

    #[test]
    fn a_password_is_told_only_past_this_host_and_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let tells = |url, user| {
            let means = Means {
                user,
                ..Means::default()
            };
            Client::of_url(url, means).unwrap().tells_password()
        };
        let user = Some(("me", file.as_path()));
        assert!(tells("http://10.0.0.1:1", user));
        assert!(!tells("http://10.0.0.1:1", None));
        assert!(!tells("http://[::1]:1", user));
        let client = Client::of_url(
            "http://[::1]:1",
            Means {
                ca_file: None,
                user,
            },
        )
        .unwrap();
        assert!(!format!("{client:?}").contains("c2VjcmV0"), "{client:?}");
        let request = client.request("/x").unwrap();
        assert_eq!(request.headers()[HOST], "[::1]:1");
        assert_eq!(request.headers()[AUTHORIZATION], "Basic bWU6c2VjcmV0");
        assert!(!format!("{request:?}").contains("bWU6"), "{request:?}");
    }
}
