//! Reads the kernel's sockets: by direct loads that the verifier checks, or, where a program has
//! nothing but an address, by a helper.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_socket_cookie,
    generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock},
};

use agent_ebpf::record::SocketId;

use crate::{
    globals::{Global, field, setting},
    table::Key,
};

const IPPROTO_TCP: u16 = 6;
const AF_INET6: u16 = 10;

/// Loads the field that `global` places from the kernel object at `base`.
///
/// # Safety
///
/// `base` must be a pointer the verifier knows the BTF type of, and `T` no wider than the field.
/// The verifier refuses the program otherwise.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const c_void, global: &Global) -> T {
    // SAFETY: the caller's pointer and the loader's offset; the verifier checks the sum.
    unsafe {
        core::ptr::read_volatile(
            base.byte_add(global.location().offset() as usize)
                .cast::<T>(),
        )
    }
}

/// A way to the fields of a socket.
pub(crate) trait Fields: Copy {
    /// Where the socket lies.
    fn address_of(self) -> *const c_void;

    /// Loads a field of the kernel object at `base`, which the socket led to.
    #[inline(always)]
    fn follow<T: Copy>(self, base: *const c_void, global: &Global) -> T {
        // SAFETY: the socket is a tracepoint's argument, a cast the kernel made, or was found in
        // one of them, so it is BTF-typed, and so is what it led to.
        unsafe { load(base, global) }
    }

    /// The field of the socket that `global` places.
    #[inline(always)]
    fn load<T: Copy>(self, global: &Global) -> T {
        self.follow(self.address_of(), global)
    }

    /// The same, or zeros where this kernel has no such field.
    #[inline(always)]
    fn load_optional<T: Copy + Default>(self, global: &Global) -> T {
        if global.location().is_present() {
            self.load(global)
        } else {
            T::default()
        }
    }

    /// Its state; also that of a minisocket.
    #[inline(always)]
    fn state(self) -> u8 {
        self.load(&field::SOCK_STATE)
    }

    /// `sk_flags`.
    #[inline(always)]
    fn flags(self) -> u64 {
        self.load(&field::SOCK_FLAGS)
    }

    /// Whether it is of family AF_INET6.
    #[inline(always)]
    fn is_ipv6(self) -> bool {
        self.load::<u16>(&field::SOCK_FAMILY) == AF_INET6
    }

    /// The remote port, in host order; 0 where there is none (yet).
    #[inline(always)]
    fn remote_port(self) -> u16 {
        u16::from_be(self.load(&field::SOCK_DPORT))
    }

    /// `skc_num`, the local port in host order; `__inet_put_port` zeroes it before →CLOSE.
    #[inline(always)]
    fn bound_port(self) -> u16 {
        self.load(&field::SOCK_NUM)
    }

    /// The cookie, 0 where nobody has asked for it yet.
    #[inline(always)]
    fn known_cookie(self) -> u64 {
        self.load(&field::SOCK_COOKIE)
    }

    /// The inode number of its network namespace; 0 where the kernel does not tell.
    #[inline(always)]
    fn netns(self) -> u32 {
        if !field::SOCK_NET.location().is_present() || !field::NET_INUM.location().is_present() {
            return 0;
        }
        self.follow(self.load(&field::SOCK_NET), &field::NET_INUM)
    }

    /// An address, IPv4 in the first four bytes.
    #[inline(always)]
    fn address(self, ipv6: bool, v4: &Global, v6: &Global) -> [u8; 16] {
        let mut address = [0_u64; 2];
        if !ipv6 {
            address[0] = u64::from(self.load::<u32>(v4));
        } else if v6.location().is_present() {
            address[0] = self.load(v6);
            // An in6_addr is 16 bytes; these are the last eight.
            address[1] = self.follow(self.address_of().wrapping_byte_add(8), v6);
        }
        // SAFETY: two u64s are sixteen bytes.
        unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(address) }
    }

    /// Its local and remote address, IPv4 ones as v4-mapped.
    #[inline(always)]
    fn mapped_addresses(self) -> ([u8; 16], [u8; 16]) {
        let ipv6 = self.is_ipv6();
        let mapped = |v4: &Global, v6: &Global| {
            if ipv6 {
                return self.address(true, v4, v6);
            }
            // The bytes 00 00 ff ff before those of the IPv4 address.
            let address = [0, 0xffff_0000 | u64::from(self.load::<u32>(v4)) << 32];
            // SAFETY: two u64s are sixteen bytes.
            unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(address) }
        };
        (
            mapped(&field::SOCK_SADDR, &field::SOCK_V6_SADDR),
            mapped(&field::SOCK_DADDR, &field::SOCK_V6_DADDR),
        )
    }

    /// Which socket this is, given the ports and cookie that the caller knows better.
    #[inline(always)]
    fn id(self, cookie: u64, local_port: u16) -> SocketId {
        let ipv6 = self.is_ipv6();
        SocketId {
            cookie,
            netns: self.netns(),
            local_port,
            remote_port: self.remote_port(),
            local_address: self.address(ipv6, &field::SOCK_SADDR, &field::SOCK_V6_SADDR),
            remote_address: self.address(ipv6, &field::SOCK_DADDR, &field::SOCK_V6_DADDR),
        }
    }

    /// Whether `sk_socket` is set. Not of a [`Sock`] that an iterator handed over, as all below.
    #[inline(always)]
    fn has_socket(self) -> bool {
        self.load::<u64>(&field::SOCK_SOCKET) != 0
    }

    /// The id of its cgroup, the inode number of that one's directory; 0 where the kernel does
    /// not tell.
    #[inline(always)]
    fn cgroup(self) -> u64 {
        if !field::SOCK_CGROUP.location().is_present()
            || !field::CGROUP_KN.location().is_present()
            || !field::KN_ID.location().is_present()
        {
            return 0;
        }
        let node = self.follow(self.load(&field::SOCK_CGROUP), &field::CGROUP_KN);
        self.follow(node, &field::KN_ID)
    }

    /// Bytes received in order and not read, a FIN counted as one.
    #[inline(always)]
    fn unread(self) -> u32 {
        self.load::<u32>(&field::TCP_RCV_NXT)
            .wrapping_sub(self.load(&field::TCP_COPIED_SEQ))
    }

    /// Whether it is an MPTCP subflow.
    #[inline(always)]
    fn is_mptcp(self) -> bool {
        field::TCP_IS_MPTCP.location().is_present() && self.load::<u8>(&field::TCP_IS_MPTCP) != 0
    }
}

