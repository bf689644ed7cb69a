//! What anyone may read: the server's metadata (RFC 8414) and the JWKS (RFC 7517). Bytes that are made beforehand.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::client_authentication::METHODS;
use super::issuer::Issuer;
use super::metrics::{Endpoint, Outcome};
use super::refusal::Refusal;
use super::service::{Body, Service};
use crate::api::TokenEndpointAuthMethod;
use crate::config::Server;
use crate::jws::key::JwsAlgorithm;

/// How long anyone may keep the documents: much shorter than the time a key is published before it signs.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// RFC 7517 §8.5.1.
const JWK_SET_JSON: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// What is on, and nothing else.
pub(super) fn metadata_of(server: &Server) -> Bytes {
    let methods = METHODS.map(TokenEndpointAuthMethod::as_str);
    let algorithms = JwsAlgorithm::ALL.map(JwsAlgorithm::as_str);
    Bytes::from(
        json!({
            "issuer": server.issuer,
            "token_endpoint": server.token_endpoint(),
            "jwks_uri": server.jwks_uri(),
            // Required by RFC 8414 §2, and empty: there is no authorization endpoint.
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "introspection_endpoint": server.introspection_endpoint(),
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint": server.revocation_endpoint(),
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            // RFC 8705 §3.3.
            "tls_client_certificate_bound_access_tokens": true,
        })
        .to_string(),
    )
}

/// The paths of the metadata: RFC 8414 §3.1 puts the well-known part before the issuer's path, `OpenID` Connect
/// Discovery §4.1 after it; clients look in both places for either name.
pub(super) fn metadata_paths(issuer_path: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for name in ["oauth-authorization-server", "openid-configuration"] {
        for path in [format!("/.well-known/{name}{issuer_path}"), format!("{issuer_path}/.well-known/{name}")] {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

pub(super) fn metadata(service: &Service, issuer: &Issuer) -> Response<Body> {
    service.answered(Endpoint::Metadata, Outcome::Ok);
    let mut response = Response::new(Body::from(issuer.metadata.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}

pub(super) fn jwks(service: &Service, issuer: &Issuer, headers: &HeaderMap) -> Response<Body> {
    let Some(moment) = issuer.keys.at(service.clock.now()) else {
        return service.refuse(Endpoint::Jwks, Refusal::NotReady);
    };
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| names_tag(tags, &moment.etag));
    let (mut response, outcome) = if is_known {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        (response, Outcome::NotModified)
    } else {
        let mut response = Response::new(Body::from(moment.jwks.clone()));
        response.headers_mut().insert(header::CONTENT_TYPE, JWK_SET_JSON);
        (response, Outcome::Ok)
    };
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response.headers_mut().insert(header::ETAG, moment.etag.clone());
    service.answered(Endpoint::Jwks, outcome);
    response
}

/// Whether a list of entity tags holds this one, by the weak comparison of RFC 9110 §13.1.2.
#[must_use]
pub fn names_tag(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    tags.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        tag == b"*" || tag == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_without_a_path_has_two_documents_and_one_with_a_path_four() {
        assert_eq!(
            metadata_paths(""),
            ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
        );
        assert_eq!(
            metadata_paths("/t"),
            [
                "/.well-known/oauth-authorization-server/t",
                "/t/.well-known/oauth-authorization-server",
                "/.well-known/openid-configuration/t",
                "/t/.well-known/openid-configuration",
            ]
        );
    }

    #[test]
    fn an_entity_tag_is_found_in_a_list_weak_or_not() {
        let etag = HeaderValue::from_static("\"b\"");
        for (tags, found) in [("\"b\"", true), ("\"a\", W/\"b\"", true), ("*", true), ("\"a\"", false), ("b", false)] {
            assert_eq!(names_tag(&HeaderValue::from_static(tags), &etag), found, "{tags}");
        }
    }
}
