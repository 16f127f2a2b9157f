//! What a quick pass and `sockstat` tell of a namespace, put together with its last full pass:
//! pure.

use agent_ebpf::{census::CensusCounts, state};

/// The sockets of a namespace: its full ones by `known`, the quick pass; its timewait minisockets
/// by their number now; which of these are in FIN_WAIT2, and how many requests there are, by the
/// `last` full pass, since nothing else tells.
pub(super) fn refresh(last: &CensusCounts, known: &CensusCounts, minisockets: u64) -> CensusCounts {
    let [time_wait, fin_wait2, syn_recv] =
        [state::TIME_WAIT, state::FIN_WAIT2, state::SYN_RECV].map(usize::from);
    // Every socket in TIME_WAIT is a minisocket.
    let in_time_wait = if last.minisockets == 0 {
        minisockets
    } else {
        let part = u128::from(minisockets) * u128::from(last.states[time_wait])
            / u128::from(last.minisockets);
        u64::try_from(part).unwrap_or(u64::MAX).min(minisockets)
    };
    let mut counts = *known;
    counts.minisockets = minisockets;
    counts.states[time_wait] = in_time_wait;
    counts.states[fin_wait2] += minisockets - in_time_wait;
    counts.states[syn_recv] = counts.states[syn_recv].max(last.states[syn_recv]);
    counts
}

/// What quick passes see of one namespace, beside what its `sockstat` counts.
///
/// A transition that the programs missed leaves a socket out of their table: no quick pass finds
/// it, but the kernel counts it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// Sockets unseen by the first pass: those that opened or closed between the two, and kinds
    /// that the programs do not follow.
    usual: Option<u64>,
    /// Passes in a row since that saw fewer.
    fewer: u32,
}

impl Sight {
    /// As many in a row tell a loss from sockets that come and go.
    const PASSES: u32 = 3;

    /// A pass has found so many of the full sockets that the kernel counts. Whether sight was lost
    /// of some.
    pub(super) fn is_lost(&mut self, counted: u64, found: u64) -> bool {
        let unseen = counted.saturating_sub(found);
        let usual = *self.usual.get_or_insert(unseen);
        self.fewer = if unseen > usual { self.fewer + 1 } else { 0 };
        self.fewer >= Self::PASSES
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::state::TcpState::{Established, FinWait2, SynRecv, TimeWait};

    use super::*;

    #[test]
    fn full_sockets_are_the_quick_passs_and_minisockets_as_many_as_there_are() {
        let mut last = CensusCounts::ZERO;
        last.states[Established as usize] = 100;
        last.states[SynRecv as usize] = 3;
        last.states[TimeWait as usize] = 30;
        last.states[FinWait2 as usize] = 10 + 1;
        last.minisockets = 40;
        let mut known = CensusCounts::ZERO;
        known.states[Established as usize] = 90;
        known.states[FinWait2 as usize] = 2;
        let now = refresh(&last, &known, 80);
        assert_eq!(now.states[Established as usize], 90);
        assert_eq!(now.states[TimeWait as usize], 60);
        assert_eq!(now.states[FinWait2 as usize], 2 + 20);
        assert_eq!(now.states[SynRecv as usize], 3);
        assert_eq!(now.minisockets, 80);
    }

    #[test]
    fn sockets_that_stay_unseen_are_lost_sight_of() {
        let mut sight = Sight::default();
        assert!(!sight.is_lost(12, 10), "two that nobody follows");
        assert!(!sight.is_lost(13, 10) && !sight.is_lost(14, 11));
        assert!(!sight.is_lost(12, 11), "they came and went");
        assert!(!sight.is_lost(13, 10) && !sight.is_lost(13, 10));
        assert!(sight.is_lost(13, 10));
    }

    #[test]
    fn a_pass_that_finds_more_than_was_counted_has_lost_nothing() {
        let mut sight = Sight::default();
        let lost = (0..5).any(|_| sight.is_lost(10, 11));
        assert!(!lost);
    }

    #[test]
    fn minisockets_of_which_nothing_is_known_are_in_time_wait() {
        let now = refresh(&CensusCounts::ZERO, &CensusCounts::ZERO, 7);
        assert_eq!(now.states[TimeWait as usize], 7);
        assert_eq!(now.states[FinWait2 as usize], 0);
    }
}
