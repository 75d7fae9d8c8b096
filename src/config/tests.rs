//! The configuration as a whole: the reference file, and snippets with the lines they are answered with.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::{prop_assert, proptest};

use super::{Config, Listener, LogFormat, LogLevel, Overrides};
use crate::net::{
    listener::{Bind, Transport},
    proxy::ProxyConfig,
    tls::{ClientCertificates, TlsVersion},
    websocket::WsConfig,
};
use crate::store::{Durability, KeySource, StoreKey};

const REFERENCE: &str = include_str!("../../config/dormouse.toml");

/// Every key, each with another value than the default.
pub(super) const EVERY_KEY: &str = r#"
certs = "/etc/dormouse/certs"
[store]
path = "/var/lib/dormouse"
key_file = "/etc/dormouse/store.key"
durability = "relaxed"
compression = "lz4"
elision_wait_max = "0ms"
held_bytes_max = "0B"
commit_interval_max = "20ms"
done_interval = "2s"
generation_bytes = "32MiB"
backlog_bytes_max = "1MiB"
max_disk_bytes = "1GiB"
disk_reserve = "2GiB"
[sessions]
max = 5
session_expiry_max = "1h"
inflight_max = 0xffff
queue_messages_max = 1_000
queue_bytes_max = "1MiB"
queue_policy = "drop-newest"
queue_qos0 = true
[[queue_limits]]
filter = "cmd/#"
client = "pump-*"
user = "fleet"
messages_max = 7
bytes_max = "2KiB"
policy = "reject"
[dead_letters]
enabled = true
reasons = ["expired", "queue_full"]
qos = 0
payload = false
[retained]
messages_max = 0
bytes_max = "1KiB"
[mqtt]
max_qos = 1
retain_available = false
wildcard_subscriptions = false
shared_subscriptions = false
subscription_ids = false
check_payload_format = true
response_topic_prefix = "replies/%c"
[limits]
packet_bytes_max = "256MiB"
connect_bytes_max = "1MiB"
connections_max = 7
handshakes_max = 2
open_handshakes_max = 5
keep_alive_max = "5m"
client_id_bytes_max = "100B"
topic_alias_max = 0
receive_maximum = 1
connect_timeout = "1s"
write_timeout = "1h"
out_buffer_bytes_max = "64KiB"
subscriptions_per_session_max = 3
[[listeners]]
name = "field"
type = "tls"
bind = "[::]:8883"
certificate = "a.crt"
key = "a.key"
client_ca = "ca.crt"
client_certificates = "required"
handshake_timeout = "3s"
min_version = "1.3"
[[listeners]]
type = "tcp"
bind = "0.0.0.0:1883"
allow_anonymous = true
proxy_protocol = "required"
proxy_trusted = ["10.0.0.0/8", "::1"]
[[listeners]]
type = "unix"
bind = "/run/dormouse.sock"
mode = "0600"
[[listeners]]
type = "ws"
bind = "127.0.0.1:8080"
path = "/broker"
allowed_origins = ["https://panel.example"]
[admin]
enabled = false
listen = "0.0.0.0:9884"
allow_anonymous = true
[log]
level = "debug"
format = "json"
[shutdown]
grace = "0s"
"#;

fn parse(text: &str, overrides: &Overrides) -> Result<Config, String> {
    Config::from_toml(Path::new("x.toml"), text, overrides).map_err(|errors| errors.to_string())
}

fn complaints(text: &str) -> Vec<String> {
    let errors = parse(text, &Overrides::default()).map_or_else(|errors| errors, |_| String::new());
    errors.lines().map(str::to_owned).collect()
}

#[test]
fn the_reference_file_is_the_default_configuration() {
    assert_eq!(parse(REFERENCE, &Overrides::default()), Ok(Config::default()));
    assert_eq!(parse("", &Overrides::default()), Ok(Config::default()));
}

