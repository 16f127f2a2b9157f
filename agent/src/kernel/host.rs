//! What this host offers, before anything is loaded.

use std::path::{Path, PathBuf};

use aya::util::KernelVersion;
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

/// The running kernel and this process's rights.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Its version: major, minor, patch.
    pub version: (u8, u8, u16),
    /// The capabilities the programs need and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// The kernel's BTF.
    pub btf_path: PathBuf,
    /// Whether it is there.
    pub has_btf: bool,
}

/// Why the agent cannot run here.
#[derive(Debug, Error)]
pub enum HostError {
    /// Below 5.10.
    #[error("kernel {release} is too old: connstate needs 5.10 or later, and 5.15 for everything")]
    KernelTooOld {
        /// The kernel's release.
        release: String,
    },
    /// No BTF.
    #[error(
        "the kernel offers no BTF at {}: connstate needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y (distribution kernels are, since about 5.10)",
        path.display()
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Not enough rights.
    #[error(
        "missing {}: run as root, or give the binary or unit CAP_BPF and CAP_PERFMON, \
         which suffice (setcap cap_bpf,cap_perfmon=ep)",
        missing.join(" and ")
    )]
    MissingCapabilities {
        /// Which.
        missing: Vec<&'static str>,
    },
    /// The kernel would not say.
    #[error("cannot tell {what}")]
    Unknown {
        /// What was asked.
        what: &'static str,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
}

/// Where a kernel shows its own BTF.
pub(super) const SYS_KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The oldest kernel the agent starts on.
const OLDEST: (u8, u8) = (5, 10);

impl Host {
    /// Looks at this host; `btf_path` is where its BTF should be.
    ///
    /// # Errors
    ///
    /// [`HostError::Unknown`] where the kernel does not tell its version or this process's
    /// capabilities.
    pub fn look(btf_path: &Path) -> Result<Self, HostError> {
        let version = KernelVersion::current().map_err(|error| HostError::Unknown {
            what: "the kernel's version",
            source: std::io::Error::other(error.to_string()),
        })?;
        let code = version.code();
        let held = capabilities(None).map_err(|errno| HostError::Unknown {
            what: "this process's capabilities",
            source: errno.into(),
        })?;
        Ok(Self {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            version: (
                (code >> 16 & 0xff) as u8,
                (code >> 8 & 0xff) as u8,
                (code & 0xff) as u16,
            ),
            missing_capabilities: missing(held.effective),
            btf_path: btf_path.to_owned(),
            has_btf: btf_path.exists(),
        })
    }

    /// Whether the kernel is `major.minor` or later.
    #[must_use]
    pub fn is_at_least(&self, major: u8, minor: u8) -> bool {
        (self.version.0, self.version.1) >= (major, minor)
    }

    /// Refuses a host on which nothing would load, with the reason and the remedy.
    ///
    /// # Errors
    ///
    /// The first thing that is missing, the least curable first.
    pub fn require(&self) -> Result<(), HostError> {
        if !self.is_at_least(OLDEST.0, OLDEST.1) {
            Err(HostError::KernelTooOld {
                release: self.release.clone(),
            })
        } else if !self.has_btf {
            Err(HostError::NoBtf {
                path: self.btf_path.clone(),
            })
        } else if !self.missing_capabilities.is_empty() {
            Err(HostError::MissingCapabilities {
                missing: self.missing_capabilities.clone(),
            })
        } else {
            Ok(())
        }
    }
}

/// CAP_SYS_ADMIN still implies both, as it did before 5.8 split them from it.
fn missing(held: CapabilitySet) -> Vec<&'static str> {
    if held.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !held.contains(*capability))
    .map(|(_, name)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            release: "6.1.0-test".to_owned(),
            version: (6, 1, 0),
            missing_capabilities: Vec::new(),
            btf_path: SYS_KERNEL_BTF.into(),
            has_btf: true,
        }
    }

    #[test]
    fn each_lack_has_its_own_sentence() {
        assert!(host().require().is_ok());
        let old = Host {
            release: "5.4.0-150".to_owned(),
            version: (5, 4, 0),
            ..host()
        };
        let message = old.require().unwrap_err().to_string();
        assert!(message.contains("5.4.0-150 is too old"), "{message}");
        let blind = Host {
            has_btf: false,
            ..host()
        };
        let message = blind.require().unwrap_err().to_string();
        assert!(message.contains("CONFIG_DEBUG_INFO_BTF=y"), "{message}");
        let powerless = Host {
            missing_capabilities: vec!["CAP_BPF", "CAP_PERFMON"],
            ..host()
        };
        let message = powerless.require().unwrap_err().to_string();
        assert!(
            message.contains("missing CAP_BPF and CAP_PERFMON"),
            "{message}"
        );
    }

    #[test]
    fn two_capabilities_suffice_and_sys_admin_stands_for_both() {
        assert_eq!(missing(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(CapabilitySet::BPF), ["CAP_PERFMON"]);
        assert!(missing(CapabilitySet::BPF | CapabilitySet::PERFMON).is_empty());
        assert!(missing(CapabilitySet::SYS_ADMIN).is_empty());
    }
}
