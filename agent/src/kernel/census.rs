//! Reads the census iterators, and the maps they fill.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
};

use agent_ebpf::{
    census::{
        CensusCounts, CgroupCounts, ConnectKey, OWNER_SLOTS, OwnerRecord, OwnerSlot, PortKey,
        PortSet, SocketRecord,
    },
    maps,
    programs::{CENSUS_KNOWN, CENSUS_OWNERS, CENSUS_TCP},
};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{Iter, ProgramError, ProgramFd, links::LinkError},
};
use thiserror::Error;

use super::{
    LoadError,
    loader::{lock, share_array, take_map},
    map_batch, map_iter,
};

/// Sockets handed over one by one in a pass over one namespace; more are only counted.
const SOCKETS_TOLD: usize = 65_536;

/// Records of owners taken in one pass: as many sockets as can be asked for, some held by several
/// processes.
const OWNERS_TOLD: usize = 2 * maps::WANTED_CAPACITY;

/// Bytes of output a read may return: as many as the kernel gathers (`bpf_seq_read()`).
const OUTPUT: usize = 8 * 4096;

/// Counts the sockets of one network namespace at a time, and finds out whose they are.
pub struct CensusReader {
    ebpf: Arc<Mutex<Ebpf>>,
    counts: Array<MapData, CensusCounts>,
    cgroups: HashMap<MapData, u64, CgroupCounts>,
    namespaces: HashMap<MapData, u32, CensusCounts>,
    ports: HashMap<MapData, PortKey, u64>,
    taken_ports: Array<MapData, PortSet>,
    wanted: HashMap<MapData, u64, u32>,
    owners: Array<MapData, OwnerSlot>,
    connects: HashMap<MapData, ConnectKey, u64>,
    remembers: bool,
    /// Whether sockets were counted by cgroup that nobody has taken yet.
    has_leftovers: bool,
}

/// What one pass over a namespace found.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Sockets by state.
    pub counts: CensusCounts,
    /// Those that linger or listen, at most 65 536.
    pub sockets: Vec<SocketRecord>,
    /// Those beyond.
    pub untold: u64,
    /// Sockets on ephemeral ports.
    pub ports: Vec<(PortKey, u64)>,
}

/// What one pass over the sockets that the programs remember found.
#[derive(Clone, Debug)]
pub struct KnownPass {
    /// Full sockets by state, of each network namespace by its inode number.
    pub namespaces: Vec<(u32, CensusCounts)>,
    /// Those of namespaces beyond the 4096 that are told apart; and the clocks.
    pub elsewhere: CensusCounts,
    /// Those that linger or listen, at most 65 536.
    pub sockets: Vec<SocketRecord>,
    /// Those beyond.
    pub untold: u64,
}

