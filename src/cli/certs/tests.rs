use std::{io, os::unix::fs::PermissionsExt, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
    client::WebPkiServerVerifier,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version,
};
use tempfile::TempDir;

use super::*;
use crate::net::tls::read_certificates as certificates;

fn made(names: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert!(ensure(dir.path(), &names).unwrap());
    dir
}

fn args(dir: &Path) -> CertsArgs {
    CertsArgs { out: dir.to_owned(), names: Vec::new(), days: 30, force: false }
}

fn contents(dir: &Path) -> Vec<Vec<u8>> {
    FILES.iter().map(|name| fs::read(dir.join(name)).unwrap()).collect()
}

fn roots(dir: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&dir.join("ca.crt")).unwrap() {
        roots.add(certificate).unwrap();
    }
    Arc::new(roots)
}

/// A handshake in memory in which both sides show their certificates; `client` holds the client's CA and certificate.
fn handshake(
    server: &Path,
    client: &Path,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<(), String> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(server), provider.clone()).build().unwrap();
    let server_config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&server.join("server.crt")).unwrap(),
            PrivateKeyDer::from_pem_file(server.join("server.key")).unwrap(),
        )
        .unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(client), provider.clone()).build().unwrap();
    let client_config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(
            certificates(&client.join("client.crt")).unwrap(),
            PrivateKeyDer::from_pem_file(client.join("client.key")).unwrap(),
        )
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| server.read_tls(bytes));
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| client.read_tls(bytes));
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(())
}

fn feed(mut wire: &[u8], mut read: impl FnMut(&mut &[u8]) -> io::Result<usize>) {
    while !wire.is_empty() {
        assert!(read(&mut wire).unwrap() > 0);
    }
}

#[test]
fn both_sides_of_a_handshake_accept_them_by_every_name() {
    let dir = made(&["gateway.example", "192.0.2.7"]);
    for version in [&version::TLS12, &version::TLS13] {
        for name in ["localhost", "127.0.0.1", "::1", "gateway.example", "192.0.2.7"] {
            assert_eq!(handshake(dir.path(), dir.path(), name, version), Ok(()), "{name}");
        }
    }
    let stranger = handshake(dir.path(), dir.path(), "other.example", &version::TLS13).unwrap_err();
    assert!(stranger.contains("not valid for name"), "{stranger}");
}

#[test]
fn another_ca_is_not_believed() {
    let (ours, theirs) = (made(&[]), made(&[]));
    let refused = handshake(ours.path(), theirs.path(), "localhost", &version::TLS13).unwrap_err();
    assert!(refused.starts_with("client: invalid peer certificate"), "{refused}");
}

#[test]
fn keys_are_for_their_owner_only_and_nothing_else_is_left() {
    let dir = made(&[]);
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = FILES.map(str::to_owned);
    expected.sort();
    assert_eq!(names, expected);
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    for key in ["ca.key", "server.key", "client.key"] {
        assert_eq!(mode(key), 0o600, "{key}");
    }
    // The umask of whoever runs this may take from the others' right to read, but nothing adds to it.
    for certificate in ["ca.crt", "server.crt", "client.crt"] {
        assert_eq!(mode(certificate) & !0o044, 0o600, "{certificate}");
    }
}

