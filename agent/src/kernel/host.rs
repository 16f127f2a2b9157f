//! What this host offers, before anything is loaded.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_ebpf::fields::Need;
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
    /// Every capability that is of use, and whether this process holds it.
    pub capabilities: Vec<CapabilityReport>,
    /// The kernel's BTF.
    pub btf_path: PathBuf,
    /// Whether it is there.
    pub has_btf: bool,
    /// Whether this process is in the first PID namespace; so it is taken to be without /proc.
    pub sees_all_processes: bool,
}

/// A capability that is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Whether the agent runs without.
    pub need: Need,
    /// What is lost without.
    pub purpose: &'static str,
    /// Those of which any gives this right.
    any_of: CapabilitySet,
}

/// Each of them. CAP_SYS_ADMIN still implies the first two, as it did before 5.8 split them from
/// it (`bpf_capable()`, `perfmon_capable()`).
pub static CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_BPF",
        need: Need::Needed,
        purpose: "everything: it makes the maps and loads the programs",
        any_of: CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
    },
    Capability {
        name: "CAP_PERFMON",
        need: Need::Needed,
        purpose: "everything: by it the programs read the kernel's sockets",
        any_of: CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN),
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        need: Need::Optional,
        purpose: "sockets and limits of all network namespaces but the agent's own, for others \
                  cannot be entered (setns()); --bpf-stats",
        any_of: CapabilitySet::SYS_ADMIN,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        need: Need::Optional,
        purpose: "sockets and limits of the network namespaces that only other users' processes \
                  are in, for these are not found (/proc/PID/ns/net); --netns host",
        any_of: CapabilitySet::SYS_PTRACE,
    },
];

/// Whether this process holds a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityReport {
    /// The capability.
    pub capability: &'static Capability,
    /// Whether it is held, or one that implies it.
    pub is_held: bool,
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

/// What is lost in a PID namespace other than the first: the iterator over tasks and /proc show its
/// own processes alone (`task_seq_get_next()`).
pub const PIDS_UNSEEN: &str = "the processes that hold sockets, but for those of the agent's own PID \
                               namespace; share the host's (hostPID: true, --pid=host)";

/// The inode number of the first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

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
            capabilities: reports(held.effective),
            btf_path: btf_path.to_owned(),
            has_btf: btf_path.exists(),
            sees_all_processes: fs::metadata("/proc/self/ns/pid")
                .map_or(true, |namespace| namespace.ino() == FIRST_PID_NAMESPACE),
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
        } else {
            let missing = self.missing(Need::Needed).map(|missing| missing.name);
            let missing: Vec<_> = missing.collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(HostError::MissingCapabilities { missing })
            }
        }
    }

    /// The capabilities, needed or optional, that this process lacks.
    pub fn missing(&self, need: Need) -> impl Iterator<Item = &'static Capability> {
        let lacking = self.capabilities.iter().filter(|report| !report.is_held);
        lacking
            .map(|report| report.capability)
            .filter(move |capability| capability.need == need)
    }
}

fn reports(held: CapabilitySet) -> Vec<CapabilityReport> {
    let all = CAPABILITIES.iter();
    all.map(|capability| CapabilityReport {
        capability,
        is_held: held.intersects(capability.any_of),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            release: "6.1.0-test".to_owned(),
            version: (6, 1, 0),
            capabilities: reports(CapabilitySet::all()),
            btf_path: SYS_KERNEL_BTF.into(),
            has_btf: true,
            sees_all_processes: true,
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
            capabilities: reports(CapabilitySet::empty()),
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
        let missing = |held, need| {
            let host = Host {
                capabilities: reports(held),
                ..host()
            };
            let missing = host.missing(need).map(|missing| missing.name);
            missing.collect::<Vec<_>>()
        };
        let (bpf, perfmon) = (CapabilitySet::BPF, CapabilitySet::PERFMON);
        let none = CapabilitySet::empty();
        assert_eq!(missing(none, Need::Needed), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(bpf, Need::Needed), ["CAP_PERFMON"]);
        assert!(missing(bpf | perfmon, Need::Needed).is_empty());
        assert!(missing(CapabilitySet::SYS_ADMIN, Need::Needed).is_empty());
        let others = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"];
        assert_eq!(missing(bpf | perfmon, Need::Optional), others);
        let admin = missing(CapabilitySet::SYS_ADMIN, Need::Optional);
        assert_eq!(admin, ["CAP_SYS_PTRACE"]);
    }
}
