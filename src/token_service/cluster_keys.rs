//! The keys that the cluster signs `ServiceAccount` tokens with: its issuer and its JWKS, read from the API server.
//!
//! Every `ServiceAccount` may read both documents (the `ClusterRole` `system:service-account-issuer-discovery`). They are
//! read at the start, every hour, and when a token names a key that is not known: one read at a time, one in ten seconds.
//! When the API server cannot be reached, what is known goes on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::{ClusterKeyRead, Metrics};
use crate::admin::{Condition, Readiness};
use crate::clock::Clock;
use crate::jws::key::VerifyingKey;
use crate::kubernetes::client::{Error, call};

/// The cluster's discovery document (`OpenID` Connect Discovery §4), for its issuer alone: the `jwks_uri` in it may be an
/// address outside of the cluster.
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// The cluster's JWKS.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// How long either document may take: a client waits for them.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often they are read without need.
const REFRESH_EVERY: Duration = Duration::from_hours(1);

/// How long after a failure that is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The least time between two reads.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// The longest document that is looked at, in bytes.
const LONGEST_DOCUMENT_BYTES: usize = 256 * 1024;

/// The most keys that are kept. A cluster has one or two.
const MOST_KEYS: usize = 16;

/// What the cluster says of itself.
#[derive(Debug)]
pub struct Cluster {
    /// The issuer of its `ServiceAccount` tokens.
    pub issuer: String,
    /// Its keys.
    pub keys: Vec<VerifyingKey>,
}

/// The cluster's keys, read when they are needed.
pub struct ClusterKeys {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    known: ArcSwapOption<Cluster>,
    state: Mutex<State>,
    reads: TaskTracker,
}

#[derive(Default)]
struct State {
    last: Option<Timestamp>,
    /// It has ended when it is true.
    under_way: Option<watch::Receiver<bool>>,
    /// Why the last read failed.
    problem: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Cluster {
    /// Reads both documents. `None` if either is not what RFC 8414 and RFC 7517 describe. Keys that cannot be used are
    /// left out.
    #[must_use]
    pub fn parse(discovery: &str, jwks: &str) -> Option<Self> {
        if discovery.len().max(jwks.len()) > LONGEST_DOCUMENT_BYTES {
            return None;
        }
        let Discovery { issuer } = serde_json::from_str(discovery).ok()?;
        let KeySet { keys } = serde_json::from_str(jwks).ok()?;
        let keys = keys.iter().filter_map(VerifyingKey::from_jwk).take(MOST_KEYS).collect();
        (!issuer.is_empty()).then_some(Self { issuer, keys })
    }

    fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }
}

impl ClusterKeys {
    /// The keys of the cluster that `client` speaks to. Nothing is read yet.
    #[must_use]
    pub fn new(client: kube::Client, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let (known, state, reads) = (ArcSwapOption::empty(), Mutex::default(), TaskTracker::new());
        Self { inner: Arc::new(Inner { client, clock, metrics, known, state, reads }) }
    }

