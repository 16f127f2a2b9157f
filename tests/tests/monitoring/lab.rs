//! Sockets whose every number is known: processes that leak, peers that are gone, few ports, and
//! connections opened and closed at a steady pace.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agent_ebpf::state::TcpState::FinWait2;
use anyhow::{Context as _, Result, ensure};
use socket2::Socket;
use tests::{
    cgroup::Cgroup,
    holder::{Holder, Plan, Role},
    link::{Link, lose},
    netns::{Inhabitant, Netns},
    place::{Connections, Family, Place, own_descriptors, reset},
    wait::{all_in, clients_in, servers_in},
};

/// Connections that the process which reads everything does not close.
pub(crate) const DRAINED: usize = 3;
/// Connections that the process which is hung does not accept.
pub(crate) const NOT_ACCEPTED: usize = 2;
/// Sockets in FIN_WAIT1 whose peer is gone.
pub(crate) const UNACKED: usize = 4;
/// Sockets in LAST_ACK whose peer is gone.
pub(crate) const LAST_ACKS: usize = 1;
/// Sockets in FIN_WAIT2 whose peer does not close: the other ends of all that does not.
pub(crate) const HALF_CLOSED: usize = DRAINED + NOT_ACCEPTED + LAST_ACKS;
/// Ephemeral ports there are, and are in use toward one destination; of those in TIME_WAIT.
pub(crate) const PORTS: usize = 100;
pub(crate) const PORTS_USED: usize = 30;
pub(crate) const PORTS_WAITING: usize = 20;
/// Timewait minisockets allowed where more connections than that are closed.
pub(crate) const BUCKETS: usize = 10;
/// Connections a second, in each of the two namespaces where some are made.
pub(crate) const PACE: f64 = 20.0;
/// How long each of these is established, and how long the end that closes last takes for it: both
/// well within a bucket of the histogram, between 3 and 10 ms, and between 10 and 30.
pub(crate) const ESTABLISHED: Duration = Duration::from_millis(5);
pub(crate) const CLOSE_WAIT: Duration = Duration::from_millis(15);

/// The whole; its sockets last as long as it does.
pub(crate) struct Lab {
    /// The processes that leak.
    pub(crate) api: Leak,
    pub(crate) search: Leak,
    /// The workload of this process, whose sockets all others are.
    pub(crate) own: String,
    /// Where the ports are few.
    pub(crate) ports: Netns,
    /// Toward where they are used.
    pub(crate) crowded: Place,
    /// Where few minisockets are allowed.
    pub(crate) tight: Netns,
    /// Where as many connections are made, and nothing limits them.
    pub(crate) busy: Netns,
    pub(crate) leaks: Netns,
    /// When the first of those closed whose peers are gone.
    pub(crate) stalled: Instant,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    connections: Option<(Instant, Connections)>,
    _held: Held,
    /// Left after its processes.
    _unit: OwnUnit,
}

/// A process whose peers have closed.
pub(crate) struct Leak {
    pub(crate) holder: Holder,
    pub(crate) workload: String,
    pub(crate) port: u16,
    /// When the first of its peers closed.
    pub(crate) since: Instant,
    /// Removed after the process in it.
    _cgroup: Cgroup,
    _peers: Vec<Socket>,
}

/// What only has to be there.
struct Held {
    _link: Link,
    _streams: Vec<TcpStream>,
    _inhabitants: Vec<Inhabitant>,
}

