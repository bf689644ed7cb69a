//! The documents that anyone may read.

use http::StatusCode;
use serde_json::json;

use super::{FakeApi, Limits, TokenService};
use crate::fake_api::{Fault, Nth};

const METHODS: [&str; 5] =
    ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"];
const ALGORITHMS: [&str; 5] = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];

#[tokio::test]
async fn the_metadata_states_exactly_what_is_on() {
    let service = TokenService::start_with("/tenant", Limits::default()).await;
    for path in [
        "/.well-known/oauth-authorization-server/tenant",
        "/tenant/.well-known/oauth-authorization-server",
        "/tenant/.well-known/openid-configuration",
        "/.well-known/openid-configuration/tenant",
    ] {
        let answer = service.send(service.http().get(service.url(path))).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(
            answer.json(),
            json!({
                "issuer": service.issuer,
                "token_endpoint": format!("{}/token", service.issuer),
                "jwks_uri": format!("{}/jwks", service.issuer),
                "response_types_supported": [],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": METHODS,
                "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "introspection_endpoint": format!("{}/introspect", service.issuer),
                "introspection_endpoint_auth_methods_supported": METHODS,
                "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "revocation_endpoint": format!("{}/revoke", service.issuer),
                "revocation_endpoint_auth_methods_supported": METHODS,
                "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "tls_client_certificate_bound_access_tokens": true,
            })
        );
        let head = service.send(service.http().head(service.url(path))).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    for path in ["/.well-known/oauth-authorization-server", "/token", "/jwks", "/"] {
        let answer = service.send(service.http().get(service.url(path))).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: all lies below the issuer's path");
    }
    let answer = service.send(service.http().post(service.url("/tenant/jwks"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET,HEAD")));
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
