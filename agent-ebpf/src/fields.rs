//! The kernel's fields that the programs read.
//!
//! Rust has no CO-RE relocations. Instead each field is a read-only global of the object: the
//! loader finds it in the running kernel's BTF, writes where it lies into the global, and the
//! program adds that to the pointer it was given and loads. The map of read-only globals is
//! frozen, so the verifier knows the offset and checks that a field of that size lies there.

/// Hands the one table of fields to the macro `$callback`, an entry a line:
/// global, type, path of members, need, and what it is for.
#[macro_export]
macro_rules! kernel_fields {
    ($callback:ident) => {
        $callback! {
            SOCK_PROTOCOL, "sock", "sk_protocol", needed, "telling TCP from MPTCP and other protocols";
            SOCK_FAMILY, "sock", "__sk_common.skc_family", needed, "telling IPv4 from IPv6";
            SOCK_STATE, "sock", "__sk_common.skc_state", needed, "the state of retransmitting and resetting sockets";
            SOCK_COOKIE, "sock", "__sk_common.skc_cookie.counter", needed, "naming a socket for its whole life";
            SOCK_NUM, "sock", "__sk_common.skc_num", needed, "local ports";
            SOCK_DPORT, "sock", "__sk_common.skc_dport", needed, "remote ports";
            SOCK_SADDR, "sock", "__sk_common.skc_rcv_saddr", needed, "local IPv4 addresses";
            SOCK_DADDR, "sock", "__sk_common.skc_daddr", needed, "remote IPv4 addresses";
            SOCK_V6_SADDR, "sock", "__sk_common.skc_v6_rcv_saddr", optional, "local IPv6 addresses";
            SOCK_V6_DADDR, "sock", "__sk_common.skc_v6_daddr", optional, "remote IPv6 addresses";
            SOCK_NET, "sock", "__sk_common.skc_net.net", optional, "the network namespace, and --netns host";
            NET_INUM, "net", "ns.inum", optional, "the network namespace, and --netns host";
            SOCK_FLAGS, "sock", "__sk_common.skc_flags", needed, "close causes: orphans, received FINs, SO_LINGER";
            SOCK_ERR, "sock", "sk_err", needed, "close causes: resets, timeouts, kills";
            SOCK_ERR_SOFT, "sock", "sk_err_soft", optional, "when a stall ends: errors that a router reported";
            SOCK_SHUTDOWN, "sock", "sk_shutdown", needed, "close causes: closed by its process";
            SOCK_LINGERTIME, "sock", "sk_lingertime", needed, "close causes: linger_zero";
            SOCK_SOCKET, "sock", "sk_socket", needed, "close causes: never_accepted";
            TCP_SPORT, "tcp_sock", "inet_conn.icsk_inet.inet_sport", needed, "the local port of closing sockets, and no_ephemeral_port";
            TCP_SND_UNA, "tcp_sock", "snd_una", needed, "close causes: what the peer acknowledged";
            TCP_WRITE_SEQ, "tcp_sock", "write_seq", needed, "close causes: what the peer acknowledged";
            TCP_RCV_NXT, "tcp_sock", "rcv_nxt", needed, "close causes: unread_data";
            TCP_COPIED_SEQ, "tcp_sock", "copied_seq", needed, "close causes: unread_data";
            TCP_LINGER2, "tcp_sock", "linger2", needed, "close causes: linger2";
            TCP_SND_WND, "tcp_sock", "snd_wnd", needed, "the trigger of retransmits into a closed window";
            TCP_IS_MPTCP, "tcp_sock", "is_mptcp", optional, "telling an MPTCP subflow from a connection nobody accepted";
            ICSK_CA_STATE, "tcp_sock", "inet_conn.icsk_ca_state", needed, "the trigger of retransmits";
            ICSK_PENDING, "tcp_sock", "inet_conn.icsk_pending", needed, "the trigger of retransmits";
            ICSK_RETRANSMITS, "tcp_sock", "inet_conn.icsk_retransmits", needed, "the trigger of retransmits";
            ICSK_PROBES_OUT, "tcp_sock", "inet_conn.icsk_probes_out", needed, "close causes: keepalive";
            SOCK_CGROUP, "sock", "sk_cgrp_data.cgroup", optional, "the workload of sockets";
            SOCK_ACK_BACKLOG, "sock", "sk_ack_backlog", needed, "the length of accept queues";
            SOCK_MAX_ACK_BACKLOG, "sock", "sk_max_ack_backlog", needed, "the limit of accept queues";
            TCP_SND_NXT, "tcp_sock", "snd_nxt", needed, "stall causes: what was sent";
            TCP_PACKETS_OUT, "tcp_sock", "packets_out", needed, "stall causes: what is in flight";
            TCP_RCV_TSTAMP, "tcp_sock", "rcv_tstamp", needed, "the least age of sockets older than the agent";
            TCP_RETRANS_STAMP, "tcp_sock", "retrans_stamp", needed, "when a stall ends: the first retransmission";
            ICSK_RTO, "tcp_sock", "inet_conn.icsk_rto", needed, "when a stall ends: the retransmission timeout";
            ICSK_BACKOFF, "tcp_sock", "inet_conn.icsk_backoff", needed, "when a stall ends: how far the timeout was backed off";
            ICSK_USER_TIMEOUT, "tcp_sock", "inet_conn.icsk_user_timeout", needed, "when a stall ends: TCP_USER_TIMEOUT";
            ICSK_PROBES_TSTAMP, "tcp_sock", "inet_conn.icsk_probes_tstamp", optional, "when a stall ends: TCP_USER_TIMEOUT before a closed window (5.11)";
            RETRANSMIT_TIMER, "tcp_sock", "inet_conn.icsk_retransmit_timer.expires|inet_conn.icsk_inet.sk.tcp_retransmit_timer.expires", optional, "when a stall ends: the next retransmission or probe";
            // Where both are there, sk_timer is none of TCP's, or shares its place with the timer of
            // retransmissions (6.12.117, 7.3).
            KEEPALIVE_TIMER, "tcp_sock", "inet_conn.icsk_keepalive_timer.expires|inet_conn.icsk_inet.sk.sk_timer.expires", optional, "when an orphan's FIN_WAIT2 ends";
            CGROUP_KN, "cgroup", "kn", optional, "the workload of sockets";
            KN_ID, "kernfs_node", "id", optional, "the workload of sockets";
            TASK_TGID, "task_struct", "tgid", needed, "the process that holds a socket";
            TASK_LEADER, "task_struct", "group_leader", needed, "the name of the process that holds a socket";
            TASK_COMM, "task_struct", "comm", needed, "the name of the process that holds a socket";
            TASK_CGROUPS, "task_struct", "cgroups", optional, "the workload of processes";
            CSS_SET_CGROUP, "css_set", "dfl_cgrp", optional, "the workload of processes";
            SOCKET_SK, "socket", "sk", needed, "the process that holds a socket";
            TW_SUBSTATE, "tcp_timewait_sock", "tw_sk.tw_substate", needed, "the state of timewait minisockets";
            SKB_CB, "sk_buff", "cb", needed, "retransmitted segments";
            CB_TCP_FLAGS, "tcp_skb_cb", "tcp_flags", needed, "what a retransmitted segment carried";
            CB_SACKED, "tcp_skb_cb", "sacked", needed, "the trigger of retransmits";
            CB_GSO_SEGS, "tcp_skb_cb", "tcp_gso_segs", needed, "retransmits counted in segments";
            REQ_TIMER_EXPIRES, "request_sock", "rsk_timer.expires", optional, "the trigger of SYN-ACK retransmits (all would be `other`)";
        }
    };
}

