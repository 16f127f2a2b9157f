//! The agent with the rights, files and arguments that its pod has, and no others.
//!
//! No container runtime runs here, so a script makes what one would: a mount and a cgroup namespace
//! of its own with a root directory that cannot be written, the node's processes and network, the
//! volumes at their places, root with these capabilities alone and no way to more. What it leaves
//! out is the runtime's seccomp profile, and what `AppArmor` or `SELinux` say.

use std::{fmt::Write as _, fs, net::TcpStream, process::Command};

use agent_ebpf::programs::PROGRAMS;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    certificates::Authority,
    cgroup::Cgroup,
    curl::curl,
    daemon::{Daemon, binary},
    holder::{Holder, Plan, Role},
    load::churn,
    netns::Netns,
    place::{Family, Place},
};

use super::{
    agent,
    rendered::{kustomize, one, root},
    strings,
};

/// The address that the test gives to its node: of the loopback interface, and nobody else's.
const HOST_IP: &str = "127.107.35.1";

/// Makes the root directory in its first argument, where the agent already is, and runs the rest
/// there: `setpriv` with its options, the agent and its arguments. The system's libraries are there
/// because this agent need not be a static executable.
const CONTAINER: &str = r#"
set -eu
root=$1
shift
mount --bind "$root" "$root"
cd "$root"
mkdir -p proc sys dev run/connstate host/sys/fs/cgroup
for name in usr bin lib lib64; do
    test -e "/$name" || continue
    mkdir -p "$name"
    mount --rbind --options ro "/$name" "$name"
done
mount --rbind /proc proc
mount --types sysfs --options ro sysfs sys
mount --rbind /sys/fs/cgroup host/sys/fs/cgroup
mount --types tmpfs --options size=1m,mode=0777 tmpfs run/connstate
mount --options remount,bind,ro "$root"
exec chroot . "$@"
"#;

/// What a pod of the base is given.
struct Pod {
    daemonset: Value,
}

impl Pod {
    fn of(directory: &str) -> Result<Self> {
        let daemonset = one(&kustomize(directory)?, "DaemonSet")?.clone();
        Ok(Self { daemonset })
    }

    fn agent(&self) -> Result<&Value> {
        agent(&self.daemonset)
    }

    /// The capabilities as setpriv calls them.
    fn capabilities(&self) -> Result<Vec<String>> {
        let added = strings(&self.agent()?["securityContext"]["capabilities"]["add"])?;
        Ok(added.iter().map(|name| name.to_lowercase()).collect())
    }

    /// The arguments, with the variable filled in as the kubelet does.
    fn arguments(&self) -> Result<Vec<String>> {
        let arguments = strings(&self.agent()?["args"])?.into_iter();
        Ok(arguments
            .map(|argument| argument.replace("$(HOST_IP)", HOST_IP))
            .collect())
    }

    fn port(&self) -> Result<u64> {
        let port = self.agent()?["ports"][0]["containerPort"].as_u64();
        port.context("no port")
    }

