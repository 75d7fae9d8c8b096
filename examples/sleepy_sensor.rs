//! A device that sleeps: it wakes, takes the commands that waited for it, leaves a reading, and sleeps again.
//!
//! Start the broker in another terminal (`cargo run --release`), then
//!
//! ```text
//! cargo run --example sleepy_sensor -- sensor1 3
//! cargo run --example commander -- sensor1 "open valve" "close valve"
//! ```
//!
//! The first argument names the device, the second says how often it wakes. The broker is on localhost; `MQTT_PORT` (8883)
//! and `MQTT_CA` (`certs/ca.crt`) say where else.

#[path = "support/tls.rs"]
mod tls;

use std::{error::Error, time::Duration};

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, Outgoing, QoS};
use tokio::time::{sleep, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A device that hears no more commands goes back to sleep.
const QUIET: Duration = Duration::from_millis(500);
const ASLEEP: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let device = args.next().unwrap_or_else(|| "sensor1".to_owned());
    let wakes: u32 = args.next().map_or(Ok(3), |n| n.parse())?;
    for wake in 1..=wakes {
        Awake::connect(&device)?.work(wake).await?;
        if wake < wakes {
            sleep(ASLEEP).await;
        }
    }
    Ok(())
}

/// One wake: a connection of as few packets as the job takes.
struct Awake<'a> {
    device: &'a str,
    client: AsyncClient,
    events: EventLoop,
    commands: u32,
}

impl<'a> Awake<'a> {
    fn connect(device: &'a str) -> Result<Self, Box<dyn Error>> {
        let mut options = tls::options(device)?;
        // The session stays in the broker while the device sleeps.
        options.set_clean_session(false);
        let (client, events) = AsyncClient::new(options, 10);
        Ok(Self { device, client, events, commands: 0 })
    }

    async fn work(mut self, wake: u32) -> Result<(), Box<dyn Error>> {
        let session = self.until(|event| match event {
            Event::Incoming(Incoming::ConnAck(ack)) => Some(ack.session_present),
            _ => None,
        });
        // A new session has to subscribe first.
        if !session.await? {
            self.client.subscribe(format!("cmd/{}/#", self.device), QoS::AtLeastOnce).await?;
            self.until(|event| matches!(event, Event::Incoming(Incoming::SubAck(_))).then_some(())).await?;
        }
        while let Ok(event) = timeout(QUIET, self.events.poll()).await {
            self.take(&event?);
        }

        let (device, commands) = (self.device, self.commands);
        let reading = format!("{{\"wake\":{wake},\"commands\":{commands},\"celsius\":21.5}}");
        self.client.publish(format!("reading/{device}"), QoS::AtLeastOnce, false, reading).await?;
        self.until(|event| matches!(event, Event::Incoming(Incoming::PubAck(_))).then_some(())).await?;
        self.client.disconnect().await?;
        self.until(|event| matches!(event, Event::Outgoing(Outgoing::Disconnect)).then_some(())).await?;
        println!("{device}: wake {wake}: {} commands taken, reading left, back to sleep", self.commands);
        Ok(())
    }

    /// Goes on until `done` has an answer. A command may come at any moment.
    async fn until<T>(&mut self, done: impl Fn(&Event) -> Option<T>) -> Result<T, Box<dyn Error>> {
        loop {
            let event = timeout(PATIENCE, self.events.poll()).await??;
            self.take(&event);
            if let Some(answer) = done(&event) {
                return Ok(answer);
            }
        }
    }

    /// rumqttc has confirmed a command when it hands it over.
    fn take(&mut self, event: &Event) {
        if let Event::Incoming(Incoming::Publish(command)) = event {
            self.commands += 1;
            let (topic, text) = (&command.topic, String::from_utf8_lossy(&command.payload));
            println!("{}: {topic} {text}", self.device);
        }
    }
}
