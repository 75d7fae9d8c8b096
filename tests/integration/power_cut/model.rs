//! The model of a disk: what it holds for sure, and what a power cut may leave.
//!
//! - The bytes of a file are sure when an fsync or fdatasync of it, begun after they were written, is complete. Of what
//!   was written since, any sectors of 512 bytes may be there, and the length may be any that the file has had.
//! - A name (made, renamed or removed) is sure when an fsync of its directory is complete; a rename between two
//!   directories, when both are. A rename happens whole or not at all, as on every file system with a log.
//! - Of the changes of names that are not sure, a cut leaves: those before some moment (as ext4 does), or in each
//!   directory those before some moment, or any; but none without the earlier ones of the same name.
//! - Bytes and names do not wait for each other: a new name can have no bytes, and bytes no name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    chance::Chance,
    content::Content,
    trace::{Change, Inode, Record},
};

/// A file or directory, in the order in which they were made. The root is the first.
type Node = usize;
/// A name in a directory.
type Place = (Node, String);

const ROOT: Node = 0;

/// The files and directories below a folder, by path. A directory has no bytes.
pub(super) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

#[derive(Clone, Debug)]
struct Disk {
    contents: Vec<Content>,
    is_dir: Vec<bool>,
    by_inode: HashMap<Inode, Node>,
    /// The names that are sure.
    sure: BTreeMap<Place, Node>,
    /// The changes since, in order.
    names: Vec<NameChange>,
    names_before: u64,
    syncs: HashMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct NameChange {
    what: NameEdit,
    no: u64,
    /// The directories whose sync it still waits for.
    unsynced: Vec<Node>,
}

#[derive(Clone, Debug)]
enum NameEdit {
    Add(Place, Node),
    Rename(Place, Place),
    Remove(Place),
}

/// A disk that a trace is played to.
#[derive(Clone, Debug)]
pub(super) struct Model(Disk);

impl Model {
    /// A disk that holds for sure what is in `folder` now.
    pub(super) fn of(folder: &Path) -> Self {
        let mut disk = Disk {
            contents: Vec::new(),
            is_dir: Vec::new(),
            by_inode: HashMap::new(),
            sure: BTreeMap::new(),
            names: Vec::new(),
            names_before: 0,
            syncs: HashMap::new(),
        };
        disk.load(folder);
        Self(disk)
    }

    /// Plays one record.
    pub(super) fn play(&mut self, record: &Record) {
        self.0.play(record);
    }

    /// Everything that was done, as the file system shows it.
    pub(super) fn now(&self) -> Image {
        let everything: Vec<bool> = vec![true; self.0.names.len()];
        self.0.image(&everything, Content::now)
    }