#[test]
fn a_second_start_keeps_them() {
    let dir = made(&[]);
    let before = contents(dir.path());
    assert!(!ensure(dir.path(), &[]).unwrap());
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_half_present_set_is_an_error_that_names_the_missing() {
    let dir = made(&[]);
    fs::remove_file(dir.path().join("server.key")).unwrap();
    let error = ensure(dir.path(), &[]).unwrap_err().to_string();
    assert!(
        error.contains("ca.crt, ca.key, server.crt, client.crt, client.key there, server.key missing"),
        "{error}"
    );
    assert!(!dir.path().join("server.key").exists());
}

#[test]
fn what_a_power_cut_interrupted_is_finished_or_taken_back() {
    for moved in 0..=FILES.len() {
        let dir = made(&[]);
        let before = contents(dir.path());
        // Whole beside their places, and so many moved.
        for name in &FILES[moved..] {
            fs::rename(dir.path().join(name), beside(dir.path(), name)).unwrap();
        }
        fs::write(dir.path().join(WHOLE), "").unwrap();
        assert!(!ensure(dir.path(), &[]).unwrap(), "{moved} moved");
        assert_eq!(contents(dir.path()), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), FILES.len());
    }
    let dir = TempDir::new().unwrap();
    fs::write(beside(dir.path(), "ca.crt"), "torn").unwrap();
    assert!(ensure(dir.path(), &[]).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), FILES.len());
}

#[test]
fn nothing_is_replaced_unless_forced_and_then_the_ca_stays() {
    let dir = made(&[]);
    let before = contents(dir.path());
    assert!(matches!(make(&args(dir.path())), Err(CertsError::Exists(path)) if path.ends_with("server.crt")));
    assert_eq!(contents(dir.path()), before);

    let made = make(&CertsArgs { force: true, ..args(dir.path()) }).unwrap();
    assert_eq!(made, ["server.crt", "server.key", "client.crt", "client.key"]);
    let after = contents(dir.path());
    assert_eq!(after[..2], before[..2]);
    assert!(after[2..].iter().zip(&before[2..]).all(|(after, before)| after != before));
    assert_eq!(handshake(dir.path(), dir.path(), "localhost", &version::TLS13), Ok(()));
}

#[test]
fn a_ca_that_is_there_signs_what_is_new() {
    let (old, new) = (made(&[]), TempDir::new().unwrap());
    for name in ["ca.crt", "ca.key"] {
        fs::copy(old.path().join(name), new.path().join(name)).unwrap();
    }
    make(&args(new.path())).unwrap();
    assert_eq!(handshake(new.path(), old.path(), "localhost", &version::TLS13), Ok(()));
}

#[test]
fn a_ca_that_cannot_sign_is_told() {
    let table: [(&str, &[(&str, &str)]); 4] = [
        ("ca.crt is there, ca.key is not", &[("ca.crt", "x")]),
        ("ca.key is there, ca.crt is not", &[("ca.key", "x")]),
        ("ca.key: ", &[("ca.key", "x"), ("ca.crt", "x")]),
        ("no certificate in ", &[("ca.key", ""), ("ca.crt", "x")]),
    ];
    for (expected, files) in table {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            let text = if text.is_empty() {
                KeyPair::generate().unwrap().serialize_pem()
            } else {
                (*text).to_owned()
            };
            fs::write(dir.path().join(name), text).unwrap();
        }
        let error = make(&args(dir.path())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let (one, other) = (made(&[]), made(&[]));
    fs::copy(other.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let error = make(&CertsArgs { force: true, ..args(one.path()) }).unwrap_err().to_string();
    assert!(error.contains("ca.key does not belong to ca.crt"), "{error}");

    let dir = TempDir::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = ca_params(now());
    params.distinguished_name.push(DnType::OrganizationName, "Somebody Else");
    fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
    let error = make(&args(dir.path())).unwrap_err().to_string();
    assert!(error.contains("dormouse did not make it"), "{error}");
}

#[test]
fn a_name_no_certificate_can_carry_is_told() {
    let dir = TempDir::new().unwrap();
    let error = make(&CertsArgs { names: vec!["mäuse".into()], ..args(dir.path()) }).unwrap_err();
    assert!(matches!(error, CertsError::Name { .. }), "{error}");
    assert_eq!(present(dir.path()), Present::None);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_left_clean() {
    let dir = TempDir::new().unwrap();
    // A folder where a file should go: the last of the moves fails.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = make(&args(&file)).unwrap_err();
    assert!(matches!(error, CertsError::Write { .. }), "{error}");
}
