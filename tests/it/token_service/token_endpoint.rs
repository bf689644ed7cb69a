//! `POST /token`, case by case against the text of the RFCs, and with libraries nobody here wrote.

use appreg::clock::Clock as _;
use http::header;
use jiff::SignedDuration;
use oauth2::TokenResponse as _;
use reqwest::RequestBuilder;
use serde_json::json;

use super::{CLIENT_SECRET, Entry, TokenService, claims, now_of};

const ID: &str = "shop.storefront";
const GRANT: &str = "grant_type=client_credentials";
const FORM: &str = "application/x-www-form-urlencoded";

/// What is sent, beyond a POST to the endpoint.
type Request = fn(RequestBuilder) -> RequestBuilder;

/// A refused request: where it is written, what is sent, the status, the error.
type Refused = (&'static str, Request, u16, &'static str);

fn form(request: RequestBuilder, body: impl Into<String>) -> RequestBuilder {
    request.header(header::CONTENT_TYPE, FORM).body(body.into())
}

fn basic(request: RequestBuilder, body: impl Into<String>) -> RequestBuilder {
    form(request.basic_auth(ID, Some(CLIENT_SECRET)), body)
}

fn post(request: RequestBuilder, more: &str) -> RequestBuilder {
    form(request, format!("{GRANT}&client_id={ID}&client_secret={CLIENT_SECRET}{more}"))
}

fn query(request: RequestBuilder, query: &str) -> RequestBuilder {
    let (http, request) = request.build_split();
    let mut request = request.unwrap();
    request.url_mut().set_query(Some(query));
    RequestBuilder::from_parts(http, request)
}

const REFUSED: &[Refused] = &[
    ("RFC 6749 §4.4.2: grant_type is REQUIRED", |r| basic(r, "scope=orders:read"), 400, "invalid_request"),
    ("RFC 6749 §3.2: a parameter without a value is omitted", |r| basic(r, "grant_type="), 400, "invalid_request"),
    ("RFC 6749 §5.2: grant type not supported", |r| basic(r, "grant_type=password"), 400, "unsupported_grant_type"),
    ("RFC 6749 §4.4.2: case matters", |r| basic(r, "grant_type=Client_Credentials"), 400, "unsupported_grant_type"),
    ("RFC 6749 §3.2: no parameter twice", |r| basic(r, format!("{GRANT}&{GRANT}")), 400, "invalid_request"),
    ("RFC 6749 §3.2: nor another", |r| basic(r, format!("{GRANT}&scope=a&scope=a")), 400, "invalid_request"),
    ("RFC 6749 §4.4.2: in the body, as a form", |r| r.basic_auth(ID, Some(CLIENT_SECRET)), 400, "invalid_request"),
    (
        "RFC 6749 §4.4.2: not as JSON",
        |r| r.basic_auth(ID, Some(CLIENT_SECRET)).json(&json!({"grant_type": "client_credentials"})),
        400,
        "invalid_request",
    ),
    ("RFC 6749 §4.4.2: in UTF-8", |r| basic(r, format!("{GRANT}&scope=%ff")), 400, "invalid_request"),
    ("RFC 6749 App. B: well encoded", |r| basic(r, format!("{GRANT}&scope=%zz")), 400, "invalid_request"),
    ("RFC 6749 §2.3.1: not in the URI", |r| post(query(r, "client_secret=x"), ""), 400, "invalid_request"),
    ("RFC 6749 §2.3: one method per request", |r| basic(r, format!("{GRANT}&client_secret=x")), 400, "invalid_request"),
    ("RFC 6749 §2.3: nor two clients", |r| basic(r, format!("{GRANT}&client_id=other")), 400, "invalid_request"),
    ("RFC 7521 §4.2: nor an assertion too", |r| post(r, "&client_assertion=x"), 400, "invalid_request"),
    (
        "RFC 9110 §11.6.2: one Authorization",
        |r| basic(r, GRANT).header(header::AUTHORIZATION, "Basic YTpi"),
        400,
        "invalid_request",
    ),
    ("RFC 6749 §5.2: no client authentication included", |r| form(r, GRANT), 401, "invalid_client"),
    ("RFC 6749 §5.2: a client_id alone", |r| form(r, format!("{GRANT}&client_id={ID}")), 401, "invalid_client"),
    (
        "RFC 6749 §5.2: unsupported authentication method",
        |r| form(r, format!("{GRANT}&client_assertion_type=x&client_assertion=y")),
        401,
        "invalid_client",
    ),
    ("RFC 6749 §5.2: not Basic", |r| form(r.bearer_auth("x"), GRANT), 401, "invalid_client"),
    ("RFC 7617 §2: not base64", |r| form(r.header(header::AUTHORIZATION, "Basic ???"), GRANT), 401, "invalid_client"),
    ("RFC 6749 §5.2: unknown client", |r| form(r.basic_auth("nobody", Some("x")), GRANT), 401, "invalid_client"),
    ("RFC 6749 §5.2: wrong client secret", |r| form(r.basic_auth(ID, Some("x")), GRANT), 401, "invalid_client"),
    ("RFC 6749 §2.3.1: no client secret", |r| form(r.basic_auth(ID, Some("")), GRANT), 401, "invalid_client"),
    (
        "RFC 6749 §2.3.1: the same in the body",
        |r| form(r, format!("{GRANT}&client_id={ID}&client_secret=x")),
        401,
        "invalid_client",
    ),
    ("RFC 6749 §5.2: exceeds the scope granted", |r| post(r, "&scope=orders:read+admin"), 400, "invalid_scope"),
    ("RFC 6749 §5.2: malformed scope", |r| post(r, "&scope=+"), 400, "invalid_scope"),
    ("RFC 8707 §2: resource not allowed", |r| post(r, "&resource=https://other.example"), 400, "invalid_target"),
    ("RFC 8707 §2: malformed resource", |r| post(r, "&resource=default.example"), 400, "invalid_target"),
];

