//! The kernel programs, loaded for one namespace of the tests.

use std::time::Duration;

use agent::{
    kernel::{Kernel, Options},
    model::{Model, Setup},
    view::View,
};
use agent_ebpf::{
    close::CloseCause, counters::Counters, record::StreamMode, state::TcpState,
    stream::StreamSettings,
};
use anyhow::{Result, ensure};

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
        for report in kernel.programs() {
            ensure!(
                report.verdict.is_attached(),
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
        let misses = programs
            .iter()
            .find(|report| report.program.name == program)
            .and_then(|report| report.stats?.misses);
        misses.ok_or_else(|| anyhow::anyhow!("this kernel does not tell misses"))
    }
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
