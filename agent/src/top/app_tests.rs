use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    Update, Want,
    app::{App, Outcome, Screen},
    finding, findings, fixture, keys, workloads,
};
use crate::api::snapshot::Snapshot;

/// A view of the busy host, as drawn once, so that it knows how long a page is.
fn app() -> App {
    let mut app = App::new("test");
    tell(&mut app, fixture::busy(0));
    app.findings.cursor.page = 5;
    app.workloads.cursor.page = 5;
    app.events.cursor.page = 5;
    app
}

fn tell(app: &mut App, snapshot: Snapshot) {
    app.update(Update::Snapshot(Box::new(snapshot)), Duration::ZERO);
}

fn press(app: &mut App, code: KeyCode) -> Outcome {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    let command = keys::command(key, app.is_typing());
    command.map_or(Outcome::Stay, |command| app.command(command))
}

fn type_in(app: &mut App, text: &str) {
    for sign in text.chars() {
        press(app, KeyCode::Char(sign));
    }
}

/// What the finding under the cursor is about.
fn chosen(app: &App) -> &'static str {
    let list = &app.findings;
    let snapshot = app.snapshot.as_deref().unwrap();
    let rows = findings::rows(snapshot, &list.filter, list.order);
    finding::what(&rows[list.cursor.row])
}

#[test]
fn digits_and_tab_show_the_screens() {
    let mut app = app();
    for (key, screen) in [
        (KeyCode::Char('2'), Screen::Findings),
        (KeyCode::Char('3'), Screen::Workloads),
        (KeyCode::Char('4'), Screen::Events),
        (KeyCode::Char('1'), Screen::States),
        (KeyCode::Tab, Screen::Findings),
        (KeyCode::Right, Screen::Workloads),
        (KeyCode::BackTab, Screen::Findings),
        (KeyCode::Left, Screen::States),
        (KeyCode::BackTab, Screen::Events),
        (KeyCode::Tab, Screen::States),
    ] {
        press(&mut app, key);
        assert_eq!(app.screen, screen, "{key:?}");
    }
}

#[test]
fn events_are_asked_for_while_they_are_on_the_screen_alone() {
    let mut app = app();
    let mut of = |key| press(&mut app, KeyCode::Char(key));
    assert_eq!(of('4'), Outcome::Ask(Want::Events(true)));
    assert_eq!(of('4'), Outcome::Stay);
    assert_eq!(of('2'), Outcome::Ask(Want::Events(false)));
    assert_eq!(of('1'), Outcome::Stay);
}

#[test]
fn two_keys_open_the_leak_that_the_first_screen_tells() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    assert_eq!(chosen(&app), "CLOSE_WAIT");
    press(&mut app, KeyCode::Enter);
    assert!(app.opened.is_some());
}

#[test]
fn q_goes_back_and_then_quits_and_others_quit_at_once() {
    let mut app = app();
    type_in(&mut app, "2");
    press(&mut app, KeyCode::Enter);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Outcome::Stay);
    assert!(app.opened.is_none());
    assert_eq!(press(&mut app, KeyCode::Char('q')), Outcome::Quit);
    press(&mut app, KeyCode::Char('?'));
    assert!(app.help);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Outcome::Stay);
    assert!(!app.help);
    for typing in ["", "/"] {
        type_in(&mut app, typing);
        assert_eq!(press(&mut app, KeyCode::F(10)), Outcome::Quit);
    }
}

#[test]
fn escape_goes_back_and_never_quits() {
    let mut app = app();
    type_in(&mut app, "2fapi");
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Enter);
    assert!(app.opened.is_some() && !app.findings.filter.is_empty());
    press(&mut app, KeyCode::Esc);
    assert!(app.opened.is_none() && !app.findings.filter.is_empty());
    press(&mut app, KeyCode::Esc);
    assert!(app.findings.filter.is_empty());
    assert_eq!(press(&mut app, KeyCode::Esc), Outcome::Stay);
}

#[test]
fn help_has_three_keys() {
    for key in [KeyCode::Char('?'), KeyCode::Char('h'), KeyCode::F(1)] {
        let mut app = app();
        press(&mut app, key);
        assert!(app.help);
        press(&mut app, KeyCode::Esc);
        assert!(!app.help);
    }
}

#[test]
fn the_cursor_moves_as_in_htop_and_vi() {
    let mut app = app();
    press(&mut app, KeyCode::Char('2'));
    for (key, row) in [
        (KeyCode::Down, 1),
        (KeyCode::Char('j'), 2),
        (KeyCode::Up, 1),
        (KeyCode::Char('k'), 0),
        (KeyCode::PageDown, 5),
        (KeyCode::PageUp, 0),
        (KeyCode::End, 6),
        (KeyCode::Home, 0),
        (KeyCode::Char('G'), 6),
        (KeyCode::Char('g'), 0),
    ] {
        press(&mut app, key);
        assert_eq!(app.findings.cursor.row, row, "{key:?}");
    }
}

