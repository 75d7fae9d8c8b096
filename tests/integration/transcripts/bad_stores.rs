//! Stores that are not as they were left, under the real binary: it starts, says so, and serves what is whole.

use std::fs;

use dormouse::codec::{QoS, Version};

use crate::{
    harness::Broker,
    peer::packets::{connect, publish},
};

const MESSAGES: u16 = 60;

fn payload(no: u16) -> String {
    format!("{no} {}", "x".repeat(100_000))
}

/// A generation is gone, another is truncated to nothing, a third has rubbish in it, and there are files that are not the
/// journal's.
#[tokio::test]
async fn what_is_whole_is_served_and_the_rest_is_set_aside() {
    let mut broker = Broker::start_configured("[store]\ngeneration_bytes = \"1MiB\"\n");
    broker.sleeper(Version::V311, "dev", "t", QoS::AtLeastOnce).await;
    let mut other = broker.client(Version::V311, connect("other")).await;
    for no in 1..=MESSAGES {
        other.published(publish("t", payload(no)).qos1(no)).await;
    }
    assert!(broker.terminate().success());
    let journal = broker.data_dir().join("journal");
    fs::remove_dir_all(journal.join("000002")).unwrap();
    fs::write(journal.join("000003/db"), "").unwrap();
    let mut rubbish = fs::read(journal.join("000004/db")).unwrap();
    let middle = rubbish.len() / 2;
    rubbish[middle..].fill(0xA5);
    fs::write(journal.join("000004/db"), rubbish).unwrap();
    fs::write(journal.join("000004/conf"), "what is this").unwrap();
    fs::write(journal.join("000017"), "what is this").unwrap();
    fs::write(journal.join("notes.txt"), "mine").unwrap();

    broker.restart();
    for what in [
        "its data file is empty or missing",
        "a damaged part of the journal was set aside",
        "a file stood where a part of the journal belongs",
        "commits are missing",
    ] {
        assert!(broker.logged(&["\"ERROR\"", what]) > 0, "{what}\n{}", broker.log());
    }
    assert!(broker.logged(&["\"WARN\"", "notes.txt", "it is left alone"]) > 0);
    let set_aside: Vec<String> = fs::read_dir(broker.data_dir().join("damaged"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for what in ["-generation-000003", "-generation-000004", "-file-000017"] {
        assert_eq!(set_aside.iter().filter(|name| name.ends_with(what)).count(), 1, "{set_aside:?}");
    }

    // Serving goes on: what is new comes after what was saved.
    let mut other = broker.client(Version::V5, connect("other")).await;
    other.published(publish("t", "the last").qos1(1)).await;
    let mut dev = broker.returning(Version::V311, connect("dev").persistent()).await;
    let mut came = Vec::new();
    loop {
        let message = dev.receive_publish().await;
        dev.acknowledge(message.qos, message.packet_id).await;
        if message.payload == b"the last" {
            break;
        }
        let text = String::from_utf8(message.payload).unwrap();
        let no: u16 = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(text, payload(no));
        came.push(no);
    }
    assert!(came.is_sorted_by(|a, b| a < b), "in order and once: {came:?}");
    assert!(came.contains(&1) && came.contains(&MESSAGES), "{came:?}");
    // Two parts of a MiB are gone, and of the third half at most.
    let lost = usize::from(MESSAGES) - came.len();
    assert!((10..=40).contains(&lost), "{came:?}");
    dev.leave().await;
}
