//! Every parser that meets the network, each with what must hold whatever it is given: it does not panic, and what it
//! accepts means the same when it is written down and read again.
//!
//! `fuzz/src/main.rs` gives them what libFuzzer thinks up; `tests/it/fuzz_corpus.rs` gives them the corpus.

use std::sync::LazyLock;

use appreg::api;
use appreg::config::forwarded::{CertificateHeader, ForwardedCertificates};
use appreg::credential::public_key;
use appreg::ledger::{self, Digest, Entry, Grant};
use appreg::rotation::{CLOCK_TOLERANCE, add};
use appreg::shared_lists::{LARGEST_FIELD_BYTES, List};
use appreg::signer::ca::CaIndex;
use appreg::signer::jwt::{self, PublicKey};
use appreg::signer::{Algorithm, Index};
use appreg::token_service::client_authentication::assertion::{Assertion, LONGEST_BYTES};
use appreg::token_service::client_authentication::basic;
use appreg::token_service::cluster_keys::Cluster;
use appreg::token_service::directory::{Client, Match};
use appreg::token_service::documents::names_tag;
use appreg::token_service::form::Form;
use appreg::token_service::forwarded;
use appreg::token_service::peer::Peer;
use appreg::token_service::texts::Texts;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Gives one input to one parser.
pub(crate) type Target = fn(&[u8]);

/// The targets by name; each has a directory in `fuzz/corpus/`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("access_token", access_token),
    ("basic", authorization),
    ("client_assertion", client_assertion),
    ("cluster_keys", cluster_keys),
    ("form", form),
    ("forwarded", forwarded_by_a_proxy),
    ("if_none_match", if_none_match),
    ("key_index", key_index),
    ("ledger_entry", ledger_entry),
    ("public_key", public_key_of_a_person),
    ("shared_list", shared_list),
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
        let Some(header) = json_of(data) else { return };
        assert_eq!((&header["typ"], &header["kid"]), (&json!("at+jwt"), &json!("k")), "another type or key");
        assert_eq!(header["alg"], "ES256", "another algorithm than the key's");
        assert!(
            header.get("crit").is_none_or(Value::is_null),
            "extensions that nobody here understands (RFC 7515 §4.1.11)"
        );
    }
    if let Some(token) = jwt::verify(&signed(right, data), keys) {
        let Some(says) = json_of(data) else { return };
        assert_eq!(says["iss"], token.issuer);
        assert_eq!((&says["sub"], &says["client_id"]), (&json!(token.client_id), &json!(token.client_id)));
        assert_eq!((&says["jti"], &says["exp"]), (&json!(token.jti), &json!(token.expires_at.as_second())));
        assert!(token.entry().is_none_or(|entry| token.jti.starts_with(entry)));
        assert!(token.scopes().all(|scope| !scope.is_empty()));
    }
}

/// The parameter `client_assertion`: as it is, and with the input as its header or as its claims.
fn client_assertion(data: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"ES256"}"#);
    let claims = URL_SAFE_NO_PAD.encode(br#"{"iss":"c","sub":"c","aud":"i","jti":"j","exp":1}"#);
    let data_as_segment = URL_SAFE_NO_PAD.encode(data);
    let as_it_is = std::str::from_utf8(data).unwrap_or_default().to_owned();
    for text in [as_it_is, format!("{data_as_segment}.{claims}.AA"), format!("{header}.{data_as_segment}.AA")] {
        if Assertion::parse(&text).is_err() {
            continue;
        }
        assert!(text.len() <= LONGEST_BYTES, "longer than allowed");
        let segments: Vec<&str> = text.split('.').collect();
        let [header, claims, _] = segments[..] else { panic!("{} segments", segments.len()) };
        let [Some(header), Some(claims)] =
            [header, claims].map(|segment| json_of(&URL_SAFE_NO_PAD.decode(segment).expect("base64url")))
        else {
            continue;
        };
        assert!(["ES256", "ES384", "EdDSA", "RS256", "PS256"].map(Value::from).contains(&header["alg"]), "{header}");
        assert!(header.get("crit").is_none(), "extensions that nobody here understands (RFC 7515 §4.1.11)");
        assert!(claims["iss"].is_string() && claims["sub"].is_string() && claims["exp"].is_number(), "{claims}");
    }
}

/// The cluster's two documents: the JWKS, and the discovery document beside it.
fn cluster_keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let right = r#"{"issuer":"https://kubernetes.default.svc"}"#;
    if let Some(cluster) = Cluster::parse(right, text) {
        assert!(cluster.keys.len() <= 64, "{} keys", cluster.keys.len());
    }
    if let Some(cluster) = Cluster::parse(text, r#"{"keys":[]}"#) {
        assert!(!cluster.issuer.is_empty() && cluster.keys.is_empty());
    }
}

