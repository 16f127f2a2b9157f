//! The C library's heap.

/// Gives the heap's free pages back to the system, from its middle too. The kernel's BTF takes
/// some ten megabytes while the programs are loaded, and what is allocated after it would keep
/// them.
#[cfg(target_env = "gnu")]
pub(super) fn trim() {
    // SAFETY: malloc_trim has no preconditions, and takes the heap's own locks.
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no such call.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
