//! Public keys as JWKs (RFC 7517), the same whether they were minted here or given by a person.

use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::api::KeyType;

/// The algorithms of keys that clients sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFamily {
    /// ECDSA on the curve P-256: the key is the point, uncompressed.
    P256,
    /// ECDSA on the curve P-384: the key is the point, uncompressed.
    P384,
    /// Ed25519: the key is 32 bytes (RFC 8032).
    Ed25519,
    /// RSA: the key is an `RSAPublicKey` in DER (RFC 8017 §A.1.1).
    Rsa,
}

/// A public key as a JWK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicJwk {
    /// The RFC 7638 thumbprint.
    pub kid: String,
    /// The JWK with `kid`, `use`, and `alg` where one is given.
    pub value: serde_json::Value,
}

impl From<KeyType> for KeyFamily {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::EcdsaP256 => Self::P256,
            KeyType::EcdsaP384 => Self::P384,
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Self::Rsa,
        }
    }
}

/// The JWK of a client's key, from the bytes that [`KeyFamily`] names; `None` if they are not such a key. For RSA without
/// `alg`: the client may sign its assertions by PKCS #1 or by PSS.
#[must_use]
pub fn of_client(family: KeyFamily, public: &[u8]) -> Option<serde_json::Value> {
    let (key, alg) = match family {
        KeyFamily::P256 => (DecodingKey::from_ec_der(public), Some(Algorithm::ES256)),
        KeyFamily::P384 => (DecodingKey::from_ec_der(public), Some(Algorithm::ES384)),
        KeyFamily::Ed25519 => (DecodingKey::from_ed_der(public), Some(Algorithm::EdDSA)),
        KeyFamily::Rsa => (DecodingKey::from_rsa_der(public), None),
    };
    Some(of(&key, alg)?.value)
}

/// The JWK of a key, with its thumbprint as `kid`.
#[must_use]
pub fn of(key: &DecodingKey, alg: Option<Algorithm>) -> Option<PublicJwk> {
    let mut jwk = Jwk::from_decoding_key(key, alg).ok()?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_id = Some(kid.clone());
    Some(PublicJwk { kid, value: serde_json::to_value(&jwk).ok()? })
}
