//! Timewait minisockets and ephemeral ports against their limits.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent::{
    census::{Census, NamespaceCensus, PortUse},
    detectors::{Reuse, Thresholds, detect},
    limits::Limits,
    workload::Workload,
};
use anyhow::{Context as _, Result, ensure};
use nix::libc::EADDRNOTAVAIL;
use socket2::Socket;
use tests::{
    censuses::{Censuses, of},
    cgroup::Cgroup,
    daemon::Daemon,
    http::{Scrape, number},
    link::netstat,
    netns::Netns,
    place::{Family, Place, own_descriptors},
    wait::{clients_in, until},
    watch::Watch,
    ways::graceful::FULL_CLOSE,
};

/// Minisockets allowed, and connections closed.
const BUCKETS: u64 = 100;
const CONNECTIONS: u64 = 1_000;

/// The ephemeral ports.
const PORTS: u64 = 100;
const RANGE: &str = "40000 40099";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Closes as many connections, each of which would pass through TIME_WAIT.
fn overflow(netns: &Netns) -> Result<()> {
    netns.run(|| {
        own_descriptors()?;
        let connections = usize::try_from(CONNECTIONS)?;
        (FULL_CLOSE.go)(&Place::new(Family::V4), connections)
    })?;
    // What the kernel counts is what the agent is held to.
    until("the kernel to count them", || {
        let overflows = netstat(netns, "TcpExt", "TCPTimeWaitOverflow")?;
        Ok(overflows == CONNECTIONS - BUCKETS)
    })
}

fn crowded() -> Result<Netns> {
    let netns = Netns::new()?;
    netns.sysctl("tcp_max_tw_buckets", &BUCKETS.to_string())?;
    Ok(netns)
}

#[test]
fn minisockets_at_their_limit_and_beyond_are_found() -> Result<()> {
    let netns = crowded()?;
    let _inhabitant = netns.inhabit()?;
    let mut watch = Watch::new(&netns)?;
    let thresholds = Thresholds::default();
    let censuses = Censuses::start(&mut watch, netns.inode(), thresholds)?;
    let mut before = censuses.next()?;
    ensure!(detect(&before, None, &thresholds).time_wait.is_empty());
    overflow(&netns)?;
    let mut overflows = 0;
    until("the overflows to be found", || {
        let census = censuses.next()?;
        let findings = detect(&census, Some(&before), &thresholds);
        before = census;
        let Some(found) = findings.time_wait.first() else {
            return Ok(false);
        };
        overflows += found.overflows;
        ensure!(overflows <= CONNECTIONS - BUCKETS, "{overflows}: {found:?}");
        let all = overflows == CONNECTIONS - BUCKETS;
        if all {
            ensure!(found.netns == netns.inode().to_string(), "{found:?}");
            ensure!(
                found.sockets == BUCKETS && found.limit == BUCKETS,
                "{found:?}"
            );
        }
        Ok(all)
    })?;
    // Told as long as there are so many, as no more than what has happened since.
    let census = censuses.fresh()?;
    let findings = detect(&census, Some(&before), &thresholds);
    let found = findings.time_wait.first().context("nothing is told")?;
    ensure!(found.overflows == 0 && found.sockets == BUCKETS);
    let counts = of(&census, &netns).context("it was not counted")?.counts;
    ensure!(counts.minisockets == BUCKETS, "{}", counts.minisockets);
    Ok(())
}

#[test]
fn the_daemon_counts_minisockets_and_overflows() -> Result<()> {
    let netns = crowded()?;
    let _inhabitant = netns.inhabit()?;
    let mut daemon = Daemon::start(&["--census-interval", "500ms"])?;
    overflow(&netns)?;
    let inode = netns.inode();
    let mut seen = [None; 3];
    let waited = daemon.wait("the overflows in /metrics", |daemon| {
        let scrape = daemon.scrape().ok()?;
        seen = ["sockets", "limit", "overflows_total"].map(|what| {
            let series = format!("connstate_time_wait_{what}{{netns=\"{inode}\"}}");
            scrape.value(&series).ok()
        });
        let expected = [BUCKETS, BUCKETS, CONNECTIONS - BUCKETS];
        (seen == expected.map(|count| Some(number(count)))).then_some(())
    });
    waited.with_context(|| format!("{seen:?}"))
}

/// A namespace with few ephemeral ports, none of which is used again out of TIME_WAIT.
fn narrow() -> Result<Netns> {
    let netns = Netns::new()?;
    netns.sysctl("ip_local_port_range", RANGE)?;
    netns.sysctl("tcp_tw_reuse", "0")?;
    Ok(netns)
}

/// Checks that a connect finds no port.
fn has_no_port(place: Place) -> Result<()> {
    let error = place.socket()?.connect(&place.address().into()).err();
    let errno = error.and_then(|error| error.raw_os_error());
    ensure!(errno == Some(EADDRNOTAVAIL), "connect() says {errno:?}");
    Ok(())
}

