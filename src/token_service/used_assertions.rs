//! The memory of client assertions that were used: each is accepted once (RFC 7523 §3, point 7).
//!
//! What is kept is a digest of client and `jti` until the assertion could no longer be accepted anyway. It is bounded:
//! where there is no room, nothing more is accepted, rather than something twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::refusal::Refusal;
use crate::rotation::{CLOCK_SKEW, add};

/// The most that are remembered, about 40 MB: at five minutes each that is 1,700 assertions in every second.
pub const MOST_ENTRIES: usize = 1 << 19;

/// What ends within the same time is forgotten together.
const BUCKET_SECONDS: i64 = 16;

/// Half of a SHA-256 over client and `jti`.
type Key = [u8; 16];

/// Client assertions that were used.
#[derive(Debug)]
pub struct UsedAssertions {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when each is remembered, in seconds.
    ends: HashMap<Key, i64>,
    /// The same by the time of forgetting.
    buckets: BTreeMap<i64, Vec<Key>>,
}

impl Default for UsedAssertions {
    fn default() -> Self {
        Self::with_room_for(MOST_ENTRIES)
    }
}

impl UsedAssertions {
    /// A memory of so many.
    #[must_use]
    pub fn with_room_for(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Whether this is the first use of the client's assertion with this `jti`, which ends at `exp`. It is remembered
    /// until then and a minute more, for clocks that differ. Refused with [`Refusal::NoRoom`] if it cannot be remembered.
    pub fn first_use(&self, client_id: &str, jti: &str, exp: Timestamp, now: Timestamp) -> Result<bool, Refusal> {
        let (key, now) = (key(client_id, jti), now.as_second());
        // A second more than an assertion with a fraction of a second is accepted for.
        let end = add(exp, CLOCK_SKEW).as_second() + 1;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget(now);
        if state.ends.get(&key).is_some_and(|end| now < *end) {
            return Ok(false);
        }
        if state.ends.len() >= self.most {
            return Err(Refusal::NoRoom);
        }
        state.ends.insert(key, end);
        state.buckets.entry(end.div_euclid(BUCKET_SECONDS) + 1).or_default().push(key);
        Ok(true)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ends.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn forget(&mut self, now: i64) {
        let bucket = now.div_euclid(BUCKET_SECONDS);
        while let Some(first) = self.buckets.first_entry().filter(|first| *first.key() <= bucket) {
            for key in first.remove() {
                // One that was remembered anew stands in a later bucket too.
                if self.ends.get(&key).is_some_and(|end| *end <= now) {
                    self.ends.remove(&key);
                }
            }
        }
    }
}

fn key(client_id: &str, jti: &str) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&client_id.len().to_be_bytes());
    context.update(client_id.as_bytes());
    context.update(jti.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&context.finish().as_ref()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn an_assertion_is_remembered_until_its_end_and_a_minute_more() {
        let used = UsedAssertions::default();
        assert_eq!(used.first_use("a", "1", at(300), at(0)), Ok(true));
        for now in [0, 1, 300, 359, 360] {
            assert_eq!(used.first_use("a", "1", at(300), at(now)), Ok(false), "{now}");
        }
        assert_eq!(used.first_use("a", "1", at(660), at(361)), Ok(true), "another assertion may have it again");
        assert_eq!(used.first_use("a", "1", at(660), at(700)), Ok(false));
    }

    #[test]
    fn two_clients_may_have_the_same_identifier() {
        let used = UsedAssertions::default();
        for (client, jti) in [("a", "1"), ("b", "1"), ("a1", ""), ("", "a1")] {
            assert_eq!(used.first_use(client, jti, at(300), at(0)), Ok(true), "{client} {jti}");
        }
    }

    #[test]
    fn where_there_is_no_room_nothing_more_is_accepted_until_something_has_ended() {
        let used = UsedAssertions::with_room_for(2);
        assert_eq!(used.first_use("a", "1", at(10), at(0)), Ok(true));
        assert_eq!(used.first_use("a", "2", at(300), at(0)), Ok(true));
        assert_eq!(used.first_use("a", "3", at(300), at(0)), Err(Refusal::NoRoom));
        assert_eq!(used.first_use("a", "2", at(300), at(0)), Ok(false), "what is known is still told");
        assert_eq!(used.first_use("a", "3", at(300), at(110)), Ok(true));
        assert_eq!(used.len(), 2);
        assert_eq!(used.first_use("a", "9", at(9000), at(9000)), Ok(true));
        assert_eq!(used.len(), 1);
        assert!(!used.is_empty());
    }

    #[test]
    fn a_clock_that_went_back_forgets_nothing() {
        let used = UsedAssertions::default();
        assert_eq!(used.first_use("a", "1", at(300), at(200)), Ok(true));
        let back = at(200) - SignedDuration::from_hours(1);
        assert_eq!(used.first_use("a", "1", at(300), back), Ok(false));
    }
}
