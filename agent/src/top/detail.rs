//! One finding, with everything that is known of it.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    finding::{identity, sentence, what, why},
    style::Look,
    table::{Motion, put},
};
use crate::{
    advice::Advice,
    api::findings::{Detail, Finding},
    detectors::{Connector, EndedBy, Stall, StalledSocket},
    words,
};

/// A finding that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// By which it is known again.
    pub(super) identity: String,
    /// What is said of it, as of the last snapshot that had it.
    paragraphs: Vec<Paragraph>,
    /// Whether the last snapshot has it no more.
    gone: bool,
    /// The first line on the screen.
    top: usize,
    /// Lines on the screen, and all lines, as of the last drawing.
    page: usize,
    lines: usize,
}

/// Text that is wrapped as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Paragraph {
    part: Part,
    /// How far its lines after the first are to the right.
    hang: usize,
    text: String,
}

/// What a paragraph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is wrong.
    Wrong,
    /// The title of what follows.
    Heading,
    /// What is so.
    Plain,
    /// What need not be read.
    Quiet,
}

impl Opened {
    /// Opens a finding.
    pub(super) fn of(finding: &Finding<'_>) -> Self {
        Self {
            identity: identity(finding),
            paragraphs: paragraphs(finding),
            gone: false,
            top: 0,
            page: 0,
            lines: 0,
        }
    }

    /// Takes in what the next snapshot says of it, if it has it.
    pub(super) fn renew(&mut self, finding: Option<&Finding<'_>>) {
        self.gone = finding.is_none();
        if let Some(finding) = finding {
            self.paragraphs = paragraphs(finding);
        }
    }

    /// Scrolls.
    pub(super) fn go(&mut self, motion: Motion) {
        let page = self.page.max(1);
        let top = match motion {
            Motion::Up => self.top.saturating_sub(1),
            Motion::Down => self.top + 1,
            Motion::PageUp => self.top.saturating_sub(page),
            Motion::PageDown => self.top + page,
            Motion::First => 0,
            Motion::Last => self.lines,
        };
        self.top = top.min(self.lines.saturating_sub(self.page));
    }

    /// Draws it.
    pub(super) fn draw(&mut self, buffer: &mut Buffer, area: Rect, look: Look) {
        let width = usize::from(area.width - 2);
        let mut lines: Vec<(Part, String)> = Vec::new();
        if self.gone {
            let text = "It is gone: this is how it was when it was last seen.";
            lines.push((Part::Wrong, text.to_owned()));
            lines.push((Part::Plain, String::new()));
        }
        for paragraph in &self.paragraphs {
            let hang = " ".repeat(paragraph.hang);
            let options = textwrap::Options::new(width).subsequent_indent(&hang);
            for line in textwrap::wrap(&paragraph.text, options) {
                lines.push((paragraph.part, line.into_owned()));
            }
        }
        self.page = usize::from(area.height);
        self.lines = lines.len();
        self.top = self.top.min(self.lines.saturating_sub(self.page));
        for (y, (part, line)) in (area.y..area.bottom()).zip(lines.iter().skip(self.top)) {
            put(
                buffer,
                look,
                (area.x + 1, y),
                line,
                area.width - 2,
                part.style(look),
            );
        }
        let below = self.lines - self.lines.min(self.top + self.page);
        if below > 0 {
            let more = format!(" {} {below} more lines ", look.signs().down);
            let wide = u16::try_from(more.chars().count()).unwrap_or(area.width);
            let place = (area.right().saturating_sub(wide + 1), area.bottom() - 1);
            put(buffer, look, place, &more, wide, Look::chosen());
        }
    }
}

impl Part {
    fn style(self, look: Look) -> Style {
        match self {
            Self::Wrong => look.warning(),
            Self::Heading => Look::heading(),
            Self::Plain => Style::new(),
            Self::Quiet => look.quiet(),
        }
    }
}

fn paragraph(part: Part, hang: usize, text: impl Into<String>) -> Paragraph {
    Paragraph {
        part,
        hang,
        text: text.into(),
    }
}

/// A fact with its name before it.
fn fact(name: &str, text: impl AsRef<str>) -> Paragraph {
    paragraph(Part::Plain, 10, format!("{name:<10}{}", text.as_ref()))
}

fn paragraphs(finding: &Finding<'_>) -> Vec<Paragraph> {
    let title = format!("{}: {}", what(finding), why(finding));
    let mut all = vec![
        paragraph(Part::Heading, 0, title),
        paragraph(Part::Wrong, 0, sentence(finding)),
        paragraph(Part::Plain, 0, ""),
    ];
    let advice = match &finding.detail {
        Detail::Stall(stall) => {
            all.extend(facts(stall));
            &stall.advice
        }
        Detail::Orphans(orphans) => &orphans.advice,
        Detail::Minisockets(minisockets) => &minisockets.advice,
        Detail::Ports(ports) => {
            all.extend(connectors(&ports.connectors));
            &ports.advice
        }
    };
    all.extend(remedies(advice));
    if let Detail::Stall(stall) = &finding.detail {
        all.extend(sockets(stall));
    }
    all
}

