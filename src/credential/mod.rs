//! What a Secret shows of each credential entry, and what was given of those that no Secret holds: one file per kind, pure.
//!
//! Here a value in a Secret is compared with the ledger's verifiers (rule R3: *current* is what the Secret holds, never
//! the highest number, never an annotation). Secret bytes are read here and never leave: what comes out are revision
//! numbers, digests and times.

pub mod access_token;
pub mod certificate;
pub mod client_secret;
pub mod jwk;
pub mod public_key;
pub mod published;
pub mod template;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use crate::api::Kind;
use crate::ledger::{self, Digest};
use published::PublishedEntry;

/// The fields of a Secret.
pub type Fields = BTreeMap<String, ByteString>;

/// Names of the Secret's fields, as text.
pub mod field {
    use crate::api::SecretField;

    /// [`SecretField::ClientId`].
    pub const CLIENT_ID: &str = SecretField::ClientId.as_str();
    /// [`SecretField::ClientSecret`].
    pub const CLIENT_SECRET: &str = SecretField::ClientSecret.as_str();
    /// [`SecretField::PreviousClientSecret`].
    pub const PREVIOUS_CLIENT_SECRET: &str = SecretField::PreviousClientSecret.as_str();
    /// [`SecretField::Certificate`].
    pub const CERTIFICATE: &str = SecretField::Certificate.as_str();
    /// [`SecretField::PrivateKey`].
    pub const PRIVATE_KEY: &str = SecretField::PrivateKey.as_str();
    /// [`SecretField::Ca`].
    pub const CA: &str = SecretField::Ca.as_str();
    /// [`SecretField::AccessToken`].
    pub const ACCESS_TOKEN: &str = SecretField::AccessToken.as_str();
    /// [`SecretField::TokenType`].
    pub const TOKEN_TYPE: &str = SecretField::TokenType.as_str();
    /// [`SecretField::ExpiresAt`].
    pub const EXPIRES_AT: &str = SecretField::ExpiresAt.as_str();
    /// [`SecretField::Scope`].
    pub const SCOPE: &str = SecretField::Scope.as_str();
    /// [`SecretField::Issuer`].
    pub const ISSUER: &str = SecretField::Issuer.as_str();
    /// [`SecretField::TokenEndpoint`].
    pub const TOKEN_ENDPOINT: &str = SecretField::TokenEndpoint.as_str();
    /// [`SecretField::JwksUri`].
    pub const JWKS_URI: &str = SecretField::JwksUri.as_str();
    /// [`SecretField::TokenEndpointAuthMethod`].
    pub const TOKEN_ENDPOINT_AUTH_METHOD: &str = SecretField::TokenEndpointAuthMethod.as_str();
    /// [`SecretField::IssuerCa`].
    pub const ISSUER_CA: &str = SecretField::IssuerCa.as_str();
}

/// What stands in a place of a Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    #[default]
    Nothing,
    /// Something that is not in the ledger.
    Unknown,
    /// This revision.
    Revision(u64),
}

/// What a Secret shows of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A client secret and the one before.
    ClientSecret {
        /// The field `client_secret`.
        current: Held,
        /// The field `previous_client_secret`.
        previous: Held,
    },
    /// A certificate with its key.
    Certificate {
        /// The certificate, if it and its key belong together.
        current: Held,
        /// The certificate before: applications may still hold it. From the annotation, for the report alone.
        previous: Held,
        /// What the certificate says, see [`certificate::shape`].
        shape: String,
    },
    /// An access token, or nothing that is one of ours.
    AccessToken(Result<ShownToken, Held>),
}

/// An access token that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownToken {
    /// The key it was signed with.
    pub kid: String,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub not_after: Timestamp,
    /// What it says, see [`access_token::shape`].
    pub shape: String,
}

impl Shown {
    /// What a Secret shows by its annotation, when it is known that nobody but us wrote the Secret since; without a hint
    /// nothing. `None` for a kind that no Secret holds.
    #[must_use]
    pub fn hinted(kind: Kind, hint: Option<&PublishedEntry>, ledger: Option<&ledger::Credential>) -> Option<Self> {
        let held = |revision: Option<u64>| match revision {
            None => Held::Nothing,
            Some(r) if ledger.is_some_and(|ledger| ledger.revision(r).is_some()) => Held::Revision(r),
            Some(_) => Held::Unknown,
        };
        let current = held(hint.and_then(|hint| hint.current));
        let previous = held(hint.and_then(|hint| hint.previous));
        match kind {
            Kind::ClientSecret => Some(Self::ClientSecret { current, previous }),
            Kind::Certificate => {
                let shape = hint.and_then(|hint| hint.shape.clone()).unwrap_or_default();
                Some(Self::Certificate { current, previous, shape })
            }
            Kind::AccessToken => Some(Self::AccessToken(hint.and_then(PublishedEntry::token).ok_or(Held::Nothing))),
            Kind::PublicKey | Kind::ServiceAccount => None,
        }
    }
}

/// The text of a field, if it is there, is not empty, and is UTF-8.
#[must_use]
pub fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).filter(|text| !text.is_empty())
}

/// Twelve characters that differ where what is described differs: a comparison that fits in an annotation.
#[must_use]
pub fn shape_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(part);
        text.push('\0');
    }
    let mut shape = Digest::of(text.as_bytes()).to_base64url();
    shape.truncate(12);
    shape
}
