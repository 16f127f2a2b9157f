//! One connection, from its handshake to its end.

use std::{pin::pin, sync::Arc};

use axum::http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{
    answer::answer,
    progress::Progress,
    refusals::Refusal,
    server::{Seat, Site, stopped},
    tls::Tls,
};

/// Bytes of a request's head at most, and of what is written at once.
const HEAD: usize = 16 * 1024;

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// What Go's server says to one that speaks HTTP where TLS is spoken.
const WANTS_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Serves a TCP connection, over TLS where there is any.
pub(super) async fn tcp(
    stream: TcpStream,
    tls: Option<Tls>,
    site: Arc<Site>,
    seat: Arc<Seat>,
    stop: watch::Receiver<bool>,
) {
    // Answers are written in one piece; without it, their last part could wait for a reply.
    let _as_it_is = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return http(stream, site, seat, stop).await;
    };
    let mut first = [0];
    if matches!(stream.peek(&mut first).await, Ok(1)) && first[0] != HANDSHAKE_RECORD {
        // What is left unread would cut the answer short when the connection closes.
        let _read = stream.try_read(&mut [0; 4096]);
        let _gone = stream.try_write(WANTS_TLS);
        seat.refuse(Refusal::Handshake);
        return;
    }
    match TlsAcceptor::from(tls.server).accept(stream).await {
        Ok(stream) => {
            seat.head();
            http(stream, site, seat, stop).await;
        }
        Err(error) => {
            debug!(%error, "a TLS handshake failed");
            seat.refuse(Refusal::Handshake);
        }
    }
}

/// Serves HTTP/1 until the client, the bounds or the agent ends it.
pub(super) async fn http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    site: Arc<Site>,
    seat: Arc<Seat>,
    mut stop: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(Progress::new(stream, Arc::clone(&seat)));
    let service = service_fn(|request: Request<Incoming>| {
        let (site, seat) = (Arc::clone(&site), Arc::clone(&seat));
        async move { answer(&site, seat, request).await }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD)
        // The place has its own time for a head, which does not end a connection that rests.
        .header_read_timeout(None)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended early");
    }
}
