//! The system calls that are left, as a seccomp filter.
//!
//! An allow-list: what is not here returns EPERM, and the agent says what it could not do and goes
//! on. It holds what the agent itself calls once it runs, and what its libraries may call for it in
//! another version: memory, threads, clocks, signals.

use std::{collections::BTreeMap, env::consts::ARCH};

use libc::c_long;
use seccompiler::{
    BpfProgram, BpfProgramRef, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter, apply_filter_all_threads,
};
use thiserror::Error;

/// Why all system calls are still there.
#[derive(Debug, Error)]
pub enum CallsError {
    /// The filter cannot be made for this processor.
    #[error("there is no filter of system calls for {ARCH}")]
    Unmade(#[source] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel takes no filter of system calls (CONFIG_SECCOMP_FILTER)")]
    Refused(#[source] seccompiler::Error),
}

/// Those that are allowed whatever they are given.
const ALLOWED: &[c_long] = &[
    // Files that are open, and what there is in directories.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // The socket of the API, at the end.
    libc::SYS_unlinkat,
    // Connections that were accepted; none is made.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    // Time, chance, and who one is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_sched_getaffinity,
    libc::SYS_capget,
    // Capabilities are given up, and never come back.
    libc::SYS_capset,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads, among them those that compare passwords, and signals.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
];

/// Older forms of these, which newer processors never had.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Any of these makes a file writable, or a new one.
const WRITING: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;

/// The commands of `bpf()` that read and write maps, and run the census's iterators; `enum bpf_cmd`
/// of <linux/bpf.h>. None of them loads a program or makes a map.
const BPF: [u64; 10] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    28, // BPF_LINK_CREATE, of an iterator over a map or a namespace
    33, // BPF_ITER_CREATE
];

type Made<T> = Result<T, seccompiler::BackendError>;

/// What a call is allowed with: one of these values, or of their bits, in an argument of 32 bits.
fn with(argument: u8, operator: &Op, values: &[u64]) -> Made<Vec<SeccompRule>> {
    let rules = values.iter().map(|value| {
        let condition = SeccompCondition::new(argument, Len::Dword, operator.clone(), *value)?;
        SeccompRule::new(vec![condition])
    });
    rules.collect()
}

fn rules() -> Made<BTreeMap<c_long, Vec<SeccompRule>>> {
    // A call without rules is allowed as it is.
    let plain = ALLOWED.iter().chain(OLDER);
    let mut rules: BTreeMap<_, _> = plain.map(|call| (*call, Vec::new())).collect();
    let reading = Op::MaskedEq(bits(WRITING));
    rules.insert(libc::SYS_openat, with(2, &reading, &[0])?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, with(1, &reading, &[0])?);
    rules.insert(libc::SYS_bpf, with(0, &Op::Eq, &BPF)?);
    let network = bits(libc::CLONE_NEWNET);
    rules.insert(libc::SYS_setns, with(1, &Op::Eq, &[network])?);
    // Threads of this process, and none of its own.
    let thread = bits(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, with(0, &Op::MaskedEq(thread), &[thread])?);
    Ok(rules)
}

fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// The filters, in the order in which they are put on.
fn filters() -> Made<[BpfProgram; 2]> {
    let processor = ARCH.try_into()?;
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let allowed = SeccompFilter::new(rules()?, denied, SeccompAction::Allow, processor)?;
    // What clone3() makes stands in memory, where no filter looks: as if the kernel had no such
    // call, glibc makes its threads by clone().
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let threads = SeccompFilter::new(clone3, SeccompAction::Allow, absent, processor)?;
    Ok([threads.try_into()?, allowed.try_into()?])
}

/// Leaves all threads of this process, and those they start, with the calls above.
///
/// # Errors
///
/// Where there is no filter for this processor, or the kernel takes none.
pub fn confine() -> Result<(), CallsError> {
    put_on(apply_filter_all_threads)
}

/// The same of this thread alone.
///
/// # Errors
///
/// As above.
pub fn confine_this_thread() -> Result<(), CallsError> {
    put_on(apply_filter)
}

fn put_on(put_on: fn(BpfProgramRef<'_>) -> seccompiler::Result<()>) -> Result<(), CallsError> {
    for filter in filters().map_err(CallsError::Unmade)? {
        put_on(&filter).map_err(CallsError::Refused)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io, net::TcpListener, os::fd::AsFd as _, process::Command, thread};

    use super::*;

    /// What becomes of something that is tried with the filters on.
    fn confined<T: Send + 'static>(attempt: fn() -> io::Result<T>) -> io::Result<T> {
        let thread = thread::spawn(move || {
            confine_this_thread().unwrap();
            attempt()
        });
        thread.join().unwrap()
    }

    fn is_denied<T: Send + 'static>(attempt: fn() -> io::Result<T>) -> bool {
        let error = confined(attempt).err();
        error.and_then(|error| error.raw_os_error()) == Some(libc::EPERM)
    }

    #[test]
    fn reading_waiting_and_threads_are_left() {
        assert!(confined(|| fs::read("/proc/self/stat")).is_ok());
        assert!(confined(|| fs::read_dir("/proc").map(Iterator::count)).is_ok());
        assert!(confined(|| fs::metadata("/etc")).is_ok());
        let nested =
            || Ok(thread::spawn(|| thread::sleep(std::time::Duration::from_millis(1))).join());
        assert!(confined(nested).is_ok());
    }

    #[test]
    fn nothing_is_started_written_or_connected() {
        assert!(is_denied(|| Command::new("/bin/true").status()));
        assert!(is_denied(|| fs::write("/tmp/connstate-never-made", "")));
        assert!(is_denied(|| fs::OpenOptions::new()
            .append(true)
            .open("/dev/null")));
        assert!(is_denied(|| fs::create_dir("/tmp/connstate-never-made")));
        assert!(is_denied(|| TcpListener::bind("127.0.0.1:0")));
        assert!(is_denied(|| fs::rename("/tmp/a", "/tmp/b")));
    }

    #[test]
    fn no_program_is_loaded_and_no_other_namespace_entered() {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

        assert!(is_denied(|| {
            let own = fs::File::open("/proc/self/ns/mnt")?;
            move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
            Ok(())
        }));
        let load = || {
            let kind = aya::programs::ProgramType::SocketFilter;
            aya::sys::is_program_supported(kind).map_err(io::Error::other)
        };
        if !load().is_ok_and(|is_loaded| is_loaded) {
            eprintln!("skipped: this user loads no program anyway");
            return;
        }
        assert!(!confined(load).is_ok_and(|is_loaded| is_loaded));
    }
}
