//! A disk that was damaged, or holds anything at all: the broker starts from it without a panic, and what it brings back
//! was there. It may be less, and it is the same at the next start.
//!
//! The first part of an input is played by clients, as in `connection`; the rest damages what they left on the disk, or forges
//! frames with good checksums. Only a forged disk may say what no client ever did. Every other store is sealed.

use dormouse::{
    broker::Config,
    store::{
        OpenError,
        medium::{Medium, sim::SimDisk},
    },
};

use super::{connection::Run, input::Input};

const PLAYED_BYTES_MAX: usize = 600;
const DAMAGES_MAX: usize = 8;
/// `docs/store-format.md`: what is before a frame's body, and behind it.
const HEADER_BYTES: usize = 34;
const CHECKSUM_BYTES: usize = 4;

/// A generation, a key, a frame.
type Frame = (u32, u64, Vec<u8>);

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let is_sealed = input.byte() % 2 == 1;
    let played = input.below(PLAYED_BYTES_MAX);
    let mut run = Run::new(Config::default(), true, is_sealed);
    run.steps(&mut Input::new(input.take(played)));
    run.drop_peers();

    let mut frames = frames(&run.world.disk);
    let mut is_forged = false;
    for _ in 0..DAMAGES_MAX {
        if input.is_empty() {
            break;
        }
        is_forged |= damage(&mut frames, &mut input);
    }
    run.ledger.damaged(is_forged);
    match run.world.move_to(disk_of(&frames)) {
        Ok(()) => {}
        Err(OpenError::NewerFormat { .. }) if is_forged => return,
        Err(error) => panic!("{error}"),
    }
    // Whoever is let in gets what there is, now and after the next start.
    for _ in 0..2 {
        for client_id in ["a", "b", "c", "d"] {
            run.fetch_all(client_id);
        }
        run.world.settle();
        run.world.cut(1, false);
    }
}

fn frames(disk: &SimDisk) -> Vec<Frame> {
    let (medium, mut frames) = (disk.medium(), Vec::new());
    for generation in medium.generations() {
        medium.scan(generation, &mut |no, bytes| frames.push((generation, no, bytes.to_vec()))).unwrap();
    }
    frames
}

fn disk_of(frames: &[Frame]) -> SimDisk {
    let disk = SimDisk::new();
    let medium = disk.medium();
    for generation in
        frames.iter().map(|(generation, ..)| *generation).collect::<std::collections::BTreeSet<_>>()
    {
        medium.new_generation(generation).unwrap();
        let of_it = frames.iter().filter(|(of, ..)| *of == generation);
        medium.apply(of_it.map(|(_, no, bytes)| (*no, bytes.clone())).collect()).unwrap();
    }
    medium.sync().unwrap();
    disk
}

/// Does something to the frames; whether they can say now what nobody wrote.
fn damage(frames: &mut Vec<Frame>, input: &mut Input<'_>) -> bool {
    let choice = input.below(10);
    if frames.is_empty() || choice == 0 {
        frames.push((1 + u32::from(input.byte() % 3), u64::from(input.byte()), forged(input)));
        return true;
    }
    let (at, other) = (input.below(frames.len()), input.below(frames.len()));
    let bytes = &mut frames[at].2;
    match choice {
        1 => drop(frames.remove(at)),
        2 => drop(frames.drain(at..)),
        3 => bytes.truncate(input.below(bytes.len() + 1)),
        4 => {
            let len = usize::from(input.byte());
            *bytes = input.take(len).to_vec();
        }
        5 => {
            let body = frames[other].2.clone();
            frames[at].2 = body;
        }
        6 => frames[at].1 = u64::from(input.u16()),
        7 | 8 => {
            // Anything in the header or the body, and a checksum that fits.
            let covered = bytes.len().saturating_sub(CHECKSUM_BYTES);
            if covered == 0 {
                return false;
            }
            for _ in 0..=input.below(4) {
                let place = input.below(covered);
                bytes[place] = input.byte();
            }
            sum_up(bytes, covered);
            return true;
        }
        _ => {
            if !bytes.is_empty() {
                let bit = input.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    false
}

/// A frame of its own: a small commit, or a part of one, with anything in it.
fn forged(input: &mut Input<'_>) -> Vec<u8> {
    // Of the first version, or of the last one, which has flags for compressed and sealed.
    let flags = input.byte();
    let mut frame = if flags > 3 { b"DMJ\x01".to_vec() } else { b"DMJ\x05".to_vec() };
    frame.extend(u32::from(input.byte()).to_le_bytes());
    frame.extend(u64::from(input.byte()).to_le_bytes());
    frame.extend(u64::from(input.byte()).to_le_bytes());
    frame.extend(u32::from(input.byte() % 3).to_le_bytes());
    frame.extend(u32::from(input.byte() % 3).to_le_bytes());
    let len = input.below(400);
    let mut body = input.take(len).to_vec();
    if flags <= 3 {
        body.insert(0, flags);
    }
    frame.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    assert_eq!(frame.len(), HEADER_BYTES);
    frame.extend(body);
    let covered = frame.len();
    frame.extend([0; CHECKSUM_BYTES]);
    sum_up(&mut frame, covered);
    frame
}

fn sum_up(frame: &mut [u8], covered: usize) {
    let sum = crc32fast::hash(&frame[..covered]).to_le_bytes();
    frame[covered..].copy_from_slice(&sum);
}
