//! Reading access tokens of our own: the signature and the form, nothing else.
//!
//! Pure: whether a token's times, client and key are good *now* is compared by the caller, who knows the time and the
//! ledger. No claim of a token is looked at before its signature holds.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::Algorithm;
use crate::jws::key::{JwsAlgorithm, VerifyingKey};
use crate::jws::{Audiences, Compact};

/// The longest token that is read, in bytes. The longest that a registration can ask for has about 40,000.
pub const LONGEST_TOKEN_BYTES: usize = 64 * 1024;

/// The type of an access token (RFC 9068 §2.1).
pub const TYPE: &str = "at+jwt";

/// The public half of a signing key, parsed once.
#[derive(Clone, Debug)]
pub struct PublicKey {
    kid: String,
    key: Arc<VerifyingKey>,
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
        let key = VerifyingKey::from_jwk(jwk)?;
        let alg = key.only_algorithm()?;
        Algorithm::ALL.iter().find(|ours| ours.as_str() == alg.as_str())?;
        Some(Self { kid: key.kid()?.to_owned(), key: Arc::new(key) })
    }

    /// The key's identifier.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl VerifiedToken {
    /// The credential entry that the token was minted for, or had with: what stands before `~` in `jti`, without the
    /// revision.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        self.origin().map(|(entry, _)| entry)
    }

    /// The revision of the entry that the token was had with. Tokens that are delivered in Secrets, those of a
    /// `ServiceAccount`, and those from before revisions were named have none.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.origin().and_then(|(_, revision)| revision)
    }

    fn origin(&self) -> Option<(&str, Option<u64>)> {
        let (origin, _) = self.jti.split_once('~')?;
        let named = origin.rsplit_once('.').and_then(|(entry, revision)| Some((entry, Some(revision.parse().ok()?))));
        Some(named.unwrap_or((origin, None)))
    }

    /// The scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

/// Reads a token that one of these keys signed: `None` for everything else, be it malformed, of another type, signed by
/// another key or altered. The key is the one that the header's `kid` names, the algorithm is that key's.
#[must_use]
pub fn verify<'a>(token: &[u8], keys: impl IntoIterator<Item = &'a PublicKey>) -> Option<VerifiedToken> {
    if token.len() > LONGEST_TOKEN_BYTES {
        return None;
    }
    let jws = Compact::split(std::str::from_utf8(token).ok()?)?;
    let header = jws.header()?;
    if header.typ.as_deref() != Some(TYPE) || header.is_critical {
        return None;
    }
    let (alg, kid) = (JwsAlgorithm::named(&header.alg)?, header.kid?);
    let key = keys.into_iter().find(|key| key.kid == kid)?;
    if !key.key.verifies(alg, jws.message, &jws.signature()?) {
        return None;
    }
    jws.claims::<Wire>()?.into_token(kid)
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
            audiences: self.aud.0,
            customers: self.customers,
            customer_groups: self.customer_groups,
            certificate: self.cnf.map(|cnf| cnf.certificate),
        })
    }
}
