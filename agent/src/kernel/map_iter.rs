//! Opens an iterator over the elements of a map, which aya's `Iter` does not: it hands no map over.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `enum bpf_cmd` and `enum bpf_attach_type` (include/uapi/linux/bpf.h).
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_iter_link_info`, of a map.
#[repr(C)]
struct LinkInfo {
    map_fd: u32,
}

/// The part of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    /// The kernel refuses a union whose rest is not zero, and rounds its size up.
    rest: u32,
}

/// The part of it for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// A file from which the output of `program` over the elements of `map` is read, once.
pub(super) fn open(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<File> {
    let info = LinkInfo { map_fd: fd(map) };
    let link = bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: fd(program),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: std::ptr::from_ref(&info).expose_provenance() as u64,
            iter_info_len: 4,
            rest: 0,
        },
    )?;
    let iterator = bpf(
        BPF_ITER_CREATE,
        &IterCreate {
            link_fd: u32::try_from(link.as_raw_fd()).unwrap_or(u32::MAX),
            flags: 0,
        },
    )?;
    Ok(iterator.into())
}

/// A descriptor as the kernel's interface holds it; an open one is never below zero.
fn fd(descriptor: BorrowedFd<'_>) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}

/// The bpf system call, of a command that makes a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are readable for their size, and what they point to outlives the call.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match i32::try_from(made) {
        // SAFETY: the kernel made this descriptor for us, and nothing else has it.
        Ok(made) if made >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(made) }),
        _ => Err(io::Error::last_os_error()),
    }
}
