//! The screen of states: the worst finding, the closing of connections as a [`Figure`], what opens
//! and why others close, and the limits.

use agent_ebpf::{close::CloseCause, state::TcpState};
use ratatui::{buffer::Buffer, layout::Rect};

use super::{app::App, bars, figure::Figure, finding, findings, style::Look, table::put};
use crate::{
    api::{findings::all, snapshot::Snapshot},
    words,
};

/// Lines of the worst finding.
const HEADLINE: u16 = 2;

/// Lines of the limits.
const BARS: u16 = 3;

/// From this height on there is a line between the parts.
const ROOMY: u16 = 26;

/// From this height on the boxes have a second line, and the arrows too.
const TALL: u16 = 34;

/// Draws the screen.
pub(super) fn draw(app: &App, buffer: &mut Buffer, area: Rect, look: Look) {
    let Some(snapshot) = app.snapshot.as_deref() else {
        return;
    };
    headline(snapshot, buffer, area, look);
    let tall = area.height >= TALL;
    let (inner, gap) = if tall { (2, 2) } else { (1, 1) };
    // Where there is room, a line between the parts.
    let between = u16::from(area.height >= ROOMY);
    let height = 4 * (inner + 2) + 2 * gap;
    let inside = Rect::new(area.x + 1, area.y, area.width - 2, area.height);
    let place = lower(inside, HEADLINE + between);
    Figure {
        app,
        snapshot,
        look,
        area: Rect { height, ..place },
        box_height: inner + 2,
        gap,
    }
    .draw(buffer);
    let place = lower(place, height + between);
    opening(app, snapshot, buffer, place, look);
    let place = lower(place, 1 + between);
    let bars = bars::of(snapshot);
    bars::draw(&bars, buffer, place, look);
    let place = lower(place, BARS + between);
    closes(app, buffer, place, look);
}

fn lower(area: Rect, by: u16) -> Rect {
    let by = by.min(area.height);
    Rect::new(area.x, area.y + by, area.width, area.height - by)
}

/// What is wrong, before all else.
fn headline(snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, look: Look) {
    let width = area.width - 2;
    let Some(worst) = finding::worst(snapshot) else {
        put(
            buffer,
            look,
            (area.x + 1, area.y),
            findings::NOTHING,
            width,
            look.active(),
        );
        return;
    };
    let worst = finding::sentence(&worst);
    let untold = snapshot.findings.stalls_untold + snapshot.findings.ports_untold;
    let others = match all(&snapshot.findings).count() - 1 + untold {
        0 => String::new(),
        others => format!("and {others} more: "),
    };
    let text = format!("{} {worst} ({others}Enter)", look.signs().warning);
    let options = textwrap::Options::new(usize::from(width)).subsequent_indent("  ");
    let mut lines = textwrap::wrap(&text, options);
    if lines.len() > usize::from(HEADLINE) {
        lines.truncate(HEADLINE.into());
        if let Some(last) = lines.last_mut() {
            last.to_mut().push_str(look.signs().cut);
        }
    }
    for (y, line) in (area.y..area.y + HEADLINE).zip(lines) {
        put(buffer, look, (area.x + 1, y), &line, width, look.warning());
    }
}

/// What begins: it does not belong to the figure, but explains it.
fn opening(app: &App, snapshot: &Snapshot, buffer: &mut Buffer, area: Rect, look: Look) {
    let count = |state| words::count(snapshot.states.get(&state).copied().unwrap_or(0));
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), words::rate);
    let opened = |from| rate(app.rates.transition(from, TcpState::Established));
    let text = format!(
        "SYN_SENT {} ({} open)  SYN_RECV {} ({} open)  LISTEN {}  retransmits {}",
        count(TcpState::SynSent),
        opened(TcpState::SynSent),
        count(TcpState::SynRecv),
        opened(TcpState::SynRecv),
        count(TcpState::Listen),
        rate(app.rates.retransmits()),
    );
    put(
        buffer,
        look,
        (area.x, area.y),
        &text,
        area.width,
        look.quiet(),
    );
}

/// Closes per second by cause, the most frequent first, as far as there is room.
fn closes(app: &App, buffer: &mut Buffer, area: Rect, look: Look) {
    let causes = CloseCause::ALL.into_iter();
    let mut closes: Vec<_> = causes
        .filter_map(|cause| Some((cause, app.rates.close(cause)?)))
        .filter(|(_, rate)| *rate >= 0.05)
        .collect();
    closes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut text = if closes.is_empty() {
        "closed: none of late".to_owned()
    } else {
        "closed:".to_owned()
    };
    for (cause, rate) in closes {
        // The space within does not break.
        text.extend(["  ", cause.name(), "\u{a0}", &words::rate(rate)]);
    }
    let lines = textwrap::wrap(&text, usize::from(area.width));
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let line = line.replace('\u{a0}', " ");
        put(buffer, look, (area.x, y), &line, area.width, look.quiet());
    }
}