    /// What is there when the power comes back.
    pub(super) fn after_a_cut(&self, chance: &mut Chance) -> Image {
        let kept = self.0.names_kept(chance);
        self.0.image(&kept, |content| content.after_a_cut(chance))
    }
}

impl Disk {
    fn load(&mut self, path: &Path) -> Node {
        let metadata = fs::symlink_metadata(path).unwrap();
        let content = if metadata.is_dir() { Vec::new() } else { fs::read(path).unwrap() };
        let node = self.add(metadata.ino(), metadata.is_dir(), Content::of(content));
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let child = self.load(&entry.path());
                self.sure.insert((node, entry.file_name().into_string().unwrap()), child);
            }
        }
        node
    }

    fn add(&mut self, inode: Inode, is_dir: bool, content: Content) -> Node {
        self.contents.push(content);
        self.is_dir.push(is_dir);
        self.by_inode.insert(inode, self.contents.len() - 1);
        self.contents.len() - 1
    }

    fn node(&self, inode: Inode) -> Node {
        *self.by_inode.get(&inode).expect("the trace knows every file from its beginning")
    }

    fn play(&mut self, record: &Record) {
        match &record.change {
            Change::Create { dir, name, is_dir } => {
                let place = (self.node(*dir), name.clone());
                let node = self.add(record.inode, *is_dir, Content::default());
                self.rename(NameEdit::Add(place, node));
            }
            Change::Write { offset, bytes } => {
                let node = self.node(record.inode);
                self.contents[node].write(*offset, bytes);
            }
            Change::Truncate { len } => {
                let node = self.node(record.inode);
                self.contents[node].truncate(*len);
            }
            Change::Rename { from, to } => {
                let place = |(dir, name): &(Inode, String)| (self.node(*dir), name.clone());
                self.rename(NameEdit::Rename(place(from), place(to)));
            }
            Change::Remove { dir, name } => self.rename(NameEdit::Remove((self.node(*dir), name.clone()))),
            Change::SyncBegin { no } => {
                let node = self.node(record.inode);
                let mark = if self.is_dir[node] {
                    self.names_before + u64::try_from(self.names.len()).unwrap()
                } else {
                    self.contents[node].edits_so_far()
                };
                self.syncs.insert(*no, mark);
            }
            Change::SyncEnd { no } => {
                let mark = self.syncs.remove(no).expect("a sync begins before it ends");
                let node = self.node(record.inode);
                if self.is_dir[node] {
                    self.names_synced(node, mark);
                } else {
                    self.contents[node].synced(mark);
                }
            }
            Change::SyncFailed => {
                let node = self.node(record.inode);
                self.contents[node].sync_failed();
            }
        }
    }

    fn rename(&mut self, what: NameEdit) {
        let mut unsynced: Vec<Node> = what.places().iter().map(|(dir, _)| *dir).collect();
        unsynced.dedup();
        let no = self.names_before + u64::try_from(self.names.len()).unwrap();
        self.names.push(NameChange { what, no, unsynced });
    }

    /// A directory's names are sure up to change number `mark`.
    fn names_synced(&mut self, dir: Node, mark: u64) {
        for change in self.names.iter_mut().filter(|change| change.no < mark) {
            change.unsynced.retain(|waits_for| *waits_for != dir);
        }
        // What stands before the first that is not sure is applied for good.
        let done = self.names.iter().take_while(|change| change.unsynced.is_empty()).count();
        for change in self.names.drain(..done) {
            change.what.apply(&mut self.sure);
        }
        self.names_before += u64::try_from(done).unwrap();
    }

    /// Which changes of names are there after a cut.
    fn names_kept(&self, chance: &mut Chance) -> Vec<bool> {
        let is_sure: Vec<bool> = self.names.iter().map(|change| change.unsynced.is_empty()).collect();
        let all = u64::try_from(self.names.len()).unwrap();
        let mut kept = is_sure.clone();
        match chance.below(3) {
            0 => {
                let sure_to = is_sure.iter().rposition(|sure| *sure).map_or(0, |last| last + 1);
                let moment = usize::try_from(chance.below(all + 1)).unwrap().max(sure_to);
                kept[..moment].fill(true);
            }
            1 => {
                let mut moments = HashMap::new();
                for (at, change) in self.names.iter().enumerate() {
                    let dir = change.what.places()[0].0;
                    let moment = *moments.entry(dir).or_insert_with(|| chance.below(all + 1));
                    kept[at] |= u64::try_from(at).unwrap() < moment;
                }
            }
            _ => {
                let fate = chance.fate();
                for kept in &mut kept {
                    *kept |= chance.below(16) < fate;
                }
            }
        }
        // What is kept stands on the earlier changes of the same names.
        let mut needed: HashSet<&Place> = HashSet::new();
        for (change, kept) in self.names.iter().zip(&mut kept).rev() {
            let places = change.what.places();
            *kept |= places.iter().any(|place| needed.contains(place));
            if *kept {
                needed.extend(places);
            }
        }
        kept
    }

    fn image(&self, kept: &[bool], mut bytes: impl FnMut(&Content) -> Vec<u8>) -> Image {
        let mut names = self.sure.clone();
        for (change, _) in self.names.iter().zip(kept).filter(|(_, kept)| **kept) {
            change.what.apply(&mut names);
        }
        let mut image = Image::new();
        let mut dirs = vec![(ROOT, PathBuf::new())];
        while let Some((dir, path)) = dirs.pop() {
            for ((_, name), node) in names.range((dir, String::new())..(dir + 1, String::new())) {
                let path = path.join(name);
                if self.is_dir[*node] {
                    dirs.push((*node, path.clone()));
                }
                let content = (!self.is_dir[*node]).then(|| bytes(&self.contents[*node]));
                image.insert(path, content);
            }
        }
        image
    }
}

