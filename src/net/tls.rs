//! TLS settings: from files to a `rustls::ServerConfig`, or to a sentence that says which file is wrong and why.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    CipherSuite, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{
        ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions, VerifierBuilderError,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

/// Sessions remembered for TLS 1.2 clients that take no tickets; a few hundred bytes each.
const SESSION_CACHE_MAX: usize = 1024;
/// Protocol names by ALPN, as registered with IANA.
const ALPN_MQTT: &[u8] = b"mqtt";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// How a TLS listener identifies itself, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM: the server's certificate, then the intermediates up to the root.
    pub certificate: PathBuf,
    /// PEM: the private key of the first certificate; PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// The oldest version spoken. Default TLS 1.2, which most device stacks have.
    pub version_min: TlsVersion,
    /// From accept to the end of the handshake, with the wait for its turn. Default 10 s: a small device on a slow link
    /// needs several seconds for a full handshake. A shorter connect timeout goes before it.
    pub handshake_timeout: Duration,
}

/// Whether clients show certificates. The path is a PEM file with the authorities that may have signed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a client without one is let in, one with a bad one is not.
    Optional(PathBuf),
    /// No handshake without a good one.
    Required(PathBuf),
}

/// What a listener speaks with, for the two kinds of clients.
#[derive(Clone)]
pub(super) struct TlsSettings {
    aes: Arc<ServerConfig>,
    chacha: Arc<ServerConfig>,
}

impl TlsSettings {
    /// A client that puts `ChaCha20` first has no AES instructions, and gets it. All others get AES-128: AES-256 comes with
    /// SHA-384, which costs some forty microseconds more a handshake here, and on a small device, which counts in 32 bits,
    /// several times what SHA-256 does. Who offers nothing else gets AES-256.
    pub(super) fn for_client(&self, ciphers: &[CipherSuite]) -> &Arc<ServerConfig> {
        match ciphers.iter().find_map(|&suite| Cipher::of(suite)) {
            Some(Cipher::ChaCha) => &self.chacha,
            _ => &self.aes,
        }
    }

    /// One configuration, whoever comes.
    #[cfg(test)]
    pub(super) fn same_for_all(config: Arc<ServerConfig>) -> Self {
        Self { aes: Arc::clone(&config), chacha: config }
    }

    /// Whether this is a ticket by which a session can be resumed.
    pub(super) fn opens(&self, ticket: &[u8]) -> bool {
        self.aes.ticketer.decrypt(ticket).is_some()
    }
}

/// What encrypts, in the order in which clients get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cipher {
    Aes128,
    ChaCha,
    Aes256,
}

impl Cipher {
    fn of(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Self::Aes128),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Self::ChaCha),
            CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Self::Aes256),
            _ => None,
        }
    }
}

/// rustls's ciphers, this one first.
fn preferring(first: Cipher) -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let cipher = Cipher::of(suite.suite());
        (cipher != Some(first), cipher.is_none(), cipher)
    });
    provider
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}

