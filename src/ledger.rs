//! The ledger entry: what is accepted for one client ID. Its shape, its name, its reading and writing as JSON.
//!
//! Nothing of how it is stored, watched or decided stands here. Never plaintext: a verifier proves a credential without
//! being one.

mod grant;

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{DeletionPolicy, Kind};
use crate::rotation;

pub use grant::{ApiGrant, Grant};

/// The `version` of the shape below. An entry of another version is served on as last understood and never written.
pub const VERSION: u64 = 1;

/// The field of the Secret that holds the entry.
pub const FIELD: &str = "ledger.json";

/// The most live revisions of one credential entry.
pub const MOST_LIVE_REVISIONS: usize = 8;

/// The largest entry that is read and written, in bytes: more than the schema's maxima add up to, which a test computes.
/// The API server's own limit for a Secret is 1 MiB.
pub const LARGEST_ENTRY_BYTES: usize = 448 * 1024;

/// What is accepted for one client of one authorization server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Always [`VERSION`].
    pub version: u64,
    /// The authorization server's name.
    pub server: String,
    /// The client identifier (RFC 6749 §2.2), unique per server.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The registration it belongs to.
    pub owner: Owner,
    /// When the client came to be. Tokens issued before are not accepted.
    pub created_at: Timestamp,
    /// Tokens of this client issued before this time are not accepted.
    #[serde(default)]
    pub revoked_before: Option<Timestamp>,
    /// What happens to the entry when its registration is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// What the client may ask for, and by what each item was granted.
    #[serde(default)]
    pub grant: Grant,
    /// The credential entries by name.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credential>,
    /// What a remote authorization server was told; always null for the built-in one.
    #[serde(default)]
    pub remote: Option<serde_json::Value>,
}

/// The registration that an entry belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a registration that was deleted and created again is another owner.
    pub uid: String,
}

/// One credential entry: every revision in it is accepted while it is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// What kind of credential, by the name of its field in the spec.
    #[serde(with = "kind_name")]
    pub kind: Kind,
    /// The number that the next mint takes; it never goes back. Access tokens have no revisions and stay at 1.
    #[serde(default = "first_revision", skip_serializing_if = "is_first_revision")]
    pub next_revision: u64,
    /// Access tokens of this entry, or had with it, that were issued before this time are not accepted, nor are
    /// `ServiceAccount` tokens.
    #[serde(default)]
    pub revoked_before: Option<Timestamp>,
    /// Access tokens of this entry that were issued before this time are not accepted, whatever [`revoked_before`] says
    /// of the credential: of what has no revision that a token could name.
    ///
    /// [`revoked_before`]: Self::revoked_before
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_revoked_before: Option<Timestamp>,
    /// Access tokens that were had with this revision or an earlier one are not accepted; 0 for none.
    #[serde(default, skip_serializing_if = "is_none_revoked")]
    pub revoked_through: u64,
    /// Of a `ServiceAccount`: the `sub` of its tokens, `system:serviceaccount:<namespace>:<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Accepted revisions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
}

/// One accepted revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The counter from 1.
    pub revision: u64,
    /// When it was minted, or taken up.
    pub minted_at: Timestamp,
    /// From when on it is not accepted; [`rotation::NO_END`] where it has no end.
    pub not_after: Timestamp,
    /// The first characters of a client secret, for people to tell one from another. Never enough to guess the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What proves possession of the credential.
    pub verifier: Verifier,
}

/// What proves possession of a credential without being one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Verifier {
    /// Of a certificate.
    Certificate(CertificateVerifier),
    /// Of a public key without a certificate.
    PublicKey(PublicKeyVerifier),
    /// Of a client secret.
    ClientSecret(ClientSecretVerifier),
}

/// The verifier of a client secret. An unsalted fast hash is right here: 238 bits of entropy leave nothing to guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecretVerifier {
    /// SHA-256 of the client secret.
    pub sha256: Digest,
}

/// The verifier of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateVerifier {
    /// SHA-256 of the DER of the subject public key info.
    #[serde(rename = "spkiSHA256")]
    pub spki_sha256: Digest,
    /// SHA-256 of the DER of the certificate (`x5t#S256` of RFC 8705).
    #[serde(rename = "certSHA256")]
    pub cert_sha256: Digest,
    /// The public key as a JWK (RFC 7517), for `private_key_jwt`.
    pub jwk: serde_json::Value,
}

