//! What all endpoints share, and which path leads to which.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use super::cluster_keys::ClusterKeys;
use super::directory::Directory;
use super::documents::{authorization, jwks, metadata, openid_metadata};
use super::failures::Failures;
use super::follow::Served;
use super::introspection::introspect;
use super::issuer::{Issuer, Others};
use super::lists::Lists;
use super::live::LiveReader;
use super::metrics::{Endpoint, Metrics, Outcome};
use super::queue::{Depths, Queue};
use super::refusal::Refusal;
use super::request::{Bodies, Received, discard, receive};
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

/// What the endpoints of all authorization servers share.
pub struct Service {
    pub(super) directory: Arc<Directory>,
    pub(super) lists: Arc<Lists>,
    pub(super) verified: Verified,
    pub(super) live: LiveReader,
    pub(super) failures: Failures,
    pub(super) cluster_keys: Arc<ClusterKeys>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bodies: Bodies,
    pub(super) metrics: Metrics,
    pub(super) queue: Queue,
    configured: Issuer,
    others: Arc<Others>,
}

/// What a service is made of.
pub struct Parts {
    /// The configured authorization server.
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
        let Served { directory, keys, certificate: _, lists, others } = served;
        Self {
            configured: Issuer::configured(server, keys),
            others,
            queue: Queue::new(queue),
            verified: Verified::default(),
            directory,
            lists,
            live,
            failures,
            cluster_keys,
            clock,
            bodies: Bodies::new(body_within),
            metrics,
        }
    }

    /// Answers a request.
    pub fn respond(self: Arc<Self>, request: Request) -> impl Future<Output = Response<Body>> + Send {
        // Taken apart before the future begins, which else would hold it whole as well.
        let (parts, body) = request.into_parts();
        async move {
            let other = self.others.asked(&parts, &self.configured);
            let issuer = other.as_deref().unwrap_or(&self.configured);
            let Some(endpoint) = issuer.endpoint(parts.uri.path()) else { return bare(StatusCode::NOT_FOUND) };
            match endpoint {
                Endpoint::Token => self.post(issuer, Endpoint::Token, (&parts, body), issue).await,
                Endpoint::Introspection => self.post(issuer, Endpoint::Introspection, (&parts, body), introspect).await,
                Endpoint::Revocation => self.post(issuer, Endpoint::Revocation, (&parts, body), revoke).await,
                Endpoint::Jwks => get(&parts, || jwks(&self, issuer, &parts.headers)),
                Endpoint::Metadata => get(&parts, || metadata(&self, issuer)),
                Endpoint::OpenIdMetadata => get(&parts, || openid_metadata(&self, issuer)),
                Endpoint::Authorization => get(&parts, || authorization(&self)),
            }
        }
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        self.metrics.answered(endpoint, outcome);
    }

    /// Answers a request of an endpoint with client authentication: its body is read, and what `respond` refuses becomes
    /// the error of RFC 6749 §5.2. Counted either way. Such an endpoint has no other method than POST.
    async fn post(
        &self,
        issuer: &Issuer,
        endpoint: Endpoint,
        (parts, body): (&request::Parts, Incoming),
        respond: impl AsyncFnOnce(&Self, &Received<'_>) -> Result<Response<Body>, Refusal>,
    ) -> Response<Body> {
        if parts.method != Method::POST {
            return not_allowed(HeaderValue::from_static("POST"));
        }
        let result = async {
            // First: who is sent away has to cost as little as possible.
            if let Err(refusal) = self.queue.turn().await {
                discard(self, parts, body).await;
                return Err(refusal);
            }
            let received = receive(self, (issuer, endpoint), parts, body).await?;
            respond(self, &received).await
        };
        match result.await {
            Ok(response) => {
                self.answered(endpoint, Outcome::Ok);
                response
            }
            Err(refusal) => {
                let mut response = self.refuse(endpoint, refusal);
                // RFC 9110 §15.5.2, whether the client used the header (RFC 6749 §5.2) or not.
                if refusal.is_authentication_failure() {
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

/// The answer of a document to GET, and to HEAD without its body (RFC 9110 §9.3.2).
fn get(parts: &request::Parts, document: impl FnOnce() -> Response<Body>) -> Response<Body> {
    match parts.method {
        Method::GET => document(),
        Method::HEAD => {
            let mut response = document();
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

/// What is not there may be there later: a cache would keep a 404 by its own rules (RFC 9110 §15.5.5).
fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_request_takes_while_it_is_answered_is_small() {
        // hyper moves it for each request, and so much of it that the caches would be full of nothing else.
        let bytes = size(|(service, request): (Arc<Service>, Request)| service.respond(request));
        assert!(bytes <= LARGEST, "{bytes} bytes");
    }

    /// What it took when this was last looked at, and a little more.
    const LARGEST: usize = 1536;
}
