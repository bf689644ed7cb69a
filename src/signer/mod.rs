//! Which keys sign access tokens and which are published: pure functions over the index in `signing-keys`.
//!
//! Key bytes never come here. The index is the same on every replica, so every replica signs with the same key at the
//! same time; only the controller changes it. Certificate authorities have their own index in [`ca`]; reading a signed
//! token stands in [`jwt`]. The timeline of a key, as a table, stands in `docs/keys.md`.

pub mod ca;
pub mod jwt;
#[cfg(test)]
mod timeline;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use crate::api::Algorithm;
use crate::rotation::{self, CLOCK_TOLERANCE, LONGEST_TOKEN_LIFETIME};

/// The field of the Secret `signing-keys` that holds the index.
pub const INDEX_FIELD: &str = "keys.json";

/// How long every cached JWKS has had a key before the key signs: longer than any cache that respects `max-age` (300 s),
/// and long enough for a resource server that refreshes once a day.
pub const PUBLISH_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// How long a new key may take from the clock reading that decided on it to every answer that a resource server can get:
/// the write and every replica's watch, then a shared cache that hands out what is `max-age` old.
pub const PUBLISHED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// How long a key signs.
pub const KEY_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How much longer than its last token a key stays published, for clocks that differ.
const PUBLISH_AFTER_SLACK: SignedDuration = SignedDuration::from_mins(5);

/// The most keys in an index. Rotation and changes of the algorithm keep four at most.
pub const MOST_KEYS: usize = 16;

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
    /// These keys were made before the watermark of an emergency: they are unpublished at once, whatever they signed.
    Revoke {
        /// Their identifiers.
        kids: Vec<String>,
    },
    /// These keys are no longer published, or never signed and never will: they go.
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

    /// The key that signs now: the newest with `sign_from ≤ now` that is published. Where none has come yet, because
    /// this clock is behind the one that made the first key, the earliest that comes within [`CLOCK_TOLERANCE`]. None
    /// only for an index without a usable key.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&KeyRecord> {
        let order = |key: &&KeyRecord| (key.sign_from, key.created_at);
        let soon = rotation::add(now, CLOCK_TOLERANCE);
        self.published(now)
            .filter(|key| key.sign_from <= now)
            .max_by_key(order)
            .or_else(|| self.published(now).filter(|key| key.sign_from <= soon).min_by_key(order))
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

    /// What the index needs now; `None` at rest. Applied until it is, this ends after a few changes if new keys are
    /// recorded as made `now`.
    ///
    /// `algorithm` is the one that new keys get: where the newest key has another one, a key of this one follows with
    /// full pre-publication, and a key of another one that has not begun to sign never will. `revoked_before` is the
    /// watermark of an emergency: from then on, keys made before it are no longer published, and if none is left that
    /// signs, a new one does at once.
    #[must_use]
    pub fn due(&self, now: Timestamp, algorithm: Algorithm, revoked_before: Option<Timestamp>) -> Option<Change> {
        let is_revoked = |key: &KeyRecord| {
            revoked_before.is_some_and(|mark| rotation::is_before_watermark(key.created_at, mark, now))
        };
        let is_over = |key: &KeyRecord| key.publish_until.is_some_and(|until| until <= now);
        let kids = self.kids_where(is_revoked);
        if !kids.is_empty() {
            return Some(Change::Revoke { kids });
        }
        let kids = self.kids_where(|key| is_over(key) || self.is_unwanted(key, now, algorithm));
        if !kids.is_empty() {
            return Some(Change::Remove { kids });
        }
        let Some(newest) = self.newest(now).filter(|_| self.signing(now).is_some()) else {
            return Some(Change::Add { sign_from: now });
        };
        let is_old = rotation::add(newest.sign_from, KEY_LIFE - PUBLISH_BEFORE - PUBLISHED_WITHIN) <= now;
        let has_room = self.0.len() < MOST_KEYS;
        let sign_from = rotation::add(now, PUBLISHED_WITHIN + PUBLISH_BEFORE);
        ((is_old || newest.alg != algorithm) && has_room).then_some(Change::Add { sign_from })
    }

    /// The next time at which [`Self::due`] or [`Self::signing`] can answer otherwise.
    #[must_use]
    pub fn next_transition(&self, now: Timestamp, revoked_before: Option<Timestamp>) -> Option<Timestamp> {
        let successor = self
            .newest(now)
            .map(|newest| rotation::add(newest.sign_from, KEY_LIFE - PUBLISH_BEFORE - PUBLISHED_WITHIN));
        self.transitions().chain(successor).chain(revoked_before).filter(|at| *at > now).min()
    }

    /// The times at which [`Self::signing`] or [`Self::published`] can answer otherwise, in no order.
    pub fn transitions(&self) -> impl Iterator<Item = Timestamp> {
        let first = self.0.iter().map(|key| rotation::add(key.sign_from, -CLOCK_TOLERANCE)).min();
        self.0.iter().flat_map(|key| [Some(key.sign_from), key.publish_until]).flatten().chain(first)
    }

    /// The index with a new key.
    #[must_use]
    pub fn with(mut self, key: KeyRecord) -> Self {
        self.0.push(key);
        self.settle();
        self
    }

    /// The index without these keys.
    #[must_use]
    pub fn without(mut self, kids: &[String]) -> Self {
        self.0.retain(|key| !kids.contains(&key.kid));
        self.settle();
        self
    }

    /// The key that signs last of all. One that a clock made which was far ahead does not count: rotation goes on
    /// without it until its time has come.
    fn newest(&self, now: Timestamp) -> Option<&KeyRecord> {
        self.0.iter().filter(|key| is_believable(key, now)).max_by_key(|key| (key.sign_from, key.created_at))
    }

    fn kids_where(&self, is_meant: impl Fn(&KeyRecord) -> bool) -> Vec<String> {
        self.0.iter().filter(|key| is_meant(key)).map(|key| key.kid.clone()).collect()
    }

    /// A key of an algorithm that is no longer asked for, and that nothing was signed with yet. One that is about to
    /// sign stays: a replica that does not know of its withdrawal in time would sign with it.
    fn is_unwanted(&self, key: &KeyRecord, now: Timestamp, algorithm: Algorithm) -> bool {
        key.alg != algorithm
            && is_believable(key, now)
            && key.sign_from > rotation::add(now, PUBLISHED_WITHIN)
            && self.signing(now).is_some_and(|signing| signing.kid != key.kid)
    }

    /// Each key stays published until the last token that it signed before its successor took over has ended; the
    /// newest has no end.
    fn settle(&mut self) {
        self.0.sort_by_key(|key| (key.sign_from, key.created_at));
        let mut successor: Option<Timestamp> = None;
        for key in self.0.iter_mut().rev() {
            let until = |from| rotation::add(from, LONGEST_TOKEN_LIFETIME + PUBLISH_AFTER_SLACK);
            key.publish_until = successor.map(until);
            successor = Some(key.sign_from);
        }
    }
}