#[tokio::test]
async fn each_refusal_has_the_error_status_and_headers_of_the_rfcs() {
    let service = TokenService::start().await;
    for (rule, request, status, error) in REFUSED {
        let request = request(service.http().post(service.url("/token"))).build().unwrap();
        let answer = super::answer_of(service.http().execute(request).await.unwrap()).await;
        assert_eq!(answer.error(), (*status, (*error).to_owned()), "{rule}: {answer:?}");
        // RFC 9110 §15.5.2: a 401 names the scheme; RFC 6749 §5.2 asks for it where the Authorization header was used.
        let challenge = answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic realm="));
        assert_eq!(challenge, *status == 401, "{rule}: {answer:?}");
        // RFC 6749 §5.1.
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{rule}");
        assert_eq!(answer.header("pragma"), Some("no-cache"), "{rule}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{rule}");
        assert!(!answer.body.contains("canary"), "{rule}");
    }
    assert!(!service.metrics().await.contains("canary"));
}

/// An accepted request: where it is written, what is sent, the scope it gets.
type Accepted = (&'static str, Request, &'static str);

const ACCEPTED: &[Accepted] = &[
    ("RFC 6749 §2.3.1: the Authorization header", |r| basic(r, GRANT), "orders:read orders:write"),
    ("RFC 6749 §2.3.1: the body", |r| post(r, ""), "orders:read orders:write"),
    (
        "RFC 6749 §2.3.1, App. B: encoded before base64",
        |r| form(r.basic_auth("shop%2Estorefront", Some(CLIENT_SECRET.replace('_', "%5F"))), GRANT),
        "orders:read orders:write",
    ),
    (
        "RFC 6749 §3.2.1: client_id besides the header",
        |r| basic(r, format!("{GRANT}&client_id={ID}")),
        "orders:read orders:write",
    ),
    ("RFC 6749 §3.2: unknown parameters are ignored", |r| post(r, "&x=1&x=2&audience=y"), "orders:read orders:write"),
    (
        "RFC 6749 §3.2: empty is omitted",
        |r| basic(r, format!("{GRANT}&client_secret=&scope=&scope=")),
        "orders:read orders:write",
    ),
    ("RFC 6749 §3.1: a query may be there", |r| post(query(r, "tenant=a"), ""), "orders:read orders:write"),
    ("RFC 6749 §3.3: narrowed", |r| post(r, "&scope=orders:read"), "orders:read"),
    (
        "RFC 6749 §3.3: the order does not matter",
        |r| post(r, "&scope=orders:write+orders:read"),
        "orders:read orders:write",
    ),
    ("RFC 8707 §2: the resource granted", |r| post(r, "&resource=https://default.example"), "orders:read orders:write"),
    (
        "RFC 9110 §8.3.1: parameters of the type",
        |r| post(r, "").header("x", "y").version(http::Version::HTTP_2),
        "orders:read orders:write",
    ),
];

