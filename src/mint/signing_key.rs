//! Keys that sign access tokens: a new one, and one read back from its record and PEM.
//!
//! Which of them signs and which are published is decided in [`crate::signer`].

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, Signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::DecodingKey;

use super::material::{key_from_pem, key_to_pem};
use super::{Error, Material, PublicJwk, public_jwk};
use crate::rotation::whole_seconds;
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
}

/// Mints a signing key. Its `kid` is its RFC 7638 thumbprint.
pub fn mint(alg: Algorithm, created_at: Timestamp, sign_from: Timestamp) -> Result<MintedSigningKey, Error> {
    let (pair, document) = match alg {
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Error::KeyNotGenerated)?;
            let document = pair.to_pkcs8v1().map_err(|_| Error::KeyNotGenerated)?;
            (Pair::Es256(pair), document)
        }
    };
    let record = KeyRecord {
        kid: pair.public_jwk()?.kid,
        alg,
        created_at: whole_seconds(created_at),
        sign_from: whole_seconds(sign_from),
        publish_until: None,
    };
    Ok(MintedSigningKey { record, private_key_pem: key_to_pem(document.as_ref()) })
}

impl SigningKey {
    /// Reads a signing key back. The key must have the `kid` of its record.
    pub fn from_pem(record: &KeyRecord, private_key_pem: &[u8]) -> Result<Self, Error> {
        let der = key_from_pem(private_key_pem)?;
        let pair = match record.alg {
            Algorithm::ES256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map(Pair::Es256),
        }
        .map_err(|_| Error::UnreadableKey)?;
        let PublicJwk { kid, value: jwk } = pair.public_jwk()?;
        if kid != record.kid {
            return Err(Error::WrongKey);
        }
        // A thumbprint is base64url and needs no escaping.
        let header = format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{kid}"}}"#, record.alg);
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

    /// The JWS signature (RFC 7518 §3.4: r and s, 32 bytes each) of the message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        match &self.pair {
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), message).map_err(|_| Error::NotSigned),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl Pair {
    fn public_jwk(&self) -> Result<PublicJwk, Error> {
        match self {
            Self::Es256(pair) => {
                let key = DecodingKey::from_ec_der(pair.public_key().as_ref());
                public_jwk(&key, Some(jsonwebtoken::Algorithm::ES256))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::tests::assert_hidden;
    use crate::signer::jwt::PublicKey;

    fn minted() -> MintedSigningKey {
        let at = |text: &str| text.parse().unwrap();
        mint(Algorithm::ES256, at("2026-11-22T07:00:00.5Z"), at("2026-11-23T07:00:00.5Z")).unwrap()
    }

    #[test]
    fn a_key_is_read_back_with_the_kid_of_its_record() {
        let minted = minted();
        let key = SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        assert_eq!((key.kid(), key.alg()), (minted.record.kid.as_str(), Algorithm::ES256));
        assert_eq!(minted.record.sign_from.to_string(), "2026-11-23T07:00:00Z");
        assert_eq!(PublicKey::from_jwk(key.jwk()).unwrap().kid(), key.kid());
    }

    #[test]
    fn the_header_is_exactly_that_of_rfc_9068() {
        let minted = minted();
        let key = SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        let (dot, segment) = key.header().split_last().unwrap();
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap();
        assert_eq!(*dot, b'.');
        assert_eq!(text, format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{}"}}"#, minted.record.kid));
    }

    #[test]
    fn the_jwk_is_public_and_complete() {
        let minted = minted();
        let key = SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        let members: Vec<&str> = key.jwk().as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert_eq!((&key.jwk()["alg"], &key.jwk()["use"]), (&"ES256".into(), &"sig".into()));
    }

    #[test]
    fn a_key_under_another_kid_is_refused() {
        let [one, two] = [(); 2].map(|()| minted());
        let error = |pem: &[u8]| SigningKey::from_pem(&one.record, pem).unwrap_err();
        assert_eq!(error(two.private_key_pem.expose()), Error::WrongKey);
        assert_eq!(error(b""), Error::UnreadableKey);
    }

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        let minted = minted();
        let key = SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        let debug = format!("{minted:?} {key:?}");
        assert_hidden(&minted.private_key_pem, &debug);
    }
}
