//! Files of the repository that tests read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files below a folder with one of these extensions, sorted by folder.
///
/// # Errors
/// If a folder cannot be read.
pub fn with_extensions(folder: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(with_extensions(&path, extensions)?);
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
            found.push(path);
        }
    }
    Ok(found)
}
