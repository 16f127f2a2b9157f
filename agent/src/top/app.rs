//! What `agent top` shows and where the reader is: updates and commands in, state out. Pure; the
//! clock is an argument.

use std::time::Duration;

use super::{
    Update, Want,
    detail::Opened,
    feed::Feed,
    finding, findings,
    keys::Command,
    list::{List, Purpose, Typing},
    rates::Rates,
    table::{Cursor, Motion},
    workloads,
};
use crate::api::{
    findings::{Finding, all},
    snapshot::Snapshot,
};

/// A screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Screen {
    /// The state diagram and the limits.
    #[default]
    States,
    /// What is wrong.
    Findings,
    /// Sockets by workload.
    Workloads,
    /// What happens.
    Events,
}

impl Screen {
    /// Every screen, in the order of their keys.
    pub(super) const ALL: [Self; 4] = [Self::States, Self::Findings, Self::Workloads, Self::Events];

    /// What it is called.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::States => "States",
            Self::Findings => "Findings",
            Self::Workloads => "Workloads",
            Self::Events => "Events",
        }
    }

    fn neighbour(self, steps: usize) -> Self {
        let place = Self::ALL.iter().position(|screen| *screen == self);
        Self::ALL[(place.unwrap_or(0) + steps) % Self::ALL.len()]
    }
}

/// What a command leads to beyond what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Stay,
    /// Something is asked for.
    Ask(Want),
    /// The program ends.
    Quit,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Where the data come from.
    pub(super) source: String,
    pub(super) screen: Screen,
    pub(super) opened: Option<Opened>,
    pub(super) help: bool,
    pub(super) typing: Option<Typing>,
    pub(super) paused: bool,
    /// Whether the feed shows the newest.
    pub(super) follows: bool,
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// The newest that came while all stood still.
    waiting: Option<Box<Snapshot>>,
    /// When the last one came.
    pub(super) heard: Option<Duration>,
    pub(super) trouble: Option<String>,
    pub(super) rates: Rates,
    pub(super) findings: List<findings::Order>,
    pub(super) workloads: List<workloads::Order>,
    pub(super) events: List<()>,
    pub(super) feed: Feed,
}

