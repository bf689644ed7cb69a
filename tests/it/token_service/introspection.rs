//! `POST /introspect`, case by case against RFC 7662.

use std::collections::BTreeMap;

use appreg::ledger::Digest;
use appreg::mint::signing_key::{MintedSigningKey, SigningKey};
use appreg::mint::token::{self, Claims};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Answer, CLIENT_SECRET, Entry, Limits, NAMESPACE, NOW, TokenService, claims, now_of, signing_key_since_yesterday,
};
use crate::fake_api::FakeApi;

const ID: &str = "shop.storefront";
/// A resource server.
const API: &str = "shop.api";
/// What it serves: the audience of every token of a client that was granted none.
const AUDIENCE: &str = "https://default.example";
/// Another API.
const OTHER: &str = "https://other.example";
const FORM: &str = "application/x-www-form-urlencoded";

/// A token service with a resource server and a key that tests sign with as well.
pub(super) struct Stage {
    pub(super) service: TokenService,
    key: MintedSigningKey,
}

impl Stage {
    pub(super) async fn start() -> Self {
        let service = TokenService::start().await;
        let key = signing_key_since_yesterday();
        service.api.controller_writes_signing_keys(&[&key]);
        service.api.person_applies(&Entry::new(API).granted("servedAudiences", &[AUDIENCE]).secret());
        let stage = Self { service, key };
        let kid = stage.key.record.kid.clone();
        let is_known = async || {
            let jwks = stage.service.send(stage.service.http().get(stage.service.url("/jwks"))).await;
            jwks.body.contains(&kid) && stage.service.metrics().await.contains("token_service_clients 2")
        };
        stage.service.until("the key and the resource server are known", is_known).await;
        stage
    }

    /// A token from the token endpoint.
    pub(super) async fn token(&self) -> String {
        let answer = self.service.token(ID, CLIENT_SECRET).await;
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }

    /// A token of our own making, for the client and the audience of these tests unless `change` says otherwise.
    pub(super) fn signed<'a>(&'a self, change: impl FnOnce(&mut Claims<'a>)) -> String {
        signed_with(&self.key, &self.service.issuer, change)
    }

