//! `agent run`: the daemon.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use agent_ebpf::stream::StreamSettings;
use anyhow::{Context as _, Result, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    census,
    cli::RunArgs,
    engine::Engine,
    feed::Feed,
    http,
    kernel::{Kernel, LoadError, Options, Verdict},
    model::{Model, Setup},
    series::Bounds,
    view::View,
};

/// How long requests under way may take once the agent is told to stop.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
///
/// Where the programs do not load, or an address cannot be listened on.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    // Bound before anything is loaded: a port in use is the likeliest mistake, and costs nothing.
    let listeners = args
        .listen
        .iter()
        .map(|address| listen(*address))
        .collect::<Result<Vec<_>>>()?;
    let only_netns = args.watched.only_netns()?;
    let kernel = Kernel::load(&Options {
        stream: StreamSettings::own(args.stream.into()),
        ring_bytes: args.ring_bytes,
        socket_capacity: args.socket_capacity,
        only_netns,
        bpf_stats: args.bpf_stats,
        ..Options::default()
    })
    .inspect_err(log_verifier)?;
    let attached = announce(&kernel);
    let (views, latest) = watch::channel::<Option<Arc<View>>>(None);
    let thresholds = args.watched.thresholds();
    let model = Model::new(Setup {
        version: env!("CARGO_PKG_VERSION"),
        kernel: kernel_release(),
        bpf_stats: args.bpf_stats,
        socket_capacity: args.socket_capacity,
        thresholds,
        bounds: Bounds {
            workloads: args.workload_label_sets,
            label_sets: args.label_sets,
        },
    });
    let census = census::Options {
        interval: args.census_interval,
        at_any_cost: false,
        only_netns,
        thresholds,
    };
    let feed = Feed::default();
    let stream = (feed.clone(), args.stream.into());
    let engine = Engine::start(kernel, model, census, stream, views)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime of the HTTP server cannot start")?;
    let served = runtime.block_on(serve(listeners, latest, &attached));
    runtime.shutdown_background();
    drop(engine);
    served?;
    info!("stopped: every program and map is gone");
    Ok(ExitCode::SUCCESS)
}

/// The release of the running kernel.
#[must_use]
pub fn kernel_release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
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

pub(crate) fn log_verifier(error: &LoadError) {
    if let LoadError::NeededProgram {
        verdict: Verdict::Broken { verifier_log, .. },
        ..
    } = error
    {
        warn!("the verifier's log: {verifier_log}");
    }
}

async fn serve(
    listeners: Vec<TcpListener>,
    latest: http::LatestView,
    attached: &str,
) -> Result<()> {
    let stop = stop_signal()?;
    let (stopping, _) = watch::channel(false);
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        addresses.push(listener.local_addr()?.to_string());
        let mut stopped = stopping.subscribe();
        let server = axum::serve(listener, http::router(latest.clone())).with_graceful_shutdown(
            async move {
                // The sender outlives the servers, so waiting ends only when it says so.
                let _closed = stopped.wait_for(|stop| *stop).await;
            },
        );
        servers.push(tokio::spawn(server.into_future()));
    }
    info!(attached, listening = addresses.join(" "), "running");

    let signal = stop.await;
    info!(signal, "stopping");
    stopping.send_replace(true);
    let deadline = Instant::now() + FAREWELL;
    for server in servers {
        if let Ok(ended) = timeout_at(deadline, server).await {
            ended.context("an HTTP server panicked")??;
        } else {
            warn!("an HTTP client did not finish in time and was cut off");
        }
    }
    Ok(())
}

/// Resolves to the name of the signal that ends the agent. SIGHUP, which asks other daemons to
/// read their configuration again, is answered aloud: there is none here.
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
                    warn!("SIGHUP reloads nothing: options change with a restart");
                }
            }
        }
    })
}
