//! The full pass of a census: every TCP socket of the network namespace in which the iterator was
//! opened.
//!
//! The iterator visits listeners, then request minisockets, full sockets and timewait minisockets
//! (`net/ipv4/tcp_ipv4.c`). A socket whose record finds no room is visited again, so it is counted
//! only once the record is written.

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::generated::bpf_skc_to_tcp_timewait_sock,
    macros::btf_map,
};

use agent_ebpf::{
    census::{CensusCounts, PORT_WORDS, PortKey, PortSet},
    maps::PORT_CAPACITY,
    socket::SocketEntry,
    state::{self, NEW_SYN_RECV, SYN_RECV, TIME_WAIT},
};

use crate::{
    census::{self, Full},
    count,
    globals::{field, setting},
    seq::{IterMeta, SeqFile},
    sock::{Fields as _, Sock, TcpSock, load},
    table,
};

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
    let Some(counts) = census::counts() else {
        return 0;
    };
    // SAFETY: the map's value, which nothing else touches during a pass.
    let counts = unsafe { &mut *counts };
    if socket.is_null() {
        // The last call of a pass.
        census::end(counts);
        return 0;
    }
    let sock = Sock::new(socket);
    match sock.state() {
        NEW_SYN_RECV => census::add(counts, SYN_RECV, 0, 0),
        TIME_WAIT => {
            census::add(counts, substate(sock), 1, 0);
            use_port(counts, sock);
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
    let remembers = counts.remember != 0 && setting::ITERATOR_LOCKS.is_set();
    let listens = state == state::LISTEN;
    let mut full = Full {
        fields: tcp,
        state,
        cookie: 0,
    };
    if listens || remembers || state::is_lingering(state) {
        // Given now where it had none, so only to those that are told or remembered by it.
        full.cookie = sock.cookie();
        let (since_ns, pid) = remembered(sock, remembers);
        if !full.tell(output, since_ns, pid) {
            return;
        }
    }
    full.count(counts);
    if listens {
        take_port(sock.bound_port());
    } else {
        use_port(counts, sock);
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

/// Since when the socket is in its state and who opened or closed it, 0 where that is not
/// remembered. Where nothing is, and the agent asks for it, an entry is made,
/// by which the next pass over what is remembered finds it; the iterator holds the socket's lock.
#[inline(always)]
fn remembered(sock: Sock, remember: bool) -> (u64, u32) {
    let key = sock.key();
    let cookie = sock.known_cookie();
    if let Some(entry) = table::find(key) {
        // SAFETY: entries are never unmapped, and this socket's lock is held.
        let entry = unsafe { &mut *entry };
        if entry.cookie == 0 || entry.cookie == cookie {
            return (entry.since_ns, entry.pid);
        }
        // Else left by another socket, whose close was missed.
        if remember {
            fill(entry, cookie);
        }
        return (0, 0);
    }
    if remember && let Some(counters) = count::counters() {
        // SAFETY: the pointer is this CPU's counters.
        match unsafe { table::claim(counters, key) } {
            // SAFETY: as above.
            Some(entry) => fill(unsafe { &mut *entry }, cookie),
            // SAFETY: the pointer is this CPU's counters.
            None => unsafe { count::add(&raw mut (*counters).lost_state_full, 1) },
        }
    }
    (0, 0)
}

/// Makes an entry that of a socket of which nothing is known.
#[inline(always)]
fn fill(entry: &mut SocketEntry, cookie: u64) {
    entry.since_ns = 0;
    entry.cookie = cookie;
    entry.pid = 0;
    entry.flags = 0;
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
fn use_port(counts: &mut CensusCounts, sock: Sock) {
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
    match count::entry(&CENSUS_PORTS, &key, &0) {
        // SAFETY: the map's value, which nothing else touches during a pass.
        Some(sockets) => unsafe { *sockets += 1 },
        None => counts.ports_untold += 1,
    }
}
