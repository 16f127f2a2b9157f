//! The paths of cgroups in the v2 hierarchy, by their ids.
//!
//! A cgroup's id in the kernel (`cgroup->kn->id`, `bpf_get_current_cgroup_id()`) is the inode
//! number of its directory (`kernfs_init_inode()`), but nothing leads from the number to the
//! directory save a walk. An id is not given out twice, and cgroup v2 renames nothing, so that a
//! path once found stays true.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    ops::ControlFlow,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::warn;

use super::namespaces::unescape;

/// Beyond so many ids, those that the latest call did not ask for are forgotten.
const MEMORY: usize = 16_384;
/// How long an id that a walk did not find causes no other walk: its cgroup is most likely gone,
/// while sockets of it live on.
const RETRY: Duration = Duration::from_mins(1);
/// The most directories that one walk visits: whoever has a subtree delegated may fill it.
const DIRECTORIES: usize = 262_144;
/// The deepest that a walk goes. A directory stands open for each level.
const DEPTH: usize = 64;

/// The paths of the cgroups asked for.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    paths: BTreeMap<u64, String>,
    /// When a walk last went without finding the id.
    missed: BTreeMap<u64, Duration>,
    /// Whether it was said that there is no hierarchy.
    told: bool,
}

impl Cgroups {
    /// Knows none yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The path of each id (`/` for the root), from memory, or from one walk of the hierarchy for
    /// all that memory lacks. Ids whose cgroup is gone keep the path they had; ids never seen are
    /// absent. `now` is CLOCK_MONOTONIC's time.
    pub(super) fn paths(&mut self, ids: &BTreeSet<u64>, now: Duration) -> BTreeMap<u64, String> {
        let mut absent = false;
        let paths = self.paths_by(ids, now, |unknown| {
            // Anew each time: it may be mounted late, and a walk is rare.
            let mountinfo = fs::read("/proc/self/mountinfo").unwrap_or_default();
            let Some(mount) = hierarchy(&String::from_utf8_lossy(&mountinfo)) else {
                absent = true;
                return BTreeMap::new();
            };
            mount.find(unknown, DIRECTORIES)
        });
        if absent && !mem::replace(&mut self.told, true) {
            warn!(
                lost = "the workloads of sockets, but for what /proc/PID/cgroup tells of their \
                        processes",
                "no cgroup2 file system is mounted here"
            );
        }
        paths
    }

    /// The same with the walk as an argument.
    fn paths_by(
        &mut self,
        ids: &BTreeSet<u64>,
        now: Duration,
        walk: impl FnOnce(&BTreeSet<u64>) -> BTreeMap<u64, String>,
    ) -> BTreeMap<u64, String> {
        // A socket without a cgroup has 0, which no directory has.
        let unknown = |id: &&u64| **id != 0 && !self.paths.contains_key(*id);
        let unknown: BTreeSet<u64> = ids.iter().filter(unknown).copied().collect();
        let due = |id| match self.missed.get(id) {
            Some(missed) => now.saturating_sub(*missed) >= RETRY,
            None => true,
        };
        if unknown.iter().any(due) {
            let found = walk(&unknown);
            for id in unknown {
                if found.contains_key(&id) {
                    self.missed.remove(&id);
                } else {
                    // Those not yet due too: what is missed together is retried together.
                    self.missed.insert(id, now);
                }
            }
            self.paths.extend(found);
        }
        if self.paths.len() + self.missed.len() > MEMORY {
            self.paths.retain(|id, _| ids.contains(id));
            self.missed.retain(|id, _| ids.contains(id));
        }
        let known = |id: &u64| Some((*id, self.paths.get(id)?.clone()));
        ids.iter().filter_map(known).collect()
    }
}

/// Where the v2 hierarchy is mounted, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The cgroup mounted, from the root of this process' cgroup namespace; empty where that root
    /// or more is mounted.
    root: String,
    /// The directory it is mounted at.
    pub(super) path: PathBuf,
}

