//! Whether the journal's threads make progress, as seen from outside.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use super::{Time, WALL, snapshot};
use crate::{
    store::{
        Aside, Config, Journal, Record, Urgency,
        medium::sled::{DataSync, SledMedium},
    },
    sync::lock,
    time::WallClock,
};

/// A disk whose syncs can be made to hang.
#[derive(Debug)]
struct Hanging {
    hangs: AtomicBool,
    reached: SyncSender<()>,
    released: Mutex<Receiver<()>>,
}

impl DataSync for Hanging {
    fn sync_data(&self, _: &File, _: &Path) -> io::Result<()> {
        if self.hangs.load(Ordering::SeqCst) {
            self.reached.send(()).map_err(io::Error::other)?;
            lock(&self.released).recv().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[test]
fn a_disk_that_hangs_is_a_standstill_and_one_that_is_slow_is_not() {
    const LIMIT: Duration = Duration::from_secs(30);
    let (reached, is_reached) = sync_channel(16);
    let (release, released) = sync_channel(16);
    let disk = Arc::new(Hanging { hangs: AtomicBool::new(false), reached, released: Mutex::new(released) });
    let dir = tempfile::tempdir().unwrap();
    let medium = SledMedium::open_on(
        &dir.path().join("journal"),
        &Aside::new(dir.path().join("damaged"), WallClock(WALL)),
        Arc::clone(&disk) as Arc<dyn DataSync>,
    )
    .unwrap();
    let (journal, _) = Journal::open_on(Box::new(medium), Config::default(), WallClock(WALL)).unwrap();
    let time = Time::default();
    journal.start(time.clock()).unwrap();
    time.advance(100_000);
    assert!(journal.is_alive(LIMIT), "nothing to do is no standstill");

    disk.hangs.store(true, Ordering::SeqCst);
    journal.append(Record::Snapshot(Box::new(snapshot(1))), Urgency::Now);
    is_reached.recv_timeout(Duration::from_secs(20)).unwrap();
    time.advance(30_000);
    assert!(journal.is_alive(LIMIT));
    time.advance(1);
    assert!(!journal.is_alive(LIMIT));

    disk.hangs.store(false, Ordering::SeqCst);
    release.send(()).unwrap();
    journal.close();
    assert!(journal.is_alive(LIMIT), "a journal that was closed has no threads that could stand still");
}
