//! Who gets the dead letters; and others who fill the disk.

use super::{
    super::{
        device::{Body, Hello, Said},
        model::Verdict,
    },
    POST, Trial,
    world::{POST_EXPIRY, RESERVE_BYTES},
};
use crate::codec::QoS;

impl Trial {
    /// It subscribes before there is anything to lose.
    pub(super) fn open_the_post(&mut self) {
        if !self.terms.letters {
            return;
        }
        self.post_comes();
        let id = self.request();
        self.devices[POST].say(Said::Subscribe { id, filter: "$dead/#", qos: QoS::AtLeastOnce });
        self.exchange(POST);
        self.settle();
        self.exchange(POST);
    }

    fn post_comes(&mut self) {
        self.greet(POST, Hello { clean: false, expiry: POST_EXPIRY, receive_maximum: 5, will: None });
        self.exchange(POST);
        self.settle();
        self.exchange(POST);
    }

    pub(super) fn post_comes_and_goes(&mut self) {
        if !self.devices[POST].is_greeted() {
            self.post_comes();
        } else if self.odds.one_in(3) {
            self.lose(POST);
        } else {
            self.exchange(POST);
        }
    }

    /// `$dead/<reason>/<client id>/<topic>`
    pub(super) fn letter(&mut self, topic: &str, body: Body) -> Verdict {
        self.note(|| format!("  a letter: {topic} {body}"));
        let mut levels = topic.split('/').skip(1);
        let (reason, client_id) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        let Some(about) = self.devices.iter().position(|device| device.name == client_id) else {
            return Err(format!("a letter of nobody: {topic}"));
        };
        self.tally.letters += 1;
        self.model.letter(about, body, reason)
    }

    /// Others take some of the disk, or give it back; the broker looks once a second.
    pub(super) fn others_come(&mut self) {
        self.tally.full += u64::from(self.broker.stats().store.is_full);
        let Some(disk_bytes) = self.disk_bytes else { return };
        // Not more than the reserve between two looks.
        let least = self.disk.used_bytes() + RESERVE_BYTES * 3 / 8;
        let wanted = disk_bytes - self.odds.next() % (disk_bytes / 2);
        let left = [disk_bytes, wanted, wanted.min(least + RESERVE_BYTES)][self.odds.below(3)];
        self.note(|| format!("others leave {left} bytes of the disk"));
        self.disk.set_capacity(left.clamp(least.min(disk_bytes), disk_bytes));
        self.pass(1_000);
        self.settle();
    }

    pub(super) fn others_leave(&mut self) {
        if let Some(disk_bytes) = self.disk_bytes {
            self.disk.set_capacity(disk_bytes);
        }
    }

    /// Everything is drained: publishing has resumed by itself.
    pub(super) fn there_is_room_again(&mut self) {
        if !self.terms.crowded {
            return;
        }
        for _ in 0..10 {
            self.pass(1_000);
            self.settle();
        }
        let stats = self.broker.stats().store;
        if stats.is_full || stats.is_poisoned {
            self.wrong(&format!("the disk is still full: {} bytes of {stats:?}", self.disk.used_bytes()));
        }
    }
}
