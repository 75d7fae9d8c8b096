//! Days on which the broker cannot start: one clear sentence on stderr, exit code 1, and whoever serves already goes on.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use dormouse::codec::Version;
use tempfile::TempDir;

use crate::{harness::Broker, peer::packets::connect};

/// Starts a broker in `dir` that must not come up; its last words, less the log.
fn last_words(dir: &Path, data: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.args(["--listen", "tls://127.0.0.1:0"]);
    last_words_of(command, dir, data)
}

/// The same of a broker that is prepared already.
fn last_words_of(mut command: Command, dir: &Path, data: &Path) -> Vec<String> {
    command.args(["--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(data);
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(output.stdout, b"".as_slice().to_vec().as_slice(), "nothing is promised");
    err.lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect()
}

#[test]
fn a_data_folder_that_cannot_be_made_or_written_is_told() {
    let dir = TempDir::new().unwrap();
    // Made once: it is told on standard output.
    let certs = Command::new(env!("CARGO_BIN_EXE_dormouse")).arg("certs").current_dir(dir.path()).output();
    assert!(certs.unwrap().status.success());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let under_file = file.join("data");
    let expected = format!("dormouse: the data folder {} cannot be created (", under_file.display());
    let words = last_words(dir.path(), &under_file);
    assert!(words.len() == 1 && words[0].starts_with(&expected), "{words:?}");

    // A folder where the journal wants a file: not to be written, whoever asks.
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("LOCK")).unwrap();
    let expected = format!("dormouse: the data folder {} cannot be written to (", data.display());
    let words = last_words(dir.path(), &data);
    assert!(words.len() == 1 && words[0].starts_with(&expected), "{words:?}");
}

/// What another user owns cannot be entered, or what is in it cannot be opened. Root may do all that, so there the broker
/// is another user.
#[test]
fn a_store_of_another_user_is_told_and_left_alone() {
    const NOBODY: u32 = 65_534;
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::create_dir(data.join("journal")).unwrap();
    fs::write(data.join("LOCK"), "").unwrap();
    let is_root = rustix::process::geteuid().is_root();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let open_to_all = [(&data, 0o777), (&data.join("LOCK"), 0o666)];
    let closed = [(&data, 0o000), (&data.join("journal"), 0o000)];
    for (path, mode) in closed {
        for (path, mode) in open_to_all {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let words = last_words_of(command, dir.path(), &data);
        let expected = format!(
            "dormouse: the data folder {} cannot be written to (Permission denied (os error 13)): \
             check its owner, its mount and the space left",
            data.display()
        );
        assert_eq!(words, [expected]);
    }
    fs::set_permissions(data.join("journal"), PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!data.join("damaged").exists());
}

#[test]
fn a_data_folder_that_is_a_file_is_told_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let certs = Command::new(env!("CARGO_BIN_EXE_dormouse")).arg("certs").current_dir(dir.path()).output();
    assert!(certs.unwrap().status.success());
    let data = dir.path().join("data");
    fs::write(&data, "mine").unwrap();
    let expected = format!("dormouse: the data folder {} cannot be created (", data.display());
    let words = last_words(dir.path(), &data);
    assert!(words.len() == 1 && words[0].starts_with(&expected), "{words:?}");
    assert_eq!(fs::read_to_string(data).unwrap(), "mine");
}

#[tokio::test]
async fn a_data_folder_in_use_is_told_and_its_owner_undisturbed() {
    let broker = Broker::start();
    let mut dev = broker.client(Version::V311, connect("dev")).await;
    let dir = TempDir::new().unwrap();
    let certs = Command::new(env!("CARGO_BIN_EXE_dormouse")).arg("certs").current_dir(dir.path()).output();
    assert!(certs.unwrap().status.success());
    let words = last_words(dir.path(), &broker.data_dir());
    let expected = format!(
        "dormouse: the data folder {} is in use by another process: stop it, or choose another folder",
        broker.data_dir().display()
    );
    assert_eq!(words, [expected]);
    dev.expect_nothing_for_one_ping().await;
}

#[test]
fn a_certificate_that_does_not_match_its_key_is_told() {
    let dir = TempDir::new().unwrap();
    let certs = Command::new(env!("CARGO_BIN_EXE_dormouse")).arg("certs").current_dir(dir.path()).output();
    assert!(certs.unwrap().status.success());
    fs::copy(dir.path().join("certs/client.key"), dir.path().join("certs/server.key")).unwrap();
    let words = last_words(dir.path(), &dir.path().join("data"));
    let expected = "the key in ./certs/server.key does not match the certificate in ./certs/server.crt";
    assert!(
        words.len() == 1 && words[0].starts_with("dormouse: ") && words[0].contains(expected),
        "{words:?}"
    );
}
