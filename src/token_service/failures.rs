//! How many failed authentications are answered as such: per client identifier and per address, a bucket each.
//!
//! What fails beyond its limit is answered with 429, and nothing is done for it that costs: no live read, no signature
//! is verified. What is accepted takes nothing from any bucket and is limited by no client's: whoever knows a client
//! identifier cannot lock its client out.
//!
//! Memory is bounded whatever is sent: two tables of fixed size, without names. Who falls into the same slot shares a
//! bucket; the place is a keyed hash, so nobody can choose whose. Each replica counts by itself.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::metrics::{Limited, Metrics};
use super::peer::network;
use super::refusal::Refusal;

/// Buckets of a table. A bucket has 8 bytes, so both tables have 1 MiB together, of which only the pages that failures
/// have touched take up memory.
const BUCKETS: usize = 1 << 16;

/// How much can be saved up for a client: a deployment that starts with a mistyped client secret fails this long at its
/// rate in one go, and its people see 401, not 429.
const CLIENT_SAVES: Duration = Duration::from_secs(20);
/// How much can be saved up for an address: behind one there may be a cluster's worth of clients.
const ADDRESS_SAVES: Duration = Duration::from_secs(10);

/// How many failed authentications a second are answered as such, in the long run. At once it is more: what 20 seconds
/// allow a client, and what 10 allow an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one client identifier, whether there is such a client or not. At least 1.
    pub per_client: u32,
    /// Of one address; of one /64 with IPv6. At least 1. An ingress or a NAT is one address.
    pub per_address: u32,
}

impl Default for Rates {
    /// One a second of a client, twenty at once: people and programs that try again stay below it. Ten times as much of
    /// an address and a hundred at once: a node whose every pod has lost its credential still sees why.
    fn default() -> Self {
        Self { per_client: 1, per_address: 10 }
    }
}

/// The failed authentications of late.
pub struct Failures {
    clients: Table,
    addresses: Table,
    metrics: Metrics,
}

impl Failures {
    /// Nobody has failed.
    #[must_use]
    pub fn new(rates: Rates, metrics: Metrics) -> Self {
        let clients = Table::new(rates.per_client, CLIENT_SAVES);
        Self { clients, addresses: Table::new(rates.per_address, ADDRESS_SAVES), metrics }
    }

    /// Whether something expensive may be tried for this address, such as the verification of a signature. Takes
    /// nothing.
    pub fn permit(&self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        if self.addresses.has_room(network(address), now) { Ok(()) } else { Err(self.limited(Limited::Address)) }
    }

    /// Whether this client's failing attempt may have its ledger entry read live. Takes nothing unless it is refused;
    /// then the attempt has failed, and counts against its address.
    pub fn permit_live_read(&self, client_id: &str, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        self.permit(address, now)?;
        if self.clients.has_room(client_id, now) {
            return Ok(());
        }
        self.addresses.take(network(address), now);
        Err(self.limited(Limited::Client))
    }

    /// Counts a failed attempt. An error if it is one too many: then that is the answer, and not why it failed. What an
    /// address does beyond its own limit takes nothing from the client that it names.
    pub fn record(&self, client_id: &str, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        if !self.addresses.take(network(address), now) {
            return Err(self.limited(Limited::Address));
        }
        if self.clients.take(client_id, now) { Ok(()) } else { Err(self.limited(Limited::Client)) }
    }

