//! Clients of other languages as devices: paho-mqtt (Python) and MQTT.js (JavaScript), in 3.1.1 and 5.0, on each transport
//! they speak. Their scenarios stand in `tests/clients/`, in the client's own language; `rumqttc` and mosquitto's have
//! modules of their own.

use std::{path::PathBuf, process::Command};

use crate::{harness::Broker, program::Program};

/// Payloads of 10 MiB go through.
const CONFIG: &str = "
[limits]
packet_bytes_max = '16MiB'

[[listeners]]
type = 'tcp'
bind = '127.0.0.1:0'
[[listeners]]
type = 'tls'
bind = '127.0.0.1:0'
[[listeners]]
type = 'ws'
bind = '127.0.0.1:0'
[[listeners]]
type = 'wss'
bind = '127.0.0.1:0'
";

#[test]
fn paho_over_tcp_and_tls() {
    every_scenario(Client::Paho, &["tcp", "tls"]);
}

#[test]
fn paho_over_websocket() {
    every_scenario(Client::Paho, &["ws", "wss"]);
}

#[test]
fn mqtt_js_over_tcp_and_tls() {
    every_scenario(Client::MqttJs, &["tcp", "tls"]);
}

#[test]
fn mqtt_js_over_websocket() {
    every_scenario(Client::MqttJs, &["ws", "wss"]);
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Paho,
    MqttJs,
}

fn every_scenario(client: Client, transports: &[&str]) {
    let installed = install();
    let broker = Broker::start_configured(CONFIG);
    for transport in transports {
        for version in ["4", "5"] {
            for scenario in ["wildcards", "retained", "will", "offline", "large", "shared"] {
                println!("{client:?} {version} {transport} {scenario}");
                let port = broker.address(transport, 0).port();
                let mut command = client.command(&installed);
                command.args([scenario, "--version", version, "--transport", transport]);
                command.args(["--port", &port.to_string(), "--ca"]).arg(broker.certs_dir().join("ca.crt"));
                Program::start(command, &[]).finish();
            }
        }
    }
}

impl Client {
    fn command(self, installed: &std::path::Path) -> Command {
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        match self {
            Self::Paho => {
                let mut command = Command::new(installed.join("python/bin/python"));
                command.arg("-B").arg(scripts.join("paho_device.py"));
                command
            }
            Self::MqttJs => {
                let mut command = Command::new("node");
                command
                    .arg(scripts.join("mqttjs_device.cjs"))
                    .env("NODE_PATH", installed.join("node/node_modules"));
                command
            }
        }
    }
}

/// Where the clients are; installed there if they are not yet.
fn install() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/install.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}\n{}\ntests/run.sh installs what the tests need",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}
