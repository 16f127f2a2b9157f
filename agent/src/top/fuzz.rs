//! What must hold of `agent top`, whatever an agent tells it and whichever keys are pressed.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    Update,
    app::{App, Outcome},
    frame, keys,
    style::Look,
};
use crate::{
    api::{event::EventLine, events::Untold, snapshot::Snapshot},
    workload::steers,
};

/// Drawing is slow: so many keys are pressed, and so many documents told.
const KEYS: usize = 8;
const TOLD: usize = 4;

/// The first line is the keys; each of the others is told.
pub(crate) fn session(text: &str) {
    let (keys, told) = text.split_once('\n').unwrap_or((text, ""));
    let mut app = App::new("an agent");
    let Ok(mut terminal) = Terminal::new(TestBackend::new(80, 24));
    let mut now = Duration::ZERO;
    for line in told.lines().take(TOLD) {
        now += Duration::from_secs(1);
        if let Some(update) = update(line) {
            app.update(update, now);
        }
    }
    draw(&mut app, &mut terminal, now);
    for key in keys.chars().take(KEYS) {
        if press(&mut app, key) == Outcome::Quit {
            return;
        }
        draw(&mut app, &mut terminal, now);
    }
}

/// As the source reads them.
fn update(line: &str) -> Option<Update> {
    if let Ok(snapshot) = serde_json::from_str::<Snapshot>(line) {
        return Some(Update::Snapshot(Box::new(snapshot)));
    }
    let lost = serde_json::from_str::<Untold>(line).map_or(0, |untold| untold.lost);
    let lines: Vec<EventLine> = serde_json::from_str(line).into_iter().collect();
    (lost > 0 || !lines.is_empty()).then_some(Update::Events { lines, lost })
}

/// Signs that are bound to nothing stand for the keys without a character.
fn press(app: &mut App, key: char) -> Outcome {
    let code = match key {
        '$' => KeyCode::Enter,
        '%' => KeyCode::Esc,
        '&' => KeyCode::Up,
        '+' => KeyCode::Down,
        '<' => KeyCode::PageUp,
        '>' => KeyCode::PageDown,
        '[' => KeyCode::Home,
        ']' => KeyCode::End,
        '_' => KeyCode::Tab,
        '~' => KeyCode::Backspace,
        other => KeyCode::Char(other),
    };
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    keys::command(key, app.is_typing()).map_or(Outcome::Stay, |command| app.command(command))
}

fn draw(app: &mut App, terminal: &mut Terminal<TestBackend>, now: Duration) {
    let variable = |name: &str| (name == "LANG").then(|| "en_GB.UTF-8".to_owned());
    let look = Look::of(variable);
    let Ok(_drawn) = terminal.draw(|frame| frame::draw(app, frame, look, now));
    let cells = &terminal.backend().buffer().content;
    let mut signs = cells.iter().flat_map(|cell| cell.symbol().chars());
    assert!(!signs.any(steers), "{cells:?}");
}
