//! The screen of findings: limits first, then what is stuck.

use std::cmp::Reverse;

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    app::App,
    filter::Filter,
    finding::{age, end, matches, port, process, sentence, what, whose, why, workload},
    list::List,
    style::Look,
    table::{Column, Layout, put},
};
use crate::{
    api::{
        findings::{Finding, all},
        snapshot::Snapshot,
    },
    words,
};

/// What is said where nothing is found.
pub(super) const NOTHING: &str = "No connection is stuck on its way out, and no limit is near.";

/// Lines below the table that say the finding under the cursor in full.
const SAID: u16 = 5;

/// By what stalls are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// The oldest first.
    #[default]
    Age,
    /// Those of most sockets first.
    Count,
    /// Those of one workload together.
    Workload,
}

impl Order {
    /// The one after it.
    #[must_use]
    pub(super) fn next(self) -> Self {
        match self {
            Self::Age => Self::Count,
            Self::Count => Self::Workload,
            Self::Workload => Self::Age,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Count => "count",
            Self::Workload => "workload",
        }
    }
}

/// The findings that pass a filter, in order. Limits come first in every order.
pub(super) fn rows<'a>(snapshot: &'a Snapshot, filter: &Filter, order: Order) -> Vec<Finding<'a>> {
    let found = all(&snapshot.findings);
    let mut found: Vec<_> = found.filter(|finding| matches(finding, filter)).collect();
    let limits = |finding: &Finding<'_>| finding.age().is_some();
    // Stable: what is equal stays in the order of age, which is that of the findings.
    match order {
        Order::Age => found.sort_by_key(|finding| (limits(finding), Reverse(finding.age()))),
        Order::Count => found.sort_by_key(|finding| (limits(finding), Reverse(finding.count()))),
        Order::Workload => {
            found.sort_by(|a, b| (limits(a), workload(a)).cmp(&(limits(b), workload(b))));
        }
    }
    found
}

/// The columns there is room for.
fn columns(width: u16, order: Order) -> Vec<Column> {
    let mut columns = vec![
        Column::text("", 1),
        Column::text("STUCK IN", 10),
        Column::text("WHY", 20),
        Column::number("COUNT", 7).sorted(order == Order::Count),
        Column::number("OLDEST", 8).sorted(order == Order::Age),
        Column::text("WORKLOAD", 0).sorted(order == Order::Workload),
    ];
    if width >= 100 {
        columns.push(Column::text("PORT", 12));
    }
    if width >= 116 {
        columns.push(Column::text("PROCESS", 15));
    }
    if width >= 150 {
        columns.push(Column::text("ENDS", 30));
    }
    columns
}

/// Draws the screen.
pub(super) fn draw(app: &mut App, buffer: &mut Buffer, area: Rect, look: Look) {
    let Some(snapshot) = app.snapshot.as_deref() else {
        return;
    };
    let list = &mut app.findings;
    let found = rows(snapshot, &list.filter, list.order);
    let all = all(&snapshot.findings).count();
    let title = title(snapshot, found.len(), all, list);
    put(
        buffer,
        look,
        (area.x + 1, area.y),
        &title,
        area.width - 2,
        Look::heading(),
    );
    let body = Rect::new(area.x, area.y + 1, area.width, area.height - 1);
    if found.is_empty() {
        let text = if all == 0 {
            NOTHING
        } else {
            "No finding passes the filter. Esc forgets it."
        };
        put(
            buffer,
            look,
            (body.x + 1, body.y + 1),
            text,
            body.width - 2,
            look.active(),
        );
        return;
    }
    let columns = columns(body.width, list.order);
    let layout = Layout::new(&columns, body, look);
    layout.headings(buffer, 0);
    let page = body.height - 1 - SAID;
    list.cursor.show(found.len(), usize::from(page));
    let shown = found.iter().enumerate().skip(list.cursor.top);
    for (line, (index, finding)) in (1..=page).zip(shown) {
        let count = words::count(finding.count());
        let style = list.style(list.cursor.row == index, |search| matches(finding, search));
        let (why, age, port, end) = (why(finding), age(finding), port(finding), end(finding));
        let texts = [
            look.signs().warning,
            what(finding),
            &why,
            &count,
            &age,
            &whose(finding),
            &port,
            process(finding),
            &end,
        ];
        layout.row(buffer, line, texts.into_iter(), style);
    }
    let said = Rect::new(body.x, body.bottom() - SAID, body.width, SAID);
    if let Some(finding) = found.get(list.cursor.row) {
        say(finding, buffer, said, look);
    }
}