    /// Starts the agent with these of its capabilities, and options besides its own.
    fn start(&self, capabilities: &[String], options: &[&str]) -> Result<Running> {
        // The places that the script mounts are those of the manifest.
        let mounts = self.agent()?["volumeMounts"].as_array();
        let places: Vec<_> = mounts
            .context("no mounts")?
            .iter()
            .filter_map(|mount| mount["mountPath"].as_str())
            .collect();
        ensure!(
            places == ["/run/connstate", "/host/sys/fs/cgroup"],
            "{places:?}"
        );
        let folder = tempfile::tempdir()?;
        fs::copy(binary()?, folder.path().join("connstate-agent"))?;
        let mut set = "-all".to_owned();
        for name in capabilities {
            write!(set, ",+{name}")?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--cgroup", "sh", "-c", CONTAINER, "sh"]);
        command.arg(folder.path());
        command.args(["setpriv", "--reuid=0", "--regid=0", "--clear-groups"]);
        command.args(["--no-new-privs", "--inh-caps=-all"]);
        command.arg(format!("--bounding-set={set}"));
        command.arg("/connstate-agent").args(self.arguments()?);
        command.args(options);
        Ok(Running {
            daemon: Daemon::spawn(&mut command)?,
            _root: folder,
        })
    }
}

/// An agent, and the directory that is its root.
struct Running {
    daemon: Daemon,
    _root: TempDir,
}

/// The bit of a capability in /proc/PID/status.
fn bit(name: &str) -> Result<u64> {
    let number = match name {
        "sys_ptrace" => 19,
        "sys_admin" => 21,
        "perfmon" => 38,
        "bpf" => 39,
        other => anyhow::bail!("{other} is not known"),
    };
    Ok(1 << number)
}

#[test]
fn the_rights_given_suffice() -> Result<()> {
    const CLOSED: u16 = 12;
    const HELD: u16 = 7;
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let pod = Pod::of("base")?;
    let capabilities = pod.capabilities()?;
    let mut running = pod.start(&capabilities, &[])?;
    let daemon = &mut running.daemon;

    let pid = daemon.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = capabilities.iter().map(|name| bit(name));
    let mask = mask.sum::<Result<u64>>()?;
    let line = format!("CapBnd:\t{mask:016x}\n");
    ensure!(status.contains(&line), "no {line:?} in {status}");
    for line in [
        // Given up, but for the census's thread.
        "CapPrm:\t0000000000000000\n",
        "CapEff:\t0000000000000000\n",
        "CapAmb:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
        "Uid:\t0\t",
    ] {
        ensure!(status.contains(line), "no {line:?} in {status}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let mut top = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        (words.next()? == "/").then(|| words.next())?
    });
    let options = top.next().context("no root")?;
    ensure!(options.split(',').any(|option| option == "ro"), "{options}");
    // Root without CAP_DAC_OVERRIDE makes the socket where it may write.
    fs::symlink_metadata(format!("/proc/{pid}/root/run/connstate/api.sock"))?;

    // This address of the node, this port, and no other address.
    let address = format!("{HOST_IP}:{}", pod.port()?);
    ensure!(daemon.address().to_string() == address);
    ensure!(TcpStream::connect(("127.0.0.1", daemon.address().port())).is_err());
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = pod.agent()?[probe]["httpGet"]["path"].as_str();
        let path = path.with_context(|| format!("{probe} has no path"))?;
        ensure!(daemon.get(path)?.status == 200, "{path}");
    }

    // Sockets of another network namespace, those of a cgroup of the node among them.
    churn(&netns, CLOSED.into())?;
    let inode = netns.inode();
    let time_wait = format!("connstate_time_wait_sockets{{netns=\"{inode}\"}}");
    daemon.wait("the sockets in TIME_WAIT", |daemon| {
        let found = daemon.scrape().ok()?.value(&time_wait).ok()?;
        (found >= f64::from(CLOSED)).then_some(())
    })?;
    ensure!(
        daemon
            .scrape()?
            .value("connstate_census_unreached_namespaces")?
            < 1.0
    );
    let Some(cgroup) = Cgroup::new("manifests")? else {
        return Ok(());
    };
    let place = Place::new(Family::V4);
    let plan = Plan {
        process: "held",
        role: Role::Server(false),
        port: place.port,
        count: HELD.into(),
        thread: None,
    };
    let mut holder = Holder::start(env!("CARGO_BIN_EXE_holder"), &netns, &cgroup, &plan)?;
    holder.go_on()?;
    holder.says("listening")?;
    let clients = netns.run(|| {
        let clients = (0..HELD).map(|_| Ok(TcpStream::connect(("127.0.0.1", place.port))?));
        clients.collect::<Result<Vec<_>>>()
    })?;
    holder.says("holding")?;
    let name = cgroup.name();
    let held =
        format!("connstate_workload_sockets{{workload=\"cgroup:{name}\",state=\"established\"}}");
    daemon.wait("the cgroup's sockets by its name", |daemon| {
        let found = daemon.scrape().ok()?.value(&held).ok()?;
        (found >= f64::from(HELD)).then_some(())
    })?;
    drop(clients);
    Ok(())
}

