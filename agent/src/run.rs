//! `agent run`: the daemon.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use agent_ebpf::{fields::Need, stream::StreamSettings};
use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    api,
    cli::{API_SOCKET, RunArgs},
    confinement::{Role, confine, forbid_new, give_up},
    engine::{Engine, Outside},
    feed::Feed,
    http,
    kernel::{FEATURES, FieldReport, Host, Kernel, Options, PIDS_UNSEEN, Verdict},
    logging::chain,
    model::{Model, Setup},
    series::Bounds,
    view::View,
    web::{self, Listener, Live, Refusals, Site, unix::SocketFile},
};

/// How long requests under way may take once the agent is told to stop.
const FAREWELL: Duration = Duration::from_millis(500);

/// The fewest descriptors it starts with: 47 are open once it runs, a census takes some for a moment
/// and each connection one.
const DESCRIPTORS: u64 = 64;

/// The fewest bytes of address space: with less an allocation fails while the programs are loaded,
/// which no program survives.
const ADDRESSES: u64 = 64 << 20;

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
///
/// Where the programs do not load, an address cannot be listened on, or the web configuration is
/// wrong.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    forbid_new()?;
    // Before anything takes one: the programs and maps alone take some forty.
    raise_descriptors()?;
    require_addresses(getrlimit(Resource::As).current)?;
    let config = args.web_config.as_deref().map(Live::open).transpose()?;
    // Bound before anything is loaded: a port in use is the likeliest mistake, and costs nothing.
    let listeners = args
        .listen
        .iter()
        .map(|address| listen(*address))
        .collect::<Result<Vec<_>>>()?;
    let api_socket = api_socket(args.api_socket.as_deref())?;
    let census = args.watched.census(args.census_interval)?;
    let options = Options {
        stream: StreamSettings::own(args.stream.into()),
        ring_bytes: args.ring_bytes,
        socket_capacity: args.socket_capacity,
        only_netns: census.only_netns,
        bpf_stats: args.bpf_stats,
        ..Options::default()
    };
    let kernel = Kernel::load(&options)?;
    let attached = announce(&kernel);
    for FieldReport { field, location } in kernel.fields() {
        if !location.is_present() {
            let name = format!("{}.{}", field.container, field.path);
            warn!(field = name, lost = field.purpose, "missing");
        }
    }
    if let Ok(host) = Host::look(&options.btf_path) {
        // Of one namespace alone it takes no more than it needs to run.
        let rights = host.missing(Need::Optional);
        for missing in rights.filter(|_| options.only_netns == 0) {
            warn!(capability = missing.name, lost = missing.purpose, "missing");
        }
        if !host.sees_all_processes {
            warn!(lost = PIDS_UNSEEN, "not in the host's PID namespace");
        }
        for missing in FEATURES.iter().filter(|feature| !host.has(feature)) {
            warn!(feature = missing.name, lost = missing.purpose, "missing");
        }
    }
    if !Path::new("/proc/sys/net/ipv4").is_dir() {
        warn!(
            lost = "the kernel's settings and limits: tcp_max_orphans, tcp_max_tw_buckets, the \
                    range of ephemeral ports, connstate_sysctl",
            "/proc/sys is not to be seen here (ProcSubset= of the unit must be `all`)"
        );
    }
    let (views, latest) = watch::channel::<Option<Arc<View>>>(None);
    let model = Model::new(Setup {
        bpf_stats: args.bpf_stats,
        socket_capacity: args.socket_capacity,
        bounds: Bounds {
            workloads: args.workload_label_sets,
            label_sets: args.label_sets,
        },
        ..args.watched.setup()
    });
    let feed = Feed::default();
    let refusals = Arc::default();
    let outside = Outside {
        feed: feed.clone(),
        own: args.stream.into(),
        refusals: Arc::clone(&refusals),
        views,
    };
    let engine = Engine::start(kernel, model, census, outside)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime of the HTTP server cannot start")?;
    let web = Web {
        listeners,
        api_socket,
        enable_api: args.enable_api,
        config: config.map(Arc::new),
        refusals,
        latest,
        feed,
    };
    // The engine's threads have given up theirs; from here on strangers are listened to.
    give_up(Role::Server);
    if let Err(error) = confine() {
        warn!(error = chain(&error), "every system call stays allowed");
    }
    let served = runtime.block_on(web.serve(&attached));
    runtime.shutdown_background();
    drop(engine);
    served?;
    info!("stopped: every program and map is gone");
    Ok(ExitCode::SUCCESS)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there: stop it, or choose another with --web.listen-address"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this host has no such address: choose one that `ip address` shows"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
            }
            _ => "choose another with --web.listen-address",
        };
        anyhow!("cannot listen on {address}: {error}; {remedy}")
    })?;
    listener
        .set_nonblocking(true)
        .with_context(|| format!("cannot serve {address}"))?;
    Ok(listener)
}

/// Takes as many descriptors as the system gives without asking: the usual 1 024 would be used up
/// by the connections of two listeners, and a census takes some, too.
///
/// # Errors
///
/// Where even those do not suffice: the agent would run, and neither count nor answer.
fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if let Some(maximum) = limit.maximum {
        ensure!(
            maximum >= DESCRIPTORS,
            "the agent may open {maximum} files, and needs {DESCRIPTORS} for its programs, maps and \
             connections: raise the limit (LimitNOFILE= of its unit, `ulimit -n` in a shell)"
        );
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of descriptors stays as it is");
    }
    Ok(())
}