impl TlsConfig {
    /// The defaults with this certificate and key.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_certificates: ClientCertificates::default(),
            version_min: TlsVersion::default(),
            handshake_timeout: Duration::from_secs(10),
        }
    }

    /// Reads the files and checks that they belong together. Blocks on the disk.
    pub(super) fn load(&self) -> Result<TlsSettings, TlsError> {
        self.load_for(ALPN_MQTT)
    }

    /// The same for a WebSocket listener, which is asked by HTTP.
    pub(super) fn load_for_http(&self) -> Result<TlsSettings, TlsError> {
        self.load_for(ALPN_HTTP)
    }

    fn load_for(&self, protocol: &[u8]) -> Result<TlsSettings, TlsError> {
        let provider = ring::default_provider();
        let identity = Arc::new(SingleCertAndKey::from(self.load_identity(&provider)?));
        let clients = self.client_certificates.verifier(&Arc::new(provider))?;
        // A device that wakes every few minutes resumes instead of computing a full handshake each time.
        let tickets = ring::Ticketer::new()?;
        let sessions = ServerSessionMemoryCache::new(SESSION_CACHE_MAX);
        let preferring = |first: Cipher| {
            let mut config = ServerConfig::builder_with_provider(Arc::new(preferring(first)))
                .with_protocol_versions(self.version_min.and_later())?
                .with_client_cert_verifier(Arc::clone(&clients))
                .with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>);
            config.ignore_client_order = true;
            // A client that names no protocol is let in; one that only names others is turned away by rustls (RFC 7301).
            config.alpn_protocols = vec![protocol.to_vec()];
            config.ticketer = Arc::clone(&tickets);
            config.session_storage = Arc::clone(&sessions) as Arc<dyn StoresServerSessions>;
            // One ticket is what a device keeps; a second one is a hundred bytes of its air time.
            config.send_tls13_tickets = 1;
            Ok::<_, TlsError>(Arc::new(config))
        };
        Ok(TlsSettings { aes: preferring(Cipher::Aes128)?, chacha: preferring(Cipher::ChaCha)? })
    }

    /// Everything that `load` could fail of, at once; empty when it would not.
    pub fn problems(&self) -> Vec<TlsError> {
        let provider = Arc::new(ring::default_provider());
        let files = [read_certificates(&self.certificate).err(), self.read_key().err()];
        let mut problems: Vec<TlsError> = files.into_iter().flatten().collect();
        if problems.is_empty() {
            problems.extend(self.load_identity(&provider).err());
        }
        problems.extend(self.client_certificates.verifier(&provider).err());
        problems
    }

    fn read_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        match PrivateKeyDer::from_pem_slice(&read(&self.key)?) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) => Err(TlsError::NoKey { path: self.key.clone() }),
            Err(_) => Err(TlsError::BadKey { path: self.key.clone() }),
        }
    }

    fn load_identity(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = read_certificates(&self.certificate)?;
        let key = self.read_key()?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| TlsError::BadKey { path: self.key.clone() })?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::KeyMismatch { certificate: self.certificate.clone(), key: self.key.clone() })
            }
            Err(_) => Err(TlsError::BadCertificate { path: self.certificate.clone() }),
        }
    }
}

impl ClientCertificates {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (path, required) = match self {
            Self::None => return Ok(WebPkiClientVerifier::no_client_auth()),
            Self::Optional(path) => (path, false),
            Self::Required(path) => (path, true),
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|_| TlsError::BadCertificate { path: path.clone() })?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|source| TlsError::Verifier { path: path.clone(), source })
    }
}

impl TlsVersion {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        const FROM_V12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        const FROM_V13: &[&SupportedProtocolVersion] = &[&TLS13];
        match self {
            Self::V12 => FROM_V12,
            Self::V13 => FROM_V13,
        }
    }
}

/// What is wrong with the TLS settings: always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", path.display(), reason(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file without a certificate in it.
    #[error("no certificate in {} (a PEM section \"BEGIN CERTIFICATE\" is wanted)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that cannot be parsed.
    #[error("the certificate in {} is damaged or not an X.509 certificate", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file without a private key in it.
    #[error("no private key in {} (a PEM section \"BEGIN PRIVATE KEY\" is wanted; encrypted keys are not supported)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key that cannot be used. Says no more, since the reason could quote the key.
    #[error("the private key in {} is damaged or of a kind that is not supported (ECDSA P-256 and P-384, Ed25519 and RSA from 2048 bits are)", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// Two good files that do not belong together.
    #[error("the key in {} does not match the certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The client authorities cannot be used.
    #[error("the client authorities in {} cannot be used: {source}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// rustls refuses the settings for a reason of its own.
    #[error("TLS cannot be set up: {0}")]
    Refused(#[from] rustls::Error),
}

