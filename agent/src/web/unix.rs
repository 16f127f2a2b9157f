//! The listener at a path, for the root user alone.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

/// Bytes of a socket's path at most (`sun_path` of unix(7), less its end).
const LONGEST: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The file of a socket. Dropping it removes the file, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode)) {
            // It may be gone by now, which is what is wanted.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path whose mode is 0600 before anyone can connect. Its directory is made, with
/// mode 0755, where there is none; a socket nobody listens at any longer is replaced. The
/// listener does not block.
///
/// # Errors
///
/// Where another process listens there, something else than a socket is in the way, or the
/// directory cannot be written to.
pub fn listen_at(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let shown = path.display();
    let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else {
        bail!("cannot listen at {shown}: that is no file's path; write one with --api-socket");
    };
    // Made under another name and moved: whoever finds it under its own can connect.
    let mut new = name.to_owned();
    new.push(".new");
    let new = path.with_file_name(new);
    ensure!(
        new.as_os_str().as_bytes().len() <= LONGEST,
        "cannot listen at {shown}: a socket's path has {LONGEST} bytes at most, 4 of which are \
         needed while it is made; choose a shorter one with --api-socket"
    );
    make(directory)?;
    look(path)?;
    let failed = || {
        format!(
            "cannot listen at {shown}: its directory must be writable for the agent's user; \
             change that, or choose another with --api-socket"
        )
    };
    let made = bind_private(&new).with_context(failed)?;
    fs::rename(&new, path)
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .with_context(failed)?;
    Ok((
        made.0,
        SocketFile {
            path: path.to_owned(),
            ..made.1
        },
    ))
}

fn make(directory: &Path) -> Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().mode(0o755).create(directory);
    // The umask may have taken rights away.
    let made = made.and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o755)));
    made.with_context(|| {
        format!(
            "cannot make the directory {}: make it (systemd does with RuntimeDirectory=), or \
             choose another with --api-socket",
            directory.display()
        )
    })
}

/// Refuses what must not be replaced.
fn look(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
        Ok(found) if !found.file_type().is_socket() => bail!(
            "cannot listen at {shown}: something that is no socket is there; remove it, or choose \
             another path with --api-socket"
        ),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // It went while this was looking.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!("cannot tell whether another process listens at {shown}; choose another path with --api-socket")
        }),
        Ok(_) => bail!(
            "cannot listen at {shown}: another agent does; stop it, or choose another path with \
             --api-socket"
        ),
    }
}

/// A listener whose mode was set before it listened: until then, connecting is refused.
fn bind_private(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let made = fs::symlink_metadata(path)?;
    listen(&socket, BACKLOG)?;
    Ok((
        UnixListener::from(socket),
        SocketFile {
            path: path.to_owned(),
            device: made.dev(),
            inode: made.ino(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", listen_at(path).unwrap_err())
    }

    #[test]
    fn the_socket_is_for_its_owner_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("connstate/api.sock");
        let (listener, file) = listen_at(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(file.path(), path);
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nothing removes it");
        let (listener, file) = listen_at(&path).unwrap();
        let told = refusal(&path);
        assert!(told.contains("another agent does; stop it"), "{told}");
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        listen_at(&path).unwrap();
    }

    #[test]
    fn another_file_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let (_listener, file) = listen_at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(file);
        let told = refusal(&path);
        assert!(told.contains("no socket is there; remove it"), "{told}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn what_cannot_be_is_told_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(LONGEST));
        assert!(refusal(&long).contains("choose a shorter one"));
        assert!(refusal(Path::new("/")).contains("no file's path"));
        let told = refusal(&folder.path().join("a/b/api.sock"));
        assert!(told.contains("RuntimeDirectory="), "{told}");
        let told = refusal(Path::new("/proc/api.sock"));
        assert!(told.contains("must be writable"), "{told}");
    }
}
