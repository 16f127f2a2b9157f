//! Read-only globals that the loader sets before it loads the programs.
//!
//! The map behind them is frozen, so the verifier takes each as a constant: it checks every load
//! at the offset it finds here, and drops the code that a setting switches off.

use agent_ebpf::fields::Location;

macro_rules! declare_fields {
    ($($global:ident, $container:literal, $path:literal, $need:ident, $purpose:literal;)*) => {
        /// Where each field of `agent_ebpf::fields` lies.
        pub(crate) mod field {
            use super::Global;
            $(
                #[unsafe(no_mangle)]
                pub(crate) static $global: Global = Global::new(u32::MAX);
            )*
        }
    };
}
agent_ebpf::kernel_fields!(declare_fields);

macro_rules! declare_settings {
    ($($setting:ident),*) => {
        /// The settings of `agent_ebpf::programs::settings`.
        pub(crate) mod setting {
            use super::Global;
            $(
                #[unsafe(no_mangle)]
                pub(crate) static $setting: Global = Global::new(0);
            )*
        }
    };
}
declare_settings!(
    ATOMIC_COUNTERS,
    HAS_COOKIE_HELPER,
    HAS_CURRENT_TASK,
    ITERATOR_LOCKS,
    RETRANSMIT_HAS_ERR,
    SOCKET_BUCKET_MASK,
    ONLY_NETNS,
    WAKE_BYTES
);

/// A `u32` the compiler may not assume to know.
#[repr(transparent)]
pub(crate) struct Global(u32);

impl Global {
    const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value the loader set.
    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        // SAFETY: the reference is valid; volatile, since the loader rewrites the section.
        unsafe { core::ptr::read_volatile(&raw const self.0) }
    }

    /// Whether the loader set it to anything but 0.
    #[inline(always)]
    pub(crate) fn is_set(&self) -> bool {
        self.get() != 0
    }

    /// The place of the field this global stands for.
    #[inline(always)]
    pub(crate) fn location(&self) -> Location {
        Location(self.get())
    }
}
