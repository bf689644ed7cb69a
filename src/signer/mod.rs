//! Which keys sign access tokens and which are published: pure functions over the index in `signing-keys`.
//!
//! Key bytes never come here. The index is the same on every replica, so every replica signs with the same key at the
//! same time; only the controller changes it. Certificate authorities have their own index in [`ca`]; reading a signed
//! token stands in [`jwt`].

pub mod ca;
pub mod jwt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::rotation::{self, LONGEST_TOKEN_LIFETIME};

/// The field of the Secret `signing-keys` that holds the index.
pub const INDEX_FIELD: &str = "keys.json";

/// How long a key is published before it signs: longer than any cache of the JWKS that respects `max-age` (300 s), and
/// long enough for those that refresh once a day.
pub const PUBLISH_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// How long a key signs.
pub const KEY_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How much longer than its last token a key stays published, for clocks that differ.
const PUBLISH_AFTER_SLACK: SignedDuration = SignedDuration::from_mins(5);

/// The most keys in an index; rotation keeps three at most, an emergency adds one.
pub const MOST_KEYS: usize = 16;

/// The signature algorithm of an access token (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ES256 => f.write_str("ES256"),
        }
    }
}

/// One signing key, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// The key's identifier: its RFC 7638 thumbprint.
    pub kid: String,
    /// Its algorithm.
    pub alg: Algorithm,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs, if no newer key does.
    pub sign_from: Timestamp,
    /// Until when it is in the JWKS; null while no successor is known.
    pub publish_until: Option<Timestamp>,
}

/// The index of signing keys, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index(Vec<KeyRecord>);

/// What the index needs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new key that signs from this time on.
    Add {
        /// Its `sign_from`.
        sign_from: Timestamp,
    },
    /// These keys are no longer published and go.
    Remove {
        /// Their identifiers.
        kids: Vec<String>,
    },
}

/// Why an index cannot be used. Nothing is ever minted over such an index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The Secret has no index.
    #[error("the field {INDEX_FIELD} is missing")]
    Missing,
    /// The index is not the JSON we write, or holds too many keys.
    #[error("the field {INDEX_FIELD} is malformed")]
    Malformed,
}

impl Index {
    /// Reads the index from the bytes of [`INDEX_FIELD`].
    pub fn parse(bytes: Option<&[u8]>) -> Result<Self, Unreadable> {
        let index: Self =
            serde_json::from_slice(bytes.ok_or(Unreadable::Missing)?).map_err(|_| Unreadable::Malformed)?;
        if index.0.len() > MOST_KEYS { Err(Unreadable::Malformed) } else { Ok(index) }
    }

    /// The bytes of [`INDEX_FIELD`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "a list of derived types always serializes")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index serializes")
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> &[KeyRecord] {
        &self.0
    }

