//! What a board's user chooses, and how every query is confined to it.

/// What a board's user chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// Jobs of Prometheus.
    Job,
    /// Hosts, as many as one likes.
    Instances,
    /// One host.
    Instance,
    /// Workloads: units, containers, pods.
    Workload,
}

impl Variable {
    /// As queries name it, without the dollar sign: like the label whose values one chooses from.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Instances | Self::Instance => "instance",
            Self::Workload => "workload",
        }
    }

    /// What confines a query to what is chosen.
    pub(crate) fn matcher(self) -> String {
        let name = self.name();
        format!(r#"{name}=~"${name}""#)
    }
}
