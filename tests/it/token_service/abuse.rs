//! Floods and hostile requests: what fails too often, what is malformed on purpose, who never reads.

use std::net::IpAddr;
use std::time::Duration;

use appreg::ledger::Digest;
use appreg::token_service::server::Limits;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use jiff::SignedDuration;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::{Answer, CLIENT_SECRET, Entry, PATIENCE, TokenService, trusting};

const ID: &str = "shop.storefront";
const GRANT: &str = "grant_type=client_credentials";
const FORM: &str = "application/x-www-form-urlencoded";

/// A client with one connection for all its requests.
struct Flood<'a> {
    service: &'a TokenService,
    http: reqwest::Client,
}

impl<'a> Flood<'a> {
    fn on(service: &'a TokenService) -> Self {
        Self { service, http: service.http() }
    }

    /// The same from the address 127.0.0.`host`.
    fn from(host: u8, service: &'a TokenService) -> Self {
        let http = trusting(&service.certificate).local_address(IpAddr::from([127, 0, 0, host])).build().unwrap();
        Self { service, http }
    }

    async fn token(&self, client_id: &str, client_secret: &str) -> Answer {
        let request = self.http.post(self.service.url("/token")).basic_auth(client_id, Some(client_secret));
        self.service.send(request.form(&[("grant_type", "client_credentials")])).await
    }

    async fn body(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.http.post(self.service.url("/token")).header(header::CONTENT_TYPE, content_type);
        self.service.send(request.body(body)).await
    }
}

/// How often Secrets were read one by one.
fn live_reads(service: &TokenService) -> usize {
    service.api.requests().iter().filter(|request| request.starts_with("get ") && request.contains("/client-")).count()
}

