//! Sends commands to a device, whether it is awake or not. Each is on the broker's disk when this program says so.
//!
//! ```text
//! cargo run --example commander -- sensor1 "open valve" "close valve"
//! ```

#[path = "support/tls.rs"]
mod tls;

use std::{error::Error, time::Duration};

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let device = args.next().unwrap_or_else(|| "sensor1".to_owned());
    let mut commands: Vec<String> = args.collect();
    if commands.is_empty() {
        commands.push("report".to_owned());
    }
    let mut options = MqttOptions::new("commander", "localhost", 8883);
    options.set_transport(tls::transport("certs/ca.crt")?);
    let (client, mut events) = AsyncClient::new(options, commands.len());
    for (n, command) in commands.iter().enumerate() {
        client.publish(format!("cmd/{device}/{n}"), QoS::AtLeastOnce, false, command.as_str()).await?;
    }
    let mut confirmed = 0;
    while confirmed < commands.len() {
        if let Event::Incoming(Incoming::PubAck(_)) =
            timeout(Duration::from_secs(10), events.poll()).await??
        {
            confirmed += 1;
            println!("{confirmed} of {} commands for {device} are safe", commands.len());
        }
    }
    client.disconnect().await?;
    Ok(())
}
