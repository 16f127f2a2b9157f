//! Opens an iterator over the elements of a map, which aya's `Iter` does not: it hands no map over.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use super::bpf::{Attributes, Command, make, number};

/// `BPF_TRACE_ITER`, an `enum bpf_attach_type` (include/uapi/linux/bpf.h).
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

// SAFETY: it has the kernel's layout, and [`open`] keeps what it points to.
unsafe impl Attributes for LinkCreate {}

/// The part of it for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

// SAFETY: it has the kernel's layout, without a pointer.
unsafe impl Attributes for IterCreate {}

/// A file from which the output of `program` over the elements of `map` is read, once.
pub(super) fn open(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<File> {
    let info = LinkInfo {
        map_fd: number(map),
    };
    let link = make(
        Command::LinkCreate,
        &mut LinkCreate {
            prog_fd: number(program),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: std::ptr::from_ref(&info).expose_provenance() as u64,
            iter_info_len: 4,
            rest: 0,
        },
    )?;
    let iterator = make(
        Command::IterCreate,
        &mut IterCreate {
            link_fd: number(link.as_fd()),
            flags: 0,
        },
    )?;
    Ok(iterator.into())
}
