//! The annotation `appreg.dev/published`: a hint of what a Secret holds.
//!
//! It spares a GET where the Secret is known not to have been written by anyone else since. Of what stands in it, only
//! `since` has no other source.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ShownToken;

/// The annotation's largest size that is read, in bytes.
const LARGEST_BYTES: usize = 16 * 1024;

/// What a Secret holds, by entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Published(pub BTreeMap<String, PublishedEntry>);

/// What a Secret holds of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedEntry {
    /// The current revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// The previous revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// Since when the current one has been readable.
    pub since: Timestamp,
    /// The shape of a certificate or a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// The key that a token was signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// A token's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

impl Published {
    /// Reads the annotation; what cannot be read says nothing.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        annotation
            .filter(|text| text.len() <= LARGEST_BYTES)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// The annotation's text.
    #[must_use]
    #[expect(clippy::expect_used, reason = "maps with string keys and derived types always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the annotation serializes")
    }

    /// Since when the entry's current credential has been readable.
    #[must_use]
    pub fn since(&self, entry: &str) -> Option<Timestamp> {
        self.0.get(entry).map(|entry| entry.since)
    }
}

impl PublishedEntry {
    /// What is said of a token.
    #[must_use]
    pub fn of_token(token: &ShownToken) -> Self {
        Self {
            current: None,
            previous: None,
            since: token.issued_at,
            shape: Some(token.shape.clone()),
            kid: Some(token.kid.clone()),
            not_after: Some(token.not_after),
        }
    }

    /// The token described, if all of it is.
    #[must_use]
    pub fn token(&self) -> Option<ShownToken> {
        Some(ShownToken {
            kid: self.kid.clone()?,
            issued_at: self.since,
            not_after: self.not_after?,
            shape: self.shape.clone()?,
        })
    }
}
