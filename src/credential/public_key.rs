//! Certificates and public keys that people give: what was written, read into what the ledger keeps of it.
//!
//! Nothing of what was written is ever repeated: somebody may have taken a private key for a public one.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::jwk::{self, KeyFamily};
use crate::api;
use crate::ledger::{CertificateVerifier, Digest, PublicKeyVerifier, Verifier};
use crate::rotation::NO_END;

/// The most characters that are read: the schema allows no more.
const MOST_CHARACTERS: usize = 12 * 1024;

/// The sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The object identifiers of algorithms and curves (RFC 5480 §2.1.1, RFC 8017 §A.1, RFC 8410 §3).
mod oid {
    pub(super) const EC: &str = "1.2.840.10045.2.1";
    pub(super) const P256: &str = "1.2.840.10045.3.1.7";
    pub(super) const P384: &str = "1.3.132.0.34";
    pub(super) const ED25519: &str = "1.3.101.112";
    pub(super) const RSA: &str = "1.2.840.113549.1.1.1";
}

/// What was given, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// What proves possession: of a certificate, or of a key alone.
    pub verifier: Verifier,
    /// When a certificate's validity begins; a key alone is valid from the beginning of time.
    pub not_before: Timestamp,
    /// When a certificate's validity ends, at most [`NO_END`]; that of a key alone does not.
    pub not_after: Timestamp,
}

/// Why what was given cannot be used. The texts follow the name of the field, say how to mend it, and repeat nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Both or neither of the two forms.
    #[error("must have exactly one of pem and der: remove the other, or add one")]
    NotOne,
    /// A private key in any form, or a PKCS #12 file, which holds one.
    #[error(
        "must not be a private key: remove it, and treat it as leaked; write the certificate or the public key here"
    )]
    PrivateKey,
    /// More than 12 KiB.
    #[error("must have at most 12 KiB: write one certificate or one public key alone")]
    TooLong,
    /// No block of PEM, or a broken one.
    #[error(
        "must be PEM: write the whole block from -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY----- to \
         its -----END line"
    )]
    NotPem,
    /// A chain, or a key beside its certificate.
    #[error("must have one PEM block: keep the application's own certificate, and remove the others")]
    SeveralBlocks,
    /// Another block than a certificate or a public key.
    #[error(
        "must be a certificate or a public key: write -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY-----, to which \
         `openssl rsa -RSAPublicKey_in -pubout` turns an RSA PUBLIC KEY"
    )]
    OtherBlock,
    /// `der` is not base64.
    #[error("must have base64 in der: write the output of `base64 -w0 app.cer`")]
    NotBase64,
    /// `der` is base64 of PEM.
    #[error("must not have base64 of a PEM file in der: write the file itself as pem")]
    PemInDer,
    /// Neither X.509 nor a public key, or damaged.
    #[error("must be an undamaged X.509 certificate or public key (SubjectPublicKeyInfo): export it again")]
    Malformed,
    /// A key that cannot be used.
    #[error("must have a key that is accepted: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    Key,
}

/// Reads a field `publicKey`.
pub fn read(given: &api::PublicKey) -> Result<Given, Unusable> {
    match (&given.pem, &given.der) {
        (Some(pem), None) => of_pem(pem),
        (None, Some(der)) => of_base64(der),
        (None, None) | (Some(_), Some(_)) => Err(Unusable::NotOne),
    }
}

/// Whether both stand for the same thing: the same certificate, or the same key where none of them is a certificate.
#[must_use]
pub fn is_same(one: &Verifier, other: &Verifier) -> bool {
    match (one, other) {
        (Verifier::Certificate(one), Verifier::Certificate(other)) => one.cert_sha256 == other.cert_sha256,
        (Verifier::PublicKey(one), Verifier::PublicKey(other)) => one.spki_sha256 == other.spki_sha256,
        (Verifier::Certificate(_) | Verifier::PublicKey(_) | Verifier::ClientSecret(_), _) => false,
    }
}

/// Whether both have the same key, in whatever certificate.
#[must_use]
pub fn has_same_key(one: &Verifier, other: &Verifier) -> bool {
    spki(one).is_some_and(|digest| Some(digest) == spki(other))
}

/// How people tell it from another: the SHA-256 of a certificate, the thumbprint of a key (RFC 7638).
#[must_use]
pub fn thumbprint(verifier: &Verifier) -> Option<String> {
    match verifier {
        Verifier::Certificate(verifier) => Some(verifier.cert_sha256.to_base64url()),
        Verifier::PublicKey(verifier) => verifier.jwk.get("kid")?.as_str().map(str::to_owned),
        Verifier::ClientSecret(_) => None,
    }
}

