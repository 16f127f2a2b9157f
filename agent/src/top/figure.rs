//! The figure of RFC 9293: a box for each state in which connections close, arrows between them.

use agent_ebpf::state::TcpState::{
    self, Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait,
};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    widgets::{Block, Widget as _},
};

use super::{app::App, rates::Trend, style::Look, table::put};
use crate::{api::snapshot::Snapshot, words};

/// Between two columns of boxes.
const GAP: u16 = 3;

/// The boxes and arrows.
pub(super) struct Figure<'a> {
    pub(super) app: &'a App,
    pub(super) snapshot: &'a Snapshot,
    pub(super) look: Look,
    pub(super) area: Rect,
    pub(super) box_height: u16,
    pub(super) gap: u16,
}

impl Figure<'_> {
    /// Draws it.
    pub(super) fn draw(&self, buffer: &mut Buffer) {
        let look = self.look;
        let [left, middle, right] = self.columns();
        let place = |column: Span, layer| {
            Rect::new(column.x, self.layer(layer), column.width, self.box_height)
        };
        let both = Span {
            width: middle.x + middle.width - left.x,
            ..left
        };
        for (state, column, layer) in [
            (Established, middle, 0),
            (FinWait1, left, 1),
            (CloseWait, right, 1),
            (FinWait2, left, 2),
            (Closing, middle, 2),
            (LastAck, right, 2),
            (TimeWait, both, 3),
        ] {
            self.state(buffer, place(column, layer), state);
        }
        self.closed(buffer, place(right, 3));
        let (y, style) = (self.area.y, Look::heading());
        put(
            buffer,
            look,
            (left.x, y),
            "ACTIVE: this side first",
            left.width,
            style,
        );
        put(
            buffer,
            look,
            (right.x + 1, y),
            "PASSIVE: the peer first",
            right.width - 1,
            style,
        );
        self.arrows(buffer, [left, middle, right]);
        self.rates(buffer, [left, middle, right]);
    }

    fn arrows(&self, buffer: &mut Buffer, [left, middle, right]: [Span; 3]) {
        // From a side of a box, and round a corner down.
        self.aside(
            buffer,
            (middle.x, self.layer(0) + 1),
            left.arrow(),
            self.layer(1),
        );
        self.aside(
            buffer,
            (middle.end(), self.layer(0) + 1),
            right.arrow(),
            self.layer(1),
        );
        self.aside(
            buffer,
            (left.end(), self.layer(1) + 1),
            middle.arrow(),
            self.layer(2),
        );
        // Straight down.
        let [_, _, leaves] = self.look.signs().leaves;
        for (column, layer) in [(left, 2), (right, 2), (left, 3), (middle, 3), (right, 3)] {
            let from = self.layer(layer) - self.gap - 1;
            self.set(buffer, (column.arrow(), from), leaves);
            self.down(buffer, (column.arrow(), from), self.layer(layer));
        }
        // Out of TIME_WAIT.
        let signs = self.look.signs();
        let y = self.layer(3) + 1;
        self.set(buffer, (middle.end(), y), signs.leaves[1]);
        for x in middle.end() + 1..right.x - 1 {
            self.set(buffer, (x, y), signs.border.horizontal_top);
        }
        self.set(buffer, (right.x - 1, y), signs.right);
    }

    /// An arrow from the side of a box to above another, and down to it.
    fn aside(&self, buffer: &mut Buffer, (x, y): (u16, u16), to: u16, bottom: u16) {
        let signs = self.look.signs();
        let (leaves, corner) = if to < x {
            (signs.leaves[0], signs.border.top_left)
        } else {
            (signs.leaves[1], signs.border.top_right)
        };
        self.set(buffer, (x, y), leaves);
        for x in x.min(to) + 1..x.max(to) {
            self.set(buffer, (x, y), signs.border.horizontal_top);
        }
        self.set(buffer, (to, y), corner);
        self.down(buffer, (to, y), bottom);
    }

    /// A line down to the arrow's end, which stands in the upper edge of a box.
    fn down(&self, buffer: &mut Buffer, (x, y): (u16, u16), bottom: u16) {
        let signs = self.look.signs();
        for y in y + 1..bottom {
            self.set(buffer, (x, y), signs.border.vertical_left);
        }
        self.set(buffer, (x, bottom), signs.down);
    }

    fn set(&self, buffer: &mut Buffer, place: (u16, u16), sign: &str) {
        put(buffer, self.look, place, sign, 1, self.look.active());
    }

    /// What flows along each arrow, and why: beside it, in the line before the box it leads to.
    fn rates(&self, buffer: &mut Buffer, [left, middle, right]: [Span; 3]) {
        let (look, rates) = (self.look, &self.app.rates);
        for (column, layer, why, rate) in [
            (left, 1, "close()", rates.transition(Established, FinWait1)),
            (right, 1, "FIN", rates.transition(Established, CloseWait)),
            (middle, 2, "FIN", rates.transition(FinWait1, Closing)),
            (left, 2, "ACK", rates.transition(FinWait1, FinWait2)),
            (right, 2, "close()", rates.transition(CloseWait, LastAck)),
            (left, 3, "FIN", rates.fin_wait2_to_time_wait()),
            (middle, 3, "ACK", rates.transition(Closing, Close)),
            (right, 3, "ACK", rates.transition(LastAck, Close)),
        ] {
            let rate = rate.map_or_else(|| "–".to_owned(), words::rate);
            let wide = |text: &str| u16::try_from(text.chars().count()).unwrap_or(0);
            let y = self.layer(layer) - 1;
            let x = column.arrow().saturating_sub(wide(why) + wide(&rate) + 2);
            let x = put(buffer, look, (x, y), &rate, 8, look.active());
            put(buffer, look, (x + 1, y), why, 7, look.quiet());
        }
    }

    fn columns(&self) -> [Span; 3] {
        let width = (self.area.width - 2 * GAP) / 3;
        let margin = (self.area.width - 3 * width - 2 * GAP) / 2;
        [0, 1, 2].map(|column| Span {
            x: self.area.x + margin + column * (width + GAP),
            width,
        })
    }

    /// Where a layer of boxes begins. The first two touch: the arrow between them comes from the
    /// side.
    fn layer(&self, layer: u16) -> u16 {
        let gaps = layer.saturating_sub(1) * self.gap;
        self.area.y + layer * self.box_height + gaps
    }

    /// A state: its name, how many sockets are in it, where that goes, and what was found there.
    fn state(&self, buffer: &mut Buffer, place: Rect, state: TcpState) {
        let (look, signs) = (self.look, self.look.signs());
        let found = found(self.snapshot, state);
        let inner = self.frame(buffer, place, words::state(state), found.as_deref());
        let count = self.snapshot.states.get(&state).copied().unwrap_or(0);
        let trend = match self.app.rates.trend(state) {
            Trend::Up => signs.trends[0],
            Trend::Steady => signs.trends[1],
            Trend::Down => signs.trends[2],
        };
        let count = format!("{:>9} {trend}", words::count(count));
        let style = if found.is_some() {
            look.warning()
        } else {
            Look::heading()
        };
        let end = put(buffer, look, (inner.x, inner.y), &count, inner.width, style);
        // Beside the number, or below it.
        let course = if inner.height > 1 {
            Rect::new(inner.x + 1, inner.y + 1, inner.width - 2, 1)
        } else {
            Rect::new(end + 1, inner.y, (inner.right() - end).saturating_sub(2), 1)
        };
        self.course(buffer, course, state);
    }

    /// The last minute, the newest at the right.
    fn course(&self, buffer: &mut Buffer, place: Rect, state: TcpState) {
        let signs = self.look.signs();
        let course = self.app.rates.course(state, place.width.min(60).into());
        let most = course.iter().flatten().copied().max().unwrap_or(0);
        let least = course.iter().flatten().copied().min().unwrap_or(0);
        let x = place.right() - u16::try_from(course.len()).unwrap_or(place.width);
        for (x, count) in (x..).zip(course) {
            let sign = match count {
                None => continue,
                Some(0) if most == 0 => signs.spark[0],
                Some(count) => signs.spark[height(count, least, most)],
            };
            put(buffer, self.look, (x, place.y), sign, 1, self.look.active());
        }
    }

    /// The end: how many connections are cut short.
    fn closed(&self, buffer: &mut Buffer, place: Rect) {
        let look = self.look;
        let inner = self.frame(buffer, place, words::state(Close), None);
        let cut = self.app.rates.cut_short();
        let cut = cut.map_or_else(|| "–".to_owned(), words::rate);
        let end = put(
            buffer,
            look,
            (inner.x + 1, inner.y),
            &cut,
            8,
            Look::heading(),
        );
        put(
            buffer,
            look,
            (end + 1, inner.y),
            "cut short",
            inner.width - 9,
            look.quiet(),
        );
        if inner.height > 1 {
            let text = "by a RST, a timeout, a limit";
            put(
                buffer,
                look,
                (inner.x + 1, inner.y + 1),
                text,
                inner.width - 2,
                look.quiet(),
            );
        }
    }

    fn frame(&self, buffer: &mut Buffer, place: Rect, name: &str, found: Option<&str>) -> Rect {
        let (look, signs) = (self.look, self.look.signs());
        let (border, style) = match found {
            Some(_) => (signs.loud_border, look.warning()),
            None => (signs.border, look.quiet()),
        };
        let block = Block::bordered().border_set(border).border_style(style);
        let inner = block.inner(place);
        block.render(place, buffer);
        let name = format!(" {name} ");
        put(
            buffer,
            look,
            (place.x + 1, place.y),
            &name,
            place.width - 2,
            Look::heading(),
        );
        if let Some(found) = found {
            let text = format!(" {} {found} ", signs.warning);
            let at = (place.x + 1, place.bottom() - 1);
            put(buffer, look, at, &text, place.width - 7, look.warning());
        }
        inner
    }
}

