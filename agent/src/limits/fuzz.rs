//! What must hold of any file of /proc/net and /proc/sys/net.

use super::{
    mib::Mibs,
    sockstat::Sockstat,
    sysctl::{self, Form, SYSCTLS, Setting, Sysctls},
};

/// As each of them.
pub(crate) fn files(text: &str) {
    knobs(text);
    let mut mibs = Mibs::default();
    mibs.parse("TcpExt:", text);
    mibs.parse("Tcp:", text);
    for (name, value) in mibs.iter() {
        assert!(
            text.contains(name) && text.contains(&value.to_string()),
            "{name}"
        );
    }
    let mut sockstat = Sockstat::default();
    sockstat.parse(text);
    sockstat.parse6(text);
    for value in [
        sockstat.inuse,
        sockstat.inuse6,
        sockstat.tw,
        sockstat.orphan,
    ] {
        assert!(value.is_none_or(|value| text.contains(&value.to_string())));
    }
    assert!(sockstat.full_sockets() >= sockstat.inuse);
    assert!(sockstat.has_tcp() || sockstat.full_sockets() == Some(0));
}

/// The first line is the range of ephemeral ports, the rest the list of those reserved.
fn knobs(text: &str) {
    for knob in SYSCTLS {
        match sysctl::parse(knob.form, text) {
            Some(Setting::Numbers(numbers)) => assert_eq!(numbers.len(), knob.exports().len()),
            Some(Setting::Ports(ports)) => {
                let apart = |pair: &[std::ops::RangeInclusive<u16>]| {
                    u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start())
                };
                assert!(ports.windows(2).all(apart), "{ports:?}");
                let mut ends = ports.iter().map(|ports| (ports.start(), ports.end()));
                assert!(ends.all(|(low, high)| low <= high), "{ports:?}");
            }
            None => {}
        }
    }
    let (range, reserved) = text.split_once('\n').unwrap_or((text, ""));
    let names = ["ip_local_port_range_low", "ip_local_port_range_high"];
    let [low, high] = names;
    let range = sysctl::parse(Form::Range { low, high }, range);
    let reserved = sysctl::parse(Form::Ports, reserved);
    if let (Some(Setting::Numbers(ends)), Some(Setting::Ports(reserved))) = (range, reserved) {
        let sysctls = Sysctls::new(names.into_iter().zip(ends).collect(), reserved);
        let chosen = (0..=u16::MAX).filter(|port| sysctls.is_ephemeral(*port));
        let chosen = u32::try_from(chosen.count()).ok();
        assert_eq!(sysctls.ephemeral_ports(), chosen);
    }
}
