//! How the name of a host becomes addresses where the executable is linked with no shared library.

/// Has names looked up in /etc/hosts and by DNS, and by nothing else that /etc/nsswitch.conf names.
///
/// glibc would load a module for each of the others, such as systemd's `resolve`, and with it the
/// glibc of the host, even into an executable that holds one itself. Where these two are not of one
/// version the process crashes; what /etc/hosts and DNS take is inside.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
pub(super) fn keep_to_own() {
    use std::{
        ffi::{c_char, c_int},
        sync::Once,
    };

    // SAFETY: as <nss.h> declares it.
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, sources: *const c_char) -> c_int;
    }
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        // SAFETY: both are strings that end with a zero and are only read.
        let _kept = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    });
}

/// Where libraries are shared, modules and glibc are the host's, all of them.
#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
pub(super) fn keep_to_own() {}
