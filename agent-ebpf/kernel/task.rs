//! Reads the kernel's tasks, by direct loads that the verifier checks.

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::Array,
    helpers::{
        bpf_get_current_comm,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task_btf},
    },
    macros::btf_map,
};

use agent_ebpf::census::{COMM_LEN, OWNER_SLOTS, OwnerSlot};

use crate::{
    globals::{field, setting},
    sock::load,
};

/// Processes as they were when they opened or closed a socket: by the time somebody asks, one
/// that closed its sockets may be gone.
#[btf_map]
static OWNERS: Array<OwnerSlot, { OWNER_SLOTS as usize }> = Array::new();

/// A pointer to `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const c_void);

impl Task {
    /// An iterator's task.
    #[inline(always)]
    pub(crate) fn new(task: *const c_void) -> Self {
        Self(task)
    }

    #[inline(always)]
    fn load<T: Copy>(self, global: &crate::globals::Global) -> T {
        // SAFETY: the pointer came from the kernel, so BTF-typed.
        unsafe { load(self.0, global) }
    }

    /// The thread-group leader.
    #[inline(always)]
    pub(crate) fn leader(self) -> Self {
        Self(self.load(&field::TASK_LEADER))
    }

    /// The process's id in the first namespace of processes.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        self.load(&field::TASK_TGID)
    }

    /// The task's own name.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let first: u64 = self.load(&field::TASK_COMM);
        let next = Self(self.0.wrapping_byte_add(8));
        let second: u64 = next.load(&field::TASK_COMM);
        // SAFETY: two u64s are sixteen bytes.
        unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>([first, second]) }
    }

    /// The id of its cgroup; 0 where the kernel does not tell.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        if !field::TASK_CGROUPS.location().is_present()
            || !field::CSS_SET_CGROUP.location().is_present()
        {
            return 0;
        }
        if !field::CGROUP_KN.location().is_present() || !field::KN_ID.location().is_present() {
            return 0;
        }
        let set: *const c_void = self.load(&field::TASK_CGROUPS);
        // SAFETY: BTF types the pointers on the way: css_set, cgroup, kernfs_node.
        unsafe {
            let cgroup: *const c_void = load(set, &field::CSS_SET_CGROUP);
            let node: *const c_void = load(cgroup, &field::CGROUP_KN);
            load(node, &field::KN_ID)
        }
    }
}

/// Remembers the process at work, whose id is `pid`.
#[inline(always)]
pub(crate) fn remember(pid: u32) {
    let Some(slot) = OWNERS.get_ptr_mut(pid % OWNER_SLOTS) else {
        return;
    };
    let comm = if setting::HAS_CURRENT_TASK.is_set() {
        // SAFETY: the helper has no preconditions.
        Task::new(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
            .leader()
            .comm()
    } else {
        // Before 5.11: the thread's own.
        bpf_get_current_comm().unwrap_or([0; COMM_LEN])
    };
    // SAFETY: the map's value; processes that share a slot may tear it, and it is read as names
    // are: for a person to look at.
    let slot = unsafe { &mut *slot };
    if slot.pid != pid || slot.comm != comm {
        *slot = OwnerSlot {
            // SAFETY: the helper has no preconditions.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
            comm,
            pid,
            reserved: 0,
        };
    }
}
