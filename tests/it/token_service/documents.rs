//! The documents that anyone may read.

use http::StatusCode;
use serde_json::{Value, json};

use super::{FakeApi, Limits, TokenService};
use crate::fake_api::{Fault, Nth};

const METHODS: [&str; 5] =
    ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"];
const ALGORITHMS: [&str; 5] = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];

/// The document of RFC 8414.
fn oauth(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_endpoint": format!("{issuer}/introspect"),
        "introspection_endpoint_auth_methods_supported": METHODS,
        "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "revocation_endpoint": format!("{issuer}/revoke"),
        "revocation_endpoint_auth_methods_supported": METHODS,
        "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "tls_client_certificate_bound_access_tokens": true,
    })
}

/// The document of `OpenID` Connect Discovery.
fn openid(issuer: &str) -> Value {
    let mut document = oauth(issuer);
    document["authorization_endpoint"] = json!(format!("{issuer}/authorize"));
    document["response_types_supported"] = json!(["none"]);
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!(["ES256", "EdDSA", "RS256"]);
    document
}

#[tokio::test]
async fn the_metadata_states_exactly_what_is_on() {
    let service = TokenService::start_with("/tenant", Limits::default()).await;
    for (path, document) in [
        ("/.well-known/oauth-authorization-server/tenant", oauth(&service.issuer)),
        ("/tenant/.well-known/oauth-authorization-server", oauth(&service.issuer)),
        ("/tenant/.well-known/openid-configuration", openid(&service.issuer)),
        ("/.well-known/openid-configuration/tenant", openid(&service.issuer)),
    ] {
        let answer = service.send(service.http().get(service.url(path))).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(answer.json(), document, "{path}");
        let head = service.send(service.http().head(service.url(path))).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/token",
        "/jwks",
        "/authorize",
        "/",
    ] {
        let answer = service.send(service.http().get(service.url(path))).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: all lies below the issuer's path");
    }
    let answer = service.send(service.http().post(service.url("/tenant/jwks"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET,HEAD")));
    let metrics = service.metrics().await;
    for endpoint in ["metadata", "openid_metadata"] {
        // Two places, each by GET and by HEAD.
        let line = format!(r#"token_service_requests_total{{endpoint="{endpoint}",outcome="ok"}} 4"#);
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_login_that_was_sent_to_the_authorization_endpoint_is_told_that_there_are_no_users() {
    for path in ["", "/tenant"] {
        let service = TokenService::start_with(path, Limits::default()).await;
        let document =
            service.send(service.http().get(service.url(&format!("{path}/.well-known/openid-configuration"))));
        let endpoint = document.await.json()["authorization_endpoint"].as_str().unwrap().to_owned();
        let redirect = "redirect_uri=https://shop.example/callback&state=x";
        for query in [
            String::new(),
            format!("?response_type=code&client_id=shop.storefront&scope=openid&{redirect}"),
            format!("?response_type=none&client_id=shop.storefront&{redirect}"),
            format!("?response_type=id_token&client_id=nobody&nonce=x&{redirect}"),
        ] {
            let answer = service.send(service.http().get(format!("{endpoint}{query}"))).await;
            assert_eq!(answer.error(), (400, "unsupported_response_type".to_owned()), "{query}");
            let description = answer.json()["error_description"].as_str().unwrap().to_owned();
            assert!(description.contains("no users") && description.contains("token endpoint"), "{description}");
            assert_eq!(answer.header("location"), None, "RFC 6749 §4.1.2.1: nobody is redirected to an unchecked URI");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        let answer = service.send(service.http().post(&endpoint)).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET,HEAD")));
        let line = r#"token_service_requests_total{endpoint="authorization",outcome="no_users"} 4"#;
        assert!(service.metrics().await.contains(line));
    }
}

#[tokio::test]
async fn the_jwks_is_public_and_has_an_entity_tag() {
    let service = TokenService::start().await;
    let first = service.send(service.http().get(service.url("/jwks"))).await;
    assert_eq!(first.header("content-type"), Some("application/jwk-set+json"), "RFC 7517 §8.5.1");
    assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
    let keys = first.json();
    let key = keys["keys"][0].as_object().unwrap();
    assert_eq!((&key["use"], &key["alg"], &key["crv"]), (&json!("sig"), &json!("ES256"), &json!("P-256")));
    assert!(!key.contains_key("d"), "RFC 7518 §6.2.2: the private part");
    let etag = first.header("etag").unwrap();
    let again = service.send(service.http().get(service.url("/jwks")).header("if-none-match", etag)).await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(again.header("etag"), Some(etag));
}

#[tokio::test]
async fn a_cold_start_without_signing_keys_answers_503_until_they_come() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    let service = TokenService::start_on(api, certificate, "", Limits::default()).await;
    service.until("listed", async || service.readyz().await.body.contains("[+] ledger")).await;
    assert!(service.readyz().await.body.contains("[-] signing-keys"));
    for answer in [service.token("a", "b").await, service.send(service.http().get(service.url("/jwks"))).await] {
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
    }
    service.api.person_makes_signing_keys();
    service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
    assert_eq!(service.token("a", "b").await.error(), (401, "invalid_client".into()));
}

#[tokio::test]
async fn a_cold_start_without_a_certificate_is_not_ready() {
    let api = FakeApi::new();
    api.person_makes_signing_keys();
    let unrelated = FakeApi::new().person_makes_a_certificate();
    let service = TokenService::start_on(api, unrelated, "", Limits::default()).await;
    service.until("listed", async || service.readyz().await.body.contains("[+] ledger")).await;
    let readyz = service.readyz().await;
    assert_eq!(readyz.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(readyz.body.contains("[-] serving-certificate"), "{readyz:?}");
    assert!(service.try_connect("http/1.1").await.is_err());
}

#[tokio::test]
async fn a_cold_start_without_the_ledger_is_not_ready_and_says_why() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    api.on(Nth::every("list", "secrets"), Fault::forbidden());
    let service = TokenService::start_on(api, certificate, "", Limits::default()).await;
    service.until("told", async || service.readyz().await.body.contains("[-] ledger: not listed yet: 403")).await;
    assert_eq!(service.readyz().await.status, StatusCode::SERVICE_UNAVAILABLE);
    service.api.heal();
    service.api.person_makes_signing_keys();
    service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
}
