//! The real sled on a model of a disk: a power cut keeps what was synced and a random share of the 512-byte blocks
//! written since.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use tempfile::TempDir;

use super::{
    Time, queued,
    truth::{Chance, Truth},
    world::{World, load_all},
};
use crate::{
    store::{
        Aside, Config, Journal,
        medium::{
            Found, Medium, MediumError, NumberedFrame,
            sled::{DataSync, SledMedium},
        },
    },
    sync::lock,
    time::WallClock,
};

const BLOCK_BYTES: usize = 512;

/// What kind of life a broker leads.
#[derive(Clone, Copy)]
struct Life {
    cuts: u32,
    generation_bytes: u64,
    /// How many times the usual size payloads have.
    scale: u64,
    /// The sync is forgotten.
    forgets: bool,
}

/// Generations so small that they come and go all the time.
const HASTY: Life = Life { cuts: 8, generation_bytes: 12 << 10, scale: 1, forgets: false };
/// Generations so large, with payloads to fill them, that sled uses segments again and a commit takes several.
const HEAVY: Life = Life { cuts: 4, generation_bytes: 2 << 20, scale: 20, forgets: false };

/// Keeps an image of each generation's folder as it was at the last sync.
#[derive(Debug)]
struct ImageDisk {
    images: PathBuf,
    /// Held while images are taken or read: a generation is charted on a thread of its own.
    busy: Mutex<()>,
    /// The fault this rig is for: the sync that is forgotten.
    forgets: AtomicBool,
}

impl DataSync for ImageDisk {
    fn sync_data(&self, _file: &File, generation: &Path) -> io::Result<()> {
        if self.forgets.load(Ordering::Relaxed) { Ok(()) } else { self.keep(generation) }
    }
}

impl ImageDisk {
    fn keep(&self, generation: &Path) -> io::Result<()> {
        let _busy = lock(&self.busy);
        copy_files(generation, &self.images.join(generation.file_name().unwrap()))
    }
}

/// A medium on sled whose power goes after some operations.
struct PowerMedium {
    inner: Arc<SledMedium>,
    disk: Arc<ImageDisk>,
    dir: PathBuf,
    operations_left: Arc<AtomicI64>,
}

impl PowerMedium {
    fn has_power(&self) -> bool {
        self.operations_left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn path(&self, generation: u32) -> PathBuf {
        self.dir.join(format!("{generation:06}"))
    }
}

fn no_power() -> MediumError {
    MediumError::Io(io::Error::other("the power is off"))
}

impl Medium for PowerMedium {
    fn generations(&self) -> Vec<u32> {
        self.inner.generations()
    }

    fn damaged(&self) -> u64 {
        self.inner.damaged()
    }

    fn scan(&self, generation: u32, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), MediumError> {
        self.inner.scan(generation, each)
    }

    fn new_generation(&self, generation: u32) -> Result<(), MediumError> {
        if !self.has_power() {
            return Err(no_power());
        }
        self.inner.new_generation(generation)?;
        Ok(self.disk.keep(&self.path(generation))?)
    }

    fn apply(&self, mut frames: Vec<NumberedFrame>) -> Result<(), MediumError> {
        if self.has_power() {
            return self.inner.apply(frames);
        }
        frames.truncate(frames.len().div_ceil(2));
        self.inner.apply(frames)?;
        self.inner.hand_over()?;
        Err(no_power())
    }

    fn sync(&self) -> Result<(), MediumError> {
        if self.has_power() {
            return self.inner.sync();
        }
        self.inner.hand_over()?;
        Err(no_power())
    }

    fn hand_over(&self) -> Result<(), MediumError> {
        self.inner.hand_over()
    }

    fn read(&self, generation: u32, frame: u64, into: &mut Vec<u8>) -> Result<Found, MediumError> {
        self.inner.read(generation, frame, into)
    }

    fn delete_generation(&self, generation: u32) -> Result<(), MediumError> {
        if !self.has_power() {
            return Err(no_power());
        }
        self.inner.delete_generation(generation)?;
        Ok(fs::remove_dir_all(self.disk.images.join(format!("{generation:06}")))?)
    }
}

/// A machine whose power can be cut.
struct Machine {
    root: TempDir,
    life: Life,
    time: Time,
    boots: u32,
    operations_left: Arc<AtomicI64>,
    disk: Option<Arc<ImageDisk>>,
}

impl Machine {
    fn new(life: Life) -> Self {
        Self {
            life,
            // The disk is a model; the files below it need none.
            root: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            time: Time::default(),
            boots: 0,
            operations_left: Arc::default(),
            disk: None,
        }
    }

    fn journal_dir(&self) -> PathBuf {
        self.root.path().join(format!("boot-{}/journal", self.boots))
    }

    fn images_dir(&self) -> PathBuf {
        self.root.path().join(format!("boot-{}/images", self.boots))
    }

