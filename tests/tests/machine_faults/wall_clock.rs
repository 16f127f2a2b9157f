//! A wall clock that is set while the agent runs.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::{
    account::{Account, emit},
    scene::{COMPLETED, Scene, patiently},
    told::Listener,
    verdict,
};

/// When the oldest full pass of the last census was complete.
const FULL: &str = "connstate_census_last_completion_timestamp_seconds{kind=\"full\"}";

const DAY: Duration = Duration::from_hours(24);
/// The first of June 1999.
const OLD: Duration = Duration::from_hours(257_832);

type Setting = fn(Duration) -> Duration;

/// What the wall clock is set to, of the true time.
const STEPS: [(&str, Setting); 5] = [
    ("a day back", |now| now.saturating_sub(DAY)),
    ("to the truth", |now| now),
    ("a day on", |now| now + DAY),
    ("to before 2000", |_| OLD),
    ("to the truth again", |now| now),
];

/// Connections after each step.
const CONNECTIONS: usize = 20;

/// Clocks that agree to within this agree: the kernel's wall clock and its monotonic one are read
/// one after the other, and a timestamp is a number with a fraction.
const SLACK: f64 = 0.1;

/// The true time, whatever the wall clock says.
struct Truth {
    then: Duration,
    since: Instant,
}

impl Truth {
    fn now(&self) -> Duration {
        self.then + self.since.elapsed()
    }
}

/// Steps it back and on; all that the agent tells of times follows, and all that it tells of
/// durations does not.
pub(super) fn steps(scene: &Scene, made: Instant) -> Result<()> {
    let truth = Truth {
        then: SystemTime::UNIX_EPOCH.elapsed()?,
        since: Instant::now(),
    };
    let done = step_by_step(scene, &truth, made);
    set(truth.now())?;
    done
}

fn step_by_step(scene: &Scene, truth: &Truth, made: Instant) -> Result<()> {
    let mut account = Account::new(scene);
    let mut listener = Listener::new(scene)?;
    let mut age = age(scene)?;
    for (what, to) in STEPS {
        let to = to(truth.now());
        set(to)?;
        let step = Step {
            to,
            at: Instant::now(),
        };
        // The engine goes on, and tells when.
        account.is_exact(scene, what, || emit(&scene.known.netns, CONNECTIONS))?;
        let event = listener.next_listen()?;
        step.is_after(event).context("an event")?;
        // As does the census: it is of the time that the clock shows, and right.
        step.is_told(scene)?;
        let older = self::age(scene)?;
        let most = made.elapsed().as_secs_f64();
        eprintln!(
            "{what}: the leak was {age:.1} s old, and is {older:.1} s; it cannot be {most:.1} s; \
             {:?} for all",
            step.at.elapsed()
        );
        ensure!((age..most).contains(&older), "no age that it can have");
        age = older;
    }
    verdict::goes_on(scene, 4)
}

/// A time that the wall clock was set to, and when.
struct Step {
    to: Duration,
    at: Instant,
}

impl Step {
    /// A time is one that the wall clock has shown since.
    fn is_after(&self, time: f64) -> Result<()> {
        let after = time - self.to.as_secs_f64();
        let least = -SLACK;
        let most = self.at.elapsed().as_secs_f64() + SLACK;
        ensure!(
            (least..most).contains(&after),
            "{after} s after the step, which was {most} s ago"
        );
        Ok(())
    }

    /// A census since is shown, with its times and what is known.
    fn is_told(&self, scene: &Scene) -> Result<()> {
        let mut told = Ok(());
        let waited = patiently("a census of the time that the clock shows", || {
            let minisockets = scene.known.minisockets_now()?;
            let scrape = scene.scrape()?;
            let times = [scrape.value(COMPLETED)?, scrape.value(FULL)?];
            told = times.into_iter().try_for_each(|time| self.is_after(time));
            if told.is_ok() {
                told = scene.known.is_told(&scrape, scene.start.named, minisockets);
            }
            Ok(told.is_ok())
        });
        told.and(waited)
    }
}

/// How old the agent says the known leak is.
fn age(scene: &Scene) -> Result<f64> {
    let port = format!("port=\"{}\"", scene.known.port());
    let scrape = scene.scrape()?;
    let mut all = scrape.0.into_iter();
    let mine = all.find(|(series, _)| {
        series.starts_with("connstate_close_wait_oldest_seconds{") && series.contains(&port)
    });
    Ok(mine.context("the leak is not told")?.1)
}

fn set(time: Duration) -> Result<()> {
    let time = Timespec::try_from(time)?;
    clock_settime(ClockId::Realtime, time).context("the wall clock cannot be set")
}
