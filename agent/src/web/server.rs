//! The loop that accepts connections.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, warn};

use super::{
    connection,
    places::{Bounds, Phase, Places},
    refusals::{Refusal, Refusals},
    reload::Live,
};

/// How often those are looked for who have been waited for too long.
const SWEEP: Duration = Duration::from_millis(500);

/// How long nothing is accepted after the system had no descriptor or memory for it.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long it is not told again that nothing can be accepted.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// An address. TLS is spoken here, where there is any.
    Tcp(TcpListener),
    /// A path, at which the file's mode says who may connect.
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

/// What is served at a listener, and to whom.
pub struct Site {
    /// The routes.
    pub router: Router,
    /// TLS, users and headers; without, everyone who can connect is served in plain HTTP.
    pub config: Option<Arc<Live>>,
    /// How much the listener bears.
    pub bounds: Bounds,
    /// Where those who are turned away are counted.
    pub refusals: Arc<Refusals>,
}

/// Serves the site until `stop` is true, and then until the requests under way are answered.
/// Whoever cannot wait for these drops the future, which closes all connections.
/// What goes wrong is the matter of one connection, or is logged and tried again.
pub async fn serve(listener: Listener, site: Site, stop: watch::Receiver<bool>) {
    let mut own_stop = stop.clone();
    let site = Arc::new(site);
    let table: Table = Arc::new(Mutex::new(Places::new(
        site.bounds,
        Arc::clone(&site.refusals),
    )));
    let mut connections = JoinSet::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stopped(&mut own_stop) => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            _ = sweep.tick(), if !lock(&table).is_empty() => lock(&table).sweep(Instant::now()),
            accepted = listener.accept() => match accepted {
                Ok(stream) => admit(stream, &site, &table, &stop, &mut connections),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    site.refusals.count(Refusal::System);
                    if told.is_none_or(|told| told.elapsed() > TELL_AGAIN) {
                        told = Some(Instant::now());
                        warn!(
                            %error,
                            "no connection can be accepted; those waited for are closed, and it is \
                             tried again"
                        );
                    }
                    lock(&table).displace();
                    sleep(BACK_OFF).await;
                }
            },
        }
    }
    drop(listener);
    lock(&table).close_waiting();
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

/// Waits until the agent is told to stop, or nobody is left to tell it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _nobody_left = stop.wait_for(|stop| *stop).await;
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "serving a connection ended in a panic");
    }
}

/// Whether accept(2) told of a connection that ended before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// Gives a connection a place and serves it; without a place it is closed.
fn admit(
    stream: Stream,
    site: &Arc<Site>,
    table: &Table,
    stop: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let tls = match &stream {
        Stream::Tcp(_) => site
            .config
            .as_ref()
            .and_then(|live| live.config().tls.clone()),
        Stream::Unix(_) => None,
    };
    let first = if tls.is_some() {
        Phase::Handshake
    } else {
        Phase::Head
    };
    let (closer, turned_away) = oneshot::channel();
    let Some(id) = lock(table).enter(first, Instant::now(), closer) else {
        return;
    };
    let seat = Arc::new(Seat {
        id,
        table: Arc::clone(table),
    });
    let (site, stop) = (Arc::clone(site), stop.clone());
    connections.spawn(async move {
        let served = async {
            match stream {
                Stream::Tcp(stream) => connection::tcp(stream, tls, site, seat, stop).await,
                Stream::Unix(stream) => connection::http(stream, site, seat, stop).await,
            }
        };
        tokio::select! {
            biased;
            // The place was given to another, or the wait was over.
            _ = turned_away => {}
            () = served => {}
        }
    });
}

type Table = Arc<Mutex<Places<oneshot::Sender<()>>>>;

fn lock(table: &Table) -> MutexGuard<'_, Places<oneshot::Sender<()>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's place, which it gives back at its end.
pub(super) struct Seat {
    id: u64,
    table: Table,
}

impl Seat {
    pub(super) fn head(&self) {
        lock(&self.table).set(self.id, Phase::Head, Instant::now());
    }

    pub(super) fn answering(&self) {
        lock(&self.table).set(self.id, Phase::Answering, Instant::now());
    }

    pub(super) fn idle(&self) {
        lock(&self.table).set(self.id, Phase::Idle, Instant::now());
    }

    pub(super) fn received(&self) {
        lock(&self.table).received(self.id, Instant::now());
    }

    /// False where there are enough event streams.
    pub(super) fn stream(&self) -> bool {
        lock(&self.table).stream(self.id, Instant::now())
    }

    pub(super) fn stalled(&self) {
        lock(&self.table).stalled(self.id, Instant::now());
    }

    pub(super) fn flows(&self) {
        lock(&self.table).flows(self.id);
    }

    /// Counts the connection as turned away; it ends next.
    pub(super) fn refuse(&self, refusal: Refusal) {
        lock(&self.table).refuse(self.id, refusal);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.table).leave(self.id);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
