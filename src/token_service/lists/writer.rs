//! The one task that writes to the lists: what one round finds is written together, over exactly what was last seen.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{PostParams, Request};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Lists, Shown};
use crate::clock::Clock;
use crate::kubernetes::client::{Error, call};
use crate::shared_lists::{List, NAMES, REVOKED_FIELD, USED_FIELD, now_seconds};
use crate::token_service::follow::Follower;
use crate::token_service::metrics::{ListWrite, Metrics};

/// How long a request may take: who revokes a token waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often a round begins anew because another writer was faster.
const MOST_CONFLICTS: usize = 5;
/// How long used assertions are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(250);
/// How many bytes are written per second at most, on average: each write replaces a list, and the API server's store
/// keeps what was replaced for minutes.
const BYTES_PER_SECOND: u64 = 512 * 1024;
/// How long to wait after a round that failed, and after many.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_AT_MOST: Duration = Duration::from_secs(30);
/// How long the last writes may take once the program stops.
const LAST_WITHIN: Duration = Duration::from_secs(3);

const METADATA_ALONE: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Writes the lists.
pub struct Writer {
    lists: Arc<Lists>,
    client: kube::Client,
    namespace: String,
    follower: Arc<Follower>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// When the next round of each list may begin.
struct Pace {
    lists: [Turn; NAMES.len()],
    /// No round of any list begins before.
    next: Instant,
    /// Nor one that has used assertions alone.
    gathered: Instant,
}

#[derive(Clone, Copy)]
struct Turn {
    next: Instant,
    failures: u32,
}

/// What is to be done next.
enum Next {
    Round(usize),
    Wait(Option<Instant>),
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{}", .0.chain())]
    Request(Error),
    #[error("it does not exist")]
    Absent,
    #[error("other writers were faster {MOST_CONFLICTS} times")]
    Conflicts,
}

impl Writer {
    /// A writer of the Secrets in `namespace`, which needs `get` on them and `update` on the lists. What it finds and
    /// writes goes to `follower`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        follower: Arc<Follower>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let lists = follower.served().lists.clone();
        Self { lists, client, namespace: namespace.to_owned(), follower, clock, metrics }
    }

