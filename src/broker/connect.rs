//! CONNECT: who comes, to which session, on which terms.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use tracing::{debug, info};

use super::{
    Broker, Peer,
    admission::{DISK_FULL, RESERVED},
    authenticate::{Authenticated, Handshake},
    connack::refusal_of_malformed,
    connection::Connection,
    dead_letters::is_reserved,
    dispatch::Touched,
    keep::Keep,
    lifecycle::ARM_AFTER,
    slot::{Attached, Slot, State},
    stats::Traffic,
};
use crate::{
    codec::{Connect, Packet, ReasonCode, Version, decode},
    message::{Message, Seq, SessionNo},
    session::{Link, Outbound, SEQ_BLOCK, Session, Tally, Terms, Verdict},
    store::{Gate, LAZY_INTERVAL, Record, SessionRecord, Snapshot, Urgency, WillRecord},
    sync::lock,
    time::Timestamp,
    topic::TopicName,
};

/// What the first bytes of a connection led to.
pub enum Greeting {
    /// Not yet a whole CONNECT: read more. Its size is bounded: an oversized or malformed one is refused.
    Incomplete,
    /// An extended authentication is under way: send `reply`, read more.
    Challenged {
        /// An AUTH.
        reply: Vec<u8>,
        /// Bytes of `input` that have been used.
        used_bytes: usize,
    },
    /// Send `reply` (it may be empty), then close.
    Refused {
        /// A CONNACK, or nothing.
        reply: Vec<u8>,
    },
    /// The client is attached to its session.
    Connected {
        /// The broker's end of the connection.
        connection: Connection,
        /// Bytes of `input` that have been used; the rest belongs to the next packets.
        used_bytes: usize,
    },
}

/// A CONNECT that passed all checks.
pub(super) struct Client<'a> {
    pub(super) packet: &'a Connect<'a>,
    pub(super) id: Arc<str>,
    pub(super) assigned: bool,
    pub(super) expiry: Duration,
    will: Option<Box<WillRecord>>,
    terms: Terms,
    pub(super) authenticated: Option<Authenticated>,
}

/// The session a client was attached to.
struct Joined {
    slot: Arc<Slot>,
    epoch: u64,
    present: bool,
}

impl Broker {
    /// Takes the first bytes of a connection, everything read so far and not used, until it is refused or connected.
    pub fn connect(
        self: &Arc<Self>,
        handshake: &mut Handshake,
        input: &[u8],
        peer: &Peer,
        now: Timestamp,
    ) -> Greeting {
        if handshake.is_pending() {
            return self.continue_authentication(handshake, input, peer, now);
        }
        // By its header: nobody has said yet who it is that wants so much room.
        let bytes_max = self.config.connect_bytes_max.min(self.config.packet_bytes_max);
        let (packet, used_bytes) = match decode(input, Version::V5, bytes_max) {
            Ok(None) => return Greeting::Incomplete,
            Ok(Some((Packet::Connect(packet), used))) => (packet, used),
            // [MQTT-3.1.0-1]
            Ok(Some(_)) => {
                let verdict = Verdict::refused(ReasonCode::ProtocolError, "the first packet is not CONNECT");
                return self.refuse(peer, "", verdict, Vec::new());
            }
            Err(error) => {
                let verdict = Verdict::refused(error.reason(), error.message());
                return self.refuse(peer, "", verdict, refusal_of_malformed(input, error));
            }
        };
        self.counters.received(&Traffic { packets: 1, bytes: used_bytes as u64, messages: [0; 3] });
        match self.admit(&packet, now) {
            Ok(client) => match packet.properties.authentication_method {
                None => self.accept(&client, peer, used_bytes, now),
                Some(method) => {
                    let bytes = input.get(..used_bytes).unwrap_or_default();
                    self.begin_authentication(handshake, (&packet, method), bytes, peer, now)
                }
            },
            Err(verdict) => self.refuse_packet(peer, &packet, verdict),
        }
    }