/// Why they could not be counted.
#[derive(Debug, Error)]
pub enum CensusReadError {
    /// The object has no such program: it was built from other sources than the agent.
    #[error("the census program is missing: build the agent anew")]
    Missing,
    /// The iterator was refused.
    #[error("the kernel opens no iterator of sockets")]
    Attach(#[from] ProgramError),
    /// So was its file.
    #[error("the kernel makes no file of the iterator of sockets")]
    Open(#[from] LinkError),
    /// It broke off.
    #[error("the iterator of sockets broke off")]
    Read(#[source] io::Error),
    /// What it counted cannot be read.
    #[error("the counts of the census cannot be read")]
    Counts(#[from] MapError),
    /// Nor can what it counted by key.
    #[error("the entries of the census cannot be read")]
    Entries(#[from] io::Error),
}

impl CensusReader {
    pub(super) fn new(ebpf: &Arc<Mutex<Ebpf>>, remembers: bool) -> Result<Self, LoadError> {
        let mut all = lock(ebpf);
        Ok(Self {
            ebpf: Arc::clone(ebpf),
            counts: take_map(&mut all, maps::CENSUS)?,
            cgroups: take_map(&mut all, maps::CENSUS_CGROUPS)?,
            namespaces: take_map(&mut all, maps::CENSUS_NAMESPACES)?,
            ports: take_map(&mut all, maps::CENSUS_PORTS)?,
            taken_ports: take_map(&mut all, maps::CENSUS_TAKEN_PORTS)?,
            wanted: take_map(&mut all, maps::CENSUS_WANTED)?,
            owners: share_array(&all, maps::OWNERS)?,
            connects: take_map(&mut all, maps::CONNECTS)?,
            remembers,
            has_leftovers: false,
        })
    }

    /// Whether a full pass can have sockets remembered that the programs have not met: before 5.15
    /// the iterator does not hold their locks.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.remembers
    }

    /// Counts the sockets of the network namespace that the calling thread is in. `taken` are the
    /// ports that its `connect()` does not choose; `remember` says whether full sockets that the
    /// programs have not met shall be remembered, for [`CensusReader::read_known`] to find.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn read(&mut self, taken: &PortSet, remember: bool) -> Result<Pass, CensusReadError> {
        let zero = CensusCounts {
            remember: remember.into(),
            ..CensusCounts::ZERO
        };
        self.counts.set(0, zero, 0)?;
        self.taken_ports.set(0, *taken, 0)?;
        self.has_leftovers = true;
        let mut sockets = Vec::new();
        let file = self.open(CENSUS_TCP)?;
        let read = read_records(file, &mut sockets, SOCKETS_TOLD);
        // Even of a pass that broke off: else they would pass for the next namespace's.
        let ports = map_batch::take(&mut self.ports);
        Ok(Pass {
            untold: read?,
            counts: self.counts.get(&0, 0)?,
            sockets,
            ports: ports?,
        })
    }

    /// Counts the full sockets that the programs remember, of all namespaces.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn read_known(&mut self) -> Result<KnownPass, CensusReadError> {
        self.counts.set(0, CensusCounts::ZERO, 0)?;
        self.has_leftovers = true;
        let mut sockets = Vec::new();
        let file = {
            let ebpf = lock(&self.ebpf);
            let program: &ProgramFd = ebpf
                .program(CENSUS_KNOWN)
                .ok_or(CensusReadError::Missing)?
                .fd()?;
            let Some(Map::Array(table)) = ebpf.map(maps::SOCKETS) else {
                return Err(CensusReadError::Missing);
            };
            let file = map_iter::open(program.as_fd(), table.fd().as_fd());
            file.map_err(CensusReadError::Read)?
        };
        let read = read_records(file, &mut sockets, SOCKETS_TOLD);
        // Even of a pass that broke off: else the next would add to them.
        let namespaces = map_batch::take(&mut self.namespaces);
        Ok(KnownPass {
            untold: read?,
            namespaces: namespaces?,
            elsewhere: self.counts.get(&0, 0)?,
            sockets,
        })
    }

    /// Forgets what a census that broke off has left to [`CensusReader::take_cgroups`].
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn begin(&mut self) -> Result<(), CensusReadError> {
        if self.has_leftovers {
            self.take_cgroups()?;
        }
        Ok(())
    }

    /// The full sockets of each cgroup since the last call.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn take_cgroups(&mut self) -> Result<Vec<(u64, CgroupCounts)>, CensusReadError> {
        let cgroups = map_batch::take(&mut self.cgroups)?;
        self.has_leftovers = false;
        Ok(cgroups)
    }

    /// The processes that hold the sockets with these cookies, as far as there is room to ask for
    /// them.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn owners(&mut self, cookies: &[u64]) -> Result<Vec<OwnerRecord>, CensusReadError> {
        let asked = &cookies[..cookies.len().min(maps::WANTED_CAPACITY)];
        let mut owners = Vec::new();
        let found = asked
            .iter()
            .try_for_each(|cookie| self.wanted.insert(cookie, 0, 0))
            .map_err(CensusReadError::from)
            .and_then(|()| {
                let file = self.open(CENSUS_OWNERS)?;
                read_records(file, &mut owners, OWNERS_TOLD)
            });
        for cookie in asked {
            // Fails only where it was never put in.
            let _absent = self.wanted.remove(cookie);
        }
        found?;
        Ok(owners)
    }

