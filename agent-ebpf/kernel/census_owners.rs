//! Who holds the sockets that were asked for: every open file of every process.

use core::ffi::c_void;

use aya_ebpf::{btf_maps::HashMap, helpers::generated::bpf_sock_from_file, macros::btf_map};

use agent_ebpf::{
    census::{OwnerRecord, OwnerSlot},
    maps::WANTED_CAPACITY,
};

use crate::{
    globals::field,
    seq::{IterMeta, SeqFile},
    sock::{Fields as _, Sock, load},
    task::Task,
};

/// The cookies of the sockets whose owners are asked for.
#[btf_map]
static CENSUS_WANTED: HashMap<u64, u32, WANTED_CAPACITY> = HashMap::new();

/// `struct bpf_iter__task_file`.
#[repr(C)]
struct IterTaskFile {
    meta: *const IterMeta,
    task: *const c_void,
    fd: u32,
    file: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn census_owners(context: *const IterTaskFile) -> i32 {
    // SAFETY: the kernel hands over a bpf_iter__task_file.
    let (meta, task, file) = unsafe { ((*context).meta, (*context).task, (*context).file) };
    // The last call of a pass has neither.
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the helper takes any file.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the helper gave the pointer its type, and so has what is found there.
    let sock = Sock::new(unsafe { load(socket.cast_const().cast(), &field::SOCKET_SK) });
    // A socket that is being closed has none: the load then reads zeros.
    let cookie = sock.known_cookie();
    // SAFETY: the value is not looked at.
    if cookie == 0 || unsafe { CENSUS_WANTED.get(cookie) }.is_none() {
        return 0;
    }
    let task = Task::new(task);
    let record = OwnerRecord {
        cookie,
        owner: OwnerSlot {
            cgroup: task.cgroup(),
            comm: task.leader().comm(),
            pid: task.process(),
            reserved: 0,
        },
    };
    // Without room the file is visited again.
    // SAFETY: the kernel hands over the iterator's meta data.
    let _written = unsafe { SeqFile::of(meta) }.write(&record);
    0
}
