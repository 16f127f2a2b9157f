//! What sockets leave in the counters: their transitions and the causes of their closes.

use std::fmt;

use agent::view::View;
use agent_ebpf::{
    close::{CAUSE_COUNT, CloseCause},
    counters::Counters,
    state::{STATE_COUNT, TcpState},
};
use anyhow::{Result, ensure};

use crate::watch::Watch;

/// Transitions and close causes, predicted or counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Transitions `[from][to]` by kernel number, self-transitions on the diagonal.
    pub transitions: [[u64; STATE_COUNT]; STATE_COUNT],
    /// Closes by cause.
    pub closes: [u64; CAUSE_COUNT],
}

impl Trace {
    /// No socket's.
    pub const NONE: Self = Self {
        transitions: [[0; STATE_COUNT]; STATE_COUNT],
        closes: [0; CAUSE_COUNT],
    };

    /// That of one socket which passes through `states`, the first and the last included, and
    /// closes for `cause`. A state named twice in a row is a self-transition, which
    /// `tcp_close_state()` makes at `close()` after `shutdown()`.
    #[must_use]
    pub fn socket(states: &[TcpState], cause: CloseCause) -> Self {
        let mut trace = Self::NONE;
        for step in states.windows(2) {
            trace.transitions[step[0] as usize][step[1] as usize] += 1;
        }
        trace.closes[cause as usize] += 1;
        trace
    }

    /// That of a listening socket.
    #[must_use]
    pub fn listener() -> Self {
        use TcpState::{Close, Listen};
        Self::socket(&[Close, Listen, Close], CloseCause::Listener)
    }

    /// That of a connecting end: the handshake, `states`, the end.
    #[must_use]
    pub fn client(states: &[TcpState], cause: CloseCause) -> Self {
        use TcpState::{Close, Established, SynSent};
        Self::established(&[Close, SynSent, Established], states, cause)
    }

    /// That of an accepting end, likewise. The child is cloned from the listener
    /// (`inet_csk_clone_lock`), so it begins in LISTEN.
    #[must_use]
    pub fn server(states: &[TcpState], cause: CloseCause) -> Self {
        use TcpState::{Established, Listen, SynRecv};
        Self::established(&[Listen, SynRecv, Established], states, cause)
    }

    fn established(opening: &[TcpState], states: &[TcpState], cause: CloseCause) -> Self {
        Self::socket(&[opening, states, &[TcpState::Close]].concat(), cause)
    }

    /// This and another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let into = self.transitions.as_flattened_mut().iter_mut();
        for (into, from) in into.zip(other.transitions.as_flattened()) {
            *into += from;
        }
        for (into, from) in self.closes.iter_mut().zip(other.closes) {
            *into += from;
        }
        self
    }

    /// This `n` times.
    #[must_use]
    pub fn times(mut self, n: usize) -> Self {
        let counts = self.transitions.as_flattened_mut().iter_mut();
        for count in counts.chain(&mut self.closes) {
            *count *= n as u64;
        }
        self
    }

    /// All transitions together: how often the kernel emitted the tracepoint.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.transitions.as_flattened().iter().sum()
    }

    /// What the agent shows.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self {
            transitions: view.transitions,
            closes: view.closes,
        }
    }

    /// Compares this prediction with what `watch` counted.
    ///
    /// # Errors
    ///
    /// Where a count differs; all of them are told then.
    pub fn compare(&self, watch: &Watch) -> Result<()> {
        let counted = Self::of(&watch.settled()?);
        let differences = self.differences(&counted);
        ensure!(counted == *self, "{differences:#?}\ncounted: {counted:#?}");
        Ok(())
    }

    /// Whether no count is above that of `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let ours = self.transitions.as_flattened().iter();
        ours.zip(other.transitions.as_flattened())
            .all(|(ours, theirs)| ours <= theirs)
    }

    /// Every count in which `counted` differs from this prediction, in words.
    #[must_use]
    pub fn differences(&self, counted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (from, (ours, theirs)) in self.transitions.iter().zip(counted.transitions).enumerate() {
            for (to, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                if *ours != theirs {
                    let (from, to) = (name(from), name(to));
                    found.push(format!(
                        "{from} -> {to}: {ours} predicted, {theirs} counted"
                    ));
                }
            }
        }
        for (cause, (ours, theirs)) in CloseCause::ALL
            .into_iter()
            .zip(self.closes.iter().zip(counted.closes))
        {
            if *ours != theirs {
                let cause = cause.name();
                found.push(format!("{cause}: {ours} predicted, {theirs} counted"));
            }
        }
        found
    }
}

/// All transitions counted, self-transitions too.
#[must_use]
pub fn total(counters: &Counters) -> u64 {
    counters.transitions.as_flattened().iter().sum()
}

fn name(state: usize) -> &'static str {
    u8::try_from(state)
        .ok()
        .and_then(TcpState::from_raw)
        .map_or("unknown", TcpState::name)
}

impl fmt::Debug for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = formatter.debug_map();
        for (from, row) in self.transitions.iter().enumerate() {
            for (to, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                map.entry(&format_args!("{} -> {}", name(from), name(to)), count);
            }
        }
        for cause in CloseCause::ALL {
            let count = self.closes[cause as usize];
            if count > 0 {
                map.entry(&format_args!("{}", cause.name()), &count);
            }
        }
        map.finish()
    }
}