/// The schema is what the code asks for; each of its keys stands in the reference file, in its own section, set or (when
/// it has no fixed default) commented out.
#[test]
fn every_key_stands_in_the_reference_file() {
    let mut section = String::new();
    let mut present = BTreeSet::new();
    for line in REFERENCE.lines() {
        let line = line.trim_start_matches("# ").trim();
        if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
            present.insert(name.to_owned());
            section = format!("{name}.");
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            present.insert(name.to_owned());
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ")
            && toml::from_str::<toml::Table>(line).is_ok()
        {
            present.insert(format!("{section}{key}"));
        }
    }
    let (_, document) = Config::read(Path::new("x.toml"), REFERENCE, &Overrides::default());
    // Unnamed listeners are `listeners[0].`, named ones `listeners.NAME.`; both stand under `[[listeners]]`.
    let schema: BTreeSet<String> = document
        .asked()
        .into_iter()
        .map(|key| match key.split('.').collect::<Vec<_>>().as_slice() {
            [first, .., last] if first.starts_with("listeners") => format!("listeners.{last}"),
            [first, last] if first.starts_with("queue_limits[") => format!("queue_limits.{last}"),
            _ => key,
        })
        .collect();
    assert!(schema.len() > 40, "{schema:?}");
    let missing: Vec<_> = schema.difference(&present).collect();
    assert!(missing.is_empty(), "config/dormouse.toml lacks {missing:?}");
}

