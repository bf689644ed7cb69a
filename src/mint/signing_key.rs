//! Keys that sign access tokens: a new one, and one read back from its record and PEM.
//!
//! Which of them signs and which are published is decided in [`crate::signer`].

use std::ops::Range;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::DecodingKey;

use super::material::{key_from_pem, key_to_pem};
use super::{Error, Material, PublicJwk, public_jwk};
use crate::rotation::whole_seconds;
use crate::signer::jwt::TYPE;
use crate::signer::{Algorithm, KeyRecord};

/// A new signing key.
#[derive(Debug)]
pub struct MintedSigningKey {
    /// Its record in the index.
    pub record: KeyRecord,
    /// Its key, PKCS#8 in PEM.
    pub private_key_pem: Material,
}

/// A key that signs access tokens: parsed once, used often, by many at the same time.
pub struct SigningKey {
    kid: String,
    alg: Algorithm,
    pair: Pair,
    /// The token's first segment and the dot after it: the same for every token of this key.
    header: Vec<u8>,
    jwk: serde_json::Value,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

/// Whether a key of this algorithm takes a core for long: it is then made in [`super::slow`].
#[must_use]
pub fn is_slow(alg: Algorithm) -> bool {
    match alg {
        Algorithm::ES256 | Algorithm::EdDSA => false,
        Algorithm::RS256 => true,
    }
}

/// Mints a signing key. Its `kid` is its RFC 7638 thumbprint. RSA keys have 2048 bits.
///
/// The PEM is PKCS#8 version 1, as OpenSSL 3.0 reads it: version 2, which adds the public key, it refuses for Ed25519.
pub fn mint(alg: Algorithm, created_at: Timestamp, sign_from: Timestamp) -> Result<MintedSigningKey, Error> {
    let failed = |_| Error::KeyNotGenerated;
    let (pair, private_key_pem) = match alg {
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
            let pem = key_to_pem(pair.to_pkcs8v1().map_err(failed)?.as_ref());
            (Pair::Es256(pair), pem)
        }
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().map_err(failed)?;
            let pem = key_to_pem(pair.to_pkcs8v1().map_err(failed)?.as_ref());
            (Pair::EdDsa(pair), pem)
        }
        Algorithm::RS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let document: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
            let pem = key_to_pem(document.as_ref());
            (Pair::Rs256(pair), pem)
        }
    };
    let record = KeyRecord {
        kid: pair.public_jwk()?.kid,
        alg,
        created_at: whole_seconds(created_at),
        sign_from: whole_seconds(sign_from),
        publish_until: None,
    };
    Ok(MintedSigningKey { record, private_key_pem })
}

