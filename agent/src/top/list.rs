//! A screen with rows: where the reader is in it, and what narrows it.

use ratatui::style::{Modifier, Style};

use super::{filter::Filter, style::Look, table::Cursor};

/// A screen with rows.
#[derive(Debug, Default)]
pub(super) struct List<O> {
    pub(super) cursor: Cursor,
    pub(super) filter: Filter,
    pub(super) search: Filter,
    pub(super) order: O,
}

impl<O> List<O> {
    /// What narrows it, for its title.
    pub(super) fn narrowed(&self) -> String {
        let mut text = String::new();
        for (name, filter) in [("only", &self.filter), ("search", &self.search)] {
            if !filter.is_empty() {
                text.extend(["; ", name, ": ", filter.text()]);
            }
        }
        text
    }

    /// How a row looks: reversed under the cursor, underlined where it is searched for.
    pub(super) fn style(&self, chosen: bool, found: impl Fn(&Filter) -> bool) -> Style {
        let style = if chosen { Look::chosen() } else { Style::new() };
        if !self.search.is_empty() && found(&self.search) {
            style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            style
        }
    }

    /// What is typed for a purpose.
    pub(super) fn line(&mut self, purpose: Purpose) -> &mut Filter {
        match purpose {
            Purpose::Search => &mut self.search,
            Purpose::Filter => &mut self.filter,
        }
    }
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typing {
    pub(super) purpose: Purpose,
    /// What was there before, for those who think better of it.
    pub(super) before: Filter,
}

/// What it is typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To go to what has it.
    Search,
    /// To leave out what lacks it.
    Filter,
}
