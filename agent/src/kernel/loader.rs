//! Loads the programs into the running kernel.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_ebpf::{
    counters::Counters,
    fields::Need,
    maps,
    programs::{CENSUS_TCP, Hook, PROGRAMS, Program, settings},
    record::StreamMode,
    socket::BUCKET_ENTRIES,
    stream::StreamSettings,
};
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness, Pod, include_bytes_aligned,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, Iter, ProgramError, ProgramFd},
    sys::{Stats, SyscallError, enable_stats},
};
use aya_log::EbpfLogger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tracing::{debug, warn};

use super::{
    census::CensusReader,
    fdinfo::ProgramStats,
    features, heap,
    host::{Host, HostError, SYS_KERNEL_BTF},
    names::ProcessNames,
    types::{FieldReport, KernelTypes, TypesError, first_missing},
    verdict::{ProgramReport, Verdict},
};
use crate::logging::KernelLog;

/// The kernel programs, as build.rs made them.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/connstate-ebpf"));

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is told as records at first.
    pub stream: StreamSettings,
    /// Bytes of the ring buffer: a power of two and whole pages.
    pub ring_bytes: u32,
    /// Sockets that the table has room for: a power of two, 1024 to 2²⁴.
    pub socket_capacity: u32,
    /// The inode number of the only network namespace to watch; 0 for all.
    pub only_netns: u32,
    /// Whether the kernel keeps run counts and times; needs CAP_SYS_ADMIN.
    pub bpf_stats: bool,
    /// The kernel's BTF.
    pub btf_path: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stream: StreamSettings::own(StreamMode::Late),
            ring_bytes: maps::RING_BYTES,
            socket_capacity: maps::SOCKET_CAPACITY,
            only_netns: 0,
            bpf_stats: false,
            btf_path: SYS_KERNEL_BTF.into(),
        }
    }
}

/// Why nothing could be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// This host cannot.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its BTF is of no use.
    #[error(transparent)]
    Btf(#[from] TypesError),
    /// aya could not use it.
    #[error("the BTF at {} is of no use to the loader", path.display())]
    LoaderBtf {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: aya::BtfError,
    },
    /// The maps could not be made, or the object is broken.
    #[error("the kernel programs' maps could not be made")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a map or program: it was built from other sources than the agent.
    #[error("the embedded object has no {kind} `{name}`: build the agent anew")]
    Incomplete {
        /// `map` or `program`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map is not what it should be.
    #[error("the map `{name}` cannot be used")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A program the agent cannot do without.
    #[error(
        "the program `{}` does not run ({verdict}), needed for {}{}",
        program.name, program.purpose, verdict.log()
    )]
    NeededProgram {
        /// The program.
        program: &'static Program,
        /// What became of it, with the verifier's log.
        verdict: Verdict,
    },
    /// BPF statistics were asked for and refused.
    #[error("BPF statistics cannot be switched on: --bpf-stats needs CAP_SYS_ADMIN")]
    Stats(#[source] SyscallError),
}

