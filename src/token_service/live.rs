//! The live read of one ledger entry before a 401, or before a token of an unknown client is called inactive: the watch
//! may lag behind what was just published.
//!
//! One read at a time per entry, two per second and address, ten per second in all: no address takes the reads of all. A
//! read that was not made leaves open what it would have found, and the caller is told so. Whoever waits for a read waits for one that began after they
//! asked: an older one may have been answered before their credential was in the ledger.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::buckets::{Buckets, microseconds};
use super::follow::{Follower, Found};
use super::metrics::{LiveRead, Metrics};
use crate::clock::Clock;
use crate::kubernetes::client::call;
use crate::ledger;

/// How long a read may take: a client waits for it, twice at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What one read costs: ten are paid for by a second.
const COST_NANOSECONDS: i64 = 100_000_000;
/// What can be saved up: twenty reads.
const MOST_SAVED_NANOSECONDS: i64 = 20 * COST_NANOSECONDS;
/// How many reads a second pays for of one address, and for how long it may save up: ten reads, half of all.
const PER_ADDRESS: u32 = 2;
const ADDRESS_SAVES: Duration = Duration::from_secs(5);

/// Reads ledger entries live.
pub struct LiveReader {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api<Secret>,
    namespace: String,
    follower: Arc<Follower>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    addresses: Buckets,
    state: Mutex<State>,
    reads: TaskTracker,
}

#[derive(Default)]
struct State {
    bucket: Bucket,
    under_way: HashMap<String, Read>,
}

/// A read that is under way; it has ended when there is an outcome.
type Read = watch::Receiver<Option<LiveRead>>;

impl LiveReader {
    /// A reader of the Secrets in `namespace`, which needs `get` on them. What it finds goes to `follower`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        follower: Arc<Follower>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        let namespace = namespace.to_owned();
        let (state, reads) = (Mutex::default(), TaskTracker::new());
        let addresses = Buckets::new(PER_ADDRESS, ADDRESS_SAVES);
        Self { inner: Arc::new(Inner { api, namespace, follower, clock, metrics, addresses, state, reads }) }
    }

    /// Reads the entry of a client of a server for an address, unless `is_settled` turns true before. Returns at once when
    /// there are too many reads.
    pub async fn read(
        &self,
        (server, client_id): (&str, &str),
        address: IpAddr,
        is_settled: impl Fn() -> bool + Send,
    ) -> LiveRead {
        let name = ledger::name(server, client_id);
        let before = self.inner.lock().under_way.get(&name).cloned();
        if let Some(before) = before {
            let outcome = ended(before).await;
            if is_settled() {
                return outcome;
            }
        }
        let Some(read) = self.join_or_begin(name, address) else {
            self.inner.metrics.live_read(LiveRead::Limited);
            return LiveRead::Limited;
        };
        ended(read).await
    }

    fn join_or_begin(&self, name: String, address: IpAddr) -> Option<Read> {
        let mut state = self.inner.lock();
        if let Some(read) = state.under_way.get(&name) {
            return Some(read.clone());
        }
        let now = self.inner.clock.now();
        if !self.inner.addresses.take(address, microseconds(now)) || !state.bucket.pay(now) {
            return None;
        }
        let (end, read) = watch::channel(None);
        state.under_way.insert(name.clone(), read.clone());
        drop(state);
        let inner = self.inner.clone();
        // A task of its own: it ends even if nobody waits for it any more.
        self.inner.reads.spawn(async move {
            let under_way = UnderWay { inner, name };
            let outcome = under_way.inner.get(&under_way.name).await;
            under_way.inner.metrics.live_read(outcome);
            drop(under_way);
            end.send_replace(Some(outcome));
        });
        Some(read)
    }
}

impl Inner {
    async fn get(&self, name: &str) -> LiveRead {
        match call(ANSWER_WITHIN, self.api.get(name)).await {
            Ok(secret) => match self.follower.found(&secret) {
                Found::Newer => LiveRead::Newer,
                Found::Same => LiveRead::Same,
            },
            Err(error) if error.is_absent(name) => {
                self.follower.absent(name);
                LiveRead::Absent
            }
            // The watch tells the same trouble once; here it would be told at every wrong client secret.
            Err(error) => {
                tracing::debug!(secret = name, problem = error.chain(), "live read failed");
                LiveRead::Failed
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever becomes of a read, the next one is not kept waiting.
struct UnderWay {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner.lock().under_way.remove(&self.name);
    }
}

async fn ended(mut read: Read) -> LiveRead {
    // An error means that the read's task is gone, which is an end too.
    read.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome).unwrap_or(LiveRead::Failed)
}

impl std::fmt::Debug for LiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveReader").field("namespace", &self.inner.namespace).finish_non_exhaustive()
    }
}

/// A token bucket whose unit is time.
#[derive(Debug)]
struct Bucket {
    saved_nanoseconds: i64,
    last: Timestamp,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { saved_nanoseconds: MOST_SAVED_NANOSECONDS, last: Timestamp::MIN }
    }
}

impl Bucket {
    /// Pays for one read. A clock that went back saves nothing.
    fn pay(&mut self, now: Timestamp) -> bool {
        let earned = now.duration_since(self.last).as_nanos().clamp(0, i128::from(MOST_SAVED_NANOSECONDS));
        let earned = i64::try_from(earned).unwrap_or(MOST_SAVED_NANOSECONDS);
        self.last = now;
        self.saved_nanoseconds = (self.saved_nanoseconds + earned).min(MOST_SAVED_NANOSECONDS);
        if self.saved_nanoseconds < COST_NANOSECONDS {
            return false;
        }
        self.saved_nanoseconds -= COST_NANOSECONDS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn ten_reads_are_paid_for_by_a_second() {
        let mut bucket = Bucket::default();
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!((0..30).filter(|_| bucket.pay(now)).count(), 20, "saved up");
        // A flood must not keep the bucket from filling by fractions of a nanosecond's cost.
        let paid = (0..10_000).filter(|_| {
            now += SignedDuration::from_micros(100);
            bucket.pay(now)
        });
        assert_eq!(paid.count(), 10);
        now += SignedDuration::from_hours(1);
        assert_eq!((0..30).filter(|_| bucket.pay(now)).count(), 20, "an hour saves no more than two seconds");
        now -= SignedDuration::from_hours(1);
        assert!(!bucket.pay(now), "a clock that went back saves nothing");
        now += SignedDuration::from_millis(100);
        assert!(bucket.pay(now), "and goes on from there");
    }
}
