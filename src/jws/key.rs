//! Public keys that verify JWS signatures (RFC 7515): our own, those of clients, and the cluster's.
//!
//! A key is parsed once and verifies by the algorithms of its own type alone: what a token's header says is never enough
//! to choose another, and neither `none` nor an HMAC is among them (RFC 8725 §3.1, §3.2).

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The sizes of an RSA modulus, in bytes: 2048 to 4096 bits. A larger one would let its owner buy our time cheaply.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The sizes of an RSA exponent, in bytes: 65537 has three.
const RSA_EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=4;

/// A signature algorithm of RFC 7518 §3.1 and RFC 8037 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwsAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSA by PKCS #1 version 1.5 with SHA-256.
    Rs256,
    /// RSA by PSS with SHA-256.
    Ps256,
}

/// A public key, parsed.
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    /// The only algorithm, where the JWK names one.
    alg: Option<JwsAlgorithm>,
    pair: Parsed,
}

enum Parsed {
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    Ed25519(ParsedPublicKey),
    Rsa(Box<Rsa>),
}

/// One RSA key, for either padding.
struct Rsa {
    pkcs1: ParsedPublicKey,
    pss: ParsedPublicKey,
}

/// The members of a JWK (RFC 7517 §4, RFC 7518 §6) that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    use_: Option<String>,
}

impl JwsAlgorithm {
    /// Every one that is verified.
    pub const ALL: [Self; 5] = [Self::Es256, Self::Es384, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// The name in `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// The algorithm of this name; `None` for all others, `none` and HMACs first.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == name)
    }
}

