//! `private_key_jwt`, case by case against RFC 7523, its revision (draft-ietf-oauth-rfc7523bis), RFC 7519, RFC 7515 and
//! RFC 8725.

use std::sync::LazyLock;

use appreg::api::KeyType;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::proofs::{CERTIFICATE, Key, PUBLIC_KEY, authority, jti, unsigned};
use super::{Answer, CLIENT_SECRET, Entry, TokenService, claims, now_of};

const ID: &str = "shop.robot";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FROM: &str = "2026-10-01T00:00:00Z";
const UNTIL: &str = "2026-12-30T00:00:00Z";

/// The keys of the client `shop.robot`.
struct Keys {
    /// Of the entry `mtls`: the revision that is replaced, and the one that replaces it.
    old: Key,
    new: Key,
    /// Of the same entry: ended, and not begun.
    ended: Key,
    coming: Key,
    /// Of entries of their own.
    p384: Key,
    ed25519: Key,
    rsa: Key,
    /// Nobody's.
    stranger: Key,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let p256 = || Key::new(KeyType::EcdsaP256);
    let (old, new, ended, coming, stranger) = (p256(), p256(), p256(), p256(), p256());
    let [p384, ed25519, rsa] = [KeyType::EcdsaP384, KeyType::Ed25519, KeyType::Rsa2048].map(Key::new);
    Keys { old, new, ended, coming, p384, ed25519, rsa, stranger }
});

/// The ledger's entry of the client.
fn entry() -> Entry {
    let keys = &*KEYS;
    Entry::new(ID)
        .methods(&["private_key_jwt"])
        .revision(("mtls", CERTIFICATE), &keys.ended.of_certificate(), FROM, "2026-11-22T10:00:00Z")
        .revision(("mtls", CERTIFICATE), &keys.old.of_certificate(), FROM, "2026-11-22T10:30:00Z")
        .revision(("mtls", CERTIFICATE), &keys.new.of_certificate(), "2026-11-22T10:00:30Z", UNTIL)
        .revision(("mtls", CERTIFICATE), &keys.coming.of_certificate(), "2026-11-22T10:02:00Z", UNTIL)
        .revision(("p384", PUBLIC_KEY), &keys.p384.of_key(), FROM, UNTIL)
        .revision(("ed25519", PUBLIC_KEY), &keys.ed25519.of_key(), FROM, UNTIL)
        .revision(("rsa", PUBLIC_KEY), &keys.rsa.of_certificate(), FROM, UNTIL)
}