fn spki(verifier: &Verifier) -> Option<Digest> {
    match verifier {
        Verifier::Certificate(verifier) => Some(verifier.spki_sha256),
        Verifier::PublicKey(verifier) => Some(verifier.spki_sha256),
        Verifier::ClientSecret(_) => None,
    }
}

fn of_pem(text: &str) -> Result<Given, Unusable> {
    if text.contains("PRIVATE KEY") {
        return Err(Unusable::PrivateKey);
    }
    if text.len() > MOST_CHARACTERS {
        return Err(Unusable::TooLong);
    }
    match text.matches("-----BEGIN ").count() {
        0 => return Err(Unusable::NotPem),
        1 => {}
        _ => return Err(Unusable::SeveralBlocks),
    }
    // A YAML block may end without a line end, and the reader wants lines.
    let text = format!("{text}\n");
    let block = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok).ok_or(Unusable::NotPem)?;
    if is_private(&block.contents) {
        return Err(Unusable::PrivateKey);
    }
    match block.label.as_str() {
        "CERTIFICATE" => of_certificate(&block.contents),
        "PUBLIC KEY" => of_key(&block.contents),
        _ => Err(Unusable::OtherBlock),
    }
}

fn of_base64(text: &str) -> Result<Given, Unusable> {
    if text.contains("PRIVATE KEY") {
        return Err(Unusable::PrivateKey);
    }
    if text.len() > MOST_CHARACTERS {
        return Err(Unusable::TooLong);
    }
    if text.contains("-----BEGIN ") {
        return Err(Unusable::NotBase64);
    }
    let text: String = text.split_ascii_whitespace().collect();
    let der = STANDARD.decode(text).map_err(|_| Unusable::NotBase64)?;
    if is_private(&der) || contains(&der, b"PRIVATE KEY") {
        return Err(Unusable::PrivateKey);
    }
    if contains(&der, b"-----BEGIN ") {
        return Err(Unusable::PemInDer);
    }
    // What is no certificate is asked once more; the answer for what is neither is the same.
    match of_certificate(&der) {
        Err(Unusable::Malformed) => of_key(&der),
        read => read,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether this DER is a private key: PKCS #1, SEC 1 and PKCS #8, and PKCS #12 beside them, begin with a version, and an
/// encrypted PKCS #8 ends with an octet string.
fn is_private(der: &[u8]) -> bool {
    let Ok((_, outer)) = Any::from_der(der) else { return false };
    if outer.tag() != Tag::Sequence {
        return false;
    }
    let Ok((rest, first)) = Any::from_der(outer.data) else { return false };
    match first.tag() {
        Tag::Integer => first.data.len() == 1,
        Tag::Sequence => Any::from_der(rest).is_ok_and(|(_, second)| second.tag() == Tag::OctetString),
        _ => false,
    }
}

fn of_certificate(der: &[u8]) -> Result<Given, Unusable> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Unusable::Malformed)?;
    if !rest.is_empty() {
        return Err(Unusable::Malformed);
    }
    let spki = certificate.public_key();
    let verifier =
        CertificateVerifier { spki_sha256: Digest::of(spki.raw), cert_sha256: Digest::of(der), jwk: jwk_of(spki)? };
    let at = |seconds| Timestamp::from_second(seconds).unwrap_or(NO_END).min(NO_END);
    let validity = certificate.validity();
    let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    Ok(Given { verifier: Verifier::Certificate(verifier), not_before, not_after })
}

fn of_key(der: &[u8]) -> Result<Given, Unusable> {
    let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| Unusable::Malformed)?;
    if !rest.is_empty() {
        return Err(Unusable::Malformed);
    }
    let verifier = PublicKeyVerifier { spki_sha256: Digest::of(der), jwk: jwk_of(&spki)? };
    Ok(Given { verifier: Verifier::PublicKey(verifier), not_before: Timestamp::MIN, not_after: NO_END })
}

