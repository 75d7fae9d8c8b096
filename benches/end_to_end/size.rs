//! How large the binaries are, as built and without their symbols.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use tempfile::NamedTempFile;

use crate::{
    Result,
    args::{Args, located},
    mib,
};

/// A table of its own.
pub(crate) fn table(args: &Args) -> Result<String> {
    let mut text =
        "\n**Size of the binary**\n\n| broker | MiB | stripped MiB |\n|---|---:|---:|\n".to_owned();
    for kind in args.kinds() {
        let path = located(kind.binary(args)).ok_or("it has gone away")?;
        let (size, stripped) = (fs::metadata(&path)?.len(), stripped(&path)?);
        let _ = writeln!(text, "| {} | {:.2} | {:.2} |", kind.name(), mib(size), mib(stripped));
    }
    Ok(text)
}

fn stripped(path: &Path) -> Result<u64> {
    let copy = NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").arg(copy.path()).arg(path).status()?;
    if status.success() { Ok(fs::metadata(copy.path())?.len()) } else { Err("strip failed".into()) }
}