async fn service() -> TokenService {
    let service = TokenService::start().await;
    service.api.person_applies(&entry().secret());
    // Somebody whose key is RSA alone.
    let other = Entry::new("shop.rsa").methods(&["private_key_jwt"]);
    let other = other.revision(("rsa", PUBLIC_KEY), &KEYS.rsa.of_key(), FROM, UNTIL);
    service.api.person_applies(&other.secret());
    // And somebody whose method is another one.
    let basic = Entry::new("shop.basic").revision(("key", PUBLIC_KEY), &KEYS.rsa.of_key(), FROM, UNTIL);
    service.api.person_applies(&basic.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 4")).await;
    service
}

/// An assertion in the making, good as it is.
struct Draft<'a> {
    service: &'a TokenService,
    key: &'a Key,
    alg: Algorithm,
    header: Value,
    claims: Value,
    /// More parameters of the request.
    more: Vec<(&'static str, String)>,
    now: i64,
}

impl<'a> Draft<'a> {
    fn new(service: &'a TokenService) -> Self {
        let now = now_of(service);
        let claims = json!({
            "iss": ID, "sub": ID, "aud": service.issuer, "exp": now + 300, "iat": now, "jti": jti(),
        });
        let header = json!({"alg": "ES256", "kid": KEYS.old.kid(), "typ": "JWT"});
        Self { service, key: &KEYS.old, alg: Algorithm::ES256, header, claims, more: Vec::new(), now }
    }

    fn by(mut self, key: &'a Key, alg: Algorithm) -> Self {
        (self.key, self.alg) = (key, alg);
        self.header["alg"] = json!(format!("{alg:?}"));
        self.header["kid"] = json!(key.kid());
        self
    }

    fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    fn head(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    fn of(self, client_id: &str) -> Self {
        self.claim("iss", client_id).claim("sub", client_id)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.more.push((name, value.to_owned()));
        self
    }

    fn headless(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name);
        self
    }

    fn text(&self) -> String {
        self.key.sign(self.alg, &self.header, &self.claims)
    }

    async fn send(&self) -> Answer {
        self.send_as(&self.text()).await
    }

    async fn send_as(&self, assertion: &str) -> Answer {
        send(self.service, assertion, &self.more).await
    }
}

async fn send(service: &TokenService, assertion: &str, more: &[(&'static str, String)]) -> Answer {
    let mut form =
        vec![("grant_type", "client_credentials"), ("client_assertion_type", TYPE), ("client_assertion", assertion)];
    form.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
    service.post(&form).await
}

/// A change of a good assertion: where it is written, what it is.
type Accepted = (&'static str, fn(Draft<'_>) -> Draft<'_>);

const ACCEPTED: &[Accepted] = &[
    ("RFC 7523 §3: as it should be", |d| d),
    ("RFC 7518 §3.1: ES384", |d| d.by(&KEYS.p384, Algorithm::ES384)),
    ("RFC 8037 §3.1: EdDSA", |d| d.by(&KEYS.ed25519, Algorithm::EdDSA)),
    ("RFC 7518 §3.1: RS256", |d| d.by(&KEYS.rsa, Algorithm::RS256)),
    ("RFC 7518 §3.1: PS256, by the same key", |d| d.by(&KEYS.rsa, Algorithm::PS256)),
    ("the new revision beside the old", |d| d.by(&KEYS.new, Algorithm::ES256)),
    ("RFC 7515 §4.1.4: no kid, all keys are tried", |d| d.by(&KEYS.new, Algorithm::ES256).headless("kid")),
    ("RFC 7515 §4.1.4: an unknown kid is a hint", |d| d.by(&KEYS.new, Algorithm::ES256).head("kid", "unknown")),
    ("the kid of a key of another type is none", |d| d.head("kid", KEYS.rsa.kid())),
    ("RFC 7519 §4.1.3: an array of one", |d| {
        let issuer = d.service.issuer.clone();
        d.claim("aud", json!([issuer]))
    }),
    ("RFC 7521 §4.2: client_id beside it", |d| d.with("client_id", ID)),
    ("RFC 7523 §3: iat is optional", |d| d.without("iat")),
    ("RFC 7519 §4.1.5: nbf has come", |d| {
        let now = d.now;
        d.claim("nbf", now)
    }),
    ("clocks differ by a minute: iat and nbf", |d| {
        let now = d.now;
        d.claim("iat", now + 60).claim("nbf", now + 60)
    }),
    ("clocks differ by a minute: five minutes ahead", |d| {
        let now = d.now;
        d.claim("exp", now + 360)
    }),
    ("clocks differ by a minute: ended", |d| {
        let now = d.now;
        d.claim("exp", now - 59)
    }),
    ("RFC 7519 §2: a date with a fraction", |d| {
        let exp = f64::from(u32::try_from(d.now).unwrap()) + 299.5;
        d.claim("exp", exp)
    }),
    ("RFC 7519 §5.1: typ is optional", |d| d.headless("typ")),
    ("RFC 7523bis: an explicit type", |d| d.head("typ", "client-authentication+jwt")),
    ("RFC 7515 §4.1.9: the same in full", |d| d.head("typ", "application/Client-Authentication+JWT")),
    ("a jti of 256 bytes", |d| {
        let id = format!("{:x>256}", jti());
        d.claim("jti", id)
    }),
    ("RFC 7519 §4: claims that nobody knows", |d| d.claim("x", json!({"y": [1]}))),
    ("RFC 7515 §4.1.3: keys that the header brings along are not looked at", |d| {
        d.head("jwk", KEYS.stranger.jwk().clone()).head("jku", "https://192.0.2.1/jwks")
    }),
];

#[tokio::test]
async fn each_good_assertion_gets_a_token_of_its_entry() {
    let service = service().await;
    for (rule, change) in ACCEPTED {
        let draft = change(Draft::new(&service));
        let answer = draft.send().await;
        assert_eq!(answer.status, 200, "{rule}: {answer:?}");
        let claims = claims(&answer);
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(ID), &json!(ID)), "{rule}");
        assert_eq!(claims["cnf"], Value::Null, "{rule}: bound to nothing");
        let entry = match draft.key.key_type {
            KeyType::EcdsaP256 => "mtls.",
            KeyType::EcdsaP384 => "p384.1~",
            KeyType::Ed25519 => "ed25519.1~",
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => "rsa.1~",
        };
        assert!(claims["jti"].as_str().unwrap().starts_with(entry), "{rule}: {claims}");
        // No token outlives the revision that it was had with.
        let lives = if draft.key.kid() == KEYS.old.kid() { 1800 } else { 3600 };
        assert_eq!(answer.json()["expires_in"], json!(lives), "{rule}");
    }
    let gets = service.api.requests().iter().filter(|request| request.starts_with("get secrets")).count();
    assert_eq!(gets, 0, "nothing was read live");
}

/// A change of a good assertion, and the reason that the metric gives.
type Refused = (&'static str, fn(Draft<'_>) -> Draft<'_>, &'static str);

