//! The census: every TCP socket of the network namespace in which the iterator was opened.
//!
//! One run at a time: the agent has but one thread for it. The iterator visits listeners, then
//! request minisockets, full sockets and timewait minisockets (`net/ipv4/tcp_ipv4.c`). A socket
//! whose record finds no room is visited again, so it is counted only once the record is written.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_jiffies64, bpf_skc_to_tcp_timewait_sock},
    },
    macros::btf_map,
};

use agent_ebpf::{
    census::{
        CensusCounts, CgroupCounts, PORT_WORDS, PortKey, PortSet, SOCKET_IPV6, SOCKET_ORPHAN,
        SOCKET_SOFT_ERROR, SOCKET_UNACCEPTED, SocketRecord, workload_state,
    },
    close::SOCK_DEAD,
    maps::{CGROUP_CAPACITY, PORT_CAPACITY},
    record::LATE_AFTER_NS,
    state::{self, NEW_SYN_RECV, SYN_RECV, TIME_WAIT},
};

use crate::{
    count,
    globals::field,
    seq::{IterMeta, SeqFile},
    sock::{Sock, TcpSock, load},
    table,
};

#[btf_map]
static CENSUS: Array<CensusCounts, 1> = Array::new();

/// Full sockets by cgroup.
#[btf_map]
static CENSUS_CGROUPS: HashMap<u64, CgroupCounts, CGROUP_CAPACITY> = HashMap::new();

/// Sockets on ephemeral ports.
#[btf_map]
static CENSUS_PORTS: HashMap<PortKey, u64, PORT_CAPACITY> = HashMap::new();

#[btf_map]
static CENSUS_TAKEN_PORTS: Array<PortSet, 1> = Array::new();