/// The verifier of a public key that was uploaded without a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKeyVerifier {
    /// SHA-256 of the DER of the subject public key info.
    #[serde(rename = "spkiSHA256")]
    pub spki_sha256: Digest,
    /// The public key as a JWK (RFC 7517), for `private_key_jwt`.
    pub jwk: serde_json::Value,
}

/// A SHA-256 digest; in JSON base64url without padding, as in JOSE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why an entry cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The Secret has no `ledger.json`.
    #[error("the field {FIELD} is missing")]
    Missing,
    /// It is larger than [`LARGEST_ENTRY_BYTES`].
    #[error("the field {FIELD} is larger than {LARGEST_ENTRY_BYTES} bytes")]
    TooLarge,
    /// It is not the JSON we write. The position alone: the content is not repeated.
    #[error("the field {FIELD} is malformed at line {line}, column {column}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It was written by another version of appreg.
    #[error("the field {FIELD} has version {0}, this program knows version {VERSION}")]
    UnknownVersion(u64),
    /// The entry is not the one that its Secret's name reserves.
    #[error("the entry's server and client ID do not give the name of its Secret")]
    Misnamed,
}

/// The name of the Secret that reserves a client ID at an authorization server: the first POST of it wins.
#[must_use]
pub fn name(server: &str, client_id: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(server.as_bytes());
    context.update(&[0]);
    context.update(client_id.as_bytes());
    let hash = context.finish();
    hash.as_ref().iter().take(20).fold("client-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

impl Entry {
    /// Reads an entry from the bytes of [`FIELD`] of the Secret called `secret_name`.
    pub fn parse(secret_name: &str, bytes: Option<&[u8]>) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let bytes = bytes.ok_or(Unreadable::Missing)?;
        if bytes.len() > LARGEST_ENTRY_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let malformed = |error: serde_json::Error| Unreadable::Malformed { line: error.line(), column: error.column() };
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(Unreadable::UnknownVersion(version));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if name(&entry.server, &entry.client_id) == secret_name { Ok(entry) } else { Err(Unreadable::Misnamed) }
    }

    /// The bytes of [`FIELD`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "maps with string keys and derived types always serialize")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a ledger entry serializes")
    }

    /// The name of the Secret that this entry is kept in.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.server, &self.client_id)
    }

    /// The newest `minted_at` of all revisions: a clock far behind it cannot be believed.
    #[must_use]
    pub fn newest_mint(&self) -> Option<Timestamp> {
        self.credentials.values().flat_map(|c| &c.revisions).map(|r| r.minted_at).max()
    }
}

impl Credential {
    /// An entry without revisions.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            next_revision: first_revision(),
            revoked_before: None,
            tokens_revoked_before: None,
            revoked_through: 0,
            subject: None,
            revisions: Vec::new(),
        }
    }

    /// From when on a revision is not accepted (rule R1): its own end, or at once where a watermark revokes it.
    /// `of_client` is the client's watermark.
    #[must_use]
    pub fn end_of(&self, revision: &Revision, of_client: Option<Timestamp>) -> Timestamp {
        let mark = self.revoked_before.max(of_client);
        if mark.is_some_and(|mark| revision.minted_at < mark) { Timestamp::MIN } else { revision.not_after }
    }

    /// Takes up a watermark: what was minted before it is not accepted any more, nor are tokens that were had with it.
    pub fn revoke(&mut self, mark: Timestamp, now: Timestamp) {
        let is_meant = |revision: &&Revision| rotation::is_before_watermark(revision.minted_at, mark, now);
        let through = self.revisions.iter().filter(is_meant).map(|revision| revision.revision).max();
        self.revoked_through = self.revoked_through.max(through.unwrap_or(0));
        self.revoked_before = self.revoked_before.max(Some(mark));
    }

    /// The revision with this number.
    #[must_use]
    pub fn revision(&self, revision: u64) -> Option<&Revision> {
        self.revisions.iter().find(|r| r.revision == revision)
    }
}

impl Verifier {
    /// The public key as a JWK, of what has one.
    #[must_use]
    pub const fn jwk(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Certificate(verifier) => Some(&verifier.jwk),
            Self::PublicKey(verifier) => Some(&verifier.jwk),
            Self::ClientSecret(_) => None,
        }
    }
}

