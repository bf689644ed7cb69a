//! How many failed authentications are answered as such: per client identifier and per address, a bucket each.
//!
//! A failure beyond its limit is answered with 429, and nothing expensive is done for it: no live read, and no signature
//! is verified on a connection that has failed. A success takes nothing from any bucket. Nor do failures of others hold it
//! back, whether they name the same client or come from the same address: a connection that has not failed yet, or that has
//! succeeded since, may always try (see [`Credit`]). How many connections an address may open bounds the rest.
//!
//! Memory is bounded whatever is sent. Each replica counts by itself.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::buckets::{Buckets, microseconds};
use super::metrics::{Limited, Metrics};
use super::peer::Credit;
use super::refusal::Refusal;

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
    /// Of one address (see [`super::peer::Networks`]). At least 1. An ingress or a NAT is one address.
    pub per_address: u32,
}

impl Default for Rates {
    /// One a second of a client, twenty at once: people and programs that try again stay below it. Ten times as much of
    /// an address and a hundred at once: a node whose every pod has lost its credential still sees why.
    fn default() -> Self {
        Self { per_client: 1, per_address: 10 }
    }
}

/// The failed authentications of late. A client is its server's name and its identifier, whether there is such a client or
/// not; addresses are those of [`super::peer::Networks::of`].
pub struct Failures {
    clients: Buckets,
    addresses: Buckets,
    metrics: Metrics,
}

impl Failures {
    /// Nobody has failed.
    #[must_use]
    pub fn new(rates: Rates, metrics: Metrics) -> Self {
        let clients = Buckets::new(rates.per_client, CLIENT_SAVES);
        Self { clients, addresses: Buckets::new(rates.per_address, ADDRESS_SAVES), metrics }
    }

    /// Whether a signature may be verified for this address, or for this connection of it. Takes nothing.
    pub fn permit(&self, address: IpAddr, credit: Option<&Credit>, now: Timestamp) -> Result<(), Refusal> {
        if credit.is_some_and(Credit::is_left) { Ok(()) } else { self.has_room(address, now) }
    }

    /// Whether this client's failing attempt may have its ledger entry read live. Takes nothing unless it is refused;
    /// then the attempt has failed, and counts against its address.
    pub fn permit_live_read(&self, client: impl Hash, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        self.has_room(address, now)?;
        if self.clients.has_room(client, microseconds(now)) {
            return Ok(());
        }
        self.addresses.take(address, microseconds(now));
        Err(self.limited(Limited::Client))
    }

    /// Counts a failed attempt. An error if it is one too many: then that is the answer, and not why it failed. What an
    /// address does beyond its own limit takes nothing from the client that it names.
    pub fn record(&self, client: impl Hash, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        self.record_unknown(address, now)?;
        if self.clients.take(client, microseconds(now)) { Ok(()) } else { Err(self.limited(Limited::Client)) }
    }

    /// Counts an attempt of which it could not be found out whether it failed: against its address alone, because of what
    /// it cost. An error if it is one too many.
    pub fn record_unknown(&self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        if self.addresses.take(address, microseconds(now)) { Ok(()) } else { Err(self.limited(Limited::Address)) }
    }

    fn has_room(&self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        let has_room = self.addresses.has_room(address, microseconds(now));
        if has_room { Ok(()) } else { Err(self.limited(Limited::Address)) }
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
        let spray = |now| (0..500).filter(|n| failures.record(format!("c{n}"), address(ALICE), now).is_ok()).count();
        assert_eq!(spray(now), 100);
        assert_eq!(failures.permit(address(ALICE), None, now), Err(Refusal::TooManyFailures));
        assert_eq!(failures.permit(address(BOB), None, now), Ok(()));
        now += SignedDuration::from_secs(1);
        assert_eq!(spray(now), 10);
    }

    #[test]
    fn a_connection_that_has_not_failed_may_try_whatever_its_neighbours_do() {
        let (failures, now) = (failures(), start());
        recorded(&failures, "a", ALICE, 200, now);
        for n in 0..100 {
            let _ = failures.record(format!("c{n}"), address(ALICE), now);
        }
        assert_eq!(failures.permit(address(ALICE), None, now), Err(Refusal::TooManyFailures));
        let credit = Credit::default();
        for _ in 0..100 {
            assert_eq!(failures.permit(address(ALICE), Some(&credit), now), Ok(()), "a success takes nothing");
            credit.earn();
        }
        for spent in 0..200 {
            if failures.permit(address(ALICE), Some(&credit), now).is_err() {
                assert!((1..=16).contains(&spent), "what it has earned is bounded: {spent}");
                return;
            }
            credit.spend();
        }
        panic!("who fails all the time may not go on");
    }

    #[test]
    fn what_an_address_does_beyond_its_limit_takes_nothing_from_the_client_it_names() {
        let failures = failures();
        for n in 0..100 {
            failures.record(format!("c{n}"), address(ALICE), start()).unwrap();
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
        assert!(failures.permit(address(ALICE), None, start()).is_err());
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
        let bytes = |failures: &Failures| failures.clients.bytes() + failures.addresses.bytes();
        assert_eq!(bytes(&failures), 1 << 20, "1 MiB");
        for n in 0..100_000_u32 {
            let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            let _ = failures.record(format!("client-{n}"), from, start());
        }
        assert_eq!(bytes(&failures), 1 << 20);
        // A bucket that is shared empties sooner; that all were empty would be another matter.
        let room = (0..1000).filter(|n| failures.clients.has_room(format!("other-{n}"), microseconds(start()))).count();
        assert_eq!(room, 1000, "of twenty attempts a shared bucket has lost one or two");
    }
}