const REFUSED: &[Refused] = &[
    (
        "RFC 7523bis: the token endpoint is no audience",
        |d| {
            let endpoint = format!("{}/token", d.service.issuer);
            d.claim("aud", endpoint)
        },
        "assertion_audience",
    ),
    (
        "RFC 7523bis: the issuer is the sole audience",
        |d| {
            let issuer = d.service.issuer.clone();
            d.claim("aud", json!([issuer, "https://other.example"]))
        },
        "assertion_audience",
    ),
    (
        "RFC 7523bis: nor with the token endpoint",
        |d| {
            let issuer = d.service.issuer.clone();
            let endpoint = format!("{issuer}/token");
            d.claim("aud", json!([endpoint, issuer]))
        },
        "assertion_audience",
    ),
    (
        "RFC 7523bis: the issuer as it is written",
        |d| {
            let issuer = format!("{}/", d.service.issuer);
            d.claim("aud", issuer)
        },
        "assertion_audience",
    ),
    ("RFC 7523 §3: for somebody else", |d| d.claim("aud", "https://other.example"), "assertion_audience"),
    ("RFC 7523 §3: for nobody", |d| d.claim("aud", json!([])), "assertion_audience"),
    ("RFC 7523 §3: aud is REQUIRED", |d| d.without("aud"), "assertion_malformed"),
    ("RFC 7519 §4.1.3: aud is text", |d| d.claim("aud", json!([[1]])), "assertion_malformed"),
    ("RFC 7523 §3: exp is REQUIRED", |d| d.without("exp"), "assertion_malformed"),
    ("RFC 7519 §2: a date is a number", |d| d.claim("exp", "1795341900"), "assertion_malformed"),
    ("RFC 7519 §2: that there is", |d| d.claim("exp", 1e300), "assertion_malformed"),
    (
        "RFC 7523 §3: unreasonably far in the future",
        |d| {
            let now = d.now;
            d.claim("exp", now + 361)
        },
        "assertion_time",
    ),
    ("RFC 7523 §3: for ever", |d| d.claim("exp", 9_999_999_999_i64), "assertion_time"),
    (
        "RFC 7523 §3: passed",
        |d| {
            let now = d.now;
            d.claim("exp", now - 60)
        },
        "assertion_time",
    ),
    (
        "RFC 7523 §3: nbf has not come",
        |d| {
            let now = d.now;
            d.claim("nbf", now + 61)
        },
        "assertion_time",
    ),
    (
        "RFC 7519 §4.1.6: issued in the future",
        |d| {
            let now = d.now;
            d.claim("iat", now + 61)
        },
        "assertion_time",
    ),
    ("RFC 7523 §3: jti, REQUIRED by us", |d| d.without("jti"), "assertion_malformed"),
    ("RFC 7519 §4.1.7: jti is text", |d| d.claim("jti", 7), "assertion_malformed"),
    ("an empty jti", |d| d.claim("jti", ""), "assertion_malformed"),
    ("a jti of 257 bytes", |d| d.claim("jti", "x".repeat(257)), "assertion_malformed"),
    ("RFC 7523 §3: iss is REQUIRED", |d| d.without("iss"), "assertion_malformed"),
    ("RFC 7523 §3: sub is REQUIRED", |d| d.without("sub"), "assertion_malformed"),
    ("RFC 7523 §3: iss is the client", |d| d.claim("iss", "https://other.example"), "assertion_issuer"),
    (
        "RFC 7523 §3: iss is the client, whoever it speaks for",
        |d| d.claim("iss", "https://other.example").with("client_id", ID),
        "assertion_issuer",
    ),
    ("RFC 7523 §3: sub is the client", |d| d.claim("sub", "shop.storefront").with("client_id", ID), "assertion_issuer"),
    ("RFC 7521 §4.2: client_id is the same", |d| d.with("client_id", "shop.rsa"), "assertion_malformed"),
    ("RFC 6749 §5.2: unknown client", |d| d.of("nobody"), "unknown_client"),
    ("RFC 6749 §5.2: a client without keys", |d| d.of("shop.storefront"), "assertion_algorithm"),
    ("RFC 7518 §3.1: not of the client's key", |d| d.of("shop.rsa"), "assertion_algorithm"),
    (
        "RFC 7591 §2: another method than the registered one",
        |d| d.of("shop.basic").by(&KEYS.rsa, Algorithm::RS256),
        "unregistered_method",
    ),
    (
        "RFC 8725 §2.1: an RSA key's name on another signature",
        |d| d.by(&KEYS.stranger, Algorithm::ES256).head("kid", KEYS.rsa.kid()),
        "assertion_signature",
    ),
    ("RFC 7515 §5.2: signed by somebody else", |d| d.by(&KEYS.stranger, Algorithm::ES256), "assertion_signature"),
    (
        "RFC 7515 §5.2: in the name of the client's key",
        |d| d.by(&KEYS.stranger, Algorithm::ES256).head("kid", KEYS.old.kid()),
        "assertion_signature",
    ),
    (
        "RFC 8725 §3.10: by a key that it brings along",
        |d| d.by(&KEYS.stranger, Algorithm::ES256).head("jwk", KEYS.stranger.jwk().clone()),
        "assertion_signature",
    ),
    (
        "by another of the client's keys than kid says",
        |d| d.by(&KEYS.old, Algorithm::ES256).head("kid", KEYS.new.kid()),
        "assertion_signature",
    ),
    ("rule R1: the revision has ended", |d| d.by(&KEYS.ended, Algorithm::ES256), "assertion_signature"),
    ("rule R1: the revision has not begun", |d| d.by(&KEYS.coming, Algorithm::ES256), "assertion_signature"),
    ("RFC 7515 §4.1.11: crit that nobody knows", |d| d.head("crit", json!(["x"])).head("x", 1), "assertion_malformed"),
    (
        "RFC 7797 §6: payloads that are not encoded",
        |d| d.head("crit", json!(["b64"])).head("b64", false),
        "assertion_malformed",
    ),
    ("RFC 7515 §4.1.11: an empty crit", |d| d.head("crit", json!([])), "assertion_malformed"),
    ("RFC 7515 §4.1.11: crit is no null", |d| d.head("crit", Value::Null), "assertion_malformed"),
    ("RFC 8725 §3.11: an access token is no assertion", |d| d.head("typ", "at+jwt"), "assertion_malformed"),
    ("RFC 8725 §3.11: nor is a proof of possession", |d| d.head("typ", "dpop+jwt"), "assertion_malformed"),
    ("RFC 8725 §3.2: an algorithm that nobody asked for", |d| d.head("alg", "ES256K"), "assertion_algorithm"),
    ("RFC 7515 §4.1.1: alg is REQUIRED", |d| d.headless("alg"), "assertion_malformed"),
    ("RFC 8725 §3.2: none under a signature", |d| d.head("alg", "none"), "assertion_algorithm"),
    ("more than 8 KiB", |d| d.claim("x", "x".repeat(6 * 1024)), "assertion_malformed"),
];

