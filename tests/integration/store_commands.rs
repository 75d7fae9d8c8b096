//! `dormouse store`, on what a real broker has left.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use dormouse::codec::{QoS, Version};

use crate::{
    harness::Broker,
    peer::packets::{connect, pubcomp, publish, pubrec, pubrel},
};

/// Runs a subcommand of `dormouse store` on a data folder.
fn store(data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    command.arg("store").args(words).arg("--data").arg(data).stdin(Stdio::null()).output().unwrap()
}

/// Its standard output, and that it ended with this code.
fn ends(output: Output, code: i32) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says when it fails.
fn complaint(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// A queue of QoS 1 and 2, one QoS 2 message in the middle of its exchange each way, and a retained message go through text
/// into another store, and are what they were.
#[tokio::test]
async fn what_was_exported_is_served_after_the_import() {
    let mut broker = Broker::start();
    let data = broker.data_dir();
    let mut dev = broker.client(Version::V5, connect("dev").persistent()).await;
    dev.subscribed("t/#", QoS::ExactlyOnce).await;
    let mut publisher = broker.client(Version::V5, connect("publisher").persistent()).await;
    publisher.published(publish("t/begun", "begun").qos2(1)).await;
    let begun = dev.expect_message(publish("t/begun", "begun").qos2(0)).await;
    dev.send(pubrec(begun)).await;
    dev.expect(pubrel(begun)).await;
    dev.leave().await;
    publisher.published(publish("t/1", "one").qos1(2)).await;
    publisher.published(publish("t/2", "two").qos2(3)).await;
    publisher.published(publish("kept", "value").qos1(4).retained()).await;
    // Received, and not released.
    publisher.send(publish("t/3", "three").qos2(5)).await;
    publisher.expect(pubrec(5)).await;
    let busy = complaint(store(&data, &["check"]));
    assert!(busy.ends_with("is in use by another process: stop it, or choose another folder"), "{busy}");
    broker.kill9();

    let said = ends(store(&data, &["check"]), 0);
    assert!(
        said.contains(": sound; 1 generations, ") && said.contains(" 2 sessions, 1 subscriptions, 3 queued"),
        "{said}"
    );
    let stats = ends(store(&data, &["stats", "--json"]), 0);
    for part in
        ["\"sessions\":2,", "\"queued_messages\":3,", "\"retained_messages\":1,", "\"client_id\":\"dev\""]
    {
        assert!(stats.contains(part), "{part}: {stats}");
    }
    let file = broker.folder().join("export.jsonl");
    let name = file.to_str().unwrap();
    ends(store(&data, &["export", name]), 0);
    assert!(
        complaint(store(&data, &["export", name])).contains("cannot be written"),
        "it is not overwritten"
    );
    let first = fs::read_to_string(&file).unwrap();
    assert_eq!(ends(store(&data, &["export"]), 0), first, "the same on standard output");
    assert!(complaint(store(&data, &["import", name])).contains("holds a store already"));

    fs::rename(&data, broker.folder().join("before")).unwrap();
    let said = ends(store(&data, &["import", name]), 0);
    assert!(said.ends_with(": 2 sessions, 4 messages\n"), "{said}");
    assert_eq!(ends(store(&data, &["export"]), 0), first);
    ends(store(&data, &["check"]), 0);

    broker.restart();
    // A PUBLISH that comes again is the same one; its release is answered.
    let mut publisher = broker.returning(Version::V5, connect("publisher").persistent()).await;
    publisher.send(publish("t/3", "three").qos2(5).dup()).await;
    publisher.expect(pubrec(5)).await;
    publisher.send(pubrel(5)).await;
    publisher.expect(pubcomp(5)).await;
    let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
    dev.expect(pubrel(begun)).await;
    dev.send(pubcomp(begun)).await;
    let mut sent = Vec::new();
    for (payload, qos) in [("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce), ("three", QoS::ExactlyOnce)]
    {
        let message = dev.receive_publish().await;
        assert_eq!((message.payload.as_slice(), message.qos), (payload.as_bytes(), qos));
        sent.push((qos, message.packet_id));
    }
    for (qos, id) in sent {
        dev.acknowledge(qos, id).await;
    }
    dev.expect_nothing_for_one_ping().await;
    let mut other = broker.client(Version::V311, connect("other")).await;
    other.subscribed("kept", QoS::AtLeastOnce).await;
    let value = other.receive_publish().await;
    assert_eq!((value.payload.as_slice(), value.retain), (&b"value"[..], true));
}

/// Damage has its own exit code, and a start puts it right.
#[tokio::test]
async fn a_check_says_what_is_damaged_and_where() {
    let mut broker = Broker::start_configured("[store]\ngeneration_bytes = \"1MiB\"\n");
    broker.sleeper(Version::V311, "dev", "t", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V311, connect("other")).await;
    for no in 1..=40 {
        other.published(publish("t", "x".repeat(100_000)).qos1(no)).await;
    }
    assert!(broker.terminate().success());
    let data = broker.data_dir();
    let shown = store(&data, &["check", "--progress"]);
    let progress = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(progress.contains("checking: 50 %\n") && progress.contains("checking: 100 %\n"), "{progress}");
    ends(shown, 0);
    fs::write(data.join("journal/000002/db"), "").unwrap();
    let said = ends(store(&data, &["check"]), 3);
    assert!(said.contains(
        "damaged: a part of the journal is damaged: its data file is empty or missing generation=2\n"
    ));
    assert!(said.contains("damaged: commits are missing"), "{said}");
    let said = ends(store(&data, &["check", "--json"]), 3);
    assert!(said.starts_with("{\"sound\":false,\"damage\":[\"a part of the journal"), "{said}");
    assert!(!data.join("damaged").exists(), "nothing was changed");
    assert!(complaint(store(&data.join("nowhere"), &["stats"])).contains("holds no store"));
}

#[tokio::test]
async fn compaction_gives_room_back_and_the_queue_stays() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V311, "dev", "t", QoS::AtLeastOnce).await;
    broker.sleeper(Version::V311, "gone", "u", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V311, connect("other")).await;
    for no in 1..=30 {
        other.published(publish("u", "x".repeat(100_000)).qos1(no)).await;
    }
    for no in 31..=33 {
        other.published(publish("t", no.to_string()).qos1(no)).await;
    }
    // Its session ends, and with it what waited for it.
    broker.client(Version::V311, connect("gone")).await.leave().await;
    assert!(broker.terminate().success());
    let data = broker.data_dir();
    let said = ends(store(&data, &["compact"]), 0);
    let words: Vec<&str> = said.split_whitespace().collect();
    let bytes = |at: usize| words[at].parse::<u64>().unwrap();
    assert_eq!((words[2], words[8], words[5]), ("bytes", "bytes", "generations"), "{said}");
    assert!(bytes(1) > 3_000_000 && bytes(7) < bytes(1) - 2_000_000, "{said}");
    ends(store(&data, &["check"]), 0);
    broker.restart();
    let mut dev = broker.returning(Version::V311, connect("dev").persistent()).await;
    for no in 31..=33 {
        let message = dev.receive_publish().await;
        assert_eq!(message.payload, no.to_string().into_bytes());
        dev.acknowledge(message.qos, message.packet_id).await;
    }
    dev.expect_nothing_for_one_ping().await;
}

/// A file with a key in a broker's folder, with this mode.
fn key_file(folder: &Path, name: &str, digit: &str, mode: u32) -> String {
    let path = folder.join(name);
    fs::write(&path, digit.repeat(64)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A configuration with this line in its `[store]`.
fn configured(folder: &Path, line: &str) -> String {
    let path = folder.join("sealed.toml");
    fs::write(&path, format!("[store]\n{line}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Plain, sealed, sealed with another key: each is served to who has the key, and refused with a sentence to who has not.
#[tokio::test]
async fn a_store_is_sealed_with_a_key_and_given_another_one() {
    let mut broker = Broker::start();
    broker.sleeper(Version::V5, "dev", "secret/#", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("secret/t", "marked payload").qos1(1)).await;
    assert!(broker.terminate().success());
    let (data, folder) = (broker.data_dir(), broker.folder().to_owned());
    let before = ends(store(&data, &["export"]), 0);
    let first = key_file(&folder, "first", "1", 0o600);
    let second = key_file(&folder, "second", "2", 0o640);
    let wide = key_file(&folder, "wide", "2", 0o644);

    assert!(complaint(store(&data, &["rekey"])).contains("name one with --new-key-file"));
    assert!(complaint(store(&data, &["rekey", "--new-key-file", &wide])).contains("has mode 0644"));
    let full = configured(&folder, "disk_reserve = \"1048576GiB\"");
    let refused = complaint(store(&data, &["rekey", "--config", &full, "--new-key-file", &first]));
    assert!(refused.contains("there is room for 0 above the reserve"), "{refused}");
    assert_eq!(ends(store(&data, &["export"]), 0).lines().count(), before.lines().count());
    let said = ends(store(&data, &["rekey", "--new-key-file", &first]), 0);
    assert!(said.contains(": sealed; "), "{said}");
    let nothing_is_said = |needle: &str| {
        let files = files_below(&data);
        assert!(files.len() > 3);
        files.iter().all(|bytes| memchr::memmem::find(bytes, needle.as_bytes()).is_none())
    };
    assert!(nothing_is_said("marked payload") && nothing_is_said("secret/"));

    // Who has no key, or another one, is told so, by every command.
    let config = configured(&folder, &format!("key_file = {second:?}"));
    for command in ["check", "stats", "export", "compact"] {
        assert!(complaint(store(&data, &[command])).contains("is sealed, and no key was given"));
        assert!(
            complaint(store(&data, &[command, "--config", &config])).contains("is sealed with another key")
        );
    }
    // The key of the configuration is the new one, if the old one is named.
    let said = ends(store(&data, &["rekey", "--config", &config, "--old-key-file", &first]), 0);
    assert!(said.contains(": sealed with another key; "), "{said}");
    for command in ["check", "stats", "compact"] {
        ends(store(&data, &[command, "--config", &config]), 0);
    }
    let stats = ends(store(&data, &["stats", "--json", "--config", &config]), 0);
    assert!(stats.contains("\"sealed\":true,"), "{stats}");
    let after = ends(store(&data, &["export", "--config", &config]), 0);
    let without_time = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(without_time(&after), without_time(&before));

    // Served as ever.
    broker.configure(&fs::read_to_string(&config).unwrap());
    broker.restart();
    let mut dev = broker.returning(Version::V5, connect("dev").persistent()).await;
    let message = dev.receive_publish().await;
    assert_eq!((&*message.topic, &*message.payload), ("secret/t", &b"marked payload"[..]));
    dev.acknowledge(message.qos, message.packet_id).await;
    dev.expect_nothing_for_one_ping().await;
    assert!(broker.terminate().success());
    assert!(!broker.log().contains("2222222222") && nothing_is_said("marked payload"));
    let said = ends(store(&data, &["rekey", "--config", &config, "--plain"]), 0);
    assert!(said.contains(": not sealed any more; "), "{said}");
    assert!(
        complaint(store(&data, &["check", "--config", &config]))
            .contains("is not sealed, and a key was given")
    );
    assert!(!nothing_is_said("secret/"));
}

/// The contents of all files below a folder.
fn files_below(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![fs::read(path).unwrap()] })
        .collect()
}
