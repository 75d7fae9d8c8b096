//! The real `mosquitto_sub`, `mosquitto_pub` and `mosquitto_rr` as devices, over TCP and TLS with the generated CA.
//!
//! A subscription is known to stand when `mosquitto_sub -E` has ended, or when a retained message has come with it; the end
//! of a queue is known by a last message. Nothing here waits for time to pass, but for the delay of a will.

use std::{process::Command, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    harness::{Broker, LIMIT},
    program::Program,
};

const MESSAGES: usize = 1_000;

/// How a client reaches the broker.
#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    /// With the CA that the broker made.
    Tls,
}

#[test]
fn a_thousand_messages_for_sleepers_survive_kill_9_in_3_1() {
    sleepers_get_everything_after_kill_9("31");
}

#[test]
fn a_thousand_messages_for_sleepers_survive_kill_9_in_3_1_1() {
    sleepers_get_everything_after_kill_9("311");
}

#[test]
fn a_thousand_messages_for_sleepers_survive_kill_9_in_5() {
    sleepers_get_everything_after_kill_9("5");
}

/// Sleepers on both transports, with every pair of qualities of service that promises something: each gets exactly what
/// was sent to it, in order.
fn sleepers_get_everything_after_kill_9(version: &str) {
    let mut broker = Broker::start();
    let qualities = [("1", "1"), ("2", "1"), ("2", "2")];
    let devices: Vec<_> = [Over::Tcp, Over::Tls]
        .into_iter()
        .flat_map(|over| {
            qualities.map(|(sent, taken)| (over, sent, taken, format!("{over:?}-{sent}-{taken}")))
        })
        .collect();
    let wake = |broker: &Broker, over, taken, id: &str, how: &[&str]| {
        let filter = format!("cmd/{id}/#");
        let args = ["-V", version, "-c", "-i", id, "-q", taken, "-t", &filter];
        subscribe(broker, over, &[&args, how].concat()).finish()
    };
    let lines: Vec<String> = (1..=MESSAGES).map(|n| format!("command {n}")).collect();
    for (over, sent, taken, id) in &devices {
        assert_eq!(wake(&broker, *over, taken, id, &["-E"]), [""; 0]);
        let topic = format!("cmd/{id}/do");
        let args = ["-V", version, "-q", sent, "-t", &topic, "-l"];
        publish_lines(&broker, *over, &args, &lines);
    }
    broker.kill9();
    broker.restart();
    for (over, _, taken, id) in &devices {
        let got = wake(&broker, *over, taken, id, &["-C", "1000", "-W", "30"]);
        assert!(got == lines, "{id} got {} messages: {}", got.len(), first_difference(&got, &lines));
        publish(&broker, *over, &["-q", "1", "-t", &format!("cmd/{id}/end"), "-m", "end"]);
        assert_eq!(wake(&broker, *over, taken, id, &["-C", "1", "-W", "30"]), ["end"], "{id}: nothing twice");
    }
}

/// Messages that are queued for a sleeper and retained: the queue has them all, as new ones, and the topic keeps the last.
#[test]
fn retained_messages_survive_kill_9() {
    for (version, over) in [("31", Over::Tcp), ("311", Over::Tls), ("5", Over::Tls)] {
        let mut broker = Broker::start();
        let wake = |broker: &Broker, id: &str, how: &[&str]| {
            let args = ["-V", version, "-c", "-i", id, "-q", "1", "-t", "state/#", "-F", "%r %t %p"];
            subscribe(broker, over, &[&args, how].concat()).finish()
        };
        wake(&broker, "sleeper", &["-E"]);
        let lines: Vec<String> = (1..=MESSAGES).map(|n| n.to_string()).collect();
        for (topic, qos) in [("state/one", "1"), ("state/two", "2")] {
            let args = ["-V", version, "-q", qos, "-r", "-t", topic, "-l"];
            publish_lines(&broker, over, &args, &lines);
        }
        publish(&broker, over, &["-V", version, "-q", "1", "-r", "-t", "state/three", "-m", "set"]);
        publish(&broker, over, &["-V", version, "-q", "1", "-r", "-t", "state/three", "-n"]);
        broker.kill9();
        broker.restart();

        let mut newcomer = wake(&broker, "newcomer", &["-C", "2", "-W", "30"]);
        newcomer.sort();
        assert_eq!(
            newcomer,
            ["1 state/one 1000", "1 state/two 1000"],
            "the last of each topic, MQTT {version}"
        );
        // mosquitto_sub subscribes at each wake, and gets the retained messages after its queue.
        let mut expected: Vec<String> = ["one", "two"]
            .iter()
            .flat_map(|topic| lines.iter().map(move |n| format!("0 state/{topic} {n}")))
            .collect();
        expected.extend(["0 state/three set".to_owned(), "0 state/three ".to_owned()]);
        let mut got = wake(&broker, "sleeper", &["-C", "2004", "-W", "30"]);
        let mut retained = got.split_off(got.len().min(expected.len()));
        retained.sort();
        assert!(got == expected, "MQTT {version}: {}", first_difference(&got, &expected));
        assert_eq!(retained, ["1 state/one 1000", "1 state/two 1000"], "MQTT {version}");
    }
}

