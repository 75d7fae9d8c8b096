//! The seam between a session and whoever keeps its messages: the journal in production, plain memory in tests.

use std::sync::Arc;

use crate::{
    message::{Message, Seq},
    time::Timestamp,
    topic::TopicName,
};

/// A kept message's body, as far as memory has it.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Loaded(Arc<Message>),
    /// On disk: ask for it, and send nothing behind it meanwhile.
    Unloaded,
    /// Damaged on disk: it can never be sent.
    Lost,
}

/// Why a queued message will not be delivered. Never silent: the keeper counts and logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was full, and this was its oldest message.
    QueueFull,
    /// Its message expiry interval passed [MQTT-3.3.2-5].
    Expired,
    /// Larger than the client's maximum packet size [MQTT-3.1.2-25].
    TooLarge,
    /// Its body was damaged on disk.
    Damaged,
}

/// What a session asks of the keeper of its messages. A session never writes anything down by itself.
pub trait Keeper {
    /// A handle on one kept message, cheap to clone.
    type Kept: Clone;
    /// The same for one that waits on disk, small: valid until it is unparked, and as long as its session claims it.
    type Parked: Copy;
    /// A moment in the journal: open once everything up to it is durable.
    type Gate: Clone;

    /// The message behind the handle.
    fn body(&self, kept: &Self::Kept) -> Body;
    /// When the message expires, known without its body.
    fn expires_at(&self, kept: &Self::Kept) -> Timestamp;
    /// Bytes of topic, payload and properties, known without the body.
    fn size_bytes(&self, kept: &Self::Kept) -> usize;
    /// The body has been sent; memory may let go of it.
    fn unload(&self, kept: &Self::Kept);
    /// Whether the message is on disk, and nothing but a `Parked` is needed to find it again.
    fn is_parkable(&self, kept: &Self::Kept) -> bool;
    /// Gives up handles on messages that are parkable, for small ones.
    fn park(&self, kept: Vec<Self::Kept>) -> Vec<Self::Parked>;
    /// Turns small handles back.
    fn unpark(&self, parked: &[Self::Parked]) -> Vec<Self::Kept>;
    /// Bytes of topic, payload and properties of all these.
    fn parked_bytes(&self, parked: &[Self::Parked]) -> usize;
    /// The first of these that expires, by its place among them.
    fn first_to_expire(&self, parked: &[Self::Parked]) -> Option<usize>;
    /// A gate that is open.
    fn open_gate(&self) -> Self::Gate;
    /// Whether the journal has got that far.
    fn is_open(&self, gate: &Self::Gate) -> bool;
    /// A QoS 2 message may be sent only behind this gate: its inbound packet id is durable then.
    fn sent_after(&self, kept: &Self::Kept) -> Self::Gate;
    /// Whether nobody keeps track of it: when the client has it, there is nothing to confirm.
    fn is_untracked(&self, kept: &Self::Kept) -> bool;
    /// The client has it (PUBACK, or a refusing PUBREC): the session's claim ends.
    fn confirm(&self, seq: Seq, kept: &Self::Kept) -> Self::Gate;
    /// The same for several that come together, in this order; so are the gates.
    fn confirm_all(&self, row: &[(Seq, &Self::Kept)]) -> Vec<Self::Gate> {
        row.iter().map(|(seq, kept)| self.confirm(*seq, kept)).collect()
    }
    /// PUBREC: the message is the client's; only its sequence number still matters.
    fn received(&self, seq: Seq, kept: &Self::Kept) -> Self::Gate;
    /// PUBCOMP: even the number is free.
    fn completed(&self, seq: Seq) -> Self::Gate;
    /// The session gives the message up undelivered; it does not come back once the gate is open. `topic` is its topic,
    /// where the session has it at hand.
    fn dropped(
        &self,
        seq: Seq,
        kept: &Self::Kept,
        reason: DropReason,
        topic: Option<&TopicName>,
    ) -> Self::Gate;
    /// The in-flight window is nearly full of confirmations that are not durable yet: commit soon.
    fn hurry(&self);
}
