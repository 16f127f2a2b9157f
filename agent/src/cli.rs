//! The command line.

use std::{io, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use agent_ebpf::{maps, record::StreamMode, state::TcpState};
use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    api, census,
    client::{Client, Means},
    detectors::Thresholds,
    logging::LogFormat,
    model::Setup,
};

/// The TCP connection-state agent: which connections do not finish closing, whose they are, why,
/// and which kernel limit they are about to hit.
#[derive(Debug, Parser)]
#[command(name = "agent", version, propagate_version = true)]
pub struct Cli {
    /// How log lines on standard error look; RUST_LOG says which (default: info)
    #[arg(long, value_enum, default_value_t, global = true)]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this host and serve /metrics
    Run(Box<RunArgs>),
    /// Take a census and print it: states, limits, and the sockets that do not finish closing.
    /// Where some may be stuck in FIN_WAIT1 or LAST_ACK it watches them for the threshold first
    Snapshot(SnapshotArgs),
    /// Print transitions and retransmissions as they happen, as JSON lines or as a table: those of
    /// a running agent, or where none runs by programs of its own
    Events(EventsArgs),
    /// Show live, in this terminal, what the host's connections do, which of them are stuck, and
    /// what to do about it: of a running agent, or where none runs by programs of its own
    Top(TopArgs),
    /// Say what this host offers and what is lost without: exit 0 full, 1 reduced, 2 cannot run
    Check,
}

/// Options of `agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Address to serve HTTP on, `HOST:PORT` or `:PORT` for all of the host's; repeatable
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10735",
        value_parser = listen_address
    )]
    pub listen: Vec<SocketAddr>,
    /// TLS, users and their passwords, headers and a rate for these addresses, in the format of
    /// Prometheus' exporter-toolkit; read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Serve the API at these addresses, too, where nobody has to authenticate: it names every
    /// owner and address, and can raise the stream
    #[arg(long = "web.enable-api")]
    pub enable_api: bool,
    /// Socket to serve the API on, for root alone [default: /run/connstate/api.sock]
    #[arg(long, value_name = "PATH")]
    pub api_socket: Option<PathBuf>,
    /// Transitions to stream as records: those out of lingering states after more than 1 s, all
    /// into and out of them, or all
    #[arg(long, value_enum, default_value_t)]
    pub stream: Stream,
    /// Time between two censuses of the sockets there are, `500ms` to `1h`; they are rarer where
    /// they would take more than 1 % of one core
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = census_interval)]
    pub census_interval: Duration,
    /// What is watched, and when it is told
    #[command(flatten)]
    pub watched: WatchedArgs,
    /// Workloads that are told apart in /metrics, 1 to 10000; the others share `_other`
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = label_sets)]
    pub workload_label_sets: usize,
    /// Label sets of every other family, likewise
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = label_sets)]
    pub label_sets: usize,
    /// Let the kernel keep run counts and times of the programs (needs CAP_SYS_ADMIN, and costs
    /// about 5 % of the connection rate)
    #[arg(long)]
    pub bpf_stats: bool,
    /// Bytes of the ring buffer for records: a power of two, 4096 to 1 GiB
    #[arg(long, value_name = "BYTES", default_value_t = maps::RING_BYTES, value_parser = ring_bytes)]
    pub ring_bytes: u32,
    /// Room for sockets to be remembered, 32 bytes each: a power of two, 1024 to 16777216; what
    /// finds none (one in 250 when half is taken) is counted, without its times
    #[arg(long, value_name = "SOCKETS", default_value_t = maps::SOCKET_CAPACITY, value_parser = socket_capacity)]
    pub socket_capacity: u32,
}

/// Options of `agent snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// What is watched, and when it is told
    #[command(flatten)]
    pub watched: WatchedArgs,
    /// Print JSON, whose shape the field `version` numbers
    #[arg(long)]
    pub json: bool,
}

/// Options of `agent top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Whom to ask
    #[command(flatten)]
    pub agent: AgentArgs,
    /// What is watched, and when it is told, where no agent runs
    #[command(flatten)]
    pub watched: WatchedArgs,
}

