//! The kernel programs, loaded for one namespace of the tests.

use std::time::Duration;

use agent::{
    kernel::{Kernel, Options},
    model::{Model, Setup},
    view::View,
};
use agent_ebpf::{
    close::CloseCause, counters::Counters, programs::CENSUS_OWNERS, record::StreamMode,
    state::TcpState, stream::StreamSettings,
};
use anyhow::{Context as _, Result, ensure};

use crate::netns::Netns;

/// The programs, which count nothing but what happens in one namespace, from zero.
pub struct Watch {
    kernel: Kernel,
}

impl Watch {
    /// Watches `netns`.
    ///
    /// # Errors
    ///
    /// Where a program does not run.
    pub fn new(netns: &Netns) -> Result<Self> {
        Self::with(&Options {
            only_netns: netns.inode(),
            ..Options::default()
        })
    }

    /// Watches with other options; see [`Options::only_netns`].
    ///
    /// # Errors
    ///
    /// Where a program does not run.
    pub fn with(options: &Options) -> Result<Self> {
        let kernel = Kernel::load(options)?;
        // Before 5.11 there is no bpf_sock_from_file, and no owner is found.
        let has_owners = release()? >= (5, 11);
        for report in kernel.programs() {
            let is_missing = report.program.name == CENSUS_OWNERS && !has_owners;
            ensure!(
                report.verdict.is_attached() || is_missing,
                "{} is {:?}",
                report.program.name,
                report.verdict
            );
        }
        Ok(Self { kernel })
    }

    /// The loaded programs.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// What was counted.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn counters(&self) -> Result<Counters> {
        Ok(self.kernel.counters()?)
    }

    /// What the agent would show of it, once nothing is under way any more.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn settled(&self) -> Result<View> {
        let mut model = Model::new(Setup::default());
        let mut now = Duration::ZERO;
        // Twice the grace in which a close's cause may be revised, in the model's own clock.
        for _ in 0..3 {
            now += Duration::from_secs(1);
            model.count(now, self.counters()?, self.kernel.programs());
        }
        Ok(model.view(now))
    }

    /// How often the kernel skipped the program `inet_sock_set_state`, on the whole host.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn misses(&self) -> Result<u64> {
        self.misses_of("inet_sock_set_state")
    }

    /// How often the kernel skipped `program`, on the whole host.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn misses_of(&self, program: &str) -> Result<u64> {
        let programs = self.kernel.programs();
        let report = programs
            .iter()
            .find(|report| report.program.name == program);
        let stats = report.and_then(|report| report.stats);
        let stats = stats.with_context(|| format!("{program} does not run"))?;
        match stats.misses {
            Some(misses) => Ok(misses),
            // Nothing guards a program against itself there (__bpf_trace_run), so none is skipped.
            None if release()? < (5, 12) => Ok(0),
            None => anyhow::bail!("this kernel does not tell misses"),
        }
    }
}

/// The first two numbers of the running kernel.
fn release() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let numbers = numbers.next().zip(numbers.next());
    numbers.with_context(|| format!("{release} is no release"))
}

/// Transitions of `view` that are not zero, by name; self-transitions excluded.
#[must_use]
pub fn transitions(view: &View) -> Vec<(&'static str, &'static str, u64)> {
    let mut found = Vec::new();
    for from in TcpState::ALL {
        for to in TcpState::ALL {
            let count = view.transitions[from as usize][to as usize];
            if from != to && count > 0 {
                found.push((from.name(), to.name(), count));
            }
        }
    }
    found
}

/// Closes of `view` that are not zero, by name.
#[must_use]
pub fn closes(view: &View) -> Vec<(&'static str, u64)> {
    CloseCause::ALL
        .into_iter()
        .map(|cause| (cause.name(), view.closes[cause as usize]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// The options of a test that reads records: every transition, a ring of `ring_bytes`.
#[must_use]
pub fn all_transitions(netns: &Netns, ring_bytes: u32) -> Options {
    Options {
        stream: StreamSettings::own(StreamMode::All),
        ring_bytes,
        only_netns: netns.inode(),
        ..Options::default()
    }
}