impl App {
    /// Before anything is known of `source`.
    #[must_use]
    pub(super) fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            follows: true,
            ..Self::default()
        }
    }

    /// Whether letters are text.
    #[must_use]
    pub(super) fn is_typing(&self) -> bool {
        self.typing.is_some()
    }

    /// Takes in what is told.
    pub(super) fn update(&mut self, update: Update, now: Duration) {
        match update {
            Update::Snapshot(snapshot) => {
                self.heard = Some(now);
                self.trouble = None;
                if self.paused && self.snapshot.is_some() {
                    self.waiting = Some(snapshot);
                } else {
                    self.show(snapshot);
                }
            }
            Update::Events { lines, lost } => {
                let still = self.paused || !self.follows;
                self.feed.take(lines, lost, still);
            }
            Update::Trouble(trouble) => self.trouble = Some(trouble),
        }
    }

    /// Shows a snapshot. The cursor stays on its finding, what is open stays open.
    fn show(&mut self, snapshot: Box<Snapshot>) {
        self.rates.take(&snapshot);
        let cursor = self.findings.cursor.row;
        let chosen = self.chosen_finding();
        let rows = findings::rows(&snapshot, &self.findings.filter, self.findings.order);
        // At the top the reader looks for the worst, whichever that is.
        if let Some(chosen) = chosen.filter(|_| cursor > 0) {
            self.findings.cursor.row = place(&rows, &chosen).unwrap_or(cursor);
        }
        if let Some(opened) = &mut self.opened {
            let mut found = all(&snapshot.findings);
            let finding = found.find(|finding| finding::identity(finding) == opened.identity);
            opened.renew(finding.as_ref());
        }
        self.snapshot = Some(snapshot);
    }

    /// The identity of the finding under the cursor.
    fn chosen_finding(&self) -> Option<String> {
        let list = &self.findings;
        let rows = findings::rows(self.snapshot.as_deref()?, &list.filter, list.order);
        rows.get(list.cursor.row).map(finding::identity)
    }

    /// Does what a key asks for.
    pub(super) fn command(&mut self, command: Command) -> Outcome {
        match command {
            Command::Quit => return Outcome::Quit,
            Command::Type(_) | Command::Erase | Command::Accept | Command::Abandon => {
                self.type_on(command);
            }
            Command::Leave if !self.help && self.opened.is_none() => return Outcome::Quit,
            Command::Leave | Command::Back if self.help => self.help = false,
            Command::Leave | Command::Back if self.opened.is_some() => self.opened = None,
            Command::Leave | Command::Back => self.forget(),
            Command::Help => self.help = !self.help,
            Command::Show(screen) => return self.go_to(screen),
            Command::NextScreen => return self.go_to(self.screen.neighbour(1)),
            Command::PreviousScreen => return self.go_to(self.screen.neighbour(3)),
            Command::Open => return self.open(),
            Command::Go(motion) => self.go(motion),
            Command::Search => return self.begin(Purpose::Search),
            Command::Filter => return self.begin(Purpose::Filter),
            Command::NextMatch => self.next_match(1, true),
            Command::PreviousMatch => self.next_match(1, false),
            Command::Sort => self.sort(),
            Command::Pause => self.pause(),
        }
        Outcome::Stay
    }

    fn go_to(&mut self, screen: Screen) -> Outcome {
        self.help = false;
        self.opened = None;
        let (before, after) = (self.screen, screen);
        self.screen = screen;
        let is_feed = |screen| screen == Screen::Events;
        if is_feed(before) == is_feed(after) {
            Outcome::Stay
        } else {
            Outcome::Ask(Want::Events(is_feed(after)))
        }
    }

    fn open(&mut self) -> Outcome {
        if self.help {
            self.help = false;
            return Outcome::Stay;
        }
        match self.screen {
            Screen::States => {
                self.choose_worst();
                return self.go_to(Screen::Findings);
            }
            Screen::Findings if self.opened.is_none() => {
                let list = &self.findings;
                if let Some(snapshot) = self.snapshot.as_deref() {
                    let rows = findings::rows(snapshot, &list.filter, list.order);
                    self.opened = rows.get(list.cursor.row).map(Opened::of);
                }
            }
            Screen::Workloads => {
                let list = &self.workloads;
                if let Some(snapshot) = self.snapshot.as_deref() {
                    let rows = workloads::rows(snapshot, &list.filter, list.order);
                    if let Some(row) = rows.get(list.cursor.row) {
                        self.findings.filter.set(&row.workload.workload);
                        self.findings.cursor = Cursor::default();
                        return self.go_to(Screen::Findings);
                    }
                }
            }
            Screen::Findings | Screen::Events => {}
        }
        Outcome::Stay
    }

    /// Puts the cursor on the finding that the first screen tells.
    fn choose_worst(&mut self) {
        let list = &mut self.findings;
        let snapshot = self.snapshot.as_deref();
        if let Some((snapshot, worst)) =
            snapshot.and_then(|snapshot| Some((snapshot, finding::worst(snapshot)?)))
        {
            list.filter.clear();
            let rows = findings::rows(snapshot, &list.filter, list.order);
            list.cursor.row = place(&rows, &finding::identity(&worst)).unwrap_or(0);
        }
    }

    /// Forgets what narrows the screen: the search first, then the filter.
    fn forget(&mut self) {
        let (filter, search) = match self.screen {
            Screen::States => return,
            Screen::Findings => (&mut self.findings.filter, &mut self.findings.search),
            Screen::Workloads => (&mut self.workloads.filter, &mut self.workloads.search),
            Screen::Events => (&mut self.events.filter, &mut self.events.search),
        };
        if search.is_empty() {
            filter.clear();
        } else {
            search.clear();
        }
    }

    fn go(&mut self, motion: Motion) {
        if self.help {
            return;
        }
        if let Some(opened) = &mut self.opened {
            opened.go(motion);
            return;
        }
        let rows = self.rows();
        match self.screen {
            Screen::States => {}
            Screen::Findings => self.findings.cursor.go(motion, rows),
            Screen::Workloads => self.workloads.cursor.go(motion, rows),
            Screen::Events => {
                self.events.cursor.go(motion, rows);
                self.follows = match motion {
                    Motion::Last => true,
                    Motion::Up | Motion::PageUp | Motion::First => false,
                    Motion::Down | Motion::PageDown => self.follows,
                };
            }
        }
    }

    /// Rows of the screen.
    fn rows(&self) -> usize {
        let snapshot = self.snapshot.as_deref();
        match self.screen {
            Screen::States => 0,
            Screen::Findings => snapshot.map_or(0, |snapshot| {
                findings::rows(snapshot, &self.findings.filter, self.findings.order).len()
            }),
            Screen::Workloads => snapshot.map_or(0, |snapshot| {
                workloads::rows(snapshot, &self.workloads.filter, self.workloads.order).len()
            }),
            Screen::Events => self.feed.rows(&self.events.filter).len(),
        }
    }

    fn sort(&mut self) {
        match self.screen {
            Screen::Findings => {
                let chosen = self.chosen_finding();
                let list = &mut self.findings;
                list.order = list.order.next();
                // The cursor stays on its finding, unless it is at the top.
                if let Some((snapshot, chosen)) = self.snapshot.as_deref().zip(chosen)
                    && list.cursor.row > 0
                {
                    let rows = findings::rows(snapshot, &list.filter, list.order);
                    list.cursor.row = place(&rows, &chosen).unwrap_or(0);
                }
            }
            Screen::Workloads => self.workloads.order = self.workloads.order.next(),
            Screen::States | Screen::Events => {}
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(snapshot) = self.waiting.take()
        {
            self.show(snapshot);
        }
    }

    fn begin(&mut self, purpose: Purpose) -> Outcome {
        self.help = false;
        self.opened = None;
        // The diagram has no rows: what is looked for there is a finding.
        if self.screen == Screen::States {
            self.screen = Screen::Findings;
        }
        let line = self.line(purpose);
        let before = line.clone();
        line.clear();
        self.typing = Some(Typing { purpose, before });
        Outcome::Stay
    }

    /// What is typed on this screen.
    pub(super) fn line(&mut self, purpose: Purpose) -> &mut super::filter::Filter {
        match self.screen {
            Screen::States | Screen::Findings => self.findings.line(purpose),
            Screen::Workloads => self.workloads.line(purpose),
            Screen::Events => self.events.line(purpose),
        }
    }

    fn type_on(&mut self, command: Command) {
        let Some(typing) = self.typing.clone() else {
            return;
        };
        let line = self.line(typing.purpose);
        match command {
            Command::Type(sign) => line.push(sign),
            Command::Erase => line.pop(),
            Command::Abandon => *line = typing.before,
            _ => {}
        }
        if matches!(command, Command::Accept | Command::Abandon) {
            self.typing = None;
        }
        match typing.purpose {
            Purpose::Search => self.next_match(0, true),
            // What was under the cursor may be gone.
            Purpose::Filter => self.go(Motion::First),
        }
        if typing.purpose == Purpose::Filter && self.screen == Screen::Events {
            self.follows = true;
        }
    }

    /// Goes to the next row that is searched for, `from` rows on; round the end.
    fn next_match(&mut self, from: usize, forward: bool) {
        if self.opened.is_some() || self.help {
            return;
        }
        let (found, row) = self.found();
        let rows = found.len();
        let place = |step: usize| if forward { row + step } else { row + rows - step } % rows;
        let mut steps = from..from + rows;
        let Some(place) = steps.find_map(|step| Some(place(step)).filter(|place| found[*place]))
        else {
            return;
        };
        match self.screen {
            Screen::States => {}
            Screen::Findings => self.findings.cursor.row = place,
            Screen::Workloads => self.workloads.cursor.row = place,
            Screen::Events => {
                self.events.cursor.row = place;
                self.follows = false;
            }
        }
    }

    /// Which rows are searched for, and which is under the cursor.
    fn found(&self) -> (Vec<bool>, usize) {
        let snapshot = self.snapshot.as_deref();
        match (self.screen, snapshot) {
            (Screen::Findings, Some(snapshot)) => {
                let List {
                    cursor,
                    filter,
                    search,
                    order,
                } = &self.findings;
                let rows = findings::rows(snapshot, filter, *order).into_iter();
                let found = rows.map(|row| !search.is_empty() && finding::matches(&row, search));
                (found.collect(), cursor.row)
            }
            (Screen::Workloads, Some(snapshot)) => {
                let List {
                    cursor,
                    filter,
                    search,
                    order,
                } = &self.workloads;
                let rows = workloads::rows(snapshot, filter, *order).into_iter();
                let found =
                    rows.map(|row| !search.is_empty() && workloads::matches(row.workload, search));
                (found.collect(), cursor.row)
            }
            (Screen::Events, _) => {
                let List {
                    cursor,
                    filter,
                    search,
                    ..
                } = &self.events;
                let rows = self.feed.rows(filter).into_iter();
                let found =
                    rows.map(|row| !search.is_empty() && row.matches(search).unwrap_or(false));
                (found.collect(), cursor.row)
            }
            _ => (Vec::new(), 0),
        }
    }
}

/// Where a finding is among others.
fn place(rows: &[Finding<'_>], identity: &str) -> Option<usize> {
    let mut rows = rows.iter();
    rows.position(|finding| finding::identity(finding) == identity)
}