impl SigningKey {
    /// Reads a signing key back. The key must have the `kid` of its record.
    pub fn from_pem(record: &KeyRecord, private_key_pem: &[u8]) -> Result<Self, Error> {
        let der = key_from_pem(private_key_pem)?;
        let pair = match record.alg {
            Algorithm::ES256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map(Pair::Es256),
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(&der).map(Pair::EdDsa),
            Algorithm::RS256 => RsaKeyPair::from_pkcs8(&der).map(Pair::Rs256),
        }
        .map_err(|_| Error::UnreadableKey)?;
        let PublicJwk { kid, value: jwk } = pair.public_jwk()?;
        if kid != record.kid {
            return Err(Error::WrongKey);
        }
        // A thumbprint is base64url and needs no escaping.
        let header = format!(r#"{{"alg":"{}","typ":"{TYPE}","kid":"{kid}"}}"#, record.alg);
        let mut header = URL_SAFE_NO_PAD.encode(header).into_bytes();
        header.push(b'.');
        Ok(Self { kid, alg: record.alg, pair, header, jwk })
    }

    /// The key's identifier.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its algorithm.
    #[must_use]
    pub fn alg(&self) -> Algorithm {
        self.alg
    }

    /// The public key as a JWK with `kid`, `use` and `alg`, for the JWKS.
    #[must_use]
    pub fn jwk(&self) -> &serde_json::Value {
        &self.jwk
    }

    /// The first segment of every token of this key, with the dot after it: an introspection may compare it instead of
    /// parsing it.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The length of a signature in bytes.
    #[must_use]
    pub fn signature_bytes(&self) -> usize {
        match &self.pair {
            // RFC 7518 §3.4: r and s, 32 bytes each. RFC 8032 §5.1.6: R and S.
            Pair::Es256(_) | Pair::EdDsa(_) => 64,
            Pair::Rs256(pair) => pair.public_modulus_len(),
        }
    }

    /// Appends the JWS signature of this part of `out`, as bytes (RFC 7518 §3.3 and §3.4, RFC 8037 §3.1). After an error
    /// something else may stand there.
    pub(super) fn push_signature(&self, message: Range<usize>, out: &mut Vec<u8>) -> Result<(), Error> {
        let failed = |_| Error::NotSigned;
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), &out[message]).map_err(failed)?,
            Pair::EdDsa(pair) => pair.try_sign(&out[message]).map_err(failed)?,
            Pair::Rs256(pair) => {
                let end = out.len();
                out.resize(end + self.signature_bytes(), 0);
                let (before, signature) = out.split_at_mut(end);
                let message = &before[message];
                return pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, signature).map_err(failed);
            }
        };
        out.extend_from_slice(signature.as_ref());
        Ok(())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl Pair {
    fn public_jwk(&self) -> Result<PublicJwk, Error> {
        let (key, alg) = match self {
            Self::Es256(pair) => (DecodingKey::from_ec_der(pair.public_key().as_ref()), jsonwebtoken::Algorithm::ES256),
            Self::EdDsa(pair) => (DecodingKey::from_ed_der(pair.public_key().as_ref()), jsonwebtoken::Algorithm::EdDSA),
            Self::Rs256(pair) => {
                (DecodingKey::from_rsa_der(pair.public_key().as_ref()), jsonwebtoken::Algorithm::RS256)
            }
        };
        public_jwk(&key, Some(alg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::tests::assert_hidden;
    use crate::signer::jwt::PublicKey;

    fn minted(alg: Algorithm) -> MintedSigningKey {
        let at = |text: &str| text.parse().unwrap();
        mint(alg, at("2026-11-22T07:00:00.5Z"), at("2026-11-23T07:00:00.5Z")).unwrap()
    }

    fn read(minted: &MintedSigningKey) -> SigningKey {
        SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap()
    }

    #[test]
    fn a_key_of_each_algorithm_is_read_back_with_the_kid_of_its_record() {
        for alg in Algorithm::ALL {
            let minted = minted(alg);
            let key = read(&minted);
            assert_eq!((key.kid(), key.alg()), (minted.record.kid.as_str(), alg));
            assert_eq!(minted.record.sign_from.to_string(), "2026-11-23T07:00:00Z");
            assert_eq!(PublicKey::from_jwk(key.jwk()).unwrap().kid(), key.kid());
        }
    }

    #[test]
    fn the_header_is_exactly_that_of_rfc_9068() {
        for alg in Algorithm::ALL {
            let minted = minted(alg);
            let key = read(&minted);
            let (dot, segment) = key.header().split_last().unwrap();
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap();
            assert_eq!(*dot, b'.');
            assert_eq!(text, format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{}"}}"#, minted.record.kid));
        }
    }

    #[test]
    fn the_jwk_is_public_and_complete() {
        for (alg, expected) in [
            (Algorithm::ES256, &["alg", "crv", "kid", "kty", "use", "x", "y"][..]),
            (Algorithm::EdDSA, &["alg", "crv", "kid", "kty", "use", "x"]),
            (Algorithm::RS256, &["alg", "e", "kid", "kty", "n", "use"]),
        ] {
            let key = read(&minted(alg));
            let members: Vec<&str> = key.jwk().as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(members, expected);
            assert_eq!((&key.jwk()["alg"], &key.jwk()["use"]), (&alg.as_str().into(), &"sig".into()));
        }
    }

    #[test]
    fn a_jwk_of_another_type_than_its_algorithm_is_no_key() {
        let keys = Algorithm::ALL.map(|alg| read(&minted(alg)));
        for key in &keys {
            for alg in Algorithm::ALL.map(Algorithm::as_str).into_iter().chain(["HS256", "none", "PS256", "ES384"]) {
                let mut jwk = key.jwk().clone();
                jwk["alg"] = alg.into();
                assert_eq!(PublicKey::from_jwk(&jwk).is_some(), alg == key.alg().as_str(), "{} as {alg}", key.alg());
            }
        }
    }

    #[test]
    fn an_rsa_key_has_2048_bits_and_signatures_have_the_announced_length() {
        for (alg, bytes) in [(Algorithm::ES256, 64), (Algorithm::EdDSA, 64), (Algorithm::RS256, 256)] {
            let key = read(&minted(alg));
            let mut out = b"before message".to_vec();
            key.push_signature(7..14, &mut out).unwrap();
            assert_eq!((out.len(), key.signature_bytes()), (14 + bytes, bytes), "{alg}");
        }
    }

    #[test]
    fn a_key_under_another_kid_or_algorithm_is_refused() {
        for alg in Algorithm::ALL {
            let [one, two] = [(); 2].map(|()| minted(alg));
            let error = |pem: &[u8]| SigningKey::from_pem(&one.record, pem).unwrap_err();
            assert_eq!(error(two.private_key_pem.expose()), Error::WrongKey);
            assert_eq!(error(b""), Error::UnreadableKey);
            for other in Algorithm::ALL.into_iter().filter(|other| *other != alg) {
                assert_eq!(error(minted(other).private_key_pem.expose()), Error::UnreadableKey, "{other} as {alg}");
            }
        }
    }

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        let minted = minted(Algorithm::ES256);
        let key = read(&minted);
        let debug = format!("{minted:?} {key:?}");
        assert_hidden(&minted.private_key_pem, &debug);
        for alg in [Algorithm::EdDSA, Algorithm::RS256] {
            let minted = self::minted(alg);
            let (kid, bytes) = (&minted.record.kid, minted.private_key_pem.expose().len());
            let key = format!("SigningKey {{ kid: {kid:?}, alg: {alg:?}, .. }}");
            assert_eq!(format!("{:?}", read(&minted)), key);
            assert_eq!(format!("{:?}", minted.private_key_pem), format!("Material(… {bytes} bytes)"));
        }
    }
}