impl Field {
    /// The ways to it, the one to be tried first before the others.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('|')
    }
}

/// What the programs do without a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// They cannot run.
    Needed,
    /// They run, and lose what the field is for.
    Optional,
}

/// A field of a kernel type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The global that tells the programs where the field lies.
    pub global: &'static str,
    /// The struct, as BTF names it.
    pub container: &'static str,
    /// The members that lead to it, joined by dots; anonymous ones are passed through. Where
    /// kernels differ, the ways to it, joined by `|`: the first there is counts.
    pub path: &'static str,
    /// Whether the programs can run without it.
    pub need: Need,
    /// What it is for, and so what is lost without it.
    pub purpose: &'static str,
}

macro_rules! declare_table {
    (@need needed) => { Need::Needed };
    (@need optional) => { Need::Optional };
    ($($global:ident, $container:literal, $path:literal, $need:ident, $purpose:literal;)*) => {
        /// Every field, in the table's order.
        pub const FIELDS: &[Field] = &[
            $(Field {
                global: stringify!($global),
                container: $container,
                path: $path,
                need: declare_table!(@need $need),
                purpose: $purpose,
            }),*
        ];
    };
}
kernel_fields!(declare_table);

/// Where a field lies, packed into one `u32` so that one global carries it: the byte offset in
/// bits 0–15, for a bit field its first bit in bits 16–23 and its width in bits 24–31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location(pub u32);

