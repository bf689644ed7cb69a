//! The lists that replicas of the token service share: tokens revoked one by one (RFC 7009), and client assertions that
//! were used (`jti` of RFC 7523 §3). Their shape, their names, their merging; nothing of how they are stored.
//!
//! Eight Secrets in the ledger namespace, made by the controller and written by the token service. A client belongs to
//! one of them, by a hash of its identifier, so no client fills more than one. Two fields each, a JSON object
//! `{"<mark>": <Unix seconds>}`: until when the mark counts. A mark is a hash, so a list tells nobody a `jti`.
//!
//! [`List::merge`] is commutative, associative and idempotent: writers that meet end with the same list in any order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};

/// The Secrets' names. The chart allows the token service to update these.
pub const NAMES: [&str; 8] = [
    "revocations-0",
    "revocations-1",
    "revocations-2",
    "revocations-3",
    "revocations-4",
    "revocations-5",
    "revocations-6",
    "revocations-7",
];

/// The field with revoked access tokens.
pub const REVOKED_FIELD: &str = "revoked.json";
/// The field with used client assertions.
pub const USED_FIELD: &str = "used.json";

/// The most marks of a field that one replica fills it to.
pub const MOST_MARKS: usize = 8192;
/// The most marks of a field: what replicas add to a nearly full one at the same moment has its place.
pub const CAPACITY_MARKS: usize = MOST_MARKS + 1024;
/// The largest field that is read, in bytes. A full one has about 400,000, and a Secret with two of them stays below the
/// API server's 1 MiB.
pub const LARGEST_FIELD_BYTES: usize = 512 * 1024;

const TAG_BYTES: usize = 6;
const DIGEST_BYTES: usize = 16;
const MARK_BYTES: usize = TAG_BYTES + DIGEST_BYTES;
const MARK_CHARACTERS: usize = 30;

/// What stands for one `jti` of one client: 6 bytes of SHA-256 over the client identifier, then 16 bytes of SHA-256
/// over client identifier, NUL and `jti`. In JSON base64url without padding: 8 and 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark([u8; MARK_BYTES]);

/// The part of a mark that is the same for all of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTag([u8; TAG_BYTES]);

/// Marks, and until when each counts, in Unix seconds. At most [`CAPACITY_MARKS`]: of more, those that count longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(BTreeMap<Mark, u32>);

/// What a field was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// All that could be read.
    pub list: List,
    /// What could not.
    pub damage: Option<Damage>,
}

/// What is wrong with a field. The texts hold nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is larger than [`LARGEST_FIELD_BYTES`].
    #[error("it is larger than {LARGEST_FIELD_BYTES} bytes")]
    TooLarge,
    /// It is no JSON object of numbers.
    #[error("it is malformed at line {line}, column {column}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Some names in it are no marks.
    #[error("some of its names are no marks")]
    Marks,
}

/// Which list a client's marks are in: an index of [`NAMES`].
#[must_use]
pub fn index_of_client(client_id: &str) -> usize {
    ClientTag::of(client_id).list()
}

