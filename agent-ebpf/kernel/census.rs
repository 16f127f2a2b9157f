//! What both passes of a census do with a full socket: count it, and tell of it where it lingers
//! or listens.

use core::arch::asm;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::btf_map,
};

use agent_ebpf::{
    census::{
        CensusCounts, CgroupCounts, SOCKET_IPV6, SOCKET_ORPHAN, SOCKET_SOFT_ERROR,
        SOCKET_UNACCEPTED, SocketRecord, workload_state,
    },
    close::SOCK_DEAD,
    maps::CGROUP_CAPACITY,
    record::LATE_AFTER_NS,
    state,
};

use crate::{count, globals::field, seq::SeqFile, sock::Fields};

/// One pass runs at a time: the agent has but one thread for it.
#[btf_map]
static CENSUS: Array<CensusCounts, 1> = Array::new();

/// Full sockets by cgroup.
#[btf_map]
static CENSUS_CGROUPS: HashMap<u64, CgroupCounts, CGROUP_CAPACITY> = HashMap::new();

/// The record in the making, which the stack has no room for.
#[btf_map]
static CENSUS_RECORD: Array<SocketRecord, 1> = Array::new();

/// The counts of this pass.
#[inline(always)]
pub(crate) fn counts() -> Option<*mut CensusCounts> {
    CENSUS.get_ptr_mut(0)
}

/// Notes when the pass ended.
#[inline(always)]
pub(crate) fn end(counts: &mut CensusCounts) {
    // SAFETY: the helpers have no preconditions.
    (counts.jiffies, counts.clock_ns) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
}

/// A full socket, or a listener.
#[derive(Clone, Copy)]
pub(crate) struct Full<F> {
    pub(crate) fields: F,
    pub(crate) state: u8,
    pub(crate) cookie: u64,
}

impl<F: Fields> Full<F> {
    /// Tells of it where it lingers or listens; `since_ns` is when its state began and `pid` who
    /// opened or closed it, 0 where that is not remembered. False where there was no room: then
    /// the pass visits it again.
    #[inline(always)]
    pub(crate) fn tell(self, output: SeqFile, since_ns: u64, pid: u32) -> bool {
        if self.state != state::LISTEN && !state::is_lingering(self.state) {
            return true;
        }
        // SAFETY: the helper has no preconditions.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        let age_ns = if since_ns == 0 {
            0
        } else {
            now_ns.wrapping_sub(since_ns)
        };
        if self.state != state::LISTEN && age_ns != 0 && age_ns <= LATE_AFTER_NS {
            return true;
        }
        let Some(record) = CENSUS_RECORD.get_ptr_mut(0) else {
            return true;
        };
        // SAFETY: the map's value, which nothing else touches during a pass.
        let record = unsafe { &mut *record };
        *record = self.record(now_ns, age_ns, pid);
        // Where the address is another socket's by now, there is nothing to tell.
        self.fields.known_cookie() != self.cookie || output.write(record)
    }

    /// Counts it by state, orphans apart, and by cgroup.
    #[inline(always)]
    pub(crate) fn count(self, counts: &mut CensusCounts) {
        // SOCK_DEAD is the lowest bit: one or none.
        add(counts, self.state, 0, self.fields.flags() & SOCK_DEAD);
        let Some(place) = workload_state(self.state) else {
            return;
        };
        let Some(of_cgroup) = count::entry(&CENSUS_CGROUPS, &self.fields.cgroup(), &[0; 5]) else {
            counts.cgroups_untold += 1;
            return;
        };
        // SAFETY: the map's value, which nothing else touches during a pass.
        if let Some(sockets) = unsafe { (*of_cgroup).get_mut(place) } {
            *sockets += 1;
        }
    }

    #[inline(always)]
    fn record(self, now_ns: u64, age_ns: u64, pid: u32) -> SocketRecord {
        let fields = self.fields;
        // SAFETY: the helper has no preconditions.
        let jiffies = unsafe { bpf_jiffies64() };
        let snd_una = fields.load::<u32>(&field::TCP_SND_UNA);
        let snd_nxt = fields.load::<u32>(&field::TCP_SND_NXT);
        let retrans_stamp = fields.load::<u32>(&field::TCP_RETRANS_STAMP);
        let probes_tstamp = fields.load_optional::<u32>(&field::ICSK_PROBES_TSTAMP);
        let mut flags = 0;
        if fields.is_ipv6() {
            flags |= SOCKET_IPV6;
        }
        if fields.flags() & SOCK_DEAD != 0 {
            flags |= SOCKET_ORPHAN;
        } else if !fields.has_socket() && !fields.is_mptcp() {
            flags |= SOCKET_UNACCEPTED;
        }
        if fields.load_optional::<i32>(&field::SOCK_ERR_SOFT) != 0 {
            flags |= SOCKET_SOFT_ERROR;
        }
        let until = |timer| fields.load_optional::<u64>(timer).wrapping_sub(jiffies) as i32;
        SocketRecord {
            socket: fields.id(self.cookie, fields.bound_port()),
            cgroup: fields.cgroup(),
            age_ns,
            pid,
            accept_queue: fields.load(&field::SOCK_ACK_BACKLOG),
            accept_queue_limit: fields.load(&field::SOCK_MAX_ACK_BACKLOG),
            unread: fields.unread(),
            unsent: fields
                .load::<u32>(&field::TCP_WRITE_SEQ)
                .wrapping_sub(snd_nxt),
            in_flight: snd_nxt.wrapping_sub(snd_una),
            snd_una,
            snd_wnd: fields.load(&field::TCP_SND_WND),
            packets_out: fields.load(&field::TCP_PACKETS_OUT),
            rto: fields.load(&field::ICSK_RTO),
            retransmit_in: until(&field::RETRANSMIT_TIMER),
            keepalive_in: until(&field::KEEPALIVE_TIMER),
            since_acknowledged: (jiffies as u32).wrapping_sub(fields.load(&field::TCP_RCV_TSTAMP)),
            retransmitting_ms: since((now_ns / 1_000_000) as u32, retrans_stamp),
            probing: since(jiffies as u32, probes_tstamp),
            user_timeout_ms: fields.load(&field::ICSK_USER_TIMEOUT),
            state: self.state,
            flags,
            retransmits: fields.load(&field::ICSK_RETRANSMITS),
            backoff: fields.load(&field::ICSK_BACKOFF),
            probes_out: fields.load(&field::ICSK_PROBES_OUT),
            reserved: [0; 3],
        }
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

/// Adds a socket in the state that is shown of it.
#[inline(always)]
pub(crate) fn add(counts: &mut CensusCounts, shown: u8, minisockets: u64, orphans: u64) {
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