/// Says a finding in full below the table.
fn say(finding: &Finding<'_>, buffer: &mut Buffer, area: Rect, look: Look) {
    let line = look.signs().border.horizontal_top;
    let line = line.repeat(usize::from(area.width));
    buffer.set_stringn(area.x, area.y, line, usize::from(area.width), look.quiet());
    let mut text = sentence(finding);
    let end = end(finding);
    if !end.is_empty() {
        text.extend([". The oldest ends ", &end, "."]);
    }
    let width = area.width - 2;
    let lines = textwrap::wrap(&text, usize::from(width));
    for (y, line) in (area.y + 1..area.bottom()).zip(lines) {
        put(buffer, look, (area.x + 1, y), &line, width, look.warning());
    }
}

fn title(snapshot: &Snapshot, shown: usize, all: usize, list: &List<Order>) -> String {
    let untold = match snapshot.findings.stalls_untold + snapshot.findings.ports_untold {
        0 => String::new(),
        untold => format!("; {untold} more are not told"),
    };
    let (order, narrowed) = (list.order.name(), list.narrowed());
    format!("{shown} of {all} findings, by {order}{untold}{narrowed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        detectors::Side,
        top::{finding::identity, fixture},
    };

    fn whats(filter: &str, order: Order) -> Vec<&'static str> {
        let snapshot = fixture::busy(0);
        let mut words = Filter::default();
        words.set(filter);
        rows(&snapshot, &words, order).iter().map(what).collect()
    }

    #[test]
    fn limits_come_first_in_every_order() {
        let limits = ["orphans", "TIME_WAIT", "ports"];
        for order in [Order::Age, Order::Count, Order::Workload] {
            let mut first = whats("", order)[..3].to_vec();
            first.sort_by_key(|what| limits.iter().position(|limit| limit == what));
            assert_eq!(first, limits, "{order:?}");
        }
        let stalls = |order| whats("", order)[3..].to_vec();
        assert_eq!(
            stalls(Order::Age),
            ["CLOSE_WAIT", "FIN_WAIT2", "FIN_WAIT1", "LAST_ACK"]
        );
        assert_eq!(
            stalls(Order::Count),
            ["CLOSE_WAIT", "FIN_WAIT2", "FIN_WAIT1", "LAST_ACK"]
        );
        assert_eq!(
            stalls(Order::Workload),
            ["FIN_WAIT1", "LAST_ACK", "CLOSE_WAIT", "FIN_WAIT2"]
        );
    }

    #[test]
    fn a_filter_looks_at_all_that_matters() {
        let shown = |filter| whats(filter, Order::Age).len();
        assert_eq!(shown(""), 7);
        assert_eq!(shown("API.service"), 3);
        assert_eq!(shown("checkout"), 2);
        assert_eq!(shown("8080"), 2);
        assert_eq!(shown("drained"), 1);
        assert_eq!(shown("all read"), 1);
        assert_eq!(shown("close_wait"), 1);
        assert_eq!(shown("host"), 7);
        assert_eq!(shown("4026532761"), 0);
    }

    #[test]
    fn findings_are_told_apart_by_their_identity() {
        let mut snapshot = fixture::busy(0);
        let mut other = snapshot.findings.stalls[0].clone();
        other.side = Side::Client;
        snapshot.findings.stalls.push(other);
        let mut seen: Vec<_> = all(&snapshot.findings)
            .map(|finding| identity(&finding))
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }
}