#[tokio::test]
async fn wrong_client_secrets_get_429_after_twenty_and_the_client_still_its_token() {
    let service = TokenService::start().await;
    service.api.person_applies(&Entry::new("shop.other").secret());
    let flood = Flood::on(&service);
    service.until("known", async || flood.token("shop.other", CLIENT_SECRET).await.status == StatusCode::OK).await;
    service.clock.advance(SignedDuration::from_secs(5));
    // Each of two addresses has ten live reads at once.
    for host in [2, 3] {
        let flood = Flood::from(host, &service);
        for attempt in 0..10 {
            assert_eq!(flood.token(ID, "wrong").await.error(), (401, "invalid_client".into()), "{attempt}");
        }
    }
    let reads = live_reads(&service);
    for attempt in 0..30 {
        let answer = flood.token(ID, "wrong").await;
        let expected = (429, "temporarily_unavailable".into());
        assert_eq!(answer.error(), expected, "{attempt}: invalid_client would be final for programs");
        assert_eq!(answer.header("retry-after"), Some("1"), "RFC 9110 §10.2.3");
        assert_eq!(answer.header("www-authenticate"), None, "RFC 9110 §11.6.1: it belongs to a 401");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(live_reads(&service), reads, "nothing is read for what is beyond the limit");
    assert_eq!(flood.token(ID, CLIENT_SECRET).await.status, StatusCode::OK, "nobody can lock a client out");
    service.clock.advance(SignedDuration::from_millis(500));
    assert_eq!(flood.token("shop.other", "wrong").await.error().0, 401, "another client has a limit of its own");
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"failures_limited_total{by="client"} 30"#), "{metrics}");
    assert!(metrics.contains(r#"requests_total{endpoint="token",outcome="too_many_failures"} 30"#), "{metrics}");
    service.clock.advance(SignedDuration::from_secs(2));
    let after: Vec<u16> = [flood.token(ID, "x").await, flood.token(ID, "x").await, flood.token(ID, "x").await]
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    assert_eq!(after, [401, 401, 429], "two seconds pay for two");
}

#[tokio::test]
async fn an_address_gets_429_after_a_hundred_failures_whomever_it_names_and_who_is_right_still_a_token() {
    let service = TokenService::start().await;
    let flood = Flood::on(&service);
    for attempt in 0..100 {
        let answer = flood.token(&format!("nobody-{attempt}"), "x").await;
        // Of those that could not be looked up nobody knows that they fail.
        let expected = if attempt < 10 { (401, "invalid_client") } else { (503, "temporarily_unavailable") };
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{attempt}");
    }
    let reads = live_reads(&service);
    assert_eq!(reads, 10, "an address does not take the reads of all");
    for attempt in 100..150 {
        let answer = flood.token(&format!("nobody-{attempt}"), "x").await;
        assert_eq!((answer.error().0, answer.header("retry-after")), (429, Some("1")), "{attempt}");
    }
    assert_eq!(flood.token(ID, "wrong").await.error().0, 429, "a known client is no different");
    assert_eq!(live_reads(&service), reads);
    assert_eq!(flood.token(ID, CLIENT_SECRET).await.status, StatusCode::OK, "the same address with what is right");
    assert!(service.metrics().await.contains(r#"failures_limited_total{by="address"} 51"#));
    assert_eq!(Flood::from(2, &service).token("nobody", "x").await.error().0, 401, "another address has its own limit");
    service.clock.advance(SignedDuration::from_secs(1));
    let mut answered = Vec::new();
    for attempt in 200..212 {
        answered.push(flood.token(&format!("nobody-{attempt}"), "x").await.error().0);
    }
    assert_eq!(answered, [&[401; 2][..], &[503; 8], &[429; 2]].concat(), "a second pays for ten, and for two reads");
}

#[tokio::test]
async fn an_unknown_client_and_a_wrong_client_secret_get_the_same_answer_for_the_same_work() {
    let service = TokenService::start().await;
    let flood = Flood::on(&service);
    let mut seen = Vec::new();
    for client_id in [ID, "shop.nobody99"] {
        let before = live_reads(&service);
        let mut answer = flood.token(client_id, "wrong").await;
        answer.headers.remove(header::DATE);
        seen.push((answer.status, answer.headers, answer.body, live_reads(&service) - before));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].3, 1, "each has its entry read");
}

/// Ten thousand on the wire; that a hundred thousand names take no more memory than none is shown where the memory is.
#[tokio::test]
async fn ten_thousand_unknown_client_ids_get_the_same_answers_and_few_reads_of_the_ledger() {
    const AT_ONCE: usize = 100;
    let service = TokenService::start().await;
    let mut stream = service.connect("http/1.1").await;
    let mut statuses = std::collections::BTreeMap::<String, usize>::new();
    for batch in 0..100 {
        service.clock.advance(SignedDuration::from_millis(10));
        let mut requests = String::new();
        for n in 0..AT_ONCE {
            let body = format!("{GRANT}&client_id=nobody-{batch}-{n}&client_secret=x");
            requests.push_str(&head(body.len()));
            requests.push_str(&body);
        }
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut answers = String::new();
        while answers.matches("\"error\":").count() < AT_ONCE {
            let mut buffer = vec![0; 64 * 1024];
            let length = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
            answers.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        // A body has no line end: the next answer begins on its line.
        for status in answers.split("HTTP/1.1 ").skip(1) {
            *statuses.entry(status[..3].to_owned()).or_default() += 1;
        }
    }
    // A hundred at once and ten in the second that passed; of these ten and two could be looked up. The second is not over.
    let expected = [("401", 11), ("429", 9891), ("503", 98)];
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), expected.map(|(status, count)| (status.to_owned(), count)));
    assert_eq!(live_reads(&service), 11, "ten at once, two a second");
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
}

fn head(body_bytes: usize) -> String {
    format!("POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\ncontent-length: {body_bytes}\r\n\r\n")
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// JWTs that nobody may believe, or spend much on.
fn hostile_jwts(service: &TokenService) -> Vec<(&'static str, String)> {
    let now = super::now_of(service);
    let claims = part(
        &json!({"iss": ID, "sub": ID, "aud": service.issuer, "jti": "a", "iat": now, "exp": now + 60, "client_id": ID})
            .to_string(),
    );
    let signature = URL_SAFE_NO_PAD.encode([1; 64]);
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let nested = part(&format!(r#"{{"alg":"ES256","crit":{}}}"#, deep(2000)));
    let inner = format!("{}.{claims}.", part(r#"{"alg":"none"}"#));
    vec![
        ("alg none without a signature", inner.clone()),
        ("alg none with one", format!("{inner}{signature}")),
        ("alg None", format!("{}.{claims}.", part(r#"{"alg":"None","typ":"JWT"}"#))),
        ("no alg", format!("{}.{claims}.{signature}", part("{}"))),
        ("HS256", format!("{}.{claims}.{signature}", part(r#"{"alg":"HS256","typ":"JWT"}"#))),
        ("a header nested 2,000 deep", format!("{nested}.{claims}.{signature}")),
        ("claims nested 5,000 deep", format!("{}.{}.{signature}", part(r#"{"alg":"ES256"}"#), part(&deep(5000)))),
        ("a JWT in a JWT", format!("{}.{}.{signature}", part(r#"{"alg":"ES256","cty":"JWT"}"#), part(&inner))),
        (
            "nearly as large as a body may be",
            format!("{}.{}.{signature}", part(r#"{"alg":"ES256"}"#), "A".repeat(15_000)),
        ),
        ("five parts: encrypted", format!("{0}.{0}.{0}.{0}.{0}", part(r#"{"alg":"dir","enc":"A256GCM"}"#))),
        ("nothing but dots", ".".repeat(5000)),
        ("two dots", "..".to_owned()),
        ("a key in the header", format!("{}.{claims}.{signature}", part(r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#))),
        ("a key by URL", format!("{}.{claims}.{signature}", part(r#"{"alg":"ES256","jku":"https://evil.example"}"#))),
    ]
}

/// A key pair of a client, and the client's entry with its public half.
struct Signer {
    pair: EcdsaKeyPair,
    entry: Entry,
}

impl Signer {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y});
        let mut entry = Entry::new(ID).methods(&["client_secret_basic", "private_key_jwt"]);
        let verifier = json!({"spkiSHA256": Digest::of(b"spki").to_base64url(), "jwk": jwk});
        entry.0["credentials"]["key"] = json!({"kind": "publicKey", "revisions": [{
            "revision": 1, "mintedAt": "2026-10-01T00:00:00Z", "notAfter": "2026-12-30T00:00:00Z", "verifier": verifier,
        }]});
        Self { pair, entry }
    }

    /// `client_assertion` and its type, with these headers, signed by `sign`.
    fn assertion(service: &TokenService, header: &str, jti: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let now = super::now_of(service);
        let claims = json!({"iss": ID, "sub": ID, "aud": service.issuer, "jti": jti, "iat": now, "exp": now + 60});
        let message = format!("{}.{}", part(header), part(&claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
        assertion_form(&format!("{message}.{signature}"))
    }

    fn right(&self, service: &TokenService, jti: &str) -> String {
        let sign = |message: &[u8]| self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self::assertion(service, r#"{"alg":"ES256","kid":"k"}"#, jti, sign)
    }
}

fn assertion_form(jwt: &str) -> String {
    let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    format!("{GRANT}&client_assertion_type={kind}&client_assertion={jwt}")
}

#[tokio::test]
async fn hostile_jwts_as_client_assertions_are_refused_like_every_failed_authentication() {
    let service = TokenService::start().await;
    let signer = Signer::new();
    service.api.person_applies(&signer.entry.secret());
    let flood = Flood::on(&service);
    service
        .until("known", async || flood.body(FORM, signer.right(&service, "first")).await.status == StatusCode::OK)
        .await;
    let mut forms: Vec<_> =
        hostile_jwts(&service).into_iter().map(|(what, jwt)| (what, assertion_form(&jwt))).collect();
    // RFC 8725 §2.1: the public key, which everybody knows, taken for the key of an HMAC.
    let point = signer.pair.public_key().as_ref();
    for public in [point.to_vec(), signer.entry.0["credentials"]["key"].to_string().into_bytes()] {
        let sign = |message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), message).as_ref().to_vec();
        let header = r#"{"alg":"HS256","kid":"k"}"#;
        forms.push(("HS256 with the public key", Signer::assertion(&service, header, "a", sign)));
    }
    for (what, form) in forms {
        let answer = flood.body(FORM, form).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{what}");
        assert_eq!(answer.json()["error_description"], "client authentication failed", "{what}: not why");
        // Each is the first to fail: the limit is not what is shown here.
        service.clock.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(flood.body(FORM, signer.right(&service, "last")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn hostile_jwts_as_tokens_are_inactive_and_revoking_them_says_nothing() {
    let service = TokenService::start().await;
    let asks = Entry::new("shop.api").granted("servedAudiences", &["https://default.example"]);
    service.api.person_applies(&asks.secret());
    let flood = Flood::on(&service);
    service.until("known", async || flood.token("shop.api", CLIENT_SECRET).await.status == StatusCode::OK).await;
    let jwks = service.send(flood.http.get(service.url("/jwks"))).await.json();
    let x = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let y = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["y"].as_str().unwrap()).unwrap();
    let right = flood.token(ID, CLIENT_SECRET).await.json()["access_token"].as_str().unwrap().to_owned();
    let (message, _) = right.rsplit_once('.').unwrap();
    let (_, claims) = message.split_once('.').unwrap();
    let mut tokens = hostile_jwts(&service);
    for key in [[&[4], &*x, &*y].concat(), jwks["keys"][0].to_string().into_bytes()] {
        let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": jwks["keys"][0]["kid"]}).to_string();
        let message = format!("{}.{claims}", part(&header));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes());
        tokens.push(("HS256 with the public key", format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))));
    }
    let none = part(&json!({"alg": "none", "typ": "at+jwt", "kid": jwks["keys"][0]["kid"]}).to_string());
    tokens.push(("right claims and alg none", format!("{none}.{claims}.")));
    tokens.push(("right but for the signature", format!("{message}.{}", "A".repeat(86))));
    let ask = |path: &str, client_id: &str, token: &str| {
        let request = flood.http.post(service.url(path)).basic_auth(client_id, Some(CLIENT_SECRET));
        service.send(request.form(&[("token", token)]))
    };
    for (what, token) in &tokens {
        let answer = ask("/introspect", "shop.api", token).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, r#"{"active":false}"#), "{what}");
        assert_eq!(ask("/revoke", ID, token).await.status, StatusCode::OK, "{what}: RFC 7009 §2.2");
    }
    assert_eq!(ask("/introspect", "shop.api", &right).await.json()["active"], true, "and the right one is");
}

/// A service that knows the client of `signer`, and a neighbour on the same address who has failed too often.
async fn beside_a_failing_neighbour<'a>(service: &'a TokenService, signer: &Signer) -> Flood<'a> {
    service.api.person_applies(&signer.entry.secret());
    let neighbour = Flood::on(service);
    service
        .until("known", async || neighbour.body(FORM, signer.right(service, "first")).await.status == StatusCode::OK)
        .await;
    for attempt in 0..150 {
        neighbour.token(&format!("nobody-{attempt}"), "x").await;
    }
    assert_eq!(neighbour.token(ID, "wrong").await.error(), (429, "temporarily_unavailable".into()));
    neighbour
}

#[tokio::test]
async fn failures_of_an_address_hold_back_nobody_whose_assertions_are_right() {
    let (service, signer) = (TokenService::start().await, Signer::new());
    let neighbour = beside_a_failing_neighbour(&service, &signer).await;
    let kept = Flood::on(&service);
    for n in 0..50 {
        // On a connection that stays, and every time on a new one; the neighbour names the very same client.
        for flood in [&kept, &Flood::on(&service)] {
            let answer = flood.body(FORM, signer.right(&service, &super::proofs::jti())).await;
            assert_eq!(answer.status, StatusCode::OK, "{n}: {answer:?}");
        }
        assert_eq!(neighbour.token(ID, "wrong").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(
        neighbour.token(ID, CLIENT_SECRET).await.status,
        StatusCode::OK,
        "a client secret costs next to nothing"
    );
}

#[tokio::test]
async fn a_connection_that_fails_has_no_signature_verified_where_its_address_fails_too_often() {
    let (service, signer) = (TokenService::start().await, Signer::new());
    let _neighbour = beside_a_failing_neighbour(&service, &signer).await;
    let flood = Flood::on(&service);
    let wrong = || Signer::assertion(&service, r#"{"alg":"ES256","kid":"k"}"#, "second", |_| vec![1; 64]);
    for form in [wrong(), signer.right(&service, "second"), wrong()] {
        let answer = flood.body(FORM, form).await;
        assert_eq!(answer.error(), (429, "temporarily_unavailable".into()), "right or not, nobody looks");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let answer = Flood::on(&service).body(FORM, signer.right(&service, "second")).await;
    assert_eq!(answer.status, StatusCode::OK, "it was not used up: {answer:?}");
    service.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(flood.body(FORM, signer.right(&service, "third")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_credential_that_could_not_be_looked_up_is_told_to_come_again() {
    let service = TokenService::start().await;
    let flood = Flood::on(&service);
    service.api.hold_watches();
    for attempt in 0..50 {
        flood.token(&format!("nobody-{attempt}"), "x").await;
    }
    service.api.person_applies(&Entry::new("shop.fresh").secret());
    let answer = flood.token("shop.fresh", CLIENT_SECRET).await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable".into()), "401 would be final");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(service.ended("not_found_out").await, 41);
    let other = Flood::from(2, &service).token("shop.fresh", CLIENT_SECRET).await;
    assert_eq!(other.status, StatusCode::OK, "the flood has not taken the reads of others: {other:?}");
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_told_which_rule_they_break() {
    let service = TokenService::start().await;
    let flood = Flood::on(&service);
    let right = format!("{GRANT}&client_id={ID}&client_secret={CLIENT_SECRET}");
    let malformed: &[(&str, Vec<u8>)] = &[
        ("UTF-8 that ends too soon", [right.as_bytes(), b"&scope=\xc3"].concat()),
        ("a surrogate in UTF-8", [right.as_bytes(), b"&scope=\xed\xa0\x80"].concat()),
        ("UTF-8 longer than need be", [right.as_bytes(), b"&scope=%c0%af"].concat()),
        ("an unknown parameter that is not UTF-8", [right.as_bytes(), b"&x=%ff"].concat()),
        ("a name that is not UTF-8", [right.as_bytes(), b"&%ff=x"].concat()),
        ("half an escape", [right.as_bytes(), b"&scope=%4"].concat()),
        ("UTF-16", right.encode_utf16().flat_map(u16::to_be_bytes).chain(*b"&\xff=").collect()),
    ];
    for (what, body) in malformed {
        assert_eq!(flood.body(FORM, body.clone()).await.error(), (400, "invalid_request".into()), "{what}");
    }
    for parameter in ["grant_type", "scope", "client_id", "client_secret", "client_assertion", "token"] {
        for twice in [
            format!("{parameter}=a&{parameter}=b"),
            format!("{parameter}=a&%{:x}{}=a", parameter.as_bytes()[0], &parameter[1..]),
        ] {
            assert_eq!(flood.body(FORM, twice.clone()).await.error(), (400, "invalid_request".into()), "{twice}");
        }
    }
    for kind in [
        "application/json",
        "multipart/form-data; boundary=x",
        "text/plain",
        "",
        "application/x-www-form-urlencoded2",
        "*/*",
    ] {
        assert_eq!(flood.body(kind, right.clone()).await.error(), (400, "invalid_request".into()), "{kind}");
    }
    // At the limit of a body, whatever it is full of.
    for (what, filler) in [("&", "&"), ("=", "="), ("parameters", "&a"), ("escapes", "%41"), ("names", "&x=")] {
        let mut body = format!("{right}&x=1&");
        while body.len() + filler.len() <= 16 * 1024 {
            body.push_str(filler);
        }
        assert_eq!(flood.body(FORM, body).await.status, StatusCode::OK, "{what}: much, and nothing wrong");
    }
    let nul = format!("{GRANT}&client_id=%00&client_secret=%00");
    assert_eq!(flood.body(FORM, nul).await.error(), (401, "invalid_client".into()));
    assert_eq!(flood.body(FORM, right).await.status, StatusCode::OK);
}

async fn write_for_ever(stream: &mut TlsStream<TcpStream>) -> usize {
    let requests = "GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let mut written = 0;
    while stream.write_all(requests.as_bytes()).await.is_ok() {
        written += requests.len();
    }
    written
}

#[tokio::test]
async fn who_never_reads_its_answers_holds_one_connection_and_loses_it_at_a_deadline() {
    // No other deadline is near.
    let (write, header) = (Duration::from_millis(300), Duration::from_hours(1));
    let limits = Limits { connections_per_address: 2, write, header, ..Limits::default() };
    let service = TokenService::start_with("", limits).await;
    let mut deaf = service.connect("http/1.1").await;
    let (written, ()) = tokio::join!(write_for_ever(&mut deaf), async {
        // Others are answered meanwhile.
        let flood = Flood::on(&service);
        assert_eq!(flood.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    });
    assert!(written < 64 << 20, "what the sockets hold and no more: {written} bytes");
    service
        .until("its seat is free", async || {
            let two = (service.try_connect("h2").await, service.try_connect("h2").await);
            two.0.is_ok() && two.1.is_ok()
        })
        .await;
}