impl NameEdit {
    /// The names it touches.
    fn places(&self) -> Vec<&Place> {
        match self {
            Self::Add(place, _) | Self::Remove(place) => vec![place],
            Self::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<Place, Node>) {
        match self {
            Self::Add(place, node) => {
                names.insert(place.clone(), *node);
            }
            Self::Remove(place) => {
                names.remove(place);
            }
            Self::Rename(from, to) => {
                let node = names.remove(from).expect("what is renamed was there");
                names.insert(to.clone(), node);
            }
        }
    }
}

/// What is in a folder.
pub(super) fn image_of(folder: &Path) -> Image {
    let mut image = Image::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(folder.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            let is_dir = entry.file_type().unwrap().is_dir();
            if is_dir {
                dirs.push(path.clone());
            }
            image.insert(path, (!is_dir).then(|| fs::read(entry.path()).unwrap()));
        }
    }
    image
}

/// Makes a folder with that in it.
pub(super) fn write(image: &Image, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (path, bytes) in image {
        let path = folder.join(path);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::create_dir(path).unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use super::{
        super::trace::{Change, Inode, Record},
        Chance, Image, Model,
    };

    struct Played {
        _folder: tempfile::TempDir,
        model: Model,
    }

    /// Plays changes to an empty disk. Its root has inode 0 here.
    fn play(changes: Vec<(Inode, Change)>) -> Played {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::of(folder.path());
        model.0.by_inode.insert(0, super::ROOT);
        for (inode, change) in changes {
            model.play(&Record { at_ns: 0, inode, change });
        }
        Played { _folder: folder, model }
    }

    fn outcomes(played: &Played) -> HashSet<Vec<String>> {
        let names = |image: Image| image.into_keys().map(|path| path.display().to_string()).collect();
        (1..300).map(|seed| names(played.model.after_a_cut(&mut Chance::new(seed)))).collect()
    }

    fn create(name: &str) -> Change {
        Change::Create { dir: 0, name: name.to_owned(), is_dir: false }
    }

    fn rename(from: &str, to: &str) -> Change {
        Change::Rename { from: (0, from.to_owned()), to: (0, to.to_owned()) }
    }

    fn set(outcomes: &[&[&str]]) -> HashSet<Vec<String>> {
        outcomes.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect()
    }

    #[test]
    fn a_name_is_sure_when_its_directory_was_synced() {
        let file_synced =
            vec![(7, create("a")), (7, Change::SyncBegin { no: 1 }), (7, Change::SyncEnd { no: 1 })];
        assert_eq!(outcomes(&play(file_synced)), set(&[&[], &["a"]]));
        let dir_synced = vec![
            (7, create("a")),
            (0, Change::SyncBegin { no: 1 }),
            (8, create("b")),
            (0, Change::SyncEnd { no: 1 }),
        ];
        assert_eq!(outcomes(&play(dir_synced)), set(&[&["a"], &["a", "b"]]));
    }

    #[test]
    fn a_rename_is_whole_and_stands_on_what_was_before() {
        let played = play(vec![(7, create("new")), (7, rename("new", "a")), (8, create("b"))]);
        let all: &[&[&str]] = &[&[], &["new"], &["a"], &["b"], &["b", "new"], &["a", "b"]];
        assert_eq!(outcomes(&played), set(all));
        assert_eq!(played.model.now().len(), 2);
    }

    #[test]
    fn what_was_removed_may_be_back() {
        let remove = Change::Remove { dir: 0, name: "a".to_owned() };
        let synced = [(0, Change::SyncBegin { no: 1 }), (0, Change::SyncEnd { no: 1 })];
        let mut changes = vec![(7, create("a"))];
        changes.extend(synced);
        changes.push((7, remove));
        assert_eq!(outcomes(&play(changes)), set(&[&[], &["a"]]));
    }

    #[test]
    fn an_inode_used_again_is_another_file() {
        let remove = Change::Remove { dir: 0, name: "a".to_owned() };
        let write = |byte| Change::Write { offset: 0, bytes: vec![byte] };
        let played =
            play(vec![(7, create("a")), (7, write(1)), (7, remove), (7, create("b")), (7, write(2))]);
        assert_eq!(played.model.now()[Path::new("b")], Some(vec![2]));
    }
}
