//! Certificate authorities: a new one, and one read back from its record and key to sign with.
//!
//! Which of them signs and when a new one is needed is decided in [`crate::signer::ca`].

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SigningKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificate::{serial_number, set_validity, subject};
use super::material::{key_from_pem, key_to_pem};
use super::{Error, Material, hex};
use crate::ledger::Digest;
use crate::rotation::{add, whole_seconds};
use crate::signer::ca::{CA_LIFE, CaRecord};

/// A new certificate authority.
#[derive(Debug)]
pub struct MintedCa {
    /// Its record in the index.
    pub record: CaRecord,
    /// Its key, PKCS#8 in PEM.
    pub private_key_pem: Material,
}

/// A certificate authority that signs: parsed once, used often, by many at the same time.
pub struct SigningCa {
    id: String,
    issuer: Issuer<'static, CaKey>,
}

/// Mints a certificate authority: ECDSA P-256, ten years, no authority below it, a subject that no other has.
pub fn mint(now: Timestamp) -> Result<MintedCa, Error> {
    let created_at = whole_seconds(now);
    let not_after = add(created_at, CA_LIFE);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| Error::KeyNotGenerated)?;
    let document = pair.to_pkcs8v1().map_err(|_| Error::KeyNotGenerated)?;
    let serial = serial_number()?;

    let mut params = CertificateParams::default();
    set_validity(&mut params, created_at, not_after)?;
    // A verifier finds the issuer by its name: two authorities in one bundle must not share one.
    params.distinguished_name = subject(&format!("appreg CA {}", hex(&serial.to_bytes()[..8])));
    params.serial_number = Some(serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;

    let certificate = params.self_signed(&CaKey(pair)).map_err(|_| Error::NotSigned)?;
    let id = hex(&Digest::of(certificate.der()).0[..8]);
    let record = CaRecord { id, created_at, not_after, certificate: certificate.pem() };
    Ok(MintedCa { record, private_key_pem: key_to_pem(document.as_ref()) })
}

impl SigningCa {
    /// Reads a certificate authority back. The key must be the one of the certificate.
    pub fn from_pem(record: &CaRecord, private_key_pem: &[u8]) -> Result<Self, Error> {
        let der = key_from_pem(private_key_pem)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map_err(|_| Error::UnreadableKey)?;
        let certificate =
            CertificateDer::from_pem_slice(record.certificate.as_bytes()).map_err(|_| Error::UnreadableCertificate)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|_| Error::UnreadableCertificate)?;
        if !parsed.is_ca() {
            return Err(Error::UnreadableCertificate);
        }
        if parsed.public_key().subject_public_key.data != pair.public_key().as_ref() {
            return Err(Error::WrongKey);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, CaKey(pair)).map_err(|_| Error::UnreadableCertificate)?;
        Ok(Self { id: record.id.clone(), issuer })
    }

    /// The id of its record.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, impl SigningKey> {
        &self.issuer
    }
}

impl std::fmt::Debug for SigningCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningCa").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key as rcgen wants it. rcgen's own type would keep a second, serialized copy that nobody wipes.
struct CaKey(EcdsaKeyPair);

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::tests::assert_hidden;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn now() -> Timestamp {
        "2026-11-22T07:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_new_authority_is_one_and_signs_no_other_authority() {
        let minted = mint(now()).unwrap();
        let der = CertificateDer::from_pem_slice(minted.record.certificate.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        parsed.verify_signature(None).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert_eq!(parsed.validity().not_before.timestamp(), now().as_second() - 60);
        assert_eq!(parsed.validity().not_after.timestamp(), minted.record.not_after.as_second());
        assert_eq!(minted.record.not_after.duration_since(minted.record.created_at), CA_LIFE);
        assert_eq!(minted.record.id.len(), 16);
        let hash = Digest::of(&der).0;
        assert!(minted.record.id.starts_with(&format!("{:02x}{:02x}", hash[0], hash[1])));
    }

    #[test]
    fn two_authorities_have_different_subjects() {
        let subject = |record: &CaRecord| {
            let der = CertificateDer::from_pem_slice(record.certificate.as_bytes()).unwrap();
            X509Certificate::from_der(&der).unwrap().1.subject().to_string()
        };
        let [one, two] = [(); 2].map(|()| mint(now()).unwrap().record);
        assert!(subject(&one).starts_with("CN=appreg CA "), "{}", subject(&one));
        assert_ne!(subject(&one), subject(&two));
        assert_ne!(one.id, two.id);
    }

    #[test]
    fn an_authority_is_read_back_only_with_its_own_key() {
        let [one, two] = [(); 2].map(|()| mint(now()).unwrap());
        let read = SigningCa::from_pem(&one.record, one.private_key_pem.expose()).unwrap();
        assert_eq!(read.id(), one.record.id);
        let error = |record: &CaRecord, pem: &[u8]| SigningCa::from_pem(record, pem).unwrap_err();
        assert_eq!(error(&one.record, two.private_key_pem.expose()), Error::WrongKey);
        assert_eq!(error(&one.record, b"nothing"), Error::UnreadableKey);
        let broken = CaRecord { certificate: "nothing".into(), ..one.record.clone() };
        assert_eq!(error(&broken, one.private_key_pem.expose()), Error::UnreadableCertificate);
    }

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        let minted = mint(now()).unwrap();
        let read = SigningCa::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        let debug = format!("{minted:?} {read:?}");
        assert_hidden(&minted.private_key_pem, &debug);
    }
}
