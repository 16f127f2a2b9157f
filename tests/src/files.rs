//! What there is in a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// Every file below a directory; links are not followed.
///
/// # Errors
///
/// Where a directory cannot be read.
pub fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(below(&entry.path())?);
        } else {
            all.push(entry.path());
        }
    }
    Ok(all)
}
