//! The screen of events, as they happen: the newest at the bottom.

use std::{collections::VecDeque, fmt::Write as _};

use agent_ebpf::state::TcpState;
use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    app::App,
    filter::Filter,
    style::Look,
    table::{Column, Layout, put},
};
use crate::{
    api::event::{EventLine, Kind},
    words,
};

/// Lines that are kept.
const KEPT: usize = 1_000;

/// Events of late, and what is missing among them.
#[derive(Debug, Default)]
pub(super) struct Feed {
    entries: VecDeque<Entry>,
    /// Events that were lost on the way since the feed began.
    lost: u64,
    /// Events that came since then.
    came: u64,
}

/// A line of the feed.
#[derive(Debug)]
pub(super) enum Entry {
    /// An event.
    Event(Box<EventLine>),
    /// So many were lost here.
    Lost(u64),
    /// So many came here while the feed stood still, and found no room.
    Passed(u64),
}

impl Feed {
    /// Takes in events, and how many were lost before them. While the feed stands still, nothing
    /// that it shows goes: what finds no room is counted.
    pub(super) fn take(&mut self, lines: Vec<EventLine>, lost: u64, still: bool) {
        // The agent may be anybody's.
        self.lost = self.lost.saturating_add(lost);
        self.came += lines.len() as u64;
        if lost > 0 {
            match self.entries.back_mut() {
                Some(Entry::Lost(before)) => *before = before.saturating_add(lost),
                _ => self.push(Entry::Lost(lost), still),
            }
        }
        for line in lines {
            self.push(Entry::Event(Box::new(line)), still);
        }
    }

    fn push(&mut self, entry: Entry, still: bool) {
        if !still {
            // Of those that had stood still, there may be one more.
            while self.entries.len() >= KEPT {
                self.entries.pop_front();
            }
        } else if self.entries.len() >= KEPT - 1 {
            let passed = match entry {
                Entry::Event(_) => 1,
                Entry::Lost(count) | Entry::Passed(count) => count,
            };
            match self.entries.back_mut() {
                Some(Entry::Passed(before)) => *before = before.saturating_add(passed),
                _ => self.entries.push_back(Entry::Passed(passed)),
            }
            return;
        }
        self.entries.push_back(entry);
    }

    /// The lines that pass a filter, the newest last. What is missing passes every one.
    pub(super) fn rows(&self, filter: &Filter) -> Vec<&Entry> {
        let entries = self.entries.iter();
        entries
            .filter(|entry| filter.is_empty() || entry.matches(filter).unwrap_or(true))
            .collect()
    }
}

impl Entry {
    /// Whether an event has the words of a filter; nothing where it is none.
    pub(super) fn matches(&self, filter: &Filter) -> Option<bool> {
        let Self::Event(event) = self else {
            return None;
        };
        let netns = event.netns.map(|netns| netns.to_string());
        let pid = event.pid.map(|pid| pid.to_string());
        let fields = [
            &*what(event),
            &event.local.to_string(),
            &event.remote.to_string(),
            netns.as_deref().unwrap_or_default(),
            pid.as_deref().unwrap_or_default(),
            event.process.as_deref().unwrap_or_default(),
            event.cause.map_or("", |cause| cause.name()),
        ];
        Some(filter.matches(&fields))
    }
}

/// What happened: from where to where, or what was sent again.
fn what(event: &EventLine) -> String {
    match event.event {
        Kind::Transition => {
            // As ss calls it: the column is narrow.
            let name = |state| match state {
                Some(TcpState::Established) => "ESTAB",
                other => other.map_or("?", words::state),
            };
            format!("{} → {}", name(event.from), name(event.to))
        }
        Kind::Retransmit => {
            let packet = event.packet.map_or("segment", |packet| packet.name());
            let trigger = event.trigger.map_or("?", |trigger| trigger.name());
            format!("{} again ({trigger})", packet.to_uppercase())
        }
    }
}

/// How long it had been in the state that it left.
fn after(event: &EventLine) -> String {
    match event.ms {
        None => String::new(),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0}ms"),
        Some(ms) if ms < 100_000.0 => format!("{:.1}s", ms / 1e3),
        Some(ms) => format!("{:.0}s", ms / 1e3),
    }
}

/// Whose it was, and why it closed.
fn who(event: &EventLine) -> String {
    let process = event.process.as_deref().unwrap_or_default();
    let holder = match event.pid {
        _ if event.orphan => "orphan".to_owned(),
        Some(pid) => format!("{process}[{pid}]"),
        None => process.to_owned(),
    };
    match event.cause {
        Some(cause) => format!("{holder} {}", cause.name()).trim_start().to_owned(),
        None => holder,
    }
}

/// The time of day, in UTC.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of day, whatever was told"
)]
fn clock(time: f64, to_the_millisecond: bool) -> String {
    let ms = (time * 1e3) as u64 % 86_400_000;
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let mut text = format!("{:02}:{:02}:{second:02}", minutes / 60, minutes % 60);
    if to_the_millisecond {
        // Writing to a String cannot fail.
        let _written = write!(text, ".{ms:03}");
    }
    text
}

