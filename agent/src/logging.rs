//! Where logs go.

use std::{fmt::Write as _, io::IsTerminal as _, time::Duration};

use clap::ValueEnum;
use tracing::{Level, debug, enabled, error, info, level_filters::LevelFilter};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The `target` of what the kernel programs log; all of it is at debug level.
pub const KERNEL_TARGET: &str = "connstate::kernel";

/// Sends logs to standard error, as RUST_LOG filters them (unless set: info and worse).
pub fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let output = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Only a second call could fail: the first subscriber stays.
    let _already_started = match format {
        LogFormat::Text => output
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init(),
        LogFormat::Json => output.json().flatten_event(true).try_init(),
    };
}

/// Takes what the kernel programs log through aya-log to tracing, at debug level.
#[derive(Clone, Copy, Debug)]
pub struct KernelLog;

impl KernelLog {
    /// The level the programs are loaded with: everything where debug logs of [`KERNEL_TARGET`]
    /// are wanted, else nothing, so that the verifier removes what nobody would read.
    #[must_use]
    pub fn level() -> u8 {
        if enabled!(target: KERNEL_TARGET, Level::DEBUG) {
            u8::MAX
        } else {
            0
        }
    }
}

impl log::Log for KernelLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        debug!(target: KERNEL_TARGET, "{}", record.args());
    }

    fn flush(&self) {}
}

/// Something that may fail time after time: it is told once, and once more when it works again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Complaint {
    told: bool,
}

impl Complaint {
    /// The value, or nothing where there is none. `what` is the consequence, in words.
    pub fn about<T>(
        &mut self,
        result: Result<T, impl std::error::Error>,
        what: &'static str,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.told) {
                    info!("over: {what}");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    error!(error = chain(&error), "{what}");
                }
                None
            }
        }
    }
}

/// Something that is lost time after time: it is told once, and again after a quiet minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    known: u64,
    last: Option<Duration>,
}

impl Loss {
    /// How long nothing must have been lost for the next loss to be told.
    const QUIET: Duration = Duration::from_mins(1);

    /// What is to be told of a count that never falls: by how much it has grown, where it had not
    /// for long.
    pub fn to_tell(&mut self, now: Duration, count: u64) -> Option<u64> {
        let growth = count.saturating_sub(self.known);
        if growth == 0 {
            return None;
        }
        self.known = count;
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_sub(last) >= Self::QUIET)
            .then_some(growth)
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _written = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_until_a_quiet_minute_has_passed() {
        let mut loss = Loss::default();
        let mut told = |second, count| loss.to_tell(Duration::from_secs(second), count);
        assert_eq!(told(1, 0), None);
        assert_eq!(told(2, 5), Some(5));
        assert_eq!(told(3, 9), None);
        assert_eq!(told(50, 10), None);
        assert_eq!(told(100, 10), None);
        assert_eq!(told(109, 11), None, "it is 59 seconds since the last");
        assert_eq!(told(169, 14), Some(3));
    }
}