/// Whether this clock agrees that the key has been made.
fn is_believable(key: &KeyRecord, now: Timestamp) -> bool {
    key.created_at <= rotation::add(now, CLOCK_TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn key(kid: &str, alg: Algorithm, created_at: Timestamp, sign_from: Timestamp) -> KeyRecord {
        KeyRecord { kid: kid.into(), alg, created_at, sign_from, publish_until: None }
    }

    /// Applies what is due until nothing is, as the controller does; new keys are `k1`, `k2`, …
    fn advance(
        mut index: Index,
        now: Timestamp,
        algorithm: Algorithm,
        mark: Option<Timestamp>,
        made: &mut u32,
    ) -> Index {
        for _ in 0..10 {
            match index.due(now, algorithm, mark) {
                None => return index,
                Some(Change::Revoke { kids } | Change::Remove { kids }) => index = index.without(&kids),
                Some(Change::Add { sign_from }) => {
                    *made += 1;
                    index = index.with(key(&format!("k{made}"), algorithm, now, sign_from));
                }
            }
        }
        panic!("not at rest: {index:?}");
    }

    fn first(now: Timestamp) -> Index {
        advance(Index::default(), now, Algorithm::ES256, None, &mut 0)
    }

    fn kids(index: &Index) -> Vec<&str> {
        index.keys().iter().map(|key| key.kid.as_str()).collect()
    }

    #[test]
    fn the_first_key_signs_at_once() {
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(Index::default().due(now, Algorithm::ES256, None), Some(Change::Add { sign_from: now }));
        assert_eq!(first(now).signing(now).unwrap().kid, "k1");
    }

    #[test]
    fn a_clock_that_is_a_little_behind_the_one_that_made_the_first_key_signs_with_it() {
        let now = at("2026-01-01T00:00:00Z");
        let index = first(now);
        assert_eq!(index.signing(rotation::add(now, -CLOCK_TOLERANCE)).unwrap().kid, "k1");
        assert_eq!(index.due(rotation::add(now, -CLOCK_TOLERANCE), Algorithm::ES256, None), None);
        assert_eq!(index.signing(rotation::add(now, -CLOCK_TOLERANCE * 2)), None);
        let next = index.next_transition(rotation::add(now, -CLOCK_TOLERANCE * 2), None);
        assert_eq!(next, Some(rotation::add(now, -CLOCK_TOLERANCE)), "it is known when it will");
    }

    #[test]
    fn the_timeline_of_a_rotation_is_the_documented_one() {
        let start = at("2026-01-01T00:00:00Z");
        let index = first(start);
        assert_eq!(index.due(start, Algorithm::ES256, None), None);
        let made = index.next_transition(start, None).unwrap();
        assert_eq!(made, at("2026-03-30T23:50:00Z"), "90 days, less a day and ten minutes");
        assert_eq!(index.due(made - SignedDuration::from_secs(1), Algorithm::ES256, None), None);
        let index = advance(index, made, Algorithm::ES256, None, &mut 1);
        let [old, new] = index.keys() else { panic!("two keys: {index:?}") };
        assert_eq!((new.created_at, new.sign_from, new.publish_until), (made, at("2026-04-01T00:00:00Z"), None));
        assert_eq!(old.publish_until, Some(at("2026-04-02T00:05:00Z")));
        assert_eq!(index.signing(at("2026-03-31T23:59:59Z")).unwrap().kid, "k1");
        assert_eq!(index.signing(at("2026-04-01T00:00:00Z")).unwrap().kid, "k2");
        assert_eq!(index.next_transition(made, None), Some(at("2026-04-01T00:00:00Z")));
        let end = at("2026-04-02T00:05:00Z");
        assert_eq!(index.next_transition(at("2026-04-01T00:00:00Z"), None), Some(end));
        assert!(index.is_published("k1", end - SignedDuration::from_secs(1)) && !index.is_published("k1", end));
        assert_eq!(index.due(end, Algorithm::ES256, None), Some(Change::Remove { kids: vec!["k1".into()] }));
    }

    #[test]
    fn another_algorithm_gets_a_key_of_its_own_that_is_published_a_day_before_it_signs() {
        let start = at("2026-01-01T00:00:00Z");
        for (algorithm, of_new) in [(Algorithm::EdDSA, Algorithm::EdDSA), (Algorithm::RS256, Algorithm::RS256)] {
            let later = start + DAY;
            let index = advance(first(start), later, algorithm, None, &mut 1);
            assert_eq!(kids(&index), ["k1", "k2"]);
            assert_eq!(index.keys()[1].alg, of_new);
            assert_eq!(index.signing(later + DAY).unwrap().kid, "k1", "the new one is still waiting");
            assert_eq!(index.signing(later + DAY + PUBLISHED_WITHIN).unwrap().kid, "k2");
            assert_eq!(index.due(later, algorithm, None), None, "one key and no more");
        }
    }

    #[test]
    fn an_algorithm_that_is_taken_back_before_it_signed_never_signs_and_the_old_key_goes_on() {
        let start = at("2026-01-01T00:00:00Z");
        let index = advance(first(start), start + DAY, Algorithm::RS256, None, &mut 1);
        let back = advance(index.clone(), start + DAY + DAY / 2, Algorithm::ES256, None, &mut 2);
        assert_eq!(back, first(start), "as if nothing had been");
        let other = advance(index.clone(), start + DAY + DAY / 2, Algorithm::EdDSA, None, &mut 2);
        assert_eq!(kids(&other), ["k1", "k3"], "the next try replaces it");
        // Too late: a replica that has not heard of it would sign with a key that nobody publishes.
        let late = start + DAY * 2 + SignedDuration::from_mins(1);
        assert_eq!(kids(&advance(index, late, Algorithm::ES256, None, &mut 2)), ["k1", "k2", "k3"]);
    }

    #[test]
    fn an_emergency_unpublishes_what_was_made_before_it_and_a_new_key_signs_at_once() {
        let start = at("2026-01-01T00:00:00Z");
        let (mut made, now) = (0, at("2026-04-01T12:00:00Z"));
        let mut index = advance(Index::default(), start, Algorithm::ES256, None, &mut made);
        index = advance(index, at("2026-03-31T00:00:00Z"), Algorithm::ES256, None, &mut made);
        assert_eq!(kids(&index), ["k1", "k2"], "one has just stopped to sign, the other begun");
        for algorithm in Algorithm::ALL {
            let replaced = advance(index.clone(), now, algorithm, Some(now), &mut made.clone());
            assert_eq!(kids(&replaced), ["k3"]);
            let key = replaced.signing(now).unwrap();
            assert_eq!((key.alg, key.created_at, key.sign_from, key.publish_until), (algorithm, now, now, None));
            assert_eq!(replaced.due(now + DAY, algorithm, Some(now)), None, "it is done once");
        }
    }

    #[test]
    fn an_emergency_in_the_future_does_nothing_before_its_time() {
        let start = at("2026-01-01T00:00:00Z");
        let (index, mark) = (first(start), start + DAY);
        assert_eq!(index.due(mark - SignedDuration::from_secs(1), Algorithm::ES256, Some(mark)), None);
        assert_eq!(index.next_transition(start, Some(mark)), Some(mark), "it is woken for");
        let change = index.due(mark, Algorithm::ES256, Some(mark));
        assert_eq!(change, Some(Change::Revoke { kids: vec!["k1".into()] }));
    }

    #[test]
    fn a_key_made_after_the_emergencys_time_stays() {
        let start = at("2026-01-01T00:00:00Z");
        let index = advance(first(start), start + DAY, Algorithm::EdDSA, None, &mut 1);
        // The one that waits is younger than the leak; a key that signs has to be made all the same.
        let (mark, now) = (start + DAY / 2, start + DAY + DAY / 2);
        let index = advance(index, now, Algorithm::EdDSA, Some(mark), &mut 2);
        assert_eq!(kids(&index), ["k3", "k2"]);
        assert_eq!(index.signing(now).unwrap().kid, "k3");
        assert_eq!(index.signing(now + DAY).unwrap().kid, "k2");
    }

    #[test]
    fn a_key_made_by_a_clock_far_ahead_neither_stops_rotation_nor_is_taken_away() {
        let start = at("2026-01-01T00:00:00Z");
        let ahead = start + DAY * 1000;
        let mut made = 1;
        let index = advance(first(start), ahead, Algorithm::ES256, None, &mut made);
        assert_eq!(kids(&index), ["k1", "k2"]);
        let index = advance(index, start + DAY * 95, Algorithm::EdDSA, None, &mut made);
        assert_eq!(kids(&index), ["k1", "k3", "k2"]);
        assert_eq!(index.signing(start + DAY * 97).unwrap().kid, "k3");
    }

    #[test]
    fn whatever_clocks_switches_and_emergencies_do_there_is_a_key_and_never_many() {
        use proptest::prelude::*;
        use proptest::test_runner::{Config, TestRunner};
        let hours = || prop_oneof![8 => 0_i64..60, 1 => -50_i64..0, 1 => 0_i64..3000];
        let step = (hours(), 0_usize..3, prop::option::weighted(0.2, -2_i64..2));
        TestRunner::new(Config::with_cases(256))
            .run(&prop::collection::vec(step, 1..60), |steps| {
                let (mut index, mut now, mut made, mut mark) = (Index::default(), at("2026-01-01T00:00:00Z"), 0, None);
                for (hours, algorithm, emergency) in steps {
                    now = rotation::add(now, SignedDuration::from_hours(hours));
                    mark = emergency.map(|hours| rotation::add(now, SignedDuration::from_hours(hours))).or(mark);
                    index = advance(index, now, Algorithm::ALL[algorithm], mark, &mut made);
                    prop_assert!(index.signing(now).is_some(), "{index:?} at {now}");
                    prop_assert!(index.keys().len() < MOST_KEYS, "{} keys", index.keys().len());
                    let parsed = Index::parse(Some(&index.to_json()));
                    prop_assert_eq!(parsed.as_ref(), Ok(&index));
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_malformed_index_is_told_from_an_empty_one() {
        assert_eq!(Index::parse(None), Err(Unreadable::Missing));
        assert_eq!(Index::parse(Some(b"{}")), Err(Unreadable::Malformed));
        assert_eq!(Index::parse(Some(b"[]")), Ok(Index::default()));
        let key = r#"{"kid":"k","alg":"none","createdAt":"2026-01-01T00:00:00Z","signFrom":"2026-01-01T00:00:00Z","publishUntil":null}"#;
        assert_eq!(Index::parse(Some(format!("[{key}]").as_bytes())), Err(Unreadable::Malformed));
    }
}
