//! Finds the fields of the table in the kernel's types.

use std::path::{Path, PathBuf};

use agent_ebpf::fields::{FIELDS, Field, Location, Need};
use thiserror::Error;

use super::btf::{Broken, Btf};

/// A kernel's types, as its BTF tells them.
pub struct KernelTypes(Btf);

/// What became of one field of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldReport {
    /// The field.
    pub field: &'static Field,
    /// Where it lies, or [`Location::ABSENT`].
    pub location: Location,
}

/// Why the BTF is of no use.
#[derive(Debug, Error)]
pub enum TypesError {
    /// Not to be read.
    #[error("cannot read the kernel's BTF at {}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not BTF.
    #[error("the BTF at {} is broken: {reason}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A field the programs cannot do without.
    #[error(
        "this kernel has no field {container}.{path}, needed for {purpose}: \
         connstate does not know this kernel, please report its version",
        container = field.container, path = field.path, purpose = field.purpose
    )]
    MissingField {
        /// The field.
        field: &'static Field,
    },
}

impl KernelTypes {
    /// Reads the BTF at `path`.
    ///
    /// # Errors
    ///
    /// [`TypesError::Unreadable`] and [`TypesError::Broken`].
    pub fn read(path: &Path) -> Result<Self, TypesError> {
        let bytes = std::fs::read(path).map_err(|source| TypesError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(bytes).map_err(|reason| TypesError::Broken {
            path: path.to_owned(),
            reason,
        })
    }

    /// Of a file's bytes.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, Broken> {
        Btf::parse(bytes).map(Self)
    }

    /// Every field of the table, found or not: [`Location::ABSENT`] also where this kernel has
    /// it in a form the programs cannot load.
    #[must_use]
    pub fn report(&self) -> Vec<FieldReport> {
        FIELDS
            .iter()
            .map(|field| FieldReport {
                field,
                location: field
                    .paths()
                    .find_map(|path| self.0.locate(field.container, path))
                    .unwrap_or(Location::ABSENT),
            })
            .collect()
    }

    /// How many arguments a tracepoint hands its programs; nothing where there is no such
    /// tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        // btf_trace_NAME points to a function whose first parameter is the probe's own data.
        let parameters = self.0.parameters(&format!("btf_trace_{tracepoint}"))?;
        parameters.checked_sub(1)
    }
}

/// The first field the programs need and this kernel lacks.
pub(super) fn first_missing(reports: &[FieldReport]) -> Option<&'static Field> {
    reports
        .iter()
        .find(|report| report.field.need == Need::Needed && !report.location.is_present())
        .map(|report| report.field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::host::SYS_KERNEL_BTF;

    fn running_kernel() -> Option<KernelTypes> {
        let path = Path::new(SYS_KERNEL_BTF);
        if path.exists() {
            return Some(KernelTypes::read(path).unwrap());
        }
        eprintln!("skipped: this kernel offers no BTF at {SYS_KERNEL_BTF}");
        None
    }

    #[test]
    fn the_running_kernel_has_every_needed_field() {
        let Some(types) = running_kernel() else {
            return;
        };
        let reports = types.report();
        assert_eq!(first_missing(&reports), None);
        let of = |global| {
            let report = reports.iter().find(|report| report.field.global == global);
            report.unwrap().location
        };
        // sock_common begins with the addresses on every kernel there is.
        assert_eq!(of("SOCK_DADDR").offset(), 0);
        assert_eq!(of("SOCK_SADDR").offset(), 4);
        let (_, width) = of("ICSK_CA_STATE").bit_range().unwrap();
        assert!(width == 5 || width == 6, "{width} bits");
    }

    #[test]
    fn a_tracepoint_tells_its_arguments() {
        let Some(types) = running_kernel() else {
            return;
        };
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("no_such_tracepoint"), None);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_path() {
        let error = KernelTypes::read(Path::new("/nonexistent/vmlinux"))
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("/nonexistent/vmlinux"),
            "{error}"
        );
        let error = KernelTypes::read(Path::new("/proc/self/cmdline"))
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("/proc/self/cmdline is broken"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_needed_field_is_named() {
        let reports: Vec<_> = FIELDS
            .iter()
            .map(|field| FieldReport {
                field,
                location: Location::ABSENT,
            })
            .collect();
        let field = first_missing(&reports).unwrap();
        assert_eq!(field.global, "SOCK_PROTOCOL");
        let message = TypesError::MissingField { field }.to_string();
        assert!(message.contains("sock.sk_protocol"), "{message}");
    }
}