    pub(super) async fn introspect(&self, token: &str) -> Answer {
        let answer = self.service.post_as("/introspect", API, &[("token", token)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer
    }

    pub(super) async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspect(token).await;
        let is_active = answer.json()["active"].as_bool().unwrap();
        if !is_active {
            assert_eq!(answer.body, r#"{"active":false}"#, "RFC 7662 §2.2: nothing else of an inactive token");
        }
        is_active
    }

    pub(super) async fn until_inactive(&self, what: &str, token: &str) {
        self.service.until(what, async || !self.is_active(token).await).await;
    }

    /// Waits until a reason was counted as often as this.
    pub(super) async fn counted(&self, result: &str, times: u32) {
        let line = format!("introspected_tokens_total{{result=\"{result}\"}} {times}\n");
        let metrics = self.service.metrics().await;
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

pub(super) fn signed_with<'a>(key: &MintedSigningKey, issuer: &'a str, change: impl FnOnce(&mut Claims<'a>)) -> String {
    let now = at(NOW);
    let mut claims = Claims {
        issuer,
        client_id: ID,
        audiences: &[AUDIENCE],
        scope: "orders:read",
        issued_at: now,
        expires_at: now + SignedDuration::from_hours(1),
        not_before: None,
        entry: Some("web"),
        revision: None,
        customers: None,
        customer_groups: None,
        certificate: None,
    };
    change(&mut claims);
    let key = SigningKey::from_pem(&key.record, key.private_key_pem.expose()).unwrap();
    String::from_utf8(token::sign(&key, &claims).unwrap().expose().to_vec()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_active_token_is_told_with_every_member_of_rfc_7662_2_2() {
    let stage = Stage::start().await;
    let answer = stage.service.token(ID, CLIENT_SECRET).await;
    let claims = claims(&answer);
    let now = now_of(&stage.service);
    let expected = json!({
        "active": true, "scope": "orders:read orders:write", "client_id": ID, "token_type": "Bearer",
        "exp": now + 3600, "iat": now, "sub": ID, "aud": AUDIENCE, "iss": stage.service.issuer, "jti": claims["jti"],
    });
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    for time in ["verified", "remembered"] {
        assert_eq!(stage.introspect(&token).await.json(), expected, "{time}");
    }
    stage.counted("active", 2).await;
}

#[tokio::test]
async fn a_token_with_everything_is_told_with_customers_nbf_and_the_certificate_of_rfc_8705_3_2() {
    let stage = Stage::start().await;
    let both = [AUDIENCE, OTHER];
    stage.service.api.person_applies(&Entry::new(ID).api(OTHER, &[]).secret());
    let (customers, groups) = (["*".to_owned()], ["emea".to_owned(), "a\"b".to_owned()]);
    let certificate = Digest::of(b"certificate");
    let token = signed_with(&stage.key, &stage.service.issuer, |claims| {
        claims.scope = "";
        claims.not_before = Some(at(NOW));
        claims.audiences = &both;
        claims.customers = Some(&customers);
        claims.customer_groups = Some(&groups);
        claims.certificate = Some(certificate);
    });
    stage.service.until("the client may call both", async || stage.is_active(&token).await).await;
    let mut told = stage.introspect(&token).await.json();
    assert!(told["jti"].take().as_str().unwrap().starts_with("web~"));
    let now = now_of(&stage.service);
    assert_eq!(
        told,
        json!({
            "active": true, "client_id": ID, "token_type": "Bearer", "exp": now + 3600, "iat": now, "nbf": now,
            "sub": ID, "aud": both, "iss": stage.service.issuer, "jti": Value::Null,
            "cnf": {"x5t#S256": certificate.to_base64url()}, "customers": ["*"], "customer_groups": groups,
        })
    );
}

#[tokio::test]
async fn what_is_not_a_token_of_ours_is_inactive_and_nothing_more_is_told() {
    let stage = Stage::start().await;
    let good = stage.signed(|_| {});
    assert!(stage.is_active(&good).await);
    let (header, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let unpublished = signing_key_since_yesterday();
    let cases: BTreeMap<&str, String> = [
        ("§2.2: unknown", "2YotnFZFEjr1zCsicMWpAA".to_owned()),
        ("malformed: the header alone", header.to_owned()),
        ("malformed: no signature", format!("{header}.{payload}")),
        ("malformed: an empty signature", format!("{header}.{payload}.")),
        ("malformed: five parts", format!("{good}.a.b")),
        ("malformed: nested a thousand times", format!("{header}.{}.{signature}", "W1tb".repeat(1000))),
        ("alg none (RFC 8725 §2.1)", format!("{none}.{payload}.")),
        ("alg none with a signature", format!("{none}.{payload}.{signature}")),
        ("another payload", format!("{header}.{}.{signature}", payload.replace('i', "j"))),
        ("§4: signed by a key that is not published", signed_with(&unpublished, &stage.service.issuer, |_| {})),
        ("another issuer", stage.signed(|claims| claims.issuer = "https://evil.example")),
        ("no credential entry", stage.signed(|claims| claims.entry = None)),
    ]
    .into();
    for (case, token) in &cases {
        assert!(!stage.is_active(token).await, "{case}");
    }
    stage.counted("not_ours", u32::try_from(cases.len()).unwrap()).await;
}

#[tokio::test]
async fn a_token_is_active_within_its_time_alone_and_remembering_it_changes_nothing() {
    let stage = Stage::start().await;
    let early = stage.signed(|claims| claims.not_before = Some(claims.issued_at + SignedDuration::from_secs(10)));
    assert!(!stage.is_active(&early).await, "nbf");
    let token = stage.token().await;
    assert!(stage.is_active(&token).await);
    stage.service.clock.advance(SignedDuration::from_secs(10));
    assert!(stage.is_active(&early).await);
    stage.service.clock.advance(SignedDuration::from_secs(3589));
    assert!(stage.is_active(&token).await);
    stage.service.clock.advance(SignedDuration::from_secs(1));
    assert!(!stage.is_active(&token).await, "exp");
    stage.counted("not_yet", 1).await;
    stage.counted("expired", 1).await;
}

#[tokio::test]
async fn only_who_serves_the_tokens_audience_may_ask_for_it() {
    let stage = Stage::start().await;
    let token = stage.token().await;
    assert!(stage.is_active(&token).await);
    let calls_both = Entry::new(ID).api(OTHER, &["orders:read"]);
    stage.service.api.person_applies(&calls_both.secret());
    let other = stage.signed(|claims| claims.audiences = &[OTHER]);
    assert!(!stage.is_active(&other).await, "another audience");
    stage.counted("audience", 1).await;
    let own = stage.service.post_as("/introspect", ID, &[("token", &token)]).await;
    assert_eq!(
        (own.status, own.body.as_str()),
        (StatusCode::OK, r#"{"active":false}"#),
        "RFC 7662 §4: nor its own client"
    );
    stage.counted("audience", 2).await;
    let both = Entry::new(API).granted("servedAudiences", &[OTHER, "https://third.example"]);
    stage.service.api.person_applies(&both.secret());
    stage.service.until("served", async || stage.is_active(&other).await).await;
    assert!(!stage.is_active(&token).await, "what is no longer served, though it was verified before");
}

#[tokio::test]
async fn a_token_ends_with_its_client_its_entry_its_watermarks_and_its_key() {
    let stage = Stage::start().await;
    let applies = |entry: &Entry| drop(stage.service.api.person_applies(&entry.secret()));
    let token = stage.token().await;
    let changed = |path: &[&str], value: Value| {
        let mut entry = Entry::new(ID);
        let place = path.iter().fold(&mut entry.0, |place, name| &mut place[*name]);
        *place = value;
        entry
    };
    let now = at(NOW);
    let later = json!((now + SignedDuration::from_secs(1)).to_string());
    for (what, entry) in [
        ("the client was made anew", changed(&["createdAt"], later.clone())),
        ("revokedBefore of the client", changed(&["revokedBefore"], later.clone())),
        ("revokedBefore of the entry", changed(&["credentials", "web", "revokedBefore"], later)),
        ("the entry was removed", changed(&["credentials"], json!({"other": {"kind": "accessToken"}}))),
    ] {
        applies(&Entry::new(ID));
        stage.service.until("active", async || stage.is_active(&token).await).await;
        applies(&entry);
        stage.until_inactive(what, &token).await;
    }
    // Not what was issued at the watermark or after it: in whole seconds, as tokens have them.
    let exactly = json!(now.to_string());
    for path in [&["createdAt"][..], &["revokedBefore"], &["credentials", "web", "revokedBefore"]] {
        applies(&changed(path, exactly.clone()));
        stage.service.until("active", async || stage.is_active(&token).await).await;
    }
    stage.service.api.person_deletes("secrets", NAMESPACE, &Entry::new(ID).secret_name());
    stage.until_inactive("the client was deleted", &token).await;
    applies(&Entry::new(ID));
    stage.service.until("active", async || stage.is_active(&token).await).await;
    stage.service.api.controller_writes_signing_keys(&[&signing_key_since_yesterday()]);
    stage.until_inactive("the key is no longer published", &token).await;
}

#[tokio::test]
async fn a_client_that_the_watch_has_not_shown_is_looked_up_before_its_token_is_called_inactive() {
    let stage = Stage::start().await;
    stage.service.api.hold_watches();
    stage.service.api.person_applies(&Entry::new("shop.new").secret());
    let token = stage.signed(|claims| claims.client_id = "shop.new");
    stage.service.api.take_requests();
    assert!(stage.is_active(&token).await, "had from another replica a moment ago");
    assert!(stage.is_active(&token).await);
    let gets = |requests: Vec<String>| requests.iter().filter(|request| request.starts_with("get ")).count();
    assert_eq!(gets(stage.service.api.take_requests()), 1);
    let nobodys = stage.signed(|claims| claims.client_id = "shop.nobody");
    for _ in 0..30 {
        assert!(!stage.is_active(&nobodys).await);
    }
    assert_eq!(gets(stage.service.api.take_requests()), 9, "ten in all: the clock stands still");
    stage.counted("client", 30).await;
}

#[tokio::test]
async fn the_longest_token_can_be_introspected_and_revoked() {
    let stage = Stage::start().await;
    // 64 scopes and 64 customers of 128 characters, in base64.
    let scope = vec!["s".repeat(127); 128].join(" ");
    let token = stage.signed(|claims| claims.scope = &scope);
    assert!(token.len() > 21_000, "{}", token.len());
    assert!(stage.is_active(&token).await);
    assert_eq!(stage.service.post_as("/revoke", ID, &[("token", &token)]).await.status, StatusCode::OK);
    assert!(!stage.is_active(&token).await);
}

#[tokio::test]
async fn requests_that_are_not_understood_are_refused_as_rfc_7662_2_3_says() {
    let stage = Stage::start().await;
    let service = &stage.service;
    let token = stage.token().await;
    let url = service.url("/introspect");
    let form = |body: String| service.http().post(&url).header(header::CONTENT_TYPE, FORM).body(body);
    let authenticated = |body: String| form(body).basic_auth(API, Some(CLIENT_SECRET));
    for (case, request, expected) in [
        ("§2.1: not authenticated", form(format!("token={token}")), (401, "invalid_client")),
        ("§2.3: wrong", form(format!("token={token}")).basic_auth(API, Some("x")), (401, "invalid_client")),
        ("§2.3: unknown", form(format!("token={token}")).basic_auth("nobody", Some("x")), (401, "invalid_client")),
        (
            "§2.1: a token is no authentication here",
            form(format!("token={token}")).bearer_auth(&token),
            (401, "invalid_client"),
        ),
        ("§2.1: token is REQUIRED", authenticated("token_type_hint=access_token".into()), (400, "invalid_request")),
        ("RFC 6749 §3.2: nor empty", authenticated("token=".into()), (400, "invalid_request")),
        ("RFC 6749 §3.1: nor twice", authenticated(format!("token={token}&token=x")), (400, "invalid_request")),
        ("§2.1: a form", service.http().post(&url).json(&json!({"token": token})), (400, "invalid_request")),
        ("in UTF-8", authenticated("token=%ff".into()), (400, "invalid_request")),
        ("not endless", authenticated(format!("token={}", "a".repeat(70_000))), (413, "invalid_request")),
    ] {
        let answer = service.send(request).await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{case}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
    }
    let unauthenticated = service.send(form(format!("token={token}")).basic_auth(API, Some("x"))).await;
    assert!(unauthenticated.header("www-authenticate").unwrap().starts_with("Basic realm="));
    for method in [http::Method::GET, http::Method::PUT, http::Method::DELETE] {
        let answer = service.send(service.http().request(method.clone(), &url)).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")), "{method}");
    }
    for hint in ["access_token", "refresh_token", "urn:example:unknown", ""] {
        let answer = service.post_as("/introspect", API, &[("token", &token), ("token_type_hint", hint)]).await;
        assert_eq!(answer.json()["active"], true, "§2.1: the hint {hint:?} is but a hint");
    }
    let by_post = [("token", &*token), ("client_id", API), ("client_secret", CLIENT_SECRET)];
    let answer = service.send(service.http().post(&url).form(&by_post)).await;
    assert_eq!(answer.json()["active"], true, "client_secret_post");
}

#[tokio::test]
async fn before_there_is_a_key_to_verify_with_nobody_is_told_that_a_token_is_inactive() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    let cold = TokenService::start_on(api, certificate, "", Limits::default()).await;
    cold.until("listed", async || cold.readyz().await.body.contains("[+] ledger")).await;
    for path in ["/introspect", "/revoke"] {
        let answer = cold.post_as(path, API, &[("token", "x")]).await;
        assert_eq!(answer.error(), (503, "temporarily_unavailable".into()), "{path}");
        assert_eq!(answer.header("retry-after"), Some("5"), "{path}");
    }
}
