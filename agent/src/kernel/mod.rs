//! The kernel side as the agent sees it: what this host offers, where its fields lie, the
//! programs loaded into it, and what they counted.

mod host;
mod features;
mod btf;
mod types;
mod verdict;
mod loader;
mod census;
mod bpf;
mod map_iter;
mod map_batch;
mod fdinfo;
mod heap;
mod names;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

pub use self::{
    census::{CensusReadError, CensusReader, KnownPass, Pass},
    fdinfo::ProgramStats,
    features::{FEATURES, Feature},
    host::{CAPABILITIES, Capability, CapabilityReport, Host, HostError, PIDS_UNSEEN},
    loader::{Kernel, LoadError, Options, ReadError},
    names::ProcessNames,
    types::{FieldReport, KernelTypes, TypesError},
    verdict::{ProgramReport, Verdict, missed},
};
