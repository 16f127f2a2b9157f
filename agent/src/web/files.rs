//! The files a configuration was read from, and whether they have changed since.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};

/// Bytes of a file at most: certificates and keys take a few thousand.
const MOST: u64 = 1 << 20;

/// What tells a file from the one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files and how they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files(Vec<(PathBuf, Option<Stamp>)>);

impl Files {
    /// Reads a file, and remembers how it was before: also where it cannot be read, since it may
    /// be there later.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.push((path.to_owned(), stamp(path)));
        let mut content = Vec::new();
        // open(2) of a pipe would wait until somebody writes to it, which a regular file is not
        // asked for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(open(path, flags, Mode::empty())?);
        // A directory opens, and a device may never end.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        file.take(MOST + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MOST {
            return Err(io::Error::other("larger than 1 MiB"));
        }
        Ok(content)
    }

    /// The same files as they are now.
    pub(super) fn now(&self) -> Self {
        let now = self.0.iter().map(|(path, _)| (path.clone(), stamp(path)));
        Self(now.collect())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found: Metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    #[test]
    fn a_change_an_end_and_a_beginning_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let [there, absent] = ["there", "absent"].map(|name| folder.path().join(name));
        std::fs::write(&there, "one").unwrap();
        let mut files = Files::default();
        assert_eq!(files.read(&there).unwrap(), b"one");
        assert!(files.read(&absent).is_err());
        assert_eq!(files.now(), files);
        std::fs::write(&absent, "").unwrap();
        assert_ne!(files.now(), files);
        std::fs::remove_file(&absent).unwrap();
        assert_eq!(files.now(), files);
        // Of the same size, and another inode.
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &there).unwrap();
        assert_ne!(files.now(), files);
    }

    #[test]
    fn directories_pipes_and_huge_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, large] = ["pipe", "large"].map(|name| folder.path().join(name));
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        File::create(&large).unwrap().set_len(MOST + 1).unwrap();
        for (path, says) in [
            (folder.path(), "not a regular file"),
            (Path::new("/dev/zero"), "not a regular file"),
            (&pipe, "not a regular file"),
            (&large, "larger than 1 MiB"),
        ] {
            // In a thread: who waits for a pipe's writer waits for ever.
            let (answer, answered) = channel();
            let own = path.to_owned();
            thread::spawn(move || answer.send(Files::default().read(&own)));
            let read = answered.recv_timeout(Duration::from_mins(1)).unwrap();
            assert_eq!(read.unwrap_err().to_string(), says, "{}", path.display());
        }
    }
}