    /// Writes whatever is to be written until `stop` is cancelled; then what is left, within seconds.
    pub async fn run(self, stop: CancellationToken) {
        let mut pace = Pace::new();
        let endless = async {
            loop {
                match self.next(&pace) {
                    Next::Round(index) => self.round(index, &mut pace).await,
                    Next::Wait(Some(until)) => {
                        tokio::select! { () = self.lists.due.notified() => {} () = sleep_until(until) => {} }
                    }
                    Next::Wait(None) => self.lists.due.notified().await,
                }
            }
        };
        stop.run_until_cancelled(endless).await;
        let last = async {
            for index in 0..NAMES.len() {
                if self.lists.all[index].lock().has_unshared() {
                    self.round(index, &mut Pace::new()).await;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WITHIN, last).await;
    }

    /// The list whose turn it is: one with a revocation that somebody waits for, else one with any, else the one that
    /// has waited longest.
    fn next(&self, pace: &Pace) -> Next {
        let now = Instant::now();
        let mut wait: Option<Instant> = None;
        let mut best: Option<(u8, Instant, usize)> = None;
        for (index, (list, turn)) in self.lists.all.iter().zip(&pace.lists).enumerate() {
            let known = list.lock();
            let (rank, from) = if known.is_urgent {
                (0, pace.next)
            } else if known.shown.is_none() {
                continue;
            } else if known.revoked.can_share() || known.is_damaged() {
                (1, pace.next.max(turn.next))
            } else if known.used.can_share() {
                (2, pace.next.max(turn.next).max(pace.gathered))
            } else {
                continue;
            };
            drop(known);
            if from > now {
                wait = Some(wait.map_or(from, |wait| wait.min(from)));
            } else if best.is_none_or(|best| (rank, turn.next, index) < best) {
                best = Some((rank, turn.next, index));
            }
        }
        best.map_or(Next::Wait(wait), |(_, _, index)| Next::Round(index))
    }

    async fn round(&self, index: usize, pace: &mut Pace) {
        let list = &self.lists.all[index];
        let begun = {
            let mut known = list.lock();
            known.is_urgent = false;
            known.begun += 1;
            known.begun
        };
        let written = self.written(index).await;
        pace.ended(index, written.as_ref().copied().ok());
        {
            let mut known = list.lock();
            let problem = written.err().map(|problem| problem.to_string());
            if problem.is_some() && problem != known.problem {
                tracing::warn!(list = NAMES[index], problem, "not written; it is tried again");
            }
            known.problem = problem;
        }
        list.ended.send_replace(begun);
    }

    /// Writes what a list lacks, and says how many bytes that were.
    async fn written(&self, index: usize) -> Result<u64, Problem> {
        for _ in 0..MOST_CONFLICTS {
            let shown = self.lists.all[index].lock().shown.clone();
            let Some(shown) = shown else {
                self.read(index).await?;
                continue;
            };
            let Some((revoked, used)) = self.wanted(index) else { return Ok(0) };
            let (secret, bytes) = written_as(&shown, &revoked, &used);
            match self.put(index, &secret).await {
                Ok(metadata) => {
                    self.metrics.list_write(ListWrite::Written);
                    let written = Shown {
                        secret: Secret { metadata: metadata.metadata, data: None, ..secret },
                        revoked,
                        used,
                        damage: None,
                    };
                    self.follower.wrote_list(written);
                    return Ok(bytes);
                }
                Err(error) if error.conflict() => {
                    self.metrics.list_write(ListWrite::Conflict);
                    self.read(index).await?;
                }
                Err(error) => {
                    self.metrics.list_write(ListWrite::Failed);
                    return Err(if error.is_absent(NAMES[index]) { Problem::Absent } else { Problem::Request(error) });
                }
            }
        }
        Err(Problem::Conflicts)
    }

    /// What the two fields of a list shall hold; `None` if they do.
    fn wanted(&self, index: usize) -> Option<(List, List)> {
        let now = now_seconds(self.clock.now());
        let known = self.lists.all[index].lock();
        let is_due = known.has_unshared() || known.is_damaged();
        is_due.then(|| (known.revoked.wanted(now), known.used.wanted(now)))
    }

    /// Reads a list live, before it is written over.
    async fn read(&self, index: usize) -> Result<(), Problem> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        match call(ANSWER_WITHIN, api.get(NAMES[index])).await {
            Ok(secret) => {
                self.follower.found(&secret);
                Ok(())
            }
            Err(error) if error.is_absent(NAMES[index]) => {
                self.follower.absent(NAMES[index]);
                Err(Problem::Absent)
            }
            Err(error) => Err(Problem::Request(error)),
        }
    }

    /// Replaces a list; the answer is its metadata alone.
    async fn put(&self, index: usize, secret: &Secret) -> Result<PartialObjectMeta<Secret>, Error> {
        let body = serde_json::to_vec(secret).map_err(|_| Error::Unreadable)?;
        let params = PostParams { field_manager: Some("appreg".to_owned()), ..PostParams::default() };
        let request = Request::new(Secret::url_path(&(), Some(&self.namespace)));
        let mut request = request.replace(NAMES[index], &params, body).map_err(|_| Error::Unreadable)?;
        request.headers_mut().insert(ACCEPT, METADATA_ALONE);
        call(ANSWER_WITHIN, self.client.request(request)).await
    }
}

/// The Secret with these lists, and how many bytes they have.
fn written_as(shown: &Shown, revoked: &List, used: &List) -> (Secret, u64) {
    let fields = [(REVOKED_FIELD, revoked.to_json()), (USED_FIELD, used.to_json())];
    let bytes = fields.iter().map(|(_, json)| json.len() as u64).sum();
    let data = fields.map(|(name, json)| (name.to_owned(), ByteString(json))).into();
    (Secret { data: Some(data), ..shown.secret.clone() }, bytes)
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { lists: [Turn { next: now, failures: 0 }; NAMES.len()], next: now, gathered: now }
    }

    /// A round has ended: with so many bytes written, or with a failure.
    fn ended(&mut self, index: usize, written: Option<u64>) {
        let now = Instant::now();
        let turn = &mut self.lists[index];
        if let Some(bytes) = written {
            *turn = Turn { next: now, failures: 0 };
            self.next = now + Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND);
            self.gathered = now + GATHER;
        } else {
            let pause = AGAIN_AFTER.saturating_mul(1 << turn.failures.min(5)).min(AGAIN_AFTER_AT_MOST);
            *turn = Turn { next: now + pause, failures: turn.failures + 1 };
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