    /// The process with this id as it was when it last opened or closed a socket.
    #[must_use]
    pub fn remembered(&self, pid: u32) -> Option<OwnerSlot> {
        let slot = self.owners.get(&(pid % OWNER_SLOTS), 0).ok()?;
        (slot.pid == pid).then_some(slot)
    }

    /// Connects since the programs were loaded, by who and whither.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn connects(&self) -> Result<Vec<(ConnectKey, u64)>, CensusReadError> {
        Ok(map_batch::entries(&self.connects)?)
    }

    /// Forgets connects, to make room.
    pub fn forget_connects(&mut self, keys: &[ConnectKey]) {
        for key in keys {
            // Fails only where it is gone already.
            let _absent = self.connects.remove(key);
        }
    }

    /// An iterator of sockets shows the namespace it is opened in.
    fn open(&self, name: &str) -> Result<File, CensusReadError> {
        let mut ebpf = lock(&self.ebpf);
        let program = ebpf.program_mut(name);
        let program: &mut Iter = program
            .and_then(|program| program.try_into().ok())
            .ok_or(CensusReadError::Missing)?;
        let link = program.attach()?;
        Ok(program.take_link(link)?.into_file()?)
    }
}

/// Reads an iterator to its end. Returns how many records were beyond `most`.
fn read_records<T: Pod>(
    mut file: impl Read,
    into: &mut Vec<T>,
    most: usize,
) -> Result<u64, CensusReadError> {
    let mut output = vec![0; OUTPUT];
    let (mut filled, mut beyond) = (0, 0);
    loop {
        // EAGAIN comes after a million objects without output (bpf_seq_read), and the next read
        // goes on from there.
        filled += match file.read(&mut output[filled..]) {
            Ok(0) => return Ok(beyond),
            Ok(read) => read,
            Err(error) if is_transient(&error) => continue,
            Err(error) => return Err(CensusReadError::Read(error)),
        };
        let whole = filled - filled % size_of::<T>();
        for record in output[..whole].chunks_exact(size_of::<T>()) {
            if into.len() < most {
                // SAFETY: a Pod is any bytes, and the chunk has as many.
                into.push(unsafe { record.as_ptr().cast::<T>().read_unaligned() });
            } else {
                beyond += 1;
            }
        }
        output.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a piece at each read; an empty one stands for EAGAIN.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            if piece.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn record(pid: u32) -> OwnerRecord {
        OwnerRecord {
            cookie: 7 << 40,
            owner: OwnerSlot {
                cgroup: 9,
                comm: *b"api\0............",
                pid,
                reserved: 0,
            },
        }
    }

    fn written(record: &OwnerRecord) -> Vec<u8> {
        let OwnerSlot {
            cgroup, comm, pid, ..
        } = record.owner;
        let (cookie, cgroup) = (record.cookie.to_ne_bytes(), cgroup.to_ne_bytes());
        [&cookie[..], &cgroup, &comm, &pid.to_ne_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn records_come_whole_however_they_are_read() {
        let records = [1, 2, 3].map(record);
        let bytes: Vec<u8> = records.iter().flat_map(written).collect();
        for cut in [1, 39, 40, 41, 119] {
            let (head, tail) = bytes.split_at(cut);
            let mut read = Vec::<OwnerRecord>::new();
            let beyond = read_records(Pieces(vec![head, &[], tail]), &mut read, 3);
            assert_eq!((beyond.unwrap(), &read[..]), (0, &records[..]), "{cut}");
        }
    }

    #[test]
    fn those_beyond_the_most_are_counted_and_half_a_one_is_none() {
        let bytes: Vec<u8> = [1, 2, 3].map(record).iter().flat_map(written).collect();
        let mut read = Vec::<OwnerRecord>::new();
        assert_eq!(read_records(Pieces(vec![&bytes]), &mut read, 2).unwrap(), 1);
        assert_eq!(read, [record(1), record(2)]);
        let mut read = Vec::<OwnerRecord>::new();
        assert_eq!(
            read_records(Pieces(vec![&bytes[..39]]), &mut read, 2).unwrap(),
            0
        );
        assert_eq!(read, []);
    }
}
