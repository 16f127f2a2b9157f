//! Numbers that a seed determines, so that a run can be repeated.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
};

use anyhow::Result;

/// A new seed, or the one that `CONNSTATE_SEED` names; either way it is printed.
///
/// # Errors
///
/// Where `CONNSTATE_SEED` is no number.
pub fn seed() -> Result<u64> {
    let seed = match std::env::var("CONNSTATE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    eprintln!("CONNSTATE_SEED={seed} repeats this run");
    Ok(seed)
}

/// Numbers that a seed determines: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Of a new seed, which is printed, or of the one that `CONNSTATE_SEED` names.
    ///
    /// # Errors
    ///
    /// Where `CONNSTATE_SEED` is no number.
    pub fn new() -> Result<Self> {
        seed().map(Self::of)
    }

    /// Of this seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    /// The next one of an index into so many.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub fn index(&mut self, len: usize) -> usize {
        // What is below a usize is one.
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// Puts them in another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.index(last + 1));
        }
    }
}
