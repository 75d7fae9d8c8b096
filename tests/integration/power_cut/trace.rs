//! What the broker did to its folder, as `disk.c` has written it down.

use std::{fs, ops::Range, path::Path};

const MAGIC: u32 = 0x4b53_4944;
const HEADER_BYTES: usize = 48;

/// An inode number of the folder's file system.
pub(super) type Inode = u64;

/// One thing that happened.
#[derive(Debug)]
pub(super) struct Record {
    /// The monotonic clock when it was done. What a client was told because of it, it was told later.
    pub(super) at_ns: u64,
    pub(super) inode: Inode,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    Create { dir: Inode, name: String, is_dir: bool },
    Write { offset: u64, bytes: Vec<u8> },
    Truncate { len: u64 },
    Rename { from: (Inode, String), to: (Inode, String) },
    Remove { dir: Inode, name: String },
    SyncBegin { no: u64 },
    SyncEnd { no: u64 },
    SyncFailed,
}

/// Reads a trace. A record that the end of the process has cut short did not happen.
pub(super) fn read(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap();
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, end)) = read_one(&bytes, at) {
        records.push(record);
        at = end;
    }
    records
}

fn read_one(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let u32_at = |i: usize| u32::from_ne_bytes(header[i..i + 4].try_into().unwrap());
    let u64_at = |i: usize| u64::from_ne_bytes(header[i..i + 8].try_into().unwrap());
    assert_eq!(u32_at(0), MAGIC, "the trace is out of step at byte {at}");
    let (kind, at_ns, inode, a, b) = (u32_at(4), u64_at(8), u64_at(16), u64_at(24), u64_at(32));
    let name_at = at + HEADER_BYTES;
    let rest_at = name_at + usize::try_from(u32_at(40)).unwrap();
    let end = rest_at + usize::try_from(u32_at(44)).unwrap();
    bytes.get(..end)?;
    let text = |range: Range<usize>| String::from_utf8(bytes[range].to_vec()).unwrap();
    let name = text(name_at..rest_at);
    let change = match kind {
        1 => Change::Create { dir: a, name, is_dir: false },
        2 => Change::Create { dir: a, name, is_dir: true },
        3 => Change::Write { offset: a, bytes: bytes[rest_at..end].to_vec() },
        4 => Change::Truncate { len: a },
        5 => Change::Rename { from: (a, name), to: (b, text(rest_at..end)) },
        6 => Change::Remove { dir: a, name },
        7 => Change::SyncBegin { no: a },
        8 => Change::SyncEnd { no: a },
        9 => Change::SyncFailed,
        other => panic!("a record of kind {other}"),
    };
    Some((Record { at_ns, inode, change }, end))
}
