//! One face for `rumqttc`'s two clients, 3.1.1 and 5.0. Nothing runs in the background: whoever waits polls.

use std::{collections::VecDeque, fs};

use rumqttc::{
    Event as EventV4, Incoming as IncomingV4, Outgoing, SubscribeReasonCode as GrantedV4, TlsConfiguration,
    Transport,
    v5::{
        self, Event as EventV5, Incoming as IncomingV5,
        mqttbytes::{QoS as QosV5, v5::SubscribeReasonCode as GrantedV5},
    },
};
use tokio::time::timeout;

use crate::harness::{Broker, LIMIT};

/// Requests that wait for the event loop; no test has more at a time.
const REQUESTS_MAX: usize = 10;
/// The largest packet rumqttc takes and sends; it has a limit of its own, of 10 KiB.
const PACKET_BYTES_MAX: u32 = 16 << 20;
/// Tries to connect again, each of which may find the port not open yet.
const TRIES_MAX: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Version {
    V311,
    V5,
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    Tls,
}

/// A protocol version over a transport.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way(Version, Over);

pub(super) const EVERY_WAY: [Way; 4] = [
    Way(Version::V311, Over::Tcp),
    Way(Version::V311, Over::Tls),
    Way(Version::V5, Over::Tcp),
    Way(Version::V5, Over::Tls),
];

/// A message as the client hears it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) payload: String,
    pub(super) retained: bool,
}

pub(super) fn message(topic: &str, qos: u8, payload: &str) -> Heard {
    Heard { topic: topic.to_owned(), qos, payload: payload.to_owned(), retained: false }
}

impl Heard {
    pub(super) fn retained(self) -> Self {
        Self { retained: true, ..self }
    }
}

/// How to connect.
#[derive(Clone)]
pub(super) struct Dial {
    id: String,
    version: Version,
    port: u16,
    transport: Transport,
    persistent: bool,
    will: Option<(String, String)>,
}

impl Dial {
    /// With a clean session.
    pub(super) fn new(id: &str, Way(version, over): Way, broker: &Broker) -> Self {
        let (port, transport) = match over {
            Over::Tcp => (broker.plain().port(), Transport::Tcp),
            Over::Tls => (broker.tls().port(), tls(broker)),
        };
        Self { id: id.to_owned(), version, port, transport, persistent: false, will: None }
    }

    /// The session outlives the connection.
    pub(super) fn persistent(self) -> Self {
        Self { persistent: true, ..self }
    }

    /// With a will, at QoS 1.
    pub(super) fn will(self, topic: &str, payload: &str) -> Self {
        Self { will: Some((topic.to_owned(), payload.to_owned())), ..self }
    }

    /// Connects, and waits for CONNACK.
    pub(super) async fn connect(&self) -> Client {
        let handle = match self.version {
            Version::V311 => self.v311(),
            Version::V5 => self.v5(),
        };
        let mut client = Client { handle, inbox: VecDeque::new(), unreleased: 0, session_present: false };
        client.session_present = client
            .until(|event| match event {
                Event::Connected { session_present } => Some(*session_present),
                _ => None,
            })
            .await;
        client
    }

    fn v311(&self) -> Handle {
        let mut options = rumqttc::MqttOptions::new(&self.id, "localhost", self.port);
        options.set_transport(self.transport.clone()).set_clean_session(!self.persistent);
        options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
        if let Some((topic, payload)) = &self.will {
            let will = rumqttc::LastWill::new(topic, payload.as_bytes(), rumqttc::QoS::AtLeastOnce, false);
            options.set_last_will(will);
        }
        let (client, events) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
        Handle::V311(client, Box::new(events))
    }

    fn v5(&self) -> Handle {
        let mut options = v5::MqttOptions::new(&self.id, "localhost", self.port);
        options.set_transport(self.transport.clone()).set_clean_start(!self.persistent);
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        if self.persistent {
            options.set_session_expiry_interval(Some(3_600));
        }
        if let Some((topic, payload)) = &self.will {
            let qos = QosV5::AtLeastOnce;
            let will = v5::mqttbytes::v5::LastWill::new(topic, payload.as_bytes(), qos, false, None);
            options.set_last_will(will);
        }
        let (client, events) = v5::AsyncClient::new(options, REQUESTS_MAX);
        Handle::V5(client, Box::new(events))
    }
}

