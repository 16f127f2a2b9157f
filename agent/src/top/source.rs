//! Where `agent top` has its news from: a running agent, or an engine of its own.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use agent_ebpf::{record::StreamMode, stream::Filter};
use anyhow::{Context as _, Result};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Update, Want};
use crate::{
    api::{
        event::EventLine,
        events::{EventsQuery, Pace, Untold},
        snapshot::Snapshot,
    },
    cli::TopArgs,
    client::{Client, ClientError},
    clock,
    engine::{Engine, Outside},
    feed::{Feed, Listener, Wish},
    http::LatestView,
    kernel::{Kernel, Options},
    model::Model,
    sse::{Events, Sent},
};

/// Updates that wait to be shown. Beyond them the source waits, and what it reads from is told so.
const UPDATES: usize = 256;

/// Between two looks at what is wanted, and between two snapshots, in such looks.
const LOOK: Duration = Duration::from_millis(100);
const SNAPSHOT_EVERY: u32 = 10;

/// How often an engine of its own takes a census.
const CENSUS_EVERY: Duration = Duration::from_secs(5);

/// Events a second: more than anyone reads.
const RATE: u32 = 200;

/// Before a stream that broke off is opened again.
const AGAIN: Duration = Duration::from_secs(2);

/// Shows the view until the reader has seen enough.
///
/// # Errors
///
/// Where there is no agent and none can be started, or no terminal.
pub fn top(args: &TopArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let (source, name) = match runtime.block_on(args.agent.client())? {
        Some(client) => {
            let name = client.place();
            (Source::Remote(client), name)
        }
        None => (Source::own(args)?, "own programs".to_owned()),
    };
    // An agent that refuses, or is not there, is said before the screen is taken.
    runtime.block_on(source.snapshot())?;
    let (updates, told) = sync_channel(UPDATES);
    let (wants, asked) = channel();
    // It ends with the process: programs and maps go with their descriptors.
    let _detached = std::thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || runtime.block_on(source.tell(updates, asked)))
        .context("the system refused a thread")?;
    super::run(told, wants, &name)?;
    Ok(ExitCode::SUCCESS)
}

enum Source {
    Remote(Client),
    Own {
        latest: LatestView,
        feed: Feed,
        _engine: Box<Engine>,
    },
}

impl Source {
    /// An engine of its own, which unloads its programs at the end.
    fn own(args: &TopArgs) -> Result<Self> {
        let census = args.watched.census(CENSUS_EVERY)?;
        let kernel = Kernel::load(&Options {
            only_netns: census.only_netns,
            ..Options::default()
        })?;
        let model = Model::new(args.watched.setup());
        let (views, latest) = watch::channel(None);
        let feed = Feed::default();
        let outside = Outside {
            feed: feed.clone(),
            own: StreamMode::Late,
            refusals: Arc::default(),
            views,
        };
        let engine = Box::new(Engine::start(kernel, model, census, outside)?);
        Ok(Self::Own {
            latest,
            feed,
            _engine: engine,
        })
    }

    /// Tells what is new until nobody is told any more.
    async fn tell(self, updates: SyncSender<Update>, asked: Receiver<Want>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = 0_u32;
        let mut stream: Option<JoinHandle<()>> = None;
        loop {
            looks.tick().await;
            while let Ok(Want::Events(wanted)) = asked.try_recv() {
                if let Some(stream) = stream.take() {
                    stream.abort();
                }
                stream = wanted.then(|| self.stream(updates.clone()));
            }
            if look.is_multiple_of(SNAPSHOT_EVERY) {
                let update = match self.snapshot().await {
                    Ok(Some(snapshot)) => Update::Snapshot(Box::new(snapshot)),
                    Ok(None) => Update::Trouble("waiting for the first census".to_owned()),
                    Err(error) => Update::Trouble(format!("{error:#}")),
                };
                if updates.send(update).is_err() {
                    return;
                }
            }
            look = look.wrapping_add(1);
        }
    }

    async fn snapshot(&self) -> Result<Option<Snapshot>> {
        match self {
            Self::Own { latest, .. } => {
                let view = latest.borrow().clone();
                Ok(view.as_deref().and_then(Snapshot::of))
            }
            Self::Remote(client) => match client.get("/api/v1/snapshot").await {
                Ok(body) => {
                    let snapshot = serde_json::from_slice(&body);
                    Ok(Some(snapshot.context(
                        "the agent answers what this one does not know",
                    )?))
                }
                Err(ClientError::Refused { status, .. }) if status.as_u16() == 503 => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// A task that tells events until it is aborted.
    fn stream(&self, updates: SyncSender<Update>) -> JoinHandle<()> {
        match self {
            Self::Own { feed, .. } => {
                let wish = Wish {
                    mode: StreamMode::Lingering,
                    filter: Filter::ANY,
                };
                let listener = feed.listen(wish);
                tokio::spawn(async move {
                    // Refused only where it asks for a cgroup.
                    if let Ok(listener) = listener {
                        hear(listener, &updates).await;
                    }
                })
            }
            Self::Remote(client) => {
                let client = client.clone();
                tokio::spawn(async move {
                    while let Err(error) = read(&client, &updates).await {
                        if updates.send(Update::Trouble(format!("{error:#}"))).is_err() {
                            return;
                        }
                        sleep(AGAIN).await;
                    }
                })
            }
        }
    }
}

/// Tells what a listener hears, as far as anyone can read it.
async fn hear(mut listener: Listener, updates: &SyncSender<Update>) {
    let mut pace = Pace::new(Some(RATE));
    while let Some(heard) = listener.hear().await {
        let boot = clock::boot();
        let shown = heard.events.iter().filter(|_| pace.allows());
        let lines: Vec<_> = shown.map(|told| EventLine::of(told, boot)).collect();
        let skipped = (heard.events.len() - lines.len()) as u64;
        let lost = heard.lost + heard.missing.ring_full + heard.missing.missed + skipped;
        if (lines.is_empty() && lost == 0) || updates.send(Update::Events { lines, lost }).is_ok() {
            continue;
        }
        return;
    }
}

/// Tells what the agent sends; returns once nobody is told any more.
async fn read(client: &Client, updates: &SyncSender<Update>) -> Result<()> {
    let query = EventsQuery {
        rate: Some(RATE),
        ..EventsQuery::default()
    };
    let path = format!("/api/v1/events?{}", serde_urlencoded::to_string(&query)?);
    let mut pieces = client.stream(&path).await?;
    let mut events = Events::default();
    while let Some(piece) = pieces.next().await? {
        events.add(&piece)?;
        let (mut lines, mut lost) = (Vec::new(), 0_u64);
        while let Some(Sent { kind, data }) = events.take() {
            if kind == b"lost" {
                let untold: Untold = serde_json::from_slice(data)?;
                let more = [untold.lost, untold.skipped, untold.ring_full, untold.missed];
                lost = more.into_iter().fold(lost, u64::saturating_add);
            } else {
                lines.push(serde_json::from_slice(data)?);
            }
        }
        let nothing = lines.is_empty() && lost == 0;
        if !nothing && updates.send(Update::Events { lines, lost }).is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("the agent has stopped")
}