    fn limited(&self, by: Limited) -> Refusal {
        self.metrics.failure_limited(by);
        Refusal::TooManyFailures
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

/// Token buckets, found by a keyed hash.
struct Table {
    /// The key is the standard library's: drawn from the system once a process, as for every map of it. What it guards is
    /// who shares a bucket with whom; no credential hangs on it.
    key: RandomState,
    /// For each bucket the microsecond of the Unix time at which it will be full again; zero is full.
    full_at: Box<[AtomicU64]>,
    /// What one attempt takes, in microseconds.
    cost: u64,
    /// What is in a full bucket, in microseconds.
    most_saved: u64,
}

impl Table {
    fn new(per_second: u32, saves: Duration) -> Self {
        let most_saved = u64::try_from(saves.as_micros()).unwrap_or(u64::MAX / 4);
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let full_at = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { key: RandomState::new(), full_at, cost, most_saved }
    }

    fn has_room(&self, of: impl Hash, now: Timestamp) -> bool {
        let (bucket, now) = (self.bucket(of), microseconds(now));
        let full_at = bucket.load(Ordering::Relaxed);
        let settled = self.settled(full_at, now);
        if settled < full_at {
            // Another has changed it meanwhile: then it is settled too.
            let _ = bucket.compare_exchange(full_at, settled, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.after_one_more(settled, now).is_some()
    }

    /// Takes one attempt out of the bucket. `false`, and nothing taken, if it is too empty.
    fn take(&self, of: impl Hash, now: Timestamp) -> bool {
        let now = microseconds(now);
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
}

fn microseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    const ALICE: &str = "192.0.2.1";
    const BOB: &str = "192.0.2.2";

    fn start() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn failures() -> Failures {
        Failures::new(Rates::default(), Metrics::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn recorded(failures: &Failures, client_id: &str, from: &str, attempts: u32, now: Timestamp) -> usize {
        (0..attempts).filter(|_| failures.record(client_id, address(from), now).is_ok()).count()
    }

    #[test]
    fn a_client_fails_twenty_times_at_once_and_then_once_a_second() {
        let (failures, mut now) = (failures(), start());
        assert_eq!(recorded(&failures, "a", ALICE, 50, now), 20);
        assert_eq!(failures.permit_live_read("a", address(BOB), now), Err(Refusal::TooManyFailures));
        assert_eq!(failures.permit_live_read("b", address(BOB), now), Ok(()), "another client has its own");
        now += SignedDuration::from_millis(999);
        assert_eq!(recorded(&failures, "a", BOB, 5, now), 0);
        now += SignedDuration::from_millis(1);
        assert_eq!(failures.permit_live_read("a", address(BOB), now), Ok(()));
        assert_eq!(recorded(&failures, "a", BOB, 5, now), 1);
        now += SignedDuration::from_hours(1);
        assert_eq!(recorded(&failures, "a", BOB, 50, now), 20, "an hour saves no more than twenty seconds");
    }

    #[test]
    fn an_address_fails_a_hundred_times_at_once_and_then_ten_times_a_second_whomever_it_names() {
        let (failures, mut now) = (failures(), start());
        let spray = |now| (0..500).filter(|n| failures.record(&format!("c{n}"), address(ALICE), now).is_ok()).count();
        assert_eq!(spray(now), 100);
        assert_eq!(failures.permit(address(ALICE), now), Err(Refusal::TooManyFailures));
        assert_eq!(failures.permit(address(BOB), now), Ok(()));
        now += SignedDuration::from_secs(1);
        assert_eq!(spray(now), 10);
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let failures = failures();
        assert_eq!(recorded(&failures, "a", "2001:db8::1", 20, start()), 20);
        for n in 0..80 {
            let from = address(&format!("2001:db8::{n:x}:1"));
            assert!(failures.record(&format!("c{n}"), from, start()).is_ok());
        }
        assert!(failures.permit(address("2001:db8::ffff"), start()).is_err());
        assert!(failures.permit(address("2001:db8:0:1::1"), start()).is_ok());
    }

    #[test]
    fn what_an_address_does_beyond_its_limit_takes_nothing_from_the_client_it_names() {
        let failures = failures();
        for n in 0..100 {
            failures.record(&format!("c{n}"), address(ALICE), start()).unwrap();
        }
        assert_eq!(recorded(&failures, "victim", ALICE, 100, start()), 0);
        assert_eq!(recorded(&failures, "victim", BOB, 100, start()), 20);
    }

    #[test]
    fn to_hammer_at_a_limited_client_counts_against_the_address() {
        let failures = failures();
        assert_eq!(recorded(&failures, "a", BOB, 50, start()), 20);
        for _ in 0..100 {
            assert!(failures.permit_live_read("a", address(ALICE), start()).is_err());
        }
        assert!(failures.permit(address(ALICE), start()).is_err());
    }

    #[test]
    fn a_clock_that_went_back_limits_no_longer_than_an_empty_bucket() {
        let (failures, now) = (failures(), start());
        assert_eq!(recorded(&failures, "a", ALICE, 50, now), 20);
        let mut now = now - SignedDuration::from_hours(24);
        assert_eq!(recorded(&failures, "a", BOB, 5, now), 0);
        now += SignedDuration::from_secs(1);
        assert_eq!(recorded(&failures, "a", BOB, 5, now), 1, "the bucket does not wait for the day to come again");
    }

    #[test]
    fn rates_are_kept_as_they_are_set() {
        let failures = Failures::new(Rates { per_client: 1000, per_address: 100_000 }, Metrics::default());
        let now = start();
        assert_eq!(recorded(&failures, "a", ALICE, 30_000, now), 20_000);
        assert_eq!(recorded(&failures, "a", ALICE, 30_000, now + SignedDuration::from_secs(1)), 1000);
    }

    #[test]
    fn a_hundred_thousand_names_take_no_more_memory_than_none() {
        let failures = failures();
        let bytes =
            |failures: &Failures| size_of_val(&*failures.clients.full_at) + size_of_val(&*failures.addresses.full_at);
        assert_eq!(bytes(&failures), 1 << 20, "1 MiB");
        for n in 0..100_000_u32 {
            let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            let _ = failures.record(&format!("client-{n}"), from, start());
        }
        assert_eq!(bytes(&failures), 1 << 20);
        // A bucket that is shared empties sooner; that all were empty would be another matter.
        let room = (0..1000).filter(|n| failures.clients.has_room(format!("other-{n}"), start())).count();
        assert_eq!(room, 1000, "of twenty attempts a shared bucket has lost one or two");
    }
}