    /// Starts the broker on what the disk holds.
    fn boot(&mut self, before: Option<&World>) -> Result<World, String> {
        let (dir, images) = (self.journal_dir(), self.images_dir());
        fs::create_dir_all(&images).unwrap();
        let disk = Arc::new(ImageDisk { images, busy: Mutex::default(), forgets: AtomicBool::new(false) });
        let aside = Aside::new(self.root.path().join("damaged"), WallClock::UNKNOWN);
        let inner = Arc::new(SledMedium::open_on(&dir, &aside, disk.clone()).map_err(|e| e.to_string())?);
        for generation in inner.generations() {
            // What the last cut left is durable; what opening it wrote is not, but the cut will toss for that again.
            disk.keep(&dir.join(format!("{generation:06}"))).unwrap();
        }
        self.operations_left.store(i64::MAX, Ordering::Relaxed);
        let operations_left = Arc::clone(&self.operations_left);
        let medium = PowerMedium { inner, disk: Arc::clone(&disk), dir, operations_left };
        self.disk = Some(disk);
        let config = Config { generation_bytes: self.life.generation_bytes, ..Config::default() };
        let opened = Journal::open_on(Box::new(medium), config, WallClock::UNKNOWN);
        let (journal, recovered) = opened.map_err(|e| e.to_string())?;
        self.time.set(recovered.now);
        journal.set_clock(self.time.clock());
        load_all(&journal, &recovered);
        let found = Truth::of(&journal, &recovered)?;
        if let Some(before) = before {
            before.check(&found)?;
            if recovered.damaged > 0 {
                return Err("the cut has left damage".to_owned());
            }
        }
        for queued in recovered.sessions.iter().flat_map(|found| queued(&journal, found)) {
            queued.message.unload();
        }
        let next_body = before.map_or(1, World::next_body);
        Ok(World::new(journal, &recovered, found, self.time.clone(), next_body).with_scale(self.life.scale))
    }

    /// Cuts the power: the next boot finds the images, and of each block written since, whatever chance decides.
    fn cut(&mut self, chance: &mut Chance) {
        let (dir, images) = (self.journal_dir(), self.images_dir());
        let disk = self.disk.take().unwrap();
        let _busy = lock(&disk.busy);
        self.boots += 1;
        let next = self.journal_dir();
        fs::create_dir_all(&next).unwrap();
        for image in fs::read_dir(&images).unwrap() {
            let image = image.unwrap().path();
            let name = image.file_name().unwrap();
            if name.to_str().unwrap().contains('.') {
                continue;
            }
            let (now, after) = (dir.join(name), next.join(name));
            // Names in the folder are as they were or as they are.
            let names = if now.exists() && chance.one_in(2) { &now } else { &image };
            copy_files(names, &after).unwrap();
            let data = tear(&fs::read(image.join("db")).unwrap(), fs::read(now.join("db")).ok(), chance);
            fs::write(after.join("db"), data).unwrap();
        }
        fs::remove_dir_all(&images).unwrap();
    }
}

/// The durable bytes with a random share of the blocks that differ in `now`.
fn tear(durable: &[u8], now: Option<Vec<u8>>, chance: &mut Chance) -> Vec<u8> {
    let Some(now) = now else { return durable.to_vec() };
    let mut torn = durable.to_vec();
    if now.len() > torn.len() || chance.one_in(2) {
        torn.resize(now.len(), 0);
    }
    // Sometimes nearly all is kept, sometimes nearly nothing.
    let keep = chance.below(17);
    for (old, new) in torn.chunks_mut(BLOCK_BYTES).zip(now.chunks(BLOCK_BYTES)) {
        if old.len() == new.len() && old != new && chance.below(16) < keep {
            old.copy_from_slice(new);
        }
    }
    torn
}

/// Makes `to` a folder with copies of the files in `from`.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(to.join("blobs"))?,
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            match fs::copy(entry.path(), to.join(entry.file_name())) {
                // The file of a chart has got its name meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}

/// A broker's lives with a cut after each. Returns how many bytes of frames it has written.
fn lives(seed: u64, life: Life) -> Result<u64, String> {
    let (mut machine, mut chance) = (Machine::new(life), Chance(seed));
    let mut world = machine.boot(None)?;
    let mut written = 0;
    for _ in 0..life.cuts {
        for _ in 0..200 + chance.below(200) {
            world.act(&mut chance);
        }
        let forgets = &machine.disk.as_ref().unwrap().forgets;
        forgets.store(life.forgets, Ordering::Relaxed);
        machine.operations_left.store(i64::try_from(chance.below(40)).unwrap(), Ordering::Relaxed);
        while !world.journal.poisoned() {
            world.act(&mut chance);
        }
        machine.cut(&mut chance);
        written += world.journal.stats().bytes_frames;
        let before = world;
        world = machine.boot(Some(&before))?;
    }
    Ok(written)
}

/// Lives of several brokers. Returns how many generations would hold what they wrote.
fn all(seeds: u64, life: Life) -> u64 {
    let one = |seed| lives(seed, life).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    (0..seeds).map(one).sum::<u64>() / life.generation_bytes
}

#[test]
fn power_cuts_with_generations_coming_and_going_lose_nothing() {
    let generations = all(4, HASTY);
    assert!(generations > 4 * 8 * 4, "{generations} generations: compaction has hardly run");
}

#[test]
fn power_cuts_with_segments_used_again_lose_nothing() {
    let generations = all(4, HEAVY);
    assert!(generations > 4 * 2, "{generations} generations: too little was written");
}

/// A test of the rig: without the sync, what sled calls flushed is lost, and the checker says so.
#[test]
fn a_commit_without_its_sync_is_found_out() {
    let forgetful = Life { forgets: true, ..HASTY };
    let found_out = (0..4).filter(|seed| lives(*seed, forgetful).is_err()).count();
    assert!(found_out >= 3, "{found_out}");
}
