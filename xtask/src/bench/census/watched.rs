//! An agent that runs beside sockets: what it takes, how old its gauges grow, and what a page of it
//! waits for.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::bench::metrics::Metrics;
use crate::bench::table::{Spread, quantile};
use crate::bench::tool::{Subject, Tool};
use crate::bench::{cpu, prom};

/// The thread that takes the censuses.
const CENSUS: &str = "census";

/// How often a page is asked for, for its 99th percentile, and the pause after each: longer than a
/// tick, so that a thread that works meanwhile is seen to.
const SCRAPES: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// The agent beside the sockets.
pub(in crate::bench) struct Watched {
    /// What it ran beside.
    name: String,
    /// How long.
    time: Duration,
    /// Of one core, in percent: the whole agent, and its censuses.
    pub(in crate::bench) share: f64,
    pub(in crate::bench) censuses: f64,
    pub(in crate::bench) resident_mib: f64,
    /// Sockets that found no room in its table.
    pub(in crate::bench) without_room: f64,
    /// The greatest age, in seconds, of gauges of full sockets, limits and findings (every census
    /// renews them), and of those of minisockets, requests and ports (full passes alone do).
    pub(in crate::bench) oldest: [f64; 2],
    scrapes: Vec<Scrape>,
}

/// A page that was asked for.
pub(in crate::bench) struct Scrape {
    /// What the answer took.
    millis: f64,
    /// Whether the thread that takes the censuses worked then or in the pause after.
    beside_census: bool,
}

/// What the rows are, and their head.
pub(super) fn head() -> String {
    format!(
        "\nThe agent at its default interval, then asked for /metrics {SCRAPES} times, {} ms \
         between two. No gauge can be seen to be older than the agent is watched: beside TIME_WAIT \
         that is half as long as those sockets last, which have been made and counted before. A \
         census is beside a page where the thread that takes it worked meanwhile, or before the \
         next was asked for:\n\n\
         | sockets | watched for | CPU of one core | of that, censuses | resident memory | oldest \
         gauge of full sockets, limits and findings | oldest of minisockets, requests and ports | \
         /metrics: median (min–max) | 99th percentile | of pages with no census beside them |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        PAUSE.as_millis()
    )
}

impl Watched {
    /// The 99th percentile of such pages, in milliseconds.
    pub(in crate::bench) fn slow_scrape(&self, is_one: fn(&Scrape) -> bool) -> f64 {
        quantile(&self.millis(is_one), 0.99).unwrap_or(f64::NAN)
    }

    fn millis(&self, is_one: fn(&Scrape) -> bool) -> Vec<f64> {
        let scrapes = self.scrapes.iter().filter(|scrape| is_one(scrape));
        scrapes.map(|scrape| scrape.millis).collect()
    }

    pub(super) fn row(&self) -> String {
        let pages = Spread::of(self.millis(|_| true));
        let alone = |scrape: &Scrape| !scrape.beside_census;
        format!(
            "| {} | {} s | {:.2} % | {:.2} % | {:.1} MiB | {:.1} s | {:.1} s | {} | {:.2} ms | {:.2} ms, of {} |\n",
            self.name,
            self.time.as_secs(),
            self.share,
            self.censuses,
            self.resident_mib,
            self.oldest[0],
            self.oldest[1],
            pages.map_or("–".to_owned(), |pages| format!("{} ms", pages.show(2))),
            self.slow_scrape(|_| true),
            self.slow_scrape(alone),
            self.millis(alone).len(),
        )
    }
}

/// Runs the agent beside the sockets, and asks it once a second how old its gauges are.
pub(in crate::bench) fn watch(name: &str, time: Duration, subject: &Subject) -> Result<Watched> {
    let running = Tool::Agent.start(subject)?.context("no agent was built")?;
    let metrics = running.metrics.as_ref().context("the agent serves none")?;
    let pid = running.process.id();
    let (worked, counted) = (cpu::of_process(pid)?, cpu::of_threads(pid, CENSUS)?);
    let started = Instant::now();
    let mut oldest = [0_f64; 2];
    let (mut resident, mut without_room) = (0_f64, 0_f64);
    while started.elapsed() < time {
        thread::sleep(Duration::from_secs(1));
        let text = metrics.text()?;
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
        for (oldest, kind) in oldest.iter_mut().zip(["known", "full"]) {
            let family = "connstate_census_last_completion_timestamp_seconds";
            let completed = prom::sum(&text, family, &[&format!("kind=\"{kind}\"")]);
            // Where there was none yet the age is not known.
            let age = if completed > 0.0 {
                now - completed
            } else {
                f64::INFINITY
            };
            *oldest = oldest.max(age);
        }
        resident = resident.max(prom::sum(&text, "process_resident_memory_bytes", &[]));
        let label = ["reason=\"state_full\""];
        without_room = prom::sum(&text, "connstate_events_lost_total", &label);
    }
    let percent = 100.0 / started.elapsed().as_secs_f64();
    let share = (cpu::of_process(pid)? - worked) * percent;
    let censuses = (cpu::of_threads(pid, CENSUS)? - counted) * percent;
    let scrapes = pages(metrics, pid)?;
    running.process.stop()?;
    Ok(Watched {
        name: name.to_owned(),
        time,
        share,
        censuses,
        resident_mib: resident / 1_048_576.0,
        without_room,
        oldest,
        scrapes,
    })
}

/// Asks for the page again and again.
fn pages(metrics: &Metrics, pid: u32) -> Result<Vec<Scrape>> {
    let mut scrapes = Vec::new();
    let mut counted = cpu::of_threads(pid, CENSUS)?;
    for _ in 0..SCRAPES {
        let asked = Instant::now();
        metrics.text()?;
        let millis = asked.elapsed().as_secs_f64() * 1e3;
        thread::sleep(PAUSE);
        let before = counted;
        counted = cpu::of_threads(pid, CENSUS)?;
        scrapes.push(Scrape {
            millis,
            beside_census: counted > before,
        });
    }
    Ok(scrapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_pages_beside_a_census_apart() {
        let page = |millis, beside_census| Scrape {
            millis,
            beside_census,
        };
        let watched = Watched {
            name: "some".to_owned(),
            time: Duration::from_secs(90),
            share: 1.0,
            censuses: 0.5,
            resident_mib: 18.0,
            without_room: 0.0,
            oldest: [24.0, 62.0],
            scrapes: vec![page(2.0, false), page(3.0, false), page(26.0, true)],
        };
        assert_eq!(
            watched.row(),
            "| some | 90 s | 1.00 % | 0.50 % | 18.0 MiB | 24.0 s | 62.0 s | \
             3.00 (2.00–26.00) ms | 26.00 ms | 3.00 ms, of 2 |\n"
        );
    }
}
