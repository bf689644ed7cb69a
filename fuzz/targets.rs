//! Every parser that meets the network, each with what must hold whatever it is given: it does not panic, and what it
//! accepts means the same when it is written down and read again.
//!
//! `fuzz/src/main.rs` gives them what libFuzzer thinks up; `tests/it/fuzz_corpus.rs` gives them the corpus.

use std::sync::LazyLock;

use appreg::ledger::{self, Digest, Entry};
use appreg::signer::ca::CaIndex;
use appreg::signer::jwt::{self, PublicKey};
use appreg::signer::{Algorithm, Index};
use appreg::token_service::client_authentication::basic;
use appreg::token_service::directory::{Client, Match};
use appreg::token_service::documents::names_tag;
use appreg::token_service::form::Form;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Gives one input to one parser.
pub(crate) type Target = fn(&[u8]);

/// The targets by name; each has a directory in `fuzz/corpus/`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("access_token", access_token),
    ("basic", authorization),
    ("form", form),
    ("if_none_match", if_none_match),
    ("key_index", key_index),
    ("ledger_entry", ledger_entry),
];

const NOW: Timestamp = Timestamp::constant(1_795_341_600, 0);

/// The body of a request.
fn form(data: &[u8]) {
    let Ok(form) = Form::parse(data) else { return };
    let known = [
        ("grant_type", &form.grant_type),
        ("scope", &form.scope),
        ("client_id", &form.client_id),
        ("client_secret", &form.client_secret),
        ("client_assertion", &form.client_assertion),
        ("client_assertion_type", &form.client_assertion_type),
        ("token", &form.token),
    ];
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (name, value) in known {
        pairs.extend(value.as_deref().map(|value| (name, value)));
    }
    pairs.extend(form.resources.iter().map(|resource| ("resource", &**resource)));
    assert!(pairs.iter().all(|(_, value)| !value.is_empty()), "an empty value counts as omitted");
    let encoded: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let encoded = encoded.join("&");
    let Ok(again) = Form::parse(encoded.as_bytes()) else { panic!("what was accepted is refused when it is escaped") };
    assert!(
        again.grant_type == form.grant_type
            && again.scope == form.scope
            && again.client_id == form.client_id
            && again.client_secret == form.client_secret
            && again.client_assertion == form.client_assertion
            && again.client_assertion_type == form.client_assertion_type
            && again.token == form.token
            && again.resources == form.resources,
        "a form is read otherwise when it is escaped"
    );
}

/// The `Authorization` header: as it is, and as a client ID and a client secret that a client has escaped.
fn authorization(data: &[u8]) {
    if let Ok((client_id, _)) = basic(data) {
        assert!(data[..6].eq_ignore_ascii_case(b"Basic "), "another scheme");
        assert!(client_id.len() < data.len(), "longer than what it was read from");
    }
    let _ = basic(&[b"Basic ", data].concat());
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (client_id, client_secret) = text.split_once(':').unwrap_or((text, ""));
    let credentials = STANDARD.encode(format!("{}:{}", escaped(client_id), escaped(client_secret)));
    let read = basic(format!("Basic {credentials}").as_bytes());
    assert_eq!(read.ok(), Some((client_id.to_owned(), Digest::of(client_secret.as_bytes()))), "not what was sent");
}

/// The key that signs what [`access_token`] makes of its input.
struct Signer {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    });
    Signer { public: PublicKey::from_jwk(&jwk).expect("a JWK"), pair }
});

fn signed(header: &[u8], claims: &[u8]) -> Vec<u8> {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = SIGNER.pair.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
}

