//! Names and values of all metrics, in the order in which they are shown.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Unit;

use super::{Count, Family, Reading, Samples, float};
use crate::{
    admin::process::Process,
    broker::{SessionStats, Stats, Traffic},
    net::limits::CounterReading,
    store::{self, SyncLatency},
    time::WallClock,
};

/// All metrics of a reading.
pub(super) fn families(reading: &Reading) -> Vec<Family> {
    let mut families = network(&reading.listeners);
    families.extend(traffic(&reading.broker));
    families.extend(sessions(&reading.broker, &reading.sessions));
    families.extend(journal_counts(&reading.broker.store));
    families.extend(journal_histograms(&reading.broker.store));
    families.extend(journal_sizes(&reading.broker.store, reading.sync_latency));
    families.extend(wear(&reading.broker.store, reading.process.written_bytes));
    families.extend(process(&reading.process, reading.started_at));
    families.push(gauge(
        "dormouse_ready",
        None,
        "1 if everything promised can be kept, as /readyz says.",
        Some(f64::from(reading.is_ready)),
    ));
    families.push(Family {
        name: "dormouse_build",
        unit: None,
        help: "The version that runs.",
        labels: &["version"],
        samples: Samples::Info(vec![env!("CARGO_PKG_VERSION").to_owned()]),
    });
    families
}

/// One of a listener's counts.
type Read = fn(&CounterReading) -> u64;

