//! A device that sleeps: it wakes, takes the commands that waited for it, leaves a reading, and sleeps again.
//!
//! Start the broker in another terminal (`cargo run --release`), then
//!
//! ```text
//! cargo run --example sleepy_sensor -- sensor1 3
//! cargo run --example commander -- sensor1 "open valve" "close valve"
//! ```
//!
//! The first argument names the device, the second says how often it wakes.

#[path = "support/tls.rs"]
mod tls;

use std::{error::Error, time::Duration};

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, QoS};
use tokio::time::{sleep, timeout};

/// A device with nothing more to do goes back to sleep.
const QUIET: Duration = Duration::from_millis(500);
const ASLEEP: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let device = args.next().unwrap_or_else(|| "sensor1".to_owned());
    let wakes: u32 = args.next().map_or(Ok(3), |n| n.parse())?;
    for wake in 1..=wakes {
        awake(&device, wake).await?;
        if wake < wakes {
            sleep(ASLEEP).await;
        }
    }
    Ok(())
}

/// One wake: a connection of as few packets as the job takes.
async fn awake(device: &str, wake: u32) -> Result<(), Box<dyn Error>> {
    let mut options = MqttOptions::new(device, "localhost", 8883);
    options.set_transport(tls::transport("certs/ca.crt")?);
    // The session stays in the broker while the device sleeps.
    options.set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 10);

    let commands = take_commands(&client, &mut events, device).await?;
    let reading = format!("{{\"wake\":{wake},\"commands\":{commands},\"celsius\":21.5}}");
    client.publish(format!("reading/{device}"), QoS::AtLeastOnce, false, reading).await?;
    until(&mut events, |event| matches!(event, Event::Incoming(Incoming::PubAck(_)))).await?;
    client.disconnect().await?;
    until(&mut events, |event| matches!(event, Event::Outgoing(Outgoing::Disconnect))).await?;
    println!("{device}: wake {wake}: {commands} commands taken, reading left, back to sleep");
    Ok(())
}

/// Takes what waited. A new session has to subscribe first.
async fn take_commands(
    client: &AsyncClient,
    events: &mut EventLoop,
    device: &str,
) -> Result<u32, Box<dyn Error>> {
    let mut commands = 0;
    loop {
        match timeout(QUIET, events.poll()).await {
            Ok(Ok(Event::Incoming(Incoming::ConnAck(ack)))) if !ack.session_present => {
                client.subscribe(format!("cmd/{device}/#"), QoS::AtLeastOnce).await?;
            }
            Ok(Ok(Event::Incoming(Incoming::Publish(command)))) => {
                commands += 1;
                println!("{device}: {} {}", command.topic, String::from_utf8_lossy(&command.payload));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_quiet) => return Ok(commands),
        }
    }
}

async fn until(events: &mut EventLoop, mut done: impl FnMut(&Event) -> bool) -> Result<(), Box<dyn Error>> {
    loop {
        let event = timeout(Duration::from_secs(10), events.poll()).await??;
        if done(&event) {
            return Ok(());
        }
    }
}
