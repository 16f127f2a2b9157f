//! Reads the kernel's own type information (BTF, `Documentation/bpf/btf.rst`), as far as it
//! takes to find a field.
//!
//! Of the crates that read BTF, aya keeps its type walk private, and the others make a value of
//! each of the kernel's 130 000 types: 200 ms and 50 MiB, of a start that has 300 ms and a process
//! that has 30 MiB. This reader touches only what it is asked for, in place; a test holds it
//! against btfparse, field by field. Bytes that are no BTF give an error or nothing, never a panic.

use agent_ebpf::fields::Location;

/// A BTF file, its types counted and none read yet.
pub(super) struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins; type 0, void, has no bytes.
    types: Vec<usize>,
    strings: std::ops::Range<usize>,
}

/// What is wrong with the bytes.
pub(super) type Broken = &'static str;

const MAGIC: u16 = 0xeb9f;

/// Kinds of types (`include/uapi/linux/btf.h`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Bytes of `struct btf_type` and of each `struct btf_member`.
const TYPE_SIZE: usize = 12;
const MEMBER_SIZE: usize = 12;

/// How deep types may refer to types; the kernel's nest a dozen deep.
const DEPTH: usize = 64;

/// How many members are looked at for one field. The kernel's largest structs have some hundred,
/// but a struct with two anonymous members of its own type has 2^64 within [`DEPTH`].
const MEMBERS: usize = 1 << 16;

/// `struct btf_type`.
struct Type {
    /// Where it begins.
    at: usize,
    name: u32,
    kind: u32,
    /// How many members, parameters or values follow.
    len: usize,
    /// In structs: members carry the size of a bit field beside their offset.
    has_bit_fields: bool,
    /// The type it refers to, in kinds that do.
    target: u32,
}

/// A member found, in bits from the start of the struct that was asked.
struct Found {
    bit_offset: u32,
    /// 0 where it is no bit field.
    bits: u32,
    type_id: u32,
}

impl Btf {
    /// Finds where the types and strings lie.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, Broken> {
        let header = |at| word(&bytes, at).ok_or("it is shorter than its header");
        let length = header(4)? as usize;
        if !bytes.starts_with(&MAGIC.to_ne_bytes()) {
            return Err("it does not begin as BTF of this machine's byte order does");
        }
        let section = |at, outside| -> Result<_, Broken> {
            let start = length.checked_add(header(at)? as usize).ok_or(outside)?;
            let end = start.checked_add(header(at + 4)? as usize).ok_or(outside)?;
            if end <= bytes.len() {
                Ok(start..end)
            } else {
                Err(outside)
            }
        };
        let strings = section(16, "its strings lie beyond its end")?;
        let section = section(8, "its types lie beyond its end")?;

        let mut types = vec![section.start];
        let mut at = section.start;
        while at < section.end {
            types.push(at);
            let info = word(&bytes, at + 4).ok_or("it ends in the middle of a type")?;
            at += TYPE_SIZE + tail(info).ok_or("it holds a kind of type unknown here")?;
        }
        if at == section.end {
            Ok(Self {
                bytes,
                types,
                strings,
            })
        } else {
            Err("it ends in the middle of a type")
        }
    }

    /// Where the member at the end of `path` lies in the struct `container`; a path is names
    /// joined by dots, and anonymous members are looked through.
    pub(super) fn locate(&self, container: &str, path: &str) -> Option<Location> {
        let mut left = MEMBERS;
        let found = self
            .named(container)
            .filter(|found| found.kind == kind::STRUCT)
            .find_map(|found| self.walk(&found, path, &mut left))?;
        if found.bits == 0 {
            Location::whole(found.bit_offset / 8)
        } else {
            Location::bits(found.bit_offset, found.bits)
        }
    }

    /// How many parameters the function has that the typedef `name` points to.
    pub(super) fn parameters(&self, name: &str) -> Option<usize> {
        let typedef = self.named(name).find(|found| found.kind == kind::TYPEDEF)?;
        let mut found = self.get(typedef.target)?;
        for _ in 0..DEPTH {
            match found.kind {
                kind::FUNC_PROTO => return Some(found.len),
                kind::PTR | kind::TYPEDEF | kind::CONST => found = self.get(found.target)?,
                _ => return None,
            }
        }
        None
    }

    fn walk(&self, container: &Type, path: &str, left: &mut usize) -> Option<Found> {
        let mut parent = self.member(container, path.split('.').next()?, DEPTH, left)?;
        for name in path.split('.').skip(1) {
            let container = self.unqualified(parent.type_id)?;
            let child = self.member(&container, name, DEPTH, left)?;
            parent = Found {
                bit_offset: parent.bit_offset.checked_add(child.bit_offset)?,
                ..child
            };
        }
        Some(parent)
    }

    /// The member `name` of a struct or union, or of an anonymous one within it; nothing once no
    /// more members may be looked at.
    fn member(
        &self,
        container: &Type,
        name: &str,
        depth: usize,
        left: &mut usize,
    ) -> Option<Found> {
        if !matches!(container.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..container.len {
            *left = left.checked_sub(1)?;
            let at = container.at + TYPE_SIZE + index * MEMBER_SIZE;
            let (name_offset, type_id, offset) =
                (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let (bit_offset, bits) = if container.has_bit_fields {
                (offset & 0xff_ffff, offset >> 24)
            } else {
                (offset, 0)
            };
            if name_offset != 0 && self.is_named(name_offset, name) {
                return Some(Found {
                    bit_offset,
                    bits,
                    type_id,
                });
            }
            if name_offset == 0
                && let Some(inner) = self.unqualified(type_id)
                && let Some(depth) = depth.checked_sub(1)
                && let Some(found) = self.member(&inner, name, depth, left)
                && let Some(bit_offset) = bit_offset.checked_add(found.bit_offset)
            {
                return Some(Found {
                    bit_offset,
                    ..found
                });
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, id: u32) -> Option<Type> {
        let mut found = self.get(id)?;
        for _ in 0..DEPTH {
            match found.kind {
                kind::TYPEDEF | kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.get(found.target)?;
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        (1..self.types.len())
            .filter_map(|id| self.get(u32::try_from(id).ok()?))
            .filter(move |found| self.is_named(found.name, name))
    }

    fn get(&self, id: u32) -> Option<Type> {
        let at = *self
            .types
            .get(usize::try_from(id).ok().filter(|id| *id > 0)?)?;
        let info = self.word(at + 4)?;
        Some(Type {
            at,
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            len: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 == 1,
            target: self.word(at + 8)?,
        })
    }

    /// Whether the string at `offset` is `name`, to its end.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let strings = self.bytes.get(self.strings.clone());
        strings
            .and_then(|strings| strings.get(offset as usize..))
            .and_then(|string| string.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.bytes, at)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u32::from_ne_bytes(*word))
}

/// Bytes that follow the `struct btf_type` with this `info`.
fn tail(info: u32) -> Option<usize> {
    let len = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * len,
        kind::ENUM | kind::FUNC_PROTO => 8 * len,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
