//! Token signing keys over their whole life: the controller that makes them, the token service's view of what it wrote,
//! and a resource server that caches the JWKS for a day.
//!
//! The API server is the fake one and time is paused; keys, tokens and signatures are real.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use appreg::clock::Clock as _;
use appreg::metrics;
use appreg::mint::token::{self, Claims};
use appreg::rotation::LONGEST_TOKEN_LIFETIME;
use appreg::signer::jwt::{self, PublicKey};
use appreg::signer::{Algorithm, KEY_LIFE, PUBLISH_BEFORE, PUBLISHED_WITHIN};
use appreg::token_service::keys::{LoadedKeys, Moment, SigningKeys};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::reconcile::{LEDGER, Running, SYSTEM, Stage, signing_keys, system};

const ANNOTATION: &str = "appreg.dev/revoke-minted-before";

fn config(algorithm: Algorithm) -> String {
    format!("authorizationServer: {{issuer: \"https://auth.example\", signingAlgorithm: {algorithm}}}")
}

/// What a token service makes of the Secret as it is now.
fn moment(stage: &Stage) -> Arc<Moment> {
    let fields = system(stage, "signing-keys").data.unwrap();
    let loaded = LoadedKeys::parse(|name| fields.get(name).map(|bytes| bytes.0.as_slice())).unwrap();
    let (keys, now) = (SigningKeys::default(), stage.clock.now());
    keys.replace(Arc::new(loaded), now);
    keys.at(now).unwrap()
}

fn key_set(moment: &Moment) -> JwkSet {
    serde_json::from_slice(&moment.jwks).unwrap()
}

/// A token as the token endpoint gives it.
fn fresh_token(stage: &Stage) -> String {
    let now = stage.clock.now();
    let claims = Claims {
        issuer: "https://auth.example",
        client_id: "shop.storefront",
        audiences: &["https://api.example"],
        scope: "",
        issued_at: now,
        expires_at: now + SignedDuration::from_hours(24),
        not_before: None,
        entry: None,
        revision: None,
        customers: None,
        customer_groups: None,
        certificate: None,
    };
    let key = moment(stage).signing.clone().expect("a key signs at every moment");
    String::from_utf8(token::sign(&key, &claims).unwrap().expose().to_vec()).unwrap()
}

