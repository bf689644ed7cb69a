//! What all endpoints share, and their routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::json;

use super::directory::Directory;
use super::documents::{jwks, metadata, metadata_of, metadata_paths};
use super::follow::Served;
use super::keys::SigningKeys;
use super::live::LiveReader;
use super::metrics::{Endpoint, Metrics, Outcome};
use super::refusal::Refusal;
use super::token_endpoint::token;
use crate::clock::Clock;
use crate::config::Server;

/// Nothing that is issued or refused may be kept by a cache (RFC 6749 §5.1).
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// When to ask again after a 503, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The authorization server behind its endpoints.
pub struct Service {
    pub(super) server: Server,
    pub(super) directory: Arc<Directory>,
    pub(super) keys: Arc<SigningKeys>,
    pub(super) live: LiveReader,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metadata: Bytes,
    pub(super) body_within: Duration,
    metrics: Metrics,
}

/// What a service is made of.
pub struct Parts {
    /// The authorization server as configured.
    pub server: Server,
    /// What the ledger namespace fills.
    pub served: Served,
    /// For the read before a 401.
    pub live: LiveReader,
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
        let Parts { server, served, live, clock, metrics, body_within } = parts;
        let Served { directory, keys, certificate: _ } = served;
        let metadata = metadata_of(&server);
        Self { server, directory, keys, live, clock, metadata, body_within, metrics }
    }

    /// The routes, all below the issuer's path except the well-known ones.
    pub fn router(self) -> Router {
        let path = self.server.path().to_owned();
        let mut router = Router::new()
            .route(&literal(&format!("{path}/token")), post(token))
            .route(&literal(&format!("{path}/jwks")), get(jwks));
        for path in metadata_paths(&path) {
            router = router.route(&literal(&path), get(metadata));
        }
        router.with_state(Arc::new(self))
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        self.metrics.answered(endpoint, outcome);
    }

    /// The answer to a refused request (RFC 6749 §5.2), counted.
    pub(super) fn refuse(&self, endpoint: Endpoint, refusal: Refusal) -> Response<Body> {
        self.answered(endpoint, Outcome::Refused(refusal));
        let body = json!({"error": refusal.error(), "error_description": refusal.description()}).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = refusal.status();
        if refusal == Refusal::NotReady {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
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