/// `struct bpf_iter__tcp`, as far as it is used: pointers that are eight bytes each.
#[repr(C)]
struct IterTcp {
    meta: *const IterMeta,
    socket: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn census_tcp(context: *const IterTcp) -> i32 {
    // SAFETY: the kernel hands over a bpf_iter__tcp.
    let (meta, socket) = unsafe { ((*context).meta, (*context).socket) };
    let Some(counts) = CENSUS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the map's value, which nothing else touches during a pass.
    let counts = unsafe { &mut *counts };
    if socket.is_null() {
        // The last call of a pass.
        // SAFETY: the helpers have no preconditions.
        (counts.jiffies, counts.clock_ns) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
        return 0;
    }
    let sock = Sock::new(socket);
    match sock.state() {
        NEW_SYN_RECV => count(counts, SYN_RECV, 0, 0),
        TIME_WAIT => {
            count(counts, substate(sock), 1, 0);
            use_port(sock);
        }
        state => {
            if let Some(tcp) = sock.tcp() {
                // SAFETY: the kernel hands over the iterator's meta data.
                visit(unsafe { SeqFile::of(meta) }, counts, state, sock, tcp);
            }
        }
    }
    0
}

/// A full socket or a listener.
#[inline(always)]
fn visit(output: SeqFile, counts: &mut CensusCounts, state: u8, sock: Sock, tcp: TcpSock) {
    let cgroup = tcp.cgroup();
    let dead = sock.flags() & SOCK_DEAD;
    let listens = state == state::LISTEN;
    if listens || state::is_lingering(state) {
        let (age_ns, pid) = remembered(sock);
        if listens || age_ns == 0 || age_ns > LATE_AFTER_NS {
            let record = record(state, sock, tcp, cgroup, age_ns, pid);
            if !output.write(&record) {
                return;
            }
        }
    }
    // SOCK_DEAD is the lowest bit: one or none.
    count(counts, state, 0, dead);
    if listens {
        take_port(sock.bound_port());
        return;
    }
    use_port(sock);
    if let Some(place) = workload_state(state)
        && let Some(of_cgroup) = count::entry(&CENSUS_CGROUPS, &cgroup, &[0; 5])
        // SAFETY: the map's value, which nothing else touches during a pass.
        && let Some(sockets) = unsafe { (*of_cgroup).get_mut(place) }
    {
        *sockets += 1;
    }
}

#[inline(always)]
fn count(counts: &mut CensusCounts, shown: u8, minisockets: u64, orphans: u64) {
    // Where the compiler knows the state from a branch it took, it leaves out the check below, and
    // the verifiers of 5.10 and 6.1 do not know what it knows. One check serves both arrays: of
    // two, those verifiers follow a path on which the first fails and the second does not.
    let mut index = usize::from(shown);
    // SAFETY: states are four bits, so this changes nothing; it hides the rest from the compiler.
    unsafe { asm!("{0} &= 15", inout(reg) index) };
    if let (Some(of_state), Some(orphans_of_state)) =
        (counts.states.get_mut(index), counts.orphans.get_mut(index))
    {
        *of_state += 1;
        *orphans_of_state += orphans;
        counts.minisockets += minisockets;
    }
}

/// Whether a timewait minisocket is in `TIME_WAIT` proper or waits for the peer's FIN.
#[inline(always)]
fn substate(sock: Sock) -> u8 {
    // SAFETY: the helper checks the socket itself.
    let minisocket = unsafe { bpf_skc_to_tcp_timewait_sock(sock.as_ptr().cast_mut()) };
    if minisocket.is_null() {
        return TIME_WAIT;
    }
    // SAFETY: the helper gave the pointer its type.
    unsafe { load(minisocket.cast_const().cast(), &field::TW_SUBSTATE) }
}

/// How long the socket has been in its state, and the process that closed or opened it, as far
/// as its entry tells.
#[inline(always)]
fn remembered(sock: Sock) -> (u64, u32) {
    let Some(entry) = table::find(sock.key()) else {
        return (0, 0);
    };
    // SAFETY: entries are never unmapped, and the iterator holds this socket's lock.
    let entry = unsafe { &*entry };
    if entry.cookie != 0 && entry.cookie != sock.known_cookie() {
        return (0, 0);
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let age = if entry.since_ns == 0 {
        0
    } else {
        now.wrapping_sub(entry.since_ns)
    };
    (age, entry.pid)
}

#[inline(always)]
fn record(state: u8, sock: Sock, tcp: TcpSock, cgroup: u64, age_ns: u64, pid: u32) -> SocketRecord {
    // SAFETY: the helpers have no preconditions.
    let (jiffies, now_ns) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
    let snd_una = tcp.load::<u32>(&field::TCP_SND_UNA);
    let snd_nxt = tcp.load::<u32>(&field::TCP_SND_NXT);
    let retrans_stamp = tcp.load::<u32>(&field::TCP_RETRANS_STAMP);
    let probes_tstamp = tcp.load_optional::<u32>(&field::ICSK_PROBES_TSTAMP);
    let mut flags = 0;
    if sock.is_ipv6() {
        flags |= SOCKET_IPV6;
    }
    if sock.flags() & SOCK_DEAD != 0 {
        flags |= SOCKET_ORPHAN;
    } else if !tcp.has_socket() && !tcp.is_mptcp() {
        flags |= SOCKET_UNACCEPTED;
    }
    if tcp.load_optional::<i32>(&field::SOCK_ERR_SOFT) != 0 {
        flags |= SOCKET_SOFT_ERROR;
    }
    SocketRecord {
        socket: sock.id(sock.cookie(), sock.bound_port()),
        cgroup,
        age_ns,
        pid,
        accept_queue: tcp.load(&field::SOCK_ACK_BACKLOG),
        accept_queue_limit: tcp.load(&field::SOCK_MAX_ACK_BACKLOG),
        unread: tcp.unread(),
        unsent: tcp.load::<u32>(&field::TCP_WRITE_SEQ).wrapping_sub(snd_nxt),
        in_flight: snd_nxt.wrapping_sub(snd_una),
        snd_una,
        snd_wnd: tcp.load(&field::TCP_SND_WND),
        packets_out: tcp.load(&field::TCP_PACKETS_OUT),
        rto: tcp.load(&field::ICSK_RTO),
        retransmit_in: tcp
            .load_optional::<u64>(&field::RETRANSMIT_TIMER)
            .wrapping_sub(jiffies) as i32,
        keepalive_in: tcp
            .load_optional::<u64>(&field::KEEPALIVE_TIMER)
            .wrapping_sub(jiffies) as i32,
        since_acknowledged: (jiffies as u32).wrapping_sub(tcp.load(&field::TCP_RCV_TSTAMP)),
        retransmitting_ms: since((now_ns / 1_000_000) as u32, retrans_stamp),
        probing: since(jiffies as u32, probes_tstamp),
        user_timeout_ms: tcp.load(&field::ICSK_USER_TIMEOUT),
        state,
        flags,
        retransmits: tcp.load(&field::ICSK_RETRANSMITS),
        backoff: tcp.load(&field::ICSK_BACKOFF),
        probes_out: tcp.load(&field::ICSK_PROBES_OUT),
        reserved: [0; 3],
    }
}

/// From `stamp` to `now`; 0 without a stamp, and at least 1 with one.
#[inline(always)]
fn since(now: u32, stamp: u32) -> u32 {
    match now.wrapping_sub(stamp) {
        _ if stamp == 0 => 0,
        0 => 1,
        time => time,
    }
}

/// Something listens on this port: `connect()` does not choose it.
#[inline(always)]
fn take_port(port: u16) {
    if let Some(taken) = CENSUS_TAKEN_PORTS.get_ptr_mut(0)
        // SAFETY: the map's value, which nothing else touches during a pass.
        && let Some(word) = unsafe { (*taken).get_mut(usize::from(port / 64) % PORT_WORDS) }
    {
        *word |= 1 << (port % 64);
    }
}

/// Counts the socket among those with its addresses and remote port, if its port is ephemeral.
#[inline(always)]
fn use_port(sock: Sock) {
    let port = sock.bound_port();
    let taken = match CENSUS_TAKEN_PORTS.get(0) {
        Some(taken) => taken.get(usize::from(port / 64) % PORT_WORDS),
        None => None,
    };
    if taken.is_none_or(|word| word >> (port % 64) & 1 != 0) {
        return;
    }
    let (source, destination) = sock.mapped_addresses();
    let key = PortKey {
        source,
        destination,
        netns: sock.netns(),
        port: sock.remote_port(),
        reserved: 0,
    };
    if let Some(sockets) = count::entry(&CENSUS_PORTS, &key, &0) {
        // SAFETY: the map's value, which nothing else touches during a pass.
        unsafe { *sockets += 1 };
    }
}
