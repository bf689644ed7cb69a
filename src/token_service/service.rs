//! What all endpoints share, and which path leads to which.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use super::cluster_keys::ClusterKeys;
use super::directory::Directory;
use super::documents::{jwks, metadata, metadata_of, metadata_paths};
use super::failures::Failures;
use super::follow::Served;
use super::introspection::introspect;
use super::keys::SigningKeys;
use super::lists::Lists;
use super::live::LiveReader;
use super::metrics::{Endpoint, Metrics, Outcome};
use super::queue::{Depths, Queue};
use super::refusal::Refusal;
use super::request::{Received, receive};
use super::revocation::revoke;
use super::token_endpoint::issue;
use super::verified::Verified;
use crate::clock::Clock;
use crate::config::Server;

/// Nothing that is issued or refused may be kept by a cache (RFC 6749 §5.1).
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"token\", charset=\"UTF-8\"");

/// A request whose header has arrived; its body may be on its way.
pub type Request = http::Request<Incoming>;
/// The body of an answer: it is there as a whole.
pub type Body = Full<Bytes>;

/// The authorization server behind its endpoints.
pub struct Service {
    pub(super) server: Server,
    pub(super) directory: Arc<Directory>,
    pub(super) keys: Arc<SigningKeys>,
    pub(super) lists: Arc<Lists>,
    pub(super) verified: Verified,
    pub(super) live: LiveReader,
    pub(super) failures: Failures,
    pub(super) cluster_keys: Arc<ClusterKeys>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metadata: Bytes,
    pub(super) body_within: Duration,
    pub(super) metrics: Metrics,
    queue: Queue,
    paths: Vec<(String, Endpoint)>,
}

/// What a service is made of.
pub struct Parts {
    /// The authorization server as configured.
    pub server: Server,
    /// What the ledger namespace fills.
    pub served: Served,
    /// For the read before a 401.
    pub live: LiveReader,
    /// Which failures are one too many.
    pub failures: Failures,
    /// For `ServiceAccount` tokens.
    pub cluster_keys: Arc<ClusterKeys>,
    /// Read once per request.
    pub clock: Arc<dyn Clock>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// How long a request's body may take.
    pub body_within: Duration,
    /// How many requests may wait for a thread.
    pub queue: Depths,
}

impl Service {
    /// A service.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { server, served, live, failures, cluster_keys, clock, metrics, body_within, queue } = parts;
        let Served { directory, keys, certificate: _, lists } = served;
        Self {
            metadata: metadata_of(&server),
            paths: paths_of(server.path()),
            queue: Queue::new(queue),
            verified: Verified::default(),
            server,
            directory,
            keys,
            lists,
            live,
            failures,
            cluster_keys,
            clock,
            body_within,
            metrics,
        }
    }

    /// Answers a request.
    pub async fn respond(&self, request: Request) -> Response<Body> {
        let path = request.uri().path();
        let Some((_, endpoint)) = self.paths.iter().find(|(known, _)| known == path) else {
            return bare(StatusCode::NOT_FOUND);
        };
        match endpoint {
            Endpoint::Token => self.post(Endpoint::Token, request, issue).await,
            Endpoint::Introspection => self.post(Endpoint::Introspection, request, introspect).await,
            Endpoint::Revocation => self.post(Endpoint::Revocation, request, revoke).await,
            Endpoint::Jwks => get(&request, |request| jwks(self, request.headers())),
            Endpoint::Metadata => get(&request, |_| metadata(self)),
        }
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        self.metrics.answered(endpoint, outcome);
    }

    /// Answers a request of an endpoint with client authentication: its body is read, and what `respond` refuses becomes
    /// the error of RFC 6749 §5.2. Counted either way. Such an endpoint has no other method than POST.
    async fn post(
        &self,
        endpoint: Endpoint,
        request: Request,
        respond: impl AsyncFnOnce(&Self, &Received) -> Result<Response<Body>, Refusal>,
    ) -> Response<Body> {
        if request.method() != Method::POST {
            return not_allowed(HeaderValue::from_static("POST"));
        }
        let (parts, body) = receive(self, request).await;
        let uses_authorization = parts.headers.contains_key(header::AUTHORIZATION);
        let respond = async || {
            let received = Received { parts, body: body? };
            self.queue.turn().await?;
            respond(self, &received).await
        };
        match respond().await {
            Ok(response) => {
                self.answered(endpoint, Outcome::Ok);
                response
            }
            Err(refusal) => {
                let mut response = self.refuse(endpoint, refusal);
                // A client that used the header is told the scheme (RFC 6749 §5.2).
                if refusal.is_authentication_failure() && uses_authorization {
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
                }
                response
            }
        }
    }

    /// The answer to a refused request (RFC 6749 §5.2), counted.
    pub(super) fn refuse(&self, endpoint: Endpoint, refusal: Refusal) -> Response<Body> {
        self.answered(endpoint, Outcome::Refused(refusal));
        // Neither text needs an escape; a refusal under load has to be cheap.
        let (error, description) = (refusal.error(), refusal.description());
        let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = refusal.status();
        if let Some(seconds) = refusal.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        never_cached(response)
    }
}

/// Adds what every answer of an endpoint with credentials carries.
pub(super) fn never_cached(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::PRAGMA, NO_CACHE);
    response
}

/// All paths, below the issuer's except the well-known ones. The one most asked for comes first.
fn paths_of(issuer_path: &str) -> Vec<(String, Endpoint)> {
    let below = |name: &str, endpoint: Endpoint| (format!("{issuer_path}/{name}"), endpoint);
    let mut paths = vec![
        below("token", Endpoint::Token),
        below("introspect", Endpoint::Introspection),
        below("jwks", Endpoint::Jwks),
        below("revoke", Endpoint::Revocation),
    ];
    paths.extend(metadata_paths(issuer_path).into_iter().map(|path| (path, Endpoint::Metadata)));
    paths
}

/// The answer of a document to GET, and to HEAD without its body (RFC 9110 §9.3.2).
fn get(request: &Request, document: impl FnOnce(&Request) -> Response<Body>) -> Response<Body> {
    match *request.method() {
        Method::GET => document(request),
        Method::HEAD => {
            let mut response = document(request);
            if let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > 0) {
                response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
            }
            *response.body_mut() = Body::default();
            response
        }
        _ => not_allowed(HeaderValue::from_static("GET,HEAD")),
    }
}

/// 405 with the methods that there are (RFC 9110 §15.5.6).
fn not_allowed(methods: HeaderValue) -> Response<Body> {
    let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}
