//! Token buckets for any number of names or addresses, in memory that does not grow.
//!
//! A table of fixed size, without names. Who falls into the same slot shares a bucket; the place is a keyed hash, so nobody
//! can choose whose.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// Buckets of a table. A bucket has 8 bytes, so a table has half a MiB, of which only the pages that were touched take up
/// memory.
const BUCKETS: usize = 1 << 16;

/// Token buckets, found by a keyed hash. Times are microseconds since any moment before.
pub(super) struct Buckets {
    /// The key is the standard library's: drawn from the system once a process, as for every map of it. What it guards is
    /// who shares a bucket with whom; no credential hangs on it.
    key: RandomState,
    /// For each bucket the microsecond at which it will be full again; zero is full.
    full_at: Box<[AtomicU64]>,
    /// What one attempt takes, in microseconds.
    cost: u64,
    /// What is in a full bucket, in microseconds.
    most_saved: u64,
}

impl Buckets {
    /// Full buckets that gain so many attempts a second, and save up as many as this time brings.
    pub(super) fn new(per_second: u32, saves: Duration) -> Self {
        let most_saved = u64::try_from(saves.as_micros()).unwrap_or(u64::MAX / 4);
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let full_at = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { key: RandomState::new(), full_at, cost, most_saved }
    }

    /// Whether there is something in the bucket. Takes nothing.
    pub(super) fn has_room(&self, of: impl Hash, now: u64) -> bool {
        let bucket = self.bucket(of);
        let full_at = bucket.load(Ordering::Relaxed);
        let settled = self.settled(full_at, now);
        if settled < full_at {
            // Another has changed it meanwhile: then it is settled too.
            let _ = bucket.compare_exchange(full_at, settled, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.after_one_more(settled, now).is_some()
    }

    /// Takes one attempt out of the bucket. `false`, and nothing taken, if it is too empty.
    pub(super) fn take(&self, of: impl Hash, now: u64) -> bool {
        let mut is_taken = false;
        // The function always gives a value, so there is no other result.
        let _ = self.bucket(of).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let settled = self.settled(full_at, now);
            let after = self.after_one_more(settled, now);
            is_taken = after.is_some();
            Some(after.unwrap_or(settled))
        });
        is_taken
    }

    /// A bucket is at most full and at most empty: also after the clock went back.
    fn settled(&self, full_at: u64, now: u64) -> u64 {
        full_at.clamp(now, now.saturating_add(self.most_saved))
    }

    /// When the bucket will be full if one more is taken out; `None` if it is too empty for that.
    fn after_one_more(&self, full_at: u64, now: u64) -> Option<u64> {
        let after = full_at.saturating_add(self.cost);
        (after <= now.saturating_add(self.most_saved)).then_some(after)
    }

    fn bucket(&self, of: impl Hash) -> &AtomicU64 {
        let mask = self.full_at.len() as u64 - 1;
        let index = self.key.hash_one(of) & mask;
        &self.full_at[usize::try_from(index).unwrap_or_default()]
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.full_at)
    }
}

/// A time as buckets have it.
pub(super) fn microseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or_default()
}
