//! What the agent says of a run: every transition the load made is either counted or, where the
//! kernel's recursion guard skipped the program, a miss.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::prom;

/// Longer than the agent takes to refresh its picture, which is at most a second.
const QUIET: Duration = Duration::from_millis(1300);

const SETTLE_DEADLINE: Duration = Duration::from_secs(15);

/// A running agent's HTTP endpoint. All requests use one connection, so that asking makes no
/// transitions of its own.
pub(super) struct Metrics {
    client: ureq::Agent,
    base: String,
}

/// The counters that must add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) counted: u64,
    pub(super) misses: u64,
    pub(super) lost: u64,
}

impl Account {
    /// What happened between an earlier account and this one.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            counted: self.counted.saturating_sub(earlier.counted),
            misses: self.misses.saturating_sub(earlier.misses),
            lost: self.lost.saturating_sub(earlier.lost),
        }
    }

    /// What `agent events` says as it ends: `N events; N lost`, and after another semicolon how
    /// often a program was skipped, if it was.
    pub(super) fn of_last_words(line: &str) -> Option<Self> {
        let mut parts = line.split("; ").map(|part| part.split_once(' '));
        let mut number = || parts.next()??.0.parse().ok();
        let (counted, lost) = (number()?, number()?);
        Some(Self {
            counted,
            lost,
            misses: number().unwrap_or(0),
        })
    }

    fn read(text: &str) -> Self {
        let sum = |family, labels: &[&str]| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counters are whole and never negative"
            )]
            let sum = prom::sum(text, family, labels) as u64;
            sum
        };
        Self {
            counted: sum("connstate_state_transitions_total", &[]),
            misses: sum(
                "connstate_bpf_program_misses_total",
                &["program=\"inet_sock_set_state\""],
            ),
            lost: sum("connstate_events_lost_total", &[]),
        }
    }
}

impl Metrics {
    pub(super) fn at(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)));
        // An idle connection that were given up would be opened again, and be seen.
        let config = config.max_idle_age(Duration::from_hours(1));
        Self {
            client: config.build().new_agent(),
            base: format!("http://{address}"),
        }
    }

    /// Whether the agent has attached and taken its first census.
    pub(super) fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok()
    }

    /// The account once it no longer changes and holds all that is known to have been emitted. At
    /// the deadline it is taken as it is: other traffic on this host may never rest, and what is
    /// missing then will not come.
    pub(super) fn settled(&self, complete: impl Fn(Account) -> bool) -> Result<Account> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut account = self.account()?;
        let mut since = Instant::now();
        while Instant::now() < deadline && !(since.elapsed() > QUIET && complete(account)) {
            thread::sleep(Duration::from_millis(100));
            let now = self.account()?;
            if now != account {
                (account, since) = (now, Instant::now());
            }
        }
        Ok(account)
    }

    fn account(&self) -> Result<Account> {
        Ok(Account::read(&self.get("/metrics")?))
    }

    /// All of them, as text.
    pub(super) fn text(&self) -> Result<String> {
        self.get("/metrics")
    }

    fn get(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.base);
        let mut response = self
            .client
            .get(&url)
            .call()
            .with_context(|| format!("no answer from {url}"))?;
        response
            .body_mut()
            .read_to_string()
            .with_context(|| format!("{url} broke off its answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"connstate_state_transitions_total{from="close",to="listen"} 7
connstate_state_transitions_total{from="listen",to="close"} 6
connstate_bpf_program_misses_total{program="inet_sock_set_state"} 2
connstate_bpf_program_misses_total{program="tcp_retransmit_skb"} 9
connstate_events_lost_total{reason="ring_full"} 1
connstate_events_lost_total{reason="state_full"} 3
"#;

    #[test]
    fn last_words_are_an_account() {
        let account = |counted, lost, misses| {
            Some(Account {
                counted,
                misses,
                lost,
            })
        };
        let of = Account::of_last_words;
        assert_eq!(of("502 events; 3 lost"), account(502, 3, 0));
        let skipped = "502 events; 0 lost; 2 times the kernel skipped a program";
        assert_eq!(of(skipped), account(502, 0, 2));
        assert_eq!(of("no agent runs: listening"), None);
    }

    #[test]
    fn an_account_is_read_and_compared() {
        let account = Account::read(TEXT);
        assert_eq!(
            account,
            Account {
                counted: 13,
                misses: 2,
                lost: 4
            }
        );
        let earlier = Account {
            counted: 3,
            misses: 2,
            lost: 0,
        };
        assert_eq!(
            account.since(earlier),
            Account {
                counted: 10,
                misses: 0,
                lost: 4
            }
        );
    }
}