/// The key as a JWK, if it is one that a signature can be verified with.
fn jwk_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<serde_json::Value, Unusable> {
    let family = family(spki).ok_or(Unusable::Key)?;
    let algorithm: &'static dyn VerificationAlgorithm = match family {
        KeyFamily::P256 => &signature::ECDSA_P256_SHA256_FIXED,
        KeyFamily::P384 => &signature::ECDSA_P384_SHA384_FIXED,
        KeyFamily::Ed25519 => &signature::ED25519,
        KeyFamily::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
    };
    let public = &*spki.subject_public_key.data;
    // A point that is not on its curve, a modulus that is even: said now, and not when the first signature fails.
    ParsedPublicKey::new(algorithm, public).map_err(|_| Unusable::Key)?;
    jwk::of_client(family, public).ok_or(Unusable::Key)
}

fn family(spki: &SubjectPublicKeyInfo<'_>) -> Option<KeyFamily> {
    let algorithm = &spki.algorithm;
    match algorithm.algorithm.to_id_string().as_str() {
        oid::ED25519 => Some(KeyFamily::Ed25519),
        oid::EC => {
            // A compressed point would be another spelling of the same key.
            let is_uncompressed = spki.subject_public_key.data.first() == Some(&4);
            match algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string().as_str() {
                oid::P256 if is_uncompressed => Some(KeyFamily::P256),
                oid::P384 if is_uncompressed => Some(KeyFamily::P384),
                _ => None,
            }
        }
        oid::RSA => match spki.parsed().ok()? {
            PublicKey::RSA(key) if is_sound(&key) => Some(KeyFamily::Rsa),
            _ => None,
        },
        _ => None,
    }
}

