//! What must hold of any mountinfo.

use super::{cgroups, namespaces};

/// As mountinfo, and as a path in it.
pub(crate) fn mountinfo(text: &str) {
    for line in text.lines() {
        if let Some((inode, path)) = namespaces::mounted(line) {
            assert!(line.contains("net:[") && line.contains(&inode.to_string()));
            assert!(path.as_os_str().len() <= line.len());
        }
    }
    if let Some(mount) = cgroups::hierarchy(text) {
        assert!(text.contains(" - cgroup2"));
        assert!(!mount.name(&mount.path).is_empty());
    }
    assert_eq!(namespaces::unescape(&mangled(text)), text);
}

/// As `mangle_path()` writes a path.
fn mangled(path: &str) -> String {
    let escape = |sign: char| match sign {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(sign)),
        _ => sign.to_string(),
    };
    path.chars().map(escape).collect()
}
