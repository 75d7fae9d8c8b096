//! The bound on disk space: what takes more of it is refused before the disk is full.
//!
//! A part of the disk, the *reserve*, is kept free for what has to go on then: confirmations, the ends of sessions, and
//! compaction, which writes before it deletes. The commit thread asks the file system as it writes, and each second when it
//! does not: others fill the disk too. In between, what is on its way counts for more than its bytes: the store below grows
//! by whole segments, and by some more than it is given. Once full, the journal is so until there is some room more than it
//! takes to be full again.

use std::{sync::Arc, time::Duration};

use super::{
    commit::Committer,
    config::Config,
    journal::{Journal, Shared},
    medium::DiskSpace,
    state::State,
    stored::Stored,
};
use crate::{message::Message, time::Timestamp};

/// The file system is asked when that many bytes of frames have been written, or a sixteenth of the room there was; and when
/// that much time has passed.
const LOOK_BYTES_MIN: u64 = 256 << 10;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What files grow by for each byte that waits to be written, at most, but for very small commits. Measured: 1.1 to 1.7 in
/// commits of 400 bytes and more, 2.6 in commits of 90.
const GROWTH: u64 = 2;
/// And for what they grow by besides: a segment of sled's.
const SLACK_BYTES: u64 = 512 << 10;
/// A reserve is so many generations, unless it is given: two for a copy and what it is a copy of, two for confirmations.
const RESERVE_GENERATIONS: u64 = 4;
/// But no more than one part in so many of the disk.
const RESERVE_SHARE: u64 = 4;
/// A file system with fewer files left than this counts as full. A generation is five.
const FILES_MIN: u64 = 64;

/// How badly room is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// There is enough.
    None,
    /// As little as the reserve is left above it.
    Near,
    /// Publishers are refused.
    Full,
    /// Half of the reserve is gone.
    Dire,
}

/// What the last look at the disk has shown, and what has been taken on since.
#[derive(Debug, Default)]
pub(super) struct Space {
    is_full: bool,
    /// The log knows that it is.
    is_announced: bool,
    /// `None` as long as nobody has looked, or there is nothing to look at.
    found: Option<Found>,
    /// Bytes of messages that have become complete since the books were shown last.
    came_bytes: u64,
    /// When to look again without a commit.
    pub(super) look_at: Option<Timestamp>,
}

/// One of the two bounds: the file system's, or the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "units stand last")]
struct Found {
    /// Bytes that may be taken, with the reserve, and without what the next start takes.
    free_bytes: u64,
    reserve_bytes: u64,
    /// Bytes the files may grow by before the journal is full.
    room_bytes: u64,
    /// So many there have to be before it is not full any more.
    needed_bytes: u64,
    /// The file system's own free bytes.
    disk_free_bytes: Option<u64>,
}

/// When the commit thread has looked last.
#[derive(Debug, Default)]
pub(super) struct Looks {
    at: Option<Timestamp>,
    bytes_since: u64,
    room_bytes: u64,
}

impl Looks {
    /// Takes note of a commit's size.
    pub(super) fn committed(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    /// Space has become free: look at once.
    pub(super) fn freed(&mut self) {
        self.at = None;
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.bytes_since >= LOOK_BYTES_MIN.max(self.room_bytes / 16)
            || self.at.is_none_or(|at| now.since(at) >= LOOK_INTERVAL)
    }
}

impl Space {
    /// A commit is on disk.
    pub(super) fn written(&mut self, bytes: u64) {
        if let Some(found) = &mut self.found {
            found.free_bytes = found.free_bytes.saturating_sub(bytes * GROWTH);
            found.room_bytes = found.room_bytes.saturating_sub(bytes * GROWTH);
        }
    }

    /// A message that was taken is complete, or will not be.
    pub(super) fn came(&mut self, message: Option<&Arc<Message>>) {
        self.came_bytes += message.map_or(0, |message| message.size_bytes() as u64);
    }

    /// Bytes of those that have since this was asked last.
    pub(super) fn take_came(&mut self) -> u64 {
        std::mem::take(&mut self.came_bytes)
    }

    /// A message of this size was refused. What is refused to one is refused to all, but for what is larger than most.
    pub(super) fn refused(&mut self, bytes: usize) {
        self.is_full |= self.found.is_some() && bytes as u64 <= SLACK_BYTES;
    }

    /// Bytes free on the file system, and what the journal may grow by before it is full; at the last look.
    pub(super) fn free_and_room(&self) -> (Option<u64>, Option<u64>) {
        let disk_free_bytes = self.found.and_then(|found| found.disk_free_bytes);
        (disk_free_bytes, self.found.map(|found| found.room_bytes))
    }

    /// What a generation may have at most: a quarter of the reserve, which has to take a copy of one.
    pub(super) fn generation_bytes_max(&self) -> u64 {
        self.found.map_or(u64::MAX, |found| found.reserve_bytes / RESERVE_GENERATIONS)
    }

