//! The command line.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use agent_ebpf::{maps, record::StreamMode};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::logging::LogFormat;

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
    /// Transitions to stream as records: those out of lingering states after more than 1 s, all
    /// into and out of them, or all
    #[arg(long, value_enum, default_value_t)]
    pub stream: Stream,
    /// Time between two censuses of the sockets there are, `500ms` to `1h`; they are rarer where
    /// they would take more than 1 % of one core
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = census_interval)]
    pub census_interval: Duration,
    /// Network namespaces to watch: all of the host's, or only that of process 1
    #[arg(long, value_enum, default_value_t)]
    pub netns: Netns,
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
fn listen_address(text: &str) -> Result<SocketAddr, String> {
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
    const RANGE: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_hours(1);
    match humantime::parse_duration(text) {
        Ok(interval) if RANGE.contains(&interval) => Ok(interval),
        Ok(_) => Err("not within 500ms and 1h".to_owned()),
        Err(error) => Err(format!("not a time such as 5s or 1m: {error}")),
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
            Command::Check => panic!("run was taken for check"),
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
        assert_eq!((args.stream, args.netns), (Stream::Late, Netns::All));
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
