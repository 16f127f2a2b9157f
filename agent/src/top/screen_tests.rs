use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    Update,
    app::{App, Screen},
    fixture, frame, help, keys,
    style::Look,
};

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (120, 40);

fn look(variables: &[(&str, &str)]) -> Look {
    Look::of(|name| {
        let mut variables = variables.iter();
        let found = variables.find(|(of, _)| *of == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn usual() -> Look {
    look(&[("LANG", "en_GB.UTF-8"), ("TERM", "xterm-256color")])
}

/// A minute of the busy host, with events.
fn app() -> App {
    let mut app = App::new("/run/connstate/api.sock");
    for second in 0..60 {
        let snapshot = Box::new(fixture::busy(second));
        app.update(
            Update::Snapshot(snapshot),
            Duration::from_secs(second.into()),
        );
    }
    for second in 0..30 {
        let update = Update::Events {
            lines: vec![fixture::event(second)],
            lost: if second == 20 { 1_234 } else { 0 },
        };
        app.update(update, Duration::from_mins(1));
    }
    app
}

fn drawn(app: &mut App, (width, height): (u16, u16), look: Look) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = Duration::from_mins(1);
    terminal
        .draw(|frame| frame::draw(app, frame, look, now))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn press(app: &mut App, keys: &str) {
    for sign in keys.chars() {
        let code = if sign == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(sign)
        };
        let key = KeyEvent::new(code, KeyModifiers::NONE);
        if let Some(command) = keys::command(key, app.is_typing()) {
            let _ = app.command(command);
        }
    }
}

fn shown(keys: &str, size: (u16, u16)) -> String {
    let mut app = app();
    press(&mut app, keys);
    text(&drawn(&mut app, size, usual()))
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// Compares a screen with the golden one, and the one in the documentation.
fn golden(name: &str, text: &str) {
    let path = format!("{}/src/top/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/top.md");
    let mark = format!("<!-- {name} -->\n```text\n");
    if std::env::var_os("CONNSTATE_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        let old = std::fs::read_to_string(page).unwrap();
        if let Some((before, rest)) = old.split_once(&mark) {
            let (_, after) = rest.split_once("```").unwrap();
            std::fs::write(page, format!("{before}{mark}{text}```{after}")).unwrap();
        }
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.contains(&format!("{mark}{text}```")),
        "docs/top.md shows another {name}"
    );
}

/// In one test: they write to one page.
#[test]
fn screens_are_the_golden_ones_and_those_of_the_documentation() {
    golden("states", &shown("", SMALL));
    golden("findings", &shown("2jjj", SMALL));
    golden("finding", &shown("2jjj\n", SMALL));
    golden("workloads", &shown("3", SMALL));
    golden("events", &shown("4", SMALL));
    golden("keys", &shown("?", SMALL));
}

#[test]
fn the_diagram_shows_states_rates_limits_and_findings() {
    for size in [SMALL, LARGE] {
        let text = shown("", size);
        has(
            &text,
            &[
                "ACTIVE: this side first",
                "PASSIVE: the peer first",
                "ESTABLISHED",
                "12 347 →",
                "104/s close()",
                "99.0/s FIN".replace("99.0", "99").as_str(),
                "103/s ACK",
                "102/s FIN",
                "1.0/s ACK",
                "95/s close()",
                "4.0/s cut short",
                "▲ 412 leaked",
                "▲ 12 stuck",
                "▲ near its limit",
                "648 ↗",
                "SYN_SENT 3 (105/s open)",
                "retransmits 12/s",
                "31.2 %",
                "20 480 of 65 536",
                "to 10.0.0.9:5432",
                "time_wait 101/s",
                "reset_received 3.0/s",
                "and 6 more: Enter",
                "412 sockets in CLOSE_WAIT of api[812] in",
            ],
        );
    }
}

#[test]
fn findings_say_what_whose_and_why_in_words() {
    for size in [SMALL, LARGE] {
        let text = shown("2jjj", size);
        has(
            &text,
            &[
                "7 of 7 findings, by age",
                "orphans",
                "31.2 % of limit",
                "all used in 25s",
                "CLOSE_WAIT all read, not closed",
                "412",
                ">1h6m",
                "unit:api.service",
                "peer does not answer",
                "the process has read everything",
                "The oldest ends",
            ],
        );
    }
    has(&shown("2", LARGE), &["8080/server", "PROCESS"]);
    has(&shown("2s", SMALL), &["▼COUNT", "by count"]);
    has(
        &shown("2fcheckout\n", SMALL),
        &["2 of 7 findings", "only: checkout"],
    );
}

#[test]
fn a_finding_is_named_by_two_keys_and_its_advice_fits_the_smallest_screen() {
    let text = shown("2jjj\n", SMALL);
    has(
        &text,
        &[
            "What to do",
            "> application:",
            "api, pids 812 813",
            "more lines",
        ],
    );
    has(
        &shown("2jjj\n", LARGE),
        &["10.0.0.1:8080 to 10.0.3.4:40001", "peer's window 64256 B"],
    );
}

#[test]
fn workloads_show_their_states_and_what_is_stuck() {
    for size in [SMALL, LARGE] {
        let text = shown("3", size);
        has(
            &text,
            &[
                "unit:nginx.service",
                "2 400",
                "ESTAB",
                "CLOSE_WAIT",
                "LAST_ACK",
                "432",
            ],
        );
    }
}

#[test]
fn events_show_what_happened_and_what_was_lost() {
    for size in [SMALL, LARGE] {
        let text = shown("4", size);
        has(
            &text,
            &[
                "CLOSE_WAIT → LAST_ACK",
                "1.2s",
                "FIN again (rto)",
                "▲ 1 234 missing",
                "following",
            ],
        );
        has(
            &text,
            &["1 234 events are missing", "api[812]", "10.0.3.4:40000"],
        );
    }
}

#[test]
fn what_the_numbers_leave_out_is_said() {
    let mut app = App::new("test");
    let mut snapshot = fixture::empty();
    snapshot.unreached_namespaces = 2;
    snapshot.unattached_programs = vec!["census_owners".to_owned()];
    app.update(Update::Snapshot(Box::new(snapshot)), Duration::ZERO);
    let text = text(&drawn(&mut app, SMALL, usual()));
    let said = "network namespaces not reached: 2; not running: census_owners";
    has(&text, &[said]);
}

#[test]
fn help_and_documentation_have_every_key() {
    let text = shown("?", SMALL);
    let page = include_str!("../../../docs/top.md");
    for row in help::rows() {
        has(&text, &[row.keys, row.does]);
        assert!(
            page.contains(&format!("| {} | {} |", row.keys, row.does)),
            "docs/top.md lacks {}",
            row.keys
        );
    }
}

#[test]
fn without_news_it_says_how_old_it_is() {
    let mut app = app();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let now = Duration::from_secs(59 + 130);
    terminal
        .draw(|frame| frame::draw(&mut app, frame, usual(), now))
        .unwrap();
    has(&text(terminal.backend().buffer()), &["▲ 2m10s old"]);
    app.update(Update::Trouble("the agent is gone".to_owned()), now);
    has(
        &text(&drawn(&mut app, SMALL, usual())),
        &["▲ the agent is gone"],
    );
    let mut none = App::new("own programs");
    has(
        &text(&drawn(&mut none, SMALL, usual())),
        &["Waiting for the first census of own programs."],
    );
}

#[test]
fn a_host_without_findings_says_so() {
    let mut app = App::new("test");
    app.update(Update::Snapshot(Box::new(fixture::empty())), Duration::ZERO);
    for keys in ["1", "2"] {
        press(&mut app, keys);
        let text = text(&drawn(&mut app, SMALL, usual()));
        has(
            &text,
            &["No connection is stuck on its way out, and no limit is near."],
        );
    }
}

#[test]
fn a_small_terminal_is_told_so_in_a_line() {
    for size in [(79, 24), (80, 20), (79, 20), (10, 1), (1, 1)] {
        let text = text(&drawn(&mut app(), size, usual()));
        assert_eq!(text.trim().lines().count(), 1, "{text}");
        assert!(size.0 < 20 || text.starts_with("too small: "), "{text}");
    }
    has(
        &text(&drawn(&mut app(), (79, 20), usual())),
        &["too small: 79x20, top needs 80x24"],
    );
}

#[test]
fn every_screen_fits_every_size() {
    for screen in ["1", "2", "2\n", "3", "4", "?"] {
        for size in [
            (80, 24),
            (81, 25),
            (100, 30),
            (132, 36),
            (200, 60),
            (400, 100),
        ] {
            let mut app = app();
            press(&mut app, screen);
            let _ = drawn(&mut app, size, usual());
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    let plain = look(&[
        ("NO_COLOR", "1"),
        ("TERM", "xterm-256color"),
        ("LANG", "C.UTF-8"),
    ]);
    for screen in ["1", "2", "2\n", "3", "4", "?"] {
        let mut app = app();
        press(&mut app, screen);
        let buffer = drawn(&mut app, LARGE, plain);
        for cell in &buffer.content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{screen}");
        }
        let coloured = drawn(&mut app, LARGE, usual());
        assert!(coloured.content.iter().any(|cell| cell.fg != Color::Reset));
    }
}

#[test]
fn without_utf_8_everything_is_ascii() {
    for screen in ["1", "2", "2\n", "3", "4", "?"] {
        let mut app = app();
        press(&mut app, screen);
        let text = text(&drawn(&mut app, LARGE, look(&[("LANG", "C")])));
        assert!(text.is_ascii(), "{text}");
        if screen == "1" {
            assert!(
                !text.replace("? keys", "").contains('?') && text.contains("! 412 leaked"),
                "{text}"
            );
        }
    }
}

#[test]
fn hostile_names_steer_nothing() {
    let hostile = "\u{1b}[31mred\u{7}\r\n\u{202e}back\u{9b}2J\u{200b}";
    let mut snapshot = fixture::busy(0);
    for stall in &mut snapshot.findings.stalls {
        stall.process = hostile.to_owned();
        stall.workload = hostile.to_owned();
        stall.netns = hostile.to_owned();
    }
    snapshot.workloads[0].workload = hostile.to_owned();
    let mut event = fixture::event(0);
    event.process = Some(hostile.into());
    for screen in ["1", "2jjj", "2jjj\n", "3", "4"] {
        let mut app = App::new(hostile);
        app.update(Update::Snapshot(Box::new(snapshot.clone())), Duration::ZERO);
        let lines = vec![event.clone()];
        app.update(Update::Events { lines, lost: 0 }, Duration::ZERO);
        app.update(Update::Trouble(hostile.to_owned()), Duration::ZERO);
        press(&mut app, screen);
        let buffer = drawn(&mut app, LARGE, usual());
        for cell in &buffer.content {
            let steers = |sign: char| sign.is_control() || "\u{200b}\u{202e}".contains(sign);
            assert!(
                !cell.symbol().contains(steers),
                "{screen}: {:?}",
                cell.symbol()
            );
        }
        has(&text(&buffer), &["red"]);
    }
}

#[test]
fn screens_have_names() {
    let text = shown("", SMALL);
    for screen in Screen::ALL {
        has(&text, &[screen.name()]);
    }
}
