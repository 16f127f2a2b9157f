//! Two network namespaces joined by a cable that can hold its packets back for a while.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    mem,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::netns::Netns;

mod ioctl {
    //! `linux/if_tun.h`.
    use nix::{ioctl_write_ptr_bad, libc};

    ioctl_write_ptr_bad!(
        /// Makes the descriptor that of a device, by its name.
        tunsetiff,
        libc::TUNSETIFF,
        libc::ifreq
    );
}

/// Of the addresses for documentation (RFC 5737), so that none can be meant elsewhere.
pub const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Two namespaces, and the packets between them.
#[derive(Debug)]
pub struct Tunnel {
    /// The ends, with [`ADDRESSES`] in this order.
    pub ends: [Netns; 2],
    held: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    pump: Option<JoinHandle<Result<()>>>,
}

impl Tunnel {
    /// Makes both ends.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or has no TUN devices.
    pub fn new() -> Result<Self> {
        let ends = [Netns::new()?, Netns::new()?];
        let devices = [
            plug(&ends[0], ADDRESSES[0], ADDRESSES[1])?,
            plug(&ends[1], ADDRESSES[1], ADDRESSES[0])?,
        ];
        let held = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let pump = {
            let (held, over) = (Arc::clone(&held), Arc::clone(&over));
            thread::spawn(move || pump(devices, &held, &over))
        };
        Ok(Self {
            ends,
            held,
            over,
            pump: Some(pump),
        })
    }

    /// From now on packets wait, both ways.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Those that waited go on, in their order, and so do all that follow.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(Ok(Err(error))) = self.pump.take().map(JoinHandle::join) {
            eprintln!("the tunnel failed: {error:#}");
        }
    }
}

/// The end of a cable in `netns`, and what it sends and receives.
fn plug(netns: &Netns, own: &str, peer: &str) -> Result<File> {
    let device = netns.run(|| {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("/dev/net/tun: this kernel has no TUN devices")?;
        // SAFETY: ifreq is integers and unions of them, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"cable") {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = flags.try_into()?;
        // SAFETY: the descriptor is a TUN device's, and the request one of the kind it takes.
        unsafe { ioctl::tunsetiff(device.as_raw_fd(), &raw const request) }.context("TUNSETIFF")?;
        Ok(device)
    })?;
    netns.command("ip", &["address", "add", own, "peer", peer, "dev", "cable"])?;
    netns.command("ip", &["link", "set", "cable", "up"])?;
    Ok(device)
}

/// Carries packets from each device to the other until it is over.
fn pump(mut devices: [File; 2], held: &AtomicBool, over: &AtomicBool) -> Result<()> {
    let mut waiting = [VecDeque::new(), VecDeque::new()];
    let mut packet = vec![0; 1 << 16];
    while !over.load(Ordering::Acquire) {
        let [first, second] = &devices;
        let mut readable =
            [first, second].map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN));
        poll(&mut readable, PollTimeout::from(1_u8))?;
        for from in 0..2 {
            loop {
                match devices[from].read(&mut packet) {
                    Ok(length) => waiting[from].push_back(packet[..length].to_vec()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => bail!("the cable cannot be read: {error}"),
                }
            }
            if !held.load(Ordering::Acquire) {
                for packet in waiting[from].drain(..) {
                    devices[1 - from].write_all(&packet)?;
                }
            }
        }
    }
    Ok(())
}