    /// A CONNECT whose client has authenticated itself goes the way of every other. `used_bytes` are those of its last AUTH.
    pub(super) fn connect_authenticated(
        self: &Arc<Self>,
        connect: &[u8],
        authenticated: Authenticated,
        used_bytes: usize,
        peer: &Peer,
        now: Timestamp,
    ) -> Greeting {
        let Ok(Some((Packet::Connect(packet), _))) =
            decode(connect, Version::V5, self.config.packet_bytes_max)
        else {
            // It has been read before.
            return Greeting::Refused { reply: Vec::new() };
        };
        match self.admit(&packet, now) {
            Ok(client) => {
                let client = Client { authenticated: Some(authenticated), ..client };
                self.accept(&client, peer, used_bytes, now)
            }
            Err(verdict) => self.refuse_packet(peer, &packet, verdict),
        }
    }

    pub(super) fn refuse_packet(&self, peer: &Peer, packet: &Connect<'_>, verdict: Verdict) -> Greeting {
        self.refuse(peer, packet.client_id, verdict, self.refusal(packet, verdict))
    }

    pub(super) fn refuse(&self, peer: &Peer, client_id: &str, verdict: Verdict, reply: Vec<u8>) -> Greeting {
        let Verdict { reason, why } = verdict;
        self.counters.refused(reason);
        if !reply.is_empty() {
            self.counters.sent(Tally { packets: 1, messages: [0; 3] }, reply.len());
        }
        // Nobody has looked at its length yet, perhaps: it must not fill the log.
        let shown = client_id.char_indices().nth(LOGGED_CHARS_MAX).and_then(|(end, _)| client_id.get(..end));
        let client_id = shown.unwrap_or(client_id);
        info!(client_id, address = %peer.address, listener = &*peer.listener, reason = why, "refused");
        debug!(bytes = reply.len(), "refusal sent");
        Greeting::Refused { reply }
    }

    /// Checks a CONNECT against what this broker serves.
    fn admit<'a>(&self, packet: &'a Connect<'a>, now: Timestamp) -> Result<Client<'a>, Verdict> {
        if self.is_shutting_down() {
            // CONNACK has no "server shutting down" [MQTT-3.2.2-8].
            return Err(Verdict::refused(ReasonCode::ServerUnavailable, "the broker is shutting down"));
        }
        // [MQTT-3.1.3-8]
        if packet.client_id.len() > self.config.client_id_bytes_max {
            let why = "the client identifier is too long";
            return Err(Verdict::refused(ReasonCode::ClientIdentifierNotValid, why));
        }
        let assigned = packet.client_id.is_empty();
        // [MQTT3-3.1.3-8]: in 3.1.1 only a clean session may leave its name to the server; 3.1 has no such thing.
        if assigned
            && (packet.version == Version::V31 || (packet.version == Version::V311 && !packet.clean_start))
        {
            return Err(Verdict::refused(ReasonCode::ClientIdentifierNotValid, "empty client identifier"));
        }
        let id = if assigned { self.assign_client_id(now) } else { packet.client_id.into() };
        let asked = match packet.version {
            Version::V5 => packet.properties.session_expiry.unwrap_or(0),
            _ if packet.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        let expiry = Duration::from_secs(u64::from(asked)).min(self.config.session_expiry_max);
        packet.will.as_ref().map_or(Ok(()), |will| self.config.features.check_will(will))?;
        let will = will(packet, now)?;
        let terms = self.terms(packet);
        Ok(Client { packet, id, assigned, expiry, will, terms, authenticated: None })
    }

    pub(super) fn terms(&self, packet: &Connect<'_>) -> Terms {
        let p = &packet.properties;
        let receive_maximum = p.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        Terms {
            version: packet.version,
            packet_bytes_max: p
                .packet_bytes_max
                .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            wants_reasons: p.request_problem_information.unwrap_or(true),
            receive_maximum: receive_maximum.min(self.config.inflight_max),
            alias_max_out: p.topic_alias_maximum.unwrap_or(0).min(self.config.topic_alias_max),
            out_bytes_max: self.config.out_bytes_max,
        }
    }

    fn accept(
        self: &Arc<Self>,
        client: &Client<'_>,
        peer: &Peer,
        used_bytes: usize,
        now: Timestamp,
    ) -> Greeting {
        // [MQTT-3.1.2-24]: a client that cannot be told its terms cannot keep them.
        if client.packet.properties.packet_bytes_max.is_some()
            && self.welcome(client, false).len() > client.terms.packet_bytes_max
        {
            let why = "the answer to CONNECT is larger than the client's maximum packet size";
            let verdict = Verdict::refused(ReasonCode::PacketTooLarge, why);
            return self.refuse_packet(peer, client.packet, verdict);
        }
        let joined = match self.join(client, now) {
            Ok(joined) => joined,
            Err(verdict) => {
                return self.refuse(peer, &client.id, verdict, self.refusal(client.packet, verdict));
            }
        };
        let keep_alive = self.keep_alive(client.packet);
        info!(
            client_id = &*client.id,
            address = %peer.address,
            listener = &*peer.listener,
            version = ?client.terms.version,
            identity = client.authenticated.as_ref().and_then(|a| a.identity.as_deref()),
            keep_alive_s = keep_alive,
            session_present = joined.present,
            session_expiry_s = client.expiry.as_secs(),
            "connected"
        );
        let limit = (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500));
        let version = client.terms.version;
        let connection = Connection::new(
            Arc::clone(self),
            joined.slot,
            joined.epoch,
            version,
            limit,
            client.authenticated.as_ref(),
            peer.clone(),
            now,
        );
        self.counters.accepted();
        Greeting::Connected { connection, used_bytes }
    }

