//! How the screens look: colours where they are wanted, and signs that the terminal can show.
//!
//! Nothing is told by colour alone: what is wrong has a sign and a word, too. The two colours are
//! blue and orange, which people who cannot tell red from green tell apart.

use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier, Style},
    symbols::border,
};

use crate::workload::steers;

/// Colours and signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    colours: Colours,
    unicode: bool,
}

/// How many colours there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    /// None, or none are wanted.
    None,
    /// The sixteen of every terminal.
    Sixteen,
    /// Two hundred and fifty-six.
    Many,
}

/// The signs of which the screens are made.
#[derive(Debug)]
pub(super) struct Signs {
    /// Of boxes.
    pub(super) border: border::Set<'static>,
    /// Of boxes with findings.
    pub(super) loud_border: border::Set<'static>,
    /// Before what is wrong.
    pub(super) warning: &'static str,
    /// A number that has grown, not changed, and fallen in the last minute.
    pub(super) trends: [&'static str; 3],
    /// Columns of a sparkline, the lowest first.
    pub(super) spark: [&'static str; 8],
    /// The part of a bar that is used, and the one that is not.
    pub(super) bar: [&'static str; 2],
    /// Where an arrow ends.
    pub(super) down: &'static str,
    pub(super) right: &'static str,
    /// Where an arrow leaves a box: to the left, to the right, downward.
    pub(super) leaves: [&'static str; 3],
    /// What was cut off at the end of a text.
    pub(super) cut: &'static str,
    /// Beside the column by which a table is sorted.
    pub(super) sorted: &'static str,
    /// From one state to another.
    pub(super) to: &'static str,
}

static UNICODE: Signs = Signs {
    border: border::PLAIN,
    loud_border: border::THICK,
    warning: "▲",
    trends: ["↗", "→", "↘"],
    spark: ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    bar: ["█", "░"],
    down: "▼",
    right: "▶",
    leaves: ["┤", "├", "┬"],
    cut: "…",
    sorted: "▼",
    to: "→",
};

static ASCII: Signs = Signs {
    border: ASCII_BORDER,
    loud_border: border::Set {
        horizontal_top: "=",
        horizontal_bottom: "=",
        ..ASCII_BORDER
    },
    warning: "!",
    trends: ["+", "=", "-"],
    spark: ["_", ".", ":", "-", "=", "+", "*", "#"],
    bar: ["#", "."],
    down: "v",
    right: ">",
    leaves: ["+", "+", "+"],
    cut: "~",
    sorted: "v",
    to: ">",
};

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Look {
    /// What the environment asks for: `NO_COLOR`, TERM and COLORTERM, `LC_ALL`,
    /// `LC_CTYPE` and LANG.
    #[must_use]
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        // One that is set and empty is as good as unset.
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let terminal = set("TERM").unwrap_or_default();
        let colours = if set("NO_COLOR").is_some() || terminal == "dumb" {
            Colours::None
        } else if set("COLORTERM").is_some() || terminal.contains("256color") {
            Colours::Many
        } else {
            Colours::Sixteen
        };
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        Self {
            colours,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    pub(super) fn signs(self) -> &'static Signs {
        if self.unicode { &UNICODE } else { &ASCII }
    }

    /// Of headings.
    pub(super) fn heading() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of what explains, and need not be read.
    pub(super) fn quiet(self) -> Style {
        match self.colours {
            Colours::None => Style::new(),
            Colours::Sixteen => Style::new().add_modifier(Modifier::DIM),
            Colours::Many => Style::new().fg(Color::Indexed(244)),
        }
    }

    /// Of numbers and what flows.
    pub(super) fn active(self) -> Style {
        match self.colours {
            Colours::None => Style::new(),
            Colours::Sixteen => Style::new().fg(Color::Cyan),
            Colours::Many => Style::new().fg(Color::Indexed(39)),
        }
    }

    /// Of what is wrong.
    pub(super) fn warning(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match self.colours {
            Colours::None => bold,
            Colours::Sixteen => bold.fg(Color::Yellow),
            Colours::Many => bold.fg(Color::Indexed(208)),
        }
    }

    /// Of the row under the cursor, and of the screen that is shown.
    pub(super) fn chosen() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Takes away what must not reach the terminal: control characters, and those that turn the
    /// direction of the text; where it takes ASCII alone, everything else.
    pub(super) fn finish(self, buffer: &mut Buffer) {
        for cell in &mut buffer.content {
            let unfit = |sign: char| steers(sign) || !(self.unicode || sign.is_ascii());
            if cell.symbol().contains(unfit) {
                let plain = match cell.symbol() {
                    "…" => "~",
                    "–" => "-",
                    _ => "?",
                };
                cell.set_symbol(plain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, &str)]) -> Look {
        Look::of(|name| {
            let mut variables = variables.iter();
            let found = variables.find(|(of, _)| *of == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_locale_says_whether_there_is_more_than_ascii() {
        assert!(look(&[("LANG", "en_GB.UTF-8")]).unicode);
        assert!(look(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")]).unicode);
        assert!(!look(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]).unicode);
        assert!(look(&[("LC_ALL", ""), ("LANG", "en_GB.UTF-8")]).unicode);
        assert!(!look(&[]).unicode);
    }

    #[test]
    fn no_color_means_none() {
        let colours = |variables: &[_]| look(variables).colours;
        assert_eq!(colours(&[("TERM", "xterm-256color")]), Colours::Many);
        assert_eq!(colours(&[("TERM", "linux")]), Colours::Sixteen);
        assert_eq!(colours(&[("TERM", "dumb")]), Colours::None);
        let no_color = [("NO_COLOR", "1"), ("TERM", "xterm-256color")];
        assert_eq!(colours(&no_color), Colours::None);
        assert_eq!(
            colours(&[("NO_COLOR", ""), ("TERM", "linux")]),
            Colours::Sixteen
        );
    }

    #[test]
    fn what_could_steer_the_terminal_is_taken_away() {
        let mut buffer = Buffer::with_lines(["abcdé"]);
        buffer[(0, 0)].set_symbol("\u{1b}");
        buffer[(1, 0)].set_symbol("a\u{202e}");
        look(&[]).finish(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["??cd?"]));
    }

    #[test]
    fn ascii_signs_are_ascii() {
        let signs = look(&[]).signs();
        let all = [
            signs.warning,
            signs.down,
            signs.right,
            signs.cut,
            signs.sorted,
            signs.to,
        ];
        let all = all.iter().chain(&signs.trends).chain(&signs.spark);
        let all = all.chain(&signs.bar).chain(&signs.leaves);
        assert!(
            all.into_iter()
                .all(|sign| sign.is_ascii() && sign.len() == 1)
        );
    }
}
