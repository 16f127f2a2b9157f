//! The bpf system call, for the commands that aya lacks.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Command {
    /// `BPF_MAP_LOOKUP_BATCH`.
    MapLookupBatch = 24,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
    MapLookupAndDeleteBatch = 25,
    /// `BPF_LINK_CREATE`.
    LinkCreate = 28,
    /// `BPF_ITER_CREATE`.
    IterCreate = 33,
}

/// A part of `union bpf_attr`.
///
/// # Safety
///
/// It is what the kernel's part of that name is, and what its pointers lead to is as long as it
/// says, and there until the call returns.
pub(super) unsafe trait Attributes {}

/// Makes the call; returns what the kernel returns.
pub(super) fn bpf<T: Attributes>(command: Command, attributes: &mut T) -> io::Result<i64> {
    let attributes = std::ptr::from_mut(attributes);
    // SAFETY: the attributes are there for their size, and what they point to is there by the
    // trait's contract.
    let returned =
        unsafe { libc::syscall(libc::SYS_bpf, command as i64, attributes, size_of::<T>()) };
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

/// As [`bpf`], of a command that makes a descriptor.
pub(super) fn make<T: Attributes>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    let made = bpf(command, attributes)?;
    let made = i32::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for us, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// A descriptor as the kernel's interface holds it; an open one is never below zero.
pub(super) fn number(descriptor: BorrowedFd<'_>) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}