/// As deploy/kubernetes/README.md says of each.
#[test]
fn without_one_of_two_the_other_namespaces_are_missing() -> Result<()> {
    const CLOSED: u16 = 12;
    let pod = Pod::of("base")?;
    let unreached = "connstate_census_unreached_namespaces";
    let completed = "connstate_census_last_completion_timestamp_seconds{kind=\"full\"}";
    let closes = "connstate_closes_total{cause=\"time_wait\"}";
    for without in ["sys_admin", "sys_ptrace"] {
        let mut capabilities = pod.capabilities()?;
        capabilities.retain(|name| name != without);
        let netns = Netns::new()?;
        let _inhabitant = netns.inhabit()?;
        let mut running = pod.start(&capabilities, &["--census-interval=500ms"])?;
        let daemon = &mut running.daemon;
        let before = daemon.scrape()?.value(closes)?;
        churn(&netns, CLOSED.into())?;
        // The counters have them all the same.
        daemon.wait("the closes", |daemon| {
            let found = daemon.scrape().ok()?.value(closes).ok()?;
            (found >= before + f64::from(CLOSED)).then_some(())
        })?;
        let last = daemon.scrape()?.value(completed)?;
        let after = daemon.wait("another census", |daemon| {
            let scrape = daemon.scrape().ok()?;
            (scrape.value(completed).ok()? > last).then_some(scrape)
        })?;
        let inode = netns.inode();
        let series = format!("connstate_time_wait_sockets{{netns=\"{inode}\"}}");
        ensure!(
            after.value(&series).is_err(),
            "without {without} there is {series}"
        );
        eprintln!("without {without}: {unreached} {}", after.value(unreached)?);
        if without == "sys_admin" {
            ensure!(after.value(unreached)? >= 1.0);
        }
    }
    Ok(())
}

/// As deploy/kubernetes/README.md says of these two: CAP_SYS_ADMIN contains each.
#[test]
fn without_one_of_the_other_two_every_program_runs() -> Result<()> {
    let pod = Pod::of("base")?;
    let start = |without: &[&str]| {
        let mut capabilities = pod.capabilities()?;
        capabilities.retain(|name| !without.contains(&name.as_str()));
        pod.start(&capabilities, &[])
    };
    for without in ["bpf", "perfmon"] {
        let running = start(&[without])?;
        let scrape = running.daemon.scrape()?;
        for program in PROGRAMS {
            let series = format!(
                "connstate_bpf_program_attached{{program=\"{}\"}}",
                program.name
            );
            ensure!(scrape.value(&series)? > 0.0, "{series} without {without}");
        }
        ensure!(start(&[without, "sys_admin"]).is_err(), "{without}");
    }
    Ok(())
}

#[test]
fn the_example_with_tls_serves_those_who_know_the_password() -> Result<()> {
    let pod = Pod::of("examples/tls")?;
    let option = "--web.config.file=/etc/connstate/web.yml";
    ensure!(pod.arguments()?.iter().any(|argument| argument == option));
    let volumes = &pod.daemonset["spec"]["template"]["spec"]["volumes"];
    ensure!(volumes[0]["secret"]["secretName"] == "connstate-web");
    ensure!(volumes[0]["secret"]["defaultMode"] == 0o400);
    // The secret's keys as files; certificate and key have the names that Kubernetes gives them.
    let authority = Authority::new()?;
    let pair = authority.issue("agent", &format!("IP:{HOST_IP}"))?;
    let folder = tempfile::tempdir()?;
    fs::copy(&pair.certificate, folder.path().join("tls.crt"))?;
    fs::copy(&pair.key, folder.path().join("tls.key"))?;
    let config = folder.path().join("web.yml");
    fs::copy(
        root().join("deploy/kubernetes/examples/tls/web.yml"),
        &config,
    )?;
    let config = format!("--web.config.file={}", config.display());
    let address = format!("--web.listen-address={HOST_IP}:0");
    let mut command = Command::new(binary()?);
    let daemon = Daemon::launch(command.args(["run", &address, &config]))?;
    let url = format!("https://{}/metrics", daemon.address());
    let authority = authority.certificate().display().to_string();
    ensure!(curl(&["--cacert", &authority, &url])?.status == 401);
    // The hash of the example is no password's.
    let guess = [
        "--cacert",
        &authority,
        "--user",
        "prometheus:prometheus",
        &url,
    ];
    ensure!(curl(&guess)?.status == 401);
    // Its probes are of the port.
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let probe = &pod.agent()?[probe];
        ensure!(probe["tcpSocket"]["port"] == "metrics" && probe.get("httpGet").is_none());
    }
    TcpStream::connect(daemon.address())?;
    Ok(())
}
