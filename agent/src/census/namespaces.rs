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

use agent_ebpf::maps::NAMESPACE_CAPACITY;

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

/// The network namespaces that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Each once, at most 4096: a user may make any number.
    pub namespaces: Vec<Namespace>,
    /// Ways into further ones.
    pub beyond: usize,
}

/// Namespaces of processes by inode number, those of the first processes first.
#[derive(Default)]
struct Finding {
    found: BTreeMap<u64, (PathBuf, Option<u32>)>,
    beyond: usize,
}

impl Finding {
    fn add(&mut self, inode: u64, path: PathBuf, pid: Option<u32>) {
        if self.found.len() < NAMESPACE_CAPACITY {
            self.found.entry(inode).or_insert((path, pid));
        } else if !self.found.contains_key(&inode) {
            self.beyond += 1;
        }
    }
}

/// The network namespaces of processes, and those that only a mount keeps.
///
/// # Errors
///
/// Where /proc cannot be read.
pub fn find() -> io::Result<Found> {
    let mut found = Finding::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        // `self` and `thread-self` lead elsewhere once this thread is.
        let Some(pid) = process(&entry.file_name()) else {
            continue;
        };
        let path = entry.path().join("ns/net");
        // Nothing there: it has ended, or may not be looked at.
        if let Some(inode) = fs::read_link(&path).ok().as_deref().and_then(inode) {
            found.add(inode, path, Some(pid));
        }
    }
    // A mount's path is any bytes, and one that is no text must not hide all namespaces.
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mounts = String::from_utf8_lossy(&mounts);
    for (inode, path) in mounts.lines().filter_map(mounted) {
        found.add(inode, path, None);
    }
    let namespaces = found.found.into_iter();
    Ok(Found {
        namespaces: namespaces
            .map(|(inode, (path, pid))| Namespace { inode, path, pid })
            .collect(),
        beyond: found.beyond,
    })
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
    fn no_more_than_there_is_room_for_and_the_first_processes_come_first() {
        let mut found = Finding::default();
        let most = NAMESPACE_CAPACITY as u64;
        for pid in 1..=most + 5 {
            // A later process has a lower inode number, and the last ones one that is known.
            let inode = (most + 10 - pid).max(most / 2);
            found.add(inode, PathBuf::new(), u32::try_from(pid).ok());
        }
        assert!(found.found.len() <= NAMESPACE_CAPACITY);
        assert_eq!(found.found[&(most + 9)].1, Some(1));
        assert_eq!(found.beyond, 0);
        for inode in 0..most {
            found.add(inode, PathBuf::new(), None);
        }
        assert_eq!(found.found.len(), NAMESPACE_CAPACITY);
        assert!(found.beyond > 0);
        let beyond = found.beyond;
        found.add(most + 9, PathBuf::new(), None);
        assert_eq!(found.beyond, beyond, "it is among those that are known");
    }

    #[test]
    fn this_process_is_in_one() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().st_ino();
        let all = find().unwrap().namespaces;
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
