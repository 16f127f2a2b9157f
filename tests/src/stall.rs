//! Connections that do not finish closing: made so, found by the detectors, and watched until the
//! kernel ends them.

use std::{
    fs,
    io::Read as _,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use agent::{
    census::Census,
    detectors::{Findings, Stall, StalledSocket, Thresholds, detect},
};
use agent_ebpf::state::TcpState::{self, CloseWait};
use anyhow::{Context as _, Result, bail, ensure};
use socket2::SockRef;

use crate::{
    censuses::Censuses,
    link::{Link, lose},
    netns::{Inhabitant, Netns},
    place::own_descriptors,
    wait::{all_in, fill},
    watch::Watch,
};

/// As early as a census tells of single sockets.
pub const THRESHOLDS: Thresholds = Thresholds {
    fin_wait1_stall_after: Duration::from_secs(1),
    fin_wait2_stall_after: Duration::from_secs(1),
    close_wait_leak_after: Duration::from_secs(1),
};

/// How long anything here may take that the kernel or the agent does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A predicted end may be off by this part of the time that it really took: a fifth.
const TOLERANCE: f64 = 0.2;

/// Of the receive buffer of a peer that reads slowly or not at all, and of the send buffer that
/// keeps it busy.
const RECEIVE_BUFFER: usize = 16 << 10;
const SEND_BUFFER: usize = 400 << 10;

/// Which end of the connection closes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The watched one: it passes through FIN_WAIT1.
    Own,
    /// Its peer: it passes through LAST_ACK.
    Peer,
}

/// What becomes of the watched end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// `close()`: an orphan.
    Closed,
    /// `shutdown()`: the process holds it.
    Held,
}

/// A client whose connections stall, in a namespace of its own, with the censuses taken there.
pub struct Scene<'a> {
    /// The namespaces of the client and of its peer.
    pub link: &'a Link,
    /// Dropped before what it reads from.
    censuses: Censuses,
    _watch: Watch,
    _inhabitant: Inhabitant,
    before: Option<Census>,
    listener: TcpListener,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The watched end.
    pub client: TcpStream,
    /// Its peer.
    pub server: TcpStream,
    /// The address of the watched end.
    pub local: SocketAddr,
}

/// What is left once the watched end was closed or shut down.
#[derive(Debug)]
pub struct Closed {
    /// The watched end, where it is held.
    pub client: Option<TcpStream>,
    /// Its peer.
    pub server: TcpStream,
    /// The address of the watched end.
    pub local: SocketAddr,
    /// When.
    pub at: Instant,
    /// What became of it.
    pub fate: Fate,
}

/// A stalled socket, and the stall it is part of.
#[derive(Clone, Debug)]
pub struct Found {
    /// The stall.
    pub stall: Stall,
    /// The socket.
    pub socket: StalledSocket,
}

/// Sets the scene and plays on it, in a thread with descriptors of its own: `close()` ends a
/// socket at once, whatever other tests start meanwhile.
///
/// # Errors
///
/// Those of `play`, or where the scene cannot be set.
pub fn on_scene(
    sysctls: &[(&str, &str)],
    play: impl FnOnce(&mut Scene<'_>) -> Result<()> + Send,
) -> Result<()> {
    let link = Link::new()?;
    for (name, value) in sysctls {
        link.client.sysctl(name, value)?;
    }
    link.client.run(|| {
        own_descriptors()?;
        let inhabitant = link.client.inhabit()?;
        let mut watch = Watch::new(&link.client)?;
        let censuses = Censuses::start(&mut watch, link.client.inode(), THRESHOLDS)?;
        let mut scene = Scene {
            link: &link,
            censuses,
            _watch: watch,
            _inhabitant: inhabitant,
            before: None,
            listener: link.listen()?,
        };
        play(&mut scene)
    })
}

impl Scene<'_> {
    /// The service's port.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// A connection whose peer, if it closes `first`, has.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn connect(&self, first: First) -> Result<Connection> {
        let (client, server) = self.link.connect(&self.listener)?;
        if first == First::Peer {
            server.shutdown(Shutdown::Write)?;
            all_in(std::slice::from_ref(&client), CloseWait)?;
        }
        let local = client.local_addr()?;
        Ok(Connection {
            client,
            server,
            local,
        })
    }

    /// The same, of a peer that has received as much as it can take, and a client with more to
    /// send.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn connect_and_fill(&self, first: First) -> Result<Connection> {
        // What is accepted inherits the listener's buffer.
        let listener = SockRef::from(&self.listener);
        let usual = listener.recv_buffer_size()?;
        listener.set_recv_buffer_size(RECEIVE_BUFFER / 2)?;
        let connection = self.connect(first)?;
        listener.set_recv_buffer_size(usual / 2)?;
        SockRef::from(&connection.client).set_send_buffer_size(SEND_BUFFER / 2)?;
        fill(&connection.client)?;
        Ok(connection)
    }

    /// Loses all that the client sends on this connection from now on: its peer is gone.
    ///
    /// # Errors
    ///
    /// Where `nft` fails.
    pub fn cut(&self, connection: &Connection) -> Result<()> {
        let port = connection.local.port();
        lose(&self.link.server, &format!("tcp sport {port}"))
    }

    /// What the next census shows.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn findings(&mut self) -> Result<Findings> {
        let census = self.censuses.next()?;
        let findings = detect(&census, self.before.as_ref(), &THRESHOLDS);
        self.before = Some(census);
        Ok(findings)
    }

    /// The first finding about the socket with this address that is `wanted`.
    ///
    /// # Errors
    ///
    /// Where there is none in time.
    pub fn find(
        &mut self,
        local: SocketAddr,
        mut wanted: impl FnMut(&Found) -> bool,
    ) -> Result<Found> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            let found = about(&self.findings()?, local);
            match found {
                Some(found) if wanted(&found) => return Ok(found),
                Some(found) => last = Some(found),
                None => {}
            }
        }
        bail!("{local} was not found as it should be; last seen as {last:#?}")
    }
}

