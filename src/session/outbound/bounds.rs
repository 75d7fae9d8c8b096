//! Bounds of a queue: one for most of its messages, and others for those under a rule of their own.
//!
//! Each message counts against one bound only, and makes room only among those of the same. What is in flight counts
//! against none.

use std::collections::VecDeque;

use super::{Outbound, QueueLimits};
use crate::{
    codec::QoS,
    message::Seq,
    session::keeper::{DropReason, Keeper},
};

/// What happens to a message that finds its bound reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest waiting one under the bound makes room: a dead device must not stop the living.
    DropOldest,
    /// The message itself is not queued for this session.
    DropNewest,
    /// It is refused before any session has got it: its publisher waits, or does something about it.
    Reject,
}

/// A bound for some of a session's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// Tells its messages from those of other rules.
    pub no: u8,
    /// Their bound.
    pub limits: QueueLimits,
}

/// What waits under the rules; what waits under none is the rest of the queue.
#[derive(Debug)]
pub(super) struct Books {
    ruled: Vec<Book>,
    /// No message below this waits under no rule.
    plain_from: Seq,
}

#[derive(Debug)]
struct Book {
    rule: u8,
    bytes: usize,
    /// Ascending.
    waiting: VecDeque<Seq>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self { ruled: Vec::new(), plain_from: Seq(0) }
    }

    pub(super) fn clear(&mut self) {
        self.ruled.clear();
    }

    /// A message joins the end of the queue.
    pub(super) fn add(&mut self, rule: u8, seq: Seq, bytes: usize) {
        let at = self.ruled.iter().position(|book| book.rule == rule).unwrap_or_else(|| {
            self.ruled.push(Book { rule, bytes: 0, waiting: VecDeque::new() });
            self.ruled.len() - 1
        });
        if let Some(book) = self.ruled.get_mut(at) {
            book.bytes += bytes;
            book.waiting.push_back(seq);
        }
    }

    /// A message has left the queue.
    pub(super) fn remove(&mut self, seq: Seq, bytes: usize) {
        for book in &mut self.ruled {
            let Ok(at) = book.waiting.binary_search(&seq) else { continue };
            book.waiting.remove(at);
            book.bytes = book.bytes.saturating_sub(bytes);
            break;
        }
        self.ruled.retain(|book| !book.waiting.is_empty());
    }

    fn of(&self, rule: u8) -> Option<&Book> {
        self.ruled.iter().find(|book| book.rule == rule)
    }

    fn has(&self, seq: Seq) -> bool {
        self.ruled.iter().any(|book| book.waiting.binary_search(&seq).is_ok())
    }
}

impl<K: Keeper> Outbound<K> {
    /// Whether a message of this size can wait without pushing another one out. One can wait alone, whatever its size.
    pub fn has_room(&self, bytes: usize, rule: Option<QueueRule>) -> bool {
        let (messages, waiting) = self.waiting_under(rule);
        let limits = self.limits(rule);
        messages == 0 || (messages < limits.messages_max && waiting.saturating_add(bytes) <= limits.bytes_max)
    }

    /// Says which of the messages brought back after a restart are under which rule; ascending.
    pub fn recover_rules(&mut self, keeper: &K, ruled: impl Iterator<Item = (Seq, u8)>) {
        for (seq, rule) in ruled {
            if let Some(bytes) = self.queue.size_bytes(keeper, seq) {
                self.books.add(rule, seq, bytes);
            }
        }
    }

    /// Drops the oldest messages until what waits under the rule is within its bound. The newest stays.
    pub(super) fn make_room(&mut self, keeper: &K, rule: Option<QueueRule>) {
        let limits = self.limits(rule);
        loop {
            let (messages, bytes) = self.waiting_under(rule);
            let is_over = messages > limits.messages_max || (bytes > limits.bytes_max && messages > 1);
            let oldest = if is_over { self.oldest(rule) } else { None };
            let Some(entry) = oldest.and_then(|seq| self.queue.remove(keeper, seq)) else { return };
            let bytes = keeper.size_bytes(&entry.kept);
            self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
            self.at_most_once -= u32::from(entry.delivery.qos == QoS::AtMostOnce);
            self.books.remove(entry.seq, bytes);
            self.dropped = Some(keeper.dropped(entry.seq, &entry.kept, DropReason::QueueFull, None));
        }
    }

    fn limits(&self, rule: Option<QueueRule>) -> QueueLimits {
        rule.map_or(self.limits, |rule| rule.limits)
    }

    /// Messages that wait under this rule, and their bytes.
    fn waiting_under(&self, rule: Option<QueueRule>) -> (usize, usize) {
        if let Some(rule) = rule {
            return self.books.of(rule.no).map_or((0, 0), |book| (book.waiting.len(), book.bytes));
        }
        let ruled = &self.books.ruled;
        let messages: usize = ruled.iter().map(|book| book.waiting.len()).sum();
        let bytes: usize = ruled.iter().map(|book| book.bytes).sum();
        (self.queue.len().saturating_sub(messages), self.queue_bytes.saturating_sub(bytes))
    }

    /// The oldest message under this rule.
    fn oldest(&mut self, rule: Option<QueueRule>) -> Option<Seq> {
        match rule {
            Some(rule) => self.books.of(rule.no)?.waiting.front().copied(),
            None if self.books.ruled.is_empty() => self.queue.first(),
            None => {
                let plain = self.queue.find_from(self.books.plain_from, |seq| !self.books.has(seq))?;
                self.books.plain_from = plain;
                Some(plain)
            }
        }
    }
}
