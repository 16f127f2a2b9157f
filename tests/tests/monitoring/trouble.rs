//! Agents to which happens what their own board is there to tell of: records and sockets that find
//! no room, a program that this kernel does not take, network namespaces out of reach.

use std::{fs, ops::RangeInclusive, process::Command, time::Instant};

use agent_ebpf::programs::PROGRAMS;
use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    daemon::{Daemon, RUN, binary},
    http::Scrape,
    session::Session,
    types,
    wait::DEADLINE,
};

use super::{
    crowd::UNTOLD,
    meter,
    own::OWN,
    panels::{Expected, NEVER},
    want::{Want, exactly, is, of},
};

/// What rates and increases are taken over: all the time that these agents run.
pub(crate) const OVER: &str = "5m";
const OVER_SECONDS: f64 = 300.0;

/// By so much Prometheus may think that a counter rose beyond what it saw, for the time between its
/// last look and now.
const EXTRAPOLATED: f64 = 1.15;

/// The least room there is for sockets.
const CAPACITY: u32 = 1024;

/// The tracepoint that the kernel of one of them lacks.
pub(crate) const LACKING: &str = "tcp_retransmit_synack";

const LOST: &str = "connstate_events_lost_total";

/// They run as long as this does.
pub(crate) struct Troubled {
    /// Has little room, and a kernel that lacks a tracepoint.
    pub(crate) cramped: Daemon,
    /// Is not let into other network namespaces.
    pub(crate) confined: Daemon,
    _folder: TempDir,
}

impl Troubled {
    /// Starts them in this thread's network namespace.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let types = folder.path().join("btf");
        let mut bytes = fs::read(types::KERNELS)?;
        let place = types::name(&bytes, &format!("btf_trace_{LACKING}"));
        bytes[place.context("this kernel lacks it")?] ^= 0x20;
        fs::write(&types, bytes)?;
        let mut cramped = Command::new("unshare");
        let script = format!("mount --bind \"$0\" {} && exec \"$@\"", types::KERNELS);
        cramped.args(["--mount", "sh", "-c", &script]).arg(&types);
        cramped.arg(binary()?).args(RUN);
        cramped.args(["--ring-bytes", "4096", "--stream", "all"]);
        cramped.args(["--socket-capacity", &CAPACITY.to_string()]);
        let mut confined = Command::new("setpriv");
        confined.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
        confined.arg(binary()?).args(RUN);
        let start = |command: &mut Command, name: &str| {
            let socket = folder.path().join(name);
            command.args(["--census-interval", "1s", "--api-socket"]);
            Daemon::spawn(command.arg(socket)).context(name.to_owned())
        };
        Ok(Self {
            cramped: start(&mut cramped, "cramped")?,
            confined: start(&mut confined, "confined")?,
            _folder: folder,
        })
    }

    /// Has the cramped one work for some seconds of processor time, more than agents at rest take in
    /// minutes. Returns how many these were.
    pub(crate) fn work(&self) -> Result<f64> {
        let pid = self.cramped.pid();
        let before = meter::cpu_seconds(pid)?;
        let mut session = Session::open(self.cramped.address())?;
        let began = Instant::now();
        loop {
            let worked = meter::cpu_seconds(pid)? - before;
            if worked > 3.0 {
                return Ok(worked);
            }
            ensure!(began.elapsed() < DEADLINE * 2, "{worked} seconds of work");
            session.scrape()?;
        }
    }

    /// What the panels that tell of trouble must show of the cramped one, whose page was this before
    /// the trouble, where the crowd still stands.
    pub(crate) fn of_the_cramped(&self, before: &Scrape, worked: f64) -> Result<Vec<Expected>> {
        let now = self.cramped.scrape()?;
        let all_work = meter::cpu_seconds(self.cramped.pid())?;
        let risen = |series: &str| risen(before, &now, series);
        let lost = |reason: &str| risen(&format!("{LOST}{{reason=\"{reason}\"}}"));
        let (ring, sockets) = (lost("ring_full")?, lost("state_full")?);
        ensure!(
            *ring.start() > 0.0 && *sockets.start() > 0.0,
            "{ring:?} {sockets:?}"
        );
        let rate =
            |risen: RangeInclusive<f64>| risen.start() / OVER_SECONDS..=risen.end() / OVER_SECONDS;
        let reason = |reason, value| of(&[("reason", reason)], value);
        let losses = vec![
            reason("ring_full", rate(ring.clone())),
            reason("state_full", rate(sockets.clone())),
            reason("malformed", 0.0..=0.0),
            reason("slow_listener", 0.0..=0.0),
        ];
        // Of these none, as a rule: one would have to interrupt another of the same program on the
        // same CPU, which nothing here can bring about.
        let skipped = PROGRAMS
            .iter()
            .filter(|program| program.name != LACKING)
            .map(|program| {
                let misses = format!(
                    "connstate_bpf_program_misses_total{{program=\"{}\"}}",
                    program.name
                );
                Ok(of(&[("program", program.name)], rate(risen(&misses)?)))
            });
        let skipped = skipped.collect::<Result<Vec<Want>>>()?;
        let entries = now.value("connstate_socket_state_entries")? / f64::from(CAPACITY);
        ensure!(entries > 0.9, "{entries} of the table are taken");
        let attached = PROGRAMS.iter().map(|program| {
            of(
                &[("program", program.name)],
                usize::from(program.name != LACKING),
            )
        });
        let all = ring.start() + sockets.start()..=ring.end() + sockets.end();
        Ok(vec![
            (OWN, "Programs not attached", vec![is(1)]),
            (OWN, "Programs", vec![exactly(attached.collect())]),
            (OWN, "Records lost", vec![is(all)]),
            (OWN, "Losses", vec![exactly(losses)]),
            (
                OWN,
                "Records",
                vec![is(rate(risen("connstate_events_total")?))],
            ),
            (OWN, "Skipped runs", vec![exactly(skipped)]),
            (
                OWN,
                "Room for sockets",
                vec![is(entries - 0.02..=entries + 0.02)],
            ),
            (OWN, "Sockets not told apart", vec![is(UNTOLD)]),
            (
                OWN,
                "Processor",
                vec![is(rate(worked - 1.0..=all_work * EXTRAPOLATED))],
            ),
        ])
    }

    /// The same of the confined one: it reaches its own network namespace alone.
    pub(crate) fn of_the_confined() -> Result<Vec<Expected>> {
        let others = meter::namespaces()? - 1;
        ensure!(others > 1, "there are hardly any");
        Ok(vec![
            (OWN, "Namespaces unreached", vec![is(others)]),
            (OWN, "Programs not attached", vec![is(NEVER)]),
            (OWN, "Records lost", vec![is(NEVER)]),
        ])
    }
}

/// By how much `increase()` may say that a counter rose.
fn risen(before: &Scrape, now: &Scrape, series: &str) -> Result<RangeInclusive<f64>> {
    let now = now.value(series)?;
    Ok(now - before.value(series)?..=now * EXTRAPOLATED)
}
