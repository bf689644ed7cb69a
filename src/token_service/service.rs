//! What all endpoints share, and their routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::json;

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
use super::refusal::Refusal;
use super::request::{Received, receive};
use super::revocation::revoke;
use super::token_endpoint::token;
use super::used_assertions::UsedAssertions;
use super::verified::Verified;
use crate::clock::Clock;
use crate::config::Server;

/// Nothing that is issued or refused may be kept by a cache (RFC 6749 §5.1).
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"token\", charset=\"UTF-8\"");

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
    pub(super) used_assertions: UsedAssertions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metadata: Bytes,
    pub(super) body_within: Duration,
    pub(super) metrics: Metrics,
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
}

impl Service {
    /// A service.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { server, served, live, failures, cluster_keys, clock, metrics, body_within } = parts;
        let Served { directory, keys, certificate: _, lists } = served;
        let (metadata, verified) = (metadata_of(&server), Verified::default());
        let used_assertions = UsedAssertions::default();
        Self {
            server,
            directory,
            keys,
            lists,
            verified,
            live,
            failures,
            cluster_keys,
            used_assertions,
            clock,
            metadata,
            body_within,
            metrics,
        }
    }

    /// The routes, all below the issuer's path except the well-known ones.
    pub fn router(self) -> Router {
        let path = self.server.path().to_owned();
        let mut router = Router::new()
            .route(&literal(&format!("{path}/token")), post(token))
            .route(&literal(&format!("{path}/introspect")), post(introspect))
            .route(&literal(&format!("{path}/revoke")), post(revoke))
            .route(&literal(&format!("{path}/jwks")), get(jwks));
        for path in metadata_paths(&path) {
            router = router.route(&literal(&path), get(metadata));
        }
        router.with_state(Arc::new(self))
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        self.metrics.answered(endpoint, outcome);
    }

    /// Answers a request of an endpoint with client authentication: its body is read, and what `respond` refuses becomes
    /// the error of RFC 6749 §5.2. Counted either way.
    pub(super) async fn answer(
        &self,
        endpoint: Endpoint,
        request: Request,
        respond: impl AsyncFnOnce(&Self, &Received) -> Result<Response<Body>, Refusal>,
    ) -> Response<Body> {
        let (parts, body) = receive(self, request).await;
        let uses_authorization = parts.headers.contains_key(header::AUTHORIZATION);
        let result = match body {
            Ok(body) => respond(self, &Received { parts, body }).await,
            Err(refusal) => Err(refusal),
        };
        match result {
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
        let body = json!({"error": refusal.error(), "error_description": refusal.description()}).to_string();
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

/// A path as axum writes one without parameters.
fn literal(path: &str) -> String {
    path.replace('{', "{{").replace('}', "}}")
}
