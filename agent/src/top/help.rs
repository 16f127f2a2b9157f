//! The keys, as the table in [`super::keys`] has them, and what the signs mean.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    widgets::{Block, Clear, Widget as _},
};

use super::{
    keys::{BINDINGS, Binding, QUIT},
    style::Look,
    table::put,
};

/// The rows that name keys.
pub(super) fn rows() -> impl Iterator<Item = &'static Binding> {
    let bindings = BINDINGS.iter().chain([&QUIT]);
    bindings.filter(|binding| !binding.keys.is_empty())
}

/// Draws the keys over what is below.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, look: Look) {
    let signs = look.signs();
    let [up, steady, down] = signs.trends;
    let legend = [
        format!("{up} {steady} {down}  more, as many, fewer than a minute ago"),
        format!(
            "{}      a finding: stuck, leaked, or near a limit",
            signs.warning
        ),
        ">5m    for at least that long: older than the agent".to_owned(),
    ];
    let height = u16::try_from(rows().count() + legend.len() + 3).unwrap_or(u16::MAX);
    let (width, height) = (72.min(area.width), height.min(area.height));
    let left = area.x + (area.width - width) / 2;
    let top = area.y + (area.height - height) / 2;
    let place = Rect::new(left, top, width, height);
    Clear.render(place, buffer);
    let block = Block::bordered().border_set(signs.border).title(" Keys ");
    let inner = block.inner(place);
    block.render(place, buffer);
    let mut y = inner.y;
    for binding in rows() {
        put(
            buffer,
            look,
            (inner.x + 1, y),
            binding.keys,
            14,
            Look::heading(),
        );
        put(
            buffer,
            look,
            (inner.x + 16, y),
            binding.does,
            inner.width - 17,
            Style::new(),
        );
        y += 1;
    }
    y += 1;
    for line in legend {
        put(
            buffer,
            look,
            (inner.x + 1, y),
            &line,
            inner.width - 2,
            look.quiet(),
        );
        y += 1;
    }
}
