//! What is seen: ledger entries, what Secrets say, values.

use std::{collections::BTreeMap, time::Instant};

use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// A ledger entry, as far as it says what is accepted.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct LedgerEntry {
    #[serde(rename = "clientID")]
    pub(super) client_id: String,
    pub(super) owner: Owner,
    #[serde(default)]
    pub(super) credentials: BTreeMap<String, Credential>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credential {
    pub(super) kind: String,
    #[serde(default)]
    pub(super) next_revision: u64,
    #[serde(default)]
    pub(super) revisions: Vec<Revision>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revision {
    #[serde(rename = "revision")]
    pub(super) number: u64,
    pub(super) not_after: Timestamp,
    pub(super) verifier: serde_json::Value,
}

impl Revision {
    /// The hash of the value: of a client secret, or of a certificate.
    pub(super) fn hash(&self) -> &str {
        let text = |name: &str| self.verifier[name].as_str();
        text("sha256").or_else(|| text("certSHA256")).unwrap_or_default()
    }
}

/// What a Secret says of one entry.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hint {
    pub(super) current: Option<u64>,
    pub(super) since: Timestamp,
}

/// What a Secret shows: hashes by entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) uid: String,
    pub(super) entries: BTreeMap<String, ShownEntry>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ShownEntry {
    pub(super) current: Option<String>,
    pub(super) previous: Option<String>,
}

/// A value that a Secret has shown.
pub(super) struct Value {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) entry: String,
    pub(super) revision: u64,
    /// Its first characters.
    pub(super) hint: String,
    pub(super) client_id: String,
    /// None for a certificate.
    pub(super) client_secret: Option<String>,
    pub(super) not_after: Timestamp,
    /// Since when a Secret shows its successor.
    pub(super) replaced: Option<Timestamp>,
    /// How long it is accepted from then on, once that is known.
    pub(super) overlap: Option<SignedDuration>,
    /// That it was refused too early is told once.
    pub(super) is_told: bool,
    /// It may be refused at any time.
    pub(super) excused: bool,
    pub(super) dropped: Option<Timestamp>,
    pub(super) next_try: Instant,
    /// Since it became spent.
    pub(super) refusals: usize,
}

impl Value {
    /// Until when it must be accepted.
    pub(super) fn end(&self) -> Timestamp {
        let announced = self.replaced.zip(self.overlap).map(|(since, overlap)| since + overlap);
        announced.map_or(self.not_after, |end| end.min(self.not_after))
    }

    /// Whether it need not be accepted any more.
    pub(super) fn is_spent(&self, now: Timestamp) -> bool {
        self.excused || self.end() <= now
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, name, entry, revision, hint, .. } = self;
        write!(f, "{namespace}/{name} {entry} r{revision} ({hint}…)")
    }
}

/// As the ledger writes it: base64url without padding.
pub(super) fn hash(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}
