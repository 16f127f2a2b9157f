//! Files named on the command line.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// What a file holds, unless that is more than `most` bytes: it may be one that does not end.
/// A pipe will do, as a shell's `<(…)` is one.
pub(super) fn read(path: &Path, most: u32) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = u64::from(most) + 1;
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    if content.len() as u64 == limit {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(content)
}