impl Revision {
    /// Whether it is accepted now (rule R1).
    #[must_use]
    pub fn is_accepted(&self, now: Timestamp) -> bool {
        rotation::is_valid(self.minted_at, self.not_after, now)
    }

    /// Whether its end has come.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }

    /// The digest as base64url without padding.
    #[must_use]
    pub fn to_base64url(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Short: a digest in a test's output is there to be told from another, not to be copied.
        write!(f, "Digest({}…)", &self.to_base64url()[..8])
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64url())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let mut out = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut out) {
            Ok(32) => Ok(Self(out)),
            _ => Err(serde::de::Error::custom("expected 43 characters of base64url")),
        }
    }
}

/// A kind by the name of its field in the spec: the ledger's shape does not follow that of the API's lists.
mod kind_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::api::Kind;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let named = Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
        named.ok_or_else(|| D::Error::custom("expected a kind of credential"))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_none_revoked(revision: &u64) -> bool {
    *revision == 0
}

const fn first_revision() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_first_revision(revision: &u64) -> bool {
    *revision == first_revision()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CustomerScopeType, GrantType, TokenEndpointAuthMethod};

    fn example() -> String {
        let digest = Digest::of(b"example").to_base64url();
        format!(
            r#"{{"version":1,"server":"default","clientID":"shop.storefront",
            "owner":{{"namespace":"shop","name":"storefront","uid":"u"}},"createdAt":"2026-01-01T00:00:00Z",
            "revokedBefore":null,"deletionPolicy":"Delete",
            "grant":{{"scopes":{{"orders:read":"policy/default"}},"audiences":{{}},"redirectURIs":{{}},
              "customers":{{}},"customerGroups":{{}},"authMethods":["client_secret_basic"]}},
            "credentials":{{"web":{{"kind":"clientSecret","nextRevision":5,"revokedBefore":null,"revisions":[
              {{"revision":4,"mintedAt":"2026-01-01T00:00:00Z","notAfter":"2026-04-01T00:00:00Z","hint":"apr_x7Qk",
                "verifier":{{"sha256":"{digest}"}}}}]}},
              "api":{{"kind":"accessToken","revokedBefore":null}}}},"remote":null}}"#
        )
    }

    #[test]
    fn the_name_is_made_of_server_and_client_id() {
        // printf 'default\0shop.storefront' | sha256sum | cut -c1-40
        assert_eq!(name("default", "shop.storefront"), "client-dd96d993299e879d7d340b6e3026ac5ec2d6f003");
        assert_ne!(name("a", "b.c"), name("a.b", "c"));
    }

    #[test]
    fn an_entry_is_read_and_written_without_loss() {
        let name = name("default", "shop.storefront");
        let entry = Entry::parse(&name, Some(example().as_bytes())).unwrap();
        assert_eq!(entry.credentials["web"].revision(4).unwrap().hint.as_deref(), Some("apr_x7Qk"));
        assert_eq!(Entry::parse(&name, Some(&entry.to_json())).unwrap(), entry);
    }

    #[test]
    fn an_entry_from_before_apis_had_scopes_of_their_own_is_read_as_it_counted_then() {
        let old = example().replace(
            r#""audiences":{}"#,
            r#""audiences":{"https://b":"policy/b","https://a":"policy/a"},"resourceAudiences":{"https://me":"policy/default"}"#,
        );
        let entry = Entry::parse(&name("default", "shop.storefront"), Some(old.as_bytes())).unwrap();
        let grant = &entry.grant;
        let scopes = BTreeMap::from([("orders:read".to_owned(), "policy/default".to_owned())]);
        let api = |by: &str| ApiGrant { by: by.to_owned(), scopes: scopes.clone() };
        assert_eq!(
            grant.apis,
            BTreeMap::from([("https://a".to_owned(), api("policy/a")), ("https://b".to_owned(), api("policy/b")),])
        );
        assert!(grant.scopes.is_empty(), "tokens were never for the server's default audience");
        assert_eq!(grant.default_audience.as_deref(), Some("https://a"));
        assert_eq!(grant.served_audiences.len(), 1);
        assert_eq!(entry.credentials["web"].kind, Kind::ClientSecret);
        assert_eq!(Entry::parse(&entry.name(), Some(&entry.to_json())).unwrap(), entry, "and written as it counts now");
        let without = Entry::parse(&entry.name(), Some(example().as_bytes())).unwrap().grant;
        assert_eq!((without.scopes, without.apis.len(), without.default_audience), (scopes, 0, None));
    }

    #[test]
    fn an_entry_with_everything_that_the_schema_allows_is_read_again() {
        let text = |length: usize, number: usize| format!("{number:0>length$}");
        let by = format!("approval/{}", text(127, 0));
        let items = |count: usize, length: usize| {
            (0..count).map(|number| (text(length, number), by.clone())).collect::<BTreeMap<_, _>>()
        };
        let api = |number: usize| (text(256, number), ApiGrant { by: by.clone(), scopes: items(8, 128) });
        let jwk = serde_json::json!({"kty": "RSA", "use": "sig", "alg": "PS256", "e": "AQAB", "kid": text(43, 0), "n": text(683, 0)});
        let revision = |revision: u64| Revision {
            revision: 1_000_000 + revision,
            minted_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2026-01-01T00:00:00Z".parse().unwrap(),
            hint: None,
            verifier: Verifier::Certificate(CertificateVerifier {
                spki_sha256: Digest::of(b"x"),
                cert_sha256: Digest::of(b"x"),
                jwk: jwk.clone(),
            }),
        };
        let credential = Credential {
            revisions: (0..MOST_LIVE_REVISIONS as u64).map(revision).collect(),
            revoked_before: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            tokens_revoked_before: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            revoked_through: 1_000_000,
            ..Credential::new(Kind::Certificate)
        };
        let mut entry: Entry = serde_json::from_str(&example()).unwrap();
        entry.grant = Grant {
            scopes: items(64, 128),
            apis: (0..16).map(api).collect(),
            default_audience: Some(text(256, 0)),
            redirect_uris: items(32, 2048),
            customer_scope: Some(CustomerScopeType::Customers),
            customers: items(64, 128),
            customer_groups: BTreeMap::new(),
            served_audiences: items(16, 256),
            dns_names: items(64, 253),
            auth_methods: TokenEndpointAuthMethod::ALL.to_vec(),
            grant_types: Some(GrantType::ALL.to_vec()),
        };
        entry.credentials = (0..16).map(|number| (text(40, number), credential.clone())).collect();
        let bytes = entry.to_json();
        let most = LARGEST_ENTRY_BYTES - 32 * 1024;
        assert!(bytes.len() < most, "{} bytes: with room for what a later version adds", bytes.len());
        assert!(
            bytes.len() > LARGEST_ENTRY_BYTES / 2,
            "{} bytes: the limit is no larger than it needs to be",
            bytes.len()
        );
        assert_eq!(Entry::parse(&entry.name(), Some(&bytes)), Ok(entry));
    }

    #[test]
    fn an_unknown_version_is_told_from_a_malformed_entry() {
        let unknown = br#"{"version":2,"anything":[]}"#;
        assert_eq!(Entry::parse("client-x", Some(unknown)), Err(Unreadable::UnknownVersion(2)));
        assert!(matches!(Entry::parse("client-x", Some(b"{")), Err(Unreadable::Malformed { .. })));
        assert_eq!(Entry::parse("client-x", None), Err(Unreadable::Missing));
    }

    #[test]
    fn an_entry_under_another_name_is_not_believed() {
        assert_eq!(Entry::parse("client-0", Some(example().as_bytes())), Err(Unreadable::Misnamed));
    }

    #[test]
    fn a_malformed_entry_is_reported_without_its_content() {
        let error = Entry::parse("client-x", Some(br#"{"version":1,"server":"apr_canary""#)).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn a_revision_is_accepted_from_a_minute_before_its_mint_until_its_end() {
        let name = name("default", "shop.storefront");
        let entry = Entry::parse(&name, Some(example().as_bytes())).unwrap();
        let revision = entry.credentials["web"].revision(4).unwrap();
        let accepted = |at: &str| revision.is_accepted(at.parse().unwrap());
        assert!(!accepted("2025-12-31T23:58:59Z"));
        assert!(accepted("2025-12-31T23:59:00Z"));
        assert!(accepted("2026-03-31T23:59:59Z"));
        assert!(!accepted("2026-04-01T00:00:00Z"));
    }
}
