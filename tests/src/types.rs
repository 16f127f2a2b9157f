//! The kernel's types, for a test to give an agent others in their place.

/// Where a kernel tells its types (BTF).
pub const KERNELS: &str = "/sys/kernel/btf/vmlinux";

/// Where the name stands among the strings, between the ends of two; the header tells where these
/// begin (`struct btf_header`).
#[must_use]
pub fn name(bytes: &[u8], name: &str) -> Option<usize> {
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_ne_bytes(*word)).ok()
    };
    let strings = word(4)? + word(16)?;
    let whole = [&b"\0"[..], name.as_bytes(), b"\0"].concat();
    let mut windows = bytes.get(strings..)?.windows(whole.len());
    Some(strings + windows.position(|window| window == whole)? + 1)
}
