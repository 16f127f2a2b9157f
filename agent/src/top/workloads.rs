//! The screen of workloads: how many sockets each has in which state.

use std::{cmp::Reverse, collections::HashMap};

use agent_ebpf::state::TcpState;
use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    app::App,
    filter::Filter,
    style::Look,
    table::{Column, Layout, put},
};
use crate::{
    api::snapshot::{Snapshot, WorkloadSockets},
    words,
};

/// By what the workloads are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// Those with most stuck sockets first, and of these the largest.
    #[default]
    Stuck,
    /// Those with most sockets in a state first.
    State(TcpState),
    /// By name.
    Name,
}

/// The states that are told apart, in the order of the columns.
const STATES: [(TcpState, &str, u16); 5] = [
    (TcpState::Established, "ESTAB", 7),
    (TcpState::CloseWait, "CLOSE_WAIT", 10),
    (TcpState::FinWait1, "FIN_WAIT1", 9),
    (TcpState::FinWait2, "FIN_WAIT2", 9),
    (TcpState::LastAck, "LAST_ACK", 8),
];

impl Order {
    /// The one after it.
    #[must_use]
    pub(super) fn next(self) -> Self {
        let after = |place: usize| STATES.get(place).map(|(state, ..)| Self::State(*state));
        match self {
            Self::Stuck => after(0),
            Self::State(state) => {
                let place = STATES.iter().position(|(of, ..)| *of == state);
                after(place.map_or(STATES.len(), |place| place + 1))
            }
            Self::Name => Some(Self::Stuck),
        }
        .unwrap_or(Self::Name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck sockets",
            Self::State(state) => words::state(state),
            Self::Name => "name",
        }
    }
}

/// A workload, and how many of its sockets are stuck.
pub(super) struct Row<'a> {
    pub(super) workload: &'a WorkloadSockets,
    stuck: u64,
}

impl Row<'_> {
    fn count(&self, state: TcpState) -> u64 {
        self.workload.states.get(&state).copied().unwrap_or(0)
    }
}

/// The workloads that pass a filter, in order.
pub(super) fn rows<'a>(snapshot: &'a Snapshot, filter: &Filter, order: Order) -> Vec<Row<'a>> {
    let mut stuck: HashMap<&str, u64> = HashMap::new();
    for stall in &snapshot.findings.stalls {
        let count = stuck.entry(&stall.workload).or_default();
        // The agent may be anybody's.
        *count = count.saturating_add(stall.count);
    }
    let workloads = snapshot.workloads.iter();
    let mut rows: Vec<_> = workloads
        .filter(|workload| matches(workload, filter))
        .map(|workload| Row {
            workload,
            stuck: stuck.get(workload.workload.as_str()).copied().unwrap_or(0),
        })
        .collect();
    rows.sort_by(|a, b| a.workload.workload.cmp(&b.workload.workload));
    match order {
        Order::Stuck => {
            rows.sort_by_key(|row| Reverse((row.stuck, row.count(TcpState::Established))));
        }
        Order::State(state) => rows.sort_by_key(|row| Reverse(row.count(state))),
        Order::Name => {}
    }
    rows
}

/// Whether a workload has the words of a filter.
pub(super) fn matches(workload: &WorkloadSockets, filter: &Filter) -> bool {
    filter.matches(&[&workload.workload])
}

/// Draws the screen.
pub(super) fn draw(app: &mut App, buffer: &mut Buffer, area: Rect, look: Look) {
    let Some(snapshot) = app.snapshot.as_deref() else {
        return;
    };
    let list = &mut app.workloads;
    let order = list.order;
    let rows = rows(snapshot, &list.filter, order);
    let (shown, all) = (rows.len(), snapshot.workloads.len());
    let title = format!("{shown} of {all} workloads, by {}", order.name()) + &list.narrowed();
    put(
        buffer,
        look,
        (area.x + 1, area.y),
        &title,
        area.width - 2,
        Look::heading(),
    );
    let mut columns = vec![
        Column::text("", 1),
        Column::text("WORKLOAD", 0).sorted(order == Order::Name),
        Column::number("STUCK", 6).sorted(order == Order::Stuck),
    ];
    columns.extend(STATES.map(|(state, title, width)| {
        Column::number(title, width).sorted(order == Order::State(state))
    }));
    let body = Rect::new(area.x, area.y + 1, area.width - 1, area.height - 1);
    let layout = Layout::new(&columns, body, look);
    layout.headings(buffer, 0);
    let page = body.height - 1;
    list.cursor.show(rows.len(), usize::from(page));
    let visible = rows.iter().enumerate().skip(list.cursor.top);
    for (line, (index, row)) in (1..=page).zip(visible) {
        let mark = if row.stuck > 0 {
            look.signs().warning
        } else {
            ""
        };
        let stuck = words::count(row.stuck);
        let counts = STATES.map(|(state, ..)| words::count(row.count(state)));
        let texts = [mark, &row.workload.workload, &stuck];
        let texts = texts.into_iter().chain(counts.iter().map(String::as_str));
        let style = list.style(list.cursor.row == index, |search| {
            matches(row.workload, search)
        });
        let style = if row.stuck > 0 {
            look.warning().patch(style)
        } else {
            style
        };
        layout.row(buffer, line, texts, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture;

    fn names(filter: &str, order: Order) -> Vec<String> {
        let snapshot = fixture::busy(0);
        let mut words = Filter::default();
        words.set(filter);
        let rows = rows(&snapshot, &words, order);
        rows.iter()
            .map(|row| row.workload.workload.clone())
            .collect()
    }

    #[test]
    fn what_is_stuck_comes_first() {
        let names = names("", Order::Stuck);
        assert_eq!(names[..2], ["unit:api.service", "pod:0a1b2c3d/checkout"]);
        assert_eq!(names[2..], ["unit:nginx.service", "cgroup:user.slice"]);
    }

    #[test]
    fn each_column_sorts_and_after_the_last_comes_the_first() {
        let mut order = Order::default();
        let mut firsts = Vec::new();
        for _ in 0..7 {
            firsts.push(names("", order)[0].clone());
            order = order.next();
        }
        assert_eq!(order, Order::Stuck);
        let (api, pod) = ("unit:api.service", "pod:0a1b2c3d/checkout");
        let expected = [api, pod, api, pod, api, pod, "cgroup:user.slice"];
        assert_eq!(firsts, expected);
    }

    #[test]
    fn a_filter_leaves_what_matches() {
        assert_eq!(names("NGINX", Order::Name), ["unit:nginx.service"]);
    }
}
