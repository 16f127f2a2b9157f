//! docs/security.md lists every file with `unsafe`, and no other.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

/// Files of Rust below a folder, but for those that a build leaves there.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_built = name == "target" || name.as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() {
            if !is_built {
                sources(&path, into)?;
            }
        } else if is_rust(&path) {
            into.push(path);
        }
    }
    Ok(())
}

const WORD: &str = "unsafe";

/// Whether code has the word, as blocks, functions, traits, their implementations, foreign blocks
/// (`unsafe {`, …) and attributes (`#[unsafe(…)]`) do. A comment that has a line of its own is no
/// code, nor is the word in quotes.
fn is_unsafe(text: &str) -> bool {
    let is_of_name = |char: char| char.is_alphanumeric() || char == '_';
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| {
        line.match_indices(WORD).any(|(place, _)| {
            let before = line[..place].chars().next_back();
            let after = line[place + WORD.len()..].chars().next();
            !before.is_some_and(|char| is_of_name(char) || "\"`".contains(char))
                && matches!(after, None | Some(' ' | '{' | '('))
        })
    })
}

/// Whether an entry of the list names this file: by its path, or with all of its folder.
fn names(entry: &str, file: &str) -> bool {
    let folder = entry.strip_suffix('*');
    entry == file || folder.is_some_and(|folder| file.starts_with(folder))
}

#[test]
fn every_form_is_seen() {
    for form in [
        "{ f() }",
        "fn f() {}",
        "trait T {}",
        "impl T for S {}",
        "extern \"C\" {}",
        "(no_mangle)",
    ] {
        let code = format!("pub {WORD} {form}");
        assert!(is_unsafe(&code), "{code}");
    }
    assert!(is_unsafe(&format!(
        "    #[{WORD}(link_section = \"iter/tcp\")]"
    )));
    assert!(is_unsafe(&format!("let a =\n    {WORD}\n    {{ f() }};")));
    assert!(!is_unsafe(&format!("use rustix::thread::unshare_{WORD};")));
    assert!(!is_unsafe(&format!("//! The reader is {WORD} {{")));
    assert!(!is_unsafe(&format!("#![deny({WORD}_op_in_{WORD}_fn)]")));
}

#[test]
fn every_unsafe_file_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, list) = page.split_once(&format!("## `{WORD}`")).unwrap();
    let list = list.split("\n## ").next().unwrap();
    let listed: Vec<_> = list
        .split('`')
        .filter(|part| is_rust(Path::new(part)) || part.ends_with("/*"))
        .collect();
    let mut files = Vec::new();
    sources(&root, &mut files).unwrap();
    let found: BTreeSet<_> = files
        .iter()
        .filter(|path| is_unsafe(&fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap())
        .collect();
    let mut unlisted = found.clone();
    unlisted.retain(|file| !listed.iter().any(|entry| names(entry, file)));
    assert_eq!(unlisted, BTreeSet::new(), "not listed");
    let mut without = listed;
    without.retain(|entry| !found.iter().any(|file| names(entry, file)));
    assert!(without.is_empty(), "listed without reason: {without:?}");
}
