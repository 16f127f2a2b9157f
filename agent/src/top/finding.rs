//! What a finding says: in the columns of the table, in a sentence, and to filters.

use std::borrow::Cow;

use super::filter::Filter;
use crate::{
    api::{
        findings::{Detail, Finding, all},
        snapshot::Snapshot,
    },
    words,
};

/// The finding of most sockets; stalls before limits, since they have an owner.
pub(super) fn worst(snapshot: &Snapshot) -> Option<Finding<'_>> {
    all(&snapshot.findings).max_by_key(|finding| (finding.age().is_some(), finding.count()))
}

/// Whether a finding has the words of a filter.
pub(super) fn matches(finding: &Finding<'_>, filter: &Filter) -> bool {
    if filter.is_empty() {
        return true;
    }
    let (what, workload, port) = (what(finding), workload(finding), port(finding));
    let why = why(finding);
    let fields = [
        what,
        &why,
        workload,
        &port,
        process(finding),
        netns(finding),
        name(finding),
    ];
    filter.matches(&fields)
}

/// By what a finding is known again in the next snapshot.
pub(super) fn identity(finding: &Finding<'_>) -> String {
    let names = [
        netns(finding),
        name(finding),
        workload(finding),
        process(finding),
        &port(finding),
    ];
    match &finding.detail {
        // Who connects there changes.
        Detail::Ports(ports) => format!(
            "ports {} {} {} {}",
            ports.netns, ports.source, ports.destination, ports.port
        ),
        _ => format!("{:?} {}", finding.kind, names.join("\n")),
    }
}

/// What it is about: the state, or the limit.
pub(super) fn what(finding: &Finding<'_>) -> &'static str {
    match &finding.detail {
        Detail::Stall(stall) => {
            let oldest = stall.sockets.first();
            oldest.map_or("?", |socket| words::state(socket.state))
        }
        Detail::Orphans(_) => "orphans",
        Detail::Minisockets(_) => "TIME_WAIT",
        Detail::Ports(_) => "ports",
    }
}

/// Why, in few words.
pub(super) fn why(finding: &Finding<'_>) -> Cow<'static, str> {
    match &finding.detail {
        Detail::Stall(stall) => words::why(stall.cause).into(),
        Detail::Orphans(orphans) => limit(orphans.count, orphans.limit).into(),
        Detail::Minisockets(minisockets) => limit(minisockets.sockets, minisockets.limit).into(),
        Detail::Ports(ports) => match ports.run_out {
            Some(after) if after.is_zero() => "none is left".into(),
            Some(after) => format!("all used in {}", words::brief(after)).into(),
            None => limit(ports.used, ports.available).into(),
        },
    }
}

fn limit(count: u64, limit: u64) -> String {
    format!("{} of limit", words::share(count, limit))
}

/// The finding in full: a sentence or two.
pub(super) fn sentence(finding: &Finding<'_>) -> String {
    match &finding.detail {
        Detail::Stall(stall) => words::stall(stall),
        Detail::Orphans(orphans) => words::orphans(orphans),
        Detail::Minisockets(minisockets) => words::minisockets(minisockets),
        Detail::Ports(ports) => words::ports(ports),
    }
}

pub(super) fn age(finding: &Finding<'_>) -> String {
    finding.age().map_or_else(String::new, words::age)
}

/// What ends the oldest.
pub(super) fn end(finding: &Finding<'_>) -> String {
    match &finding.detail {
        Detail::Stall(stall) => {
            let oldest = stall.sockets.first();
            oldest.map_or_else(String::new, |socket| words::ends(socket.end))
        }
        Detail::Orphans(_) | Detail::Minisockets(_) | Detail::Ports(_) => String::new(),
    }
}

pub(super) fn workload<'a>(finding: &Finding<'a>) -> &'a str {
    match &finding.detail {
        Detail::Stall(stall) => &stall.workload,
        Detail::Orphans(_) | Detail::Minisockets(_) => "",
        Detail::Ports(ports) => ports.connectors.first().map_or("", |who| &who.workload),
    }
}

/// The workload, or of what the limit is.
pub(super) fn whose<'a>(finding: &Finding<'a>) -> Cow<'a, str> {
    match &finding.detail {
        Detail::Orphans(_) => "(the whole host)".into(),
        Detail::Minisockets(minisockets) => format!("(netns {})", minisockets.netns).into(),
        Detail::Stall(_) | Detail::Ports(_) => workload(finding).into(),
    }
}

pub(super) fn process<'a>(finding: &Finding<'a>) -> &'a str {
    match &finding.detail {
        Detail::Stall(stall) => &stall.process,
        Detail::Orphans(_) | Detail::Minisockets(_) | Detail::Ports(_) => "",
    }
}

pub(super) fn port(finding: &Finding<'_>) -> String {
    match &finding.detail {
        Detail::Stall(stall) => words::service(stall),
        Detail::Orphans(_) | Detail::Minisockets(_) => String::new(),
        Detail::Ports(ports) => ports.port.to_string(),
    }
}

pub(super) fn netns<'a>(finding: &Finding<'a>) -> &'a str {
    match &finding.detail {
        Detail::Stall(stall) => &stall.netns,
        // Of the whole host.
        Detail::Orphans(_) => "host",
        Detail::Minisockets(minisockets) => &minisockets.netns,
        Detail::Ports(ports) => &ports.netns,
    }
}

/// The cause as metrics name it, or the limit.
pub(super) fn name(finding: &Finding<'_>) -> &'static str {
    match &finding.detail {
        Detail::Stall(stall) => stall.cause.name(),
        Detail::Orphans(_) => "tcp_max_orphans",
        Detail::Minisockets(_) => "tcp_max_tw_buckets",
        Detail::Ports(_) => "ip_local_port_range",
    }
}
