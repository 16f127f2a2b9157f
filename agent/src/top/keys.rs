//! Keys, and what they ask for: one table, from which the help and its documentation come.

use ratatui::crossterm::event::{
    KeyCode::{
        self, BackTab, Backspace, Char, Down, End, Enter, Esc, F, Home, Left, PageDown, PageUp,
        Right, Tab, Up,
    },
    KeyEvent, KeyEventKind, KeyModifiers,
};

use super::{app::Screen, table::Motion};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Show a screen.
    Show(Screen),
    /// Show the next one.
    NextScreen,
    /// Show the one before.
    PreviousScreen,
    /// Go up or down.
    Go(Motion),
    /// Open what is under the cursor.
    Open,
    /// Close what is open, or forget the filter.
    Back,
    /// Begin to type what to search for.
    Search,
    /// Go to the next match.
    NextMatch,
    /// Go to the one before.
    PreviousMatch,
    /// Begin to type a filter.
    Filter,
    /// Sort by another column.
    Sort,
    /// Stand still, or go on.
    Pause,
    /// Show the keys.
    Help,
    /// Close what is open, or else the program.
    Leave,
    /// Close the program.
    Quit,
    /// Another character of what is typed.
    Type(char),
    /// One fewer.
    Erase,
    /// It is typed.
    Accept,
    /// It is not wanted.
    Abandon,
}

/// A row of the table.
pub(super) struct Binding {
    codes: &'static [KeyCode],
    command: Command,
    /// The keys as people call them; empty where an earlier row names them, too.
    pub(super) keys: &'static str,
    /// What they do.
    pub(super) does: &'static str,
}

#[cfg(test)]
impl Binding {
    /// Its keys.
    pub(super) fn codes(&self) -> &'static [KeyCode] {
        self.codes
    }
}

const fn binding(
    codes: &'static [KeyCode],
    command: Command,
    keys: &'static str,
    does: &'static str,
) -> Binding {
    Binding {
        codes,
        command,
        keys,
        does,
    }
}

/// Every key but those that type.
pub(super) const BINDINGS: [Binding; 22] = [
    binding(
        &[Char('1')],
        Command::Show(Screen::States),
        "1 2 3 4",
        "states, findings, workloads, events",
    ),
    binding(&[Char('2')], Command::Show(Screen::Findings), "", ""),
    binding(&[Char('3')], Command::Show(Screen::Workloads), "", ""),
    binding(&[Char('4')], Command::Show(Screen::Events), "", ""),
    binding(
        &[Tab, Right],
        Command::NextScreen,
        "Tab Shift-Tab",
        "the next screen, the one before",
    ),
    binding(&[BackTab, Left], Command::PreviousScreen, "", ""),
    binding(
        &[Down, Char('j')],
        Command::Go(Motion::Down),
        "Up Down j k",
        "go up and down",
    ),
    binding(&[Up, Char('k')], Command::Go(Motion::Up), "", ""),
    binding(
        &[PageDown],
        Command::Go(Motion::PageDown),
        "PgUp PgDn",
        "a screen up, a screen down",
    ),
    binding(&[PageUp], Command::Go(Motion::PageUp), "", ""),
    binding(
        &[Home, Char('g')],
        Command::Go(Motion::First),
        "Home End g G",
        "the first row, the last (events: follow again)",
    ),
    binding(&[End, Char('G')], Command::Go(Motion::Last), "", ""),
    binding(
        &[Enter],
        Command::Open,
        "Enter",
        "open: a finding, a workload's findings",
    ),
    binding(&[Esc], Command::Back, "Esc", "back; forget the filter"),
    binding(
        &[Char('/'), F(3)],
        Command::Search,
        "/ F3",
        "search while typing",
    ),
    binding(
        &[Char('n')],
        Command::NextMatch,
        "n N",
        "the next match, the one before",
    ),
    binding(&[Char('N')], Command::PreviousMatch, "", ""),
    binding(
        &[Char('f'), F(4)],
        Command::Filter,
        "f F4",
        "show only: workload, process, port, cause, netns",
    ),
    binding(
        &[Char('s'), F(6)],
        Command::Sort,
        "s F6",
        "sort by the next column",
    ),
    binding(
        &[Char('p'), Char(' ')],
        Command::Pause,
        "p Space",
        "stand still, go on",
    ),
    binding(
        &[Char('?'), Char('h'), F(1)],
        Command::Help,
        "? h F1",
        "these keys",
    ),
    binding(
        &[Char('q')],
        Command::Leave,
        "q",
        "back; from a screen: quit",
    ),
];

/// What ends the program from everywhere, besides Ctrl-C.
pub(super) const QUIT: Binding = binding(&[F(10)], Command::Quit, "F10 Ctrl-C", "quit");

/// What a key asks for, while something is typed and otherwise.
pub(super) fn command(key: KeyEvent, typing: bool) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let held = key.modifiers.difference(KeyModifiers::SHIFT);
    if held == KeyModifiers::CONTROL && key.code == Char('c') || QUIT.codes.contains(&key.code) {
        return Some(Command::Quit);
    }
    if !held.is_empty() {
        return None;
    }
    if typing {
        return match key.code {
            Char(sign) => Some(Command::Type(sign)),
            Backspace => Some(Command::Erase),
            Enter => Some(Command::Accept),
            Esc => Some(Command::Abandon),
            _ => None,
        };
    }
    let mut bindings = BINDINGS.iter();
    bindings
        .find(|binding| binding.codes.contains(&key.code))
        .map(|binding| binding.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_asks_for_two_things() {
        let mut seen = Vec::new();
        for code in BINDINGS
            .iter()
            .chain([&QUIT])
            .flat_map(|binding| binding.codes)
        {
            assert!(!seen.contains(&code), "{code:?}");
            seen.push(code);
        }
    }

    #[test]
    fn each_key_asks_for_what_its_row_says() {
        for binding in BINDINGS.iter().chain([&QUIT]) {
            for code in binding.codes {
                // Terminals report Shift with capitals, or do not.
                for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
                    let key = KeyEvent::new(*code, modifiers);
                    assert_eq!(command(key, false), Some(binding.command), "{code:?}");
                }
            }
        }
    }

    #[test]
    fn while_typing_letters_are_letters_and_control_c_still_quits() {
        let press = |code| command(KeyEvent::new(code, KeyModifiers::NONE), true);
        assert_eq!(press(Char('q')), Some(Command::Type('q')));
        assert_eq!(press(Backspace), Some(Command::Erase));
        assert_eq!(press(Enter), Some(Command::Accept));
        assert_eq!(press(Esc), Some(Command::Abandon));
        assert_eq!(press(Up), None);
        for typing in [false, true] {
            let control_c = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
            assert_eq!(command(control_c, typing), Some(Command::Quit));
            let other = KeyEvent::new(Char('x'), KeyModifiers::CONTROL);
            assert_eq!(command(other, typing), None);
        }
    }

    #[test]
    fn a_key_that_is_let_go_asks_for_nothing() {
        let mut key = KeyEvent::new(Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(command(key, false), None);
    }
}
