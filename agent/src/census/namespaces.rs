//! The network namespaces of the host: those that processes are in, and those that only a bind
//! mount keeps, as `ip netns add` makes them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A network namespace, and a file that leads into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number.
    pub inode: u64,
    /// `/proc/PID/ns/net`, or a bind mount of one.
    pub path: PathBuf,
    /// The process that is in it and was found first; nothing where only a mount keeps it.
    pub pid: Option<u32>,
}

impl Namespace {
    /// Opens it, as `setns()` takes it.
    ///
    /// # Errors
    ///
    /// Where the file is gone or leads elsewhere by now (`NotFound`), or may not be opened
    /// (`CAP_SYS_PTRACE`).
    pub fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if file.metadata()?.st_ino() == self.inode {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// Every network namespace that can be found, each once.
///
/// # Errors
///
/// Where /proc cannot be read.
pub fn find() -> io::Result<Vec<Namespace>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        // `self` and `thread-self` lead elsewhere once this thread is.
        let Some(pid) = process(&entry.file_name()) else {
            continue;
        };
        let path = entry.path().join("ns/net");
        // Nothing there: it has ended, or may not be looked at.
        if let Some(inode) = fs::read_link(&path).ok().as_deref().and_then(inode) {
            found.entry(inode).or_insert((path, Some(pid)));
        }
    }
    // A mount's path is any bytes, and one that is no text must not hide all namespaces.
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mounts = String::from_utf8_lossy(&mounts);
    for (inode, path) in mounts.lines().filter_map(mounted) {
        found.entry(inode).or_insert((path, None));
    }
    let namespaces = found.into_iter();
    Ok(namespaces
        .map(|(inode, (path, pid))| Namespace { inode, path, pid })
        .collect())
}

/// Of a name in /proc.
fn process(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// The inode number of the host's namespace, that of process 1; nothing where /proc does not tell.
#[must_use]
pub fn host() -> Option<u64> {
    Some(fs::metadata("/proc/1/ns/net").ok()?.st_ino())
}

/// Of a link's target like `net:[4026531840]`.
fn inode(target: &Path) -> Option<u64> {
    let number = target.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// Of a line of mountinfo, where that is a network namespace: `ID PARENT MAJOR:MINOR ROOT PATH …`.
pub(super) fn mounted(line: &str) -> Option<(u64, PathBuf)> {
    let mut words = line.split(' ').skip(3);
    let inode = inode(Path::new(words.next()?))?;
    Some((inode, unescape(words.next()?).into()))
}

/// The kernel writes space, tab, newline and backslash in paths as a backslash and three octal
/// digits (`mangle_path()`).
pub(super) fn unescape(path: &str) -> String {
    let path = path.replace(r"\040", " ").replace(r"\011", "\t");
    path.replace(r"\012", "\n").replace(r"\134", r"\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_namespace_is_found() {
        let line = r"641 28 0:4 net:[4026532299] /run/netns/a\040b rw shared:300 - nsfs nsfs rw";
        assert_eq!(
            mounted(line),
            Some((4_026_532_299, PathBuf::from("/run/netns/a b")))
        );
    }

    #[test]
    fn other_mounts_are_passed_over() {
        for line in [
            "",
            "641 28 0:4",
            "25 30 0:23 / /proc rw,nosuid - proc proc rw",
            "641 28 0:4 mnt:[4026532299] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw",
            "641 28 0:4 net:[x] /run/netns/a rw - nsfs nsfs rw",
        ] {
            assert_eq!(mounted(line), None, "{line}");
        }
    }

    #[test]
    fn this_process_is_in_one() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().st_ino();
        let all = find().unwrap();
        let namespace = all.iter().find(|namespace| namespace.inode == own).unwrap();
        assert!(namespace.open().is_ok());
        let gone = Namespace {
            inode: 1,
            path: namespace.path.clone(),
            pid: None,
        };
        assert_eq!(gone.open().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