impl VerifyingKey {
    /// Reads a JWK: EC on P-256 or P-384, OKP with Ed25519, RSA of 2048 to 4096 bits. `None` for everything else, and for
    /// a key that is not for signatures, or for an algorithm that its type does not have.
    #[must_use]
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let jwk = Jwk::deserialize(jwk).ok()?;
        if jwk.use_.as_deref().is_some_and(|use_| use_ != "sig") {
            return None;
        }
        let pair = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => Parsed::P256(ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, jwk.point(32)?).ok()?),
            ("EC", Some("P-384")) => Parsed::P384(ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, jwk.point(48)?).ok()?),
            ("OKP", Some("Ed25519")) => {
                Parsed::Ed25519(ParsedPublicKey::new(&ED25519, bytes(jwk.x.as_ref(), 32)?).ok()?)
            }
            ("RSA", None) => Parsed::Rsa(Box::new(jwk.rsa()?)),
            _ => return None,
        };
        let alg = match jwk.alg.as_deref() {
            None => None,
            Some(name) => Some(JwsAlgorithm::named(name)?),
        };
        let key = Self { kid: jwk.kid.map(String::into_boxed_str), alg, pair };
        alg.is_none_or(|alg| key.of(alg).is_some()).then_some(key)
    }

    /// The key's identifier.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The only algorithm that it may be used by, where its JWK names one (RFC 7517 §4.4).
    #[must_use]
    pub fn only_algorithm(&self) -> Option<JwsAlgorithm> {
        self.alg
    }

    /// Whether this key may be used by this algorithm.
    #[must_use]
    pub fn allows(&self, alg: JwsAlgorithm) -> bool {
        self.of(alg).is_some()
    }

    /// Whether the signature of the message, in the form of RFC 7518 §3, is this key's by this algorithm.
    #[must_use]
    pub fn verifies(&self, alg: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        #[cfg(test)]
        VERIFICATIONS.set(VERIFICATIONS.get() + usize::from(self.allows(alg)));
        self.of(alg).is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn of(&self, alg: JwsAlgorithm) -> Option<&ParsedPublicKey> {
        if self.alg.is_some_and(|only| only != alg) {
            return None;
        }
        match (&self.pair, alg) {
            (Parsed::P256(key), JwsAlgorithm::Es256)
            | (Parsed::P384(key), JwsAlgorithm::Es384)
            | (Parsed::Ed25519(key), JwsAlgorithm::EdDsa) => Some(key),
            (Parsed::Rsa(keys), JwsAlgorithm::Rs256) => Some(&keys.pkcs1),
            (Parsed::Rsa(keys), JwsAlgorithm::Ps256) => Some(&keys.pss),
            (Parsed::P256(_) | Parsed::P384(_) | Parsed::Ed25519(_) | Parsed::Rsa(_), _) => None,
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many signatures this thread has verified.
    pub(crate) static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Verifies by a key that is nobody's: where there is no key to try, the work is the same.
pub fn verify_in_vain(alg: JwsAlgorithm, message: &[u8], signature: &[u8]) {
    if let Some(key) = NOBODYS.iter().find(|key| key.allows(alg)) {
        std::hint::black_box(key.verifies(alg, message, signature));
    }
}

/// A key of each type. Those on curves are the curves' base points, whose private keys everybody knows: what they verify
/// is thrown away.
static NOBODYS: LazyLock<Vec<VerifyingKey>> = LazyLock::new(|| {
    let modulus = URL_SAFE_NO_PAD.encode([0xff; 256]);
    [
        json!({"kty": "EC", "crv": "P-256", "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}),
        json!({"kty": "EC", "crv": "P-384",
            "x": "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
            "y": "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY"}),
        json!({"kty": "RSA", "n": modulus, "e": "AQAB"}),
    ]
    .iter()
    .filter_map(VerifyingKey::from_jwk)
    .collect()
});

impl Jwk {
    /// An uncompressed point (SEC 1 §2.3.3).
    fn point(&self, coordinate_bytes: usize) -> Option<Vec<u8>> {
        let (x, y) = (bytes(self.x.as_ref(), coordinate_bytes)?, bytes(self.y.as_ref(), coordinate_bytes)?);
        Some([&[4], &*x, &*y].concat())
    }

    fn rsa(&self) -> Option<Rsa> {
        let n = URL_SAFE_NO_PAD.decode(self.n.as_ref()?).ok()?;
        let e = URL_SAFE_NO_PAD.decode(self.e.as_ref()?).ok()?;
        if !RSA_MODULUS_BYTES.contains(&n.len()) || !RSA_EXPONENT_BYTES.contains(&e.len()) {
            return None;
        }
        let components = RsaPublicKeyComponents { n, e };
        let parsed = |params| components.to_parsed_public_key(params).ok();
        Some(Rsa { pkcs1: parsed(&RSA_PKCS1_2048_8192_SHA256)?, pss: parsed(&RSA_PSS_2048_8192_SHA256)? })
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

/// base64url of exactly so many bytes.
fn bytes(text: Option<&String>, length: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| bytes.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_key_in_vain_for_every_algorithm() {
        assert_eq!(NOBODYS.len(), 4);
        for alg in JwsAlgorithm::ALL {
            assert_eq!(NOBODYS.iter().filter(|key| key.allows(alg)).count(), 1, "{alg:?}");
            verify_in_vain(alg, b"message", &[1; 64]);
        }
    }

    #[test]
    fn only_names_of_signatures_by_public_keys_are_algorithms() {
        for name in ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "RS1", "RS512", "es256", "dir"] {
            assert_eq!(JwsAlgorithm::named(name), None, "{name}");
        }
        for alg in JwsAlgorithm::ALL {
            assert_eq!(JwsAlgorithm::named(alg.as_str()), Some(alg));
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_not_read() {
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
        let with = |name: &str, value: Value| {
            let mut jwk = p256.clone();
            jwk[name] = value;
            VerifyingKey::from_jwk(&jwk)
        };
        assert!(VerifyingKey::from_jwk(&p256).is_some());
        assert_eq!(with("kid", json!("a")).unwrap().kid(), Some("a"));
        assert!(with("alg", json!("ES256")).is_some() && with("use", json!("sig")).is_some());
        assert!(with("use", json!("enc")).is_none(), "RFC 7517 §4.2");
        for alg in ["RS256", "ES384", "none", "HS256"] {
            assert!(with("alg", json!(alg)).is_none(), "{alg}: RFC 7517 §4.4");
        }
        let zeros = |bytes: usize| json!(URL_SAFE_NO_PAD.encode(vec![0; bytes]));
        assert!(with("y", zeros(32)).is_none(), "not on the curve");
        assert!(
            with("x", zeros(33)).is_none() && with("x", json!("***")).is_none() && with("x", Value::Null).is_none()
        );
        assert!(with("crv", json!("secp256k1")).is_none() && with("kty", json!("oct")).is_none());
        let rsa = |bytes: usize, exponent: &[u8]| {
            let (n, e) = (URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), URL_SAFE_NO_PAD.encode(exponent));
            VerifyingKey::from_jwk(&json!({"kty": "RSA", "n": n, "e": e}))
        };
        assert!(rsa(256, &[1, 0, 1]).is_some() && rsa(512, &[1, 0, 1]).is_some());
        assert!(rsa(128, &[1, 0, 1]).is_none() && rsa(1024, &[1, 0, 1]).is_none(), "1024 and 8192 bits");
        assert!(rsa(256, &[1; 5]).is_none() && rsa(256, &[]).is_none());
        for other in [json!(null), json!([]), json!("x"), json!({}), json!({"kty": 1})] {
            assert!(VerifyingKey::from_jwk(&other).is_none());
        }
    }

    #[test]
    fn an_rsa_key_verifies_by_either_padding_unless_its_jwk_names_one() {
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let key = |alg: Value| VerifyingKey::from_jwk(&json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": alg})).unwrap();
        let (either, one) = (key(Value::Null), key(json!("PS256")));
        assert!(either.allows(JwsAlgorithm::Rs256) && either.allows(JwsAlgorithm::Ps256));
        assert!(!one.allows(JwsAlgorithm::Rs256) && one.allows(JwsAlgorithm::Ps256));
        assert!(!either.allows(JwsAlgorithm::Es256));
    }
}
