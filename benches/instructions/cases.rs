//! What is counted: a name, how many messages or look-ups there are in one operation, and what makes it.

use std::hint::black_box;

use dormouse::{
    codec::{QoS, SubscribeOptions, Version, decode},
    routing::{Subscription, Subscriptions},
    topic::{TopicFilter, TopicName},
};

use crate::scene::{Scene, answers, publishes, put_publish};

type Operation = Box<dyn FnMut()>;
pub(crate) type Case = (&'static str, u32, fn() -> Operation);

const TOPIC: &str = "site/plant/device-7/temperature";
/// Messages in one read.
const BATCH: u16 = 50;
/// A PUBACK without a reason.
const PUBACK_BYTES: usize = 4;
/// Operations of a case.
pub(crate) const READS: u32 = 20;
const MESSAGES: u32 = BATCH as u32;
const FILTERS: u32 = 100_000;
/// Of those that are looked up.
const TOPICS: u32 = 100;
/// Sessions that sleep, each with a topic of its own: an operation is a read for `BATCH` of them, all have their turn.
const SLEEPERS: u16 = 1_000;

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
    ("QoS 1, 1,000 that sleep in turn, with their commits", MESSAGES, many_asleep),
    ("QoS 1, one that wakes, and what waited for it", MESSAGES, waking),
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

/// Sleeping sessions, each subscribed to its own topic, and the reads in which a publisher sends one message to each.
fn sleepers(scene: &Scene, count: u16) -> Vec<Vec<u8>> {
    let topic = |number: u16| format!("site/plant/device-{number}/command");
    for number in 0..count {
        let mut sleeper = scene.connect(&format!("sleeper-{number}"), Some(86_400));
        scene.subscribe(&mut sleeper, &topic(number), QoS::AtLeastOnce);
        sleeper.sleep();
    }
    scene.settle();
    let numbers: Vec<u16> = (0..count).collect();
    let read = |numbers: &[u16]| {
        let mut bytes = Vec::new();
        for (id, number) in (1..).zip(numbers) {
            put_publish(&mut bytes, &topic(*number), QoS::AtLeastOnce, id);
        }
        bytes
    };
    numbers.chunks(usize::from(BATCH)).map(read).collect()
}

/// A publisher's read of `BATCH` messages, each for another session that sleeps, one commit, and the acknowledgements. It is
/// not the first message for any of them.
fn many_asleep() -> Operation {
    let scene = Scene::new();
    let reads: &'static [Vec<u8>] = sleepers(&scene, SLEEPERS).leak();
    let mut publisher = scene.connect("publisher", None);
    let mut next = reads.iter().cycle();
    let mut operation = move || {
        publisher.receive(next.next().expect("it goes round"));
        scene.settle();
        assert!(!publisher.drain().is_empty(), "they are acknowledged");
    };
    for _ in reads {
        operation();
    }
    Box::new(operation)
}

/// A session wakes, gets the `BATCH` messages that waited for it, confirms them and leaves; the commit is part of it.
fn waking() -> Operation {
    let scene = Scene::new();
    // One more, for the operation before the first that counts.
    let reads = sleepers(&scene, u16::try_from(READS).expect("few") + 1);
    let mut publisher = scene.connect("publisher", None);
    for _ in 0..BATCH {
        for read in &reads {
            publisher.receive(read);
            scene.settle();
            publisher.drain();
        }
    }
    let mut next = 0;
    Box::new(move || {
        let mut sleeper = scene.open(&format!("sleeper-{next}"), Some(86_400));
        next += 1;
        let mut confirmed = 0;
        while confirmed < BATCH {
            scene.settle();
            let sent = answers(sleeper.drain());
            confirmed += u16::try_from(sent.len() / PUBACK_BYTES).expect("few");
            sleeper.receive(&sent);
        }
        sleeper.sleep();
        scene.settle();
    })
}
