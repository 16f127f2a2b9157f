//! docs/security.md lists every file with `unsafe`, and no other.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

/// Files of Rust below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, into)?;
        } else if is_rust(&path) {
            into.push(path);
        }
    }
    Ok(())
}

fn is_unsafe(text: &str) -> bool {
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter()
        .any(|line| forms.iter().any(|form| line.contains(form)))
}

#[test]
fn every_unsafe_file_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, list) = page.split_once("## `unsafe`").unwrap();
    let listed: BTreeSet<_> = list
        .split('`')
        .filter(|part| is_rust(Path::new(part)))
        .collect();
    let mut files = Vec::new();
    for folder in ["agent/src", "agent-ebpf/src"] {
        sources(&root.join(folder), &mut files).unwrap();
    }
    let with_unsafe: Vec<_> = files
        .iter()
        .filter(|path| is_unsafe(&fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(with_unsafe.into_iter().collect::<BTreeSet<_>>(), listed);
    assert!(list.contains("`agent-ebpf/kernel/*`"));
}
