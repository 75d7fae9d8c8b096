//! The broker as a part of a program: started on a free port, used by a client in the same process, and shut down.
//!
//! ```text
//! cargo run --example embedded
//! ```

use std::{error::Error, path::Path, time::Duration};

use dormouse::{
    config::{Config, Overrides},
    server::Server,
};
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use tokio::time::timeout;

/// The same keys as in `config/dormouse.toml`; what is not said has its default.
const CONFIG: &str = r#"
[store]
path = "./data-embedded"

[[listeners]]
type = "tcp"
bind = "127.0.0.1:0"

# Metrics are the program's own: `server.broker().stats()`.
[admin]
enabled = false
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::from_toml(Path::new("embedded.toml"), CONFIG, &Overrides::default())?;
    let server = Server::open(&config)?;
    let address = server.local_addresses().first().ok_or("no listener")?.address.clone();
    let address = address.socket_addr().ok_or("not a port")?;
    println!("the broker listens on {address}");

    let said = talk(address.port()).await;
    // The data folder is closed properly whatever the client did.
    server.shutdown(Duration::from_secs(5)).await;
    println!("the client heard: {}", said?);
    Ok(())
}

/// Subscribes, publishes, and returns what came back.
async fn talk(port: u16) -> Result<String, Box<dyn Error>> {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("embedded", "127.0.0.1", port), 10);
    client.subscribe("greetings/#", QoS::AtLeastOnce).await?;
    client.publish("greetings/dormouse", QoS::AtLeastOnce, false, "good morning").await?;
    loop {
        if let Event::Incoming(Incoming::Publish(publish)) =
            timeout(Duration::from_secs(10), events.poll()).await??
        {
            return Ok(String::from_utf8_lossy(&publish.payload).into_owned());
        }
    }
}
