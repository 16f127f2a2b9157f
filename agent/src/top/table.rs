//! What the three screens with rows have in common: a cursor, and columns.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::style::Look;

/// Where the reader is in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The row under the cursor.
    pub(super) row: usize,
    /// The first row on the screen.
    pub(super) top: usize,
    /// Rows on the screen, as of the last drawing.
    pub(super) page: usize,
}

/// A way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    /// A row up.
    Up,
    /// A row down.
    Down,
    /// A screen up.
    PageUp,
    /// A screen down.
    PageDown,
    /// To the first row.
    First,
    /// To the last row.
    Last,
}

impl Cursor {
    /// Goes there, of so many rows.
    pub(super) fn go(&mut self, motion: Motion, rows: usize) {
        let page = self.page.max(1);
        self.row = match motion {
            Motion::Up => self.row.saturating_sub(1),
            Motion::Down => self.row + 1,
            Motion::PageUp => self.row.saturating_sub(page),
            Motion::PageDown => self.row + page,
            Motion::First => 0,
            Motion::Last => rows,
        };
        self.row = self.row.min(rows.saturating_sub(1));
    }

    /// Sees to it that the row is among those shown, of so many, on a screen of so many.
    pub(super) fn show(&mut self, rows: usize, page: usize) {
        self.page = page;
        self.row = self.row.min(rows.saturating_sub(1));
        let last_top = rows.saturating_sub(page);
        let least = (self.row + 1).saturating_sub(page);
        self.top = self.top.clamp(least, self.row.max(least)).min(last_top);
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub(super) title: &'static str,
    /// How wide it is; 0 for what is left, of which there is one.
    pub(super) width: u16,
    /// Whether it holds numbers.
    pub(super) number: bool,
    /// Whether the rows are sorted by it.
    pub(super) sorted: bool,
}

impl Column {
    /// Of text.
    pub(super) const fn text(title: &'static str, width: u16) -> Self {
        Self {
            title,
            width,
            number: false,
            sorted: false,
        }
    }

    /// Of numbers.
    pub(super) const fn number(title: &'static str, width: u16) -> Self {
        Self {
            number: true,
            ..Self::text(title, width)
        }
    }

    /// By which the rows are sorted, or not.
    pub(super) const fn sorted(self, sorted: bool) -> Self {
        Self { sorted, ..self }
    }
}

/// Columns laid out on a screen.
pub(super) struct Layout<'a> {
    columns: &'a [Column],
    area: Rect,
    rest: u16,
    look: Look,
}

impl<'a> Layout<'a> {
    /// On so much of the screen.
    pub(super) fn new(columns: &'a [Column], area: Rect, look: Look) -> Self {
        let fixed: u16 = columns.iter().map(|column| column.width + 1).sum();
        Self {
            columns,
            area,
            rest: (area.width + 1).saturating_sub(fixed),
            look,
        }
    }

    /// Draws the headings in a line.
    pub(super) fn headings(&self, buffer: &mut Buffer, line: u16) {
        let titles = self.columns.iter().map(|column| column.title);
        let style = Look::heading();
        self.row(buffer, line, titles, style);
        // The sign of what it is sorted by stands right of a title, and left of one of numbers.
        let (mut x, y) = (self.area.x, self.area.y + line);
        for column in self.columns {
            let width = self.width(column);
            let title = u16::try_from(column.title.len()).unwrap_or(width);
            let place = if column.number {
                (x + width).saturating_sub(title + 1)
            } else {
                x + title
            };
            if column.sorted {
                put(
                    buffer,
                    self.look,
                    (place, y),
                    self.look.signs().sorted,
                    1,
                    style,
                );
            }
            x += width + 1;
        }
    }

    fn width(&self, column: &Column) -> u16 {
        match column.width {
            0 => self.rest,
            width => width,
        }
    }

    /// Draws a row in a line.
    pub(super) fn row<'t>(
        &self,
        buffer: &mut Buffer,
        line: u16,
        texts: impl Iterator<Item = &'t str>,
        style: Style,
    ) {
        let line = self.area.y + line;
        buffer.set_style(Rect::new(self.area.x, line, self.area.width, 1), style);
        let mut x = self.area.x;
        for (column, text) in self.columns.iter().zip(texts) {
            let width = self.width(column).min(self.area.right().saturating_sub(x));
            if column.number {
                put_right(buffer, self.look, (x, line), text, width, style);
            } else {
                put(buffer, self.look, (x, line), text, width, style);
            }
            x += width + 1;
        }
    }
}

/// Writes a text, cut off with a sign where it is wider than it may be; says where it ends.
pub(super) fn put(
    buffer: &mut Buffer,
    look: Look,
    (x, y): (u16, u16),
    text: &str,
    width: u16,
    style: Style,
) -> u16 {
    if width == 0 || x >= buffer.area.right() || y >= buffer.area.bottom() {
        return x;
    }
    let (end, _) = buffer.set_stringn(x, y, text, usize::from(width), style);
    if textwrap::core::display_width(text) > usize::from(width) {
        let last = x + width - 1;
        if let Some(cell) = buffer.cell_mut((last, y)) {
            cell.set_symbol(look.signs().cut).set_style(style);
        }
    }
    end
}

/// The same, at the right edge.
pub(super) fn put_right(
    buffer: &mut Buffer,
    look: Look,
    (x, y): (u16, u16),
    text: &str,
    width: u16,
    style: Style,
) {
    let wide = u16::try_from(textwrap::core::display_width(text)).unwrap_or(u16::MAX);
    let shift = width.saturating_sub(wide);
    put(buffer, look, (x + shift, y), text, width - shift, style);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look::of(|_| None)
    }

    #[test]
    fn the_cursor_stays_among_the_rows() {
        let mut cursor = Cursor::default();
        cursor.show(0, 5);
        cursor.go(Motion::Down, 0);
        assert_eq!(cursor.row, 0);
        for (motion, row, top) in [
            (Motion::Down, 1, 0),
            (Motion::PageDown, 6, 2),
            (Motion::Last, 19, 15),
            (Motion::Down, 19, 15),
            (Motion::Up, 18, 15),
            (Motion::PageUp, 13, 13),
            (Motion::First, 0, 0),
            (Motion::Up, 0, 0),
        ] {
            cursor.go(motion, 20);
            cursor.show(20, 5);
            assert_eq!((cursor.row, cursor.top), (row, top), "{motion:?}");
        }
        // Fewer rows than before.
        cursor.go(Motion::Last, 20);
        cursor.show(3, 5);
        assert_eq!((cursor.row, cursor.top), (2, 0));
    }

    #[test]
    fn columns_share_the_line_and_cut_what_is_too_long() {
        let columns = [Column::text("NAME", 0).sorted(true), Column::number("N", 4)];
        let mut buffer = Buffer::empty(Rect::new(0, 0, 14, 3));
        let layout = Layout::new(&columns, buffer.area, look());
        layout.headings(&mut buffer, 0);
        layout.row(
            &mut buffer,
            1,
            ["a very long name", "7"].into_iter(),
            Style::new(),
        );
        layout.row(
            &mut buffer,
            2,
            ["short", "123456"].into_iter(),
            Style::new(),
        );
        buffer.set_style(buffer.area, Style::reset());
        let mut expected = Buffer::with_lines([
            "NAMEv        N", //
            "a very l~    7",
            "short     123~",
        ]);
        expected.set_style(expected.area, Style::reset());
        assert_eq!(buffer, expected);
    }
}