fn tls(broker: &Broker) -> Transport {
    // rumqttc leaves the choice to the program; a second call finds it made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = fs::read(broker.certs_dir().join("ca.crt")).unwrap();
    Transport::Tls(TlsConfiguration::Simple { ca, alpn: Some(vec![b"mqtt".to_vec()]), client_auth: None })
}

enum Handle {
    V311(rumqttc::AsyncClient, Box<rumqttc::EventLoop>),
    V5(v5::AsyncClient, Box<v5::EventLoop>),
}

/// What rumqttc's event loop tells, as far as the tests ask.
enum Event {
    Connected {
        session_present: bool,
    },
    /// With the qualities of service granted.
    Subscribed(Vec<Option<u8>>),
    Unsubscribed,
    /// QoS 1 or 2: the end of its exchange.
    Confirmed,
    /// A PUBLISH is on the wire.
    Published,
    Disconnected,
    Message(Heard),
    /// The broker's last word on a QoS 2 message; the answer has left.
    Released,
    Other,
}

/// A connected client. Dropping it is a lost connection.
pub(super) struct Client {
    handle: Handle,
    /// Messages that came while something else was waited for.
    inbox: VecDeque<Heard>,
    /// QoS 2 messages that have come and are not released yet.
    unreleased: u32,
    /// As the first CONNACK said.
    pub(super) session_present: bool,
}

impl Client {
    /// Subscribes, and gets the quality of service it asks for.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) {
        match &self.handle {
            Handle::V311(client, _) => client.subscribe(filter, qos_v311(qos)).await.unwrap(),
            Handle::V5(client, _) => client.subscribe(filter, qos_v5(qos)).await.unwrap(),
        }
        let granted = self.until(|event| match event {
            Event::Subscribed(granted) => Some(granted.clone()),
            _ => None,
        });
        assert_eq!(granted.await, [Some(qos)], "{filter}");
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) {
        match &self.handle {
            Handle::V311(client, _) => client.unsubscribe(filter).await.unwrap(),
            Handle::V5(client, _) => client.unsubscribe(filter).await.unwrap(),
        }
        self.until(|event| matches!(event, Event::Unsubscribed).then_some(())).await;
    }

    /// Publishes, and waits for the confirmation that belongs to `qos`.
    pub(super) async fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.send(topic, qos, false, payload).await;
    }

    /// The same as a retained message.
    pub(super) async fn retain(&mut self, topic: &str, qos: u8, payload: &str) {
        self.send(topic, qos, true, payload).await;
    }

    async fn send(&mut self, topic: &str, qos: u8, retain: bool, payload: &str) {
        match &self.handle {
            Handle::V311(client, _) => client.publish(topic, qos_v311(qos), retain, payload).await.unwrap(),
            Handle::V5(client, _) => {
                client.publish(topic, qos_v5(qos), retain, payload.to_owned()).await.unwrap();
            }
        }
        self.until(|event| match event {
            Event::Published => (qos == 0).then_some(()),
            Event::Confirmed => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Heard {
        while self.inbox.is_empty() {
            let event = self.poll().await.unwrap();
            self.keep(event);
        }
        self.inbox.pop_front().unwrap()
    }

    /// What has come so far is done with when this returns: QoS 2 messages are released, and confirmations are durable,
    /// since the broker writes them with its next commit, and this makes one. Without it, a crash may bring the last messages
    /// again, and a PUBREL, which rumqttc takes for an error when it has reconnected.
    pub(super) async fn settle(&mut self) {
        while self.unreleased > 0 {
            let event = self.poll().await.unwrap();
            self.keep(event);
        }
        self.retain("settled", 1, "settled").await;
    }

    /// After the broker's restart: waits until rumqttc has found that out and connected again; whether its session was
    /// there.
    pub(super) async fn reconnected(&mut self) -> bool {
        for _ in 0..TRIES_MAX {
            match self.poll().await {
                Ok(Event::Connected { session_present }) => return session_present,
                Ok(event) => self.keep(event),
                Err(_lost) => {}
            }
        }
        panic!("no connection after {TRIES_MAX} tries");
    }

    /// Leaves with a DISCONNECT.
    pub(super) async fn disconnect(mut self) {
        match &self.handle {
            Handle::V311(client, _) => client.disconnect().await.unwrap(),
            Handle::V5(client, _) => client.disconnect().await.unwrap(),
        }
        self.until(|event| matches!(event, Event::Disconnected).then_some(())).await;
    }

    async fn until<T>(&mut self, done: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.poll().await.unwrap();
            if let Some(answer) = done(&event) {
                return answer;
            }
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                self.unreleased += u32::from(message.qos == 2);
                self.inbox.push_back(message);
            }
            Event::Released => self.unreleased -= 1,
            _ => {}
        }
    }

    async fn poll(&mut self) -> Result<Event, String> {
        let polled = match &mut self.handle {
            Handle::V311(_, events) => timeout(LIMIT, events.poll())
                .await
                .map(|event| event.map(from_v311).map_err(|e| e.to_string())),
            Handle::V5(_, events) => {
                timeout(LIMIT, events.poll()).await.map(|event| event.map(from_v5).map_err(|e| e.to_string()))
            }
        };
        polled.expect("nothing happened for long")
    }
}