fn facts(stall: &Stall) -> Vec<Paragraph> {
    let known = |name: &str| if name.is_empty() { "not known" } else { name }.to_owned();
    let pids: Vec<_> = stall.pids.iter().map(u32::to_string).collect();
    let held = match pids.as_slice() {
        [] => "no process holds them".to_owned(),
        [pid] => format!("{}, pid {pid}", known(&stall.process)),
        pids => format!("{}, pids {}", known(&stall.process), pids.join(" ")),
    };
    let mut oldest = words::age(stall.oldest);
    if !stall.oldest.exact {
        oldest += ": older than the agent, so at least that";
    }
    let mut facts = vec![
        fact("workload", known(&stall.workload)),
        fact("process", held),
        fact(
            "port",
            format!("{}, the {}'s side", stall.port, stall.side.name()),
        ),
        fact("netns", &stall.netns),
        fact("oldest", oldest),
    ];
    if let Some(socket) = stall.sockets.first() {
        facts.push(fact("ends", words::ends(socket.end)));
    }
    facts
}

fn connectors(connectors: &[Connector]) -> Vec<Paragraph> {
    let connectors = connectors.iter();
    connectors
        .map(|connector| {
            let pace = words::rate(connector.per_second);
            fact("connects", format!("{} {pace}", connector.workload))
        })
        .collect()
}

fn remedies(advice: &[Advice]) -> Vec<Paragraph> {
    if advice.is_empty() {
        return Vec::new();
    }
    let mut all = vec![
        paragraph(Part::Plain, 0, ""),
        paragraph(Part::Heading, 0, "What to do"),
    ];
    for advice in advice {
        let texts = words::advice(advice);
        let last = texts.len().saturating_sub(1);
        for (index, text) in texts.into_iter().enumerate() {
            let (mark, part) = match index {
                0 => ("> ", Part::Plain),
                // What it rests on.
                _ if index == last => ("  ", Part::Quiet),
                _ => ("  ", Part::Plain),
            };
            all.push(paragraph(part, 2, format!("{mark}{text}")));
        }
    }
    all
}

fn sockets(stall: &Stall) -> Vec<Paragraph> {
    let told = stall.sockets.len();
    let heading = format!("The oldest {told} of {}", words::count(stall.count));
    let mut all = vec![
        paragraph(Part::Plain, 0, ""),
        paragraph(Part::Heading, 0, heading),
    ];
    for socket in &stall.sockets {
        all.extend(lines_of(socket));
    }
    all
}

fn lines_of(socket: &StalledSocket) -> [Paragraph; 2] {
    let mut first = format!(
        "{} to {}, {} for {}",
        socket.local,
        socket.remote,
        words::state(socket.state),
        words::age(socket.age)
    );
    if socket.orphan {
        first += ", an orphan";
    }
    // Of what nothing ends, the facts say so once.
    if socket.end.by != EndedBy::Nothing {
        first.extend(["; ends ", &words::ends(socket.end)]);
    }
    let second = format!(
        "  unread {} B, unsent {} B, in flight {} B, peer's window {} B, retransmits {}, probes {}",
        socket.unread,
        socket.unsent,
        socket.in_flight,
        socket.peer_window,
        socket.retransmits,
        socket.probes
    );
    [
        paragraph(Part::Plain, 2, first),
        paragraph(Part::Quiet, 2, second),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::findings::all, top::fixture};

    fn text_of(number: usize) -> String {
        let snapshot = fixture::busy(0);
        let finding = all(&snapshot.findings).nth(number).unwrap();
        let paragraphs = paragraphs(&finding).into_iter();
        paragraphs.map(|paragraph| paragraph.text + "\n").collect()
    }

    #[test]
    fn a_leak_is_told_with_its_owner_its_sockets_and_what_to_do() {
        let text = text_of(3);
        for part in [
            "412 sockets in CLOSE_WAIT of api[812] in unit:api.service, server port 8080: the process \
             has read everything and does not close",
            "unit:api.service",
            "api, pids 812 813",
            "8080, the server's side",
            "netns     host",
            ">1h6m",
            "ends      never, unless the process or the peer acts",
            "What to do",
            "> application: ",
            "The oldest 2 of 412",
            "10.0.0.1:8080 to 10.0.3.4:40001, CLOSE_WAIT for 1h6m",
            "unread 1 B, unsent 0 B, in flight 0 B, peer's window 64256 B, retransmits 0, probes 0",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }

    #[test]
    fn an_orphan_is_told_with_its_end() {
        let text = text_of(5);
        for part in [
            "no process holds them",
            "an orphan; ends by tcp_orphan_retries in 58s",
            "sysctl net.ipv4.tcp_orphan_retries=5 (now 0 (8 retries))",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }

    #[test]
    fn limits_are_told_with_what_to_do() {
        for (number, part) in [
            (0, "20480 orphans of 65536"),
            (1, "53100 timewait minisockets of 65536"),
            (2, "connects  unit:api.service 118/s"),
        ] {
            let text = text_of(number);
            assert!(text.contains(part) && text.contains("What to do"), "{text}");
            assert!(text.contains("sysctl net.ipv4."), "{text}");
        }
    }

    #[test]
    fn it_scrolls_to_its_end_and_not_beyond() {
        let snapshot = fixture::busy(0);
        let finding = all(&snapshot.findings).nth(3).unwrap();
        let mut opened = Opened::of(&finding);
        let area = Rect::new(0, 0, 40, 5);
        let mut buffer = Buffer::empty(area);
        let look = Look::of(|_| None);
        opened.draw(&mut buffer, area, look);
        opened.go(Motion::Last);
        let last = opened.top;
        assert!(last > 0 && last + 5 == opened.lines);
        opened.go(Motion::Down);
        assert_eq!(opened.top, last);
        opened.go(Motion::PageUp);
        assert_eq!(opened.top, last - 5);
        opened.go(Motion::First);
        assert_eq!(opened.top, 0);
    }
}
