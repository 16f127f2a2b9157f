//! How many requests are answered in a time.

use std::time::{Duration, Instant};

use super::yaml::{Fault, Node};

/// One request an interval, and so many at once where none came for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// Reads `rate_limit`; an interval of 0 sets no limit.
    pub(super) fn read(node: &Node<'_>) -> Result<Option<Self>, Fault> {
        node.only(&["interval", "burst"])?;
        let interval = match node.get("interval") {
            None => Duration::ZERO,
            Some(node) => {
                let text = node.text()?;
                let time = humantime::parse_duration(&text);
                match time {
                    Ok(time) if time <= Duration::from_hours(1) => time,
                    _ if text == "0" => Duration::ZERO,
                    _ => {
                        return Err(node.fault(format!(
                            "{text:?} is no time from 0 to 1h: write it with its unit, as in \
                             100ms or 1s"
                        )));
                    }
                }
            }
        };
        if interval.is_zero() {
            return Ok(None);
        }
        let burst = match node.get("burst") {
            None => 0,
            Some(node) => u32::try_from(node.number()?)
                .map_err(|_| node.fault("write a number from 1 to 4294967295"))?,
        };
        if burst == 0 {
            return Err(node.fault(
                "with an interval and no burst no request would be answered: write burst: 1 or more",
            ));
        }
        Ok(Some(Self { interval, burst }))
    }
}

/// Lets through what a rate allows.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Rate,
    /// When all of the burst is free again.
    rested: Instant,
}

impl Meter {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, rested: now }
    }

    /// Whether a request may pass now; if so it is counted.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        let Rate { interval, burst } = self.rate;
        let rested = self.rested.max(now);
        if rested.duration_since(now) > interval.saturating_mul(burst - 1) {
            return false;
        }
        self.rested = rested + interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let start = Instant::now();
        let interval = Duration::from_secs(1);
        let mut meter = Meter::new(Rate { interval, burst: 3 }, start);
        let mut passed = |at: f64| meter.pass(start + Duration::from_secs_f64(at));
        let times = [0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.9, 2.0, 9.0, 9.0, 9.0, 9.0];
        let expected = [
            true, true, true, false, true, false, false, true, true, true, true, false,
        ];
        assert_eq!(times.map(&mut passed), expected);
    }
}