impl Lab {
    /// Sets it up; nothing, aloud, where cgroups cannot be made.
    pub(crate) fn new() -> Result<Option<Self>> {
        let Some(unit) = OwnUnit::new()? else {
            return Ok(None);
        };
        let leaks = Netns::new()?;
        let Some(api) = Leak::new(&leaks, "api", Role::Server(true), DRAINED)? else {
            return Ok(None);
        };
        let Some(search) = Leak::new(&leaks, "search", Role::Hung, NOT_ACCEPTED)? else {
            return Ok(None);
        };
        let (ports, busy, tight) = (Netns::new()?, Netns::new()?, Netns::new()?);
        ports.sysctl("ip_local_port_range", "40000 40099")?;
        ports.sysctl("tcp_tw_reuse", "0")?;
        tight.sysctl("tcp_max_tw_buckets", &BUCKETS.to_string())?;
        let link = Link::new()?;
        // Who has closed is sent to in vain for longer than anybody looks.
        link.client.sysctl("tcp_orphan_retries", "15")?;
        let mut inhabitants = Vec::new();
        for netns in [&ports, &busy, &tight, &link.client, &link.server] {
            inhabitants.push(netns.inhabit()?);
        }
        // Before there are threads with descriptors of their own, which would hold what is closed.
        let stalled = Instant::now();
        let (streams, listener) = stall(&link)?;
        let over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for netns in [&busy, &tight] {
            threads.push(churn(netns, &over)?);
        }
        threads.push(call_in_vain(&link, listener, &over)?);
        Ok(Some(Self {
            api,
            search,
            own: format!("unit:{}", unit.cgroup.name()),
            ports,
            crowded: Place::new(Family::V4),
            tight,
            busy,
            leaks,
            stalled,
            over,
            threads,
            connections: None,
            _held: Held {
                _link: link,
                _streams: streams,
                _inhabitants: inhabitants,
            },
            _unit: unit,
        }))
    }

    /// Uses some of few ports, most of them in TIME_WAIT, which lasts for a minute; then anew.
    pub(crate) fn crowd(&mut self) -> Result<()> {
        const TIME_WAIT: Duration = Duration::from_secs(65);
        if let Some((since, _)) = &self.connections
            && since.elapsed() < TIME_WAIT
        {
            return Ok(());
        }
        if let Some((_, last)) = self.connections.take() {
            reset(last.clients)?;
        }
        let place = self.crowded;
        let connections = self.ports.run(|| {
            let mut connections = place.connections(PORTS_USED)?;
            drop(connections.clients.drain(..PORTS_WAITING));
            drop(connections.servers.drain(..PORTS_WAITING));
            clients_in(place.port, "time-wait", PORTS_WAITING)?;
            Ok(connections)
        })?;
        self.connections = Some((Instant::now(), connections));
        Ok(())
    }

    /// A request to this address that never ends, over and over.
    pub(crate) fn bother(&mut self, address: SocketAddr) {
        let over = Arc::clone(&self.over);
        self.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address) else {
                    // The agent has ended before the lab.
                    break;
                };
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\n")?;
                // Until it is cut off, or nobody is interested any more.
                while !over.load(Ordering::Relaxed) && stream.read(&mut [0]).is_err() {}
            }
            Ok(())
        }));
    }

    /// Checks that all goes on as it should.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        ensure!(!ended, "a thread of the lab has ended");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("the lab: {error:#}"),
                Err(_) => eprintln!("the lab: a thread panicked"),
            }
        }
    }
}

impl Leak {
    fn new(netns: &Netns, process: &str, role: Role, count: usize) -> Result<Option<Self>> {
        let name = format!("connstate-test-{}-{process}.service", std::process::id());
        let workload = format!("unit:{name}");
        let Some(cgroup) = Cgroup::named(name)? else {
            return Ok(None);
        };
        let place = Place::new(Family::V4);
        let plan = Plan {
            process,
            role,
            port: place.port,
            count,
            thread: None,
        };
        let mut holder = Holder::start(env!("CARGO_BIN_EXE_holder"), netns, &cgroup, &plan)?;
        holder.go_on()?;
        holder.says("listening")?;
        let since = Instant::now();
        let peers = netns.run(|| {
            let peers = (0..count).map(|_| place.connect());
            let peers = peers.collect::<Result<Vec<_>>>()?;
            for peer in &peers {
                peer.shutdown(Shutdown::Write)?;
            }
            servers_in(place.port, "close-wait", count)?;
            Ok(peers)
        })?;
        holder.says("holding")?;
        Ok(Some(Self {
            holder,
            workload,
            port: place.port,
            since,
            _cgroup: cgroup,
            _peers: peers,
        }))
    }

    /// Has the process close everything.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.holder.go_on()?;
        self.holder.says("closed")
    }
}

/// Connects and closes at a steady pace, the client first.
fn churn(netns: &Netns, over: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let place = Place::new(Family::V4);
    let listener = netns.run(|| place.listen())?;
    steadily(netns, over, move || {
        let client = place.connect()?;
        let (server, _) = listener.accept()?;
        thread::sleep(ESTABLISHED);
        drop(client);
        thread::sleep(CLOSE_WAIT);
        drop(server);
        Ok(())
    })
}