/// What a proxy says of its client, in each of the headers, and in `X-Forwarded-For`.
fn forwarded_by_a_proxy(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let proxy = Peer { address: "192.0.2.1".parse().expect("an address"), certificate: None };
    let stranger = Peer { address: "192.0.2.2".parse().expect("an address"), certificate: None };
    let proxies = ["192.0.2.1/32", "2001:db8::/32"].map(|range| range.parse().expect("a range")).to_vec();
    for header in
        [CertificateHeader::ClientCert, CertificateHeader::SslClientCert, CertificateHeader::XForwardedClientCert]
    {
        let mut headers = HeaderMap::new();
        headers.insert(header.name(), value.clone());
        headers.insert("x-forwarded-for", value.clone());
        let proxies = ForwardedCertificates { header, proxies: Vec::clone(&proxies) };
        let sender = forwarded::sender(Some(&proxies), proxy, &headers);
        assert_eq!(sender.address, sender.address.to_canonical(), "one address in two ways");
        assert_eq!(sender.certificate, forwarded::certificate(header, &headers));
        assert_eq!(forwarded::sender(Some(&proxies), stranger, &headers), stranger, "anybody's word");
        assert_eq!(forwarded::sender(None, proxy, &headers), proxy, "anybody's word");
        headers.append(header.name(), value.clone());
        assert_eq!(forwarded::certificate(header, &headers), None, "one of two");
    }
}

/// A public key or a certificate that a person has written into a registration.
fn public_key_of_a_person(data: &[u8]) {
    let base64 = STANDARD.encode(data);
    let text = std::str::from_utf8(data).unwrap_or_default().to_owned();
    let pem = |pem: String| api::PublicKey { pem: Some(pem), der: None };
    let der = |der: String| api::PublicKey { pem: None, der: Some(der) };
    let armoured = |label: &str| format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
    for given in
        [pem(text.clone()), der(text), der(base64.clone()), pem(armoured("CERTIFICATE")), pem(armoured("PUBLIC KEY"))]
    {
        match public_key::read(&given) {
            Ok(read) => {
                assert!(read.verifier.jwk().is_some_and(|jwk| jwk.get("kid").is_some_and(Value::is_string)));
                assert!(read.verifier.jwk().is_some_and(|jwk| jwk.get("d").is_none()), "a private key");
                assert!(
                    public_key::is_same(&read.verifier, &read.verifier)
                        && public_key::thumbprint(&read.verifier).is_some()
                );
                assert_eq!(public_key::read(&given).as_ref(), Ok(&read), "read twice, and otherwise");
            }
            Err(unusable) => drop(unusable.to_string()),
        }
    }
}

/// A field of a shared list.
fn shared_list(data: &[u8]) {
    let list = List::parse(Some(data)).list;
    let json = list.to_json();
    assert!(json.len() <= LARGEST_FIELD_BYTES, "{} bytes", json.len());
    let again = List::parse(Some(&json));
    assert!(again.list == list && again.damage.is_none(), "a list is read otherwise when it is written again");
    assert!(list.clone().merge(&list) == list && List::default().merge(&list) == list, "merging changes it");
    let mut rest = list;
    rest.forget_ended(u32::MAX);
    assert!(rest.iter().all(|(_, until)| until == u32::MAX), "an end that does not come");
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
    let grant = entry.grant.clone();
    let client = Client::of(entry, &Texts::default());
    has_the_scopes_of(&client, &grant);
    assert!(client.scope.split(' ').all(|scope| scope.is_ascii() && !scope.contains(['"', '\\'])), "RFC 6749 §3.3");
    if let Match::Accepted(accepted) = client.match_client_secret(Digest::of(b"x"), NOW) {
        assert!(accepted.not_after > NOW, "accepted after its end");
    }
}

/// What the token endpoint makes of a grant is what the grant says, at each API.
fn has_the_scopes_of(client: &Client, grant: &Grant) {
    const SERVER: &str = "https://server";
    let is_token =
        |scope: &str| !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    if !grant.scopes.keys().all(|scope| is_token(scope)) {
        return;
    }
    for audience in grant.apis.keys().map(String::as_str).chain([SERVER, "https://nobody"]) {
        let granted = grant.scopes_at(audience, SERVER);
        let granted = granted.map(|scopes| scopes.into_iter().filter(|scope| is_token(scope)).collect::<Vec<_>>());
        let scope = client.scope_at(audience, SERVER);
        let served =
            scope.as_deref().map(|scope| scope.split(' ').filter(|scope| !scope.is_empty()).collect::<Vec<_>>());
        assert_eq!(served, granted, "other scopes at {audience}");
    }
}

/// The indexes of signing keys and of certificate authorities.
fn key_index(data: &[u8]) {
    if let Ok(index) = Index::parse(Some(data)) {
        assert_eq!(Index::parse(Some(&index.to_json())).as_ref(), Ok(&index));
        let signing = index.signing(NOW);
        assert!(
            signing.is_none_or(|key| index.is_published(&key.kid, NOW) && key.sign_from <= add(NOW, CLOCK_TOLERANCE))
        );
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

/// What was accepted as JSON, which it must be, in UTF-8 (RFC 7519 §7.2). `None` if a part that nobody reads is nested
/// deeper, or a number larger, than a [`Value`] can be: it was passed over without recursion.
fn json_of(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).expect("accepted, and not UTF-8");
    let _: IgnoredAny = serde_json::from_str(text).expect("accepted, and not JSON");
    serde_json::from_str(text).ok()
}

/// Every byte as `%XX`: what RFC 6749 Appendix B allows and no client does.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}