/// Counters could not be read.
#[derive(Debug, Error)]
#[error("the kernel programs' counters cannot be read")]
pub struct ReadError(#[from] MapError);

/// The programs, loaded and attached. Dropping it detaches them and frees their maps.
pub struct Kernel {
    ebpf: Arc<Mutex<Ebpf>>,
    counters: PerCpuArray<MapData, Counters>,
    stream: Array<MapData, StreamSettings>,
    verdicts: Vec<(&'static Program, Verdict)>,
    fields: Vec<FieldReport>,
    /// Whether the iterator of sockets holds the lock of the one it shows (5.15).
    iterator_locks: bool,
    /// The kernel keeps statistics while this is open.
    _stats: Option<OwnedFd>,
}

impl Kernel {
    /// Loads and attaches every program this kernel can run.
    ///
    /// # Errors
    ///
    /// Where the host cannot run them at all, or one that is needed does not run.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let kernel = Self::try_load(options)?;
        for (program, verdict) in &kernel.verdicts {
            if program.need == Need::Needed && !verdict.is_attached() {
                return Err(LoadError::NeededProgram {
                    program,
                    verdict: verdict.clone(),
                });
            }
        }
        Ok(kernel)
    }

    /// As [`Kernel::load`], but a program that does not run is only told by its verdict.
    ///
    /// # Errors
    ///
    /// Where the host cannot run any.
    pub fn try_load(options: &Options) -> Result<Self, LoadError> {
        let host = Host::look(&options.btf_path)?;
        host.require()?;
        raise_memlock(&host);
        let types = KernelTypes::read(&options.btf_path)?;
        let fields = types.report();
        if let Some(field) = first_missing(&fields) {
            return Err(TypesError::MissingField { field }.into());
        }
        let btf = Btf::parse_file(&options.btf_path, Endianness::default()).map_err(|source| {
            LoadError::LoaderBtf {
                path: options.btf_path.clone(),
                source,
            }
        })?;
        let mut ebpf = load_object(options, &host, &types, &fields, &btf)?;
        let mut stream: Array<_, StreamSettings> = take_map(&mut ebpf, maps::STREAM)?;
        stream
            .set(0, options.stream, 0)
            .map_err(|source| LoadError::Map {
                name: maps::STREAM,
                source,
            })?;
        let counters = take_map(&mut ebpf, maps::COUNTERS)?;
        let stats = if options.bpf_stats {
            Some(enable_stats(Stats::RunTime).map_err(LoadError::Stats)?)
        } else {
            None
        };
        let mut verdicts = Vec::with_capacity(PROGRAMS.len());
        for program in PROGRAMS {
            verdicts.push((program, attach(&mut ebpf, program, &btf)?));
        }
        drop((btf, types));
        heap::trim();
        Ok(Self {
            ebpf: Arc::new(Mutex::new(ebpf)),
            counters,
            stream,
            verdicts,
            fields,
            iterator_locks: host.is_at_least(5, 15),
            _stats: stats,
        })
    }

    /// The counters of all CPUs together.
    ///
    /// # Errors
    ///
    /// Where the kernel does not hand them out.
    pub fn counters(&self) -> Result<Counters, ReadError> {
        let mut sum = Counters::ZERO;
        for counters in self.counters.get(&0, 0)?.iter() {
            sum.add(counters);
        }
        Ok(sum)
    }

    /// Changes what is told as records.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn set_stream(&mut self, settings: StreamSettings) -> Result<(), ReadError> {
        Ok(self.stream.set(0, settings, 0)?)
    }

    /// The ring buffer of records; it can be taken once.
    ///
    /// # Errors
    ///
    /// The second time.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        take_map(&mut lock(&self.ebpf), maps::EVENTS)
    }

    /// What counts the sockets there are, once; nothing where this kernel cannot.
    ///
    /// # Errors
    ///
    /// The second time.
    pub fn take_census(&mut self) -> Result<Option<CensusReader>, LoadError> {
        let runs = |(program, verdict): &(&Program, Verdict)| {
            program.name == CENSUS_TCP && verdict.is_attached()
        };
        if !self.verdicts.iter().any(runs) {
            return Ok(None);
        }
        CensusReader::new(&self.ebpf, self.iterator_locks).map(Some)
    }

    /// What names the processes that open and close sockets.
    ///
    /// # Errors
    ///
    /// Where the programs lack the table of these.
    pub fn process_names(&self) -> Result<ProcessNames, LoadError> {
        share_array(&lock(&self.ebpf), maps::OWNERS).map(ProcessNames::new)
    }

    /// What the programs log, once; nothing where debug logging was off as they were loaded.
    pub fn take_log(&mut self) -> Option<EbpfLogger<KernelLog>> {
        match EbpfLogger::init_with_logger(&mut lock(&self.ebpf), KernelLog) {
            Ok(log) => Some(log),
            Err(error) => {
                debug!(%error, "the kernel programs' log cannot be read");
                None
            }
        }
    }

    /// Every program, what became of it, and what the kernel says of it.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramReport> {
        self.verdicts
            .iter()
            .map(|(program, verdict)| ProgramReport {
                program,
                verdict: verdict.clone(),
                stats: verdict.is_attached().then(|| self.stats(program)).flatten(),
            })
            .collect()
    }

    fn stats(&self, program: &Program) -> Option<ProgramStats> {
        let ebpf = lock(&self.ebpf);
        let fd: &ProgramFd = ebpf.program(program.name)?.fd().ok()?;
        let fd = fd.as_fd().as_raw_fd();
        let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        Some(ProgramStats::parse(&fdinfo))
    }

    /// Where each kernel field was found.
    #[must_use]
    pub fn fields(&self) -> &[FieldReport] {
        &self.fields
    }
}

/// A panic of another thread leaves nothing half done here.
pub(super) fn lock(ebpf: &Mutex<Ebpf>) -> MutexGuard<'_, Ebpf> {
    ebpf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the maps and sets the globals.
