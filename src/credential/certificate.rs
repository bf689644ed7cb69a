//! Certificates in a Secret.

use rcgen::PublicKeyData as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use super::{Fields, Held, Shown, field, shape_of, text};
use crate::api::KeyType;
use crate::ledger::{Credential, Digest, Verifier};

/// What the fields `tls.crt` and `tls.key` hold, by the ledger's verifiers. A certificate whose key is another's
/// is nothing that an application could use: it counts as unknown.
#[must_use]
pub fn inspect(fields: &Fields, ledger: Option<&Credential>, previous: Held) -> Shown {
    let (current, shape) = match (text(fields, field::CERTIFICATE), text(fields, field::PRIVATE_KEY)) {
        (None, None) => (Held::Nothing, String::new()),
        (Some(certificate), Some(key)) => held(certificate, key, ledger).unwrap_or((Held::Unknown, String::new())),
        _ => (Held::Unknown, String::new()),
    };
    Shown::Certificate { current, previous, shape }
}

/// What a certificate is asked to say: its key and its names. Two certificates of the same shape can stand for each
/// other.
#[must_use]
pub fn shape(key_type: KeyType, dns_names: &[String]) -> String {
    let mut names: Vec<&str> = dns_names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    shape_of([key_type_name(key_type)].into_iter().chain(names))
}

/// The key type of the certificate that a verifier is of.
#[must_use]
pub fn key_type(verifier: &Verifier) -> Option<KeyType> {
    let jwk = &verifier.jwk()?;
    let text = |member: &str| jwk.get(member).and_then(serde_json::Value::as_str);
    match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => Some(KeyType::EcdsaP256),
        ("EC", Some("P-384")) => Some(KeyType::EcdsaP384),
        ("OKP", Some("Ed25519")) => Some(KeyType::Ed25519),
        // The modulus in base64url, RFC 7518 section 6.3.1.1: four characters for three bytes.
        ("RSA", _) => match text("n")?.len() * 3 / 4 * 8 {
            2048 => Some(KeyType::Rsa2048),
            3072 => Some(KeyType::Rsa3072),
            4096 => Some(KeyType::Rsa4096),
            _ => None,
        },
        _ => None,
    }
}

/// Which certificate authorities of a PEM text are the same as this one.
#[must_use]
pub fn contains_ca(bundle: &str, certificate: &str) -> bool {
    let wanted = certificate.trim();
    !wanted.is_empty() && bundle.contains(wanted)
}

fn held(certificate: &str, key: &str, ledger: Option<&Credential>) -> Option<(Held, String)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents).ok()?;
    let key = rcgen::KeyPair::from_pem(key).ok()?;
    if key.subject_public_key_info() != parsed.tbs_certificate.subject_pki.raw {
        return None;
    }
    let digest = Digest::of(&pem.contents);
    let revision = ledger?.revisions.iter().find(|revision| match &revision.verifier {
        Verifier::Certificate(verifier) => verifier.cert_sha256 == digest,
        Verifier::PublicKey(_) | Verifier::ClientSecret(_) => false,
    })?;
    Some((Held::Revision(revision.revision), shape(key_type_of(&parsed)?, &dns_names(&parsed))))
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn key_type_of(certificate: &X509Certificate<'_>) -> Option<KeyType> {
    use x509_parser::public_key::PublicKey;
    let spki = &certificate.tbs_certificate.subject_pki;
    if spki.algorithm.algorithm.to_id_string() == "1.3.101.112" {
        return Some(KeyType::Ed25519);
    }
    match spki.parsed().ok()? {
        PublicKey::EC(point) => match point.key_size() {
            256 => Some(KeyType::EcdsaP256),
            384 => Some(KeyType::EcdsaP384),
            _ => None,
        },
        PublicKey::RSA(key) => match key.key_size() {
            2048 => Some(KeyType::Rsa2048),
            3072 => Some(KeyType::Rsa3072),
            4096 => Some(KeyType::Rsa4096),
            _ => None,
        },
        _ => None,
    }
}

const fn key_type_name(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::EcdsaP256 => "ECDSAP256",
        KeyType::EcdsaP384 => "ECDSAP384",
        KeyType::Ed25519 => "Ed25519",
        KeyType::Rsa2048 => "RSA2048",
        KeyType::Rsa3072 => "RSA3072",
        KeyType::Rsa4096 => "RSA4096",
    }
}