/// One client is lost before the broker is, and its delay runs on over the restart; another was connected to the end, and its
/// delay begins with the restart.
#[test]
fn a_will_s_delay_spans_kill_9() {
    let mut broker = Broker::start();
    let watch = ["-V", "5", "-c", "-i", "watcher", "-q", "1", "-t", "gone/#", "-F", "%t %p"];
    subscribe(&broker, Over::Tls, &[&watch[..], &["-E"]].concat()).finish();
    publish(&broker, Over::Tls, &["-q", "1", "-r", "-t", "ready", "-m", "ready"]);
    let frail = |id: &str, delay: &str| {
        let topic = format!("gone/{id}");
        let will = ["--will-topic", &topic, "--will-payload", "lost", "--will-qos", "1"];
        let delay = ["-D", "will", "will-delay-interval", delay];
        let args = [&["-V", "5", "-i", id, "-x", "600", "-t", "ready"][..], &will, &delay].concat();
        let client = subscribe(&broker, Over::Tls, &args);
        assert_eq!(client.next_line(), "ready");
        client
    };
    let lost = frail("lost", "6");
    let frozen = frail("frozen", "1");
    frozen.signal(Signal::STOP);
    lost.signal(Signal::KILL);
    wait_for_log(&broker, 1, |line| line.contains("\"disconnected\"") && line.contains("\"lost\""));
    broker.kill9();
    frozen.signal(Signal::KILL);
    assert!(!broker.log().contains("will published"), "the delay is not over before the broker falls");
    broker.restart();

    let mut wills = subscribe(&broker, Over::Tls, &[&watch[..], &["-C", "2", "-W", "30"]].concat()).finish();
    wills.sort();
    assert_eq!(wills, ["gone/frozen lost", "gone/lost lost"]);
    publish(&broker, Over::Tls, &["-q", "1", "-t", "gone/end", "-m", "end"]);
    let rest = subscribe(&broker, Over::Tls, &[&watch[..], &["-C", "1", "-W", "30"]].concat()).finish();
    assert_eq!(rest, ["gone/end end"], "each will once");
}

#[test]
fn a_large_message_survives_kill_9() {
    let mut broker = Broker::start();
    let image = "0123456789abcdef".repeat(900 * 1_024 / 16);
    for (version, over) in [("31", Over::Tcp), ("311", Over::Tls), ("5", Over::Tls)] {
        let wake = ["-V", version, "-c", "-i", "dev1", "-q", "1", "-t", "fw/+/image"];
        subscribe(&broker, over, &[&wake[..], &["-E"]].concat()).finish();
        let args = ["-V", version, "-q", "1", "-t", "fw/dev1/image", "-s"];
        publish_lines(&broker, over, &args, std::slice::from_ref(&image));
        broker.restart();
        let got = subscribe(&broker, over, &[&wake[..], &["-C", "1", "-W", "30"]].concat()).finish();
        // `mosquitto_pub -s` sends its input to the end, with the last line's end; `mosquitto_sub` adds another.
        assert!(got == [image.as_str(), ""], "MQTT {version}: {} lines", got.len());
    }
}

#[test]
fn wildcards_choose_and_overlapping_filters_deliver_once() {
    for (version, over) in [("31", Over::Tcp), ("311", Over::Tls), ("5", Over::Tcp)] {
        let broker = Broker::start();
        publish(&broker, over, &["-q", "1", "-r", "-t", "ready", "-m", "ready"]);
        let filters = ["-t", "ready", "-t", "site/+/temp", "-t", "site/a/#", "-t", "+/end"];
        let online = subscribe(&broker, over, &[&["-V", version, "-v"][..], &filters].concat());
        assert_eq!(online.next_line(), "ready ready");
        let topics = [
            "site/a/temp",
            "site/b/temp",
            "site/b/wind",
            "site/a",
            "site/a/b/c",
            "site",
            "other/temp",
            "the/end",
        ];
        for topic in topics {
            publish(&broker, over, &["-V", version, "-q", "1", "-t", topic, "-m", "x"]);
        }
        for topic in ["site/a/temp", "site/b/temp", "site/a", "site/a/b/c", "the/end"] {
            assert_eq!(online.next_line(), format!("{topic} x"), "MQTT {version}");
        }
    }
}