/// A file larger than this is not a certificate; reading a device file by mistake must not fill the memory.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// The certificates in a PEM file, at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::BadCertificate { path: path.to_owned() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The usual reasons in words, without the number of the operating system.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tempfile::TempDir;

    use super::*;

    struct Files {
        folder: TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self { folder: tempfile::tempdir().unwrap() };
            for name in ["a", "b"] {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let certificate = params.self_signed(&key).unwrap();
                files.write(&format!("{name}.crt"), &certificate.pem());
                files.write(&format!("{name}.key"), &key.serialize_pem());
            }
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn config(&self, certificate: &str, key: &str) -> TlsConfig {
            TlsConfig::new(self.path(certificate), self.path(key))
        }

        /// The sentence, with the folder taken out.
        fn error(&self, config: &TlsConfig) -> String {
            let error = config.load().err().expect("must not load");
            error.to_string().replace(&format!("{}/", self.folder.path().display()), "")
        }
    }

    #[test]
    fn good_files_make_a_config_that_offers_mqtt() {
        let files = Files::new();
        let mut config = files.config("a.crt", "a.key");
        assert_eq!(config.load().unwrap().aes.alpn_protocols, [b"mqtt".to_vec()]);
        config.version_min = TlsVersion::V13;
        config.client_certificates = ClientCertificates::Required(files.path("b.crt"));
        config.load().unwrap();
    }

    /// What a client that offers these gets.
    fn chosen(settings: &TlsSettings, offered: &[CipherSuite]) -> CipherSuite {
        let config = settings.for_client(offered);
        assert!(config.ignore_client_order);
        let suites = &config.crypto_provider().cipher_suites;
        suites.iter().map(rustls::SupportedCipherSuite::suite).find(|suite| offered.contains(suite)).unwrap()
    }

    #[test]
    fn sha_384_is_only_for_those_who_offer_nothing_else() {
        use CipherSuite::{
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as AES_128_V12,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 as AES_256_V12, TLS13_AES_128_GCM_SHA256 as AES_128,
            TLS13_AES_256_GCM_SHA384 as AES_256, TLS13_CHACHA20_POLY1305_SHA256 as CHACHA,
        };
        let files = Files::new();
        let settings = files.config("a.crt", "a.key").load().unwrap();
        for (offered, expected) in [
            // OpenSSL's order.
            (&[AES_256, CHACHA, AES_128][..], AES_128),
            // A device without AES instructions.
            (&[CHACHA, AES_256, AES_128], CHACHA),
            (&[CipherSuite::TLS13_AES_128_CCM_SHA256, CHACHA, AES_128], CHACHA),
            (&[AES_256, CHACHA], CHACHA),
            (&[AES_256], AES_256),
            (&[AES_256_V12, AES_128_V12], AES_128_V12),
            (&[AES_256_V12], AES_256_V12),
        ] {
            assert_eq!(chosen(&settings, offered), expected, "{offered:?}");
        }
    }

    #[test]
    fn each_wrong_file_is_named_with_what_is_wrong() {
        let files = Files::new();
        files.write("empty", "");
        files.write("broken.crt", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n");
        files.write("broken.key", "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n");
        files.write("cut.key", "-----BEGIN PRIVATE KEY-----\nsecret");
        for (certificate, key, begins) in [
            ("none.crt", "a.key", "cannot read none.crt: there is no such file"),
            ("a.crt", "none.key", "cannot read none.key: there is no such file"),
            ("", "a.key", "cannot read : it is a folder"),
            ("empty", "a.key", "no certificate in empty"),
            ("a.key", "a.key", "no certificate in a.key"),
            ("a.crt", "empty", "no private key in empty"),
            ("a.crt", "a.crt", "no private key in a.crt"),
            ("broken.crt", "a.key", "the certificate in broken.crt is damaged"),
            ("a.crt", "broken.key", "the private key in broken.key is damaged"),
            ("a.crt", "cut.key", "the private key in cut.key is damaged"),
            ("a.crt", "b.key", "the key in b.key does not match the certificate in a.crt"),
        ] {
            let sentence = files.error(&files.config(certificate, key));
            assert!(sentence.starts_with(begins), "{certificate} with {key}: {sentence}");
            assert!(!sentence.contains("secret") && !sentence.contains("os error"), "{sentence}");
        }
    }

    #[test]
    fn client_authorities_are_checked_too() {
        let files = Files::new();
        files.write("empty", "");
        let mut config = files.config("a.crt", "a.key");
        config.client_certificates = ClientCertificates::Optional(files.path("empty"));
        assert!(files.error(&config).starts_with("no certificate in empty"));
        config.client_certificates = ClientCertificates::Required(files.path("none"));
        assert!(files.error(&config).starts_with("cannot read none"));
    }

    #[test]
    fn an_unreadable_key_is_one_sentence() {
        let files = Files::new();
        fs::set_permissions(files.path("a.key"), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(files.path("a.key")).is_ok() {
            // The superuser reads everything: there is nothing to see then but that it loads.
            files.config("a.crt", "a.key").load().unwrap();
        } else {
            assert_eq!(files.error(&files.config("a.crt", "a.key")), "cannot read a.key: permission denied");
        }
    }
}
