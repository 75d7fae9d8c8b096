//! `dormouse certs`: a development CA, and certificates signed by it, for a server and one client.
//!
//! ECDSA P-256, which the smallest devices verify. Keys are readable by their owner only, and nothing that exists is
//! replaced unless asked for. The CA is kept when it is there: who trusts it goes on trusting what it signs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::RootCertStore;

use super::{Failure, say};
use crate::{folder, net::tls::read_certificates, time::WallClock};

/// Ten years: a fleet's trust is not renewed often.
const CA_DAYS: u32 = 3_650;
/// What some TLS clients accept at most for a server.
const LEAF_DAYS: u32 = 825;
/// Certificates are valid from a day before they are made: devices' clocks are behind.
const BACKDATED: Duration = Duration::from_secs(86_400);
/// 1 January 2026: counted from when the own clock cannot be believed.
const LATEST_KNOWN: Duration = Duration::from_secs(1_767_225_600);
const CA_NAME: &str = "Dormouse development CA";
/// Certificates are for everybody, keys for their owner.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;
/// What X.509 allows for a common name. [RFC 5280, appendix A.1]
const COMMON_NAME_CHARS_MAX: usize = 64;
const FILES: [&str; 6] = ["ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"];

/// Makes certificates for development and for closed networks.
#[derive(Clone, Debug, Args)]
pub struct CertsArgs {
    /// The folder they are put into
    #[arg(long, value_name = "DIR", default_value = "./certs")]
    out: PathBuf,
    /// A further host name or IP address of the server; can be repeated. This machine's own names are always in
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// How long the server's and the client's certificate are valid
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(CA_DAYS)))]
    days: u32,
    /// Replaces the server's and the client's certificate and key; the CA stays
    #[arg(long)]
    force: bool,
}

/// Which of the six files are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// Not one.
    None,
    /// All of them.
    All,
    /// A part, with a sentence that says so.
    Some(String),
}

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file is there that would be replaced.
    #[error("{} exists; --force replaces the server's and the client's files", .0.display())]
    Exists(PathBuf),
    /// The development certificates are there in part.
    #[error("{0}")]
    Incomplete(String),
    /// The CA in the folder cannot sign.
    #[error("the CA in {} cannot be used: {why}", .dir.display())]
    Ca {
        /// The folder.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// A name that no certificate can carry.
    #[error("{name:?} cannot be the name of a server: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file or folder could not be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cryptography failed: only without a source of randomness.
    #[error("no certificate could be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// Makes the files and says which.
pub fn run(args: &CertsArgs) -> Result<(), Failure> {
    let made = make(args).map_err(|error| Failure::Runtime(error.to_string()))?;
    let list: Vec<String> = made.iter().map(|name| args.out.join(name).display().to_string()).collect();
    say(&format!("made {}\n", list.join(", ")));
    Ok(())
}

/// Makes the development certificates in `dir` when none of the six files is there; true if it did. `names` are further
/// names of the server. A set that is there in part is an error: guessing which half is right could lock devices out.
pub fn ensure(dir: &Path, names: &[String]) -> Result<bool, CertsError> {
    finish(dir).map_err(|source| CertsError::Write { path: dir.to_owned(), source })?;
    match present(dir) {
        Present::All => Ok(false),
        Present::Some(half) => Err(CertsError::Incomplete(half)),
        Present::None => {
            let args =
                CertsArgs { out: dir.to_owned(), names: names.to_vec(), days: LEAF_DAYS, force: false };
            make(&args).map(|_| true)
        }
    }
}

/// Which of the six files are in `dir`.
pub(super) fn present(dir: &Path) -> Present {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        FILES.into_iter().partition(|name| dir.join(name).symlink_metadata().is_ok());
    match (there.as_slice(), missing.as_slice()) {
        ([], _) => Present::None,
        (_, []) => Present::All,
        (there, missing) => Present::Some(format!(
            "the development certificates in {} are incomplete: {} there, {} missing; bring the missing ones, or remove \
             the others and start again",
            dir.display(),
            there.join(", "),
            missing.join(", ")
        )),
    }
}

fn make(args: &CertsArgs) -> Result<Vec<&'static str>, CertsError> {
    let dir = &args.out;
    finish(dir).map_err(|source| CertsError::Write { path: dir.clone(), source })?;
    let leaves = FILES.into_iter().skip(2);
    if let Some(existing) = leaves.map(|name| dir.join(name)).find(|path| !args.force && path.exists()) {
        return Err(CertsError::Exists(existing));
    }
    folder::make(dir).map_err(|source| CertsError::Write { path: dir.clone(), source })?;
    let now = now();
    let mut files = Vec::with_capacity(FILES.len());
    let issuer = match existing_ca(dir)? {
        Some(issuer) => issuer,
        None => new_ca(now, &mut files)?,
    };
    let names = server_names(&args.names);
    let server = leaf(now, args.days, &names, ExtendedKeyUsagePurpose::ServerAuth)?;
    sign(("server.crt", "server.key"), &server, &issuer, &mut files)?;
    let client = leaf(now, args.days, &["client".to_owned()], ExtendedKeyUsagePurpose::ClientAuth)?;
    sign(("client.crt", "client.key"), &client, &issuer, &mut files)?;
    write_all(dir, &files)?;
    Ok(files.into_iter().map(|file| file.name).collect())
}

/// What goes into the files, by name.
type Files = Vec<NewFile>;

struct NewFile {
    name: &'static str,
    mode: u32,
    pem: String,
}

impl NewFile {
    fn certificate(name: &'static str, pem: String) -> Self {
        Self { name, mode: CERTIFICATE_MODE, pem }
    }

