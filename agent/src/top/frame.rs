//! The whole screen: which one is shown, how fresh it is, and what can be done on it.

use std::time::Duration;

use ratatui::{Frame, buffer::Buffer, layout::Rect, style::Style};

use super::{
    app::{App, Screen},
    diagram, feed, findings, help,
    list::Purpose,
    style::Look,
    table::{put, put_right},
    workloads,
};
use crate::{
    api::{findings::all, snapshot::Snapshot},
    words,
};

/// The least that all screens fit on.
const LEAST: (u16, u16) = (80, 24);

/// From when on a snapshot is not of now.
const STALE: Duration = Duration::from_secs(5);

/// Draws everything.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>, look: Look, now: Duration) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "too small: {}x{}, top needs {}x{}",
            area.width, area.height, LEAST.0, LEAST.1
        );
        put(
            buffer,
            look,
            (area.x, area.y),
            &text,
            area.width,
            Style::new(),
        );
    } else {
        let line = |y| Rect::new(area.x, y, area.width, 1);
        let body = Rect::new(area.x, area.y + 1, area.width, area.height - 2);
        tabs(app, buffer, line(area.y), look, now);
        screen(app, buffer, body, look);
        status(app, buffer, line(area.bottom() - 1), look);
    }
    look.finish(buffer);
}

fn screen(app: &mut App, buffer: &mut Buffer, body: Rect, look: Look) {
    if app.snapshot.is_none() && app.screen != Screen::Events {
        let text = format!("Waiting for the first census of {}.", app.source);
        put(
            buffer,
            look,
            (body.x + 1, body.y + 1),
            &text,
            body.width - 2,
            Style::new(),
        );
    } else if let Some(opened) = &mut app.opened {
        opened.draw(buffer, body, look);
    } else {
        match app.screen {
            Screen::States => diagram::draw(app, buffer, body, look),
            Screen::Findings => findings::draw(app, buffer, body, look),
            Screen::Workloads => workloads::draw(app, buffer, body, look),
            Screen::Events => feed::draw(app, buffer, body, look),
        }
    }
    if app.help {
        help::draw(buffer, body, look);
    }
}

/// The screens there are, and how fresh what they show is.
fn tabs(app: &App, buffer: &mut Buffer, area: Rect, look: Look, now: Duration) {
    let mut x = area.x + 1;
    for (number, screen) in (1..).zip(Screen::ALL) {
        let snapshot = app.snapshot.as_deref();
        let snapshot = snapshot.filter(|_| screen == Screen::Findings);
        let found = snapshot.map_or(0, |snapshot| all(&snapshot.findings).count());
        let text = match found {
            0 => format!(" {number} {} ", screen.name()),
            _ => format!(
                " {number} {} {} {found} ",
                screen.name(),
                look.signs().warning
            ),
        };
        let style = match (screen == app.screen, found > 0) {
            (true, _) => Look::heading().patch(Look::chosen()),
            (false, true) => look.warning(),
            (false, false) => Style::new(),
        };
        x = put(buffer, look, (x, area.y), &text, area.right() - x, style) + 1;
    }
    let age = app.heard.map(|heard| now.saturating_sub(heard));
    let (fresh, style) = match age {
        _ if app.paused => ("PAUSED".to_owned(), look.warning().patch(Look::chosen())),
        Some(age) if age >= STALE => {
            let age = words::brief(Duration::from_secs(age.as_secs()));
            (
                format!("{} {age} old", look.signs().warning),
                look.warning(),
            )
        }
        _ => (app.source.clone(), look.quiet()),
    };
    let left = area.right().saturating_sub(x + 2);
    put_right(buffer, look, (x + 1, area.y), &fresh, left, style);
}

/// What the numbers leave out.
fn missing(snapshot: &Snapshot) -> Option<String> {
    let mut parts = Vec::new();
    if snapshot.unreached_namespaces > 0 {
        let count = snapshot.unreached_namespaces;
        parts.push(format!("network namespaces not reached: {count}"));
    }
    if snapshot.untold_sockets > 0 {
        let count = words::count(snapshot.untold_sockets);
        parts.push(format!("sockets not told apart: {count}"));
    }
    if !snapshot.unattached_programs.is_empty() {
        let programs = snapshot.unattached_programs.join(", ");
        parts.push(format!("not running: {programs}"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What is typed, what is wrong, or what can be done here.
fn status(app: &mut App, buffer: &mut Buffer, area: Rect, look: Look) {
    let (x, width) = (area.x + 1, area.width - 2);
    if let Some(typing) = app.typing.clone() {
        let name = match typing.purpose {
            Purpose::Search => "search",
            Purpose::Filter => "only",
        };
        let text = format!("{name}: {}_", app.line(typing.purpose).text());
        let end = put(buffer, look, (x, area.y), &text, width, Look::heading());
        let hint = "Enter: keep  Esc: undo";
        put_right(
            buffer,
            look,
            (end + 1, area.y),
            hint,
            area.right() - end - 2,
            look.quiet(),
        );
        return;
    }
    if let Some(trouble) = &app.trouble {
        let text = format!("{} {trouble}", look.signs().warning);
        put(buffer, look, (x, area.y), &text, width, look.warning());
        return;
    }
    if let Some(missing) = app.snapshot.as_deref().and_then(missing) {
        let text = format!("{} {missing}; ? keys", look.signs().warning);
        put(buffer, look, (x, area.y), &text, width, look.warning());
        return;
    }
    let hints = match app.screen {
        _ if app.help => "Esc back  q back  F10 quit",
        _ if app.opened.is_some() => "Up Down PgUp PgDn scroll  Esc back  ? keys  F10 quit",
        Screen::States => "Enter findings  Tab next screen  p pause  ? keys  q quit",
        Screen::Findings => "Enter open  s sort  f filter  / search  p pause  ? keys  q quit",
        Screen::Workloads => "Enter its findings  s sort  f filter  / search  ? keys  q quit",
        Screen::Events => "Up scroll  End follow  p pause  f filter  / search  ? keys  q quit",
    };
    put(buffer, look, (x, area.y), hints, width, look.quiet());
}