/// Does something inside at that pace, on a thread that lives there.
fn steadily(
    netns: &Netns,
    over: &Arc<AtomicBool>,
    mut work: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let over = Arc::clone(over);
    // It is entered by the file's name, which the thread finds as long as the namespace is held.
    let path = netns.path();
    let inside = fs::File::open(&path).with_context(|| path.display().to_string())?;
    let apart = Arc::new(Barrier::new(2));
    let is_apart = Arc::clone(&apart);
    let thread = thread::spawn(move || {
        // What is open when a thread goes apart it holds open: it must be over before anything is
        // started whose end is told by a pipe.
        let gone_apart = own_descriptors();
        is_apart.wait();
        gone_apart?;
        nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let began = Instant::now();
        for turn in 0_u32.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let next = Duration::from_secs_f64(f64::from(turn) / PACE);
            thread::sleep(next.saturating_sub(began.elapsed()));
            work()?;
        }
        Ok(())
    });
    apart.wait();
    Ok(thread)
}

/// Clients that have closed, and whose peer is gone or does not.
fn stall(link: &Link) -> Result<(Vec<TcpStream>, TcpListener)> {
    let listener = link.listen()?;
    let mut held = Vec::new();
    for _ in 0..LAST_ACKS {
        let (client, server) = link.connect(&listener)?;
        server.shutdown(Shutdown::Write)?;
        // Acknowledged, so that the cut is between this side's FIN and the peer alone.
        all_in(std::slice::from_ref(&server), FinWait2)?;
        cut(link, &client)?;
        drop(client);
        held.push(server);
    }
    for _ in 0..UNACKED {
        let (client, server) = link.connect(&listener)?;
        cut(link, &client)?;
        drop(client);
        held.push(server);
    }
    Ok((held, listener))
}

fn cut(link: &Link, client: &TcpStream) -> Result<()> {
    let port = client.local_addr()?.port();
    lose(&link.server, &format!("tcp sport {port}"))
}

/// Connects, once a second, to where nothing arrives: each is sent again after a second, and given
/// up before it is sent a third time.
fn call_in_vain(
    link: &Link,
    listener: TcpListener,
    over: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<()>>> {
    let mut address = listener.local_addr()?;
    // Held, lest another takes it.
    let port = link
        .server
        .run(|| Ok(TcpListener::bind((address.ip(), 0))?))?;
    address.set_port(port.local_addr()?.port());
    lose(&link.server, &format!("tcp dport {}", address.port()))?;
    let client = link.client.path();
    let inside = fs::File::open(client)?;
    let over = Arc::clone(over);
    Ok(thread::spawn(move || {
        let _held = (listener, port);
        nix::sched::setns(&inside, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let mut calls = std::collections::VecDeque::new();
        while !over.load(Ordering::Relaxed) {
            calls.push_back(begin(address)?);
            thread::sleep(Duration::from_secs(1));
            // Begun two seconds ago.
            if calls.len() > 1 {
                calls.pop_front();
            }
        }
        Ok(())
    }))
}

fn begin(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // That it is not connected yet is what is wanted.
    let _in_progress = socket.connect(&address.into());
    Ok(socket)
}

/// This process in a cgroup of its own, until the value ends: where there is a hierarchy of the first
/// version, too, a process's workload might be that, and its sockets' another.
struct OwnUnit {
    cgroup: Cgroup,
    before: PathBuf,
}

impl OwnUnit {
    fn new() -> Result<Option<Self>> {
        let name = format!("connstate-test-{}-lab.service", std::process::id());
        let Some(cgroup) = Cgroup::named(name)? else {
            return Ok(None);
        };
        let cgroups = fs::read_to_string("/proc/self/cgroup")?;
        let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path.context("no cgroup of version 2")?;
        let processes = cgroup.processes();
        let root = processes.ancestors().nth(2).context("no root")?;
        let before = root.join(path).join("cgroup.procs");
        fs::write(&processes, std::process::id().to_string())?;
        Ok(Some(Self { cgroup, before }))
    }
}

impl Drop for OwnUnit {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.before, std::process::id().to_string()) {
            eprintln!(
                "{} does not take this process back: {error}",
                self.before.display()
            );
        }
    }
}