    pub(super) fn pressure(&self) -> Pressure {
        match self.found {
            Some(found) if found.free_bytes < found.reserve_bytes / 2 => Pressure::Dire,
            _ if self.is_full => Pressure::Full,
            Some(found) if found.room_bytes < found.reserve_bytes => Pressure::Near,
            _ => Pressure::None,
        }
    }

    /// Whether so many bytes leave half of the reserve.
    fn spares(&self, bytes: u64) -> bool {
        let leaves = |found: Found| found.free_bytes.saturating_sub(bytes.saturating_mul(GROWTH));
        self.found.is_none_or(|found| leaves(found) >= found.reserve_bytes / 2)
    }

    /// Whether so many bytes can be copied before anything is deleted.
    pub(super) fn takes_copies(&self, bytes: u64) -> bool {
        self.found
            .is_none_or(|found| bytes.saturating_mul(GROWTH).saturating_add(SLACK_BYTES) < found.free_bytes)
    }
}

impl State {
    /// Bytes that may be taken on now; what has been taken and is not complete yet (`Intake`) is still to be taken off. Nothing that
    /// is not kept already may be when it is 0.
    pub(super) fn room_bytes(&self) -> u64 {
        let Some(found) = self.space.found.filter(|_| !self.space.is_full) else {
            return if self.space.is_full { 0 } else { u64::MAX };
        };
        let taken = (self.backlog_bytes() + self.hold.bytes()) as u64;
        found.room_bytes.saturating_sub(SLACK_BYTES).saturating_sub(taken.saturating_mul(GROWTH)) / GROWTH
    }

    /// Whether a message of this size may be given to the journal now that makes room by what it takes the place of. It makes
    /// less than it takes where others have claims on the same message; so not before those that wait are written, if the
    /// disk may not have room for all of them.
    fn takes_instead(&self, bytes: usize) -> bool {
        let waiting = self.backlog_bytes();
        let with_it = (waiting + self.hold.bytes()).saturating_add(bytes) as u64;
        !self.is_backlogged() && (waiting == 0 || self.space.spares(with_it))
    }
}

impl Journal {
    /// Registers a message before the first session is given it. `complete` must follow, or `withdraw`.
    pub fn message(&self, message: Arc<Message>) -> Arc<Stored> {
        self.shared().intake.come(message.size_bytes() as u64);
        self.register(message)
    }

    /// The same for one that may be refused: `None` if there is no room on the disk for it.
    pub fn message_if_room(&self, message: &Arc<Message>) -> Option<Arc<Stored>> {
        let bytes = message.size_bytes() as u64;
        let shared = self.shared();
        let before = shared.intake.come(bytes);
        if bytes < shared.room_bytes().saturating_sub(before) {
            return Some(self.register(Arc::clone(message)));
        }
        shared.intake.came(bytes);
        None
    }

    fn register(&self, message: Arc<Message>) -> Arc<Stored> {
        let shared = self.shared();
        let label = shared.config.labels.of(&message.topic);
        Arc::new(Stored::new(shared.intake.next_id(), message, label))
    }

    /// A message of this size was refused for want of room: so is what is smaller, until there is some more.
    pub fn refused(&self, bytes: usize) {
        self.shared().change(|state| state.space.refused(bytes));
    }

    /// A registered message that nobody was given.
    pub fn withdraw(&self, stored: &Stored) {
        let message = stored.body();
        self.shared().change(|state| state.space.came(message.as_ref()));
    }

    /// Whether there is room on the disk for so many bytes more. Where there is none, what has to be stored is to be refused;
    /// what makes room goes on. It may have changed when something is registered.
    pub fn has_room(&self, bytes: usize) -> bool {
        let shared = self.shared();
        (bytes as u64) < shared.room_bytes().saturating_sub(shared.intake.coming_bytes())
    }

    /// Whether a message of this size may be given now that takes the place of another ([`Self::complete_instead`]), if the
    /// journal is not pressed. If not: when what waits is written.
    pub fn takes_instead(&self, bytes: usize) -> bool {
        self.shared().state().takes_instead(bytes)
    }