    /// Reads them now, and every hour until `stop` is cancelled; after a failure every minute.
    pub async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.refresh().await;
                sleep(if self.problem().is_some() { RETRY_AFTER } else { REFRESH_EVERY }).await;
            }
        })
        .await;
    }

    /// What is known, for a token of this issuer with this `kid`; read anew if either is not known. `None` while nothing
    /// could ever be read.
    pub async fn for_kid(&self, issuer: &str, kid: Option<&str>) -> Option<Arc<Cluster>> {
        let known = self.inner.known.load_full();
        let has = |known: &Arc<Cluster>| known.issuer == issuer && kid.is_none_or(|kid| known.has(kid));
        if let Some(known) = known.filter(has) {
            return Some(known);
        }
        self.refresh().await;
        self.inner.known.load_full()
    }

    /// Whether they are known and the last read succeeded. Never missing: most clients need none of it.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let inner = self.inner.clone();
        Condition::new("cluster-keys", move || match &inner.lock().problem {
            Some(problem) => Readiness::Degraded(format!(
                "cannot be read: {problem}; tokens of ServiceAccounts are checked with the keys that are known"
            )),
            None if inner.known.load().is_none() => Readiness::Degraded("not read yet".to_owned()),
            None => Readiness::Ready,
        })
    }

    fn problem(&self) -> Option<String> {
        self.inner.lock().problem.clone()
    }

    /// Waits for the read that is under way, or for a new one unless the last was just now.
    async fn refresh(&self) {
        if let Some(mut read) = self.join_or_begin() {
            // An error means that the read's task is gone, which is an end too.
            let _ = read.wait_for(|ended| *ended).await;
        }
    }

    fn join_or_begin(&self) -> Option<watch::Receiver<bool>> {
        let mut state = self.inner.lock();
        if state.under_way.is_some() {
            return state.under_way.clone();
        }
        let now = self.inner.clock.now();
        // A clock that went back does not stop anything.
        let is_early = |last: Timestamp| last <= now && now.duration_since(last) < PAUSE;
        if state.last.is_some_and(is_early) {
            return None;
        }
        state.last = Some(now);
        let (end, read) = watch::channel(false);
        state.under_way = Some(read.clone());
        drop(state);
        let inner = self.inner.clone();
        // A task of its own: it ends even if nobody waits for it any more.
        self.inner.reads.spawn(async move {
            let under_way = UnderWay(inner);
            under_way.0.read().await;
            drop(under_way);
            end.send_replace(true);
        });
        Some(read)
    }
}

impl Inner {
    async fn read(&self) {
        let read = async {
            let (discovery, jwks) = tokio::try_join!(self.document(DISCOVERY_PATH), self.document(JWKS_PATH))?;
            Cluster::parse(&discovery, &jwks).ok_or(Error::Unreadable)
        };
        let result: Result<Cluster, Error> = read.await;
        let problem = result.as_ref().err().map(Error::chain);
        self.metrics.cluster_key_read(if problem.is_none() { ClusterKeyRead::Ok } else { ClusterKeyRead::Failed });
        let before = std::mem::replace(&mut self.lock().problem, problem.clone());
        match result {
            Ok(cluster) => self.known.store(Some(Arc::new(cluster))),
            // Told once: the metric goes on counting.
            Err(_) if before.is_some() => {}
            Err(_) => {
                let problem = problem.unwrap_or_default();
                tracing::warn!(problem, "the cluster's keys cannot be read; what is known of them goes on");
            }
        }
    }

    async fn document(&self, path: &str) -> Result<String, Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        call(ANSWER_WITHIN, self.client.request_text(request)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever becomes of a read, the next one is not kept waiting.
struct UnderWay(Arc<Inner>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way = None;
    }
}

impl std::fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterKeys").field("known", &self.inner.known.load()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_says_is_read_and_keys_that_cannot_be_used_are_left_out() {
        let discovery = r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://elsewhere.example/jwks"}"#;
        let key = r#"{"kty":"OKP","crv":"Ed25519","x":"WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY","kid":"a"}"#;
        let jwks = format!(r#"{{"keys":[{{"kty":"oct","k":"AAAA"}},{key},3]}}"#);
        let cluster = Cluster::parse(discovery, &jwks).unwrap();
        assert_eq!((cluster.issuer.as_str(), cluster.keys.len()), ("https://kubernetes.default.svc", 1));
        assert!(cluster.has("a") && !cluster.has("b"));
        let many = format!(r#"{{"keys":[{}]}}"#, vec![key; 40].join(","));
        assert_eq!(Cluster::parse(discovery, &many).unwrap().keys.len(), MOST_KEYS);
        for (discovery, jwks) in [("", &*jwks), ("{}", &jwks), (r#"{"issuer":""}"#, &jwks), (discovery, "[]")] {
            assert!(Cluster::parse(discovery, jwks).is_none(), "{discovery} {jwks}");
        }
        assert!(Cluster::parse(discovery, &format!("{jwks}{}", " ".repeat(LONGEST_DOCUMENT_BYTES))).is_none());
    }
}
