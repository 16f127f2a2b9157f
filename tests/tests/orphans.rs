//! Orphans: the kernel's own count, and how many of them are in which state.

use std::fs;

use agent::detectors::{Orphans, Thresholds};
use agent_ebpf::state::TcpState::FinWait1;
use anyhow::{Context as _, Result, ensure};
use tests::{
    censuses::{Censuses, of},
    daemon::Daemon,
    filter::{Filter, Packets},
    http::number,
    netns::Netns,
    place::{Family, Place, own_descriptors, reset},
    wait::{clients_in, until},
    watch::Watch,
};

const N: usize = 500;

/// As many orphans in FIN_WAIT1 in a namespace of their own, while `meanwhile` looks at them.
fn with_orphans(meanwhile: impl FnOnce(&Netns) -> Result<()> + Send) -> Result<()> {
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    netns.run(|| {
        own_descriptors()?;
        let place = Place::new(Family::V4);
        let connections = place.connections(N)?;
        let cut = Filter::drop(place.port, Packets::OfClient)?;
        drop(connections.clients);
        clients_in(place.port, "fin-wait-1", N)?;
        let looked = meanwhile(&netns);
        // The orphans go before what keeps them: nothing else would end them for minutes.
        reset(connections.servers)?;
        clients_in(place.port, "all", 0)?;
        drop(cut);
        looked
    })
}

/// The kernel's count, which is of the whole host.
fn by_sockstat() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let mut words = text.split_ascii_whitespace();
    let count = words.find(|word| *word == "orphan").and(words.next());
    Ok(count.context("sockstat tells of no orphans")?.parse()?)
}

#[test]
fn the_count_is_the_kernels_and_every_orphan_of_a_namespace_is_found() -> Result<()> {
    with_orphans(|netns| {
        let mut watch = Watch::new(netns)?;
        let censuses = Censuses::start(&mut watch, 0, Thresholds::default())?;
        let mut seen = String::new();
        // Others may make orphans between a census and a look at the kernel's count.
        let waited = until("the count to be the kernel's", || {
            let census = censuses.fresh()?;
            let by_kernel = by_sockstat()?;
            let counts = of(&census, netns).context("it was not counted")?.counts;
            ensure!(
                counts.orphans[FinWait1 as usize] == N as u64
                    && counts.orphans.iter().sum::<u64>() == N as u64,
                "in the namespace: {:?}",
                counts.orphans
            );
            let (count, limit) = Orphans::of(&census).context("the host's limit is not known")?;
            let found: u64 = census.total().orphans.iter().sum();
            seen = format!("{by_kernel} by sockstat, {count} told, {found} found, of {limit}");
            // A namespace that only its orphans keep cannot be entered.
            Ok(by_kernel == count && (N as u64..=count).contains(&found))
        });
        eprintln!("{seen}");
        waited.context(seen)
    })
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers")]
fn the_daemon_shows_the_kernels_count_and_its_limit() -> Result<()> {
    // Only the first namespace shows it.
    let limit = fs::read_to_string("/proc/sys/net/ipv4/tcp_max_orphans")?;
    let limit: u64 = limit.trim_end().parse()?;
    with_orphans(|_| {
        let mut daemon = Daemon::start(&["--census-interval", "500ms"])?;
        let mut seen = String::new();
        let waited = daemon.wait("the kernel's count in /metrics", |daemon| {
            let scrape = daemon.scrape().ok()?;
            let by_kernel = by_sockstat().ok()?;
            let told = scrape.value("connstate_orphans").ok()?;
            let shown = scrape.value("connstate_orphans_limit").ok()?;
            let in_fin_wait1 = "connstate_orphan_sockets{state=\"fin_wait1\"}";
            let fin_wait1 = scrape.value(in_fin_wait1).ok()?;
            seen = format!(
                "{by_kernel} by sockstat, {told} told, {fin_wait1} in FIN_WAIT1, limit {shown}"
            );
            let right = told == number(by_kernel)
                && (number(N as u64)..=told).contains(&fin_wait1)
                && shown == number(limit);
            right.then_some(())
        });
        eprintln!("{seen}");
        waited.context(seen)
    })
}
