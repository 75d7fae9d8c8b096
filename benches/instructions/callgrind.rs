//! A case under callgrind.

use std::{
    env, fs,
    process::{Command, Stdio},
};

/// The C library's `memcpy` and the like for AVX2, which valgrind shows programs wherever the machine has it, and none of the
/// others. One `rep movsb` counts as many instructions, and from how many bytes on it is used depends on the caches.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512BW,-AVX512VL,-ERMS,-FSRM,-RTM";

/// What came of one.
pub(crate) struct Count {
    /// Of `measured` and all it calls.
    pub(crate) instructions: f64,
    /// What the case printed.
    pub(crate) said: String,
}

/// Counts one case.
pub(crate) fn count(case: &str) -> Count {
    let this = env::current_exe().expect("this program has a path");
    let out = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=instructions::measured"])
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(this)
        .args(["--case", case])
        .stdin(Stdio::null())
        .env_clear()
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES)
        // Else the clock decides when memory is given back.
        .env("MIMALLOC_PURGE_DELAY", "-1");
    for kept in ["PATH", "TMPDIR", "VALGRIND_LIB"] {
        if let Some(value) = env::var_os(kept) {
            command.env(kept, value);
        }
    }
    let output = command.output().expect("valgrind is there (apt install valgrind)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {errors}");
    let found = fs::read_to_string(out.path()).expect("callgrind has written its file");
    let total =
        found.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let instructions = total
        .and_then(|total| total.trim().parse().ok())
        .unwrap_or_else(|| panic!("{case}: no count in {errors}"));
    Count { instructions, said: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
}