/// Draws the screen.
pub(super) fn draw(app: &mut App, buffer: &mut Buffer, area: Rect, look: Look) {
    let list = &mut app.events;
    let rows = app.feed.rows(&list.filter);
    let state = match (app.paused, app.follows) {
        (true, _) => "standing still (p: go on)",
        (_, false) => "scrolled (End: follow again)",
        _ => "following",
    };
    let came = words::count(app.feed.came);
    let missing = match app.feed.lost {
        0 => "none missing".to_owned(),
        count => format!("{} {} missing", look.signs().warning, words::count(count)),
    };
    let title = format!("{came} events, {missing}; {state}; times in UTC") + &list.narrowed();
    put(
        buffer,
        look,
        (area.x + 1, area.y),
        &title,
        area.width - 2,
        Look::heading(),
    );
    // Where there is no room for addresses, the local port and the remote address must do.
    let wide = area.width >= 110;
    let mut columns = vec![
        Column::text("TIME", if wide { 12 } else { 8 }),
        Column::text("WHAT", 21),
        Column::number("AFTER", 6),
        if wide {
            Column::text("LOCAL", 21)
        } else {
            Column::text("PORT", 5)
        },
        Column::text("REMOTE", if wide { 21 } else { 19 }),
        Column::text("WHO, WHY", 0),
    ];
    if area.width >= 160 {
        columns[3].width = 42;
        columns[4].width = 42;
    }
    let body = Rect::new(area.x + 1, area.y + 1, area.width - 2, area.height - 1);
    let layout = Layout::new(&columns, body, look);
    layout.headings(buffer, 0);
    let page = body.height - 1;
    if app.follows {
        list.cursor.row = rows.len();
    }
    list.cursor.show(rows.len(), usize::from(page));
    if rows.is_empty() {
        let text = "Nothing has come yet.";
        put(
            buffer,
            look,
            (body.x, body.y + 2),
            text,
            body.width,
            look.quiet(),
        );
    }
    let shown = rows.iter().enumerate().skip(list.cursor.top);
    for (line, (index, entry)) in (1..=page).zip(shown) {
        let found = |search: &Filter| entry.matches(search).unwrap_or(false);
        let chosen = !app.follows && list.cursor.row == index;
        let style = list.style(chosen, found);
        match entry {
            Entry::Event(event) => {
                let what = what(event).replace('→', look.signs().to);
                let (time, after, who) = (clock(event.time, wide), after(event), who(event));
                let local = if wide {
                    event.local.to_string()
                } else {
                    event.local.port().to_string()
                };
                let remote = event.remote.to_string();
                let texts = [&time, &what, &after, &local, &remote, &who];
                layout.row(buffer, line, texts.into_iter().map(String::as_str), style);
            }
            Entry::Lost(count) | Entry::Passed(count) => {
                let why = match entry {
                    Entry::Lost(_) => "are missing: they came faster than anyone reads",
                    _ => "passed while this stood still",
                };
                let count = words::count(*count);
                let text = format!("{} {count} events {why}", look.signs().warning);
                let style = look.warning().patch(style);
                put(
                    buffer,
                    look,
                    (body.x, body.y + line),
                    &text,
                    body.width,
                    style,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::event;

    fn shown(feed: &Feed) -> Vec<String> {
        let rows = feed.rows(&Filter::default());
        let text = |entry: &&Entry| match entry {
            Entry::Event(event) => event.cookie.unwrap_or(0).to_string(),
            Entry::Lost(count) => format!("lost {count}"),
            Entry::Passed(count) => format!("passed {count}"),
        };
        rows.iter().map(text).collect()
    }

    #[test]
    fn losses_stand_where_they_were() {
        let mut feed = Feed::default();
        feed.take(vec![event(1)], 0, false);
        feed.take(Vec::new(), 3, false);
        feed.take(vec![event(2)], 4, false);
        assert_eq!(shown(&feed), ["1", "lost 7", "2"]);
        assert_eq!((feed.lost, feed.came), (7, 2));
    }

    #[test]
    fn no_more_than_a_thousand_lines_are_kept() {
        let mut feed = Feed::default();
        feed.take((0..2_500).map(event).collect(), 0, false);
        assert_eq!(feed.entries.len(), KEPT);
        assert_eq!(shown(&feed)[0], "1500");
    }

    #[test]
    fn what_stands_still_stays_and_what_passes_is_counted() {
        let mut feed = Feed::default();
        feed.take((0..990).map(event).collect(), 0, false);
        feed.take((990..2_000).map(event).collect(), 5, true);
        feed.take(Vec::new(), 6, true);
        let lines = shown(&feed);
        assert_eq!(lines.len(), KEPT);
        assert_eq!((lines[0].as_str(), lines[990].as_str()), ("0", "lost 5"));
        assert_eq!(lines[999], format!("passed {}", 1_010 - 8 + 6));
        feed.take(vec![event(3_000)], 0, false);
        let lines = shown(&feed);
        assert_eq!((lines.len(), lines[999].as_str()), (KEPT, "3000"));
    }

    #[test]
    fn a_filter_looks_at_what_a_line_shows() {
        let mut feed = Feed::default();
        feed.take((0..5).map(event).collect(), 1, false);
        let count = |text: &str| {
            let mut filter = Filter::default();
            filter.set(text);
            feed.rows(&filter).len()
        };
        // The loss passes every filter.
        assert_eq!(count("api"), 1 + 4);
        assert_eq!(count("fin again"), 1 + 1);
        assert_eq!(count(":8080 last_ack"), 1 + 4);
        assert_eq!(count("4026531840"), 1 + 5);
        assert_eq!(count("nginx"), 1);
    }

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(clock(1_700_000_000.25, true), "22:13:20.250");
        assert_eq!(clock(-1.0, false), "00:00:00");
        let mut of = event(0);
        let times = [0.4, 999.0, 61_000.0, 4e6].map(|ms| {
            of.ms = Some(ms);
            after(&of)
        });
        assert_eq!(times, ["0ms", "999ms", "61.0s", "4000s"]);
    }
}