impl Mount {
    /// The paths of these ids, of those among them that exist.
    fn find(&self, ids: &BTreeSet<u64>, directories: usize) -> BTreeMap<u64, String> {
        let mut found = BTreeMap::new();
        walk(&self.path, directories, |inode, path| {
            if ids.contains(&inode) {
                found.insert(inode, self.name(path));
            }
            if found.len() < ids.len() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        found
    }

    /// The cgroup that a directory below is, as /proc/PID/cgroup would write it.
    pub(super) fn name(&self, directory: &Path) -> String {
        let below = directory.strip_prefix(&self.path).unwrap_or(directory);
        let below = below.to_string_lossy();
        match (self.root.as_str(), &*below) {
            ("", "") => "/".to_owned(),
            (root, "") => root.to_owned(),
            (root, below) => format!("{root}/{below}"),
        }
    }
}

/// The mount in mountinfo that shows most of the v2 hierarchy.
///
/// In a container that may be one of the host's, which begins above the container's own cgroup
/// namespace: `cgroup_show_path()` writes its root as `/../..`. What the way down from there is
/// called, that does not say, and paths are those from the mount's root on.
pub(super) fn hierarchy(mountinfo: &str) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(mounted).map(|(root, path)| {
        let segments = || root.split('/').filter(|segment| !segment.is_empty());
        let below = segments().filter(|segment| *segment != "..").count();
        let (above, root) = match below {
            0 => (segments().count(), String::new()),
            _ => (0, unescape(root)),
        };
        let path = unescape(path).into();
        ((Reverse(above), below), Mount { root, path })
    });
    let (_, widest) = mounts.min_by_key(|(width, _)| *width)?;
    Some(widest)
}

/// Root and path of a line of mountinfo, where that is the v2 hierarchy:
/// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD…] - TYPE SOURCE OPTIONS`.
fn mounted(line: &str) -> Option<(&str, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut words = mount.split(' ').skip(3);
    Some((words.next()?, words.next()?))
}

/// Visits a directory and all below it, with their inode numbers, as long as `visit` goes on: in
/// this file system alone, and through no symbolic link. What vanishes meanwhile is passed over.
fn walk(root: &Path, mut directories: usize, mut visit: impl FnMut(u64, &Path) -> ControlFlow<()>) {
    let Ok(metadata) = fs::metadata(root) else {
        return;
    };
    let device = metadata.st_dev();
    if visit(metadata.st_ino(), root).is_break() {
        return;
    }
    // Open directories, not a list of paths: what is ahead may be many and long.
    let mut levels: Vec<_> = fs::read_dir(root).into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.next() else {
            levels.pop();
            continue;
        };
        let Ok(entry) = entry else { continue };
        // The many files are told apart by their entry alone.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.st_dev() != device || !metadata.is_dir() {
            continue;
        }
        directories = directories.saturating_sub(1);
        if directories == 0 || visit(metadata.st_ino(), &path).is_break() {
            return;
        }
        if levels.len() < DEPTH {
            levels.extend(fs::read_dir(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        ffi::OsStr,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
        process,
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    /// A directory of this test's own, removed at its end.
    struct Own(PathBuf);

    impl Own {
        fn temporary(name: &str) -> Self {
            let path = env::temp_dir().join(format!("connstate-{name}-{}", process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// A cgroup; none where that cannot be made here.
        fn cgroup(name: &str) -> Option<(Mount, Self)> {
            let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let Some(mount) = hierarchy(&mountinfo) else {
                eprintln!("skipped: no cgroup2 file system is mounted");
                return None;
            };
            let path = mount
                .path
                .join(format!("connstate-{name}-{}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => Some((mount, Self(path))),
                Err(error) => {
                    eprintln!("skipped: {} cannot be made: {error}", path.display());
                    None
                }
            }
        }

        fn make(&self, name: impl AsRef<Path>) -> u64 {
            let path = self.0.join(name);
            fs::create_dir_all(&path).unwrap();
            inode(&path)
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            // In cgroupfs the files go with their directory and cannot be removed one by one.
            let mut directories = Vec::new();
            walk(&self.0, usize::MAX, |_, path| {
                directories.push(path.to_owned());
                ControlFlow::Continue(())
            });
            if directories
                .iter()
                .rev()
                .any(|path| fs::remove_dir(path).is_err())
            {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
    }

    fn inode(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().st_ino()
    }

    fn visited(root: &Path, directories: usize) -> Vec<PathBuf> {
        let mut all = Vec::new();
        walk(root, directories, |_, path| {
            all.push(path.strip_prefix(root).unwrap().to_owned());
            ControlFlow::Continue(())
        });
        all.sort();
        all
    }

    #[test]
    fn the_hierarchy_is_where_it_is_mounted() {
        let unified = "31 23 0:28 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
                       37 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                       41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let plain = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup rw\n";
        let part = "99 98 0:30 /docker/a\\040b /mnt/part ro - cgroup2 cgroup rw\n";
        let host = "77 70 0:30 /../../.. /host/sys/fs/cgroup ro master:4 - cgroup2 cgroup2 rw\n";
        let mount = |root: &str, path: &str| {
            Some(Mount {
                root: root.to_owned(),
                path: path.into(),
            })
        };
        assert_eq!(hierarchy(unified), mount("", "/sys/fs/cgroup/unified"));
        assert_eq!(hierarchy(plain), mount("", "/sys/fs/cgroup"));
        assert_eq!(hierarchy(part), mount("/docker/a b", "/mnt/part"));
        for all in [[part, plain, part].concat(), [plain, part, plain].concat()] {
            assert_eq!(hierarchy(&all), mount("", "/sys/fs/cgroup"));
        }
        for all in [[plain, host].concat(), [host, part, plain].concat()] {
            assert_eq!(hierarchy(&all), mount("", "/host/sys/fs/cgroup"));
        }
        let dotted = "35 24 0:30 /..a /mnt/a rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchy(dotted), mount("/..a", "/mnt/a"));
        let beside = "35 24 0:30 /../a /mnt/a rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchy(beside), mount("/../a", "/mnt/a"));
        for none in [
            "",
            "35 24 0:30 - cgroup2",
            "35 24 0:30 / /cgroup2 rw - ext4 cgroup2 rw",
            "35 24 0:30 / /sys/fs/cgroup rw",
        ] {
            assert_eq!(hierarchy(none), None, "{none}");
        }
    }

    #[test]
    fn a_part_of_the_hierarchy_keeps_its_place() {
        let mount = |root: &str| Mount {
            root: root.to_owned(),
            path: "/sys/fs/cgroup".into(),
        };
        assert_eq!(mount("").name(Path::new("/sys/fs/cgroup")), "/");
        assert_eq!(mount("").name(Path::new("/sys/fs/cgroup/a/b")), "/a/b");
        assert_eq!(
            mount("/docker/x").name(Path::new("/sys/fs/cgroup")),
            "/docker/x"
        );
        assert_eq!(
            mount("/docker/x").name(Path::new("/sys/fs/cgroup/a")),
            "/docker/x/a"
        );
    }

    #[test]
    fn a_cgroup_is_found_and_outlives_its_directory() {
        let Some((mount, own)) = Own::cgroup("found") else {
            return;
        };
        let service = Path::new("system.slice/nginx.service");
        let ids = [inode(&mount.path), inode(&own.0), own.make(service)];
        let paths = [&mount.path, &own.0, &own.0.join(service)].map(|path| mount.name(path));
        let expected: BTreeMap<_, _> = ids.into_iter().zip(paths).collect();
        let ids = [0, u64::MAX].into_iter().chain(ids).collect();
        let mut cgroups = Cgroups::new();
        assert_eq!(cgroups.paths(&ids, NOW), expected);

        drop(own);
        assert_eq!(cgroups.paths(&ids, NOW + RETRY), expected);
        // A memory that never saw them finds the mount's root alone.
        assert_eq!(Cgroups::new().paths(&ids, NOW).len(), 1);
    }

    #[test]
    fn only_an_unknown_id_causes_a_walk() {
        let mut cgroups = Cgroups::new();
        let mut ask = |ids: &[u64], seconds: u64, exist: &[u64]| {
            let mut asked = None;
            let now = NOW + Duration::from_secs(seconds);
            let paths = cgroups.paths_by(&ids.iter().copied().collect(), now, |unknown| {
                asked = Some(unknown.iter().copied().collect::<Vec<_>>());
                let found = exist.iter().filter(|id| unknown.contains(id));
                found.map(|id| (*id, format!("/{id}"))).collect()
            });
            (asked, paths.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(ask(&[], 0, &[]), (None, vec![]));
        assert_eq!(ask(&[0], 0, &[]), (None, vec![]));
        assert_eq!(ask(&[1, 2], 0, &[1]), (Some(vec![1, 2]), vec![1]));
        // 2 is missed, and not looked for again at once.
        assert_eq!(ask(&[1, 2], 59, &[1, 2]), (None, vec![1]));
        // 3 is new: the walk looks for both, and 2 is missed anew.
        assert_eq!(ask(&[1, 2, 3], 59, &[3]), (Some(vec![2, 3]), vec![1, 3]));
        assert_eq!(ask(&[2], 60, &[2]), (None, vec![]));
        assert_eq!(ask(&[2], 119, &[2]), (Some(vec![2]), vec![2]));
        // What was found is kept, also where it is gone.
        assert_eq!(ask(&[1, 2, 3], 10_000, &[]), (None, vec![1, 2, 3]));
        assert!(cgroups.missed.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let exist = |unknown: &BTreeSet<u64>| {
            let even = unknown.iter().filter(|id| *id % 2 == 0);
            even.map(|id| (*id, format!("/{id}"))).collect()
        };
        let mut cgroups = Cgroups::new();
        let memory = u64::try_from(MEMORY).unwrap();
        cgroups.paths_by(&(1..=memory).collect(), NOW, exist);
        assert_eq!(cgroups.paths.len() + cgroups.missed.len(), MEMORY);
        let latest = BTreeSet::from([1, 2, memory + 2]);
        let paths = cgroups.paths_by(&latest, NOW, exist);
        assert!(paths.into_keys().eq([2, memory + 2]));
        assert!(cgroups.paths.into_keys().eq([2, memory + 2]));
        assert!(cgroups.missed.into_keys().eq([1]));
    }

    #[test]
    fn a_walk_follows_no_link_and_keeps_odd_names() {
        let own = Own::temporary("links");
        own.make("a/b");
        let odd = own.make(OsStr::from_bytes(b"a/x\xff\n"));
        symlink("..", own.0.join("a/b/up")).unwrap();
        fs::write(own.0.join("a/file"), "").unwrap();
        assert_eq!(visited(&own.0, DIRECTORIES).len(), 4);
        let mount = Mount {
            root: String::new(),
            path: own.0.clone(),
        };
        let found = mount.find(&BTreeSet::from([odd]), DIRECTORIES);
        assert_eq!(found, BTreeMap::from([(odd, "/a/x\u{fffd}\n".to_owned())]));
    }

    #[test]
    fn a_walk_is_bounded() {
        let own = Own::temporary("bounds");
        own.make(Path::new("d").join(["e"; 69].join("/")));
        assert_eq!(visited(&own.0, DIRECTORIES).len(), DEPTH + 1);
        assert_eq!(visited(&own.0, 10).len(), 10);
        assert_eq!(visited(&own.0, 1).len(), 1);
        assert!(visited(&own.0.join("absent"), 10).is_empty());
    }

    #[test]
    fn what_vanishes_is_passed_over() {
        let own = Own::temporary("vanishes");
        for name in ["a", "b", "c"] {
            own.make(name);
        }
        let mut visits = 0;
        walk(&own.0, DIRECTORIES, |_, _| {
            visits += 1;
            for name in ["a", "b", "c"] {
                let _ = fs::remove_dir(own.0.join(name));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(visits, 1);
    }

    #[test]
    fn a_walk_stays_in_its_file_system() {
        let Ok(device) = fs::metadata("/sys/fs").map(|metadata| metadata.st_dev()) else {
            eprintln!("skipped: /sys is not mounted");
            return;
        };
        let other = |path: &Path| fs::metadata(path).is_ok_and(|it| it.st_dev() != device);
        if !other(Path::new("/sys/fs/cgroup")) {
            eprintln!("skipped: nothing is mounted at /sys/fs/cgroup");
            return;
        }
        let visited = visited(Path::new("/sys/fs"), DIRECTORIES);
        assert!(!visited.is_empty());
        assert!(!visited.iter().any(|path| path.starts_with("cgroup")));
    }
}