/// How high a column is, of eight. A change of less than a tenth stays small, and what does not
/// change stands in the middle.
fn height(count: u64, least: u64, most: u64) -> usize {
    if least == most {
        return 3;
    }
    let range = (most - least).max(most / 10).max(1);
    let floor = least.saturating_sub((range - (most - least).min(range)) / 2);
    let part = u128::from(count - floor) * 7 / u128::from(range);
    usize::try_from(part).unwrap_or(7).min(7)
}

/// A column of boxes.
#[derive(Clone, Copy)]
struct Span {
    x: u16,
    width: u16,
}

impl Span {
    /// Where arrows lead in and out: at the right, so that names and findings have the left.
    fn arrow(self) -> u16 {
        self.x + self.width - 5
    }

    /// The last of it.
    fn end(self) -> u16 {
        self.x + self.width - 1
    }
}

/// What was found in a state, in two words.
fn found(snapshot: &Snapshot, state: TcpState) -> Option<String> {
    let findings = &snapshot.findings;
    if state == TimeWait {
        let near = !findings.time_wait.is_empty();
        return near.then(|| "near its limit".to_owned());
    }
    let stalls = findings.stalls.iter();
    let count: u64 = stalls
        .filter(|stall| {
            stall
                .sockets
                .first()
                .is_some_and(|socket| socket.state == state)
        })
        .map(|stall| stall.count)
        // The agent may be anybody's.
        .fold(0, u64::saturating_add);
    let verb = if state == CloseWait {
        "leaked"
    } else {
        "stuck"
    };
    (count > 0).then(|| format!("{} {verb}", words::count(count)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture;

    #[test]
    fn findings_are_counted_in_their_state() {
        let snapshot = fixture::busy(0);
        let of = |state| found(&snapshot, state);
        assert_eq!(of(CloseWait).as_deref(), Some("412 leaked"));
        assert_eq!(of(FinWait1).as_deref(), Some("12 stuck"));
        assert_eq!(of(TimeWait).as_deref(), Some("near its limit"));
        assert_eq!(of(Established), None);
        assert_eq!(of(Closing), None);
    }

    #[test]
    fn columns_are_as_high_as_what_they_show() {
        assert_eq!(
            [height(0, 0, 9), height(9, 0, 9), height(5, 5, 5)],
            [0, 7, 3]
        );
        assert_eq!([height(53_000, 53_000, 53_001), height(1, 1, 2)], [3, 0]);
        // One more of a thousand is not a mountain.
        assert_eq!(
            [height(1_000, 1_000, 1_001), height(1_001, 1_000, 1_001)],
            [3, 3]
        );
    }
}