fn network(listeners: &[(Arc<str>, &'static str, CounterReading)]) -> Vec<Family> {
    let by_listener = |count: Read| {
        Samples::Counters(
            listeners
                .iter()
                .map(|(name, transport, r)| (words([name, *transport]), Count::Whole(count(r))))
                .collect(),
        )
    };
    let reasons: [(&str, Read); 7] = [
        ("connections_max", |r| r.refused),
        ("accept_error", |r| r.accept_errors),
        ("handshake_failed", |r| r.handshakes_failed),
        ("handshake_stalled", |r| r.handshakes_displaced),
        ("proxy_refused", |r| r.proxies_refused),
        ("upgrade_refused", |r| r.upgrades_refused),
        ("connect_timeout", |r| r.connect_timeouts),
    ];
    let refused = listeners.iter().flat_map(|(name, transport, r)| {
        reasons.map(|(reason, count)| (words([name, *transport, reason]), Count::Whole(count(r))))
    });
    let open = listeners.iter().map(|(name, transport, r)| (words([name, *transport]), float(r.open())));
    vec![
        Family {
            name: "dormouse_connections",
            unit: None,
            help: "Open sockets, with those that have not sent a CONNECT.",
            labels: &["listener", "transport"],
            samples: Samples::Gauges(open.collect()),
        },
        Family {
            name: "dormouse_connections_accepted",
            unit: None,
            help: "Sockets accepted.",
            labels: &["listener", "transport"],
            samples: by_listener(|r| r.accepted),
        },
        Family {
            name: "dormouse_connections_refused",
            unit: None,
            help: "Connections that ended before a CONNECT: as many as allowed were open (connections_max), the system \
                   failed (accept_error), or the client did not keep to what is spoken (the others).",
            labels: &["listener", "transport", "reason"],
            samples: Samples::Counters(refused.collect()),
        },
    ]
}

fn traffic(stats: &Stats) -> Vec<Family> {
    let refused = stats.connects_refused.iter();
    let refused =
        refused.map(|(reason, times)| (words([&snake(&format!("{reason:?}"))]), Count::Whole(*times)));
    let by_qos = |traffic: &Traffic| {
        let counts = (0_u8..).zip(traffic.messages);
        Samples::Counters(counts.map(|(qos, n)| (words([&qos.to_string()]), Count::Whole(n))).collect())
    };
    let (received, sent) = (&stats.received, &stats.sent);
    let dropped = stats.dropped.by_reason().map(|(reason, n)| (words([reason]), Count::Whole(n)));
    let dead = stats.dead_letters.iter().map(|(reason, n)| (words([reason.as_str()]), Count::Whole(*n)));
    let publishes = [
        ("retained_full", stats.refused_retained_full),
        ("queue_full", stats.refused_queue_full),
        ("disk_full", stats.refused_disk_full),
        ("store_failed", stats.refused_store_failed),
    ];
    let publishes = publishes.map(|(reason, n)| (words([reason]), Count::Whole(n)));
    vec![
        counter("dormouse_connects_accepted", None, "CONNECT packets accepted.", stats.connects_accepted),
        Family {
            name: "dormouse_connects_refused",
            unit: None,
            help: "First packets refused, by the reason code an MQTT 5 client is told.",
            labels: &["reason"],
            samples: Samples::Counters(refused.collect()),
        },
        counter("dormouse_received_packets", None, "MQTT packets from clients.", received.packets),
        counter(
            "dormouse_received",
            Some(Unit::Bytes),
            "Their bytes, without those of TLS and WebSocket.",
            received.bytes,
        ),
        Family {
            name: "dormouse_received_messages",
            unit: None,
            help: "PUBLISH packets from clients, duplicates included.",
            labels: &["qos"],
            samples: by_qos(received),
        },
        counter("dormouse_sent_packets", None, "MQTT packets to clients.", sent.packets),
        counter(
            "dormouse_sent",
            Some(Unit::Bytes),
            "Their bytes, without those of TLS and WebSocket.",
            sent.bytes,
        ),
        Family {
            name: "dormouse_sent_messages",
            unit: None,
            help: "PUBLISH packets to clients, those sent again included.",
            labels: &["qos"],
            samples: by_qos(sent),
        },
        Family {
            name: "dormouse_dropped_messages",
            unit: None,
            help: "Messages given up, one for each receiver who does not get them: the queue was full, or the disk (QoS 0 and \
                   wills; other publishers are refused), they expired, were too large for the client or damaged on disk; QoS 0 for a slow reader or somebody asleep; the session expired, \
                   was begun anew (cleaned) or ended with its connection (closed); no member of a shared subscription was \
                   left. not_retained: delivered, and not retained.",
            labels: &["reason"],
            samples: Samples::Counters(dropped.into()),
        },
        Family {
            name: "dormouse_dead_letters",
            unit: None,
            help: "Dead letters published, by what became of the message ([dead_letters]).",
            labels: &["reason"],
            samples: Samples::Counters(dead.collect()),
        },
        gauge(
            "dormouse_dead_letters_waiting",
            None,
            "Messages given up that are to become dead letters.",
            Some(float(stats.dead_letters_waiting)),
        ),
        Family {
            name: "dormouse_refused_publishes",
            unit: None,
            help: "PUBLISH packets of which nothing was kept, and whose publisher was told so if MQTT has a way.",
            labels: &["reason"],
            samples: Samples::Counters(publishes.into()),
        },
    ]
}

fn sessions(stats: &Stats, sessions: &SessionStats) -> Vec<Family> {
    let by_state = [("online", sessions.online), ("offline", sessions.offline)];
    let by_state = by_state.map(|(state, n)| (words([state]), float(n)));
    vec![
        Family {
            name: "dormouse_sessions",
            unit: None,
            help: "Sessions, with a client connected or without.",
            labels: &["state"],
            samples: Samples::Gauges(by_state.into()),
        },
        gauge(
            "dormouse_queued_messages",
            None,
            "Messages that wait for their turn to be sent, one for each receiver.",
            Some(float(sessions.queued_messages)),
        ),
        gauge(
            "dormouse_queued",
            Some(Unit::Bytes),
            "Their topics, payloads and properties; what waits for many is on disk once.",
            Some(float(sessions.queued_bytes)),
        ),
        gauge(
            "dormouse_in_flight_messages",
            None,
            "Messages sent and not durably confirmed.",
            Some(float(sessions.in_flight_messages)),
        ),
        gauge("dormouse_subscriptions", None, "Subscriptions.", Some(float(stats.subscriptions))),
        gauge("dormouse_retained_messages", None, "Retained messages.", Some(float(stats.retained_messages))),
        gauge(
            "dormouse_retained",
            Some(Unit::Bytes),
            "Their topics, payloads and properties.",
            Some(float(stats.retained_bytes)),
        ),
    ]
}

fn journal_counts(store: &store::Stats) -> Vec<Family> {
    vec![
        counter("dormouse_journal_commits", None, "Commits.", store.commits),
        counter("dormouse_journal_syncs", None, "Commits that ended in a sync of the disk.", store.syncs),
        counter(
            "dormouse_journal_records",
            None,
            "Records written, messages and their copies included.",
            store.records,
        ),
        counter(
            "dormouse_journal_written_messages",
            None,
            "Messages written for the first time.",
            store.messages_written,
        ),
        counter(
            "dormouse_journal_elided_messages",
            None,
            "Messages that all receivers had confirmed before they were written, and that never were.",
            store.messages_elided,
        ),
        counter(
            "dormouse_journal_lost_messages",
            None,
            "Messages lost to damage of the disk.",
            store.messages_lost,
        ),
        counter(
            "dormouse_journal_damaged_parts",
            None,
            "Damaged parts found at the start and set aside.",
            store.damaged,
        ),
        gauge(
            "dormouse_journal_poisoned",
            None,
            "1 if a write has failed: nothing is acknowledged any more until a restart.",
            Some(f64::from(store.is_poisoned)),
        ),
    ]
}

fn journal_histograms(store: &store::Stats) -> Vec<Family> {
    let micros = 1e6;
    [
        (
            "dormouse_journal_commit_messages",
            None,
            "Messages written for the first time, by commit.",
            &store.commit_messages,
            1.0,
        ),
        (
            "dormouse_journal_commit",
            Some(Unit::Bytes),
            "Bytes of frames, by commit.",
            &store.commit_bytes,
            1.0,
        ),
        (
            "dormouse_journal_commit_duration",
            Some(Unit::Seconds),
            "From taking a batch until it is durable.",
            &store.commit_micros,
            micros,
        ),
        (
            "dormouse_journal_sync_duration",
            Some(Unit::Seconds),
            "The sync at the end of a commit, writing included.",
            &store.sync_micros,
            micros,
        ),
    ]
    .map(|(name, unit, help, reading, per_unit)| Family {
        name,
        unit,
        help,
        labels: &[],
        samples: Samples::Histogram(reading.clone(), per_unit),
    })
    .into()
}

fn journal_sizes(store: &store::Stats, sync_latency: Option<SyncLatency>) -> Vec<Family> {
    let seconds = |duration: fn(SyncLatency) -> Duration| sync_latency.map(|l| duration(l).as_secs_f64());
    vec![
        gauge(
            "dormouse_journal_held_messages",
            None,
            "Messages held back in the hope that they need not be written.",
            Some(float(store.held_messages)),
        ),
        gauge(
            "dormouse_journal_held",
            Some(Unit::Bytes),
            "Their topics, payloads and properties.",
            Some(float(store.held_bytes)),
        ),
        gauge(
            "dormouse_journal_backlog",
            Some(Unit::Bytes),
            "What waits for the disk.",
            Some(float(store.backlog_bytes)),
        ),
        gauge(
            "dormouse_journal_live",
            Some(Unit::Bytes),
            "What is wanted of what is on disk.",
            Some(float(store.live_bytes)),
        ),
        gauge(
            "dormouse_journal_frames",
            Some(Unit::Bytes),
            "All frames on disk, wanted or not.",
            Some(float(store.frame_bytes)),
        ),
        gauge(
            "dormouse_journal_disk",
            Some(Unit::Bytes),
            "What the journal's files take on disk.",
            Some(float(store.disk_bytes)),
        ),
        gauge(
            "dormouse_journal_full",
            None,
            "1 while what would have to be stored is refused for want of room; deliveries go on, and it ends by itself.",
            Some(f64::from(store.is_full)),
        ),
        gauge(
            "dormouse_journal_room",
            Some(Unit::Bytes),
            "What the journal's files may grow by before that, as of the last look.",
            store.disk_room_bytes.map(float),
        ),
        gauge(
            "dormouse_disk_free",
            Some(Unit::Bytes),
            "What is free on the data folder's file system.",
            store.disk_free_bytes.map(float),
        ),
        gauge("dormouse_journal_generations", None, "Generations on disk.", Some(float(store.generations))),
        gauge(
            "dormouse_disk_sync_median",
            Some(Unit::Seconds),
            "The median of what a sync of 4 KiB took at the start.",
            seconds(|l| l.median),
        ),
        gauge("dormouse_disk_sync_max", Some(Unit::Seconds), "The longest of them.", seconds(|l| l.max)),
    ]
}

/// What the disk has to bear for what it keeps.
fn wear(store: &store::Stats, process_written: Option<u64>) -> Vec<Family> {
    let ratio =
        process_written.filter(|_| store.bytes_kept > 0).map(|bytes| float(bytes) / float(store.bytes_kept));
    vec![
        counter(
            "dormouse_journal_kept",
            Some(Unit::Bytes),
            "Topics, payloads and properties of all messages taken care of: written for the first time, or elided.",
            store.bytes_kept,
        ),
        counter(
            "dormouse_journal_written",
            Some(Unit::Bytes),
            "Frames given to the store below, which writes some more for its own books.",
            store.bytes_frames,
        ),
        Family {
            name: "dormouse_process_written",
            unit: Some(Unit::Bytes),
            help: "What the kernel has sent to storage for this process, the journal and all else; 0 in memory (tmpfs).",
            labels: &[],
            samples: Samples::Counters(
                process_written.map(|n| (Vec::new(), Count::Whole(n))).into_iter().collect(),
            ),
        },
        gauge(
            "dormouse_journal_wear_ratio",
            None,
            "dormouse_process_written_bytes_total by dormouse_journal_kept_bytes_total, both since the start: what flash pays.",
            ratio,
        ),
    ]
}

fn process(process: &Process, started_at: WallClock) -> Vec<Family> {
    let started_at = Some(started_at).filter(|at| *at != WallClock::UNKNOWN);
    vec![
        Family {
            name: "process_cpu",
            unit: Some(Unit::Seconds),
            help: "Processor time, of user and system.",
            labels: &[],
            samples: Samples::Counters(
                process.cpu_seconds.map(|s| (Vec::new(), Count::Seconds(s))).into_iter().collect(),
            ),
        },
        gauge(
            "process_resident_memory",
            Some(Unit::Bytes),
            "Memory in RAM.",
            process.resident_bytes.map(float),
        ),
        gauge("process_open_fds", None, "Open files and sockets.", process.open_files.map(float)),
        gauge("process_max_fds", None, "How many there may be.", process.open_files_max.map(float)),
        gauge(
            "process_start_time",
            Some(Unit::Seconds),
            "When the broker was started, in seconds since 1970; absent when the clock could not be believed.",
            started_at.map(|at| float(at.0) / 1e3),
        ),
    ]
}

fn counter(name: &'static str, unit: Option<Unit>, help: &'static str, count: u64) -> Family {
    let samples = Samples::Counters(vec![(Vec::new(), Count::Whole(count))]);
    Family { name, unit, help, labels: &[], samples }
}

fn gauge(name: &'static str, unit: Option<Unit>, help: &'static str, value: Option<f64>) -> Family {
    let samples = Samples::Gauges(value.map(|value| (Vec::new(), value)).into_iter().collect());
    Family { name, unit, help, labels: &[], samples }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// `QuotaExceeded` is `quota_exceeded`.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
