//! The private key of a certificate: its algorithm and size, in cert-manager's words.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;

/// The private key of a certificate. It is generated anew for every certificate.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct PrivateKey {
    /// The algorithm: ECDSA (the default), RSA or Ed25519.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<PrivateKeyAlgorithm>,

    /// The size in bits: 256 (the default) or 384 for ECDSA; 2048 (the default), 3072 or 4096 for RSA. Not to be set
    /// for Ed25519, which has one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 4096), extend("format" = "int32"))]
    pub size: Option<u32>,
}

fn rules() -> Value {
    let sized = |algorithm: &str, is_meant: &str, sizes: &str, message: &str| {
        schema::rule_at(
            ".size",
            &format!("!({is_meant}) || !has(self.size) || {sizes}"),
            &format!("{message}: use one of them for {algorithm}, or leave size out"),
        )
    };
    json!([
        sized(
            "ECDSA",
            "!has(self.algorithm) || self.algorithm == 'ECDSA'",
            "self.size in [256, 384]",
            "size must be 256 or 384"
        ),
        sized(
            "RSA",
            "has(self.algorithm) && self.algorithm == 'RSA'",
            "self.size in [2048, 3072, 4096]",
            "size must be 2048, 3072 or 4096"
        ),
        schema::rule_at(
            ".size",
            "!has(self.algorithm) || self.algorithm != 'Ed25519' || !has(self.size)",
            "size must not be set for Ed25519, which has one size: remove it",
        ),
    ])
}

/// The algorithm of a private key.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum PrivateKeyAlgorithm {
    /// ECDSA on a curve of NIST (FIPS 186-5): P-256 or P-384.
    #[default]
    ECDSA,
    /// RSA (RFC 8017).
    RSA,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

/// An algorithm with a size that appreg makes keys of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// ECDSA on the curve P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

/// An algorithm that has no keys of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not have {size} bits for {algorithm}: {}", sizes(*algorithm))]
pub struct InvalidKeySize {
    algorithm: PrivateKeyAlgorithm,
    size: u32,
}

const fn sizes(algorithm: PrivateKeyAlgorithm) -> &'static str {
    match algorithm {
        PrivateKeyAlgorithm::ECDSA => "set size to 256 or 384",
        PrivateKeyAlgorithm::RSA => "set size to 2048, 3072 or 4096",
        PrivateKeyAlgorithm::Ed25519 => "leave size out",
    }
}

impl PrivateKey {
    /// The key type, with what is omitted filled in. The API server refuses other sizes, except of an object that it
    /// never asked about.
    pub fn key_type(self) -> Result<KeyType, InvalidKeySize> {
        let algorithm = self.algorithm.unwrap_or_default();
        let of_algorithm = |key_type: &KeyType| key_type.algorithm() == algorithm;
        let mut types = KeyType::ALL.into_iter().filter(of_algorithm);
        match (self.size, algorithm) {
            (None, _) => Ok(types.next().unwrap_or_default()),
            (Some(size), PrivateKeyAlgorithm::Ed25519) => Err(InvalidKeySize { algorithm, size }),
            (Some(size), _) => types.find(|key_type| key_type.size() == size).ok_or(InvalidKeySize { algorithm, size }),
        }
    }
}

impl From<KeyType> for PrivateKey {
    fn from(key_type: KeyType) -> Self {
        let algorithm = key_type.algorithm();
        Self { algorithm: Some(algorithm), size: (algorithm != PrivateKeyAlgorithm::Ed25519).then(|| key_type.size()) }
    }
}

impl PrivateKeyAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::ECDSA, Self::RSA, Self::Ed25519];

    /// The algorithm as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ECDSA => "ECDSA",
            Self::RSA => "RSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}

impl KeyType {
    /// Every key type; of each algorithm the default size first.
    pub const ALL: [Self; 6] =
        [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(self) -> PrivateKeyAlgorithm {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 => PrivateKeyAlgorithm::ECDSA,
            Self::Ed25519 => PrivateKeyAlgorithm::Ed25519,
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => PrivateKeyAlgorithm::RSA,
        }
    }

    /// Its size in bits.
    #[must_use]
    pub const fn size(self) -> u32 {
        match self {
            Self::EcdsaP256 | Self::Ed25519 => 256,
            Self::EcdsaP384 => 384,
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }
}

impl fmt::Display for PrivateKeyAlgorithm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Algorithm and size, for people.
impl fmt::Display for KeyType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm() {
            PrivateKeyAlgorithm::Ed25519 => out.pad("Ed25519"),
            algorithm => out.pad(&format!("{algorithm} {}", self.size())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_type_is_written_as_algorithm_and_size_and_read_again() {
        for key_type in KeyType::ALL {
            assert_eq!(PrivateKey::from(key_type).key_type(), Ok(key_type));
        }
    }

    #[test]
    fn an_omitted_size_is_the_smallest_and_an_omitted_algorithm_is_ecdsa() {
        let of = |json: Value| serde_json::from_value::<PrivateKey>(json).unwrap().key_type();
        for (json, expected) in [
            (json!({}), KeyType::EcdsaP256),
            (json!({"size": 384}), KeyType::EcdsaP384),
            (json!({"algorithm": "ECDSA"}), KeyType::EcdsaP256),
            (json!({"algorithm": "RSA"}), KeyType::Rsa2048),
            (json!({"algorithm": "RSA", "size": 3072}), KeyType::Rsa3072),
            (json!({"algorithm": "Ed25519"}), KeyType::Ed25519),
        ] {
            assert_eq!(of(json.clone()), Ok(expected), "{json}");
        }
    }

    #[test]
    fn a_size_that_an_algorithm_does_not_have_is_named_with_those_that_it_has() {
        let problem = |algorithm, size| {
            PrivateKey { algorithm: Some(algorithm), size: Some(size) }.key_type().unwrap_err().to_string()
        };
        assert_eq!(
            problem(PrivateKeyAlgorithm::ECDSA, 2048),
            "must not have 2048 bits for ECDSA: set size to 256 or 384"
        );
        assert_eq!(
            problem(PrivateKeyAlgorithm::RSA, 1024),
            "must not have 1024 bits for RSA: set size to 2048, 3072 or 4096"
        );
        assert_eq!(problem(PrivateKeyAlgorithm::Ed25519, 256), "must not have 256 bits for Ed25519: leave size out");
    }

    #[test]
    fn names_are_those_of_the_schema() {
        for algorithm in PrivateKeyAlgorithm::ALL {
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.to_string());
        }
    }
}
