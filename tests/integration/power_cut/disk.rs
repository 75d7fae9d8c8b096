//! A broker on a disk of ours: `disk.c` between the two, and the file by which a test gives it orders.

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsString,
    fs::{self, File},
    hash::{Hash, Hasher},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use tempfile::TempDir;

use super::{
    model::{self, Image},
    trace::{self, Record},
};
use crate::crash::process::{Launch, Process};

/// The places in the control file, as in `disk.c`.
#[derive(Clone, Copy)]
pub(super) enum Field {
    ClockOffsetMs = 0,
    QuotaBytes = 1,
    UsedBytes = 2,
    /// Counted: every call that changes the folder.
    Changes = 3,
    FailChangesFrom = 4,
    FailChangesTo = 5,
    FailChangesErrno = 6,
    Syncs = 7,
    FailSyncsFrom = 8,
    FailSyncsTo = 9,
    FailSyncsErrno = 10,
    SyncDelayUs = 11,
    ForgetSyncs = 12,
    Frozen = 13,
    Begun = 14,
    Done = 15,
}
const FIELDS: usize = 16;

/// A folder with a broker's data in it, whose changes are recorded.
pub(super) struct Disk {
    folder: TempDir,
    control: File,
    /// What was there before the broker was started.
    start: model::Model,
    store: Packing,
}

/// How the store on a disk is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packing {
    /// Its key; none: it is not sealed.
    pub(super) key: Option<&'static str>,
    pub(super) compressed: bool,
}

impl Disk {
    /// A disk with that in it.
    pub(super) fn holding(image: &Image) -> Self {
        // The disk is a model; the files below it need none.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = folder.path().join("root");
        model::write(image, &root);
        let control = folder.path().join("control");
        let control = File::options().create_new(true).read(true).write(true).open(control).unwrap();
        control.set_len(u64::try_from(FIELDS * 8).unwrap()).unwrap();
        Self { control, start: model::Model::of(&root), folder, store: Packing::default() }
    }

    /// The store on it is written so.
    pub(super) fn packed(self, store: Packing) -> Self {
        Self { store, ..self }
    }

    pub(super) fn set(&self, field: Field, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), field as u64 * 8).unwrap();
    }

    pub(super) fn get(&self, field: Field) -> u64 {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, field as u64 * 8).unwrap();
        u64::from_ne_bytes(value)
    }

    /// Starts a broker on it, recorded.
    pub(super) fn start(&self, tls: bool) -> Result<Process, String> {
        self.launch(tls, self.environment())
    }

    /// Runs a command of the binary on its data to the end, recorded.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(arguments)
            .arg("--data")
            .arg(self.root().join("data"))
            .envs(self.environment())
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let of = |name: &str| self.folder.path().join(name).into_os_string();
        vec![
            ("LD_PRELOAD", library().into_os_string()),
            ("DORMOUSE_DISK_ROOT", of("root")),
            ("DORMOUSE_DISK_TRACE", of("trace")),
            ("DORMOUSE_DISK_CONTROL", of("control")),
        ]
    }

    /// The same with any command that ends well; returns what was there at first and all that it did.
    pub(super) fn play(self, command: &mut Command) -> (model::Model, Vec<Record>) {
        let output = command.envs(self.environment()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (self.start, trace::read(&self.folder.path().join("trace")))
    }

    /// Starts one without the library.
    pub(super) fn start_plain(&self, tls: bool) -> Result<Process, String> {
        self.launch(tls, Vec::new())
    }

    fn launch(&self, tls: bool, mut environment: Vec<(&'static str, OsString)>) -> Result<Process, String> {
        environment.extend(self.store.key.map(|key| ("DORMOUSE_STORE_KEY", key.into())));
        let (folder, root) = (self.folder.path().to_owned(), self.root());
        Launch { folder, root, tls, compressed: self.store.compressed, environment }.start()
    }

    /// What the brokers on it have logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Ends the broker in the middle of what it is doing, and returns what was there at first and all that was done to
    /// it since.
    pub(super) fn end(self, mut broker: Process) -> (model::Model, Vec<Record>) {
        self.set(Field::Frozen, 1);
        while self.get(Field::Done) != self.get(Field::Begun) {
            thread::yield_now();
        }
        broker.kill();
        let records = trace::read(&self.folder.path().join("trace"));
        let mut model = self.start.clone();
        for record in &records {
            model.play(record);
        }
        let (recorded, found) = (model.now(), model::image_of(&self.root()));
        for (path, content) in &found {
            assert!(
                recorded.get(path) == Some(content),
                "{} changed behind the library's back",
                path.display()
            );
        }
        assert_eq!(recorded.len(), found.len(), "something was removed behind the library's back");
        (self.start, records)
    }
}

/// The library, compiled if that was not done yet.
fn library() -> PathBuf {
    const SOURCE: &str = include_str!("disk.c");
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("libdisk-{:016x}.so", hasher.finish()));
    if library.exists() {
        return library;
    }
    // Other tests may do the same at this moment.
    let build = tempfile::tempdir_in(folder).unwrap();
    let (source, made) = (build.path().join("disk.c"), build.path().join("libdisk.so"));
    fs::write(&source, SOURCE).unwrap();
    let arguments = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"];
    let output =
        Command::new("cc").args(arguments).arg(&made).arg(&source).args(["-ldl", "-lpthread"]).output();
    let output =
        output.unwrap_or_else(|error| panic!("cc: {error}; tests/run.sh installs what the tests need"));
    assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(made, &library).unwrap();
    library
}
