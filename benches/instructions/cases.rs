//! What is counted: a name, how many messages or look-ups there are in one operation, and what makes it.

use std::hint::black_box;

use dormouse::{
    codec::{QoS, SubscribeOptions, Version, decode},
    routing::{Subscription, Subscriptions},
    topic::{TopicFilter, TopicName},
};

use crate::scene::{Scene, answers, publishes};

type Operation = Box<dyn FnMut()>;
pub(crate) type Case = (&'static str, u32, fn() -> Operation);

const TOPIC: &str = "site/plant/device-7/temperature";
/// Messages in one read.
const BATCH: u16 = 50;
/// Operations of a case.
pub(crate) const READS: u32 = 20;
const MESSAGES: u32 = BATCH as u32;
const FILTERS: u32 = 100_000;
/// Of those that are looked up.
const TOPICS: u32 = 100;

/// All cases.
pub(crate) const CASES: &[Case] = &[
    ("decode a PUBLISH of 64 bytes", MESSAGES, decoding),
    ("encode a PUBLISH of 64 bytes", MESSAGES, encoding),
    ("route in 100,000 filters with wildcards", TOPICS, routing),
    ("QoS 0, one subscriber", MESSAGES, || live(QoS::AtMostOnce, 1, None)),
    ("QoS 0, 100 subscribers", MESSAGES * 100, || live(QoS::AtMostOnce, 100, None)),
    ("QoS 1, one subscriber", MESSAGES, || live(QoS::AtLeastOnce, 1, None)),
    ("QoS 1, 100 subscribers", MESSAGES * 100, || live(QoS::AtLeastOnce, 100, None)),
    ("QoS 2, one subscriber", MESSAGES, || live(QoS::ExactlyOnce, 1, None)),
    ("QoS 1, one persistent subscriber online", MESSAGES, || live(QoS::AtLeastOnce, 1, Some(86_400))),
    ("QoS 1, one that sleeps, with its commit", MESSAGES, asleep),
];

fn decoding() -> Operation {
    let bytes = publishes(TOPIC, QoS::AtLeastOnce, BATCH);
    Box::new(move || {
        let mut rest = &bytes[..];
        while let Ok(Some((packet, used))) = decode(black_box(rest), Version::V5, u32::MAX) {
            black_box(&packet);
            rest = rest.get(used..).unwrap_or_default();
        }
    })
}

fn encoding() -> Operation {
    Box::new(|| {
        black_box(publishes(black_box(TOPIC), QoS::AtLeastOnce, BATCH));
    })
}

/// Half of the filters have a wildcard for a device, half for what it measures; some hundred match each topic.
fn routing() -> Operation {
    let mut subscriptions = Subscriptions::new();
    for number in 0..FILTERS {
        let filter = match number % 4 {
            0 => format!("site/+/device-{number}/temperature"),
            1 => format!("site/plant-{}/+/{}", number % 1_000, number / 1_000),
            2 => format!("site/plant-{}/device-{number}/#", number % 1_000),
            _ => format!("+/plant-{}/device-{number}/+", number % 1_000),
        };
        let filter = TopicFilter::parse(&filter).expect("a topic filter");
        subscriptions.insert(
            number,
            &filter,
            Subscription { options: SubscribeOptions::default(), subscription_id: None },
        );
    }
    let topic = |number| {
        let name = format!("site/plant-{}/device-{}/temperature", number * 7 % 1_000, number * 7);
        TopicName::parse(&name).expect("a topic name")
    };
    let topics: Vec<TopicName> = (0..TOPICS).map(topic).collect();
    Box::new(move || {
        for topic in &topics {
            black_box(subscriptions.resolve(black_box(topic)));
        }
    })
}

/// A publisher's read of `BATCH` messages, what it brings the subscribers, their answers, and the publisher's answers, until
/// nobody has anything to say.
fn live(qos: QoS, subscribers: u16, expiry: Option<u32>) -> Operation {
    let scene = Scene::new();
    let mut receivers: Vec<_> = (0..subscribers)
        .map(|number| {
            let mut client = scene.connect(&format!("subscriber-{number}"), expiry);
            scene.subscribe(&mut client, "site/+/device-7/temperature", qos);
            client
        })
        .collect();
    let mut publisher = scene.connect("publisher", None);
    let bytes = publishes(TOPIC, qos, BATCH);
    Box::new(move || {
        publisher.receive(&bytes);
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            scene.settle();
            for client in receivers.iter_mut().chain([&mut publisher]) {
                let answers = answers(client.drain());
                if !answers.is_empty() {
                    client.receive(&answers);
                    is_quiet = false;
                }
            }
        }
    })
}

/// A publisher's read of `BATCH` messages for a session that sleeps, one commit, and the acknowledgements.
fn asleep() -> Operation {
    let scene = Scene::new();
    let mut sleeper = scene.connect("sleeper", Some(86_400));
    scene.subscribe(&mut sleeper, "site/#", QoS::AtLeastOnce);
    sleeper.sleep();
    scene.settle();
    let mut publisher = scene.connect("publisher", None);
    let bytes = publishes(TOPIC, QoS::AtLeastOnce, BATCH);
    Box::new(move || {
        publisher.receive(&bytes);
        scene.settle();
        assert!(!publisher.drain().is_empty(), "they are acknowledged");
    })
}