/// Options of `agent events`.
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    /// Every transition, not only those into and out of lingering states (FIN_WAIT1, FIN_WAIT2,
    /// CLOSING, CLOSE_WAIT, LAST_ACK)
    #[arg(long)]
    pub all: bool,
    /// Only transitions out of or into this state; repeatable
    #[arg(long, value_name = "STATE", value_parser = api::events::state)]
    pub state: Vec<TcpState>,
    /// Only those of sockets with this port, on either end
    #[arg(long)]
    pub port: Option<u16>,
    /// Only those of sockets that this process opened or closed
    #[arg(long)]
    pub pid: Option<u32>,
    /// Only those of sockets of this cgroup: its directory beneath the second version's
    /// /sys/fs/cgroup. Not with --url: the directory is one of this host
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "url")]
    pub cgroup: Option<PathBuf>,
    /// A table, as tcpstates prints it, rather than JSON
    #[arg(long)]
    pub table: bool,
    /// Whom to ask
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Bytes of its own ring buffer, where no agent runs: a power of two, 4096 to 1 GiB
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = ring_bytes)]
    pub ring_bytes: u32,
}

/// Which running agent is asked.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// The agent at this URL, https://HOST:PORT or http://HOST:PORT; it serves the API there where
    /// it asks for a password, or with --web.enable-api
    #[arg(long)]
    pub url: Option<String>,
    /// With https://, the authorities one of which has signed the agent's certificate, in PEM;
    /// without, they are those that this host trusts
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca_file: Option<PathBuf>,
    /// The user to name to the agent, where it asks for a password
    #[arg(long, value_name = "NAME", requires_all = ["url", "password_file"])]
    pub username: Option<String>,
    /// That user's password: the first line of this file
    #[arg(long, value_name = "FILE", requires_all = ["url", "username"])]
    pub password_file: Option<PathBuf>,
    /// The socket of this host's agent
    #[arg(long, value_name = "PATH", default_value = API_SOCKET)]
    pub api_socket: PathBuf,
}

impl AgentArgs {
    /// The running agent; nothing where none is asked for by URL and none listens on the socket.
    ///
    /// # Errors
    ///
    /// Where the URL or a file is of no use, or there is an agent that may not be asked.
    pub async fn client(&self) -> Result<Option<Client>> {
        if let Some(url) = &self.url {
            let user = self.username.as_deref().zip(self.password_file.as_deref());
            let ca_file = self.ca_file.as_deref();
            let client = Client::of_url(url, Means { ca_file, user })?;
            if client.tells_password() {
                eprintln!(
                    "warning: the password goes to {} in the clear, for all on the way to read: \
                     have the agent serve TLS, and write https://",
                    client.place()
                );
            }
            return Ok(Some(client));
        }
        match tokio::net::UnixStream::connect(&self.api_socket).await {
            Ok(_) => Ok(Some(Client::of_socket(&self.api_socket))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error)
                .with_context(|| {
                    format!(
                        "an agent listens on {}, and only root may ask it there",
                        self.api_socket.display()
                    )
                }),
            Err(_) => Ok(None),
        }
    }
}

/// Where an agent serves its API to this host.
pub const API_SOCKET: &str = "/run/connstate/api.sock";

/// What is watched, and when it is told.
#[derive(Clone, Debug, Args)]
pub struct WatchedArgs {
    /// Network namespaces to watch: all of the host's, or only that of process 1
    #[arg(long, value_enum, default_value_t)]
    pub netns: Netns,
    /// Tell of sockets that have been in FIN_WAIT1, LAST_ACK or CLOSING for so long, 1s to 1day
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = stall_after)]
    pub fin_wait1_stall_after: Duration,
    /// Tell of full sockets that have been in FIN_WAIT2 for so long, 1s to 1day
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = stall_after)]
    pub fin_wait2_stall_after: Duration,
    /// Tell of sockets that have been in CLOSE_WAIT for so long, 1s to 1day
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = stall_after)]
    pub close_wait_leak_after: Duration,
}

impl WatchedArgs {
    /// From when on a socket stalls.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            fin_wait1_stall_after: self.fin_wait1_stall_after,
            fin_wait2_stall_after: self.fin_wait2_stall_after,
            close_wait_leak_after: self.close_wait_leak_after,
        }
    }

    /// What a model of this host is told; the rest as it is by default.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let system = rustix::system::uname();
        Setup {
            version: env!("CARGO_PKG_VERSION"),
            kernel: system.release().to_string_lossy().into_owned(),
            socket_capacity: maps::SOCKET_CAPACITY,
            thresholds: self.thresholds(),
            ..Setup::default()
        }
    }

    /// How censuses are taken, one so long after the other.
    ///
    /// # Errors
    ///
    /// As [`WatchedArgs::only_netns`].
    pub fn census(&self, interval: Duration) -> Result<census::Options> {
        Ok(census::Options {
            interval,
            at_any_cost: false,
            only_netns: self.only_netns()?,
            thresholds: self.thresholds(),
        })
    }

    /// The inode number of the only network namespace to watch; 0 for all.
    ///
    /// # Errors
    ///
    /// Where the host's namespace was asked for and cannot be found.
    pub fn only_netns(&self) -> Result<u32> {
        if self.netns == Netns::All {
            return Ok(0);
        }
        let inode = census::host().context(
            "cannot find the host's network namespace, which --netns host watches alone: that \
             takes /proc and CAP_SYS_PTRACE",
        )?;
        u32::try_from(inode).context("the host's network namespace has no 32-bit inode")
    }
}