/// A token as it is, which nobody has signed; and what a signed one could have as header or as claims.
fn access_token(data: &[u8]) {
    let keys = [&SIGNER.public];
    assert!(jwt::verify(data, keys).is_none(), "accepted without a signature");
    let right = br#"{"typ":"at+jwt","alg":"ES256","kid":"k"}"#;
    let claims = br#"{"iss":"i","sub":"c","client_id":"c","aud":"a","jti":"j","iat":1,"exp":2}"#;
    if jwt::verify(&signed(data, claims), keys).is_some() {
        let header: Value = serde_json::from_slice(data).expect("an accepted header is JSON");
        assert_eq!((&header["typ"], &header["kid"]), (&json!("at+jwt"), &json!("k")), "another type or key");
        assert_eq!(header["alg"], "ES256", "another algorithm than the key's");
        assert!(
            header.get("crit").is_none_or(Value::is_null),
            "extensions that nobody here understands (RFC 7515 §4.1.11)"
        );
    }
    if let Some(token) = jwt::verify(&signed(right, data), keys) {
        let says: Value = serde_json::from_slice(data).expect("accepted claims are JSON");
        assert_eq!(says["iss"], token.issuer);
        assert_eq!((&says["sub"], &says["client_id"]), (&json!(token.client_id), &json!(token.client_id)));
        assert_eq!((&says["jti"], &says["exp"]), (&json!(token.jti), &json!(token.expires_at.as_second())));
        assert!(token.entry().is_none_or(|entry| token.jti.starts_with(entry)));
        assert!(token.scopes().all(|scope| !scope.is_empty()));
    }
}

/// The field `ledger.json` of a ledger entry.
fn ledger_entry(data: &[u8]) {
    let says: Value = serde_json::from_slice(data).unwrap_or_default();
    let text = |name: &str| says[name].as_str().unwrap_or_default();
    let name = ledger::name(text("server"), text("clientID"));
    let Ok(entry) = Entry::parse(&name, Some(data)) else { return };
    assert_eq!(entry.name(), name, "an entry under another's name");
    let again = Entry::parse(&name, Some(&entry.to_json()));
    assert_eq!(again.as_ref(), Ok(&entry), "an entry is read otherwise when it is written again");
    let client = Client::of(entry);
    assert!(client.scope.split(' ').all(|scope| scope.is_ascii() && !scope.contains(['"', '\\'])), "RFC 6749 §3.3");
    if let Match::Accepted(accepted) = client.match_client_secret(Digest::of(b"x"), NOW) {
        assert!(accepted.not_after > NOW, "accepted after its end");
    }
}

/// The indexes of signing keys and of certificate authorities.
fn key_index(data: &[u8]) {
    if let Ok(index) = Index::parse(Some(data)) {
        assert_eq!(Index::parse(Some(&index.to_json())).as_ref(), Ok(&index));
        let signing = index.signing(NOW);
        assert!(signing.is_none_or(|key| index.is_published(&key.kid, NOW) && key.sign_from <= NOW));
        assert!(index.keys().iter().all(|key| matches!(key.alg, Algorithm::ES256)));
    }
    if let Ok(index) = CaIndex::parse(Some(data)) {
        assert_eq!(CaIndex::parse(Some(&index.to_json())).as_ref(), Ok(&index));
        let _ =
            (index.signing(NOW), index.bundle(NOW), index.needs_new(NOW), index.expired(NOW), index.next_transition());
    }
}

/// The header `If-None-Match`.
fn if_none_match(data: &[u8]) {
    let Ok(tags) = HeaderValue::from_bytes(data) else { return };
    let has = |text: &[u8]| data.windows(text.len()).any(|window| window == text);
    for tag in ["\"abc\"", "\"\""] {
        let etag = HeaderValue::from_static(tag);
        if names_tag(&tags, &etag) {
            assert!(has(tag.as_bytes()) || has(b"*"), "a tag that is not there");
            let longer = HeaderValue::from_bytes(&[b"\"q\", ", data].concat()).expect("a header's value");
            assert!(names_tag(&longer, &etag), "one more in the list, and the tag is gone");
        }
    }
}

/// Every byte as `%XX`: what RFC 6749 Appendix B allows and no client does.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}