/// Which list a Secret is: an index of [`NAMES`], `None` for other names.
#[must_use]
pub fn index_of_secret(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// An end as lists have it: Unix seconds, rounded up, from 1970 to 2106.
#[must_use]
pub fn end_seconds(at: Timestamp) -> u32 {
    in_range(at.as_second() + i64::from(at.subsec_nanosecond() > 0))
}

/// The present as lists have it: Unix seconds, rounded down. Rounded up, a mark would count for less than its last second.
#[must_use]
pub fn now_seconds(at: Timestamp) -> u32 {
    in_range(at.as_second() - i64::from(at.subsec_nanosecond() < 0))
}

fn in_range(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

impl ClientTag {
    /// The tag of a client.
    #[must_use]
    pub fn of(client_id: &str) -> Self {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&digest::digest(&digest::SHA256, client_id.as_bytes()).as_ref()[..TAG_BYTES]);
        Self(tag)
    }

    /// Which list its marks are in: an index of [`NAMES`].
    #[must_use]
    pub fn list(self) -> usize {
        usize::from(self.0[0]) % NAMES.len()
    }
}

impl Mark {
    /// The mark of a client's `jti`.
    #[must_use]
    pub fn of(client_id: &str, jti: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(client_id.as_bytes());
        context.update(&[0]);
        context.update(jti.as_bytes());
        let mut mark = [0; MARK_BYTES];
        mark[..TAG_BYTES].copy_from_slice(&ClientTag::of(client_id).0);
        mark[TAG_BYTES..].copy_from_slice(&context.finish().as_ref()[..DIGEST_BYTES]);
        Self(mark)
    }

    /// The tag of its client.
    #[must_use]
    pub fn tag(&self) -> ClientTag {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&self.0[..TAG_BYTES]);
        ClientTag(tag)
    }

    /// Which list it is in: an index of [`NAMES`].
    #[must_use]
    pub fn list(&self) -> usize {
        self.tag().list()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut mark = [0; MARK_BYTES];
        let is_whole = text.len() == MARK_CHARACTERS && URL_SAFE_NO_PAD.decode_slice(text, &mut mark) == Ok(MARK_BYTES);
        is_whole.then_some(Self(mark))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({})", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl List {
    /// Reads a field. None is an empty one: a person has emptied it, or it was just made.
    #[must_use]
    pub fn parse(field: Option<&[u8]>) -> Found {
        let Some(bytes) = field.filter(|bytes| !bytes.trim_ascii().is_empty()) else { return Found::default() };
        if bytes.len() > LARGEST_FIELD_BYTES {
            return Found { list: Self::default(), damage: Some(Damage::TooLarge) };
        }
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let found = deserializer.deserialize_map(Marks).and_then(|found| deserializer.end().map(|()| found));
        found.unwrap_or_else(|error| Found {
            list: Self::default(),
            damage: Some(Damage::Malformed { line: error.line(), column: error.column() }),
        })
    }

    /// The bytes of the field.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        const MARK_WITH_ITS_TIME_BYTES: usize = MARK_CHARACTERS + 14;
        let mut out = Vec::with_capacity(2 + self.0.len() * MARK_WITH_ITS_TIME_BYTES);
        let mut characters = [0; MARK_CHARACTERS];
        for (mark, until) in &self.0 {
            out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
            // 22 bytes are 30 characters, always.
            let _ = URL_SAFE_NO_PAD.encode_slice(mark.0, &mut characters);
            out.extend_from_slice(&characters);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(until.to_string().as_bytes());
        }
        if out.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        out
    }

    /// Until when a mark counts; `None` if it is not here.
    #[must_use]
    pub fn until(&self, mark: &Mark) -> Option<u32> {
        self.0.get(mark).copied()
    }

    /// Whether a mark is here and counts now.
    #[must_use]
    pub fn counts(&self, mark: &Mark, now: u32) -> bool {
        self.until(mark).is_some_and(|until| until > now)
    }

    /// How many marks of a client count now.
    #[must_use]
    pub fn count_of(&self, tag: ClientTag, now: u32) -> usize {
        let first = Mark([&tag.0[..], &[0; DIGEST_BYTES]].concat().try_into().unwrap_or([0; MARK_BYTES]));
        let of_client = self.0.range(first..).take_while(|(mark, _)| mark.tag() == tag);
        of_client.filter(|(_, until)| **until > now).count()
    }

    /// Adds a mark. One that is here counts until the later of both times; if there is no room, the one that ends first
    /// gives way.
    pub fn add(&mut self, mark: Mark, until: u32) {
        let known = self.0.entry(mark).or_default();
        *known = until.max(*known);
        self.cut();
    }

    /// Takes a mark away.
    pub fn remove(&mut self, mark: &Mark) {
        self.0.remove(mark);
    }

    /// All marks of both.
    #[must_use]
    pub fn merge(mut self, other: &Self) -> Self {
        for (mark, until) in &other.0 {
            let known = self.0.entry(*mark).or_default();
            *known = (*until).max(*known);
        }
        self.cut();
        self
    }

    /// Forgets what no longer counts.
    pub fn forget_ended(&mut self, now: u32) {
        self.0.retain(|_, until| *until > now);
    }

    /// The marks, in their order, with their ends.
    pub fn iter(&self) -> impl Iterator<Item = (&Mark, u32)> {
        self.0.iter().map(|(mark, until)| (mark, *until))
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps to the capacity: the marks that count longest stay, of those that end together the greater ones.
    fn cut(&mut self) {
        let surplus = self.0.len().saturating_sub(CAPACITY_MARKS);
        if surplus == 0 {
            return;
        }
        let mut by_end: Vec<_> = self.0.iter().map(|(mark, until)| (*until, *mark)).collect();
        by_end.select_nth_unstable(surplus - 1);
        for (_, mark) in &by_end[..surplus] {
            self.0.remove(mark);
        }
    }
}

impl FromIterator<(Mark, u32)> for List {
    fn from_iter<I: IntoIterator<Item = (Mark, u32)>>(marks: I) -> Self {
        let mut list = Self::default();
        for (mark, until) in marks {
            let known = list.0.entry(mark).or_default();
            *known = until.max(*known);
        }
        list.cut();
        list
    }
}

/// Reads names that are marks and skips others.
struct Marks;

impl<'de> Visitor<'de> for Marks {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Found, M::Error> {
        let mut damage = None;
        let mut marks = Vec::new();
        while let Some((name, until)) = map.next_entry::<Cow<'de, str>, i64>()? {
            match Mark::parse(&name) {
                Some(mark) => marks.push((mark, u32::try_from(until.max(0)).unwrap_or(u32::MAX))),
                None => damage = Some(Damage::Marks),
            }
        }
        Ok(Found { list: marks.into_iter().collect(), damage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(n: u32) -> Mark {
        Mark::of("shop.storefront", &n.to_string())
    }

    fn list(marks: &[(u32, u32)]) -> List {
        marks.iter().map(|(n, until)| (mark(*n), *until)).collect()
    }

    #[test]
    fn a_mark_is_a_hash_of_client_and_jti_that_begins_with_the_clients() {
        let mark = Mark::of("shop.storefront", "web~x");
        // printf shop.storefront | sha256sum | cut -c1-12 | xxd -r -p | basenc --base64url
        // printf 'shop.storefront\0web~x' | sha256sum | cut -c1-32 | xxd -r -p | basenc --base64url
        assert_eq!(format!("{mark:?}"), "Mark(oWdilmQBGdx1zPOMrW-i6QSF4JY8UA)");
        assert_eq!(mark.tag(), ClientTag::of("shop.storefront"));
        assert_eq!(mark.list(), index_of_client("shop.storefront"));
        assert_ne!(Mark::of("a", "b"), Mark::of("a", "c"));
        assert_ne!(Mark::of("ab", "c"), Mark::of("a", "bc"));
    }

    #[test]
    fn clients_are_spread_over_all_lists() {
        let lists: std::collections::BTreeSet<_> = (0..200).map(|n| index_of_client(&n.to_string())).collect();
        assert_eq!(lists, (0..NAMES.len()).collect());
        assert_eq!(index_of_secret("revocations-3"), Some(3));
        for name in ["revocations-8", "revocations-", "revocations-03", "signing-keys"] {
            assert_eq!(index_of_secret(name), None, "{name}");
        }
    }

    #[test]
    fn a_field_is_read_and_written_without_loss() {
        for list in [List::default(), list(&[(1, 10)]), list(&[(1, 10), (2, u32::MAX), (3, 0)])] {
            assert_eq!(List::parse(Some(&list.to_json())), Found { list, damage: None });
        }
        assert_eq!(List::default().to_json(), b"{}");
        for nothing in [None, Some(&b""[..]), Some(b" \n")] {
            assert_eq!(List::parse(nothing), Found::default());
        }
    }

    #[test]
    fn what_is_no_list_is_told_without_its_content_and_what_can_be_read_of_one_is_kept() {
        let good = String::from_utf8(list(&[(1, 10)]).to_json()).unwrap();
        for (text, kept) in [
            ("canary".to_owned(), 0),
            ("[]".to_owned(), 0),
            (good.replace("10", "\"canary\""), 0),
            (good.replace('}', ""), 0),
            (format!("{good} canary"), 0),
            (good.replace('}', ",\"canary\":1}"), 1),
            (good.replace('}', &format!(",\"{}\":1}}", "!".repeat(MARK_CHARACTERS))), 1),
            (format!("{{{}\"x\":1}}", " ".repeat(LARGEST_FIELD_BYTES)), 0),
        ] {
            let Found { list, damage } = List::parse(Some(text.as_bytes()));
            let told = damage.expect("damage").to_string();
            assert!(!told.contains("canary"), "{told}");
            assert_eq!(list.len(), kept, "{told}");
        }
        let found = List::parse(Some(good.replace("10", "-5").as_bytes()));
        assert_eq!(found.list.until(&mark(1)), Some(0), "before 1970 is long ago");
        let found = List::parse(Some(good.replace("10", "99999999999").as_bytes()));
        assert_eq!(found.list.until(&mark(1)), Some(u32::MAX));
    }

    #[test]
    fn a_mark_counts_until_its_end_which_only_moves_on() {
        let mut list = list(&[(1, 10)]);
        assert!(list.counts(&mark(1), 9) && !list.counts(&mark(1), 10) && !list.counts(&mark(2), 0));
        list.add(mark(1), 5);
        assert_eq!(list.until(&mark(1)), Some(10));
        list.add(Mark::of("shop.other", "1"), 20);
        assert_eq!(list.count_of(ClientTag::of("shop.storefront"), 9), 1);
        assert_eq!(list.count_of(ClientTag::of("shop.storefront"), 10), 0);
        list.forget_ended(10);
        assert_eq!(list.len(), 1);
        list.remove(&Mark::of("shop.other", "1"));
        assert!(list.is_empty());
    }

    #[test]
    fn ends_are_rounded_up_the_present_down_and_both_stay_in_their_century() {
        let at = |text: &str| (now_seconds(text.parse().unwrap()), end_seconds(text.parse().unwrap()));
        assert_eq!(at("1970-01-01T00:00:01Z"), (1, 1));
        assert_eq!(at("1970-01-01T00:00:01.000000001Z"), (1, 2));
        assert_eq!(at("1970-01-01T00:00:01.999999999Z"), (1, 2));
        assert_eq!(at("1969-01-01T00:00:00Z"), (0, 0));
        assert_eq!(at("9999-01-01T00:00:00Z"), (u32::MAX, u32::MAX));
    }

    #[test]
    fn two_full_fields_fit_into_a_secret() {
        let marks = u32::try_from(CAPACITY_MARKS).unwrap();
        let full: List = (0..marks + 500).map(|n| (mark(n), 1_800_000_000 + n)).collect();
        assert_eq!(full.len(), CAPACITY_MARKS);
        assert_eq!(full.until(&mark(499)), None, "the first to end give way");
        assert!(full.until(&mark(500)).is_some());
        let bytes = full.to_json().len();
        assert!(bytes < LARGEST_FIELD_BYTES && 2 * bytes < 1024 * 1024, "{bytes}");
        assert_eq!(List::parse(Some(&full.to_json())), Found { list: full, damage: None });
    }

    /// Lists about as long as a capacity, from few marks with few ends: so that marks meet, ends are equal and the
    /// capacity is passed.
    fn lists() -> impl Strategy<Value = List> {
        let long = (0u32..3, 1u32..4).prop_map(|(offset, ends)| {
            let marks = u32::try_from(CAPACITY_MARKS).unwrap() * 2 / 3;
            (0..marks).map(|n| (mark(n + offset * marks / 2), 100 + (n * 7 + offset) % ends)).collect()
        });
        let short = proptest::collection::vec((0u32..40, 0u32..5), 0..40).prop_map(|marks| list(&marks));
        prop_oneof![1 => long, 8 => short]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn merging_is_commutative_associative_idempotent_and_bounded(a in lists(), b in lists(), c in lists()) {
            let merged = |one: &List, other: &List| one.clone().merge(other);
            prop_assert!(merged(&a, &b) == merged(&b, &a));
            prop_assert!(merged(&merged(&a, &b), &c) == merged(&a, &merged(&b, &c)));
            prop_assert!(merged(&a, &a) == a);
            let all = merged(&merged(&a, &b), &c);
            prop_assert!(merged(&all, &a) == all);
            prop_assert!(all.len() <= CAPACITY_MARKS);
            if a.len() + b.len() + c.len() <= CAPACITY_MARKS {
                for (mark, until) in a.iter().chain(b.iter()).chain(c.iter()) {
                    prop_assert!(all.until(mark) >= Some(until), "nothing is lost while there is room");
                }
            }
        }

        #[test]
        fn no_field_makes_the_reader_panic(field in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = List::parse(Some(&field));
        }
    }
}
