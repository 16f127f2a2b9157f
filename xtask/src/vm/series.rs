//! A series of kernels, as kernel.org numbers them, and which of Debian's suites have it.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use anyhow::{Context, Error};

/// The kernels that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Of these first two numbers.
    Numbered(u64, u64),
    /// The newest that Debian has.
    Newest,
}

/// The series that CI runs: those of Debian's stable releases, and what is coming.
pub(super) const CI: [Series; 3] = [
    Series::Numbered(6, 1),
    Series::Numbered(6, 12),
    Series::Newest,
];

/// Those that the documentation tells of.
pub(super) const DOCUMENTED: [Series; 5] = [
    Series::Numbered(5, 10),
    Series::Numbered(6, 1),
    Series::Numbered(6, 12),
    Series::Numbered(6, 18),
    Series::Newest,
];

/// From this one on the agent needs to do without nothing.
const FULL: (u64, u64) = (5, 15);

/// A part of a mirror, which apt's configuration names apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Main,
    Security,
}

impl Archive {
    /// What the archive calls itself.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Main => "Debian",
            Self::Security => "Debian-Security",
        }
    }
}

/// A suite, and the archive that has it.
pub(super) type Suite = (Archive, &'static str);

impl Series {
    /// The suites that have kernels of it. Backports carry a series for a few months: one that is
    /// named by nobody else is looked for there.
    pub(super) const fn suites(self) -> [Suite; 2] {
        match self {
            Self::Numbered(5, 10) => release("bullseye", "bullseye-security"),
            Self::Numbered(6, 1) => release("bookworm", "bookworm-security"),
            Self::Numbered(6, 12) => release("trixie", "trixie-security"),
            Self::Numbered(..) | Self::Newest => {
                [(Archive::Main, "trixie-backports"), (Archive::Main, "sid")]
            }
        }
    }

    /// Whether all of the agent runs there.
    pub(super) fn is_full(self) -> bool {
        match self {
            Self::Numbered(major, minor) => (major, minor) >= FULL,
            Self::Newest => true,
        }
    }

    /// Whether a kernel of this version, as Debian writes it, belongs to it.
    pub(super) fn has(self, version: &str) -> bool {
        let is_candidate = version.contains("~rc");
        match self {
            Self::Numbered(major, minor) => version.starts_with(&format!("{major}.{minor}.")),
            Self::Newest => !is_candidate,
        }
    }
}

/// The suites of a release of Debian.
const fn release(main: &'static str, security: &'static str) -> [Suite; 2] {
    [(Archive::Main, main), (Archive::Security, security)]
}

impl Display for Series {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(major, minor) => write!(formatter, "{major}.{minor}"),
            Self::Newest => formatter.write_str("newest"),
        }
    }
}

impl FromStr for Series {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let numbers = text.split_once('.').and_then(|(major, minor)| {
            Some(Self::Numbered(major.parse().ok()?, minor.parse().ok()?))
        });
        numbers.with_context(|| format!("{text} is no series: name two numbers, or newest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_written_as_it_is_read() {
        for text in ["5.10", "6.1", "newest"] {
            assert_eq!(text.parse::<Series>().unwrap().to_string(), text);
        }
        for text in ["6", "6.1.3", "new", ""] {
            assert!(text.parse::<Series>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_belong_to_their_series() {
        let series = Series::Numbered(6, 1);
        assert!(series.has("6.1.192-2"));
        assert!(!series.has("6.12.107-1"));
        assert!(Series::Newest.has("7.3.4-1~bpo13+1"));
        assert!(!Series::Newest.has("7.4~rc2-1~exp1"));
    }

    #[test]
    fn only_the_oldest_is_reduced() {
        assert!(!Series::Numbered(5, 10).is_full());
        assert!(CI.into_iter().all(Series::is_full));
    }
}
