//! An independent witness of the promises made to applications (invariants S1 to S4 and S9).
//!
//! It has one watch on every Secret of the operator's, ledger entries included: one resource, so the events come in the
//! order in which they were committed, and whether a published value was in the ledger is a matter of fact at each of
//! them. Beside that it tries every client secret it ever saw at the token endpoint, again and again, as an application
//! would. It reads the ledger's JSON with eyes of its own and shares no code with the operator.
//!
//! | Invariant | Violated when |
//! |---|---|
//! | S1 | a value that a Secret showed is dropped or refused before `min(notAfter, its announced end)`, or dropped while it is shown |
//! | S2 | a Secret shows no accepted value of an entry that it once showed one of |
//! | S3 | one revision has two values, in the ledger or in Secrets; a value has two revisions; a number goes back |
//! | S4 | a registration's client ID changes |
//! | S9 | a value is accepted after its `notAfter`, or long after it left the ledger |
//!
//! The announced end of a current value is its `notAfter`; of one that was replaced, `since` of its successor (the
//! annotation) plus `overlap` (the status). Certificates count as accepted while their hash is in the ledger: the token
//! endpoint has no mutual TLS yet. Access tokens are not looked at. Violations name registration, entry, revision and
//! hint, never a value.

mod record;
mod seen;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Result;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Api;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::Access;
use record::Record;
use seen::Value;
use watch::Watch;

/// How often a value is tried that must be accepted.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How often one of those is tried that need not be: each refusal costs the token service a live read, of which it makes
/// ten in a second for everybody.
const TRY_SPENT_EVERY: Duration = Duration::from_millis(250);

/// Watches and tries, from its start until it is dropped.
pub struct Observer {
    record: Arc<Mutex<Record>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What came of the tries at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub accepted: usize,
    pub refused: usize,
    /// Neither a token nor a refusal of the credential.
    pub unanswered: usize,
}

impl Observer {
    /// Begins. `access` leads to the API server itself; the token endpoint is the one that Secrets name.
    pub async fn start(access: &Access) -> Result<Self> {
        let record = Arc::new(Mutex::new(Record::default()));
        let news = Arc::new(Notify::new());
        let client = access.client("admin");
        let mut watch = Watch { api: Api::all(client.clone()), record: record.clone(), news: news.clone() };
        let version = watch.list().await?;
        let tasks = vec![
            tokio::spawn(async move { watch.run(version).await }),
            tokio::spawn(watch::follow_status(Api::all(client), record.clone())),
            tokio::spawn(try_all(record.clone(), news)),
        ];
        Ok(Self { record, _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() })
    }

    /// What was violated so far, in the order in which it was seen.
    pub fn violations(&self) -> Vec<String> {
        self.record().violations.clone()
    }

    /// # Panics
    /// Where something was violated.
    #[track_caller]
    pub fn assert_no_violation(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.summary());
    }

    /// From now on it is right that the values which an entry has shown so far are refused: they are revoked.
    pub fn revoking(&self, namespace: &str, entry: &str) {
        self.record().excuse(|value| value.namespace == namespace && value.entry == entry);
    }

    /// The same, and no new value is expected: the entry, or the whole registration, goes.
    pub fn ending(&self, namespace: &str, entry: Option<&str>) {
        let mut record = self.record();
        let is_meant = |value: &Value| value.namespace == namespace && entry.is_none_or(|entry| entry == value.entry);
        record.excuse(is_meant);
        let ended: Vec<_> =
            record.values.values().filter(|value| is_meant(value)).map(|v| (v.uid.clone(), v.entry.clone())).collect();
        record.ended.extend(ended);
    }

    /// The revisions of an entry that a Secret has shown as the current one, in this order.
    pub fn published(&self, namespace: &str, entry: &str) -> Vec<u64> {
        let record = self.record();
        let found = record.published.iter().filter(|((ns, _, e), _)| ns == namespace && e == entry);
        found.flat_map(|(_, revisions)| revisions.clone()).collect()
    }

    /// The client secrets that expired or left the ledger, and were not refused since.
    pub fn not_yet_refused(&self) -> Vec<String> {
        let now = Timestamp::now();
        let record = self.record();
        let is_over = |value: &&Value| value.not_after <= now || value.dropped.is_some();
        let over = record.values.values().filter(|value| value.client_secret.is_some()).filter(is_over);
        over.filter(|value| value.refusals == 0).map(ToString::to_string).collect()
    }

    /// What came of the tries so far.
    pub fn tally(&self) -> Tally {
        self.record().tally
    }

    /// How often the watch lost its place: what was between is known by its end alone.
    pub fn gaps(&self) -> usize {
        self.record().lists.saturating_sub(1)
    }

    /// One line: what was seen.
    pub fn summary(&self) -> String {
        self.record().summary()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().expect("no panic while held")
}

/// Tries every client secret, without end.
async fn try_all(record: Arc<Mutex<Record>>, news: Arc<Notify>) {
    loop {
        let (endpoint, due) = {
            let mut record = lock(&record);
            let endpoint = record.endpoint.clone();
            let due = if endpoint.is_some() { record.due() } else { Vec::new() };
            (endpoint, due)
        };
        let tries = futures::stream::iter(due).for_each_concurrent(4, async |(hash, client_id, client_secret)| {
            let Some(endpoint) = &endpoint else { return };
            let before = Timestamp::now();
            let answer = endpoint.basic(&client_id, &client_secret).await;
            let is_accepted = match answer {
                Ok(answer) if answer.is_token() => Some(true),
                Ok(answer) if answer.is_refusal() => Some(false),
                Ok(_) | Err(_) => None,
            };
            lock(&record).tried(&hash, (before, Timestamp::now()), is_accepted);
        });
        tries.await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            () = news.notified() => {}
        }
    }
}
