//! Prometheus metrics: one table declares every family, from which the exposition and
//! docs/metrics.md are made.

mod doc;
mod exposition;
mod families;
mod family;

pub use self::{
    doc::markdown,
    exposition::{Exposition, ExpositionError},
    families::FAMILIES,
    family::{Family, Kind, Sample, Value},
};
