//! Limits as bars: how much of each is used.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    style::Look,
    table::{put, put_right},
};
use crate::{
    api::snapshot::{Limited, Snapshot},
    words,
};

/// A limit, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) what: String,
    pub(super) whose: String,
    pub(super) used: Limited,
    /// Whether it is among the findings.
    pub(super) found: bool,
}

/// The limits nearest to being reached: of orphans; of minisockets in the fullest namespace; of
/// ephemeral ports toward the most crowded destination.
pub(super) fn of(snapshot: &Snapshot) -> Vec<Bar> {
    let findings = &snapshot.findings;
    let mut bars = Vec::new();
    if let Some(used) = snapshot.orphans {
        bars.push(Bar {
            what: "orphans".to_owned(),
            whose: "tcp_max_orphans".to_owned(),
            used,
            found: findings.orphans.is_some(),
        });
    }
    let namespaces = || snapshot.namespaces.iter();
    let minisockets =
        namespaces().filter_map(|namespace| Some((namespace, namespace.minisockets?)));
    if let Some((namespace, used)) = minisockets.max_by(|(_, a), (_, b)| nearer(*a, *b)) {
        let mut found = findings.time_wait.iter();
        bars.push(Bar {
            what: "TIME_WAIT".to_owned(),
            whose: format!("netns {}", namespace.netns),
            used,
            found: found.any(|found| found.netns == namespace.netns),
        });
    }
    let ports = namespaces().filter_map(|namespace| {
        let crowded = namespace.most_crowded?;
        let used = Limited {
            count: crowded.used,
            limit: namespace.ephemeral_ports?.into(),
        };
        Some((namespace, crowded, used))
    });
    if let Some((namespace, crowded, used)) = ports.max_by(|(.., a), (.., b)| nearer(*a, *b)) {
        let to = std::net::SocketAddr::new(crowded.destination, crowded.port);
        let mut found = findings.ports.iter();
        bars.push(Bar {
            what: "ports".to_owned(),
            whose: format!("to {to}"),
            used,
            found: found.any(|found| {
                (&found.netns, found.source, found.destination, found.port)
                    == (
                        &namespace.netns,
                        crowded.source,
                        crowded.destination,
                        crowded.port,
                    )
            }),
        });
    }
    bars
}

/// Which has less of its limit left, for its size.
fn nearer(a: Limited, b: Limited) -> std::cmp::Ordering {
    let cross = |of: Limited, other: Limited| u128::from(of.count) * u128::from(other.limit.max(1));
    cross(a, b).cmp(&cross(b, a))
}

/// Draws bars, one to a line.
pub(super) fn draw(bars: &[Bar], buffer: &mut Buffer, area: Rect, look: Look) {
    let signs = look.signs();
    for (y, bar) in (area.y..area.bottom()).zip(bars) {
        let style = if bar.found {
            look.warning()
        } else {
            Style::new()
        };
        if bar.found {
            put(buffer, look, (area.x, y), signs.warning, 1, style);
        }
        put(buffer, look, (area.x + 2, y), &bar.what, 9, style);
        put(buffer, look, (area.x + 12, y), &bar.whose, 22, look.quiet());
        let Limited { count, limit } = bar.used;
        let numbers = format!("{} of {}", words::count(count), words::count(limit));
        let share = words::share(count, limit);
        let (numbers_wide, share_wide) = (19, 8);
        let right = area.right() - numbers_wide;
        put_right(
            buffer,
            look,
            (right, y),
            &numbers,
            numbers_wide,
            look.quiet(),
        );
        put_right(
            buffer,
            look,
            (right - share_wide - 1, y),
            &share,
            share_wide,
            style,
        );
        let left = area.x + 35;
        let width = (right - share_wide - 1).saturating_sub(left);
        let full = part(bar.used, width);
        let [used, free] = signs.bar;
        let style = if bar.found {
            look.warning()
        } else {
            look.active()
        };
        put(
            buffer,
            look,
            (left, y),
            &used.repeat(full.into()),
            full,
            style,
        );
        let rest = width - full;
        put(
            buffer,
            look,
            (left + full, y),
            &free.repeat(rest.into()),
            rest,
            look.quiet(),
        );
    }
}

/// How many of the columns are used: one as soon as there is anything.
fn part(used: Limited, columns: u16) -> u16 {
    let full = u128::from(used.count) * u128::from(columns) / u128::from(used.limit.max(1));
    let full = u16::try_from(full).unwrap_or(columns).min(columns);
    full.max(u16::from(used.count > 0)).min(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture;

    #[test]
    fn the_fullest_are_shown() {
        let mut snapshot = fixture::busy(0);
        let bars = of(&snapshot);
        let whose: Vec<_> = bars.iter().map(|bar| bar.whose.as_str()).collect();
        assert_eq!(whose, ["tcp_max_orphans", "netns host", "to 10.0.0.9:5432"]);
        assert!(bars.iter().all(|bar| bar.found));
        // A namespace with a smaller limit is fuller with fewer.
        snapshot.namespaces[1].minisockets = Some(Limited {
            count: 99,
            limit: 100,
        });
        let bars = of(&snapshot);
        assert_eq!(bars[1].whose, "netns 4026532761");
        assert!(!bars[1].found);
        assert_eq!(of(&fixture::empty()), []);
    }

    #[test]
    fn a_bar_is_never_longer_than_its_place() {
        let part = |count, limit| part(Limited { count, limit }, 20);
        assert_eq!([part(0, 100), part(1, 1_000), part(50, 100)], [0, 1, 10]);
        assert_eq!(
            [part(200, 100), part(1, 0), part(u64::MAX, 1)],
            [20, 20, 20]
        );
    }
}