#[test]
fn every_value_can_be_set() {
    let config = parse(EVERY_KEY, &Overrides::default()).unwrap();
    let default = Config::default();
    assert_eq!(config.store.durability, Durability::Relaxed);
    assert_eq!(config.store.key, KeySource::File("/etc/dormouse/store.key".into()));
    assert_eq!(config.store.elision_wait_max, Duration::ZERO);
    assert_eq!(config.broker.inflight_max, 65_535);
    assert_eq!(config.broker.queue.messages_max, 1_000);
    assert_eq!(config.broker.keep_alive_max, Some(300));
    assert_eq!(config.broker.client_id_bytes_max, 100);
    assert_eq!(config.broker.packet_bytes_max, 256 << 20);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(config.shutdown.grace, Duration::ZERO);
    let admin = crate::admin::Config {
        enabled: false,
        listen: "0.0.0.0:9884".parse().unwrap(),
        allow_anonymous: true,
    };
    assert_eq!(config.admin, admin);
    let [field, plain, local, web] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    assert_eq!((&*plain.socket.name, plain.allow_anonymous), ("tcp://0.0.0.0:1883", true));
    assert_eq!(plain.socket.transport, Transport::Plain);
    assert!(
        config.listeners.iter().all(|listener| listener.socket.connect_timeout == Duration::from_secs(1))
    );
    assert_eq!((&*local.socket.name, local.scheme()), ("unix:///run/dormouse.sock", "unix"));
    assert_eq!(local.socket.bind, Bind::Unix { path: "/run/dormouse.sock".into(), mode: 0o600 });
    let ws =
        WsConfig { path: "/broker".to_owned(), allowed_origins: vec!["https://panel.example".to_owned()] };
    assert_eq!((web.socket.transport.ws(), &*web.socket.name), (Some(&ws), "ws://127.0.0.1:8080/broker"));
    let trusted = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(plain.socket.proxy, Some(ProxyConfig { trusted }));
    assert_eq!(&*field.socket.name, "field");
    let Transport::Tls(tls) = &field.socket.transport else { panic!("{field:?}") };
    assert_eq!(tls.client_certificates, ClientCertificates::Required(PathBuf::from("ca.crt")));
    assert_eq!(tls.version_min, TlsVersion::V13);
    assert_eq!(config.development_certs(), None);
    let [bound] = config.broker.queue_bounds.as_slice() else { panic!("{:?}", config.broker.queue_bounds) };
    assert_eq!(bound.limits.messages_max, 7);
    // Nothing was left at its default by a key that is read and then forgotten, or by a field that has no key.
    let unchanged = |a: &str, b: &str| {
        a.split(", ")
            .zip(b.split(", "))
            .filter(|(a, b)| a == b && a.contains(": "))
            // Made of the broker's queue bounds when it is opened.
            .filter(|(a, _)| !a.starts_with("labels: "))
            .map(|(a, _)| a.to_owned())
            .collect::<Vec<_>>()
    };
    for (ours, theirs) in [
        (format!("{:?}", config.store), format!("{:?}", default.store)),
        (format!("{:?}", config.broker), format!("{:?}", default.broker)),
        (format!("{:?}", config.network), format!("{:?}", default.network)),
    ] {
        assert_eq!(unchanged(&ours, &theirs), Vec::<String>::new());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_mistake_is_told_with_its_line_and_what_is_allowed() {
    let table: &[(&str, &[&str])] = &[
        (
            "[[queue_limits]]\nmessages_max = 0\npolicy = \"drop\"",
            &[
                "x.toml:1: queue_limits[0].filter: is missing; say which topics, or with `client` or `user` whose queues",
                "x.toml:2: queue_limits[0].messages_max: 0 is not a whole number from 1 to 10000000",
                "x.toml:3: queue_limits[0].policy: \"drop\" is not known; use \"drop-oldest\", \"drop-newest\" or \"reject\"",
            ],
        ),
        (
            "[[queue_limits]]\nfilter = \"$share/g/a\"\nclient = \"a*b\"\nuser = \"\"",
            &[
                "x.toml:2: queue_limits[0].filter: \"$share/g/a\" is not a topic filter; use e.g. \"cmd/#\"",
                "x.toml:3: queue_limits[0].client: \"a*b\" is not a client identifier, or the beginning of one and \"*\"",
                "x.toml:4: queue_limits[0].user: \"\" is not a user name, or the beginning of one and \"*\"",
            ],
        ),
        (
            "[store]\nmax_disk_bytes = \"8MiB\"\ndisk_reserve = \"0B\"",
            &[
                "x.toml:2: store.max_disk_bytes: \"8MiB\" is out of range; allowed is \"16MiB\" to \"1048576GiB\"",
                "x.toml:3: store.disk_reserve: \"0B\" is out of range; allowed is \"4MiB\" to \"1048576GiB\"",
            ],
        ),
        (
            "[dead_letters]\nreasons = [\"lost\"]\nqos = 2",
            &[
                "x.toml:2: dead_letters.reasons: [\"lost\"] is not a list of reasons: \"queue_full\", \"expired\", \"too_large\", \"session_expired\", \"session_cleaned\", \"session_closed\", \"no_member\"",
                "x.toml:3: dead_letters.qos: 2 is not a whole number from 0 to 1",
            ],
        ),
        ("[store]\npth = \"x\"", &["x.toml:2: store.pth: unknown key `pth`; did you mean `path`?"]),
        ("[lisener]\nx = 1", &["x.toml:1: lisener: unknown key `lisener`; did you mean `listeners`?"]),
        (
            "[shutdown]\nwhatever = 1",
            &["x.toml:2: shutdown.whatever: unknown key `whatever`; allowed here: grace"],
        ),
        ("store = 5", &["x.toml:1: store: 5 is not a section; write it as a line of its own [store]"]),
        (
            "[admin]\nlisten = \"localhost\"",
            &[
                "x.toml:2: admin.listen: \"localhost\" is not an address; use an IP address and a port, e.g. \"127.0.0.1:9883\", or \"\" for none",
            ],
        ),
        (
            "[admin]\nlisten = \"[::]:9883\"",
            &[
                "x.toml:2: admin.listen: [::]:9883 can be reached from other machines and would show anybody the metrics; listen on 127.0.0.1, or say allow_anonymous = true",
            ],
        ),
        ("[store]\npath = \"\"", &["x.toml:2: store.path: \"\" is not a path; use e.g. \"./data\""]),
        (
            "[store]\n\ndurability = \"powr\"",
            &["x.toml:3: store.durability: \"powr\" is not known; use \"power\", \"process\" or \"relaxed\""],
        ),
        (
            "[store]\ndone_interval = \"5 parsecs\"",
            &[
                "x.toml:2: store.done_interval: \"5 parsecs\" is not a duration; use e.g. \"500ms\", \"10s\", \"30d\"",
            ],
        ),
        (
            "[store]\ndone_interval = 60",
            &["x.toml:2: store.done_interval: 60 is not a duration; use e.g. \"500ms\", \"10s\", \"30d\""],
        ),
        (
            "[store]\nelision_wait_max = \"2s\"",
            &["x.toml:2: store.elision_wait_max: \"2s\" is out of range; allowed is \"0ms\" to \"1s\""],
        ),
        (
            "[limits]\npacket_bytes_max = \"257MiB\"",
            &[
                "x.toml:2: limits.packet_bytes_max: \"257MiB\" is out of range; allowed is \"1KiB\" to \"256MiB\"",
            ],
        ),
        (
            "[limits]\nkeep_alive_max = \"1500ms\"",
            &["x.toml:2: limits.keep_alive_max: \"1500ms\" is not in whole seconds"],
        ),
        (
            "[limits]\nkeep_alive_max = \"1d\"",
            &["x.toml:2: limits.keep_alive_max: \"1d\" is out of range; allowed is \"1s\" to \"65535s\""],
        ),
        (
            "[limits]\npacket_bytes_max = \"1MB\"",
            &[
                "x.toml:2: limits.packet_bytes_max: \"1MB\" is not a size; use e.g. \"512B\", \"64KiB\" or \"16MiB\"",
            ],
        ),
        ("[mqtt]\nmax_qos = 3", &["x.toml:2: mqtt.max_qos: 3 is not a whole number from 0 to 2"]),
        (
            "[mqtt]\nresponse_topic_prefix = \"a/#\"",
            &["x.toml:2: mqtt.response_topic_prefix: \"a/#\" is not the beginning of a topic name"],
        ),
        (
            "[sessions]\ninflight_max = 0",
            &["x.toml:2: sessions.inflight_max: 0 is not a whole number from 1 to 65535"],
        ),
        (
            "[sessions]\ninflight_max = 99999999999999999999",
            &["x.toml:2: sessions.inflight_max: 99999999999999999999 is not a whole number from 1 to 65535"],
        ),
        (
            "[sessions]\nqueue_qos0 = \"yes\"",
            &["x.toml:2: sessions.queue_qos0: \"yes\" is neither true nor false"],
        ),
        (
            "listeners = []",
            &[
                "x.toml:1: listeners: [] has no entry; leave the key out for the default, or write each entry under [[listeners]]",
            ],
        ),
        (
            "[listeners]\nbind = \"127.0.0.1:1\"",
            &["x.toml:1: listeners: [listeners] is not a list; write each entry under [[listeners]]"],
        ),
        (
            "[[listeners]]",
            &[
                "x.toml:1: listeners[0].type: is missing; use \"tcp\", \"tls\", \"ws\", \"wss\" or \"unix\"",
                "x.toml:1: listeners[0].bind: is missing; use an IP address and a port, e.g. \"127.0.0.1:1883\" or \"[::1]:8883\"",
            ],
        ),
        (
            "[[listeners]]\ntype = \"quic\"\nbind = \"localhost:1883\"",
            &[
                "x.toml:2: listeners[0].type: \"quic\" is not known; use \"tcp\", \"tls\", \"ws\", \"wss\" or \"unix\"",
                "x.toml:3: listeners[0].bind: \"localhost:1883\" is not an address; use an IP address and a port, e.g. \"127.0.0.1:1883\" or \"[::1]:8883\"",
            ],
        ),
        (
            "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1883\"\nkey = \"a.key\"\ncertificate = \"a.crt\"",
            &[
                "x.toml:4: listeners[0].key: belongs to a listener of type \"tls\" or \"wss\"; this one's is \"tcp\"",
                "x.toml:5: listeners[0].certificate: belongs to a listener of type \"tls\" or \"wss\"; this one's is \"tcp\"",
            ],
        ),
        (
            "[[listeners]]\nname = \"a b\"\ntype = \"tls\"\nbind = \"127.0.0.1:1883\"\nkey = \"a.key\"",
            &[
                "x.toml:2: listeners[0].name: \"a b\" is not a name; use 1 to 64 letters, digits, '-', '_' or '.'",
                "x.toml:5: listeners[0].key: needs its `certificate` beside it",
            ],
        ),
        (
            "[[listeners]]\nname = \"in\"\ntype = \"tls\"\nbind = \"127.0.0.1:1883\"\ncertificate = \"a\"\nkey = \"b\"\nclient_certificates = \"optional\"",
            &["x.toml:7: listeners.in.client_certificates: needs `client_ca`, which signed them"],
        ),
        (
            "[[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:1883\"\nclient_ca = \"a\"",
            &[
                "x.toml:4: listeners[0].client_ca: is of no use without client_certificates = \"optional\" or \"required\"",
            ],
        ),
        (
            "[[listeners]]\nname=\"a\"\ntype = \"tcp\"\nbind = \"127.0.0.1:1\"\n[[listeners]]\nname=\"a\"\ntype = \"tcp\"\nbind = \"127.0.0.1:2\"\n[[listeners]]\ntype = \"tls\"\nbind = \"127.0.0.1:1\"",
            &[
                "x.toml:6: listeners.a.name: `a` is the name of another listener",
                "x.toml:11: listeners[2].bind: 127.0.0.1:1 is taken by listener `a`",
            ],
        ),
        (
            "[[listeners]]\ntype = \"tcp\"\nbind = \"0.0.0.0:1883\"",
            &[
                "x.toml:3: listeners[0].bind: 0.0.0.0:1883 can be reached from other machines and would let anybody in; require client certificates (type = \"tls\", client_certificates = \"required\"), or say allow_anonymous = true",
            ],
        ),
        (
            "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1883\"\nproxy_protocol = \"required\"",
            &[
                "x.toml:3: listeners[0].bind: 127.0.0.1:1883 can be reached from other machines through the proxy and would let anybody in; require client certificates (type = \"tls\", client_certificates = \"required\"), or say allow_anonymous = true",
            ],
        ),
        (
            "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1883\"\nmode = \"0600\"\nproxy_trusted = [\"::1\"]",
            &[
                "x.toml:4: listeners[0].mode: belongs to a listener of type \"unix\"; this one's is \"tcp\"",
                "x.toml:5: listeners[0].proxy_trusted: is of no use without proxy_protocol = \"required\"",
            ],
        ),
        (
            "[[listeners]]\ntype = \"unix\"\nmode = \"rw\"\nproxy_protocol = \"on\"\nproxy_trusted = [\"localhost\"]",
            &[
                "x.toml:1: listeners[0].bind: is missing; use the path of the socket's file",
                "x.toml:3: listeners[0].mode: \"rw\" is not a mode; use e.g. \"0660\"",
                "x.toml:4: listeners[0].proxy_protocol: \"on\" is not known; use \"off\" or \"required\"",
                "x.toml:5: listeners[0].proxy_trusted: [\"localhost\"] is not a list of networks like \"10.0.0.0/8\" or \"192.0.2.1\"",
            ],
        ),
        (
            "[[listeners]]\ntype = \"tcp\"\nbind = \"127.0.0.1:1883\"\npath = \"/mqtt\"",
            &[
                "x.toml:4: listeners[0].path: belongs to a listener of type \"ws\" or \"wss\"; this one's is \"tcp\"",
            ],
        ),
        (
            "[[listeners]]\ntype = \"ws\"\nbind = \"127.0.0.1:80\"\npath = \"mqtt\"\nallowed_origins = [\"panel.example\"]",
            &[
                "x.toml:4: listeners[0].path: \"mqtt\" is not the path of a URL; use e.g. \"/mqtt\"",
                "x.toml:5: listeners[0].allowed_origins: \"panel.example\" is not an origin; use e.g. \"https://panel.example\", without a path",
            ],
        ),
        (
            "[[listeners]]\ntype = \"unix\"\nbind = \"/a\"\n[[listeners]]\ntype = \"unix\"\nbind = \"/a\"",
            &["x.toml:6: listeners[1].bind: /a is taken by listener `unix:///a`"],
        ),
        (
            "[[listeners]]\nname = \"tls\"\ntype = \"tls\"\nbind = \"127.0.0.1:8883\"\nhandshake_timeout = \"5 parsecs\"\n[log]\nlevel = 3\n[store]\nx=1",
            &[
                "x.toml:5: listeners.tls.handshake_timeout: \"5 parsecs\" is not a duration; use e.g. \"500ms\", \"10s\", \"30d\"",
                "x.toml:7: log.level: 3 is not known; use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
                "x.toml:9: store.x: unknown key `x`; allowed here: path, key_file, durability, compression, elision_wait_max, held_bytes_max, commit_interval_max, done_interval, generation_bytes, backlog_bytes_max, max_disk_bytes, disk_reserve",
            ],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaints(text), *expected, "for\n{text}");
    }
}

#[test]
fn broken_syntax_is_told_beside_the_rest() {
    let lines = complaints("[store]\npath = \n[sessions]\nmax = \"x\"\n");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.first().unwrap().starts_with("x.toml:2: "), "{lines:?}");
    assert_eq!(
        lines.get(1).unwrap(),
        "x.toml:4: sessions.max: \"x\" is not a whole number from 1 to 10000000"
    );
    let twice = complaints("[store]\npath = \"a\"\npath = \"b\"\n");
    assert_eq!(twice, ["x.toml:3: duplicate key"]);
}

#[test]
fn any_bytes_are_answered() {
    for text in [
        "\0",
        "[",
        "[[",
        "a.b.c",
        "=",
        "[[listeners",
        "\u{feff}x",
        "a = {",
        "[store]\npath = '''\n\n",
        "[[log]]\n",
    ] {
        assert!(!complaints(text).is_empty(), "{text:?}");
    }
}

#[test]
fn a_torn_reference_file_is_answered_wherever_it_is_torn() {
    for (end, _) in REFERENCE.char_indices().step_by(7) {
        let torn = REFERENCE.get(..end).unwrap();
        for complaint in complaints(torn) {
            assert!(complaint.starts_with("x.toml:"), "{complaint}");
        }
    }
}

proptest! {
    /// Nothing that can be written into the file makes the reader panic, and what it takes keeps the ranges.
    #[test]
    fn a_mangled_reference_file_is_answered(at in 0..REFERENCE.len(), len in 0..40_usize, with in "[\\[\\]\"'=.,{}a-z0-9\n é-]{0,12}") {
        let mut bytes = REFERENCE.as_bytes().to_vec();
        let end = bytes.len().min(at + len);
        bytes.splice(at..end, with.bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(config) = parse(&text, &Overrides::default()) {
            prop_assert!(config.broker.inflight_max >= 1);
            prop_assert!((1 << 10..=256 << 20).contains(&config.broker.packet_bytes_max));
            let admin = &config.admin;
            prop_assert!(!admin.enabled || admin.allow_anonymous || admin.listen.ip().is_loopback());
            prop_assert!(config.store.elision_wait_max <= Duration::from_secs(1));
            prop_assert!(config.listeners.iter().all(|listener| listener.allow_anonymous || listener.socket.bind.socket_addr().is_none_or(|a| a.ip().is_loopback())));
        }
    }
}

#[test]
fn flags_and_variables_go_on_top_of_the_file() {
    let overrides = Overrides {
        store_key: Some(StoreKey::parse(&"1".repeat(64))),
        data: Some("/d".into()),
        durability: Some("process".into()),
        listen: vec!["tls://127.0.0.1:0".into(), "tcp://[::1]:1883".into()],
        allow_anonymous: false,
        admin: Some("[::1]:7".into()),
        certs: Some("/c".into()),
        log_level: Some("warn".into()),
        log_format: Some("human".into()),
    };
    let config = parse(
        "[store]\npath = \"x\"\nkey_file = \"k\"\ndone_interval = \"3s\"\n[log]\nlevel = \"trace\"",
        &overrides,
    )
    .unwrap();
    assert_eq!(config.data, PathBuf::from("/d"));
    assert_eq!(config.admin.listen.to_string(), "[::1]:7");
    assert_eq!(config.store.key, KeySource::Given(StoreKey::parse(&"1".repeat(64)).unwrap()));
    assert!(!config.to_toml().unwrap().contains("1111"), "a key is not shown");
    assert_eq!(config.store.durability, Durability::Process);
    assert_eq!(config.store.done_interval, Duration::from_secs(3));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Warn, LogFormat::Human));
    let names: Vec<_> = config.listeners.iter().map(|listener| &*listener.socket.name).collect();
    assert_eq!(names, ["tls://127.0.0.1:0", "tcp://[::1]:1883"]);
    assert_eq!(config.development_certs(), Some(Path::new("/c")));
}

