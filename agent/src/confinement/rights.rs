//! Capabilities, which each thread has of its own.

use std::io;

use aya::util::KernelVersion;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

/// What a thread does, and so needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Enters network namespaces, and finds them.
    Census,
    /// Reads the programs' maps.
    Engine,
    /// Answers over HTTP.
    Server,
}

/// Why a thread still has more than it needs.
#[derive(Debug, Error)]
#[error("a thread cannot give up its capabilities")]
pub struct RightsError(#[source] io::Error);

impl Role {
    /// The most it keeps of what it has; `bpf_is_guarded` is for kernels where any use of a map
    /// takes CAP_BPF.
    fn keeps(self, bpf_is_guarded: bool) -> CapabilitySet {
        let bpf = if bpf_is_guarded {
            CapabilitySet::BPF
        } else {
            CapabilitySet::empty()
        };
        match self {
            Self::Census => CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | bpf,
            Self::Engine => bpf,
            Self::Server => CapabilitySet::empty(),
        }
    }
}

/// Leaves this thread with what its role needs, of what it has. There is no way back.
///
/// Below 5.19, where `kernel.unprivileged_bpf_disabled` is set, `__sys_bpf()` refuses every command
/// without CAP_BPF, and from then on only those that make a map or load a program.
///
/// # Errors
///
/// Where the kernel refuses, which it has no reason to.
pub fn drop_to(role: Role) -> Result<(), RightsError> {
    let is_new =
        KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 19, 0));
    let keeps = role.keeps(!is_new);
    let held = capabilities(None).map_err(|errno| RightsError(errno.into()))?;
    let kept = CapabilitySets {
        effective: held.effective & keeps,
        permitted: held.permitted & keeps,
        // Nothing is executed; with these go the ambient ones, too.
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(|errno| RightsError(errno.into()))
}

/// From now on nothing that this thread or one that it starts executes has more rights than it:
/// set-user-ID bits and file capabilities are ignored (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
///
/// Where the kernel refuses, which it has no reason to.
pub fn forbid_new() -> Result<(), RightsError> {
    set_no_new_privs(true).map_err(|errno| RightsError(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread of this role has at the end.
    fn left(role: Role) -> CapabilitySets {
        let thread = std::thread::spawn(move || {
            drop_to(role).unwrap();
            capabilities(None).unwrap()
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_the_census_keeps_anything() {
        let before = capabilities(None).unwrap();
        let server = left(Role::Server);
        assert!(server.permitted.is_empty() && server.effective.is_empty());
        assert!(server.inheritable.is_empty());
        let census = left(Role::Census).permitted;
        let kept = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
        assert_eq!(census - CapabilitySet::BPF, before.permitted & kept);
        // Of this thread nothing was taken.
        assert_eq!(capabilities(None).unwrap().permitted, before.permitted);
    }

    #[test]
    fn old_kernels_want_a_capability_for_every_map() {
        for role in [Role::Census, Role::Engine] {
            assert!(role.keeps(true).contains(CapabilitySet::BPF));
            assert!(!role.keeps(false).contains(CapabilitySet::BPF));
        }
        assert!(Role::Server.keeps(true).is_empty());
    }
}