#[tokio::test]
async fn each_accepted_request_gets_a_token_of_rfc_9068() {
    let service = TokenService::start().await;
    for (rule, request, scope) in ACCEPTED {
        let answer = service.send(request(service.http().post(service.url("/token")))).await;
        assert_eq!(answer.status, 200, "{rule}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{rule}");
        assert_eq!(answer.header("pragma"), Some("no-cache"), "{rule}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{rule}");
        let body = answer.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&json!("Bearer"), &json!(3600), &json!(scope))
        );
        let claims = claims(&answer);
        assert_eq!(claims["iss"], json!(service.issuer), "{rule}");
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(ID), &json!(ID)), "{rule}");
        assert_eq!((&claims["aud"], &claims["scope"]), (&json!("https://default.example"), &json!(scope)), "{rule}");
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(now_of(&service)), &json!(now_of(&service) + 3600)));
        assert!(claims["jti"].as_str().unwrap().starts_with("web.1~"), "{rule}: {claims}");
    }
    assert_eq!(service.api.requests().iter().filter(|request| request.starts_with("get secrets")).count(), 0);
}

#[tokio::test]
async fn other_methods_are_answered_with_405_and_allow() {
    let service = TokenService::start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = service.send(service.http().request(method.clone(), service.url("/token"))).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")), "{method}");
    }
}

#[tokio::test]
async fn customers_and_the_registered_method_come_from_the_grant() {
    let service = TokenService::start().await;
    let entry = Entry::new("shop.partner")
        .granted("scopes", &[])
        .granted("customers", &["acme", "globex"])
        .granted("customerGroups", &["emea-retail"])
        .methods(&["client_secret_post"]);
    service.api.person_applies(&entry.secret());
    let body = format!("{GRANT}&client_id=shop.partner&client_secret={CLIENT_SECRET}");
    let answer = service.send(form(service.http().post(service.url("/token")), body)).await;
    assert!(answer.json().get("scope").is_none(), "nothing is granted: {answer:?}");
    let all = claims(&answer);
    assert_eq!(all["customers"], json!(["acme", "globex"]));
    assert_eq!(all["customer_groups"], json!(["emea-retail"]));
    let answer = service.token("shop.partner", CLIENT_SECRET).await;
    assert_eq!(answer.error(), (401, "invalid_client".into()), "RFC 7591 §2: another method than the registered one");
}

#[tokio::test]
async fn a_public_client_gets_no_token_however_it_asks() {
    let service = TokenService::start().await;
    let mut public = Entry::new("shop.mobile").methods(&["none"]).grant_types(&["authorization_code", "refresh_token"]);
    let with_a_secret_of_before = public.clone();
    public.0["credentials"] = json!({});
    for entry in [public, with_a_secret_of_before] {
        service.api.person_applies(&entry.secret());
        service.until("known", async || service.metrics().await.contains("token_service_clients 2")).await;
        for (what, request) in [
            ("its client_id alone", format!("{GRANT}&client_id=shop.mobile")),
            ("an empty client secret", format!("{GRANT}&client_id=shop.mobile&client_secret=")),
            ("a client secret", format!("{GRANT}&client_id=shop.mobile&client_secret={CLIENT_SECRET}")),
            ("a code", "grant_type=authorization_code&code=a&client_id=shop.mobile".to_owned()),
        ] {
            let answer = service.send(form(service.http().post(service.url("/token")), request)).await;
            let expected = if what == "a code" { (400, "unsupported_grant_type") } else { (401, "invalid_client") };
            assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{what}");
        }
        let answer = service.token("shop.mobile", CLIENT_SECRET).await;
        assert_eq!(answer.error(), (401, "invalid_client".to_owned()), "in the Authorization header");
    }
}

