//! A disk for tests and simulations: keeps what was synced and a random share of the rest.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{DiskSpace, Found, Medium, MediumError, NumberedFrame};
use crate::sync::lock;

/// A simulated disk. Clones are the same disk; it outlives the journals opened on it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Debug, Default)]
struct DiskState {
    generations: BTreeMap<u32, BTreeMap<u64, Vec<u8>>>,
    /// Applied and not yet synced, in order.
    unsynced: Vec<(u32, u64)>,
    /// Counts power cuts: a medium opened before the last one has no disk any more.
    boots: u64,
    /// How many more operations succeed before the power goes.
    operations_left: Option<u64>,
    operations: u64,
    skip_sync: bool,
    /// How many bytes of frames fit; `None`: any number.
    capacity_bytes: Option<u64>,
    used_bytes: u64,
    /// How many of eight frames are in memory, and can be read without waiting for the disk.
    eighths_in_memory: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as a running journal sees it, until the next `cut`.
    pub fn medium(&self) -> SimMedium {
        SimMedium { disk: self.clone(), boot: self.lock().boots }
    }

    /// Takes the power away and gives it back: every unsynced frame is kept or lost by the toss of `seed`'s coin.
    /// Media of before work no longer.
    pub fn cut(&self, seed: u64) {
        let mut state = self.lock();
        state.boots += 1;
        state.operations_left = None;
        let mut coin = seed | 1;
        for (generation, frame) in std::mem::take(&mut state.unsynced) {
            coin ^= coin << 13;
            coin ^= coin >> 7;
            coin ^= coin << 17;
            if coin & 1 == 0
                && let Some(lost) = state.generations.get_mut(&generation).and_then(|f| f.remove(&frame))
            {
                state.used_bytes -= lost.len() as u64;
            }
        }
    }

    /// Takes the process away, not the machine: what was applied stays.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.boots += 1;
        state.operations_left = None;
        state.unsynced.clear();
    }

    /// Lets `operations` more writing operations succeed; the one after that, and all later ones, fail.
    pub fn fail_after(&self, operations: u64) {
        self.lock().operations_left = Some(operations);
    }

    /// A disk that lies: `sync` returns at once and keeps nothing safe. Tests of tests use it.
    pub fn skip_sync(&self) {
        self.lock().skip_sync = true;
    }

    /// So many bytes of frames fit; to write more fails, as on a full disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity_bytes = Some(bytes);
    }

    /// Bytes of frames on it.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes
    }

    /// So many of eight frames are read without waiting; before this is said, none.
    pub fn set_in_memory(&self, eighths: u64) {
        self.lock().eighths_in_memory = eighths;
    }

    /// Changes one bit of a stored frame, chosen by `seed`. False if there is none.
    pub fn flip_bit(&self, seed: u64) -> bool {
        let mut state = self.lock();
        let count: usize = state.generations.values().map(BTreeMap::len).sum();
        if count == 0 {
            return false;
        }
        let pick = usize::try_from(seed % count as u64).unwrap_or(0);
        let Some(bytes) = state.generations.values_mut().flat_map(BTreeMap::values_mut).nth(pick) else {
            return false;
        };
        let bit = usize::try_from(seed / 7 % (bytes.len() as u64 * 8)).unwrap_or(0);
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// How many writing operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many generations there are.
    pub fn generations(&self) -> usize {
        self.lock().generations.len()
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.state)
    }
}

/// A `SimDisk` as a medium.
#[derive(Debug)]
pub struct SimMedium {
    disk: SimDisk,
    boot: u64,
}

impl SimMedium {
    /// The disk, if it has power.
    fn powered(&self) -> Result<MutexGuard<'_, DiskState>, MediumError> {
        let state = self.disk.lock();
        if state.boots == self.boot { Ok(state) } else { Err(no_power()) }
    }

    /// The same for an operation that writes.
    fn writing(&self) -> Result<MutexGuard<'_, DiskState>, MediumError> {
        let mut state = self.powered()?;
        state.operations += 1;
        match &mut state.operations_left {
            Some(0) => return Err(no_power()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

impl Medium for SimMedium {
    fn generations(&self) -> Vec<u32> {
        self.disk.lock().generations.keys().copied().collect()
    }

    fn space(&self) -> Option<DiskSpace> {
        let state = self.disk.lock();
        let total_bytes = state.capacity_bytes?;
        let free_bytes = total_bytes.saturating_sub(state.used_bytes);
        Some(DiskSpace { free_bytes, total_bytes, owed_bytes: 0, free_files: u64::MAX })
    }

    fn disk_bytes(&self) -> u64 {
        self.disk.used_bytes()
    }

    fn scan(&self, generation: u32, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError> {
        let frames = self.powered()?.generations.get(&generation).cloned().unwrap_or_default();
        for (no, bytes) in &frames {
            each(*no, bytes);
        }
        Ok(())
    }

    fn new_generation(&self, generation: u32) -> Result<(), MediumError> {
        self.writing()?.generations.insert(generation, BTreeMap::new());
        Ok(())
    }

    fn apply(&self, frames: Vec<NumberedFrame>) -> Result<(), MediumError> {
        // The power may go in the middle: then the frames count as applied, and the next cut decides about each.
        let mut state = self.powered()?;
        state.operations += 1;
        let bytes: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
        if state.capacity_bytes.is_some_and(|capacity| state.used_bytes + bytes > capacity) {
            return Err(MediumError::Io(io::ErrorKind::StorageFull.into()));
        }
        let failing = state.operations_left == Some(0);
        if let Some(left) = &mut state.operations_left {
            *left = left.saturating_sub(1);
        }
        let DiskState { generations, unsynced, used_bytes, .. } = &mut *state;
        if let Some((&newest, stored)) = generations.iter_mut().next_back() {
            for (no, bytes) in frames {
                *used_bytes += bytes.len() as u64;
                let before = stored.insert(no, bytes);
                *used_bytes -= before.map_or(0, |before| before.len() as u64);
                unsynced.push((newest, no));
            }
        }
        if failing { Err(no_power()) } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), MediumError> {
        let mut state = self.writing()?;
        if !state.skip_sync {
            state.unsynced.clear();
        }
        Ok(())
    }

    fn hand_over(&self) -> Result<(), MediumError> {
        self.writing().map(drop)
    }

    fn read(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        let state = self.powered()?;
        let found = state.generations.get(&generation).and_then(|frames| frames.get(&frame));
        Ok(Found::copied(found, into))
    }

    fn read_at_hand(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        if frame % 8 >= self.disk.lock().eighths_in_memory {
            return Err(MediumError::Io(io::ErrorKind::WouldBlock.into()));
        }
        self.read(generation, frame, into)
    }

    fn delete_generation(&self, generation: u32) -> Result<(), MediumError> {
        let mut state = self.writing()?;
        let frames = state.generations.remove(&generation).unwrap_or_default();
        state.used_bytes -= frames.values().map(|frame| frame.len() as u64).sum::<u64>();
        state.unsynced.retain(|(of, _)| *of != generation);
        Ok(())
    }
}

fn no_power() -> MediumError {
    MediumError::Io(io::Error::other("the simulated power is off"))
}
