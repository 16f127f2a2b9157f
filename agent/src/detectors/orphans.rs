//! Orphans: sockets that their process has closed and TCP still holds.
//!
//! Rule: told where the kernel's own count reaches a quarter of `tcp_max_orphans`, from where on it
//! may kill some (`tcp_too_many_orphans()`, `tcp_out_of_resources()`), or where it has killed some
//! since the last census (`TCPAbortOnMemory`). The kernel doubles the count before it compares for
//! an orphan that has not sent anything for long or is not to be reset, and doubles it again for
//! one whose path a router reported broken.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    advice::{Advice, Topic, advise},
    census::Census,
    limits::Sysctls,
};

/// How near orphans are to their limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orphans {
    /// The kernel's own count, of the whole host.
    pub count: u64,
    /// `tcp_max_orphans`.
    pub limit: u64,
    /// Which orphans may be killed at this count; nothing below a quarter of the limit.
    pub kills: Option<KillsFrom>,
    /// Orphans killed since the last census, in all namespaces.
    pub killed: u64,
    /// What can be done.
    pub advice: Vec<Advice>,
}

/// From which part of the limit on, which orphans may be killed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum KillsFrom {
    /// From a quarter on: those silent for long whose path a router reported broken.
    Quarter,
    /// From half on: those silent for long, or whose path a router reported broken.
    Half,
    /// Above it: every one that its process closes, and every one that retransmits.
    Limit,
}

impl Orphans {
    /// The kernel's count and limit, where both are known.
    #[must_use]
    pub fn of(census: &Census) -> Option<(u64, u64)> {
        Self::count(census).zip(Self::limit(census))
    }

    /// The kernel's count, which is the same in every namespace.
    #[must_use]
    pub fn count(census: &Census) -> Option<u64> {
        let mut namespaces = census.namespaces.iter();
        namespaces.find_map(|namespace| namespace.limits.sockstat.orphan)
    }

    /// `tcp_max_orphans`, which shows in the first namespace alone.
    #[must_use]
    pub fn limit(census: &Census) -> Option<u64> {
        Self::sysctls(census)?.get("tcp_max_orphans")
    }

    /// Those of the namespace that has the limit.
    fn sysctls(census: &Census) -> Option<&Sysctls> {
        let mut all = census
            .namespaces
            .iter()
            .map(|namespace| &namespace.limits.sysctls);
        all.find(|sysctls| sysctls.get("tcp_max_orphans").is_some())
    }
}

/// What is to be told of orphans.
pub(super) fn find(census: &Census, before: Option<&Census>) -> Option<Orphans> {
    let (count, limit) = Orphans::of(census)?;
    let kills = kills_from(count, limit);
    let killed = killed(census, before);
    (kills.is_some() || killed > 0).then_some(Orphans {
        count,
        limit,
        kills,
        killed,
        advice: advise(Topic::Orphans, Orphans::sysctls(census)?),
    })
}

/// Which orphans may be killed.
fn kills_from(count: u64, limit: u64) -> Option<KillsFrom> {
    if count > limit {
        Some(KillsFrom::Limit)
    } else if count.saturating_mul(2) > limit {
        Some(KillsFrom::Half)
    } else if count.saturating_mul(4) > limit {
        Some(KillsFrom::Quarter)
    } else {
        None
    }
}

fn killed(census: &Census, before: Option<&Census>) -> u64 {
    let kills = |census: &Census, inode: u64| {
        let mut namespaces = census.namespaces.iter();
        let namespace = namespaces.find(|namespace| namespace.inode == inode)?;
        namespace.limits.mibs.get("TCPAbortOnMemory")
    };
    let Some(before) = before else { return 0 };
    let namespaces = census.namespaces.iter();
    namespaces
        .filter_map(|namespace| {
            let now = kills(census, namespace.inode)?;
            let then = kills(before, namespace.inode).unwrap_or(0);
            Some(now.saturating_sub(then))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        census::NamespaceCensus,
        limits::{Limits, Mibs, Sockstat, Sysctls},
    };

    fn census(orphans: u64, killed: u64) -> Census {
        let limits = Limits {
            sysctls: Sysctls::of(&[("tcp_max_orphans", 1_000)]),
            mibs: Mibs::of(&[("TCPAbortOnMemory", killed)]),
            sockstat: Sockstat {
                orphan: Some(orphans),
                ..Sockstat::default()
            },
        };
        Census {
            namespaces: vec![NamespaceCensus {
                is_host: true,
                limits,
                ..NamespaceCensus::default()
            }],
            ..Census::default()
        }
    }

    #[test]
    fn kills_begin_at_a_quarter_of_the_limit() {
        for (count, expected) in [
            (250, None),
            (251, Some(KillsFrom::Quarter)),
            (500, Some(KillsFrom::Quarter)),
            (501, Some(KillsFrom::Half)),
            (1_000, Some(KillsFrom::Half)),
            (1_001, Some(KillsFrom::Limit)),
        ] {
            let told = find(&census(count, 0), None);
            assert_eq!(
                told.and_then(|orphans| orphans.kills),
                expected,
                "{count} orphans"
            );
        }
    }

    #[test]
    fn kills_since_the_last_census_are_told_at_any_count() {
        let told = find(&census(1, 7), Some(&census(1, 4))).unwrap();
        assert_eq!((told.killed, told.kills), (3, None));
        assert_eq!(find(&census(1, 7), Some(&census(1, 7))), None);
        assert_eq!(find(&census(1, 7), None), None, "nobody knows since when");
    }

    #[test]
    fn where_no_namespace_shows_the_limit_nothing_is_told() {
        let mut census = census(2_000, 0);
        census.namespaces[0].limits.sysctls = Sysctls::default();
        assert_eq!(find(&census, None), None);
    }
}