#[tokio::test]
async fn each_bad_assertion_is_refused_alike_and_its_reason_counted() {
    let service = service().await;
    let mut seen = std::collections::BTreeSet::new();
    for (rule, change, reason) in REFUSED {
        let before = service.ended(reason).await;
        let answer = change(Draft::new(&service)).send().await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{rule}: {answer:?}");
        assert!(answer.header("www-authenticate").is_some(), "{rule}: RFC 9110 §15.5.2");
        assert_eq!(service.ended(reason).await, before + 1, "{rule}: {reason}\n{}", service.metrics().await);
        seen.insert(answer.body);
        // What fails more often than once a second gets 429 instead.
        service.clock.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(seen.len(), 1, "one answer for all of them: {seen:?}");
}

#[tokio::test]
async fn what_is_no_jwt_is_refused() {
    let service = service().await;
    let good = || Draft::new(&service);
    let segment = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let head = segment(r#"{"alg":"ES256"}"#);
    let nested = segment(&format!(r#"{{"iss":"a","sub":"a","exp":1,"aud":{}{}}}"#, "[".repeat(2000), "]".repeat(2000)));
    let deep = segment(&format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000)));
    let twice = segment(&good().claims.to_string().replacen('{', r#"{"sub":"shop.storefront","#, 1));
    let claims_text = good().claims.to_string();
    let not_text = [&b"{\"x\":\"\xff\","[..], &claims_text.as_bytes()[1..]].concat();
    let not_text = URL_SAFE_NO_PAD.encode(not_text);
    let text = good().text();
    let (message, signature) = text.rsplit_once('.').unwrap();
    let claims = message.split_once('.').unwrap().1;
    for (what, assertion) in [
        ("nothing to take apart", "x".to_owned()),
        ("two parts", message.to_owned()),
        ("four parts", format!("{text}.")),
        ("five parts: encrypted (RFC 7516 §7.1)", "a.b.c.d.e".to_owned()),
        ("no header", format!(".{claims}.{signature}")),
        ("no claims", format!("{head}..{signature}")),
        ("padded", format!("{head}.{claims}=.{signature}")),
        ("no base64url", format!("{head}.{claims}.+/+/")),
        ("a header that is no JSON", format!("{}.{claims}.{signature}", segment("ES256"))),
        ("a header that is no object", format!("{}.{claims}.{signature}", segment("[]"))),
        ("claims that are no object", format!("{head}.{}.{signature}", segment("7"))),
        ("claims that are no UTF-8", format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode([0xff; 40]))),
        ("a claim that nobody reads, in no UTF-8", format!("{head}.{not_text}.{signature}")),
        ("nested claims", format!("{head}.{nested}.{signature}")),
        ("a nested header", format!("{deep}.{nested}.{signature}")),
        ("a claim that occurs twice", format!("{head}.{twice}.{signature}")),
        ("a space", format!(" {text}")),
        ("8 KiB and more", format!("{head}.{claims}.{}", "A".repeat(8 * 1024))),
    ] {
        let before = service.ended("assertion_malformed").await;
        let answer = send(&service, &assertion, &[]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{what}: {answer:?}");
        assert_eq!(service.ended("assertion_malformed").await, before + 1, "{what}");
    }
    assert_eq!(send(&service, &text, &[]).await.status, 200, "what they were made of is good");
}

#[tokio::test]
async fn a_signature_that_proves_nothing_is_refused() {
    let service = service().await;
    let refused = async |what: &str, assertion: &str, reason: &str| {
        let before = service.ended(reason).await;
        let answer = send(&service, assertion, &[]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{what}: {answer:?}");
        assert_eq!(service.ended(reason).await, before + 1, "{what}");
    };
    let draft = Draft::new(&service);
    for alg in ["none", "None", "NONE", ""] {
        let assertion = format!("{}.", unsigned(&json!({"alg": alg}), &draft.claims));
        refused("RFC 8725 §2.1: alg none", &assertion, "assertion_algorithm").await;
    }
    // RFC 8725 §2.1: HMAC with what everybody knows, in each form that somebody could take for the key.
    let jwk = KEYS.old.jwk();
    let decoded = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [&[4], &*decoded("x"), &*decoded("y")].concat();
    for secret in [jwk.to_string().into_bytes(), point, KEYS.old.minted.certificate_pem.clone().into_bytes(), vec![]] {
        let header = json!({"alg": "HS256", "kid": KEYS.old.kid()});
        let message = unsigned(&header, &draft.claims);
        let key = EncodingKey::from_secret(&secret);
        let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        refused("RFC 8725 §2.1: HS256", &format!("{message}.{mac}"), "assertion_algorithm").await;
    }
    let text = draft.text();
    let (message, signature) = text.rsplit_once('.').unwrap();
    let other = Draft::new(&service).text();
    let (_, others) = other.rsplit_once('.').unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    for (what, signature) in
        [("of another message", others), ("empty", ""), ("of zeros", &zeros), ("cut", &signature[..84])]
    {
        refused(what, &format!("{message}.{signature}"), "assertion_signature").await;
    }
    assert_eq!(draft.send().await.status, 200);
}

#[tokio::test]
async fn the_parameters_of_rfc_7521_are_there_once_and_right() {
    let service = service().await;
    let text = Draft::new(&service).text();
    let grant = ("grant_type", "client_credentials");
    let assertion = ("client_assertion", text.as_str());
    let kind = ("client_assertion_type", TYPE);
    let saml = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer");
    for (rule, form, error, reason) in [
        ("RFC 7521 §4.2: the type is REQUIRED", vec![grant, assertion], 401, "unsupported_method"),
        ("RFC 7523 §2.2: the type is a JWT", vec![grant, saml, assertion], 401, "unsupported_method"),
        ("RFC 7521 §4.2: the assertion is REQUIRED", vec![grant, kind], 401, "assertion_malformed"),
        ("RFC 6749 §3.2: once", vec![grant, kind, assertion, assertion], 400, "repeated_parameter"),
        ("RFC 6749 §2.3", vec![grant, kind, assertion, ("client_secret", CLIENT_SECRET)], 400, "several_methods"),
    ] {
        let answer = service.post(&form).await;
        assert_eq!(answer.status.as_u16(), error, "{rule}: {answer:?}");
        assert!(service.ended(reason).await > 0, "{rule}");
    }
    let request = service.http().post(service.url("/token")).basic_auth(ID, Some(CLIENT_SECRET));
    let answer = service.send(request.form(&[grant, kind, assertion])).await;
    assert_eq!(answer.error(), (400, "invalid_request".into()), "RFC 6749 §2.3: one method per request");
    assert_eq!(service.post(&[grant, kind, assertion]).await.status, 200, "what was refused has not been used");
}

#[tokio::test]
async fn an_assertion_is_accepted_once() {
    let service = service().await;
    let draft = Draft::new(&service).claim("jti", "once");
    assert_eq!(draft.send().await.status, 200);
    for assertion in [draft.text(), Draft::new(&service).claim("jti", "once").by(&KEYS.rsa, Algorithm::PS256).text()] {
        let answer = send(&service, &assertion, &[]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "RFC 7523 §3, point 7");
    }
    assert_eq!(service.ended("assertion_replayed").await, 2);
    let other = Draft::new(&service).of("shop.rsa").by(&KEYS.rsa, Algorithm::RS256).claim("jti", "once");
    assert_eq!(other.send().await.status, 200, "another client's");
    service.clock.advance(SignedDuration::from_millis(359_500));
    assert_eq!(draft.send().await.error(), (401, "invalid_client".into()));
    assert_eq!(service.ended("assertion_replayed").await, 3, "to the last moment that it could be used in");
    service.clock.advance(SignedDuration::from_millis(500));
    draft.send().await;
    assert_eq!(service.ended("assertion_time").await, 1);
    let again = Draft::new(&service).claim("jti", "once").by(&KEYS.new, Algorithm::ES256);
    service.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(again.send().await.status, 200, "a new assertion, long after");
}

#[tokio::test]
async fn old_and_new_key_are_accepted_until_the_old_one_ends() {
    let service = service().await;
    for _ in 0..2 {
        for key in [&KEYS.old, &KEYS.new] {
            assert_eq!(Draft::new(&service).by(key, Algorithm::ES256).send().await.status, 200);
        }
    }
    service.clock.advance(SignedDuration::from_mins(30));
    let old = Draft::new(&service).by(&KEYS.old, Algorithm::ES256);
    assert_eq!(old.send().await.error(), (401, "invalid_client".into()), "it has ended");
    for key in [&KEYS.new, &KEYS.coming] {
        assert_eq!(Draft::new(&service).by(key, Algorithm::ES256).send().await.status, 200);
    }
}

#[tokio::test]
async fn a_key_that_the_watch_has_not_shown_yet_is_read_live_and_what_was_refused_is_not_used_up() {
    let service = TokenService::start().await;
    service.api.hold_watches();
    let draft = Draft::new(&service);
    assert_eq!(draft.send().await.error(), (401, "invalid_client".into()), "nobody knows the client");
    service.api.person_applies(&entry().secret());
    service.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(draft.send().await.status, 200, "the same assertion");
}

#[tokio::test]
async fn an_rsa_key_of_every_size_signs_by_either_padding() {
    let service = TokenService::start().await;
    let keys = [KeyType::Rsa3072, KeyType::Rsa4096].map(Key::new);
    let entry = keys.iter().fold(Entry::new(ID).methods(&["private_key_jwt"]), |entry, key| {
        entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, UNTIL)
    });
    service.api.person_applies(&entry.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 2")).await;
    for key in &keys {
        for alg in [Algorithm::RS256, Algorithm::PS256] {
            let answer = Draft::new(&service).by(key, alg).send().await;
            assert_eq!(answer.status, 200, "{:?} {alg:?}: {answer:?}", key.key_type);
        }
    }
}

#[tokio::test]
async fn a_client_with_many_keys_has_sixteen_tried() {
    let service = TokenService::start().await;
    let ca = authority();
    let keys: Vec<Key> = (0..17).map(|_| Key::signed_by(&ca, KeyType::Ed25519)).collect();
    let mut entry = Entry::new(ID).methods(&["private_key_jwt"]);
    for (number, key) in keys.iter().enumerate() {
        entry = entry.revision((&format!("key-{number:02}"), PUBLIC_KEY), &key.of_key(), FROM, UNTIL);
    }
    service.api.person_applies(&entry.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 2")).await;
    let nameless = |key| Draft::new(&service).by(key, Algorithm::EdDSA).headless("kid");
    assert_eq!(nameless(&keys[15]).send().await.status, 200);
    assert_eq!(nameless(&keys[16]).send().await.status, 401);
    assert_eq!(Draft::new(&service).by(&keys[16], Algorithm::EdDSA).send().await.status, 200, "by its name");
}

#[tokio::test]
async fn a_client_without_the_grant_may_not_use_it() {
    let service = TokenService::start().await;
    let entry = entry().grant_types(&["authorization_code", "refresh_token"]);
    service.api.person_applies(&entry.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 2")).await;
    let answer = Draft::new(&service).send().await;
    assert_eq!(answer.error(), (400, "unauthorized_client".into()), "RFC 6749 §5.2");
    let stranger = Draft::new(&service).by(&KEYS.stranger, Algorithm::ES256);
    assert_eq!(stranger.send().await.error(), (401, "invalid_client".into()), "who it is comes first");
}

#[tokio::test]
async fn replicas_refuse_each_others_assertions_once_they_are_shared_and_at_all_endpoints() {
    let service = service().await;
    let mut other = service.twin().await;
    let used = Draft::new(&service).text();
    let answer = send(&service, &used, &[]).await;
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    // Every try at the other uses it up there, too: it is tried once the list has it and the other's watch is past that.
    let shared = async |service: &TokenService, count: &str| {
        let unwritten = "token_service_used_assertions_unwritten 0.0";
        let known = format!("token_service_used_assertions {count}.0");
        service
            .until("shared", async || {
                let metrics = service.metrics().await;
                metrics.contains(unwritten) && metrics.contains(&known)
            })
            .await;
    };
    shared(&service, "1").await;
    shared(&other, "1").await;
    assert_eq!(send(&other, &used, &[]).await.error(), (401, "invalid_client".into()));
    let by = |assertion: &str| {
        [
            ("token", "x".to_owned()),
            ("client_assertion_type", TYPE.to_owned()),
            ("client_assertion", assertion.to_owned()),
        ]
    };
    for path in ["/introspect", "/revoke"] {
        let fresh = Draft::new(&service).text();
        let ask = async |service: &TokenService, assertion: &str| {
            service.send(service.http().post(service.url(path)).form(&by(assertion))).await.status.as_u16()
        };
        assert_eq!(ask(&other, &used).await, 401, "{path}");
        assert_eq!([ask(&other, &fresh).await, ask(&other, &fresh).await], [200, 401], "{path}");
    }
    other.end().await;
    let restarted = service.twin().await;
    assert_eq!(send(&restarted, &used, &[]).await.error(), (401, "invalid_client".into()), "a restart forgets nothing");
}
