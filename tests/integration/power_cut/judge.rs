//! What is found after a cut, against what was promised before it.

use std::{sync::Arc, time::Duration};

use super::{
    chance::Chance,
    changer,
    disk::{Disk, Packing},
    load::{self, Clients, Naps, Recording},
    model::Image,
    retainer,
    trace::Change,
};
use crate::crash::{
    ledger::{Ledger, Verdict},
    process::Process,
};

/// Nothing comes for so long when everything has come.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// What each publisher sends after the cut, with packet ids that were in use not long before.
const MESSAGES_AFTER: u64 = 3;

/// A moment at which the power goes.
pub(super) struct Cut {
    /// The record that is the first not to be done.
    pub(super) at: usize,
    /// What is known before its end counts.
    pub(super) moment_ns: u64,
    pub(super) image: Image,
    /// Whether the power goes again while the broker starts.
    pub(super) twice: bool,
    pub(super) seed: u64,
}

/// What was found after one cut.
pub(super) struct Finding {
    /// What the broker was started on.
    pub(super) image: Image,
    pub(super) verdict: Verdict,
    pub(super) failed_start: Option<String>,
    /// Lines of the broker's log that say that something is not as it should be.
    pub(super) complaints: Vec<String>,
    /// How many messages had been acknowledged at the cut.
    pub(super) acknowledged: usize,
}

impl Finding {
    pub(super) fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.failed_start.is_none() && self.complaints.is_empty()
    }
}

/// Starts a broker on what the cut has left, and compares.
pub(super) fn judge(recording: &Recording, cut: &Cut) -> Finding {
    let ledger = Arc::new(recording.ledger.before(cut.moment_ns));
    let acknowledged = ledger.acknowledged();
    let (image, started) = restart(cut, recording.store);
    let (disk, mut broker) = match started {
        Ok(started) => started,
        Err(why) => {
            let (verdict, complaints) = (Verdict::default(), Vec::new());
            return Finding { image, verdict, failed_start: Some(why), complaints, acknowledged };
        }
    };
    look(recording, cut, &broker, &ledger);
    let clients = Clients::start(broker.address, ledger, Naps::Skipped);
    clients.wait_subscribed();
    clients.publish(|published| published + MESSAGES_AFTER);
    clients.settle(SILENCE_MAX);
    if !broker.is_running() {
        clients.ledger.broken("the broker has ended".to_owned());
    }
    broker.kill();
    let ledger = clients.abandon();
    let verdict = ledger.verdict(&load::subscribers(), load::exactly_once);
    let complaints = disk.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    Finding { image, verdict, failed_start: None, complaints, acknowledged }
}

/// Starts a broker on what the cut has left, or on what a second one leaves of that.
fn restart(cut: &Cut, recorded: Packing) -> (Image, Result<(Disk, Process), String>) {
    let mut image = cut.image.clone();
    if cut.twice {
        match cut_again(cut, recorded) {
            Ok(left) => image = left,
            Err(why) => return (image, Err(why)),
        }
    }
    // What goes on is compressed if what was there is not, and the other way round.
    let store = Packing { compressed: !recorded.compressed, ..recorded };
    let disk = Disk::holding(&image).packed(store);
    let started = disk.start_plain(true);
    (image, started.map(|broker| (disk, broker)))
}

fn cut_again(cut: &Cut, store: Packing) -> Result<Image, String> {
    let disk = Disk::holding(&cut.image).packed(store);
    let broker = disk.start(true)?;
    let (mut model, records) = disk.end(broker);
    let mut chance = Chance::new(cut.seed);
    let at = chance.below(u64::try_from(records.len()).unwrap() + 1);
    for record in &records[..usize::try_from(at).unwrap()] {
        model.play(record);
    }
    Ok(model.after_a_cut(&mut chance))
}

/// Looks at what is there before any client of the load comes back.
fn look(recording: &Recording, cut: &Cut, broker: &Process, ledger: &Ledger) {
    let possible = recording.retainer.possible(cut.moment_ns);
    match retainer::look(broker.address) {
        Err(error) => ledger.broken(format!("what is retained cannot be read: {error}")),
        Ok(values) => {
            if possible.clone().all(|steps| retainer::values(recording.seed, steps) != values) {
                ledger.broken(format!("{values:?} are retained, which is none of the states {possible:?}"));
            }
        }
    }
    let steps = recording.changer.possible(cut.moment_ns);
    let possible = changer::possible(recording.seed, &steps);
    match changer::look(broker.address) {
        Err(error) => ledger.broken(format!("the changing session cannot be seen: {error}")),
        Ok(session) if possible.contains(&session) => {}
        Ok(session) => ledger.broken(format!(
            "the session is {session:?} and should be one of {possible:?}, the states {steps:?}"
        )),
    }
}

/// Chooses where to cut, in order: the beginnings and ends of syncs, the moments just after, anywhere, and the first
/// start.
pub(super) fn choose(recording: &Recording, cuts: usize, chance: &mut Chance) -> Vec<usize> {
    let records = &recording.records;
    let is_sync =
        |at: &usize| matches!(records[*at].change, Change::SyncBegin { .. } | Change::SyncEnd { .. });
    let mut boundaries: Vec<usize> = (0..records.len()).filter(is_sync).collect();
    let first_acknowledged = recording.ledger.first_acknowledged_ns();
    let start = records.iter().take_while(|record| record.at_ns < first_acknowledged).count();
    let mut chosen: Vec<usize> = (0..cuts)
        .map(|no| match no % 8 {
            // Without return, so that a long run comes to every one of them.
            0..=4 if !boundaries.is_empty() => {
                let drawn = chance.below(u64::try_from(boundaries.len()).unwrap());
                let boundary = boundaries.swap_remove(usize::try_from(drawn).unwrap());
                boundary + usize::from(no % 2 == 0)
            }
            5 => usize::try_from(chance.below(u64::try_from(start).unwrap() + 1)).unwrap(),
            _ => usize::try_from(chance.below(u64::try_from(records.len()).unwrap() + 1)).unwrap(),
        })
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Plays the recording and cuts it at these places.
pub(super) fn cuts<'r>(
    recording: &'r Recording,
    places: Vec<usize>,
    chance: &'r mut Chance,
) -> impl Iterator<Item = Cut> + 'r {
    let (mut model, mut played) = (recording.before.clone(), 0);
    places.into_iter().map(move |at| {
        for record in &recording.records[played..at] {
            model.play(record);
        }
        played = at;
        let seed = chance.next();
        Cut {
            at,
            moment_ns: recording.records.get(at).map_or(u64::MAX, |record| record.at_ns),
            image: model.after_a_cut(&mut Chance::new(seed)),
            twice: chance.below(5) == 0,
            seed,
        }
    })
}
