//! Sends commands to a device, whether it is awake or not. Each is on the broker's disk when this program says so.
//!
//! ```text
//! cargo run --example commander -- sensor1 "open valve" "close valve"
//! ```
//!
//! The broker is on localhost; `MQTT_PORT` (8883) and `MQTT_CA` (`certs/ca.crt`) say where else.

#[path = "support/tls.rs"]
mod tls;

use std::{error::Error, time::Duration};

use rumqttc::{AsyncClient, Event, Incoming, Outgoing, QoS};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let device = args.next().unwrap_or_else(|| "sensor1".to_owned());
    let mut commands: Vec<String> = args.collect();
    if commands.is_empty() {
        commands.push("report".to_owned());
    }
    let (client, mut events) = AsyncClient::new(tls::options("commander")?, commands.len());
    for (n, command) in commands.iter().enumerate() {
        client.publish(format!("cmd/{device}/{n}"), QoS::AtLeastOnce, false, command.as_str()).await?;
    }
    let mut confirmed = 0;
    loop {
        match timeout(Duration::from_secs(10), events.poll()).await?? {
            Event::Incoming(Incoming::PubAck(_)) => {
                confirmed += 1;
                println!("{confirmed} of {} commands for {device} are safe", commands.len());
                if confirmed == commands.len() {
                    client.disconnect().await?;
                }
            }
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}