    /// Attaches the client to its former session or a new one, if there can be a new one.
    fn join(self: &Arc<Self>, client: &Client<'_>, now: Timestamp) -> Result<Joined, Verdict> {
        // One that takes the place of another takes no more room.
        let mut replaces = false;
        loop {
            let existing = lock(&self.registry).by_client_id(&client.id);
            let Some(slot) = existing else {
                match self.create(client, replaces) {
                    Created::Joined(joined) => return Ok(joined),
                    Created::Refused(verdict) => return Err(verdict),
                    // Another connection of the same client was faster.
                    Created::Exists => continue,
                }
            };
            // [MQTT-3.1.4-3], [MQTT3-3.1.4-2]: the old connection ends, and has handled its last packet, before this one goes on.
            self.kick(&slot, TAKEN_OVER, now);
            let _handling = lock(&slot.handling);
            self.kick(&slot, TAKEN_OVER, now);
            // Nobody may have come to it yet, after a start.
            if self.end_if_expired(&slot, now) {
                replaces |= slot.keep.persistent;
                continue;
            }
            if client.packet.clean_start || !slot.keep.persistent {
                // [MQTT-3.1.2-4]
                if self.end_session(&slot, now) {
                    replaces |= slot.keep.persistent;
                } else {
                    // Somebody else is ending it at this moment.
                    std::thread::yield_now();
                }
                continue;
            }
            if let Some(joined) = self.resume(&slot, client, now) {
                return Ok(joined);
            }
        }
    }

    fn create(&self, client: &Client<'_>, replaces: bool) -> Created {
        let persistent = !client.expiry.is_zero();
        let mut registry = lock(&self.registry);
        if registry.by_client_id(&client.id).is_some() {
            return Created::Exists;
        }
        if registry.len() >= self.config.sessions_max {
            let why = "the maximum number of sessions is reached";
            return Created::Refused(Verdict::refused(ReasonCode::QuotaExceeded, why));
        }
        if persistent && !replaces && !self.journal.has_room(0) {
            return Created::Refused(DISK_FULL);
        }
        // It would leave a session behind that nobody was told of.
        if persistent && self.journal.poisoned() {
            let why = "the store has failed";
            return Created::Refused(Verdict::refused(ReasonCode::ServerUnavailable, why));
        }
        let no = registry.take_number();
        let reserved = if persistent { Seq(SEQ_BLOCK) } else { Seq(u64::MAX) };
        let record = SessionRecord {
            session: no,
            client_id: Arc::clone(&client.id),
            expiry: client.expiry,
            expires_at: Timestamp::NEVER,
            inflight_max: self.config.inflight_max,
            sent_below: Seq::MAX,
            seq_reserved: reserved,
            will: client.will.clone(),
            user_name: self.remembered_user(client),
        };
        // The first record of the new session stands behind the last one of the old.
        let gate = if persistent {
            self.journal.append(first_record(&record), Urgency::Now)
        } else {
            registry.gone(&client.id)
        };
        let outbound = Outbound::new(Seq(0), reserved, self.config.inflight_max, self.config.queue);
        let mut state = State {
            session: Session::new(outbound),
            connection: None,
            record,
            settled: gate.clone(),
            spared_until: Timestamp::default(),
            arming: false,
            will_is_leaving: false,
            ended: false,
        };
        let keep = self.keep(no, &client.id, persistent);
        let epoch = self.attach(&mut state, &keep, client, false, gate);
        let queue_rules = self.queues.rules_for(&client.id, state.record.user_name.as_deref());
        let slot = Arc::new(Slot::new(no, keep, state, queue_rules));
        slot.set_online(true);
        registry.insert(&slot);
        Created::Joined(Joined { slot, epoch, present: false })
    }