fn load_object(
    options: &Options,
    host: &Host,
    types: &KernelTypes,
    fields: &[FieldReport],
    btf: &Btf,
) -> Result<Ebpf, LoadError> {
    // Until 6.1 a raw tracepoint's program could interrupt itself.
    let nests = !host.is_at_least(6, 1);
    let socket_buckets = options.socket_capacity / BUCKET_ENTRIES;
    let has_err = types
        .tracepoint_arguments("tcp_retransmit_skb")
        .is_some_and(|arguments| arguments >= 3);
    let globals = [
        (settings::ATOMIC_COUNTERS, u32::from(nests)),
        (settings::SOCKET_BUCKET_MASK, socket_buckets - 1),
        (
            settings::HAS_COOKIE_HELPER,
            u32::from(host.has(&features::SOCKET_COOKIE)),
        ),
        (
            settings::HAS_CURRENT_TASK,
            u32::from(host.has(&features::CURRENT_TASK)),
        ),
        (
            settings::ITERATOR_LOCKS,
            u32::from(host.has(&features::ITERATOR_LOCKS)),
        ),
        (settings::RETRANSMIT_HAS_ERR, u32::from(has_err)),
        (settings::ONLY_NETNS, options.only_netns),
        (
            settings::WAKE_BYTES,
            options.ring_bytes / maps::WAKE_RING_DIVISOR,
        ),
    ];
    let log_level = KernelLog::level();

    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .map_max_entries(maps::EVENTS, options.ring_bytes)
        .map_max_entries(maps::SOCKETS, socket_buckets)
        .override_global(aya_log::LEVEL, &log_level, false);
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    for report in fields {
        loader.override_global(report.field.global, &report.location.0, true);
    }
    loader
        .load(OBJECT)
        .map_err(|error| LoadError::Object(Box::new(error)))
}

pub(super) fn take_map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LoadError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or(LoadError::Incomplete { kind: "map", name })?;
    T::try_from(map).map_err(|source| LoadError::Map { name, source })
}

/// A handle of its own for a map that others read, too.
pub(super) fn share_array<V: Pod>(
    ebpf: &Ebpf,
    name: &'static str,
) -> Result<Array<MapData, V>, LoadError> {
    let Some(Map::Array(map)) = ebpf.map(name) else {
        return Err(LoadError::Incomplete { kind: "map", name });
    };
    let fd = map.fd().as_fd().try_clone_to_owned();
    let shared = fd.map_err(MapError::IoError).and_then(MapData::from_fd);
    shared
        .and_then(|data| Array::try_from(Map::Array(data)))
        .map_err(|source| LoadError::Map { name, source })
}

/// As many as libbpf makes (`PROG_LOAD_ATTEMPTS`).
const LOAD_ATTEMPTS: usize = 5;

/// The verifier gives up with EAGAIN when a signal is pending (`do_check()`), even one that
/// another thread will handle, such as SIGCHLD.
fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. }
        if io_error.kind() == io::ErrorKind::WouldBlock)
}

/// Loads a program, and again where that was interrupted.
fn load(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(error) if was_interrupted(&error) => {}
            loaded => return loaded,
        }
    }
    load()
}

fn attach(ebpf: &mut Ebpf, program: &'static Program, btf: &Btf) -> Result<Verdict, LoadError> {
    let incomplete = || LoadError::Incomplete {
        kind: "program",
        name: program.name,
    };
    let loaded = ebpf.program_mut(program.name).ok_or_else(incomplete)?;
    let attached = match program.hook {
        Hook::Tracepoint => {
            let loaded: &mut BtfTracePoint = loaded.try_into().map_err(|_| incomplete())?;
            load(|| loaded.load(program.name, btf)).and_then(|()| loaded.attach().map(drop))
        }
        // Each pass attaches it anew.
        Hook::Iterator(kind) => {
            let loaded: &mut Iter = loaded.try_into().map_err(|_| incomplete())?;
            load(|| loaded.load(kind, btf))
        }
    };
    Ok(match attached {
        Ok(()) => Verdict::Attached,
        Err(error) => Verdict::of_error(&error),
    })
}

/// Before 5.11 maps were charged to RLIMIT_MEMLOCK; since then it does not matter.
fn raise_memlock(host: &Host) {
    if host.is_at_least(5, 11) {
        return;
    }
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if getrlimit(Resource::Memlock).current.is_some()
        && let Err(error) = setrlimit(Resource::Memlock, unlimited)
    {
        warn!(
            %error,
            "RLIMIT_MEMLOCK cannot be raised (that takes CAP_SYS_RESOURCE), and before 5.11 the \
             kernel charges maps to it: if they cannot be made, start the agent with \
             LimitMEMLOCK=infinity"
        );
    }
}
