//! The signature algorithms of access tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The signature algorithm of an access token (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256: what RFC 9068 clients most often expect, small and fast.
    #[default]
    ES256,
    /// Ed25519: the fastest to sign, and not understood by every resource server.
    EdDSA,
    /// RSA-2048, PKCS #1 v1.5, with SHA-256: what RFC 9068 section 2.1 asks everyone to verify; slow to sign.
    RS256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ES256, Self::EdDSA, Self::RS256];

    /// The name, as in `alg` of a JWT's header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::RS256 => "RS256",
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