    pub(super) fn keep(&self, session: SessionNo, client_id: &Arc<str>, persistent: bool) -> Keep {
        Keep {
            journal: self.journal.clone(),
            session,
            client_id: Arc::clone(client_id),
            persistent,
            drops: Arc::clone(&self.drops),
            letters: Arc::clone(&self.letters),
        }
    }

    /// Who the client is, as far as its session has to remember it: some put a secret where others put a name.
    fn remembered_user(&self, client: &Client<'_>) -> Option<Arc<str>> {
        if !self.queues.name_users() {
            return None;
        }
        let identity = client.authenticated.as_ref().and_then(|a| a.identity.clone());
        identity.or_else(|| client.packet.user_name.map(Arc::from))
    }

    /// `None`: the session has ended meanwhile, or is not to be had at this moment.
    fn resume(&self, slot: &Arc<Slot>, client: &Client<'_>, now: Timestamp) -> Option<Joined> {
        let mut state = slot.state();
        if state.will_is_leaving {
            // Somebody is publishing it at this moment. Its record must not give way to one without it before the
            // journal has the message: a crash between the two would lose it.
            drop(state);
            std::thread::yield_now();
            return None;
        }
        if state.ended {
            return None;
        }
        let mut arms_at = Timestamp::NEVER;
        let mut record = state.record.clone();
        record.expires_at = Timestamp::NEVER;
        record.sent_below = Seq::MAX;
        record.expiry = client.expiry;
        // What was sent under a larger window still counts as sent after a crash.
        let in_flight = u16::try_from(state.session.outbound.in_flight()).unwrap_or(u16::MAX);
        record.inflight_max = self.config.inflight_max.max(in_flight);
        // [MQTT-3.1.3-9]: a will that was waiting goes with the old connection.
        record.will.clone_from(&client.will);
        record.user_name = self.remembered_user(client);
        slot.set_queue_rules(self.queues.rules_for(&client.id, record.user_name.as_deref()));
        if record != state.record {
            let awake =
                SessionRecord { expires_at: Timestamp::NEVER, sent_below: Seq::MAX, ..state.record.clone() };
            let only_woke = awake == record;
            let may_wait = only_woke && !has_slept_long(&state.record, now);
            let urgency = if may_wait { wake_urgency(record.expiry) } else { Urgency::Now };
            state.record = record;
            state.spared_until = Timestamp::default();
            if urgency == Urgency::Lazy && state.record.will.is_some() {
                state.arming = true;
                arms_at = now.after(ARM_AFTER);
                state.session.outbound.wakes(None);
            } else {
                let gate = self.journal.append(state.record_now(), urgency);
                state.session.outbound.wakes(Some(gate.clone()));
                if !may_wait {
                    state.settled = gate;
                }
            }
        }
        state.session.outbound.set_inflight_max(self.config.inflight_max);
        let settled = state.settled.clone();
        let epoch = self.attach(&mut state, &slot.keep, client, true, settled);
        slot.set_online(true);
        drop(state);
        lock(&self.registry).schedule(arms_at, slot.no);
        Some(Joined { slot: Arc::clone(slot), epoch, present: true })
    }

    fn attach(&self, state: &mut State, keep: &Keep, client: &Client<'_>, present: bool, gate: Gate) -> u64 {
        let bytes = self.welcome(client, present);
        state.session.attach(keep, Link::new(client.terms, bytes, gate));
        let epoch = self.next_epoch();
        state.connection = Some(Attached { epoch, waker: None, notified: false });
        epoch
    }

