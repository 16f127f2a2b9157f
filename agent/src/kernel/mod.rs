//! The kernel side as the agent sees it: what this host offers, where its fields lie, the
//! programs loaded into it, and what they counted.

mod btf;
mod fdinfo;
mod host;
mod loader;
mod verdict;

pub use self::{
    btf::{BtfError, FieldReport, KernelTypes},
    fdinfo::ProgramStats,
    host::{Host, HostError},
    loader::{Kernel, LoadError, Options, ReadError},
    verdict::{ProgramReport, Verdict},
};