    /// The key that signs now: the newest with `sign_from ≤ now` that is published. None only for an index without a
    /// usable key.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&KeyRecord> {
        self.published(now).filter(|key| key.sign_from <= now).max_by_key(|key| (key.sign_from, key.created_at))
    }

    /// The keys in the JWKS now.
    pub fn published(&self, now: Timestamp) -> impl Iterator<Item = &KeyRecord> {
        self.0.iter().filter(move |key| key.publish_until.is_none_or(|until| now < until))
    }

    /// Whether a token signed with this key can be verified now.
    #[must_use]
    pub fn is_published(&self, kid: &str, now: Timestamp) -> bool {
        self.published(now).any(|key| key.kid == kid)
    }

    /// What the index needs now; `None` at rest.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Change> {
        let Some(newest) = self.0.iter().max_by_key(|key| key.sign_from) else {
            return Some(Change::Add { sign_from: now });
        };
        if self.signing(now).is_none() && newest.sign_from <= now {
            return Some(Change::Add { sign_from: now });
        }
        if rotation::add(newest.sign_from, KEY_LIFE - PUBLISH_BEFORE) <= now {
            return Some(Change::Add { sign_from: rotation::add(now, PUBLISH_BEFORE) });
        }
        let kids: Vec<_> = self
            .0
            .iter()
            .filter(|key| key.publish_until.is_some_and(|until| until <= now))
            .map(|key| key.kid.clone())
            .collect();
        if kids.is_empty() { None } else { Some(Change::Remove { kids }) }
    }

    /// The next time at which [`Self::due`] or [`Self::signing`] can answer otherwise.
    #[must_use]
    pub fn next_transition(&self, now: Timestamp) -> Option<Timestamp> {
        let successor =
            self.0.iter().map(|key| key.sign_from).max().map(|from| rotation::add(from, KEY_LIFE - PUBLISH_BEFORE));
        self.0
            .iter()
            .flat_map(|key| [Some(key.sign_from), key.publish_until])
            .chain([successor])
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// The index with a new key: its predecessors stay published until their last token has ended.
    #[must_use]
    pub fn with(mut self, key: KeyRecord) -> Self {
        let until = rotation::add(key.sign_from, LONGEST_TOKEN_LIFETIME + PUBLISH_AFTER_SLACK);
        for older in self.0.iter_mut().filter(|older| older.publish_until.is_none()) {
            older.publish_until = Some(until);
        }
        self.0.push(key);
        self
    }

    /// The index without these keys.
    #[must_use]
    pub fn without(mut self, kids: &[String]) -> Self {
        self.0.retain(|key| !kids.contains(&key.kid));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn key(kid: &str, created_at: Timestamp, sign_from: Timestamp) -> KeyRecord {
        KeyRecord { kid: kid.into(), alg: Algorithm::ES256, created_at, sign_from, publish_until: None }
    }

    /// Applies what is due, as the controller does.
    fn advance(index: Index, now: Timestamp, next: &mut u32) -> Index {
        match index.due(now) {
            None => index,
            Some(Change::Remove { kids }) => index.without(&kids),
            Some(Change::Add { sign_from }) => {
                *next += 1;
                index.with(key(&format!("k{next}"), now, sign_from))
            }
        }
    }

    #[test]
    fn the_first_key_signs_at_once() {
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(Index::default().due(now), Some(Change::Add { sign_from: now }));
        assert_eq!(advance(Index::default(), now, &mut 0).signing(now).unwrap().kid, "k1");
    }

    #[test]
    fn over_a_year_every_key_is_published_a_day_before_it_signs_and_until_its_last_token_ends() {
        let start = at("2026-01-01T00:00:00Z");
        let (mut index, mut next) = (Index::default(), 0);
        let mut published_since = std::collections::BTreeMap::new();
        let mut last_signature = std::collections::BTreeMap::new();
        for hour in 0..24 * 400 {
            let now = rotation::add(start, SignedDuration::from_hours(hour));
            index = advance(index, now, &mut next);
            for key in index.published(now) {
                published_since.entry(key.kid.clone()).or_insert(now);
            }
            let signing = index.signing(now).expect("a key signs at every hour").kid.clone();
            if signing != "k1" {
                assert!(now.duration_since(published_since[&signing]) >= PUBLISH_BEFORE, "{signing} at {now}");
            }
            last_signature.insert(signing, now);
            for (kid, last) in &last_signature {
                if now.duration_since(*last) <= LONGEST_TOKEN_LIFETIME {
                    assert!(index.is_published(kid, now), "{kid} still has a live token at {now}");
                }
            }
            assert!(index.keys().len() <= 3, "{} keys at {now}", index.keys().len());
        }
        assert_eq!(next, 5, "four rotations in 400 days");
    }

    #[test]
    fn an_index_at_rest_needs_nothing_until_its_next_transition() {
        let now = at("2026-01-01T00:00:00Z");
        let index = advance(Index::default(), now, &mut 0);
        assert_eq!(index.due(now), None);
        let next = index.next_transition(now).unwrap();
        assert_eq!(next, at("2026-03-31T00:00:00Z"));
        assert!(matches!(index.due(next), Some(Change::Add { .. })));
    }

    #[test]
    fn a_malformed_index_is_told_from_an_empty_one() {
        assert_eq!(Index::parse(None), Err(Unreadable::Missing));
        assert_eq!(Index::parse(Some(b"{}")), Err(Unreadable::Malformed));
        assert_eq!(Index::parse(Some(b"[]")), Ok(Index::default()));
    }
}
