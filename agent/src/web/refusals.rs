//! Connections that were turned away, and why.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// Every place was taken by a client that was being answered.
    Full,
    /// It had kept the agent waiting the longest, and another needed its place.
    Displaced,
    /// The system had no descriptor or memory for it.
    System,
    /// Its TLS handshake failed.
    Handshake,
    /// Its TLS handshake took too long.
    SlowHandshake,
    /// Its request's head took too long.
    SlowRequest,
    /// It did not take the answer it had asked for.
    SlowReader,
}

impl Refusal {
    /// All reasons, each with the name a label gives it.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Full, "full"),
        (Self::Displaced, "displaced"),
        (Self::System, "system"),
        (Self::Handshake, "handshake"),
        (Self::SlowHandshake, "slow_handshake"),
        (Self::SlowRequest, "slow_request"),
        (Self::SlowReader, "slow_reader"),
    ];
}

/// How many were turned away for each reason since the start.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// The count of every reason, by the name a label gives it.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Refusal::ALL.into_iter().map(|(_, name)| name);
        names.zip(self.0.iter().map(|count| count.load(Relaxed)))
    }

    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(count) = self.0.get(refusal as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        let refusals = Refusals::default();
        for (place, (refusal, _)) in Refusal::ALL.into_iter().enumerate() {
            (0..=place).for_each(|_| refusals.count(refusal));
        }
        let counts: Vec<_> = refusals.counts().collect();
        for (place, (_, name)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(counts[place], (name, place as u64 + 1));
        }
    }
}