/// Uses so many ports toward a place, half of them in TIME_WAIT, and tries for one more.
fn use_up(place: Place, ports: u64) -> Result<Vec<Socket>> {
    let ports = usize::try_from(ports)?;
    let mut connections = place.connections(ports)?;
    let waiting = ports / 2;
    drop(connections.clients.drain(..waiting));
    drop(connections.servers.drain(..waiting));
    clients_in(place.port, "time-wait", waiting)?;
    clients_in(place.port, "established", ports - waiting)?;
    has_no_port(place)?;
    let mut held = connections.clients;
    held.append(&mut connections.servers);
    held.push(connections.listener);
    Ok(held)
}

fn toward(namespace: &NamespaceCensus, destination: SocketAddr) -> Vec<PortUse> {
    let mut ports = namespace.ports.clone();
    ports.retain(|ports| SocketAddr::new(ports.destination, ports.port) == destination);
    ports
}

/// Connects of this process's workload in `netns` to a destination.
fn connects(census: &Census, netns: &Netns, destination: SocketAddr) -> u64 {
    let mine = census.connects.iter().filter(|connects| {
        connects.netns == u64::from(netns.inode())
            && SocketAddr::new(connects.destination, connects.port) == destination
    });
    mine.map(|connects| connects.count).sum()
}

/// The workload of this process's cgroup, which is that of its sockets.
fn own_workload() -> Result<String> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(Workload::of_cgroup(path.context("no cgroup of version 2")?).name)
}

#[test]
fn ports_run_out_toward_one_destination_and_not_toward_others() -> Result<()> {
    let netns = narrow()?;
    let _inhabitant = netns.inhabit()?;
    let mut watch = Watch::new(&netns)?;
    let thresholds = Thresholds::default();
    let censuses = Censuses::start(&mut watch, netns.inode(), thresholds)?;
    let before = censuses.fresh()?;
    let netns = &netns;
    netns.run(move || {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let _held = use_up(place, PORTS)?;
        let census = censuses.fresh()?;
        let namespace = of(&census, netns).context("it was not counted")?;
        let used = PortUse {
            source: LOOPBACK,
            destination: LOOPBACK,
            port: place.port,
            used: PORTS,
        };
        ensure!(namespace.ports == [used], "{:?}", namespace.ports);
        let count = connects(&census, netns, place.address());
        ensure!(count == PORTS + 1, "{count} connects");
        let findings = detect(&census, Some(&before), &thresholds);
        let [found] = &findings.ports[..] else {
            anyhow::bail!("not one finding: {:?}", findings.ports);
        };
        eprintln!("{found:?}");
        ensure!(
            found.netns == netns.inode().to_string()
                && (found.source, found.destination, found.port)
                    == (LOOPBACK, LOOPBACK, place.port)
                && (found.used, found.available) == (PORTS, PORTS)
                && found.run_out == Some(Duration::ZERO)
                && found.reuse == Reuse::Off,
            "{found:?}"
        );
        let [connector] = &found.connectors[..] else {
            anyhow::bail!("not one connector: {found:?}");
        };
        let since = census.at.saturating_sub(before.at).as_secs_f64();
        ensure!(
            connector.workload == own_workload()?
                && (connector.per_second * since - number(PORTS + 1)).abs() < 0.01,
            "{found:?}, {since} s"
        );

        // Another port, and another address, have every local port for themselves.
        let other_address = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), place.port);
        let _listener = TcpListener::bind(other_address)?;
        let other_port = Place::new(Family::V4);
        let _others = [other_port.listen()?, other_port.connect()?, {
            let socket = place.socket()?;
            socket.connect(&other_address.into())?;
            socket
        }];
        let later = censuses.fresh()?;
        let namespace = of(&later, netns).context("it was not counted")?;
        for destination in [other_address, other_port.address()] {
            let [ports] = toward(namespace, destination)[..] else {
                anyhow::bail!("no ports toward {destination}: {:?}", namespace.ports);
            };
            ensure!(ports.used == 1, "{ports:?}");
            let count = connects(&later, netns, destination);
            ensure!(count == 1, "{count} connects to {destination}");
        }
        let findings = detect(&later, Some(&census), &thresholds);
        let told: Vec<_> = findings.ports.iter().map(|found| found.port).collect();
        ensure!(
            told == [place.port] && findings.ports[0].destination == LOOPBACK,
            "{:?}",
            findings.ports
        );
        has_no_port(place)
    })
}

