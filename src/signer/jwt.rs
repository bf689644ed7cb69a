//! Reading access tokens of our own: the signature and the form, nothing else.
//!
//! Pure: whether a token's times, client and key are good *now* is compared by the caller, who knows the time and the
//! ledger. No claim of a token is looked at before its signature holds.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use super::Algorithm;

/// The longest token that is read, in bytes. The longest that a registration can ask for has about 40,000.
pub const LONGEST_TOKEN_BYTES: usize = 64 * 1024;

/// The public half of a signing key, parsed once.
#[derive(Clone)]
pub struct PublicKey {
    kid: String,
    key: DecodingKey,
    validation: Validation,
}

/// What a token says whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The identifier of the key that signed it.
    pub kid: String,
    /// `iss`.
    pub issuer: String,
    /// `client_id`; `sub` is the same.
    pub client_id: String,
    /// `jti`.
    pub jti: String,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `scope`, as it stands there: separated by spaces, empty where there is none.
    pub scope: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `customers`.
    pub customers: Option<Vec<String>>,
    /// `customer_groups`.
    pub customer_groups: Option<Vec<String>>,
    /// `x5t#S256` of `cnf`: the SHA-256 in base64url of the certificate that the token is bound to.
    pub certificate: Option<String>,
}

impl PublicKey {
    /// Reads a key of a JWKS: `kid` and `alg` must be there, and the algorithm one of ours.
    #[must_use]
    pub fn from_jwk(jwk: &serde_json::Value) -> Option<Self> {
        let jwk = Jwk::deserialize(jwk).ok()?;
        let alg = match jwk.common.key_algorithm? {
            jsonwebtoken::jwk::KeyAlgorithm::ES256 => Algorithm::ES256,
            _ => return None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id?, key, validation: signature_alone(alg) })
    }

    /// The key's identifier.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl VerifiedToken {
    /// The credential entry that the token was minted for: what stands before `~` in `jti`. None for a token from the
    /// token endpoint.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        self.jti.split_once('~').map(|(entry, _)| entry)
    }

    /// The scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Reads a token that one of these keys signed: `None` for everything else, be it malformed, of another type, signed by
/// another key or altered. The key is the one that the header's `kid` names, the algorithm is that key's.
#[must_use]
pub fn verify<'a>(token: &[u8], keys: impl IntoIterator<Item = &'a PublicKey>) -> Option<VerifiedToken> {
    if token.len() > LONGEST_TOKEN_BYTES {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.typ.as_deref() != Some("at+jwt") || header.crit.is_some() {
        return None;
    }
    let kid = header.kid?;
    let key = keys.into_iter().find(|key| key.kid == kid)?;
    let claims = jsonwebtoken::decode::<Wire>(token, &key.key, &key.validation).ok()?.claims;
    if !token.split(|byte| *byte == b'.').take(2).all(is_utf_8) {
        return None;
    }
    claims.into_token(kid)
}

/// Whether a segment is UTF-8 (RFC 7519 §7.2), also in the members that nobody here reads and serde passes over.
fn is_utf_8(segment: &[u8]) -> bool {
    URL_SAFE_NO_PAD.decode(segment).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok())
}

/// The claims as they stand in the token.
#[derive(Deserialize)]
struct Wire {
    iss: String,
    sub: String,
    client_id: String,
    aud: Audiences,
    #[serde(default)]
    scope: String,
    jti: String,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    customers: Option<Vec<String>>,
    customer_groups: Option<Vec<String>>,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: String,
}

impl Wire {
    fn into_token(self, kid: String) -> Option<VerifiedToken> {
        if self.sub != self.client_id {
            return None;
        }
        Some(VerifiedToken {
            kid,
            issuer: self.iss,
            client_id: self.client_id,
            jti: self.jti,
            issued_at: Timestamp::from_second(self.iat).ok()?,
            expires_at: Timestamp::from_second(self.exp).ok()?,
            not_before: self.nbf.map(Timestamp::from_second).transpose().ok()?,
            scope: self.scope,
            audiences: match self.aud {
                Audiences::One(audience) => vec![audience],
                Audiences::Several(audiences) => audiences,
            },
            customers: self.customers,
            customer_groups: self.customer_groups,
            certificate: self.cnf.map(|cnf| cnf.certificate),
        })
    }
}

/// jsonwebtoken would compare times with the system's clock and audiences with none: all of that is the caller's.
fn signature_alone(alg: Algorithm) -> Validation {
    let mut validation = Validation::new(match alg {
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
    });
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}
