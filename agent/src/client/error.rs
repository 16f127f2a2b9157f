//! What can be wrong with asking an agent.

use std::{error::Error, io, path::PathBuf};

use hyper::StatusCode;

/// It cannot be asked, does not answer, or not as it should. What the other side chose of the words
/// is cleaned: it may be anybody.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is of no use.
    #[error("{url:?} is no URL of an agent: {reason}")]
    Url {
        /// As it was given, but for a password.
        url: String,
        /// What is wrong, and what to write.
        reason: &'static str,
    },
    /// There is nobody to trust.
    #[error("{place} cannot be trusted: {reason}")]
    Authorities {
        /// Where the agent is.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The name of the user is of no use.
    #[error("--username {name:?} cannot be sent: {reason}")]
    Username {
        /// As it was given.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no password.
    #[error("--password-file {}: {reason}", path.display())]
    Password {
        /// The file that should hold it.
        path: PathBuf,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// Nobody is there.
    #[error("no agent answers at {place}")]
    Connect {
        /// Where it should be.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It speaks no TLS, or not the same.
    #[error("no TLS with the agent at {place}: {reason}")]
    Handshake {
        /// Where it should be.
        place: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It does not prove that it is the one.
    #[error("the certificate of the agent at {place} is not accepted: {reason}")]
    Certificate {
        /// Where it should be.
        place: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It breaks off, or takes too long.
    #[error("the agent at {place} does not answer as HTTP asks")]
    Http {
        /// Where it is.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It asks who that is.
    #[error(
        "the agent at {place} asks for a password: name the user with --username, and a file that \
         holds the password with --password-file"
    )]
    Anonymous {
        /// Where it is.
        place: String,
    },
    /// It does not know them.
    #[error(
        "the agent at {place} does not know this user with this password: correct --username, or \
         what --password-file holds"
    )]
    Unknown {
        /// Where it is.
        place: String,
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
    /// What it told broke off.
    #[error("the agent at {place} broke off")]
    BrokeOff {
        /// Where it is.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing more comes.
    #[error(
        "nothing has come from the agent at {place} for {seconds} s, and it sends something every \
         10 s: its host is gone, or the way there is cut"
    )]
    Silent {
        /// Where it was.
        place: String,
        /// For how long.
        seconds: u64,
    },
}