    /// The keep alive in force, in seconds; 0 is none.
    pub(super) fn keep_alive(&self, packet: &Connect<'_>) -> u16 {
        match (self.config.keep_alive_max, packet.version) {
            (Some(max), Version::V5) if packet.keep_alive == 0 || packet.keep_alive > max => max,
            _ => packet.keep_alive,
        }
    }

    /// A client identifier no session has [MQTT-3.2.2-16].
    fn assign_client_id(&self, now: Timestamp) -> Arc<str> {
        loop {
            // Unique in this process by the epoch, across restarts by the time line, which never goes back.
            let id: Arc<str> = format!("dm-{:x}-{:x}", now.0, self.next_epoch()).into();
            if lock(&self.registry).by_client_id(&id).is_none() {
                return id;
            }
        }
    }

    /// Ends the connection that serves the session, if there is one, as if it had been lost.
    pub(super) fn kick(&self, slot: &Arc<Slot>, verdict: Verdict, now: Timestamp) {
        let mut touched = Touched::default();
        let mut state = slot.state();
        if state.connection.is_none() {
            return;
        }
        state.kick(verdict, &self.farewells, &self.counters);
        self.after_connection(slot, state, None, now, &mut touched);
    }
}

/// The verdict on a connection whose client has come again by another.
pub(super) const TAKEN_OVER: Verdict =
    Verdict { reason: ReasonCode::SessionTakenOver, why: "another connection with this client identifier" };
/// Characters of a refused client identifier that are logged.
const LOGGED_CHARS_MAX: usize = 64;

enum Created {
    Joined(Joined),
    Exists,
    Refused(Verdict),
}

/// How soon the journal has to know that a session has woken or gone to sleep. Until then it has the session as asleep
/// since earlier, and would end it too early after a crash: [`unrecorded_wakes`] is what recovery adds for that.
pub(super) fn wake_urgency(expiry: Duration) -> Urgency {
    if expiry > Duration::from_secs(86_400) { Urgency::Lazy } else { Urgency::Rides }
}

/// A session that has slept for more than a quarter of its expiry tells the journal of its wake before its client is
/// told that it is present. One that wakes more often costs no commit, and [`unrecorded_wakes`] covers it.
fn has_slept_long(record: &SessionRecord, now: Timestamp) -> bool {
    record.expires_at.since(now) < record.expiry / 4 * 3
}

/// What a sleeping session is given after a crash beyond the end that the journal has, since its client may have been
/// there meanwhile, and have been told so. Such a wake came within a quarter of the expiry, and its record was late by
/// what [`wake_urgency`] and [`COMMIT_TIME_MAX`] allow.
pub(super) fn unrecorded_wakes(expiry: Duration) -> Duration {
    let late = if wake_urgency(expiry) == Urgency::Lazy { LAZY_INTERVAL } else { Duration::ZERO };
    (expiry / 4).saturating_add(late).saturating_add(COMMIT_TIME_MAX)
}

/// How long a disk may take for a commit that is due, for a wake to be remembered; 60 s: one that is slower has failed.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(60);

fn first_record(record: &SessionRecord) -> Record {
    let (subscriptions, inbound_qos2, received) = (Vec::new(), Vec::new(), Vec::new());
    Record::Snapshot(Box::new(Snapshot { record: record.clone(), subscriptions, inbound_qos2, received }))
}

/// The will of a CONNECT.
fn will(packet: &Connect<'_>, now: Timestamp) -> Result<Option<Box<WillRecord>>, Verdict> {
    let Some(will) = &packet.will else { return Ok(None) };
    let topic = TopicName::parse(will.topic)
        .map_err(|_| Verdict::refused(ReasonCode::TopicNameInvalid, "invalid will topic"))?;
    if is_reserved(will.topic) {
        return Err(RESERVED);
    }
    let publish = crate::codec::Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        packet_id: None,
        properties: will.properties.clone(),
        payload: will.payload,
    };
    let mut message = Message::from_packet(topic, &publish, now);
    // Its expiry interval counts from publication.
    message.expires_at = Timestamp::NEVER;
    let delay = Duration::from_secs(u64::from(will.delay.unwrap_or(0)));
    let expiry = will.properties.message_expiry;
    Ok(Some(Box::new(WillRecord { message, delay, due_at: Timestamp::NEVER, expiry })))
}
