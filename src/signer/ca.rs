//! Which certificate authority signs a leaf, and when a new one is needed: pure functions over the CA index.
//!
//! The oldest CA that outlives the leaf signs, so a new CA waits, already in every bundle that is published meanwhile,
//! until the old one cannot sign any more.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Unreadable;
use crate::rotation::{self, LONGEST_DURATION};

/// How long a certificate authority lives: ten years.
pub const CA_LIFE: SignedDuration = SignedDuration::from_hours(3652 * 24);

/// The most certificate authorities in an index.
pub const MOST_CAS: usize = 8;

/// One certificate authority, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRecord {
    /// The first 16 hex digits of the SHA-256 of its certificate.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The certificate's end.
    pub not_after: Timestamp,
    /// The certificate in PEM: public.
    pub certificate: String,
}

/// The index of certificate authorities, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaIndex(Vec<CaRecord>);

impl CaIndex {
    /// Reads the index from JSON.
    pub fn parse(bytes: Option<&[u8]>) -> Result<Self, Unreadable> {
        let mut index: Self =
            serde_json::from_slice(bytes.ok_or(Unreadable::Missing)?).map_err(|_| Unreadable::Malformed)?;
        if index.0.len() > MOST_CAS {
            return Err(Unreadable::Malformed);
        }
        index.0.sort_by_key(|ca| ca.created_at);
        Ok(index)
    }

    /// The index as JSON.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a list of derived types always serializes")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index serializes")
    }

    /// All certificate authorities, oldest first.
    #[must_use]
    pub fn all(&self) -> &[CaRecord] {
        &self.0
    }

    /// The one that signs a leaf with this end: the oldest that outlives it, else the one that lives longest.
    #[must_use]
    pub fn signing(&self, leaf_not_after: Timestamp) -> Option<&CaRecord> {
        self.0.iter().find(|ca| ca.not_after >= leaf_not_after).or_else(|| self.0.iter().max_by_key(|ca| ca.not_after))
    }

    /// The certificates that a verifier trusts now, as one PEM text.
    #[must_use]
    pub fn bundle(&self, now: Timestamp) -> String {
        self.0.iter().filter(|ca| now < ca.not_after).map(|ca| ca.certificate.as_str()).collect()
    }

    /// Whether a new CA is needed: none of these will outlive two longest leaves from now. One longest leaf is the time
    /// in which ordinary renewals carry the new bundle everywhere, the other the time it can still be signed for.
    #[must_use]
    pub fn needs_new(&self, now: Timestamp) -> bool {
        let horizon = rotation::add(now, LONGEST_DURATION * 2);
        !self.0.iter().any(|ca| ca.not_after > horizon)
    }

    /// Those whose end has come.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> Vec<String> {
        self.0.iter().filter(|ca| ca.not_after <= now).map(|ca| ca.id.clone()).collect()
    }

    /// When [`Self::needs_new`] turns true.
    #[must_use]
    pub fn next_transition(&self) -> Option<Timestamp> {
        self.0.iter().map(|ca| ca.not_after).max().map(|end| rotation::add(end, LONGEST_DURATION * -2))
    }

    /// The index with a new CA.
    #[must_use]
    pub fn with(mut self, ca: CaRecord) -> Self {
        self.0.push(ca);
        self.0.sort_by_key(|ca| ca.created_at);
        self
    }

    /// The index without these.
    #[must_use]
    pub fn without(mut self, ids: &[String]) -> Self {
        self.0.retain(|ca| !ids.contains(&ca.id));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ca(id: &str, created_at: Timestamp) -> CaRecord {
        CaRecord {
            id: id.into(),
            created_at,
            not_after: rotation::add(created_at, CA_LIFE),
            certificate: format!("-- {id} --\n"),
        }
    }

    #[test]
    fn over_thirty_years_the_signing_ca_outlives_each_longest_leaf_and_was_in_the_bundle_one_leaf_before() {
        let start = at("2026-01-01T00:00:00Z");
        let mut index = CaIndex::default();
        let mut known_since = std::collections::BTreeMap::new();
        for week in 0..52 * 30 {
            let now = rotation::add(start, SignedDuration::from_hours(week * 7 * 24));
            index = index.clone().without(&index.expired(now));
            if index.needs_new(now) {
                index = index.with(ca(&format!("ca{week}"), now));
            }
            for ca in index.all() {
                known_since.entry(ca.id.clone()).or_insert(now);
            }
            let leaf_end = rotation::add(now, LONGEST_DURATION);
            let signing = index.signing(leaf_end).unwrap();
            assert!(signing.not_after >= leaf_end, "{} at {now}", signing.id);
            if signing.id != "ca0" {
                assert!(now.duration_since(known_since[&signing.id]) >= LONGEST_DURATION, "{} at {now}", signing.id);
            }
            assert!(index.bundle(now).contains(&signing.certificate));
        }
    }
}