/// The `--stream` option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    /// Out of a lingering state after more than 1 s.
    #[default]
    Late,
    /// Into and out of lingering states.
    Lingering,
    /// All.
    All,
}

impl From<Stream> for StreamMode {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Late => Self::Late,
            Stream::Lingering => Self::Lingering,
            Stream::All => Self::All,
        }
    }
}

/// The `--netns` option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Netns {
    /// Every network namespace of the host.
    #[default]
    All,
    /// That of process 1.
    Host,
}

/// `:PORT` is every address of the host, as Prometheus' exporters take it.
fn listen_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("[::]{text}")
    } else {
        text.to_owned()
    };
    full.parse().map_err(|_| {
        "not an address and port: write 127.0.0.1:10735, [::1]:10735, or :10735 for all addresses"
            .to_owned()
    })
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err("not a power of two from 4096 to 1073741824".to_owned()),
    }
}

fn census_interval(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(500)..=Duration::from_hours(1))
}

/// The kernel hands over sockets that have lingered for more than a second.
fn stall_after(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_secs(1)..=Duration::from_hours(24))
}

fn time(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if range.contains(&time) => Ok(time),
        Ok(_) => {
            let [least, most] = [*range.start(), *range.end()].map(humantime::format_duration);
            Err(format!("not within {least} and {most}"))
        }
        Err(error) => Err(format!("not a time such as 5s or 1m: {error}")),
    }
}

fn label_sets(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(sets) if (1..=10_000).contains(&sets) => Ok(sets),
        _ => Err("not a number from 1 to 10000".to_owned()),
    }
}

fn socket_capacity(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(sockets) if sockets.is_power_of_two() && (1024..=1 << 24).contains(&sockets) => {
            Ok(sockets)
        }
        _ => Err("not a power of two from 1024 to 16777216".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run_args(args: &[&str]) -> Result<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["agent", "run"].iter().chain(args))?;
        match cli.command {
            Command::Run(args) => Ok(*args),
            other => panic!("run was taken for {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let args = run_args(&[]).unwrap();
        assert_eq!(args.listen, ["127.0.0.1:10735".parse().unwrap()]);
        assert_eq!(
            (args.stream, args.watched.netns),
            (Stream::Late, Netns::All)
        );
        assert_eq!(args.watched.thresholds(), Thresholds::default());
        assert_eq!((args.workload_label_sets, args.label_sets), (500, 100));
        assert!(!args.bpf_stats);
    }

    #[test]
    fn listen_addresses_repeat_and_may_lack_a_host() {
        let args = run_args(&[
            "--web.listen-address",
            ":9",
            "--web.listen-address=127.0.0.2:10",
        ])
        .unwrap();
        assert_eq!(
            args.listen,
            ["[::]:9".parse().unwrap(), "127.0.0.2:10".parse().unwrap()]
        );
    }

    #[test]
    fn what_a_url_takes_comes_with_one() {
        let parse = |args: &str| {
            let words = format!("agent events {args}");
            Cli::try_parse_from(words.split_whitespace())
        };
        for args in [
            "--url https://a --ca-file f",
            "--url https://a --username u --password-file f",
            "--url http://a --username u --password-file f",
            "--cgroup /sys/fs/cgroup/a",
        ] {
            assert!(parse(args).is_ok(), "{args}");
        }
        for args in [
            "--ca-file f",
            "--username u --password-file f",
            "--url https://a --username u",
            "--url https://a --password-file f",
            "--url https://a --cgroup /sys/fs/cgroup/a",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_to_write_instead() {
        let error = run_args(&["--web.listen-address", "localhost"]).unwrap_err();
        assert!(
            error.to_string().contains("write 127.0.0.1:10735"),
            "{error}"
        );
        for bytes in ["0", "4095", "5000", "2147483648", "-1"] {
            assert!(
                run_args(&[&format!("--ring-bytes={bytes}")]).is_err(),
                "{bytes}"
            );
        }
    }
}
