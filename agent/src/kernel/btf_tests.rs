use std::path::Path;

use agent_ebpf::fields::FIELDS;
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use proptest::prelude::*;

use super::*;
use crate::kernel::host::SYS_KERNEL_BTF;

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

/// What btfparse says of a field.
fn oracle(types: &TypeInformation, container: &str, path: &str) -> Option<Location> {
    let id = types.get().iter().find_map(|(id, found)| match found {
        TypeVariant::Struct(found) if found.name().as_deref() == Some(container) => Some(*id),
        _ => None,
    })?;
    match types.offset_of(id, path).ok()?.1 {
        Offset::ByteOffset(offset) => Location::whole(offset),
        Offset::BitOffsetAndSize(offset, bits) => Location::bits(offset, bits),
    }
}

#[test]
fn every_field_of_the_running_kernel_lies_where_btfparse_finds_it() {
    if !Path::new(SYS_KERNEL_BTF).exists() {
        eprintln!("skipped: this kernel offers no BTF at {SYS_KERNEL_BTF}");
        return;
    }
    let bytes = std::fs::read(SYS_KERNEL_BTF).unwrap();
    let theirs = TypeInformation::new(&Bytes(bytes.clone())).unwrap();
    let ours = Btf::parse(bytes).unwrap();
    // btfparse does not count void.
    assert_eq!(ours.types.len(), theirs.get().len() + 1);
    for field in FIELDS {
        for path in field.paths() {
            assert_eq!(
                ours.locate(field.container, path),
                oracle(&theirs, field.container, path),
                "{}.{path}",
                field.container
            );
        }
    }
}

/// A small BTF: `struct outer { u32 a; union { struct { u32 b:5, c:3; } ; u32 d; }; const inner_t
/// e; }`, `typedef struct inner { u32 f; u32 g; } inner_t`, and a typedef of a pointer to a
/// function with two parameters.
fn small() -> Vec<u8> {
    let strings = b"\0u32\0outer\0a\0b\0c\0d\0e\0inner\0inner_t\0f\0g\0probe\0";
    let name = |name: &str| -> u32 {
        let wanted = [name.as_bytes(), b"\0"].concat();
        let at = strings
            .windows(wanted.len())
            .enumerate()
            .position(|(at, window)| window == wanted && (at == 0 || strings[at - 1] == 0));
        u32::try_from(at.unwrap()).unwrap()
    };
    let info = |kind: u32, len: u32, flag: u32| flag << 31 | kind << 24 | len;
    #[rustfmt::skip]
    let types: Vec<u32> = [
        // 1: u32
        vec![name("u32"), info(kind::INT, 0, 0), 4, 32],
        // 2: the struct of bit fields
        vec![0, info(kind::STRUCT, 2, 1), 4, name("b"), 1, 5 << 24, name("c"), 1, 3 << 24 | 5],
        // 3: the union
        vec![0, info(kind::UNION, 2, 0), 4, 0, 2, 0, name("d"), 1, 0],
        // 4: inner, 5: inner_t, 6: const inner_t
        vec![name("inner"), info(kind::STRUCT, 2, 0), 8, name("f"), 1, 0, name("g"), 1, 32],
        vec![name("inner_t"), info(kind::TYPEDEF, 0, 0), 4],
        vec![0, info(kind::CONST, 0, 0), 5],
        // 7: outer
        vec![name("outer"), info(kind::STRUCT, 3, 0), 16, name("a"), 1, 0, 0, 3, 32, name("e"), 6, 64],
        // 8: a function of two parameters, 9: a pointer to it, 10: the typedef
        vec![0, info(kind::FUNC_PROTO, 2, 0), 0, 0, 1, 0, 1],
        vec![0, info(kind::PTR, 0, 0), 8],
        vec![name("probe"), info(kind::TYPEDEF, 0, 0), 9],
    ].concat();
    let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let header = [
        u32::from(MAGIC) | 1 << 16,
        24,
        0,
        length(&types),
        length(&types),
        length(strings),
    ];
    let header: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
    [header, types, strings.to_vec()].concat()
}

#[test]
fn members_are_found_through_anonymous_ones_and_typedefs() {
    let btf = Btf::parse(small()).unwrap();
    for (path, location) in [
        ("a", Location::whole(0)),
        ("b", Location::bits(32, 5)),
        ("c", Location::bits(37, 3)),
        ("d", Location::whole(4)),
        ("e", Location::whole(8)),
        ("e.g", Location::whole(12)),
        ("e.h", None),
        ("a.b", None),
        ("", None),
    ] {
        assert_eq!(btf.locate("outer", path), location, "outer.{path}");
    }
    assert_eq!(btf.locate("inner_t", "f"), None, "a typedef is no struct");
    assert_eq!(
        btf.locate("oute", "a"),
        None,
        "a name is matched to its end"
    );
    assert_eq!(btf.parameters("probe"), Some(2));
    assert_eq!(btf.parameters("outer"), None);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let whole = small();
    for length in 0..whole.len() {
        assert!(
            Btf::parse(whole[..length].to_vec()).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn types_that_refer_to_themselves_end() {
    let mut bytes = small();
    // Type 5, the typedef, and type 6, const, now name each other.
    let typedef = Btf::parse(bytes.clone()).unwrap().types[5];
    bytes[typedef + 8..typedef + 12].copy_from_slice(&6_u32.to_ne_bytes());
    let btf = Btf::parse(bytes).unwrap();
    assert_eq!(btf.locate("outer", "e.g"), None);
}

#[test]
fn a_struct_within_itself_twice_ends() {
    let mut bytes = small();
    // Both members of the struct of bit fields are now anonymous, and of its own type.
    let container = Btf::parse(bytes.clone()).unwrap().types[2];
    for member in [container + 12, container + 24] {
        bytes[member..member + 8].copy_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0]);
    }
    let btf = Btf::parse(bytes).unwrap();
    assert_eq!(btf.locate("outer", "b"), None);
    assert_eq!(btf.locate("outer", "a"), Location::whole(0));
}

proptest! {
    #[test]
    fn flipped_bits_give_an_answer_or_an_error(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..8)) {
        let mut bytes = small();
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1 << bit;
        }
        if let Ok(btf) = Btf::parse(bytes) {
            for path in ["a", "b", "e.g", "x.y.z"] {
                let _anywhere = btf.locate("outer", path);
            }
            let _any = btf.parameters("probe");
        }
    }
}
