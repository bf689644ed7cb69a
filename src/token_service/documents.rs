//! Public documents: the server's metadata, for OAuth (RFC 8414) and for `OpenID` Connect, and the JWKS (RFC 7517). Their
//! bytes are made beforehand. The authorization endpoint is here too: its answer is the same for every request.
//!
//! The issuer has no users and issues no ID tokens. Still, clients that start from an issuer read `openid-configuration`
//! first. Spring Security and Nimbus stop there if a member is missing that `OpenID` Connect Discovery requires. So that
//! document has all of them, and no value promises anything that is off.
//!
//! The document of RFC 8414 has none of the additions. RFC 8414 provides for servers without an authorization endpoint, so
//! its readers need no stand-in for one, and a client that looks for a login is right to find none.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::client_authentication::METHODS;
use super::issuer::Issuer;
use super::metrics::{Endpoint, Outcome};
use super::refusal::Refusal;
use super::service::{Body, Service};
use crate::api::{Algorithm, TokenEndpointAuthMethod};
use crate::config::Server;
use crate::jws::key::JwsAlgorithm;

/// How long anyone may keep the documents: much shorter than the time a key is published before it signs.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// RFC 7517 §8.5.1.
const JWK_SET_JSON: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// The authorization endpoint, below the issuer.
pub(super) const AUTHORIZE: &str = "authorize";

/// The metadata documents of one server.
#[derive(Debug)]
pub(super) struct Metadata {
    oauth: Bytes,
    openid: Bytes,
}

impl Metadata {
    /// The documents of this server.
    pub(super) fn of(server: &Server) -> Self {
        let oauth = oauth_metadata_of(server);
        let openid = openid_metadata_of(server, oauth.clone());
        Self { oauth: oauth.to_string().into(), openid: openid.to_string().into() }
    }
}

/// What is on, and nothing else (RFC 8414 §2).
fn oauth_metadata_of(server: &Server) -> Value {
    let methods = METHODS.map(TokenEndpointAuthMethod::as_str);
    let algorithms = JwsAlgorithm::ALL.map(JwsAlgorithm::as_str);
    json!({
        "issuer": server.issuer,
        "token_endpoint": server.token_endpoint(),
        "jwks_uri": server.jwks_uri(),
        // Required by RFC 8414 §2, and empty: no grant type of ours uses an authorization endpoint.
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
}

/// The same, and the further members that `OpenID` Connect Discovery 1.0 §3 requires.
fn openid_metadata_of(server: &Server, mut metadata: Value) -> Value {
    // It must be an https URL, so the URN of some cluster issuers fails in clients that check it. This endpoint answers, and
    // says why nobody can sign in.
    metadata["authorization_endpoint"] = json!(format!("{}/{AUTHORIZE}", server.issuer));
    // It must not be empty (§4.2). `none` is the registered response type for an answer with neither code nor token, and this
    // endpoint never returns either. The `id_token` of cluster issuers would announce ID tokens.
    metadata["response_types_supported"] = json!(["none"]);
    // A client has one `sub`, whichever API sees it.
    metadata["subject_types_supported"] = json!(["public"]);
    // Clients verify all tokens of the issuer by these algorithms (go-oidc does). Without the full list, a client that read
    // the document at its start would reject valid tokens after a change of the configured algorithm. RS256 must be listed.
    metadata["id_token_signing_alg_values_supported"] = json!(Algorithm::ALL.map(Algorithm::as_str));
    metadata
}

/// The paths of the metadata: RFC 8414 §3.1 puts the well-known part before the issuer's path, `OpenID` Connect
/// Discovery §4.1 after it; clients look in both places for either name.
pub(super) fn metadata_paths(issuer_path: &str) -> Vec<(String, Endpoint)> {
    let mut paths = Vec::new();
    for (name, endpoint) in
        [("oauth-authorization-server", Endpoint::Metadata), ("openid-configuration", Endpoint::OpenIdMetadata)]
    {
        let places = [format!("/.well-known/{name}{issuer_path}"), format!("{issuer_path}/.well-known/{name}")];
        // Without a path, both places are one.
        let distinct = if issuer_path.is_empty() { 1 } else { 2 };
        paths.extend(places.into_iter().take(distinct).map(|path| (path, endpoint)));
    }
    paths
}

/// The document of RFC 8414.
pub(super) fn metadata(service: &Service, issuer: &Issuer) -> Response<Body> {
    service.answered(Endpoint::Metadata, Outcome::Ok);
    document(issuer.metadata.oauth.clone())
}

/// The document of `OpenID` Connect Discovery.
pub(super) fn openid_metadata(service: &Service, issuer: &Issuer) -> Response<Body> {
    service.answered(Endpoint::OpenIdMetadata, Outcome::Ok);
    document(issuer.metadata.openid.clone())
}

fn document(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}

/// The answer to a person whom an application sends here to sign in. It is never a redirect: the redirect URI of the request
/// is unchecked (RFC 6749 §4.1.2.1).
pub(super) fn authorization(service: &Service) -> Response<Body> {
    service.refuse(Endpoint::Authorization, Refusal::NoUsers)
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
    fn an_issuer_without_a_path_has_its_two_documents_at_two_places_and_one_with_a_path_at_four() {
        let places = |issuer_path, wanted: Endpoint| {
            let paths = metadata_paths(issuer_path).into_iter().filter(|(_, endpoint)| *endpoint == wanted);
            paths.map(|(path, _)| path).collect::<Vec<_>>()
        };
        assert_eq!(places("", Endpoint::Metadata), ["/.well-known/oauth-authorization-server"]);
        assert_eq!(places("", Endpoint::OpenIdMetadata), ["/.well-known/openid-configuration"]);
        assert_eq!(
            places("/t", Endpoint::Metadata),
            ["/.well-known/oauth-authorization-server/t", "/t/.well-known/oauth-authorization-server"]
        );
        assert_eq!(
            places("/t", Endpoint::OpenIdMetadata),
            ["/.well-known/openid-configuration/t", "/t/.well-known/openid-configuration"]
        );
        assert_eq!(metadata_paths("/t").len(), 4);
    }

    #[test]
    fn an_entity_tag_is_found_in_a_list_weak_or_not() {
        let etag = HeaderValue::from_static("\"b\"");
        for (tags, found) in [("\"b\"", true), ("\"a\", W/\"b\"", true), ("*", true), ("\"a\"", false), ("b", false)] {
            assert_eq!(names_tag(&HeaderValue::from_static(tags), &etag), found, "{tags}");
        }
    }
}