/// Whether an RSA key can be relied on: of a usual size, with an exponent that hides something (not 1) and is odd.
fn is_sound(key: &RSAPublicKey<'_>) -> bool {
    let significant: &[u8] = match key.modulus {
        [0, rest @ ..] => rest,
        all => all,
    };
    let bits = significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize);
    RSA_BITS.contains(&bits) && key.try_exponent().is_ok_and(|e| e >= 3 && e % 2 == 1 && e < 1 << 33)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, RsaKeySize};

    /// The beginning of every Ed25519 key as `SubjectPublicKeyInfo`, and as PKCS #8.
    const ED25519_PUBLIC: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    const ED25519_PRIVATE: &[u8] =
        &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

    /// The Ed25519 key of a number, private, as PKCS #8 in DER: the same at every run.
    pub(crate) fn private_key(number: u8) -> Vec<u8> {
        [ED25519_PRIVATE, &[number; 32]].concat()
    }

    /// The public key of a number, in PEM.
    pub(crate) fn key_pem(number: u8) -> String {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        pem("PUBLIC KEY", &[ED25519_PUBLIC, pair.public_key().as_ref()].concat())
    }

    /// A certificate of the key of a number, in PEM.
    pub(crate) fn certificate_pem(number: u8, from: Timestamp, until: Timestamp) -> String {
        let key = KeyPair::try_from(private_key(number)).unwrap();
        self_signed(&key, from, until).pem()
    }

    pub(crate) fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn self_signed(key: &KeyPair, from: Timestamp, until: Timestamp) -> rcgen::Certificate {
        let at = |time: Timestamp| time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (at(from), at(until));
        params.self_signed(key).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const FROM: &str = "2026-01-01T00:00:00Z";
    const UNTIL: &str = "2027-01-01T00:00:00Z";

    fn of_pem_text(text: impl Into<String>) -> Result<Given, Unusable> {
        read(&api::PublicKey { pem: Some(text.into()), der: None })
    }

    fn of_der(der: &[u8]) -> Result<Given, Unusable> {
        read(&api::PublicKey { pem: None, der: Some(STANDARD.encode(der)) })
    }

    #[test]
    fn a_certificate_is_the_same_in_pem_and_in_der_and_has_its_own_validity() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = self_signed(&key, at(FROM), at(UNTIL));
        let given = of_der(certificate.der()).unwrap();
        assert_eq!(of_pem_text(certificate.pem()).unwrap(), given);
        assert_eq!((given.not_before, given.not_after), (at(FROM), at(UNTIL)));
        let Verifier::Certificate(verifier) = &given.verifier else { panic!("{given:?}") };
        assert_eq!(verifier.cert_sha256, Digest::of(certificate.der()));
        assert_eq!(verifier.spki_sha256, Digest::of(&key.subject_public_key_info()));
        assert_eq!(verifier.jwk["crv"], "P-256");
        assert_eq!(thumbprint(&given.verifier), Some(Digest::of(certificate.der()).to_base64url()));
    }

    #[test]
    fn a_key_without_a_certificate_is_valid_always_and_named_by_its_thumbprint() {
        let given = of_pem_text(key_pem(7)).unwrap();
        assert_eq!((given.not_before, given.not_after), (Timestamp::MIN, NO_END));
        let Verifier::PublicKey(verifier) = &given.verifier else { panic!("{given:?}") };
        assert_eq!(thumbprint(&given.verifier).as_deref(), verifier.jwk["kid"].as_str());
        // The same key in a certificate is another thing, and the same key.
        let certificate = of_pem_text(certificate_pem(7, at(FROM), at(UNTIL))).unwrap();
        assert!(
            !is_same(&given.verifier, &certificate.verifier) && has_same_key(&given.verifier, &certificate.verifier)
        );
        assert!(!has_same_key(&given.verifier, &of_pem_text(key_pem(8)).unwrap().verifier));
    }

    #[test]
    fn every_accepted_key_becomes_the_jwk_that_a_minted_one_becomes() {
        for (algorithm, size, members) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, None, "alg crv kid kty use x y"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, None, "alg crv kid kty use x y"),
            (&rcgen::PKCS_ED25519, None, "alg crv kid kty use x"),
            (&rcgen::PKCS_RSA_SHA256, Some(RsaKeySize::_2048), "e kid kty n use"),
            (&rcgen::PKCS_RSA_SHA256, Some(RsaKeySize::_4096), "e kid kty n use"),
        ] {
            let key = match size {
                None => KeyPair::generate_for(algorithm).unwrap(),
                Some(size) => KeyPair::generate_rsa_for(algorithm, size).unwrap(),
            };
            let given = of_der(&key.subject_public_key_info()).unwrap();
            assert_eq!(of_pem_text(pem("PUBLIC KEY", &key.subject_public_key_info())).unwrap(), given);
            let jwk = given.verifier.jwk().unwrap();
            let names: Vec<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(names.join(" "), members);
            let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk.clone()).unwrap();
            assert_eq!(Some(jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap()), jwk.common.key_id);
        }
    }

    #[test]
    fn a_private_key_is_refused_in_every_form() {
        let ec = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        // SEC 1 (version 1, octet string), PKCS #1 (version 0), encrypted PKCS #8, PKCS #12 (version 3).
        let sec1 = [0x30, 0x06, 0x02, 0x01, 0x01, 0x04, 0x01, 0x2a];
        let pkcs1 = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x2a];
        let encrypted = [0x30, 0x05, 0x30, 0x00, 0x04, 0x01, 0x2a];
        let pkcs12 = [0x30, 0x05, 0x02, 0x01, 0x03, 0x30, 0x00];
        for der in [&*ec.serialize_der(), &*private_key(1), &sec1, &pkcs1, &encrypted, &pkcs12] {
            assert_eq!(of_der(der), Err(Unusable::PrivateKey));
            assert_eq!(of_pem_text(pem("CERTIFICATE", der)), Err(Unusable::PrivateKey), "whatever its label says");
        }
        for label in
            ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        {
            let block = pem(label, b"whatever");
            assert_eq!(of_pem_text(&block), Err(Unusable::PrivateKey));
            assert_eq!(of_pem_text(format!("{}{block}", key_pem(1))), Err(Unusable::PrivateKey), "beside a public one");
            assert_eq!(of_der(block.as_bytes()), Err(Unusable::PrivateKey), "a PEM file in base64");
            assert_eq!(read(&api::PublicKey { pem: None, der: Some(block) }), Err(Unusable::PrivateKey));
        }
    }

    #[test]
    fn what_is_no_key_is_told_apart_and_each_answer_says_what_to_do() {
        let certificate = certificate_pem(1, at(FROM), at(UNTIL));
        let cut = certificate.replace("-----END CERTIFICATE-----", "");
        for (text, expected) in [
            (String::new(), Unusable::NotPem),
            ("ssh-ed25519 AAAAC3Nza".to_owned(), Unusable::NotPem),
            (cut, Unusable::NotPem),
            (certificate.replace('M', "!"), Unusable::NotPem),
            (format!("{certificate}{certificate}"), Unusable::SeveralBlocks),
            (pem("RSA PUBLIC KEY", &[0x30, 0x03, 0x02, 0x01]), Unusable::OtherBlock),
            (pem("CERTIFICATE REQUEST", &[0x30, 0x00]), Unusable::OtherBlock),
            (pem("CERTIFICATE", &[0x30, 0x00]), Unusable::Malformed),
            (pem("PUBLIC KEY", b""), Unusable::Malformed),
            (format!("{}{}", certificate, "x".repeat(13_000)), Unusable::TooLong),
        ] {
            assert_eq!(of_pem_text(text.as_str()), Err(expected), "{text}");
        }
        let der = |text: &str| read(&api::PublicKey { pem: None, der: Some(text.to_owned()) });
        assert_eq!(der("not base64!"), Err(Unusable::NotBase64));
        assert_eq!(der(&certificate), Err(Unusable::NotBase64));
        assert_eq!(der(&STANDARD.encode(&certificate)), Err(Unusable::PemInDer));
        assert_eq!(der("MAA="), Err(Unusable::Malformed));
        assert_eq!(read(&api::PublicKey::default()), Err(Unusable::NotOne));
        let both = api::PublicKey { pem: Some(certificate), der: Some("MAA=".into()) };
        assert_eq!(read(&both), Err(Unusable::NotOne));
    }

    #[test]
    fn text_around_a_block_and_lines_of_base64_are_as_tools_write_them() {
        let certificate = certificate_pem(1, at(FROM), at(UNTIL));
        let given = of_pem_text(certificate.as_str()).unwrap();
        assert_eq!(of_pem_text(format!("Certificate:\n    Data:\n{certificate}")).unwrap(), given);
        assert_eq!(of_pem_text(certificate.trim_end()).unwrap(), given, "without the last line end");
        assert_eq!(of_pem_text(certificate.replace('\n', "\r\n")).unwrap(), given, "from Windows");
        let base64: String = certificate.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        assert_eq!(read(&api::PublicKey { pem: None, der: Some(base64) }).unwrap(), given);
    }

    #[test]
    fn keys_that_are_weak_or_of_another_kind_are_refused() {
        let rsa = |bits: usize, exponent: u8| {
            let mut modulus = vec![0xff; bits / 8];
            modulus.insert(0, 0);
            let element = |tag: u8, bytes: &[u8]| {
                let [high, low] = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                [&[tag, 0x82, high, low], bytes].concat()
            };
            let key = element(0x30, &[element(0x02, &modulus), vec![0x02, 0x01, exponent]].concat());
            let algorithm = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
            element(0x30, &[algorithm.to_vec(), element(0x03, &[vec![0], key].concat())].concat())
        };
        assert!(of_der(&rsa(2048, 3)).is_ok(), "what is refused below is refused for its size or exponent");
        for (bits, exponent) in [(1024, 3), (2040, 3), (4104, 3), (8192, 3), (2048, 1), (2048, 4)] {
            assert_eq!(of_der(&rsa(bits, exponent)), Err(Unusable::Key), "RSA of {bits} bits, exponent {exponent}");
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let spki = key.subject_public_key_info();
        let mut off_curve = spki.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(of_der(&off_curve), Err(Unusable::Key), "a point that is not on its curve");
        // secp256k1, 1.3.132.0.10, has points of the same size.
        let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let position = spki.windows(oid.len()).position(|window| window == oid).unwrap();
        let mut other_curve =
            [&spki[..position - 1], &[5, 0x2b, 0x81, 0x04, 0x00, 0x0a], &spki[position + 8..]].concat();
        other_curve[1] -= 3;
        other_curve[3] -= 3;
        assert_eq!(of_der(&other_curve), Err(Unusable::Key), "another curve");
        let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(of_der(&p521.subject_public_key_info()), Err(Unusable::Key));
    }

    #[test]
    fn an_end_beyond_what_can_be_written_is_none() {
        let given = of_pem_text(certificate_pem(1, at(FROM), at("9999-12-30T00:00:00Z"))).unwrap();
        assert_eq!(given.not_after, NO_END);
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = of_der(&bytes);
            let _ = of_pem_text(text.clone());
            let _ = of_pem_text(pem("CERTIFICATE", &bytes));
            let _ = of_pem_text(pem("PUBLIC KEY", &bytes));
            let _ = read(&api::PublicKey { pem: None, der: Some(text) });
        }

        #[test]
        fn no_damage_to_a_certificate_panics(at_byte in 0_usize..260, with in any::<u8>(), cut in 0_usize..260) {
            let certificate = certificate_pem(3, at(FROM), at(UNTIL));
            let block = Pem::iter_from_buffer(certificate.as_bytes()).next().unwrap().unwrap();
            let mut der = block.contents;
            let length = der.len();
            der[at_byte % length] = with;
            let _ = of_der(&der);
            let _ = of_der(&der[..cut % length]);
        }
    }
}
