//! The agent's one working thread: drains the ring, reads the counters, publishes views.
//!
//! It never waits for a reader, and nothing it holds grows.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use agent_ebpf::{record::StreamMode, stream::StreamSettings};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::{
    census::{self, Census, Taker},
    clock::monotonic,
    confinement::{self, Role},
    decode::{Event, decode},
    feed::{Announcer, Feed, Missing, Told},
    kernel::{Kernel, LoadError, ProcessNames, missed},
    logging::{Complaint, KernelLog, Loss},
    model::{Model, Served},
    stream,
    view::View,
    web::Refusals,
};

/// How often the counters are read and a view is published.
const REFRESH: Duration = Duration::from_millis(250);

/// How long the ring is left alone while records come, and while none do.
const BUSY_DRAIN: Duration = Duration::from_millis(20);
const IDLE_DRAIN: Duration = Duration::from_millis(100);

/// How long settings that the kernel refused are left alone.
const SETTINGS_AGAIN: Duration = Duration::from_secs(1);

/// Records taken in one turn at most; the rest waits for the next, right after.
const TURN: usize = 65_536;

const RING: u64 = 0;
const LOG: u64 = 1;
const STOP: u64 = 2;

/// The running engine. Dropping it stops the thread and unloads the programs.
pub struct Engine {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Ends after the thread above, which takes its censuses.
    _taker: Option<Taker>,
}

struct Turns {
    kernel: Kernel,
    ring: RingBuf<MapData>,
    log: Option<EbpfLogger<KernelLog>>,
    epoll: OwnedFd,
    model: Model,
    listening: Listening,
    censuses: Receiver<Census>,
    refusals: Arc<Refusals>,
    views: watch::Sender<Option<Arc<View>>>,
    /// The counters could not be read.
    unread: Complaint,
    /// Records that found the ring full, and sockets that found no room in the table.
    records: Loss,
    sockets: Loss,
}

/// What the engine shares with those who read.
pub struct Outside {
    /// Those who listen to events.
    pub feed: Feed,
    /// Which transitions the agent itself wants to know of.
    pub own: StreamMode,
    /// Whom the HTTP servers have turned away.
    pub refusals: Arc<Refusals>,
    /// What is known.
    pub views: watch::Sender<Option<Arc<View>>>,
}

/// Those who listen, and what the programs tell for their sake.
struct Listening {
    feed: Feed,
    announcer: Announcer,
    names: ProcessNames,
    /// What the agent itself wants to know.
    own: StreamMode,
    /// What the programs were told.
    settings: StreamSettings,
    /// They could not be told something else, which is tried again from then on.
    refused: Complaint,
    again: Duration,
}

impl Engine {
    /// Starts the thread on loaded programs.
    ///
    /// # Errors
    ///
    /// Where the ring was taken already, or the system has no descriptor or thread left.
    pub fn start(
        mut kernel: Kernel,
        model: Model,
        census: census::Options,
        outside: Outside,
    ) -> Result<Self, EngineError> {
        let Outside {
            feed,
            own,
            refusals,
            views,
        } = outside;
        let listening = Listening {
            announcer: Announcer::new(feed.clone()),
            feed,
            names: kernel.process_names()?,
            own,
            settings: StreamSettings::own(own),
            refused: Complaint::default(),
            again: Duration::ZERO,
        };
        let ring = kernel.take_ring()?;
        let log = kernel.take_log();
        let reader = kernel.take_census()?;
        // One is enough: the next is not begun before the last is taken.
        let (sender, censuses) = sync_channel(1);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let watch = |fd: BorrowedFd<'_>, id, flags| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(id), flags).map_err(io::Error::from)
        };
        // Edge-triggered: the ring is ready whenever it holds a record, but only the programs'
        // wakeup, sent once it is half full, shall cut the wait short.
        watch(
            ring.as_fd(),
            RING,
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        watch(stop.as_fd(), STOP, epoll::EventFlags::IN)?;
        if let Some(log) = &log {
            watch(log.as_fd(), LOG, epoll::EventFlags::IN)?;
        }
        let mut turns = Turns {
            kernel,
            ring,
            log,
            epoll,
            model,
            listening,
            censuses,
            refusals,
            views,
            unread: Complaint::default(),
            records: Loss::default(),
            sockets: Loss::default(),
        };
        let thread = confinement::spawn(Role::Engine, "engine", move || turns.run())?;
        let taker = reader
            .map(|reader| Taker::start(reader, census, sender))
            .transpose()?;
        Ok(Self {
            stop,
            thread: Some(thread),
            _taker: taker,
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Writing to an eventfd fails only where its count would overflow, and then it is set.
        let _already_set = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the engine's thread ended in a panic");
        }
    }
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The programs lack their ring.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A descriptor or a thread was refused.
    #[error(
        "the system refused a descriptor or a thread: raise the limits of the agent's unit or user \
         (LimitNOFILE=, LimitNPROC=, TasksMax=)"
    )]
    System(#[from] io::Error),
}