/// A pointer to `struct sock`, or to a minisocket where only the common part is read.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*const c_void);

impl Fields for Sock {
    #[inline(always)]
    fn address_of(self) -> *const c_void {
        self.0
    }
}

impl Sock {
    /// A tracepoint's socket argument.
    #[inline(always)]
    pub(crate) fn new(sk: *const c_void) -> Self {
        Self(sk)
    }

    /// The pointer, for the helpers.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *const c_void {
        self.0
    }

    /// The key of what is remembered of it.
    #[inline(always)]
    pub(crate) fn key(self) -> Key {
        Key::of(self.0)
    }

    /// Whether it is TCP proper: MPTCP's own sockets (262) emit the same events, but are no
    /// `tcp_sock`.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        self.load::<u16>(&field::SOCK_PROTOCOL) == IPPROTO_TCP
    }

    /// `sk_err`.
    #[inline(always)]
    pub(crate) fn err(self) -> i32 {
        self.load(&field::SOCK_ERR)
    }

    /// `sk_shutdown`.
    #[inline(always)]
    pub(crate) fn shutdown(self) -> u8 {
        self.load(&field::SOCK_SHUTDOWN)
    }

    /// `sk_lingertime`, in jiffies.
    #[inline(always)]
    pub(crate) fn lingertime(self) -> u64 {
        self.load(&field::SOCK_LINGERTIME)
    }

    /// The cookie, given now where it had none; below 5.12 still 0 then.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        if setting::HAS_COOKIE_HELPER.is_set() {
            // SAFETY: the helper takes any BTF-typed socket pointer.
            unsafe { bpf_get_socket_cookie(self.0.cast_mut()) }
        } else {
            self.known_cookie()
        }
    }

    /// Whether the agent was asked to watch its network namespace.
    #[inline(always)]
    pub(crate) fn is_watched(self) -> bool {
        let only = setting::ONLY_NETNS.get();
        only == 0 || self.netns() == only
    }

    /// The same socket as `tcp_sock`; nothing for minisockets and other protocols.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper checks the socket itself.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        if tcp.is_null() {
            None
        } else {
            Some(TcpSock(tcp.cast_const().cast()))
        }
    }
}

/// A pointer to `struct tcp_sock`.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock(*const c_void);

impl Fields for TcpSock {
    #[inline(always)]
    fn address_of(self) -> *const c_void {
        self.0
    }
}

impl TcpSock {
    /// `inet_sport` in host order, which outlives `skc_num`.
    #[inline(always)]
    pub(crate) fn source_port(self) -> u16 {
        u16::from_be(self.load(&field::TCP_SPORT))
    }

    /// Whether the peer acknowledged all that was sent or queued.
    #[inline(always)]
    pub(crate) fn all_acknowledged(self) -> bool {
        self.load::<u32>(&field::TCP_SND_UNA) == self.load::<u32>(&field::TCP_WRITE_SEQ)
    }
}

/// A `tcp_sock` by its address alone, which may be another's by now: whoever reads it compares
/// the cookie before and after. What cannot be read is zeros.
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    address: *const c_void,
    /// Where the helper puts what it reads: the stack has no room for each field.
    scratch: *mut u64,
}

impl Remembered {
    /// At this address. `scratch` is a word of a map.
    #[inline(always)]
    pub(crate) fn at(address: u64, scratch: &mut u64) -> Self {
        Self {
            address: address as *const c_void,
            scratch,
        }
    }
}

impl Fields for Remembered {
    #[inline(always)]
    fn address_of(self) -> *const c_void {
        self.address
    }

    #[inline(always)]
    fn follow<T: Copy>(self, base: *const c_void, global: &Global) -> T {
        const { assert!(size_of::<T>() <= 8) };
        let place = base.wrapping_byte_add(global.location().offset() as usize);
        // SAFETY: the helper takes any address, and fills as much of the word as a T takes, with
        // zeros where it cannot read; every T here is an integer or a pointer.
        unsafe {
            bpf_probe_read_kernel(self.scratch.cast(), size_of::<T>() as u32, place);
            core::ptr::read_volatile(self.scratch.cast::<T>())
        }
    }
}