    /// Whether the disk has so little room that not even what makes some by its end may be written now.
    pub fn is_pressed(&self) -> bool {
        self.shared().state().space.pressure() == Pressure::Dire
    }
}

impl Committer {
    /// Looks how much room there is, if it is time to.
    pub(super) fn look_at_space(&mut self, shared: &Shared) {
        let now = shared.now();
        if !self.looks.is_due(now) {
            return;
        }
        let disk = shared.medium.space();
        let journal_bytes = shared.config.disk_bytes_max.map(|_| shared.medium.disk_bytes());
        let found = found(&shared.config, disk, journal_bytes);
        self.looks = Looks {
            at: Some(now),
            bytes_since: 0,
            room_bytes: found.map_or(u64::MAX, |found| found.room_bytes),
        };
        if let Some((spare, found)) = self.spare.as_mut().zip(found) {
            spare.has_room(found.room_bytes);
        }
        shared.change(|state| {
            let space = &mut state.space;
            space.found = found;
            space.look_at = found.map(|_| now.after(LOOK_INTERVAL));
            let Some(found) = found else { return };
            let Found { room_bytes, disk_free_bytes, .. } = found;
            space.is_full = room_bytes < if space.is_full { found.needed_bytes } else { 2 * SLACK_BYTES };
            if space.is_full && !space.is_announced {
                tracing::error!(
                    disk_free_bytes,
                    journal_bytes,
                    "the disk is full: what would have to be stored is refused until there is room"
                );
            } else if space.is_announced && !space.is_full {
                tracing::info!(disk_free_bytes, journal_bytes, room_bytes, "there is room on the disk again");
            }
            space.is_announced = space.is_full;
        });
    }
}

/// Bytes that a copy of so many, of so many generations, takes beside them, and what room there is above the reserve; `None`
/// if there is enough. The copy is written in large pieces, so its files grow by no more than those that are copied; but each
/// of its generations by a segment at a time.
pub(super) fn lacks_room_for_copy(
    config: &Config,
    disk: Option<DiskSpace>,
    journal_bytes: u64,
    generations: u64,
) -> Option<(u64, u64)> {
    let needed_bytes = journal_bytes.saturating_add(generations.saturating_mul(SLACK_BYTES));
    let room_bytes = found(config, disk, Some(journal_bytes))?.room_bytes;
    (room_bytes < needed_bytes).then_some((needed_bytes, room_bytes))
}

/// The tighter of the two bounds.
fn found(config: &Config, disk: Option<DiskSpace>, journal_bytes: Option<u64>) -> Option<Found> {
    let usual = |total_bytes: u64| {
        RESERVE_GENERATIONS.saturating_mul(config.generation_bytes).min(total_bytes / RESERVE_SHARE)
    };
    let disk_free_bytes = disk.map(|disk| disk.free_bytes);
    let of_disk = disk.map(|disk| {
        let free_bytes = if disk.free_files < FILES_MIN { 0 } else { disk.free_bytes };
        let reserve = config.disk_reserve_bytes.unwrap_or_else(|| usual(disk.total_bytes));
        Found::new(free_bytes.saturating_sub(disk.owed_bytes), disk.total_bytes, reserve, disk_free_bytes)
    });
    let of_journal = config.disk_bytes_max.zip(journal_bytes).map(|(max, journal_bytes)| {
        let owed_bytes = disk.map_or(0, |disk| disk.owed_bytes);
        Found::new(max.saturating_sub(journal_bytes + owed_bytes), max, usual(max), disk_free_bytes)
    });
    of_disk.into_iter().chain(of_journal).min_by_key(|found| found.room_bytes)
}

impl Found {
    fn new(free_bytes: u64, total_bytes: u64, reserve_bytes: u64, disk_free_bytes: Option<u64>) -> Self {
        // Else a large reserve on a small disk would never let go.
        let needed = (reserve_bytes / 4).min(total_bytes.saturating_sub(reserve_bytes) / 4);
        Self {
            free_bytes,
            reserve_bytes,
            room_bytes: free_bytes.saturating_sub(reserve_bytes),
            needed_bytes: needed.max(3 * SLACK_BYTES),
            disk_free_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_tighter_bound_counts() {
        let config = Config { disk_bytes_max: Some(160 * MIB), ..Config::default() };
        let disk = |free, total, free_files| {
            let (free_bytes, total_bytes) = (free * MIB, total * MIB);
            Some(DiskSpace { free_bytes, total_bytes, owed_bytes: MIB, free_files })
        };
        for (free, total, files, journal, room, reserve) in [
            // A quarter of `disk_bytes_max`.
            (1_000, 10_000, 1_000, 0, 119, 40),
            (1_000, 10_000, 1_000, 130, 0, 40),
            // Four generations.
            (100, 10_000, 1_000, 0, 35, 64),
            (60, 10_000, 1_000, 0, 0, 64),
            (1_000, 10_000, 10, 0, 0, 64),
            // A quarter of a small one.
            (20, 64, 1_000, 0, 3, 16),
        ] {
            let found = found(&config, disk(free, total, files), Some(journal * MIB)).unwrap();
            let case = format!("{free} of {total}, {journal}");
            assert_eq!((found.room_bytes, found.reserve_bytes), (room * MIB, reserve * MIB), "{case}");
            assert_eq!(found.disk_free_bytes, Some(free * MIB), "{case}");
        }
        assert_eq!(found(&Config::default(), None, None), None, "no file system, no bound");
    }

    #[test]
    fn a_reserve_that_is_most_of_the_disk_lets_go_again() {
        let config = Config { disk_reserve_bytes: Some(900 * MIB), ..Config::default() };
        let disk = DiskSpace {
            free_bytes: 950 * MIB,
            total_bytes: 1_000 * MIB,
            owed_bytes: 0,
            free_files: u64::MAX,
        };
        let found = found(&config, Some(disk), None).unwrap();
        assert!(found.room_bytes >= found.needed_bytes, "{found:?}");
    }
}