/// The token in the Secret of a registration.
fn delivered_token(stage: &Stage, name: &str) -> String {
    let data = stage.secret(name).data.unwrap();
    String::from_utf8(data["access_token"].0.clone()).unwrap()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// A resource server: a foreign library, and a copy of the JWKS. Times are the tests' own.
fn verify(token: &str, keys: &JwkSet) -> Result<Value, String> {
    let header = jsonwebtoken::decode_header(token).unwrap();
    let jwk = keys.find(&header.kid.unwrap()).ok_or("an unknown key")?;
    // The algorithm is that of the key, never that of the token alone.
    let algorithm = jwk.common.key_algorithm.unwrap().to_string().parse().unwrap();
    let mut rules = jsonwebtoken::Validation::new(algorithm);
    (rules.validate_exp, rules.validate_aud) = (false, false);
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode(token, &key, &rules).map(|data| data.claims).map_err(|error| error.to_string())
}

/// The keys that introspection verifies with.
fn published(stage: &Stage) -> Vec<PublicKey> {
    let jwks: Value = serde_json::from_slice(&moment(stage).jwks).unwrap();
    jwks["keys"].as_array().unwrap().iter().map(|jwk| PublicKey::from_jwk(jwk).unwrap()).collect()
}

fn is_accepted(stage: &Stage, token: &str) -> bool {
    jwt::verify(token.as_bytes(), &published(stage)).is_some()
}

fn annotate(stage: &Stage, time: &str) {
    assert!(stage.server.person_edits("secrets", LEDGER, "signing-keys", |secret| {
        secret["metadata"]["annotations"][ANNOTATION] = json!(time);
    }));
}

fn gauge(running: &Running, name: &str) -> String {
    let text = metrics::text(&running.registry);
    let line = text.lines().find(|line| line.starts_with(&format!("appreg_{name} "))).expect(name);
    line.split_once(' ').unwrap().1.to_owned()
}

fn tokens() -> Value {
    json!([{"name": "api", "accessToken": {}}])
}

#[tokio::test(start_paused = true)]
async fn through_rotations_and_all_algorithms_a_day_old_key_set_verifies_every_token() {
    let stage = Stage::new();
    let mut running = None;
    let mut cached: Option<(Timestamp, JwkSet)> = None;
    let mut signed: BTreeMap<String, String> = BTreeMap::new();
    // Old tokens, until they end.
    let mut given: Vec<(String, Timestamp)> = Vec::new();
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::ES256] {
        drop(running.take());
        running = Some(stage.controller_with(&config(algorithm)).await);
        stage.apply("storefront", &tokens());
        for _ in 0..110 {
            // A copy of the key set is nearly a day old at every other step; the hour of the day changes.
            stage.clock.advance(SignedDuration::from_mins(24 * 60 - 7));
            sleep(Duration::from_secs(31)).await;
            stage.until_ready("storefront").await;
            let now = stage.clock.now();
            if cached.as_ref().is_none_or(|(since, _)| now.duration_since(*since) >= PUBLISH_BEFORE) {
                cached = Some((now, key_set(&moment(&stage))));
            }
            let (since, copy) = cached.as_ref().unwrap();
            let tokens = [fresh_token(&stage), delivered_token(&stage, "storefront-token")];
            for token in &tokens {
                assert!(verify(token, copy).is_ok(), "{now}: a copy of {since}: {:?}", signing_keys(&stage));
                let algorithm = jsonwebtoken::decode_header(token).unwrap().alg;
                signed.insert(kid(token), format!("{algorithm:?}"));
            }
            given.retain(|(_, end)| now < *end);
            for (old, end) in &given {
                let keys = key_set(&moment(&stage));
                assert!(verify(old, &keys).is_ok(), "{now}: lives until {end} and has no published key");
            }
            given.extend(tokens.map(|token| (token.clone(), now + SignedDuration::from_hours(24))));
        }
    }
    let by_algorithm = |name: &str| signed.values().filter(|algorithm| *algorithm == name).count();
    assert_eq!(["ES256", "EdDSA", "RS256"].map(by_algorithm), [4, 2, 2], "{signed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_is_replaced_at_once_and_delivered_tokens_are_signed_again() {
    for algorithm in Algorithm::ALL {
        let stage = Stage::new();
        let running = stage.controller_with(&config(algorithm)).await;
        stage.apply("storefront", &tokens());
        stage.apply("billing", &tokens());
        for name in ["storefront", "billing"] {
            stage.until_ready(name).await;
        }
        stage.clock.advance(SignedDuration::from_mins(10));
        let leaked = signing_keys(&stage).keys()[0].kid.clone();
        let (from_endpoint, delivered) = (fresh_token(&stage), delivered_token(&stage, "storefront-token"));
        assert!(is_accepted(&stage, &from_endpoint) && is_accepted(&stage, &delivered));
        let copy = key_set(&moment(&stage));
        stage.requests();

        annotate(&stage, "2026-01-01T00:10:00Z");
        stage
            .until("signed again", |_| {
                ["storefront-token", "billing-token"].iter().all(|name| kid(&delivered_token(&stage, name)) != leaked)
            })
            .await;
        let keys = signing_keys(&stage);
        let [key] = keys.keys() else { panic!("one key: {keys:?}") };
        assert!(key.kid != leaked && key.alg == algorithm && key.sign_from <= stage.clock.now());
        let fields = system(&stage, "signing-keys").data.unwrap();
        let names: Vec<_> = fields.keys().cloned().collect();
        assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(["keys.json".to_owned(), format!("{}.pem", key.kid)]));
        for old in [&from_endpoint, &delivered] {
            assert!(!is_accepted(&stage, old), "{algorithm}: by introspection");
            assert!(verify(old, &key_set(&moment(&stage))).is_err(), "{algorithm}: offline");
            assert!(verify(old, &copy).is_ok(), "an old copy knows no better: max-age is the limit");
        }
        for new in [fresh_token(&stage), delivered_token(&stage, "billing-token")] {
            assert!(is_accepted(&stage, &new) && kid(&new) == key.kid);
        }
        assert_eq!(gauge(&running, "signing_keys_revoked_total"), "1");
        let writes = stage.requests();
        let expected = [
            "update secrets appreg-ledger/signing-keys 200",
            "update secrets shop/billing-token 200",
            "update secrets shop/storefront-token 200",
        ];
        let mut sorted = writes.clone();
        sorted.sort();
        assert_eq!(sorted, expected, "one write each, no read: {writes:?}");
        assert_eq!(stage.quiet().await, Vec::<String>::new());
        // The annotation may stay: it is done.
        drop(running);
        let _again = stage.start_with(&config(algorithm));
        assert_eq!(stage.quiet().await, Vec::<String>::new());
        assert_eq!(signing_keys(&stage), keys);
    }
}