impl Turns {
    fn run(&mut self) {
        let mut next_refresh = Duration::ZERO;
        loop {
            self.tell_what_is_wanted();
            let drained = self.drain();
            let counted = self.take_censuses();
            let now = monotonic();
            if counted || now >= next_refresh {
                self.refresh(now);
                next_refresh = now + REFRESH;
            }
            let pause = match drained {
                TURN => Duration::ZERO,
                0 => IDLE_DRAIN,
                _ => BUSY_DRAIN,
            };
            if self.wait(pause) {
                return;
            }
        }
    }

    fn drain(&mut self) -> usize {
        let (model, listening) = (&mut self.model, &mut self.listening);
        let is_wanted = listening.feed.is_wanted();
        let now = monotonic();
        let drained = stream::drain(&mut self.ring, TURN, |record| {
            let event = decode(record, now);
            if is_wanted && let Ok(event) = event {
                listening.tell(event, now);
            }
            model.record(event);
        });
        listening.announcer.flush();
        drained
    }

    /// Has the programs tell what somebody listens for, as long as somebody does.
    fn tell_what_is_wanted(&mut self) {
        let listening = &mut self.listening;
        let settings = listening.feed.settings(listening.own);
        let now = monotonic();
        if settings == listening.settings || now < listening.again {
            return;
        }
        let set = self.kernel.set_stream(settings);
        if listening
            .refused
            .about(set, "what the stream tells does not change")
            .is_some()
        {
            listening.settings = settings;
            listening.feed.is_told(settings);
        } else {
            listening.again = now + SETTINGS_AGAIN;
        }
    }

    /// Whether there was one.
    fn take_censuses(&mut self) -> bool {
        let mut censuses = self.censuses.try_iter().peekable();
        let any = censuses.peek().is_some();
        censuses.for_each(|census| self.model.census(census));
        any
    }

    fn refresh(&mut self, now: Duration) {
        let counters = self.kernel.counters();
        let Some(counters) = self.unread.about(counters, "the counters stand still") else {
            return;
        };
        if let Some(lost) = self.records.to_tell(now, counters.lost_ring_full) {
            warn!(
                lost,
                "records are lost: the ring buffer was full (a larger --ring-bytes, more CPU, or \
                 fewer who listen to events)"
            );
        }
        if let Some(lost) = self.sockets.to_tell(now, counters.lost_state_full) {
            warn!(
                lost,
                "sockets find no room in the table, and their times are not known (a larger \
                 --socket-capacity)"
            );
        }
        let programs = self.kernel.programs();
        self.listening.announcer.miss(Missing {
            ring_full: counters.lost_ring_full,
            missed: missed(&programs),
        });
        self.model.count(now, counters, programs);
        self.model.serve(Served {
            refused: self.refusals.counts(),
            unheard: self.listening.feed.unheard(),
        });
        self.views
            .send_replace(Some(Arc::new(self.model.view(now))));
    }

    /// Waits until the ring fills, the pause is over, or the engine is to stop: then true.
    fn wait(&mut self, pause: Duration) -> bool {
        let mut ready = Vec::with_capacity(3);
        let timeout = Timespec::try_from(pause).ok();
        let spare = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                error!(%error, "the engine cannot wait, and stops");
                return true;
            }
        }
        for event in ready {
            match event.data.u64() {
                STOP => return true,
                LOG => {
                    if let Some(log) = &mut self.log {
                        log.flush();
                    }
                }
                _ => {}
            }
        }
        false
    }
}

impl Listening {
    fn tell(&mut self, event: Event, now: Duration) {
        let pid = event.socket().pid;
        let process = pid.and_then(|pid| self.names.of(pid, now));
        self.announcer.tell(Told { event, process });
    }
}
