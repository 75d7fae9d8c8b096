//! What the numbers are of: compilers, a C library, a profile, and a kind of processor.

use std::{env, fmt::Write as _, path::Path, process::Command};

/// The profile of `Cargo.toml` that the numbers are of.
const PROFILE: &str = "count";
const RULER: &str = "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!";

/// Each line as it stands at the top of the numbers.
pub(crate) struct Origin(Vec<String>);

impl Origin {
    /// This program on this machine. `features` is what it said in there.
    pub(crate) fn of_this(features: &str) -> Self {
        // The allocator is C, and with `memcpy` and the like a tenth of most counts.
        let tools = [("C", "cc"), ("C library", "ldd"), ("valgrind", "valgrind")];
        let mut lines = vec![said_of_version("rustc")];
        lines.extend(tools.iter().map(|(what, tool)| format!("{what} {}", version(tool))));
        lines.push(format!("profile {}", profile()));
        lines.push(features.to_owned());
        Self(lines)
    }

    /// The top of the file.
    pub(crate) fn lines(&self) -> String {
        self.0.iter().fold(String::new(), |text, line| text + "# " + line + "\n")
    }

    /// What the numbers are of and what is here, where those are not the same.
    pub(crate) fn differences(&self, numbers: &str) -> Vec<(String, String)> {
        let mut there = numbers.lines().filter_map(|line| line.strip_prefix("# "));
        let pairs = self.0.iter().map(|here| (there.next().unwrap_or("nothing").to_owned(), here.clone()));
        pairs.filter(|(there, here)| there != here).collect()
    }
}

/// What is said loudly instead of a judgement.
pub(crate) fn not_judged(differences: &[(String, String)]) -> String {
    let mut text = format!("\n{RULER}\nNOT JUDGED: the numbers in the tree do not hold here.\n");
    for (there, here) in differences {
        let _ = writeln!(text, "  they are of: {there}\n  here is:     {here}");
    }
    let _ = writeln!(
        text,
        "To judge a change here, count the tree before it, then the tree with it:\n\
         \n  cargo bench --profile {PROFILE} --bench instructions -- --write     # before\n  \
         cargo bench --profile {PROFILE} --bench instructions                # with it\n\n\
         If this is what everybody has by now, commit the numbers of the tree before, alone.\n{RULER}"
    );
    text
}

/// What libraries look for at run time to choose their code, as this process sees it.
pub(crate) fn features() -> String {
    let mut text = format!("{}-{}", env::consts::ARCH, env::consts::OS);
    #[cfg(target_arch = "x86_64")]
    for (name, is_there) in [
        ("sse4.1", std::is_x86_feature_detected!("sse4.1")),
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", std::is_x86_feature_detected!("pclmulqdq")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ] {
        text.push_str(if is_there { " " } else { " no-" });
        text.push_str(name);
    }
    text
}

/// The last word that looks like a version of what a tool says, which leaves out the patches of its distribution.
fn version(tool: &str) -> String {
    let said = said_of_version(tool);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    said.split([' ', '-', '(', ')']).rfind(is_version).unwrap_or("of no version").to_owned()
}

fn said_of_version(tool: &str) -> String {
    let said = Command::new(tool).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// Cargo builds each profile in a folder of its name: `target/PROFILE/deps/this`.
fn profile() -> String {
    let this = env::current_exe().expect("this program has a path");
    let folder = this.parent().and_then(Path::parent).and_then(Path::file_name);
    folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