#[test]
fn listeners_are_written_as_urls() {
    for (url, name) in [
        ("tcp://127.0.0.1:1883", "tcp://127.0.0.1:1883"),
        ("ws://127.0.0.1:80", "ws://127.0.0.1:80/mqtt"),
        ("ws://[::1]:80/", "ws://[::1]:80/"),
        ("wss://127.0.0.1:443/a/b", "wss://127.0.0.1:443/a/b"),
        ("unix:///run/a b.sock", "unix:///run/a b.sock"),
    ] {
        let config = parse("", &Overrides { listen: vec![url.into()], ..Overrides::default() }).unwrap();
        assert_eq!(&*config.listeners.first().unwrap().socket.name, name);
        assert_eq!(parse(&config.to_toml().unwrap(), &Overrides::default()), Ok(config));
    }
    for bad in [
        "unix://run/a",
        "unix://",
        "ws://127.0.0.1",
        "ws://127.0.0.1:80/a?b",
        "wss:///mqtt",
        "tcp://127.0.0.1:1883/",
    ] {
        let listen = vec![bad.into()];
        assert!(parse("", &Overrides { listen, ..Overrides::default() }).is_err(), "{bad}");
    }
}

#[test]
fn the_certs_folder_moves_the_default_listeners_too() {
    let overrides = Overrides { certs: Some("/c".into()), ..Overrides::default() };
    let config = parse("", &overrides).unwrap();
    assert_eq!(config.listeners, Listener::defaults(Path::new("/c")));
}

