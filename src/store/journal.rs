//! The handle the broker holds.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use super::{
    aside::Aside,
    commit::{Committer, Step},
    compact::SnapshotSource,
    config::{Config, Durability},
    error::OpenError,
    gate::{Gate, wake_all},
    intake::Intake,
    key_check,
    lock::DataLock,
    medium::{
        Medium, MediumError,
        sled::{SledMedium, left::LeftBehind},
    },
    packing::Packing,
    read::ReadQueue,
    record::{Completion, Record, Target},
    recover::{self, Recovered},
    slab::Parked,
    spare::Spare,
    state::{Health, State, TakenOff, Urgency},
    stats::{Counters, Stats, count, read},
    stored::{Phase, Stored},
    swap,
};
use crate::{
    message::{Seq, SessionNo},
    sync::lock,
    time::{Clock, Timeline, Timestamp, WallClock},
    topic::TopicName,
};

/// The journal. Cheap to clone; all clones are one journal. `close` it: when the last handle goes without, its threads
/// end and what was not committed is lost, as in a crash.
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

/// What is asked for several times a message, readable without the lock. It may lag behind the state by the change that
/// is under way; who needs more takes the lock.
#[derive(Debug, Default)]
struct Glance {
    durable: AtomicU64,
    backlogged: AtomicBool,
    poisoned: AtomicBool,
    /// See `State::room_bytes`.
    room_bytes: AtomicU64,
}

impl Glance {
    fn of(state: &State) -> Self {
        let glance = Self::default();
        glance.follow(state);
        glance
    }

    /// Takes over what the state says; its lock is held.
    fn follow(&self, state: &State) {
        self.durable.store(state.durable.0, Ordering::Release);
        self.backlogged.store(state.is_backlogged(), Ordering::Release);
        self.room_bytes.store(state.room_bytes(), Ordering::Release);
        self.poisoned.store(state.health == Health::Poisoned, Ordering::Release);
    }
}

/// What the handles and the two threads share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) medium: Box<dyn Medium>,
    pub(super) packing: Packing,
    pub(super) counters: Counters,
    pub(super) reads: ReadQueue,
    pub(super) source: Mutex<Option<Weak<dyn SnapshotSource>>>,
    pub(super) intake: Intake,
    state: Mutex<State>,
    glance: Glance,
    /// Tells the commit thread of work.
    work: Condvar,
    committer: Mutex<Committer>,
    clock: OnceLock<Arc<dyn Clock>>,
    /// The time until there is a clock.
    started: Timeline,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Since when the commit thread has been at its present piece of work.
    pub(super) busy_since: Mutex<Option<Timestamp>>,
    _lock: Option<DataLock>,
}

impl Journal {
    /// Opens the journal in the data folder `dir`, making it if need be, and recovers what is in it. `wall` is the wall
    /// clock now; `Recovered::now` is where the broker's clock goes on. Nothing is committed before `start`.
    pub fn open(dir: &Path, config: Config, wall: WallClock) -> Result<(Self, Recovered), OpenError> {
        let packing = Packing::new(config.key.load()?).compressing(config.compression);
        let lock = DataLock::take(dir)?;
        let spare = Spare::for_start(dir);
        swap::settle(dir).map_err(|source| OpenError::NotWritable { path: dir.to_owned(), source })?;
        let journal = swap::current(dir);
        key_check::check(dir, &journal, &packing)?;
        let aside = Aside::new(dir.join("damaged"), wall);
        let medium = SledMedium::open(&journal, &aside).map_err(|error| recover::open_error(error, dir))?;
        aside.warn_of_size();
        match Self::open_with(Box::new(medium), packing, config.clone(), wall, Some((lock, spare))) {
            // Each time one chart less is believed.
            Err(recover::Failure::Medium(MediumError::Changed)) => Self::open(dir, config, wall),
            opened => opened.map_err(|error| error.at(dir)),
        }
    }

    /// The journal of a broker that does not run, as it lies there; what is written to it is forgotten.
    pub(super) fn open_left(
        left: LeftBehind,
        packing: Packing,
        config: Config,
        wall: WallClock,
        dir: &Path,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(Box::new(left), packing, config, wall, None).map_err(|error| error.at(dir))
    }

