//! Connections and requests that were turned away, and why.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection, or a request, was turned away.
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
    /// The request named no user, or had another password.
    Unauthorized,
    /// So many passwords were being checked that this one was not.
    Busy,
    /// More requests came than `rate_limit` allows.
    RateLimit,
    /// Enough others listened to events.
    Streams,
}

impl Refusal {
    /// All reasons, each with the name a label gives it.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Full, "full"),
        (Self::Displaced, "displaced"),
        (Self::System, "system"),
        (Self::Handshake, "handshake"),
        (Self::SlowHandshake, "slow_handshake"),
        (Self::SlowRequest, "slow_request"),
        (Self::SlowReader, "slow_reader"),
        (Self::Unauthorized, "unauthorized"),
        (Self::Busy, "busy"),
        (Self::RateLimit, "rate_limit"),
        (Self::Streams, "streams"),
    ];
}

/// How many were turned away for each reason by one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefusalCounts([u64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// The count of every reason, by the name a label gives it.
    pub fn by_reason(self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Refusal::ALL.into_iter().map(|(_, name)| name);
        names.zip(self.0)
    }
}

/// How many were turned away for each reason since the start.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// The counts as they are.
    #[must_use]
    pub fn counts(&self) -> RefusalCounts {
        RefusalCounts(self.0.each_ref().map(|count| count.load(Relaxed)))
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
        let counts: Vec<_> = refusals.counts().by_reason().collect();
        for (place, (_, name)) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(counts[place], (name, place as u64 + 1));
        }
    }
}
