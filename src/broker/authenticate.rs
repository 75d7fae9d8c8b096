//! AUTH: the packets of an extended authentication (section 4.12), before CONNACK and after it.

use std::sync::Arc;

use tracing::info;

use super::{
    Broker, Peer,
    connect::Greeting,
    connection::{Connection, Ending},
    stats::Traffic,
};
use crate::{
    auth::{Claim, Dialogue, Refusal, Step},
    codec::{Auth, Connect, Packet, ReasonCode, ReasonProperties, Version, decode},
    session::{Tally, Terms, Verdict},
    time::Timestamp,
};

/// A connection on its way to its CONNACK: what has to be remembered between its packets. New for each connection.
#[derive(Default)]
pub struct Handshake(Option<Box<Pending>>);

/// A CONNECT whose authentication is under way.
struct Pending {
    /// The whole packet; it is looked at again when the exchange has ended well.
    connect: Vec<u8>,
    method: Box<str>,
    terms: Terms,
    dialogue: Dialogue,
}

/// How a client has authenticated itself.
pub(super) struct Authenticated {
    pub(super) method: Box<str>,
    pub(super) identity: Option<Arc<str>>,
    /// The method's last word, for CONNACK.
    pub(super) data: Option<Vec<u8>>,
}

/// The authentication of an open connection.
pub(super) struct Authentication {
    method: Box<str>,
    identity: Option<Arc<str>>,
    /// The client is authenticating itself again.
    again: Option<Dialogue>,
}

impl From<&Authenticated> for Authentication {
    fn from(authenticated: &Authenticated) -> Self {
        let Authenticated { method, identity, .. } = authenticated;
        Self { method: method.clone(), identity: identity.clone(), again: None }
    }
}

const UNKNOWN_METHOD: Verdict = Verdict {
    reason: ReasonCode::BadAuthenticationMethod,
    why: "the authentication method is not supported",
};
const OTHER_METHOD: Verdict = Verdict {
    reason: ReasonCode::BadAuthenticationMethod,
    why: "AUTH with another authentication method than that of CONNECT",
};
const TOO_LARGE: Verdict = Verdict {
    reason: ReasonCode::PacketTooLarge,
    why: "an AUTH larger than the client's maximum packet size",
};

impl Handshake {
    /// Whether CONNECT has come.
    pub(super) fn is_pending(&self) -> bool {
        self.0.is_some()
    }
}