#[tokio::test]
async fn every_live_revision_is_accepted_while_it_is_valid_and_no_token_outlives_it() {
    let service = TokenService::start().await;
    let entry = Entry::new("shop.rotated")
        .client_secret("web", "apr_next", "2026-11-22T10:00:00Z", "2027-02-01T00:00:00Z")
        .client_secret("ci", "apr_short", "2026-11-22T10:00:30Z", "2026-11-22T10:10:00Z")
        .client_secret("ci", "apr_future", "2026-11-22T10:02:00Z", "2026-12-22T10:10:00Z")
        .client_secret("ci", "apr_past", "2026-10-22T10:10:00Z", "2026-11-22T10:00:00Z");
    service.api.person_applies(&entry.secret());
    let now = now_of(&service);
    for (client_secret, entry, lives) in
        [(CLIENT_SECRET, "web.1~", 3600), ("apr_next", "web.2~", 3600), ("apr_short", "ci.1~", 600)]
    {
        let answer = service.token("shop.rotated", client_secret).await;
        assert_eq!(answer.json()["expires_in"], json!(lives), "{client_secret}");
        let claims = claims(&answer);
        assert_eq!(claims["exp"], json!(now + lives));
        assert!(claims["jti"].as_str().unwrap().starts_with(entry));
    }
    for client_secret in ["apr_future", "apr_past"] {
        assert_eq!(service.token("shop.rotated", client_secret).await.error(), (401, "invalid_client".into()));
    }
    service.clock.advance(SignedDuration::from_mins(10));
    assert_eq!(service.clock.now().to_string(), "2026-11-22T10:10:00Z");
    assert_eq!(service.token("shop.rotated", "apr_short").await.error(), (401, "invalid_client".into()));
    assert_eq!(service.token("shop.rotated", "apr_future").await.status, 200);
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"requests_total{endpoint="token",outcome="not_valid_now"} 3"#), "{metrics}");
}

#[tokio::test]
async fn a_foreign_client_gets_a_token_that_a_foreign_library_validates_by_discovery() {
    let service = TokenService::start_with("/tenant", super::Limits::default()).await;
    let http = service.http();
    let well_known = service.url("/.well-known/oauth-authorization-server/tenant");
    let metadata = service.send(http.get(well_known)).await.json();
    let text = |name: &str| metadata[name].as_str().unwrap().to_owned();

    let client = oauth2::basic::BasicClient::new(oauth2::ClientId::new(ID.into()))
        .set_client_secret(oauth2::ClientSecret::new(CLIENT_SECRET.into()))
        .set_token_uri(oauth2::TokenUrl::new(text("token_endpoint")).unwrap());
    let call = |request: oauth2::HttpRequest| {
        let http = http.clone();
        async move {
            let (parts, body) = request.into_parts();
            let request = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let response = request.send().await?;
            let mut answer = oauth2::HttpResponse::new(Vec::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = response.headers().clone();
            *answer.body_mut() = response.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(answer)
        }
    };
    let scope = oauth2::Scope::new("orders:read".into());
    let token = client.exchange_client_credentials().add_scope(scope).request_async(&call).await.unwrap();
    assert_eq!(token.expires_in(), Some(std::time::Duration::from_hours(1)));
    assert_eq!(token.scopes().unwrap().len(), 1);

    let jwks: jsonwebtoken::jwk::JwkSet =
        serde_json::from_value(service.send(http.get(text("jwks_uri"))).await.json()).unwrap();
    let token = token.access_token().secret();
    let head = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!((head.typ.as_deref(), head.alg), (Some("at+jwt"), jsonwebtoken::Algorithm::ES256), "RFC 9068 §2.1");
    let key = jsonwebtoken::DecodingKey::from_jwk(jwks.find(&head.kid.unwrap()).unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_issuer(&[text("issuer")]);
    rules.set_audience(&["https://default.example"]);
    rules.validate_exp = false; // it would read the system's clock
    let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules).unwrap().claims;
    assert_eq!((claims["client_id"].as_str(), claims["scope"].as_str()), (Some(ID), Some("orders:read")));
}