#[test]
fn reserved_ports_are_not_there_to_be_used() -> Result<()> {
    let netns = narrow()?;
    let _inhabitant = netns.inhabit()?;
    netns.sysctl("ip_local_reserved_ports", "39990-39999,40010-40018,40050")?;
    let mut watch = Watch::new(&netns)?;
    let thresholds = Thresholds::default();
    let censuses = Censuses::start(&mut watch, netns.inode(), thresholds)?;
    let available = PORTS - 10;
    netns.run(move || {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let _held = use_up(place, available)?;
        let census = censuses.fresh()?;
        let findings = detect(&census, None, &thresholds);
        let [found] = &findings.ports[..] else {
            anyhow::bail!("not one finding: {:?}", findings.ports);
        };
        ensure!(
            (found.used, found.available) == (available, available),
            "{found:?}"
        );
        Ok(())
    })
}

#[test]
fn a_long_list_of_reserved_ports_is_read_whole() -> Result<()> {
    let netns = narrow()?;
    let read = || netns.run(|| Ok(Limits::read().sysctls));
    ensure!(read()?.ephemeral_ports() == Some(u32::try_from(PORTS)?));
    // Every second one of the range, and of all there are: a list that fills many pages.
    for (first, last, reserved) in [(40_000, 40_099, 50), (1, u16::MAX, 32_768)] {
        let mut list = String::new();
        for port in (first..=last).step_by(2) {
            write!(list, "{port},")?;
        }
        netns.sysctl("ip_local_reserved_ports", list.trim_end_matches(','))?;
        let sysctls = read()?;
        let count = sysctls.get("ip_local_reserved_ports");
        ensure!(count == Some(reserved), "{count:?} of {reserved} ports");
        ensure!(sysctls.ephemeral_ports() == Some(50), "{sysctls:?}");
        for port in 40_000..=40_099 {
            let expected = port % 2 != first % 2;
            ensure!(sysctls.is_ephemeral(port) == expected, "{port}");
        }
    }
    Ok(())
}

/// A process in a cgroup of its own that connects, tells how that went, and holds what it has.
struct Connector(Child);

impl Connector {
    fn start(netns: &Netns, cgroup: &Cgroup, place: Place) -> Result<Self> {
        const SCRIPT: &str = r#"
            echo $$ >"$1"
            for ((n = 0; n < $3; n++)); do exec {connection}<>"/dev/tcp/127.0.0.1/$2"; done
            if (exec {connection}<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null
            then echo "one too many"; else echo "no more"; fi
            exec sleep 600
        "#;
        let mut command = Command::new("bash");
        command.args(["-c", SCRIPT, "connector"]);
        command.arg(cgroup.processes());
        command.args([place.port.to_string(), PORTS.to_string()]);
        let mut child = netns.run(|| {
            let spawned = command.stdout(Stdio::piped()).spawn();
            spawned.context("bash cannot be run")
        })?;
        let output = child.stdout.take();
        let connector = Self(child);
        let mut line = String::new();
        BufReader::new(output.context("no standard output")?).read_line(&mut line)?;
        ensure!(line == "no more\n", "{line:?}");
        Ok(connector)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.0.kill().and_then(|()| self.0.wait().map(drop));
    }
}

#[test]
fn the_daemon_shows_ports_and_who_connects() -> Result<()> {
    let netns = narrow()?;
    let _inhabitant = netns.inhabit()?;
    let Some(cgroup) = Cgroup::new("ports")? else {
        return Ok(());
    };
    let place = Place::new(Family::V4);
    let _listener = netns.run(|| place.listen())?;
    // Room for few destinations: the fullest is shown, though others may have come first.
    let options = ["--census-interval", "500ms", "--label-sets", "20"];
    let mut daemon = Daemon::start(&options)?;
    let _connector = Connector::start(&netns, &cgroup, place)?;
    let (inode, port, name) = (netns.inode(), place.port, cgroup.name());
    let to = format!("source=\"127.0.0.1\",destination=\"127.0.0.1\",port=\"{port}\"");
    let expected = [
        (
            format!("connstate_ephemeral_ports{{netns=\"{inode}\"}}"),
            PORTS,
        ),
        (
            format!("connstate_ephemeral_ports_used{{netns=\"{inode}\",{to}}}"),
            PORTS,
        ),
        // The one that found no port is one, too.
        (
            format!("connstate_connects_total{{workload=\"cgroup:{name}\"}}"),
            PORTS + 1,
        ),
    ];
    let shown = |scrape: &Scrape| {
        let values = expected.iter().map(|(series, _)| scrape.value(series).ok());
        values.collect::<Vec<_>>()
    };
    let (mut seen, mut all) = (Vec::new(), 0);
    let waited = daemon.wait("the ports in /metrics", |daemon| {
        let scrape = daemon.scrape().ok()?;
        seen = shown(&scrape);
        all = scrape.series("connstate_ephemeral_ports_used");
        let mut both = seen.iter().zip(&expected);
        both.all(|(value, (_, expected))| *value == Some(number(*expected)))
            .then_some(())
    });
    waited.with_context(|| format!("{seen:?}; ports are used toward {all} destinations"))
}