#[test]
fn an_unsubscribed_sleeper_gets_no_more_also_after_kill_9() {
    for (version, over) in [("31", Over::Tcp), ("311", Over::Tls), ("5", Over::Tls)] {
        let mut broker = Broker::start();
        let dev = ["-V", version, "-c", "-i", "dev1", "-q", "1", "-v"];
        subscribe(&broker, over, &[&dev[..], &["-t", "cmd/#", "-t", "other", "-E"]].concat()).finish();
        // mosquitto_sub waits for SUBACK, not for UNSUBACK. When its connection has ended, its UNSUBSCRIBE is handled; the
        // next SUBACK says that all changes are durable.
        subscribe(&broker, over, &[&dev[..], &["-t", "other", "-U", "cmd/#", "-E"]].concat()).finish();
        wait_for_log(&broker, 2, |line| line.contains("\"disconnected\"") && line.contains("\"dev1\""));
        subscribe(&broker, over, &[&dev[..], &["-t", "other", "-E"]].concat()).finish();
        broker.restart();
        publish(&broker, over, &["-V", version, "-q", "1", "-t", "cmd/x", "-m", "after"]);
        publish(&broker, over, &["-V", version, "-q", "1", "-t", "other", "-m", "still"]);
        let rest = [&dev[..], &["-t", "other", "-C", "1", "-W", "30"]].concat();
        assert_eq!(subscribe(&broker, over, &rest).finish(), ["other still"], "MQTT {version}");
    }
}

/// A request over MQTT 5, answered by a device that slept when it was made.
#[test]
fn a_request_gets_its_response() {
    for over in [Over::Tcp, Over::Tls] {
        let broker = Broker::start();
        let responder = ["-V", "5", "-c", "-i", "responder", "-q", "1", "-t", "ask/#", "-F", "%R|%D|%p"];
        subscribe(&broker, over, &[&responder[..], &["-E"]].concat()).finish();
        let ask = ["-V", "5", "-q", "1", "-t", "ask/time", "-e", "answer/asker", "-m", "when", "-W", "30"];
        let correlation = ["-D", "publish", "correlation-data", "c0ffee"];
        let asker = start("mosquitto_rr", &broker, over, &[&ask[..], &correlation].concat(), &[]);
        let request = subscribe(&broker, over, &[&responder[..], &["-C", "1", "-W", "30"]].concat()).finish();
        assert_eq!(request, ["answer/asker|c0ffee|when"]);
        publish(&broker, over, &["-V", "5", "-q", "1", "-t", "answer/asker", "-m", "now"]);
        assert_eq!(asker.finish(), ["now"]);
    }
}

#[test]
fn a_client_certificate_lets_mosquitto_in() {
    let broker = Broker::start_configured(
        "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:0\"\nclient_certificates = \"required\"\n",
    );
    let certs = broker.certs_dir();
    let (certificate, key) = (certs.join("client.crt"), certs.join("client.key"));
    let own = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let hello = ["-q", "1", "-t", "hello", "-m", "hello"];
    publish(&broker, Over::Tls, &[&hello[..], &own].concat());
    assert!(!start("mosquitto_pub", &broker, Over::Tls, &hello, &[]).ends_well(), "not without one");
}

/// Runs `mosquitto_pub` to its end. At QoS 1 and 2 the broker has acknowledged what it sent.
fn publish(broker: &Broker, over: Over, args: &[&str]) {
    start("mosquitto_pub", broker, over, args, &[]).finish();
}

/// The same with lines on its standard input.
fn publish_lines(broker: &Broker, over: Over, args: &[&str], lines: &[String]) {
    start("mosquitto_pub", broker, over, args, lines).finish();
}

/// Starts `mosquitto_sub`.
fn subscribe(broker: &Broker, over: Over, args: &[&str]) -> Program {
    start("mosquitto_sub", broker, over, args, &[])
}

fn start(program: &str, broker: &Broker, over: Over, args: &[&str], input: &[String]) -> Program {
    let mut command = Command::new(program);
    let port = match over {
        Over::Tcp => broker.plain().port(),
        Over::Tls => broker.tls().port(),
    };
    command.args(["-h", "localhost", "-p", &port.to_string()]).args(args);
    if matches!(over, Over::Tls) {
        command.arg("--cafile").arg(broker.certs_dir().join("ca.crt"));
    }
    Program::start(command, input)
}

fn wait_for_log(broker: &Broker, times: usize, is_it: impl Fn(&str) -> bool) {
    let pause = Duration::from_millis(5);
    for _ in 0..LIMIT.as_millis() / pause.as_millis() {
        if broker.log().lines().filter(|line| is_it(line)).count() >= times {
            return;
        }
        thread::park_timeout(pause);
    }
    panic!("the log line did not come");
}

fn first_difference(got: &[String], expected: &[String]) -> String {
    match got.iter().zip(expected).position(|(got, expected)| got != expected) {
        Some(n) => format!("message {n} is {:?}, not {:?}", got[n], expected[n]),
        None => format!("{} instead of {}", got.len(), expected.len()),
    }
}
