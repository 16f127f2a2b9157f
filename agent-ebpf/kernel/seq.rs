//! The output of an iterator, which the agent reads as a file.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;

/// `struct bpf_iter_meta`, as far as it is used.
#[repr(C)]
pub(crate) struct IterMeta {
    seq: *mut c_void,
}

/// The file the agent reads from.
#[derive(Clone, Copy)]
pub(crate) struct SeqFile(*mut c_void);

impl SeqFile {
    /// The file of this run.
    ///
    /// # Safety
    ///
    /// `meta` must be what the kernel handed to the iterator.
    #[inline(always)]
    pub(crate) unsafe fn of(meta: *const IterMeta) -> Self {
        // SAFETY: the caller's pointer is the kernel's.
        Self(unsafe { (*meta).seq })
    }

    /// Writes one record, or nothing where the file's buffer is full: then the kernel empties it
    /// and visits the same object again.
    #[inline(always)]
    pub(crate) fn write<T: Copy>(self, record: &T) -> bool {
        let data = core::ptr::from_ref(record).cast();
        // SAFETY: the file is this run's, and the record readable for its size.
        unsafe { bpf_seq_write(self.0.cast(), data, size_of::<T>() as u32) == 0 }
    }
}