impl Location {
    /// The value of a field this kernel does not have.
    pub const ABSENT: Self = Self(u32::MAX);

    /// A whole field at `offset` bytes, or nothing where that is more than a global can tell.
    #[must_use]
    pub const fn whole(offset: u32) -> Option<Self> {
        if offset < 0x1_0000 {
            Some(Self(offset))
        } else {
            None
        }
    }

    /// A field of `width` bits (1 to 8) that starts `bit_offset` bits into its struct and does
    /// not cross a byte. Little-endian alone: bit 0 is the lowest.
    #[must_use]
    pub const fn bits(bit_offset: u32, width: u32) -> Option<Self> {
        let (byte, shift) = (bit_offset / 8, bit_offset % 8);
        if byte < 0x1_0000 && width > 0 && shift + width <= 8 {
            Some(Self(byte | shift << 16 | width << 24))
        } else {
            None
        }
    }

    /// Whether this kernel has the field.
    #[inline(always)]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 != Self::ABSENT.0
    }

    /// Bytes from the start of its struct.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 & 0xffff
    }

    /// Its bits, where it is a bit field: the first one's number in its byte, and how many.
    #[inline(always)]
    #[must_use]
    pub const fn bit_range(self) -> Option<(u32, u32)> {
        match self.0 >> 24 {
            0 => None,
            width => Some((self.0 >> 16 & 0xff, width)),
        }
    }

    /// The field's value, given the byte that holds it.
    #[inline(always)]
    #[must_use]
    pub const fn extract(self, byte: u8) -> u8 {
        match self.bit_range() {
            None => byte,
            Some((shift, width)) => {
                byte.wrapping_shr(shift) & u8::MAX.wrapping_shr(8_u32.wrapping_sub(width))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_field_is_cut_out_of_its_byte() {
        let ca_state = Location::bits(8 * 1200, 5).unwrap();
        assert_eq!(ca_state.offset(), 1200);
        assert_eq!(ca_state.extract(0b1010_0100), 0b0_0100);
        let upper = Location::bits(8 * 7 + 3, 5).unwrap();
        assert_eq!((upper.offset(), upper.bit_range()), (7, Some((3, 5))));
        assert_eq!(upper.extract(0b1010_0100), 0b1_0100);
        assert_eq!(Location::whole(12).unwrap().extract(0xa4), 0xa4);
    }

    #[test]
    fn what_a_global_cannot_tell_is_refused() {
        assert_eq!(Location::whole(0x1_0000), None);
        assert_eq!(Location::bits(6, 3), None);
        assert_eq!(Location::bits(0, 0), None);
        assert!(!Location::ABSENT.is_present());
        assert!(Location::whole(0xffff).unwrap().is_present());
    }

    #[test]
    fn no_field_is_listed_twice() {
        for (index, field) in FIELDS.iter().enumerate() {
            assert!(
                FIELDS[..index]
                    .iter()
                    .all(|other| other.global != field.global)
            );
        }
    }
}
