//! A real server: nginx answers wrk with a few bytes, and every request has a connection of its
//! own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::Outcome;
use super::{cpu, namespace, sockets};
use crate::child::Guarded;
use crate::setup::program;

/// Any port will do: the namespace is empty.
const PORT: u16 = 8080;

const START_DEADLINE: Duration = Duration::from_secs(5);

/// Serves requests for so many seconds, and says how many and what they cost.
pub(super) fn generate(seconds: u32) -> Result<Outcome> {
    namespace::enter()?;
    let directory = tempfile::tempdir().context("could not make a directory for nginx")?;
    let nginx = start_nginx(directory.path())?;
    let cpu = cpu::of_waited_children()?;
    let report = wrk(seconds)?;
    // The time of a child is known once it has been waited for.
    nginx.stop()?;
    let cpu_seconds = cpu::of_waited_children()? - cpu;
    let report = parse(&report)
        .with_context(|| format!("wrk's report is not what was expected:\n{report}"))?;
    Ok(Outcome {
        operations: report.0,
        seconds: report.0 / report.1,
        cpu_seconds,
        unfinished: sockets::outlived()?,
    })
}

fn start_nginx(directory: &Path) -> Result<Guarded> {
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, configuration_in(directory))
        .context("could not write nginx's configuration")?;
    let program =
        program::path("nginx").context("nginx is missing; it is in Debian's package nginx")?;
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(&configuration)
        .args(["-e", "error.log"]);
    let mut nginx = Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let deadline = Instant::now() + START_DEADLINE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = nginx.wait(Duration::ZERO)? {
            let log = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            bail!("nginx ended by itself ({status}): {log}");
        }
        if Instant::now() > deadline {
            bail!("nginx did not listen within {} s", START_DEADLINE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(nginx)
}

/// One process is both master and worker: then there is no worker left to run on should the
/// master be killed.
fn configuration_in(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_timeout 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{PORT};
        location / {{ return 200 \"ok\\n\"; }}
    }}
}}
"
    )
}

fn wrk(seconds: u32) -> Result<String> {
    let program = program::path("wrk").context("wrk is missing; it is in Debian's package wrk")?;
    let mut command = Command::new(program);
    command.args([
        "--threads",
        "1",
        "--connections",
        "64",
        "--header",
        "Connection: close",
    ]);
    command.args([
        "--duration",
        &format!("{seconds}s"),
        &format!("http://127.0.0.1:{PORT}/"),
    ]);
    Guarded::output(
        &mut command,
        START_DEADLINE + Duration::from_secs(1) * (seconds + 10),
    )
}

/// Requests, and requests per second, from wrk's report.
fn parse(report: &str) -> Option<(f64, f64)> {
    let requests = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))?
        .0;
    let rate = report
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    Some((requests.parse().ok()?, rate.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 1s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.30ms  244.65us   6.21ms   87.07%
    Req/Sec    37.35k     1.02k   38.53k    90.00%
  37145 requests in 1.00s, 5.38MB read
Requests/sec:  37113.43
Transfer/sec:      5.38MB
";

    #[test]
    fn reads_the_report_of_wrk() {
        assert_eq!(parse(REPORT), Some((37145.0, 37113.43)));
    }

    #[test]
    fn a_report_without_figures_is_none() {
        assert_eq!(
            parse("unable to connect to 127.0.0.1:8080 Connection refused\n"),
            None
        );
    }
}