impl Connection {
    /// Closes or shuts down the watched end.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn close(self, fate: Fate) -> Result<Closed> {
        let at = Instant::now();
        let client = match fate {
            Fate::Closed => {
                drop(self.client);
                None
            }
            Fate::Held => {
                self.client.shutdown(Shutdown::Write)?;
                Some(self.client)
            }
        };
        Ok(Closed {
            client,
            server: self.server,
            local: self.local,
            at,
            fate,
        })
    }
}

/// What these findings say about the socket with this address.
#[must_use]
pub fn about(findings: &Findings, local: SocketAddr) -> Option<Found> {
    findings.stalls.iter().find_map(|stall| {
        let mut sockets = stall.sockets.iter();
        let socket = sockets.find(|socket| socket.local == local)?.clone();
        let stall = stall.clone();
        Some(Found { stall, socket })
    })
}

/// The name of this process, as its first thread has it.
///
/// # Errors
///
/// Where there is no /proc.
pub fn own_name() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/comm")?.trim_end().to_owned())
}

/// A thread that waits until the kernel has no full socket any more of the given address.
pub struct Vigil(JoinHandle<Result<Instant>>);

impl Vigil {
    /// Begins to watch a socket of `netns` that must be there, without starting a process: that
    /// would hold copies of what another thread of this one closes.
    ///
    /// # Errors
    ///
    /// Where it is not there.
    pub fn over(netns: &Netns, local: SocketAddr) -> Result<Self> {
        /// Short beside what is measured.
        const PAUSE: Duration = Duration::from_millis(20);
        netns.run(|| {
            ensure!(is_there(local)?, "{local} is not there to begin with");
            // A thread begins in the namespace of the one that starts it.
            Ok(Self(std::thread::spawn(move || {
                let started = Instant::now();
                while is_there(local)? {
                    ensure!(started.elapsed() < PATIENCE, "{local} does not end");
                    std::thread::sleep(PAUSE);
                }
                Ok(Instant::now())
            })))
        })
    }

    /// When it was gone.
    ///
    /// # Errors
    ///
    /// Where that was not in time.
    pub fn end(self) -> Result<Instant> {
        let joined = self.0.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Whether the calling thread's namespace has a full socket of this address.
fn is_there(local: SocketAddr) -> Result<bool> {
    /// What stands for a timer in the line of a timewait minisocket (`get_timewait4_sock()`).
    const TIMEWAIT: &str = "03";
    let port = format!(":{:04X}", local.port());
    let table = fs::read_to_string("/proc/thread-self/net/tcp")?;
    let mut full = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let local = words.nth(1)?;
        let timer = words.nth(3)?.split(':').next()?;
        (timer != TIMEWAIT).then_some(local)
    });
    Ok(full.any(|local| local.ends_with(&port)))
}

/// Checks that what was `found` of a socket foretells when it `ended`, and tells both aloud.
///
/// # Errors
///
/// Where it does not.
pub fn foretold(found: &Found, closed: &Closed, ended: Instant) -> Result<()> {
    let after = found.socket.end.after.context("no end is foretold")?;
    let age = found.socket.age;
    ensure!(age.exact, "its age is not exact");
    let predicted = (age.at_least + after).as_secs_f64();
    let real = (ended - closed.at).as_secs_f64();
    eprintln!(
        "{} {:?}: at {:.2} s its end by {} was foretold for {predicted:.2} s; it came at {real:.2} s",
        found.socket.state.name(),
        closed.fate,
        age.at_least.as_secs_f64(),
        found.socket.end.by.name(),
    );
    ensure!(
        (predicted - real).abs() <= TOLERANCE * real,
        "foretold for {predicted:.2} s, not {real:.2} s: {found:#?}"
    );
    Ok(())
}

/// Checks what holds of every socket that this process has closed or shut down.
///
/// # Errors
///
/// Where it does not.
pub fn is_own(found: &Found, state: TcpState, fate: Fate, port: u16) -> Result<()> {
    let Found { stall, socket } = found;
    ensure!(socket.state == state, "its state is wrong: {found:#?}");
    ensure!(
        socket.orphan == (fate == Fate::Closed),
        "it is {fate:?}: {found:#?}"
    );
    ensure!(
        stall.pids == [std::process::id()] && stall.process == own_name()?,
        "its owner is wrong: {found:#?}"
    );
    ensure!(
        stall.port == port && stall.side == agent::detectors::Side::Client,
        "its service is wrong: {found:#?}"
    );
    ensure!(
        socket.age.exact && socket.age.at_least >= Duration::from_secs(1),
        "its age is wrong: {found:#?}"
    );
    Ok(())
}

/// A peer that reads a little at a time, until this value ends.
pub struct SlowReader {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SlowReader {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn of(server: &TcpStream) -> Result<Self> {
        let server = server.try_clone()?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || read_slowly(server, &stopped));
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn read_slowly(mut server: TcpStream, stopped: &Receiver<()>) {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut buffer = [0; 1_000];
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        if server.read(&mut buffer).is_err() {
            return;
        }
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// How often a timer may be late before that is no accident.
const ATTEMPTS: usize = 5;

/// Tries again, aloud, where something did not come when it was foretold. Where other guests take
/// the processor a timer fires late, and a socket that would have survived that expiry does not.
///
/// # Errors
///
/// That of the last attempt.
pub fn punctually(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("tried again: {error}"),
        }
    }
    attempt()
}
