//! Leaf certificates: those that clients authenticate with, and the serving certificate of the token service.
//!
//! Every one gets a new key and a random serial number. rcgen's defaults are none of ours (validity to the year 4096,
//! serial from the key, no basic constraints), so every field is assigned here.

use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, RsaKeySize, SanType, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use super::ca::SigningCa;
use super::material::key_to_pem;
use super::{Error, Material, offset_date_time, random};
use crate::api::KeyType;
use crate::credential::jwk;
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
        jwk: jwk::of_client(key_type.into(), key.public_key_raw()).ok_or(Error::UnreadableKey)?,
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

fn ascii(name: String) -> Result<rcgen::string::Ia5String, Error> {
    name.try_into().map_err(|_| Error::UnusableName)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::ca;
    use crate::mint::tests::assert_hidden;
    use crate::rotation::CLOCK_SKEW;
    use crate::signer::ca::CaRecord;
    use jsonwebtoken::DecodingKey;
    use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
    use rustls::server::WebPkiClientVerifier;
    use rustls::server::danger::ClientCertVerifier;
    use std::sync::Arc;
    use std::time::Duration;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    const MINTED_AT: &str = "2026-11-22T07:00:00Z";
    const NOT_AFTER: &str = "2027-02-20T07:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn authority() -> (CaRecord, SigningCa) {
        let minted = ca::mint(at("2026-01-01T00:00:00Z")).unwrap();
        let signing = SigningCa::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        (minted.record, signing)
    }

    fn order(key_type: KeyType) -> CertificateOrder {
        CertificateOrder {
            key_type,
            server: "default".into(),
            client_id: "shop.storefront".into(),
            dns_names: vec!["storefront.shop.svc".into()],
            minted_at: at(MINTED_AT),
            not_after: at(NOT_AFTER),
        }
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn verifier(ca: &CaRecord) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(der(&ca.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
    }

    fn accepts(verifier: &Arc<dyn ClientCertVerifier>, certificate: &str, when: Timestamp) -> bool {
        let when = UnixTime::since_unix_epoch(Duration::from_secs(when.as_second().try_into().unwrap()));
        verifier.verify_client_cert(&der(certificate), &[], when).is_ok()
    }

    /// Everything that holds for a client's certificate of any key type.
    fn check(key_type: KeyType) {
        let (record, signing) = authority();
        let minted = mint(&order(key_type), &signing).unwrap();

        let rustls = verifier(&record);
        for (when, accepted) in [
            ("2026-11-22T06:58:59Z", false),
            ("2026-11-22T06:59:00Z", true),
            (NOT_AFTER, true),
            ("2027-02-20T07:00:01Z", false),
        ] {
            assert_eq!(accepts(&rustls, &minted.certificate_pem, at(when)), accepted, "{key_type:?} at {when}");
        }

        let key = PrivateKeyDer::from_pem_slice(minted.private_key_pem.expose()).unwrap();
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::sign::CertifiedKey::from_der(vec![der(&minted.certificate_pem)], key, &provider)
            .unwrap()
            .keys_match()
            .unwrap();

        check_content(&minted, &record);
        check_verifier(&minted, key_type);
    }

    fn check_content(minted: &MintedCertificate, ca: &CaRecord) {
        assert_eq!(minted.certificate_pem.matches("BEGIN CERTIFICATE").count(), 1);
        let (certificate, authority) = (der(&minted.certificate_pem), der(&ca.certificate));
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        let (_, authority) = X509Certificate::from_der(&authority).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=shop.storefront");
        assert_eq!(parsed.issuer(), authority.subject());
        assert_eq!(parsed.validity().not_before.timestamp(), at(MINTED_AT).as_second() - CLOCK_SKEW.as_secs());
        assert_eq!(parsed.validity().not_after.timestamp(), at(NOT_AFTER).as_second());
        assert_eq!(parsed.raw_serial().len(), 20);
        assert!(parsed.raw_serial()[0] < 0x80, "a serial number is positive");
        assert!(!parsed.is_ca() && parsed.basic_constraints().unwrap().is_some());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.flags, 1, "digitalSignature alone");
        let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth && !purposes.any && purposes.other.is_empty());
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(
            *names,
            [GeneralName::URI("urn:appreg:default:shop.storefront"), GeneralName::DNSName("storefront.shop.svc")]
        );
        assert_eq!(key_identifiers(&parsed).0, key_identifiers(&authority).1);
        assert!(key_identifiers(&parsed).1.is_some());
        parsed.verify_signature(Some(authority.public_key())).unwrap();
    }

    /// The authority's and the subject's key identifier.
    fn key_identifiers(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let (mut authority, mut subject) = (None, None);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
                _ => {}
            }
        }
        (authority, subject)
    }

    fn check_verifier(minted: &MintedCertificate, key_type: KeyType) {
        let certificate = der(&minted.certificate_pem);
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        assert_eq!(minted.verifier.cert_sha256, Digest::of(&certificate));
        assert_eq!(minted.verifier.spki_sha256, Digest::of(parsed.public_key().raw));

        let verifier = crate::ledger::Verifier::Certificate(minted.verifier.clone());
        assert_eq!(crate::credential::certificate::key_type(&verifier), Some(key_type), "told by the ledger alone");

        let jwk: Jwk = serde_json::from_value(minted.verifier.jwk.clone()).unwrap();
        assert_eq!(jwk.thumbprint(ThumbprintHash::SHA256).unwrap(), minted.verifier.jwk["kid"]);
        assert_eq!(minted.verifier.jwk["use"], "sig");
        let members: Vec<&str> = minted.verifier.jwk.as_object().unwrap().keys().map(String::as_str).collect();
        match key_type {
            KeyType::EcdsaP256 | KeyType::EcdsaP384 => {
                assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
            }
            KeyType::Ed25519 => assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]),
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                assert_eq!(members, ["e", "kid", "kty", "n", "use"]);
            }
        }
        // The JWK is the key of the certificate: what the private key signs, the JWK verifies.
        let pem = minted.private_key_pem.expose();
        let (alg, key) = match key_type {
            KeyType::EcdsaP256 => (jsonwebtoken::Algorithm::ES256, jsonwebtoken::EncodingKey::from_ec_pem(pem)),
            KeyType::EcdsaP384 => (jsonwebtoken::Algorithm::ES384, jsonwebtoken::EncodingKey::from_ec_pem(pem)),
            KeyType::Ed25519 => (jsonwebtoken::Algorithm::EdDSA, jsonwebtoken::EncodingKey::from_ed_pem(pem)),
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
                (jsonwebtoken::Algorithm::PS256, jsonwebtoken::EncodingKey::from_rsa_pem(pem))
            }
        };
        let signature = jsonwebtoken::crypto::sign(b"message", &key.unwrap(), alg).unwrap();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        assert!(jsonwebtoken::crypto::verify(&signature, b"message", &key, alg).unwrap());
    }

    #[test]
    fn an_ecdsa_p256_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::EcdsaP256);
    }

    #[test]
    fn an_ecdsa_p384_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::EcdsaP384);
    }

    #[test]
    fn an_ed25519_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::Ed25519);
    }

    #[test]
    fn an_rsa_2048_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::Rsa2048);
    }

    #[test]
    fn an_rsa_3072_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::Rsa3072);
    }

    #[test]
    fn an_rsa_4096_certificate_is_what_was_ordered_and_verifies() {
        check(KeyType::Rsa4096);
    }

    #[test]
    fn an_ed25519_key_is_pkcs8_of_version_1() {
        let (_, signing) = authority();
        let minted = mint(&order(KeyType::Ed25519), &signing).unwrap();
        let der = crate::mint::material::key_from_pem(minted.private_key_pem.expose()).unwrap();
        assert_eq!(der.len(), 48, "16 bytes of header and the seed, without the public key of version 2");
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused() {
        let (_, signing) = authority();
        let (other, _) = authority();
        let minted = mint(&order(KeyType::EcdsaP256), &signing).unwrap();
        assert!(!accepts(&verifier(&other), &minted.certificate_pem, at(MINTED_AT)));
    }

    #[test]
    fn two_certificates_of_one_order_share_neither_serial_number_nor_key() {
        let (_, signing) = authority();
        let [one, two] = [(); 2].map(|()| mint(&order(KeyType::EcdsaP256), &signing).unwrap());
        assert_ne!(one.verifier.spki_sha256, two.verifier.spki_sha256);
        let serial = |pem: &str| X509Certificate::from_der(&der(pem)).unwrap().1.raw_serial().to_vec();
        assert_ne!(serial(&one.certificate_pem), serial(&two.certificate_pem));
    }

    #[test]
    fn a_client_id_of_a_hundred_characters_is_cut_in_the_common_name_and_whole_in_the_uri() {
        let (record, signing) = authority();
        let client_id = "x".repeat(100);
        let minted =
            mint(&CertificateOrder { client_id: client_id.clone(), ..order(KeyType::EcdsaP256) }, &signing).unwrap();
        let certificate = der(&minted.certificate_pem);
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        assert_eq!(parsed.subject().to_string(), format!("CN={}", "x".repeat(64)));
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names[0], GeneralName::URI(&subject_uri("default", &client_id)));
        assert!(accepts(&verifier(&record), &minted.certificate_pem, at(MINTED_AT)));
    }

    #[test]
    fn an_order_that_no_certificate_can_express_is_refused_without_a_panic() {
        let (_, signing) = authority();
        let ordered = |change: fn(&mut CertificateOrder)| {
            let mut order = order(KeyType::EcdsaP256);
            change(&mut order);
            mint(&order, &signing).unwrap_err()
        };
        assert_eq!(ordered(|order| order.dns_names = vec!["bücher.example".into()]), Error::UnusableName);
        assert_eq!(ordered(|order| order.client_id = "bücher".into()), Error::UnusableName);
        assert_eq!(ordered(|order| order.not_after = order.minted_at), Error::UnusableValidity);
        assert_eq!(ordered(|order| order.minted_at = Timestamp::MIN), Error::UnusableValidity);
        assert!(mint(&CertificateOrder { not_after: Timestamp::MAX, ..order(KeyType::EcdsaP256) }, &signing).is_ok());
    }

    #[test]
    fn a_serving_certificate_names_hosts_and_addresses_and_serves_only() {
        let (record, signing) = authority();
        let order = ServingOrder {
            names: vec!["appreg.example".into(), "127.0.0.1".into(), "::1".into()],
            minted_at: at(MINTED_AT),
            not_after: at(NOT_AFTER),
        };
        let minted = mint_serving(&order, &signing).unwrap();
        let certificate = der(&minted.certificate_pem);
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && !purposes.client_auth);
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
        assert_eq!(
            parsed.subject_alternative_name().unwrap().unwrap().value.general_names,
            [
                GeneralName::DNSName("appreg.example"),
                GeneralName::IPAddress(&[127, 0, 0, 1]),
                GeneralName::IPAddress(&v6)
            ]
        );
        assert!(!accepts(&verifier(&record), &minted.certificate_pem, at(MINTED_AT)), "it is no client's");
        assert_eq!(mint_serving(&ServingOrder { names: vec![], ..order }, &signing).unwrap_err(), Error::UnusableName);
    }

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        let (_, signing) = authority();
        let minted = mint(&order(KeyType::EcdsaP256), &signing).unwrap();
        let debug = format!("{minted:?} {signing:?}");
        assert_hidden(&minted.private_key_pem, &debug);
    }
}