    /// The same on any medium, for simulations: `set_clock` and `step` take the place of `start`.
    pub fn open_on(
        medium: Box<dyn Medium>,
        config: Config,
        wall: WallClock,
    ) -> Result<(Self, Recovered), OpenError> {
        let packing = Packing::new(config.key.load()?).compressing(config.compression);
        let opened = Self::open_with(medium, packing, config, wall, None);
        opened.map_err(|error| error.at(Path::new("(simulated)")))
    }

    fn open_with(
        medium: Box<dyn Medium>,
        packing: Packing,
        config: Config,
        wall: WallClock,
        folder: Option<(DataLock, Spare)>,
    ) -> Result<(Self, Recovered), recover::Failure> {
        let (state, mut committer, recovered) = recover::recover(&*medium, &packing, &config, wall)?;
        let (lock, spare) = folder.unzip();
        committer.spare = spare;
        let shared = Shared {
            config,
            medium,
            packing,
            counters: Counters::default(),
            reads: ReadQueue::default(),
            source: Mutex::new(None),
            intake: Intake::new(state.marks.message),
            glance: Glance::of(&state),
            state: Mutex::new(state),
            work: Condvar::new(),
            committer: Mutex::new(committer),
            clock: OnceLock::new(),
            started: Timeline { at: recovered.now, wall },
            threads: Mutex::default(),
            busy_since: Mutex::default(),
            _lock: lock,
        };
        super::stats::count(&shared.counters.damaged, recovered.damaged);
        super::stats::count(&shared.counters.messages_lost, recovered.messages_lost);
        shared.first_commit()?;
        Ok((Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) }, recovered))
    }

    /// Gives the journal its clock and starts its two threads.
    pub fn start(&self, clock: Arc<dyn Clock>) -> io::Result<()> {
        self.set_clock(clock);
        let mut threads = lock(&self.shared().threads);
        let shared = Arc::clone(self.shared());
        threads.push(Builder::new().name("journal-commit".to_owned()).spawn(move || shared.run_commits())?);
        let shared = Arc::clone(self.shared());
        threads.push(Builder::new().name("journal-read".to_owned()).spawn(move || shared.run_reads())?);
        Ok(())
    }

    /// Gives the journal its clock; the first one stays.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        drop(self.shared().clock.set(clock));
    }

    /// Does the commit thread's next piece of work. For simulations, which have no threads.
    pub fn step(&self) -> Step {
        self.shared().step()
    }

    /// Does the read thread's next piece of work; false if there is none. For simulations.
    pub fn read_step(&self) -> bool {
        self.shared().read_step()
    }

    /// Who is asked for snapshots when a session's last one is in the way of compaction. Without one nothing that
    /// holds a snapshot is compacted.
    pub fn set_snapshot_source(&self, source: Weak<dyn SnapshotSource>) {
        *lock(&self.shared().source) = Some(source);
    }

    /// Says who must get a message, in the order of the target indices. It is written unless all have confirmed it by
    /// now, or do so while it is held back.
    #[expect(clippy::needless_pass_by_value, reason = "a completion is made for this call")]
    pub fn complete(&self, stored: &Arc<Stored>, targets: Vec<Target>, completion: Completion) {
        let now = self.shared().now();
        self.shared().change(|state| state.complete(stored, targets, &completion, now));
    }

    /// The same for several, in this order, and none is left.
    pub fn complete_all(&self, row: &mut Vec<(Arc<Stored>, Vec<Target>, Completion)>) {
        if row.is_empty() {
            return;
        }
        let now = self.shared().now();
        self.shared().change(|state| {
            for (stored, targets, completion) in row.drain(..) {
                state.complete(&stored, targets, &completion, now);
            }
        });
    }

    /// A target has confirmed the message (PUBACK, PUBCOMP) or needs it no more. The gate says when that is durable;
    /// nothing needs to wait for it but the packet id window.
    pub fn confirm(&self, stored: &Arc<Stored>, target: u32, session: SessionNo, seq: Seq) -> Gate {
        let now = self.shared().now();
        self.shared().change(|state| state.confirm(stored, target, (session, seq), now))
    }

    /// The same for several messages of one session, in this order; so are the gates.
    pub fn confirm_all(&self, session: SessionNo, confirmed: &[(&Arc<Stored>, u32, Seq)]) -> Vec<Gate> {
        let now = self.shared().now();
        self.shared().change(|state| {
            let confirm = |&(stored, target, seq): &(&Arc<Stored>, u32, Seq)| {
                state.confirm(stored, target, (session, seq), now)
            };
            confirmed.iter().map(confirm).collect()
        })
    }

    /// A target has received a QoS 2 message (PUBREC). The payload is wanted no more; that PUBCOMP is awaited is
    /// remembered until `append(Record::Done)`. PUBREL waits for the gate.
    pub fn received(&self, stored: &Arc<Stored>, target: u32, session: SessionNo, seq: Seq) -> Gate {
        let now = self.shared().now();
        self.shared().change(|state| {
            // The record first: the message may be waiting for nothing else.
            let gate = state.append(Record::Received(session, seq), Urgency::Now, now);
            state.take_off(stored, target, TakenOff::ByRecord, now);
            gate
        })
    }

    /// A target's claim passes from one session (its number, and the message's there) to another, before the records
    /// that end the first one's. It is `None` when the claim has ended meanwhile; else who got it sends QoS 2 only
    /// behind the gate, or a crash could leave it to both.
    pub fn hand_on(
        &self,
        stored: &Arc<Stored>,
        target: u32,
        from: (SessionNo, Seq),
        to: Target,
    ) -> Option<Gate> {
        let now = self.shared().now();
        self.shared().change(|state| state.hand_on(stored, target, from, to, now))
    }

    /// Whether the message has not been completed yet.
    pub fn is_incomplete(&self, stored: &Stored) -> bool {
        matches!(&stored.lock().phase, Phase::Early(early) if early.held.is_none())
    }

    /// A target is gone with its session, whose `Record::Gone` was appended before.
    pub fn forget(&self, stored: &Arc<Stored>, target: u32) {
        let now = self.shared().now();
        self.shared().change(|state| {
            state.take_off(stored, target, TakenOff::ByRecord, now);
        });
    }

    /// A message is its topic's retained value no more: because a newer one has taken its place and is `complete`, or,
    /// with `cleared`, because the topic has none from this version on.
    pub fn unretain(&self, stored: &Arc<Stored>, cleared: Option<(TopicName, u64)>) -> Gate {
        let now = self.shared().now();
        self.shared().change(|state| {
            state.unretain(stored);
            match cleared {
                Some((topic, version)) => {
                    state.append(Record::RetainedCleared(topic, version), Urgency::Now, now)
                }
                None => Gate::Open,
            }
        })
    }

    /// Appends a record, under the lock of the session it is about.
    pub fn append(&self, record: Record, urgency: Urgency) -> Gate {
        let now = self.shared().now();
        self.shared().change(|state| state.append(record, urgency, now))
    }

    /// Asks for what has been appended to be committed now: somebody has come to need it.
    pub fn hurry(&self) {
        self.shared().change(super::state::State::hurry);
    }

    /// Whether what waits for this gate may go on. Asked several times a message, so it does without the journal's lock.
    pub fn is_open(&self, gate: &Gate) -> bool {
        let shared = self.shared();
        let commit = match gate {
            Gate::Open => return true,
            Gate::Commit(commit) => *commit,
            Gate::Message(stored) => match &stored.lock().phase {
                Phase::Written(_) | Phase::Settled => return true,
                _ if shared.config.durability == Durability::Relaxed => return !self.poisoned(),
                Phase::Queued(commit) => *commit,
                Phase::Early(_) => return false,
            },
        };
        commit.0 <= shared.glance.durable.load(Ordering::Acquire)
    }

    /// The same; if not, the task is woken when it may be.
    pub fn poll_gate(&self, gate: &Gate, waker: &Waker) -> bool {
        if self.is_open(gate) {
            return true;
        }
        // Under the journal's lock no message changes its phase, and no commit becomes durable.
        let mut state = self.shared().state();
        if self.is_open(gate) {
            return true;
        }
        let commit = match gate {
            Gate::Open => return true,
            Gate::Commit(commit) => *commit,
            Gate::Message(stored) => match &mut stored.lock().phase {
                Phase::Written(_) | Phase::Settled => return true,
                Phase::Queued(commit) => *commit,
                Phase::Early(early) => {
                    let wakers = &mut early.rare().wakers;
                    if !wakers.iter().any(|w| w.will_wake(waker)) {
                        wakers.push(waker.clone());
                    }
                    return false;
                }
            },
        };
        if !state.is_durable(commit) {
            state.waiters.add(commit, waker.clone());
            return false;
        }
        true
    }

    /// Reads the bodies of messages back that need no waiting for the disk; returns the others, to be loaded, or `None` if now
    /// all are there.
    pub fn load_at_hand(&self, wanted: Vec<Arc<Stored>>) -> Option<Vec<Arc<Stored>>> {
        self.shared().read_at_hand(wanted)
    }

    /// Reads the bodies of messages back and then wakes. A message that cannot be read is marked lost. When too much
    /// is asked for at once the task is woken later with nothing done, and asks again.
    pub fn load(&self, wanted: Vec<Arc<Stored>>, waker: Waker) {
        self.shared().reads.push(wanted, waker);
    }

    /// Takes targets' claims on messages that may sleep, for small ones.
    pub fn park(&self, claims: Vec<(Arc<Stored>, u32)>) -> Vec<Parked> {
        let mut state = self.shared().state();
        let slab = &mut state.ledger.slab;
        let park = |(stored, target): (Arc<Stored>, u32)| {
            // It may sleep, so it is on disk; and it is needed by this target, so it is in the slab.
            let slot = stored.lock().slot;
            let parked = slot.and_then(|slot| Parked::new(slot, stored.id(), target));
            drop(stored);
            let parked = parked.expect("a message that may sleep has its slot");
            slab.let_go(parked.slot());
            parked
        };
        claims.into_iter().map(park).collect()
    }

    /// Turns small claims back.
    pub fn unpark(&self, parked: &[Parked]) -> Vec<(Arc<Stored>, u32)> {
        let mut state = self.shared().state();
        let unpark = |parked: &Parked| {
            let stored = state.ledger.slab.claimed(*parked).unwrap_or_else(|| {
                tracing::error!(?parked, "a message is not where it was: it is lost");
                count(&self.shared().counters.messages_lost, 1);
                Arc::new(Stored::missing())
            });
            (stored, parked.target())
        };
        parked.iter().map(unpark).collect()
    }

    /// Bytes of topic, payload and properties of all these.
    pub fn parked_bytes(&self, parked: &[Parked]) -> usize {
        let state = self.shared().state();
        parked.iter().map(|parked| state.ledger.slab.size_bytes(parked.slot())).sum()
    }

    /// The first of these messages that expires, by its place among them.
    pub fn first_to_expire(&self, parked: &[Parked]) -> Option<usize> {
        if parked.is_empty() {
            return None;
        }
        let state = self.shared().state();
        parked.iter().position(|parked| state.ledger.slab.expires_at(parked.slot()) != Timestamp::NEVER)
    }

    /// Writes a message at once if it is held back: its target is gone offline.
    pub fn write_now(&self, stored: &Arc<Stored>) {
        let now = self.shared().now();
        self.shared().change(|state| state.write_now(stored, now));
    }

    /// Whether too much waits for the disk: connections should stop reading.
    pub fn backlogged(&self) -> bool {
        self.shared().glance.backlogged.load(Ordering::Acquire)
    }

    /// True when connections may read; if not, the task is woken when they may.
    pub fn poll_backlog(&self, waker: &Waker) -> bool {
        let mut state = self.shared().state();
        let backlogged = state.is_backlogged();
        if backlogged {
            state.backlog_waiters.add(waker.clone());
        }
        !backlogged
    }

    /// Whether a write has failed: no gate opens any more.
    pub fn poisoned(&self) -> bool {
        self.shared().glance.poisoned.load(Ordering::Acquire)
    }

    /// Whether the threads serve: none has died, and the commit thread has not been at one piece of work for longer
    /// than `limit`. A disk that takes no writes for so long is as good as none.
    pub fn is_alive(&self, limit: Duration) -> bool {
        let shared = self.shared();
        let died = lock(&shared.threads).iter().any(JoinHandle::is_finished);
        let busy_since = *lock(&shared.busy_since);
        !died && busy_since.is_none_or(|since| shared.now().since(since) <= limit)
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared().counters;
        // It asks the file system: not under the lock.
        let disk_bytes = self.shared().medium.disk_bytes();
        let state = self.shared().state();
        let (disk_free_bytes, disk_room_bytes) = state.space.free_and_room();
        Stats {
            bytes_payload: read(&counters.bytes_payload),
            bytes_kept: read(&counters.bytes_kept) + state.elided_bytes,
            bytes_frames: read(&counters.bytes_frames),
            commits: read(&counters.commits),
            syncs: read(&counters.syncs),
            messages_written: read(&counters.messages_written),
            messages_elided: state.elided,
            records: read(&counters.records),
            messages_lost: read(&counters.messages_lost),
            held_messages: state.hold.messages() as u64,
            held_bytes: state.hold.bytes() as u64,
            backlog_bytes: state.backlog_bytes() as u64,
            live_bytes: state.ledger.live_bytes(),
            frame_bytes: state.ledger.frame_bytes(),
            generations: state.ledger.generations.len() as u64,
            disk_bytes,
            disk_free_bytes,
            disk_room_bytes,
            is_full: !self.has_room(0),
            damaged: read(&counters.damaged),
            is_poisoned: state.health == Health::Poisoned,
            commit_messages: counters.commit_messages.read(),
            commit_bytes: counters.commit_bytes.read(),
            commit_micros: counters.commit_micros.read(),
            sync_micros: counters.sync_micros.read(),
        }
    }

    /// Commits what is open, held messages included, and ends the threads. Nothing is taken afterwards.
    pub fn close(&self) {
        let shared = self.shared();
        shared.stop_threads();
        for thread in lock(&shared.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal has panicked");
            }
        }
        shared.commit_the_rest();
    }

    /// The last durable commit.
    #[cfg(test)]
    pub(super) fn durable(&self) -> super::CommitNo {
        self.shared().state().durable
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("stats", &self.stats()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop_threads();
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn committer(&self) -> MutexGuard<'_, Committer> {
        lock(&self.committer)
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.get().map_or(self.started.at, |clock| clock.now())
    }

    /// For measuring how long things take.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.get().map_or(Duration::ZERO, |clock| clock.elapsed())
    }

    pub(super) fn timeline(&self) -> Timeline {
        self.clock.get().map_or(self.started, |clock| Timeline { at: clock.now(), wall: clock.wall() })
    }

    /// See `State::room_bytes`; without the lock.
    pub(super) fn room_bytes(&self) -> u64 {
        self.glance.room_bytes.load(Ordering::Acquire)
    }

    /// Changes the state, tells the commit thread if there is work for it now, and wakes who is to be woken.
    pub(super) fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        // One that is at work looks what is due before it sleeps.
        let before = if state.sleeping { state.next_deadline() } else { None };
        let result = f(&mut state);
        if state.sleeping {
            let sooner = match (before, state.next_deadline()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(before), Some(after)) => after < before,
            };
            if sooner || state.is_due(self.now()) {
                state.sleeping = false;
                self.work.notify_one();
            }
        }
        let ready = std::mem::take(&mut state.ready);
        self.glance.follow(&state);
        self.intake.came(state.space.take_came());
        drop(state);
        wake_all(ready);
        result
    }

    /// Sleeps until there is work for the commit thread; false when it is to end.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        loop {
            let now = self.now();
            if state.stopping {
                return false;
            }
            if state.is_due(now) {
                return true;
            }
            state.sleeping = true;
            state = match state.next_deadline() {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    self.work.wait_timeout(state, at.since(now)).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleeping = false;
        }
    }

    fn stop_threads(&self) {
        self.state().stopping = true;
        self.work.notify_all();
        self.reads.stop();
    }

    /// A write failed: says so, once, and promises nothing more.
    pub(super) fn poison(&self, error: &MediumError) {
        let now = self.now();
        self.change(|state| {
            if state.health == Health::Running {
                tracing::error!(%error, "writing the journal failed: nothing is acknowledged any more until a restart");
                state.stop(Health::Poisoned, now);
            }
        });
    }
}
