//! Finds the kernel's fields in its BTF.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use agent_ebpf::fields::{FIELDS, Field, Location, Need};
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use thiserror::Error;

/// A kernel's types, as its BTF tells them.
pub struct KernelTypes {
    types: TypeInformation,
    structs: HashMap<&'static str, u32>,
}

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
pub enum BtfError {
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
        /// The parser's word.
        reason: String,
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

/// A whole BTF file in memory.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..start.checked_add(buffer.len())?));
        match found {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(btfparse::Error::new(
                btfparse::ErrorKind::IOError,
                "the file ends in the middle of a type",
            )),
        }
    }
}

impl KernelTypes {
    /// Reads the BTF at `path`.
    ///
    /// # Errors
    ///
    /// [`BtfError::Unreadable`] and [`BtfError::Broken`].
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(bytes).map_err(|error| BtfError::Broken {
            path: path.to_owned(),
            reason: error.message().to_owned(),
        })
    }

    fn parse(bytes: Vec<u8>) -> btfparse::Result<Self> {
        let types = TypeInformation::new(&Bytes(bytes))?;
        let mut structs = HashMap::new();
        for (id, variant) in types.get() {
            if let TypeVariant::Struct(found) = variant
                && let Some(name) = found.name()
                && let Some(field) = FIELDS.iter().find(|field| field.container == name)
            {
                structs.entry(field.container).or_insert(*id);
            }
        }
        Ok(Self { types, structs })
    }

    /// Where `field` lies; [`Location::ABSENT`] where this kernel has no such field, or has it
    /// in a form the programs cannot load.
    #[must_use]
    pub fn locate(&self, field: &Field) -> Location {
        let Some(container) = self.structs.get(field.container) else {
            return Location::ABSENT;
        };
        let found = self.types.offset_of(*container, field.path);
        let location = match found {
            Ok((_, Offset::ByteOffset(offset))) => Location::whole(offset),
            Ok((_, Offset::BitOffsetAndSize(offset, width))) => Location::bits(offset, width),
            Err(_) => None,
        };
        location.unwrap_or(Location::ABSENT)
    }

    /// Frees the memory, which takes longer than the start of the agent has time for, on another
    /// thread, and hands it back to the system.
    pub fn retire(self) {
        // Where no thread is to be had, dropping the closure frees it here.
        let _detached = std::thread::Builder::new()
            .name("btf-free".to_owned())
            .spawn(move || {
                drop(self);
                release_free_memory();
            });
    }

    /// Every field of the table, found or not.
    #[must_use]
    pub fn report(&self) -> Vec<FieldReport> {
        FIELDS
            .iter()
            .map(|field| FieldReport {
                field,
                location: self.locate(field),
            })
            .collect()
    }

    /// How many arguments a tracepoint hands its programs; nothing where there is no such
    /// tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        // btf_trace_NAME is a pointer to a function whose first parameter is the probe's own data.
        let name = format!("btf_trace_{tracepoint}");
        let mut id = self.types.id_of(&name)?;
        loop {
            match self.types.from_id(id)? {
                TypeVariant::Typedef(typedef) => id = *typedef.tid(),
                TypeVariant::Ptr(pointer) => id = *pointer.tid(),
                TypeVariant::FuncProto(function) => {
                    return function.parameter_list().len().checked_sub(1);
                }
                _ => return None,
            }
        }
    }
}

/// The types of a whole kernel are 50 MiB on the heap, which glibc would keep for later.
fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes any padding, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
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

    #[test]
    fn the_running_kernel_has_every_needed_field() {
        if !Path::new(SYS_KERNEL_BTF).exists() {
            eprintln!("skipped: this kernel offers no BTF at {SYS_KERNEL_BTF}");
            return;
        }
        let reports = KernelTypes::read(Path::new(SYS_KERNEL_BTF))
            .unwrap()
            .report();
        assert_eq!(first_missing(&reports), None);
        let of = |global| {
            let report = reports.iter().find(|report| report.field.global == global);
            report.unwrap().location
        };
        // sock_common begins with the remote address on every kernel there is.
        assert_eq!(of("SOCK_DADDR").offset(), 0);
        assert_eq!(of("SOCK_SADDR").offset(), 4);
        assert_eq!(
            of("ICSK_CA_STATE").bit_range().map(|(_, width)| width),
            Some(5)
        );
    }

    #[test]
    fn a_tracepoint_tells_its_arguments() {
        if !Path::new(SYS_KERNEL_BTF).exists() {
            eprintln!("skipped: this kernel offers no BTF at {SYS_KERNEL_BTF}");
            return;
        }
        let types = KernelTypes::read(Path::new(SYS_KERNEL_BTF)).unwrap();
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("no_such_tracepoint"), None);
    }

    #[test]
    fn what_is_not_btf_is_told_with_its_path() {
        let missing = KernelTypes::read(Path::new("/nonexistent/vmlinux"))
            .err()
            .unwrap();
        assert!(missing.to_string().contains("/nonexistent/vmlinux"));
        for bytes in [vec![], vec![0; 64], b"\x7fELF".to_vec()] {
            assert!(KernelTypes::parse(bytes).is_err());
        }
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
        let message = BtfError::MissingField { field }.to_string();
        assert!(message.contains("sock.sk_protocol"), "{message}");
    }
}
