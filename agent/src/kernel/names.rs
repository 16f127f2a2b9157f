//! The names of the processes that open and close sockets.

use std::{collections::HashMap, fs, sync::Arc, time::Duration};

use agent_ebpf::census::{OWNER_SLOTS, OwnerSlot};
use aya::maps::{Array, MapData};

use crate::workload::comm;

/// Names remembered at most, and for how long: an id may be another process's by then.
const NAMES: usize = 4_096;
const LAST: Duration = Duration::from_secs(1);

/// Names processes by their ids.
pub struct ProcessNames {
    slots: Array<MapData, OwnerSlot>,
    known: HashMap<u32, (Duration, Option<Arc<str>>)>,
}

impl ProcessNames {
    pub(super) fn new(slots: Array<MapData, OwnerSlot>) -> Self {
        Self {
            slots,
            known: HashMap::new(),
        }
    }

    /// The name of this process's thread-group leader, as it was when it last opened or closed a
    /// socket; `now` is CLOCK_MONOTONIC.
    pub fn of(&mut self, pid: u32, now: Duration) -> Option<Arc<str>> {
        if let Some((at, name)) = self.known.get(&pid)
            && now.saturating_sub(*at) < LAST
        {
            return name.clone();
        }
        if self.known.len() >= NAMES {
            self.known.clear();
        }
        let name = self.look(pid).map(Arc::from);
        self.known.insert(pid, (now, name.clone()));
        name
    }

    fn look(&self, pid: u32) -> Option<String> {
        match self.slots.get(&(pid % OWNER_SLOTS), 0) {
            Ok(slot) if slot.pid == pid => Some(comm(&slot.comm)),
            // Another process shares the slot, or the kernel is too old to fill it.
            _ => {
                let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
                Some(comm(name.trim_ascii_end()))
            }
        }
    }
}