/// Refuses to start where it would end while it starts.
///
/// # Errors
///
/// Where the limit is lower than what it takes.
fn require_addresses(limit: Option<u64>) -> Result<()> {
    let limit = limit.unwrap_or(u64::MAX);
    ensure!(
        limit >= ADDRESSES,
        "the agent may take {limit} bytes of address space, and needs {ADDRESSES} to load its \
         programs: raise the limit (LimitAS= of its unit, `ulimit -v` in a shell)"
    );
    Ok(())
}

/// Logs what does not run; returns the names of the programs that do.
fn announce(kernel: &Kernel) -> String {
    let mut attached = Vec::new();
    for report in kernel.programs() {
        let (program, purpose) = (report.program.name, report.program.purpose);
        match &report.verdict {
            Verdict::Attached => attached.push(program),
            Verdict::Unsupported { reason } => {
                warn!(program, lost = purpose, "not attached: {reason}");
            }
            Verdict::Broken {
                reason,
                verifier_log,
            } => warn!(
                program,
                lost = purpose,
                verifier_log,
                "not attached: {reason}"
            ),
        }
    }
    attached.join(" ")
}

/// The socket for this host's own commands. Where nobody named one, the agent does without rather
/// than not at all: it may lack the rights, or be the second.
fn api_socket(named: Option<&Path>) -> Result<Option<(UnixListener, SocketFile)>> {
    match (
        web::unix::listen_at(named.unwrap_or(API_SOCKET.as_ref())),
        named,
    ) {
        (Ok(socket), _) => Ok(Some(socket)),
        (Err(error), Some(_)) => Err(error),
        (Err(error), None) => {
            let error = format!("{error:#}");
            warn!(
                error,
                "no API socket: `agent top` and `agent events` will not find this agent"
            );
            Ok(None)
        }
    }
}

/// Where HTTP is served, to whom, and what of.
struct Web {
    listeners: Vec<TcpListener>,
    api_socket: Option<(UnixListener, SocketFile)>,
    enable_api: bool,
    config: Option<Arc<Live>>,
    refusals: Arc<Refusals>,
    latest: http::LatestView,
    feed: Feed,
}

impl Web {
    async fn serve(self, attached: &str) -> Result<()> {
        let stop = stop_signal()?;
        let (stopping, stopped) = watch::channel(false);
        let mut servers = JoinSet::new();
        let mut addresses = Vec::new();
        let api = || api::router(self.latest.clone(), self.feed.clone(), stopped.clone());
        let site = |router, config| Site {
            router,
            config,
            bounds: web::Bounds::default(),
            refusals: Arc::clone(&self.refusals),
        };
        let plain = || http::router(self.latest.clone());
        // What protects the addresses cannot be taken away while the agent runs.
        let is_protected = self
            .config
            .as_ref()
            .is_some_and(|live| live.config().authenticates());
        for listener in self.listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            addresses.push(listener.local_addr()?.to_string());
            let router = if self.enable_api || is_protected {
                plain().merge(api())
            } else {
                plain()
            };
            let site = site(router, self.config.clone());
            servers.spawn(web::serve(Listener::Tcp(listener), site, stopped.clone()));
        }
        // The file goes with the agent.
        let _file = match self.api_socket {
            None => None,
            Some((listener, file)) => {
                addresses.push(file.path().display().to_string());
                let listener = Listener::Unix(tokio::net::UnixListener::from_std(listener)?);
                let site = site(plain().merge(api()), None);
                servers.spawn(web::serve(listener, site, stopped.clone()));
                Some(file)
            }
        };
        // It ends with the runtime.
        let _follower = self.config.map(|config| tokio::spawn(config.follow()));
        info!(attached, listening = addresses.join(" "), "running");

        let mut views = self.latest;
        // Its numbers would stand still, and be served as if they were true.
        let has_engine = tokio::select! {
            signal = stop => {
                info!(signal, "stopping");
                true
            }
            () = async { while views.changed().await.is_ok() {} } => false,
        };
        stopping.send_replace(true);
        let deadline = Instant::now() + FAREWELL;
        while let Ok(Some(ended)) = timeout_at(deadline, servers.join_next()).await {
            ended.context("an HTTP server panicked")?;
        }
        if !servers.is_empty() {
            warn!("an HTTP client did not finish in time and was cut off");
        }
        ensure!(
            has_engine,
            "the engine has ended, as the log says: this is a bug in connstate; start it again"
        );
        Ok(())
    }
}

/// Resolves to the name of the signal that ends the agent. SIGHUP, which asks other daemons to
/// read their configuration again, is answered aloud: the one file there is is read again as it
/// changes.
fn stop_signal() -> Result<impl Future<Output = &'static str>> {
    let install = |kind| signal(kind).context("cannot handle signals");
    let mut interrupt: Signal = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    let mut hangup = install(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => return "SIGINT",
                _ = terminate.recv() => return "SIGTERM",
                _ = hangup.recv() => {
                    warn!(
                        "SIGHUP reloads nothing: the web configuration is read again when it \
                         changes, options with a restart"
                    );
                }
            }
        }
    })
}
