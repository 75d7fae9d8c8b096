//! Whether the files a TLS listener names can be used: there, readable, certificates and keys, and of one pair.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
};

use crate::config::{ClientCertificates, TlsConfig};

/// Every reason why the files cannot be used, a sentence each; empty when they can.
pub(super) fn problems(tls: &TlsConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |result: Result<(), String>| problems.extend(result.err());
    match (certificates(&tls.certificate), private_key(&tls.key)) {
        (Ok(chain), Ok(key)) => note(pair(tls, chain, key)),
        (chain, key) => {
            note(chain.map(drop));
            note(key.map(drop));
        }
    }
    match &tls.client_certificates {
        ClientCertificates::None => {}
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => note(authorities(ca)),
    }
    problems
}

/// The certificates in a PEM file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| format!("{} is not PEM: {error}", file.display()))?;
    if found.is_empty() {
        return Err(format!("{} has no certificate in it", file.display()));
    }
    Ok(found)
}

/// The first private key in a PEM file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| match error {
        PemError::NoItemsFound => format!("{} has no private key in it", file.display()),
        error => format!("{} is not PEM: {error}", file.display()),
    })
}

fn pair(
    tls: &TlsConfig,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(), String> {
    let (certificate, key_file) = (tls.certificate.display(), tls.key.display());
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map(drop)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key in {key_file} does not belong to the certificate in {certificate}")
            }
            error => format!("{certificate} and {key_file} cannot be used: {error}"),
        })
}

fn authorities(file: &Path) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{} cannot be used: {error}", file.display()))?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}