fn from_v311(event: EventV4) -> Event {
    match event {
        EventV4::Incoming(IncomingV4::ConnAck(ack)) => {
            Event::Connected { session_present: ack.session_present }
        }
        EventV4::Incoming(IncomingV4::SubAck(ack)) => {
            let granted = ack.return_codes.into_iter().map(|code| match code {
                GrantedV4::Success(qos) => Some(qos as u8),
                GrantedV4::Failure => None,
            });
            Event::Subscribed(granted.collect())
        }
        EventV4::Incoming(IncomingV4::UnsubAck(_)) => Event::Unsubscribed,
        EventV4::Incoming(IncomingV4::PubRel(_)) => Event::Released,
        EventV4::Incoming(IncomingV4::PubAck(_) | IncomingV4::PubComp(_)) => Event::Confirmed,
        EventV4::Incoming(IncomingV4::Publish(publish)) => Event::Message(Heard {
            topic: publish.topic,
            qos: publish.qos as u8,
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            retained: publish.retain,
        }),
        EventV4::Outgoing(outgoing) => from_outgoing(&outgoing),
        EventV4::Incoming(_) => Event::Other,
    }
}

fn from_v5(event: EventV5) -> Event {
    match event {
        EventV5::Incoming(IncomingV5::ConnAck(ack)) => {
            Event::Connected { session_present: ack.session_present }
        }
        EventV5::Incoming(IncomingV5::SubAck(ack)) => {
            let granted = ack.return_codes.into_iter().map(|code| match code {
                GrantedV5::Success(qos) => Some(qos as u8),
                _ => None,
            });
            Event::Subscribed(granted.collect())
        }
        EventV5::Incoming(IncomingV5::UnsubAck(_)) => Event::Unsubscribed,
        EventV5::Incoming(IncomingV5::PubRel(_)) => Event::Released,
        EventV5::Incoming(IncomingV5::PubAck(_) | IncomingV5::PubComp(_)) => Event::Confirmed,
        EventV5::Incoming(IncomingV5::Publish(publish)) => Event::Message(Heard {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            qos: publish.qos as u8,
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            retained: publish.retain,
        }),
        EventV5::Outgoing(outgoing) => from_outgoing(&outgoing),
        EventV5::Incoming(_) => Event::Other,
    }
}

fn from_outgoing(outgoing: &Outgoing) -> Event {
    match outgoing {
        Outgoing::Publish(_) => Event::Published,
        Outgoing::Disconnect => Event::Disconnected,
        _ => Event::Other,
    }
}

fn qos_v311(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).unwrap()
}

fn qos_v5(qos: u8) -> QosV5 {
    v5::mqttbytes::qos(qos).unwrap()
}
