//! Prometheus metrics: one table declares every family, from which the exposition and
//! docs/metrics.md are made.

mod family;
mod families;
mod exposition;
mod doc;

pub use self::{
    doc::{PROCESS, markdown},
    exposition::{Exposition, ExpositionError},
    families::{families, family},
    family::{Family, Kind, Sample, Value},
};
