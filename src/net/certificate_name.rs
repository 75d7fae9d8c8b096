//! The subject's common name in an X.509 certificate, for logs and permissions.
//!
//! rustls has verified the certificate before anybody asks; this only finds one field in it. It reads DER and nothing
//! more of X.509 than the order of the fields up to the subject (RFC 5280 section 4.1). What it does not understand is
//! a certificate without a name, never an error.

use std::sync::Arc;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXPLICIT_VERSION: u8 = 0xA0;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// The upper bound of the standard (ub-common-name) is 64 characters; more is not a name but a burden on the log.
const NAME_BYTES_MAX: usize = 256;

/// The first common name of the subject; `None` when there is none, or none that can be printed on a line.
pub(super) fn common_name(certificate: &[u8]) -> Option<Arc<str>> {
    let mut certificate = Der(certificate).read_tag(SEQUENCE)?;
    let mut fields = certificate.read_tag(SEQUENCE)?;
    let (first, _) = fields.read()?;
    // The version is optional; the serial number is not.
    if first == EXPLICIT_VERSION {
        fields.read()?;
    }
    let (_signature_algorithm, _issuer, _validity) = (fields.read()?, fields.read()?, fields.read()?);
    let mut subject = fields.read_tag(SEQUENCE)?;
    while let Some(mut relative_name) = subject.read_tag(SET) {
        while let Some(mut attribute) = relative_name.read_tag(SEQUENCE) {
            if attribute.read_tag(OBJECT_IDENTIFIER)?.0 == COMMON_NAME {
                return text(attribute.read()?);
            }
        }
    }
    None
}

fn text((tag, value): (u8, Der<'_>)) -> Option<Arc<str>> {
    let is_text =
        matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) && value.0.len() <= NAME_BYTES_MAX;
    let name = std::str::from_utf8(value.0).ok().filter(|_| is_text)?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| Arc::from(name))
}

/// DER that has not been read yet.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and what is in it.
    fn read(&mut self) -> Option<(u8, Der<'a>)> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Der(value)))
    }

    /// The next element if it has this tag.
    fn read_tag(&mut self, tag: u8) -> Option<Der<'a>> {
        self.read().filter(|&(found, _)| found == tag).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn finds_the_common_name_among_others() {
        let names = [(DnType::OrganizationName, "Meadow"), (DnType::CommonName, "sensor-17 \u{e9}t\u{e9}")];
        assert_eq!(common_name(&certificate(&names)).as_deref(), Some("sensor-17 \u{e9}t\u{e9}"));
    }

    #[test]
    fn no_name_no_control_characters_no_novels() {
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "Meadow")])), None);
        assert_eq!(common_name(&certificate(&[(DnType::CommonName, "a\nb")])), None);
        assert_eq!(common_name(&certificate(&[(DnType::CommonName, &"x".repeat(300))])), None);
    }

    #[test]
    fn a_certificate_cut_anywhere_is_one_without_a_name_or_the_same_name() {
        let whole = certificate(&[(DnType::CommonName, "dev1")]);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "the outer length is checked first");
        }
        assert_eq!(common_name(&whole).as_deref(), Some("dev1"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            common_name(&bytes);
        }
    }
}
