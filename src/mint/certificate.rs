//! Leaf certificates: those that clients authenticate with, and the serving certificate of the token service.
//!
//! Every one gets a new key and a random serial number. rcgen's defaults are none of ours (validity to the year 4096,
//! serial from the key, no basic constraints), so every field is assigned here.

use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::Timestamp;
use jsonwebtoken::DecodingKey;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, RsaKeySize, SanType, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use super::ca::SigningCa;
use super::material::key_to_pem;
use super::{Error, Material, offset_date_time, public_jwk, random};
use crate::api::KeyType;
use crate::ledger::{CertificateVerifier, Digest};
use crate::rotation::{CLOCK_SKEW, add};

/// The longest common name, in characters (X.520, `ub-common-name`).
const LONGEST_COMMON_NAME: usize = 64;

/// What a client's certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateOrder {
    /// The algorithm and size of the new key.
    pub key_type: KeyType,
    /// The authorization server's name.
    pub server: String,
    /// The client identifier: the common name (cut to 64 characters), and whole in the SAN URI.
    pub client_id: String,
    /// DNS names for the SAN: plain ASCII.
    pub dns_names: Vec<String>,
    /// When it is minted.
    pub minted_at: Timestamp,
    /// Its end, in whole seconds. X.509 counts that second as valid; the ledger does not, and the ledger decides.
    pub not_after: Timestamp,
}

/// What the token service's serving certificate shall say. Its key is ECDSA P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingOrder {
    /// DNS names and IP addresses, at least one. The first is the common name too.
    pub names: Vec<String>,
    /// When it is minted.
    pub minted_at: Timestamp,
    /// Its end, in whole seconds.
    pub not_after: Timestamp,
}

/// A new certificate and its key.
#[derive(Debug)]
pub struct MintedCertificate {
    /// The certificate in PEM. It alone is the chain: the CA signs it directly.
    pub certificate_pem: String,
    /// Its key, PKCS#8 in PEM.
    pub private_key_pem: Material,
    /// What proves possession of it.
    pub verifier: CertificateVerifier,
}

/// The URI that names a client in its certificate, `urn:appreg:<server>:<clientID>`. A server's name has no colon, so
/// the two are told apart whatever the client ID holds.
#[must_use]
pub fn subject_uri(server: &str, client_id: &str) -> String {
    format!("urn:appreg:{server}:{client_id}")
}

/// Whether generating such a key takes so long (up to seconds of one core) that it belongs into [`super::slow::Pool`].
#[must_use]
pub const fn is_slow(key_type: KeyType) -> bool {
    match key_type {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::Ed25519 => false,
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => true,
    }
}

/// Mints a client's certificate. Blocks for as long as [`is_slow`] says.
pub fn mint(order: &CertificateOrder, ca: &SigningCa) -> Result<MintedCertificate, Error> {
    let mut names = vec![SanType::URI(ascii(subject_uri(&order.server, &order.client_id))?)];
    for name in &order.dns_names {
        names.push(SanType::DnsName(ascii(name.clone())?));
    }
    let mut params = leaf(&order.client_id, names, order.minted_at, order.not_after)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(&params, order.key_type, ca)
}

/// Mints a serving certificate.
pub fn mint_serving(order: &ServingOrder, ca: &SigningCa) -> Result<MintedCertificate, Error> {
    let first = order.names.first().ok_or(Error::UnusableName)?;
    let mut names = Vec::with_capacity(order.names.len());
    for name in &order.names {
        names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(ascii(name.clone())?),
        });
    }
    let mut params = leaf(first, names, order.minted_at, order.not_after)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(&params, KeyType::EcdsaP256, ca)
}

/// A serial number as RFC 5280 §4.1.2.2 wants it: positive, 20 octets, unpredictable.
pub(super) fn serial_number() -> Result<SerialNumber, Error> {
    let mut serial = random::<20>()?;
    serial[0] = (serial[0] & 0x7f) | 1;
    Ok(SerialNumber::from_slice(&serial))
}

/// The validity of a certificate. It begins a minute before the mint: a verifier whose clock is behind would refuse a
/// new certificate, while rule R1 already accepts it. `minted_at` itself, in the ledger, is never backdated.
pub(super) fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) -> Result<(), Error> {
    if until <= from {
        return Err(Error::UnusableValidity);
    }
    params.not_before = offset_date_time(add(from, -CLOCK_SKEW))?;
    params.not_after = offset_date_time(until)?;
    if params.not_before.year() < 0 || params.not_after.year() > 9999 {
        return Err(Error::UnusableValidity);
    }
    Ok(())
}

/// A subject with a common name alone.
pub(super) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name.chars().take(LONGEST_COMMON_NAME).collect::<String>());
    name
}

fn leaf(
    common_name: &str,
    names: Vec<SanType>,
    minted_at: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, minted_at, not_after)?;
    params.serial_number = Some(serial_number()?);
    params.distinguished_name = subject(common_name);
    params.subject_alt_names = names;
    // Explicit: the mere absence of basic constraints also drops the subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn sign(params: &CertificateParams, key_type: KeyType, ca: &SigningCa) -> Result<MintedCertificate, Error> {
    let key = generate(key_type)?;
    let certificate = params.signed_by(&*key, ca.issuer()).map_err(|_| Error::NotSigned)?;
    let verifier = CertificateVerifier {
        spki_sha256: Digest::of(&key.subject_public_key_info()),
        cert_sha256: Digest::of(certificate.der()),
        jwk: jwk(key_type, key.public_key_raw())?,
    };
    let private_key_pem = key_to_pem(key.serialized_der());
    Ok(MintedCertificate { certificate_pem: certificate.pem(), private_key_pem, verifier })
}

fn generate(key_type: KeyType) -> Result<Zeroizing<KeyPair>, Error> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let pair = match key_type {
        KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Ed25519 => ed25519(),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
    };
    pair.map(Zeroizing::new).map_err(|_| Error::KeyNotGenerated)
}

/// rcgen itself writes Ed25519 keys as PKCS#8 version 2, which OpenSSL 3.0 cannot read.
fn ed25519() -> Result<KeyPair, rcgen::Error> {
    let document = Ed25519KeyPair::generate()
        .and_then(|pair| pair.to_pkcs8v1())
        .map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(document.as_ref()), &rcgen::PKCS_ED25519)
}

/// The public key as a JWK. For RSA without `alg`: the client may sign its assertions by PKCS #1 or by PSS.
fn jwk(key_type: KeyType, public: &[u8]) -> Result<serde_json::Value, Error> {
    let (key, alg) = match key_type {
        KeyType::EcdsaP256 => (DecodingKey::from_ec_der(public), Some(jsonwebtoken::Algorithm::ES256)),
        KeyType::EcdsaP384 => (DecodingKey::from_ec_der(public), Some(jsonwebtoken::Algorithm::ES384)),
        KeyType::Ed25519 => (DecodingKey::from_ed_der(public), Some(jsonwebtoken::Algorithm::EdDSA)),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => (DecodingKey::from_rsa_der(public), None),
    };
    Ok(public_jwk(&key, alg)?.value)
}

fn ascii(name: String) -> Result<rcgen::string::Ia5String, Error> {
    name.try_into().map_err(|_| Error::UnusableName)
}