impl Broker {
    /// A CONNECT that names a method: its first step. `connect_bytes` is the packet.
    pub(super) fn begin_authentication(
        self: &Arc<Self>,
        handshake: &mut Handshake,
        (packet, method): (&Connect<'_>, &str),
        connect_bytes: &[u8],
        peer: &Peer,
        now: Timestamp,
    ) -> Greeting {
        let claim = Claim {
            client_id: packet.client_id,
            user_name: packet.user_name,
            password: packet.password,
            certificate_name: peer.certificate_name.as_deref(),
            identity: None,
        };
        // [MQTT-4.12.0-1]
        let Some(dialogue) = self.methods().and_then(|methods| methods.begin(method, &claim)) else {
            return self.refuse_packet(peer, packet, UNKNOWN_METHOD);
        };
        let pending = Pending {
            connect: connect_bytes.to_vec(),
            method: method.into(),
            terms: self.terms(packet),
            dialogue,
        };
        let data = packet.properties.authentication_data;
        self.authenticate(handshake, Box::new(pending), data, connect_bytes.len(), peer, now)
    }

    /// What comes between CONNECT and CONNACK [MQTT-3.1.2-30].
    pub(super) fn continue_authentication(
        self: &Arc<Self>,
        handshake: &mut Handshake,
        input: &[u8],
        peer: &Peer,
        now: Timestamp,
    ) -> Greeting {
        let decoded = match decode(input, Version::V5, self.config.packet_bytes_max) {
            Ok(None) => return Greeting::Incomplete,
            Ok(Some((packet, bytes))) => {
                let mut traffic = Traffic::default();
                traffic.count(&packet, bytes);
                self.counters.received(&traffic);
                Ok((packet, bytes))
            }
            Err(error) => Err(Verdict::refused(error.connack_reason(), error.message())),
        };
        // Whatever becomes of it, this is the last that is heard of a refused one.
        let Some(pending) = handshake.0.take() else { return Greeting::Incomplete };
        let next = decoded.and_then(|(packet, used_bytes)| match packet {
            Packet::Auth(auth) => pending.check(&auth).map(|()| Some((auth.data, used_bytes))),
            Packet::Disconnect(_) => Ok(None),
            _ => Err(Verdict::refused(
                ReasonCode::ProtocolError,
                "another packet than AUTH before the authentication has ended",
            )),
        });
        match next {
            Ok(Some((data, used))) => self.authenticate(handshake, pending, data, used, peer, now),
            // There is nobody left to be told.
            Ok(None) => {
                let why = "the client left while it was being authenticated";
                self.refuse(peer, "", Verdict::refused(ReasonCode::UnspecifiedError, why), Vec::new())
            }
            Err(verdict) => self.refuse_pending(&pending, verdict, peer),
        }
    }

    fn authenticate(
        self: &Arc<Self>,
        handshake: &mut Handshake,
        mut pending: Box<Pending>,
        data: Option<&[u8]>,
        used_bytes: usize,
        peer: &Peer,
        now: Timestamp,
    ) -> Greeting {
        match pending.dialogue.step(data) {
            Step::Continue(data) => {
                let mut reply = Vec::new();
                // [MQTT-4.12.0-2]
                let auth = || auth(ReasonCode::ContinueAuthentication, &pending.method, Some(&data));
                if !pending.terms.encode("", |_| auth(), &mut reply) {
                    return self.refuse_pending(&pending, TOO_LARGE, peer);
                }
                self.counters.sent(Tally { packets: 1, messages: [0; 3] }, reply.len());
                handshake.0 = Some(pending);
                Greeting::Challenged { reply, used_bytes }
            }
            Step::Success { identity, data } => {
                let Pending { connect, method, .. } = *pending;
                let authenticated = Authenticated { method, identity, data };
                self.connect_authenticated(&connect, authenticated, used_bytes, peer, now)
            }
            // [MQTT-4.12.0-4]
            Step::Refused(refusal) => self.refuse_pending(&pending, before_connack(refusal), peer),
        }
    }

    fn refuse_pending(&self, pending: &Pending, verdict: Verdict, peer: &Peer) -> Greeting {
        match decode(&pending.connect, Version::V5, self.config.packet_bytes_max) {
            Ok(Some((Packet::Connect(packet), _))) => self.refuse_packet(peer, &packet, verdict),
            // It has been read before.
            _ => Greeting::Refused { reply: Vec::new() },
        }
    }
}

impl Pending {
    fn check(&self, auth: &Auth<'_>) -> Result<(), Verdict> {
        // [MQTT-4.12.0-5]
        if auth.method.is_some_and(|method| *method != *self.method) {
            return Err(OTHER_METHOD);
        }
        // [MQTT-4.12.0-3]; one without a method is the plain success that only a server may send.
        if auth.reason != ReasonCode::ContinueAuthentication {
            let why = "AUTH that does not continue the authentication";
            return Err(Verdict::refused(ReasonCode::ProtocolError, why));
        }
        Ok(())
    }
}

impl Connection {
    /// AUTH on an open connection: the client authenticates itself again. Meanwhile everything goes on as before.
    pub(super) fn handle_auth(&mut self, packet: &Auth<'_>) -> Result<(), Ending> {
        let (broker, slot) = (Arc::clone(&self.broker), Arc::clone(&self.slot));
        let certificate_name = self.peer.certificate_name.as_deref();
        // [MQTT-4.12.0-7]
        let Some(authentication) = &mut self.authentication else {
            return Err(Ending::Refused(ReasonCode::ProtocolError, "AUTH without an authentication method"));
        };
        // [MQTT-4.12.1-1], [MQTT-4.12.0-5]
        if packet.method.is_some_and(|method| *method != *authentication.method) {
            return Err(OTHER_METHOD.into());
        }
        let mut dialogue = match (packet.reason, authentication.again.take()) {
            (ReasonCode::ReAuthenticate, None) => {
                let claim = Claim {
                    client_id: &slot.keep.client_id,
                    user_name: None,
                    password: None,
                    certificate_name,
                    identity: authentication.identity.as_deref(),
                };
                let dialogue = broker.methods().and_then(|m| m.begin(&authentication.method, &claim));
                dialogue.ok_or(UNKNOWN_METHOD)?
            }
            (ReasonCode::ContinueAuthentication, Some(dialogue)) => dialogue,
            _ => return Err(Ending::Refused(ReasonCode::ProtocolError, "AUTH out of turn")),
        };
        let (reason, data) = match dialogue.step(packet.data) {
            Step::Continue(data) => {
                authentication.again = Some(dialogue);
                (ReasonCode::ContinueAuthentication, Some(data))
            }
            Step::Success { identity, data } if identity == authentication.identity => {
                info!(
                    client_id = &*slot.keep.client_id,
                    identity = identity.as_deref(),
                    "authenticated again"
                );
                (ReasonCode::Success, data)
            }
            Step::Success { .. } => {
                let why = "authenticated again as somebody else";
                return Err(Ending::Refused(ReasonCode::NotAuthorized, why));
            }
            // [MQTT-4.12.1-2]
            Step::Refused(refusal) => return Err(after_connack(refusal).into()),
        };
        let method: &str = &authentication.method;
        let sent = {
            let mut state = slot.state();
            if !state.is_served_by(self.epoch) {
                return Err(Ending::Replaced);
            }
            let link = state.session.link.as_mut();
            link.is_none_or(|link| link.send_fitting(&auth(reason, method, data.as_deref())))
        };
        if sent { Ok(()) } else { Err(TOO_LARGE.into()) }
    }
}

/// [MQTT-4.12.0-5]: the method is named in each.
fn auth<'a>(reason: ReasonCode, method: &'a str, data: Option<&'a [u8]>) -> Packet<'a> {
    Packet::Auth(Auth { reason, method: Some(method), data, properties: ReasonProperties::default() })
}

fn before_connack(refusal: Refusal) -> Verdict {
    let reason = match refusal {
        Refusal::Credentials => ReasonCode::BadUserNameOrPassword,
        Refusal::NotAuthorized => ReasonCode::NotAuthorized,
        Refusal::Banned => ReasonCode::Banned,
        Refusal::Busy => ReasonCode::ServerBusy,
        Refusal::Malformed => ReasonCode::ProtocolError,
    };
    Verdict::refused(reason, "the authentication failed")
}

/// DISCONNECT has no word for wrong credentials or a ban [MQTT-3.14.2-1].
fn after_connack(refusal: Refusal) -> Verdict {
    let reason = match refusal {
        Refusal::Credentials | Refusal::NotAuthorized | Refusal::Banned => ReasonCode::NotAuthorized,
        Refusal::Busy => ReasonCode::ServerBusy,
        Refusal::Malformed => ReasonCode::ProtocolError,
    };
    Verdict::refused(reason, "the authentication failed")
}