#[test]
fn s_cycles_the_order_and_the_cursor_stays_on_its_finding() {
    let mut app = app();
    type_in(&mut app, "2jjjjj");
    let before = chosen(&app);
    for order in [
        findings::Order::Count,
        findings::Order::Workload,
        findings::Order::Age,
    ] {
        press(
            &mut app,
            if order == findings::Order::Age {
                KeyCode::F(6)
            } else {
                KeyCode::Char('s')
            },
        );
        assert_eq!((app.findings.order, chosen(&app)), (order, before));
    }
    type_in(&mut app, "3s");
    assert_ne!(app.workloads.order, workloads::Order::default());
}

#[test]
fn what_is_searched_for_is_found_while_it_is_typed() {
    for begin in [KeyCode::Char('/'), KeyCode::F(3)] {
        let mut app = app();
        press(&mut app, KeyCode::Char('2'));
        press(&mut app, begin);
        type_in(&mut app, "checkout");
        assert_eq!(chosen(&app), "FIN_WAIT1");
        press(&mut app, KeyCode::Enter);
        type_in(&mut app, "n");
        assert_eq!(chosen(&app), "LAST_ACK");
        type_in(&mut app, "n");
        assert_eq!(chosen(&app), "FIN_WAIT1");
        type_in(&mut app, "N");
        assert_eq!(chosen(&app), "LAST_ACK");
    }
}

#[test]
fn a_filter_leaves_what_matches_and_may_be_abandoned() {
    for begin in [KeyCode::Char('f'), KeyCode::F(4)] {
        let mut app = app();
        press(&mut app, KeyCode::Char('2'));
        press(&mut app, begin);
        type_in(&mut app, "not cloxed");
        for _ in 0..3 {
            press(&mut app, KeyCode::Backspace);
        }
        type_in(&mut app, "sed");
        assert_eq!(app.findings.filter.text(), "not closed");
        assert_eq!(chosen(&app), "CLOSE_WAIT");
        press(&mut app, KeyCode::Esc);
        assert!(app.findings.filter.is_empty() && !app.is_typing());
    }
}

#[test]
fn on_the_diagram_a_filter_is_for_findings() {
    let mut app = app();
    type_in(&mut app, "fapi");
    assert_eq!(
        (app.screen, app.findings.filter.text()),
        (Screen::Findings, "api")
    );
}

#[test]
fn a_workload_opens_its_findings() {
    let mut app = app();
    type_in(&mut app, "3j");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Findings);
    assert_eq!(app.findings.filter.text(), "pod:0a1b2c3d/checkout");
    assert_eq!(chosen(&app), "FIN_WAIT1");
}

#[test]
fn while_it_stands_still_nothing_changes_and_then_the_newest_shows() {
    for key in [KeyCode::Char('p'), KeyCode::Char(' ')] {
        let mut app = app();
        press(&mut app, key);
        tell(&mut app, fixture::busy(1));
        tell(&mut app, fixture::busy(2));
        let at = |app: &App| app.snapshot.as_deref().unwrap().activity.at;
        assert!((at(&app) - 100.0).abs() < 1e-9);
        press(&mut app, key);
        assert!((at(&app) - 102.0).abs() < 1e-9);
    }
}

#[test]
fn the_cursor_stays_on_its_finding_when_others_come_and_go() {
    let mut app = app();
    type_in(&mut app, "2jjjjjj");
    assert_eq!(chosen(&app), "LAST_ACK");
    let mut next = fixture::busy(1);
    next.findings.orphans = None;
    next.findings.stalls.remove(0);
    tell(&mut app, next);
    assert_eq!((chosen(&app), app.findings.cursor.row), ("LAST_ACK", 4));
}

#[test]
fn what_is_open_stays_open_when_it_is_gone() {
    let mut app = app();
    type_in(&mut app, "2jjj");
    press(&mut app, KeyCode::Enter);
    let before = app.opened.clone();
    let mut next = fixture::busy(1);
    next.findings.stalls.clear();
    tell(&mut app, next);
    assert!(app.opened.is_some() && app.opened != before);
    tell(&mut app, fixture::busy(2));
    assert_eq!(app.opened, before);
}

#[test]
fn the_feed_follows_until_someone_scrolls() {
    let mut app = app();
    let events = |from| Update::Events {
        lines: (from..from + 20).map(fixture::event).collect(),
        lost: 0,
    };
    press(&mut app, KeyCode::Char('4'));
    app.update(events(0), Duration::ZERO);
    assert!(app.follows);
    for key in [KeyCode::Up, KeyCode::PageUp, KeyCode::Home] {
        press(&mut app, key);
        assert!(!app.follows, "{key:?}");
        press(&mut app, KeyCode::End);
        assert!(app.follows);
    }
    type_in(&mut app, "/again");
    assert!(!app.follows);
}

#[test]
fn trouble_lasts_until_the_next_snapshot() {
    let mut app = app();
    app.update(Update::Trouble("no connection".to_owned()), Duration::ZERO);
    assert!(app.trouble.is_some());
    tell(&mut app, fixture::busy(1));
    assert!(app.trouble.is_none());
}

#[test]
fn keys_before_the_first_snapshot_do_no_harm() {
    let mut app = App::new("test");
    for row in keys::BINDINGS.iter().flat_map(keys::Binding::codes) {
        press(&mut app, *row);
        press(&mut app, KeyCode::Enter);
    }
}