#[tokio::test(start_paused = true)]
async fn an_emergency_with_a_time_to_come_or_that_nobody_can_read_does_nothing_but_tell() {
    let stage = Stage::new();
    let running = stage.controller().await;
    for name in ["signing_keys_revoked_total", "signing_keys_revocation_pending", "signing_keys_revocation_malformed"] {
        assert_eq!(gauge(&running, name), "0");
        assert!(include_str!("../../docs/keys.md").contains(&format!("`appreg_{name}")), "{name} is documented");
    }
    stage.apply("storefront", &tokens());
    stage.until_ready("storefront").await;
    let before = signing_keys(&stage);
    let gauges = |name: &str| gauge(&running, &format!("signing_keys_revocation_{name}"));
    assert_eq!((gauges("pending").as_str(), gauges("malformed").as_str()), ("0", "0"));
    for text in ["", "now", "2026-01-01", "2026-01-01T00:00:00", "canary-pasted-here"] {
        annotate(&stage, text);
        assert_eq!(stage.quiet().await, Vec::<String>::new(), "{text:?}");
        assert_eq!((gauges("pending").as_str(), gauges("malformed").as_str()), ("0", "1"), "{text:?}");
        assert_eq!(signing_keys(&stage), before);
    }
    annotate(&stage, "2026-01-01T03:00:00+01:00");
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    assert_eq!((gauges("pending").as_str(), gauges("malformed").as_str()), ("1", "0"));
    stage.clock.set("2026-01-01T01:59:59Z".parse().unwrap());
    sleep(Duration::from_secs(31)).await;
    assert_eq!(signing_keys(&stage), before, "not a moment too early");
    stage.clock.set("2026-01-01T02:00:00Z".parse().unwrap());
    stage.until("replaced", |_| signing_keys(&stage).keys()[0].kid != before.keys()[0].kid).await;
    assert_eq!(signing_keys(&stage).keys()[0].created_at, "2026-01-01T02:00:00Z".parse().unwrap());
    assert_eq!((gauges("pending").as_str(), gauges("malformed").as_str()), ("0", "0"));
    // The end, without anything else that changes: the same annotation again is nothing new.
    stage.until_ready("storefront").await;
    annotate(&stage, "2026-01-01T02:00:00Z");
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_is_replaced_though_the_certificate_authority_cannot_be_read() {
    let stage = Stage::new();
    let _running = stage.controller().await;
    stage.apply("storefront", &tokens());
    stage.until_ready("storefront").await;
    let leaked = signing_keys(&stage).keys()[0].kid.clone();
    assert!(stage.server.person_edits("secrets", SYSTEM, "appreg-ca", |secret| {
        secret["data"]["cas.json"] = json!("e30=");
    }));
    stage.clock.advance(SignedDuration::from_secs(10));
    annotate(&stage, "2026-01-01T00:00:05Z");
    stage.until("signed again", |_| kid(&delivered_token(&stage, "storefront-token")) != leaked).await;
    assert!(signing_keys(&stage).keys().iter().all(|key| key.kid != leaked));
}

#[tokio::test(start_paused = true)]
async fn two_controllers_that_race_leave_one_index() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256] {
        let stage = Stage::new();
        // From nothing: both see a 404 and mint.
        let _one = stage.start_with(&config(algorithm));
        let _two = stage.start_with(&config(algorithm));
        stage
            .until("the keys are there", |server| {
                server.object::<Secret>("secrets", LEDGER, "token-service-tls").is_some()
            })
            .await;
        stage.apply("storefront", &tokens());
        stage.until_ready("storefront").await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(stage.quiet().await, Vec::<String>::new(), "both are at rest");
        let first = signing_keys(&stage);
        assert_eq!(first.keys().len(), 1, "{first:?}");
        // An emergency: both see it and mint.
        stage.clock.advance(SignedDuration::from_secs(10));
        annotate(&stage, "2026-01-01T00:00:05Z");
        stage.until("replaced", |_| signing_keys(&stage) != first).await;
        let second = signing_keys(&stage);
        stage
            .until("signed again", |_| kid(&delivered_token(&stage, "storefront-token")) == second.keys()[0].kid)
            .await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(stage.quiet().await, Vec::<String>::new(), "both are at rest");
        assert_eq!(signing_keys(&stage), second, "the first to write has made the key");
        assert_eq!(second.keys().len(), 1);
        assert!(is_accepted(&stage, &delivered_token(&stage, "storefront-token")));
    }
}

#[test]
fn the_documented_timeline_and_names_are_the_programs() {
    let text = include_str!("../../docs/keys.md");
    let (hours, minutes) = (SignedDuration::as_hours, SignedDuration::as_mins);
    let rows = [
        format!("| t0 - {} min | The controller makes the key", minutes(&PUBLISHED_WITHIN)),
        format!("| t0 + {} h | It signs", hours(&PUBLISH_BEFORE)),
        format!("| t0 + {} h + {} d | Its successor", hours(&PUBLISH_BEFORE), hours(&KEY_LIFE) / 24),
        format!("| {} h and 5 min later | It is no longer published", hours(&LONGEST_TOKEN_LIFETIME)),
        format!("{ANNOTATION}=\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\""),
    ];
    for row in rows {
        assert!(text.contains(&row), "{row}");
    }
    for algorithm in Algorithm::ALL {
        assert!(text.contains(&format!("| `{algorithm}`")), "{algorithm}");
    }
}
