//! Reads the census iterator.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    sync::{Arc, Mutex},
};

use agent_ebpf::{census::CensusCounts, programs::CENSUS_TCP};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
    programs::{Iter, ProgramError, links::LinkError},
};
use thiserror::Error;

use super::loader::lock;

/// Counts the sockets of one network namespace at a time.
pub struct CensusReader {
    ebpf: Arc<Mutex<Ebpf>>,
    counts: Array<MapData, CensusCounts>,
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
    Read(#[from] io::Error),
    /// What it counted cannot be read.
    #[error("the counts of the census cannot be read")]
    Counts(#[from] MapError),
}

impl CensusReader {
    pub(super) fn new(ebpf: Arc<Mutex<Ebpf>>, counts: Array<MapData, CensusCounts>) -> Self {
        Self { ebpf, counts }
    }

    /// Counts the sockets of the network namespace that the calling thread is in.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn read(&mut self) -> Result<CensusCounts, CensusReadError> {
        self.counts.set(0, CensusCounts::ZERO, 0)?;
        let mut file = self.open()?;
        loop {
            // The program writes nothing, so nothing is ever read. EAGAIN comes after a million
            // sockets without output (bpf_seq_read), and the next read goes on from there.
            match file.read(&mut [0; 8]) {
                Ok(0) => return Ok(self.counts.get(&0, 0)?),
                Err(error) if !is_transient(&error) => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// An iterator shows the namespace it is opened in.
    fn open(&self) -> Result<File, CensusReadError> {
        let mut ebpf = lock(&self.ebpf);
        let program = ebpf.program_mut(CENSUS_TCP);
        let program: &mut Iter = program
            .and_then(|program| program.try_into().ok())
            .ok_or(CensusReadError::Missing)?;
        let link = program.attach()?;
        Ok(program.take_link(link)?.into_file()?)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