    fn key(name: &'static str, key: &KeyPair) -> Self {
        Self { name, mode: KEY_MODE, pem: key.serialize_pem() }
    }
}

fn new_ca(now: Duration, files: &mut Files) -> Result<Issuer<'static, KeyPair>, CertsError> {
    let key = KeyPair::generate()?;
    let params = ca_params(now);
    files.push(NewFile::certificate("ca.crt", params.self_signed(&key)?.pem()));
    files.push(NewFile::key("ca.key", &key));
    Ok(Issuer::new(params, key))
}

/// The CA in `dir`, if both its files are there. It must be one of ours: what is signed repeats its subject, and that is
/// known only for those.
fn existing_ca(dir: &Path) -> Result<Option<Issuer<'static, KeyPair>>, CertsError> {
    let unusable = |why: String| CertsError::Ca { dir: dir.to_owned(), why };
    match (dir.join("ca.crt").exists(), dir.join("ca.key").exists()) {
        (false, false) => return Ok(None),
        (true, true) => {}
        (true, false) => return Err(unusable("ca.crt is there, ca.key is not".to_owned())),
        (false, true) => return Err(unusable("ca.key is there, ca.crt is not".to_owned())),
    }
    let pem = fs::read_to_string(dir.join("ca.key")).map_err(|error| unusable(format!("ca.key: {error}")))?;
    let key = KeyPair::from_pem(&pem).map_err(|error| unusable(format!("ca.key: {error}")))?;
    let params = ca_params(now());
    let ours = params.self_signed(&key)?;
    let theirs = read_certificates(&dir.join("ca.crt")).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in theirs.into_iter().take(1).chain([ours.der().clone()]) {
        roots.add(certificate).map_err(|error| unusable(format!("ca.crt: {error}")))?;
    }
    match roots.roots.as_slice() {
        [theirs, ours] if theirs.subject_public_key_info != ours.subject_public_key_info => {
            Err(unusable("ca.key does not belong to ca.crt".to_owned()))
        }
        [theirs, ours] if theirs.subject != ours.subject => {
            Err(unusable("dormouse did not make it; sign with the tools that did".to_owned()))
        }
        _ => Ok(Some(Issuer::new(params, key))),
    }
}

fn ca_params(now: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, now, CA_DAYS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A certificate that cannot sign others. The first of `names` is its common name too.
fn leaf(
    now: Duration,
    days: u32,
    names: &[String],
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    valid(&mut params, now, days);
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (i, name) in names.iter().enumerate() {
        let one = CertificateParams::new([name.clone()])
            .map_err(|source| CertsError::Name { name: name.clone(), source })?;
        params.subject_alt_names.extend(one.subject_alt_names);
        if i == 0 && name.chars().count() <= COMMON_NAME_CHARS_MAX {
            params.distinguished_name.push(DnType::CommonName, name);
        }
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn sign(
    (certificate, key_file): (&'static str, &'static str),
    params: &CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
    files: &mut Files,
) -> Result<(), CertsError> {
    let key = KeyPair::generate()?;
    files.push(NewFile::certificate(certificate, params.signed_by(&key, issuer)?.pem()));
    files.push(NewFile::key(key_file, &key));
    Ok(())
}

fn valid(params: &mut CertificateParams, now: Duration, days: u32) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + Duration::from_secs(u64::from(days) * 86_400);
}

fn server_names(given: &[String]) -> Vec<String> {
    // The kernel's name for this machine; a machine without one is reached by the others.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim().to_owned()).filter(|name| !name.is_empty() && name != "(none)");
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    for name in given.iter().cloned().chain(always).chain(host) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate's dates are wall-clock dates, and no floor below reads them"
)]
fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match WallClock::believed(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)) {
        WallClock::UNKNOWN => LATEST_KNOWN,
        _ => now,
    }
}

/// The name of a file that says: every file beside its place is whole, and only has to be moved there.
const WHOLE: &str = ".whole";

/// Writes all files beside their places first, and moves them only when every one is on disk. A power cut at any moment
/// leaves the old ones or, after the next start, the new ones.
fn write_all(dir: &Path, files: &Files) -> Result<(), CertsError> {
    let written = files.iter().try_for_each(|file| write_new(&beside(dir, file.name), file)).and_then(|()| {
        let whole = dir.join(WHOLE);
        let marked =
            folder::sync(dir).and_then(|()| File::create_new(&whole)).and_then(|_| folder::sync(dir));
        marked.map_err(|source| CertsError::Write { path: whole, source })
    });
    if written.is_err() {
        // Nothing is left behind.
        let _ = fs::remove_file(dir.join(WHOLE));
        for file in files {
            let _ = fs::remove_file(beside(dir, file.name));
        }
    }
    written?;
    finish(dir).map_err(|source| CertsError::Write { path: dir.to_owned(), source })
}

/// Moves the files to their places if they are whole beside them, or else takes away what is there of them.
fn finish(dir: &Path) -> io::Result<()> {
    let is_whole = dir.join(WHOLE).exists();
    // Asked first: a folder that cannot be written may have everything in it.
    for name in FILES.into_iter().filter(|name| beside(dir, name).exists()) {
        if is_whole {
            fs::rename(beside(dir, name), dir.join(name))?;
        } else {
            fs::remove_file(beside(dir, name))?;
        }
    }
    if is_whole {
        folder::sync(dir)?;
        fs::remove_file(dir.join(WHOLE))?;
        // Were it there again after a power cut, the next files beside would be taken for whole.
        folder::sync(dir)?;
    }
    Ok(())
}

fn beside(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.new"))
}

fn write_new(path: &Path, new: &NewFile) -> Result<(), CertsError> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(new.mode).open(path)?;
        file.write_all(new.pem.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|source| CertsError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
