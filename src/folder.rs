//! Folders whose names survive a power cut.
//!
//! A folder that was made is sure to be there only when the folder around it has been synced.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Makes a folder, and those around it that are missing, durably.
pub fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(path)?;
    for made in &missing {
        sync(around(made))?;
    }
    if missing.is_empty() {
        // A process that was killed may just have made it. Else it is not ours to sync, and a refusal says nothing.
        let _ = sync(around(path));
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn around(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, around, make};

    #[test]
    fn missing_folders_are_made_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b/c");
        make(&inner).unwrap();
        std::fs::write(inner.join("file"), "x").unwrap();
        make(&inner).unwrap();
        assert!(inner.join("file").exists());
        assert!(make(&inner.join("file/d")).is_err());
    }

    #[test]
    fn a_name_alone_is_in_the_folder_one_is_in() {
        assert_eq!(around(Path::new("data")), Path::new("."));
        assert_eq!(around(Path::new("/data")), Path::new("/"));
        assert_eq!(around(Path::new("./data")), Path::new("."));
    }
}