#[test]
fn bad_flags_are_told_with_the_file_s_mistakes() {
    let overrides = Overrides {
        durability: Some("full".into()),
        store_key: Some(StoreKey::parse("a secret of mine")),
        listen: vec!["1883".into(), "tcp://0.0.0.0:1883".into(), "http://127.0.0.1:80".into()],
        ..Overrides::default()
    };
    let errors = parse("x = 1", &overrides).unwrap_err();
    assert_eq!(
        errors.lines().collect::<Vec<_>>(),
        [
            "DORMOUSE_STORE_KEY: a key is 32 bytes, as 64 hexadecimal digits or in base64",
            "--durability (DORMOUSE_DURABILITY): \"full\" is not known; use \"power\", \"process\" or \"relaxed\"",
            "--listen (DORMOUSE_LISTEN): \"1883\" is not a listener; use e.g. tcp://127.0.0.1:1883, tls://127.0.0.1:8883, ws://127.0.0.1:8080/mqtt or unix:///run/dormouse.sock",
            "--listen (DORMOUSE_LISTEN): 0.0.0.0:1883 can be reached from other machines and would let anybody in; require client certificates (type = \"tls\", client_certificates = \"required\"), or say --allow-anonymous",
            "--listen (DORMOUSE_LISTEN): \"http://127.0.0.1:80\" is not a listener; use e.g. tcp://127.0.0.1:1883, tls://127.0.0.1:8883, ws://127.0.0.1:8080/mqtt or unix:///run/dormouse.sock",
            "x.toml:1: x: unknown key `x`; allowed here: certs, listeners, store, sessions, queue_limits, dead_letters, retained, mqtt, limits, admin, log, shutdown",
        ]
    );
    let alone = Overrides { allow_anonymous: true, ..Overrides::default() };
    assert_eq!(
        parse("", &alone).unwrap_err(),
        "--allow-anonymous (DORMOUSE_ALLOW_ANONYMOUS): is about the listeners of --listen, and there are none"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = Config::load(Some(Path::new("/nonexistent/x.toml")), &Overrides::default()).unwrap_err();
    assert!(errors.to_string().starts_with("/nonexistent/x.toml: cannot be read: No such file"), "{errors}");
}

#[test]
fn the_admin_listener_is_moved_and_switched_off() {
    let admin = |text: &str, flag: Option<&str>| {
        let overrides = Overrides { admin: flag.map(str::to_owned), ..Overrides::default() };
        parse(text, &overrides).map(|config| (config.admin.enabled, config.admin.listen.to_string()))
    };
    let on = |address: &str| Ok((true, address.to_owned()));
    let off = |address: &str| Ok((false, address.to_owned()));
    assert_eq!(admin("", None), on("127.0.0.1:9883"));
    assert_eq!(admin("[admin]\nlisten = \"[::1]:1\"", None), on("[::1]:1"));
    assert_eq!(admin("[admin]\nlisten = \"\"", None), off("127.0.0.1:9883"));
    assert_eq!(admin("[admin]\nenabled = false\nlisten = \"0.0.0.0:1\"", None), off("0.0.0.0:1"));
    assert_eq!(admin("[admin]\nlisten = \"0.0.0.0:1\"\nallow_anonymous = true", None), on("0.0.0.0:1"));
    assert_eq!(admin("", Some("off")), off("127.0.0.1:9883"));
    assert_eq!(admin("[admin]\nenabled = false", Some("127.0.0.1:0")), on("127.0.0.1:0"));
    let told = admin("", Some("0.0.0.0:9883")).unwrap_err();
    assert!(
        told.starts_with("--admin (DORMOUSE_ADMIN): 0.0.0.0:9883 can be reached from other machines"),
        "{told}"
    );
    let told = admin("", Some("here")).unwrap_err();
    assert_eq!(told, "--admin (DORMOUSE_ADMIN): \"here\" is not an address; use e.g. 127.0.0.1:9883, or off");
}
