//! Rotation as an application lives through it: what is published is read over and over, and everything that was ever
//! seen is tried until its end.

use std::collections::BTreeMap;
use std::time::Duration;

use appreg::api::{ConditionType, Reason};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::foreign::ShownCertificate;
use crate::harness::oauth::https;
use crate::stage::{Application, Room, SOON, client_id, condition, pass_of_a_second, room, text};

/// How often what is published is read and tried.
const PACE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_for_a_minute_is_rotated_with_overlap_and_what_is_published_is_never_refused() {
    let room = room("minute").await;
    let minute = |name: &str, kind: &str| json!({"name": name, "effectiveDuration": "60s", kind: {}});
    let all = [
        ("web", json!([minute("web", "clientSecret")])),
        ("mtls", json!([{"name": "mtls", "effectiveDuration": "60s", "secretName": "mtls", "certificate": {}}])),
        ("api", json!([minute("api", "accessToken")])),
        ("both", json!([minute("web", "clientSecret"), minute("mtls", "certificate")])),
        (
            "rsa",
            json!([{"name": "mtls", "effectiveDuration": "60s", "certificate": {"privateKey": {"algorithm": "RSA"}}}]),
        ),
        // Many rotations in the same time.
        ("fast", json!([{"name": "web", "effectiveDuration": "12s", "clientSecret": {}}])),
        ("fast-mtls", json!([{"name": "mtls", "effectiveDuration": "12s", "certificate": {}}])),
        ("fast-api", json!([{"name": "api", "effectiveDuration": "12s", "accessToken": {}}])),
    ];
    let in_room = &room;
    join_all(all.iter().map(async |(name, credentials)| {
        in_room.apply(name, json!({"displayName": name, "credentials": credentials})).await;
        in_room.ready(name).await;
    }))
    .await;
    // The first of all were minted by now: a minute later they have ended, and were rotated before.
    let until = Timestamp::now() + SignedDuration::from_secs(64);
    let web = async |name| follow_client_secret(&room, name, name, until).await;
    let mtls = async |name| follow_certificate(&room, name, name, until).await;
    let api = async |name| follow_token(&room, name, &format!("{name}-token"), until).await;
    let (minute, own, token, both, shared, rsa, fast, fast_mtls, fast_api) = tokio::join!(
        web("web"),
        mtls("mtls"),
        api("api"),
        web("both"),
        mtls("both"),
        mtls("rsa"),
        web("fast"),
        mtls("fast-mtls"),
        api("fast-api"),
    );
    for (what, seen) in [("web", &minute), ("both", &both)] {
        assert!(seen.values >= 2, "{what} was rotated: {seen:?}");
        assert!(
            seen.old_accepted > 0 && seen.old_refused > 0,
            "{what}: old accepted in the overlap, then not: {seen:?}"
        );
    }
    for (what, seen) in [("mtls", &own), ("both", &shared), ("rsa", &rsa), ("api", &token)] {
        assert!(seen.values >= 2 && seen.old_accepted > 0, "{what}: {seen:?}");
    }
    for (what, seen) in [("fast", &fast), ("fast-mtls", &fast_mtls), ("fast-api", &fast_api)] {
        assert!(seen.values >= 6, "{what} was rotated many times: {seen:?}");
    }
    for (name, _) in &all {
        let registration = room.ready(name).await;
        assert_eq!(Some(client_id(&registration)), registration.metadata.uid, "the client ID is what it was");
    }
    room.event("web", Reason::RenewalDue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_asked_for_overlaps_for_a_finite_time_and_happens_once() {
    let room = room("rotate").await;
    let credentials = json!([
        {"name": "web", "effectiveDuration": "100s", "renewBefore": "3s", "clientSecret": {}},
        {"name": "other", "effectiveDuration": "100s", "renewBefore": "3s", "secretName": "other", "clientSecret": {}},
    ]);
    room.apply("web", json!({"displayName": "Web", "credentials": credentials})).await;
    room.ready("web").await;
    let before = room.application("web").await;
    let other = room.application("other").await;
    let first = room.secret("web").await;

    // It has not come yet: it sets a wake and nothing else.
    let mark = Timestamp::now() + SignedDuration::from_secs(3);
    room.annotate("web", json!({"appreg.dev/rotate-minted-before": format!("web={mark}")})).await;
    let new = room.another_client_secret("web", &before.client_secret).await;
    assert!(Timestamp::now() >= mark, "not before its time");
    let rotated = room.secret("web").await;
    assert_eq!(rotated.uid(), first.uid());
    assert!(text(&rotated, "previous_client_secret").as_ref() == Some(&before.client_secret), "the old one is shown");
    before.accepted(&before.client_secret, "the old one in the overlap").await;
    before.accepted(&new, "the new one").await;

    let ends = room
        .until("web", "what ends when", |registration| {
            let credentials = registration.status.iter().flat_map(|status| &status.credentials);
            let web = credentials.into_iter().find(|credential| credential.name == "web");
            web.and_then(|web| web.previous.as_ref()?.accepted_until_time).ok_or("no previous")
        })
        .await;
    let ends = ends.timestamp();
    let left = ends.duration_since(Timestamp::now());
    assert!(left < SignedDuration::from_secs(14), "renewBefore and the jitter's bound, not the rest of 100 s: {left}");
    let left = Duration::try_from(left).unwrap_or_default();

    before.refused_within(left + SOON, &before.client_secret, "the old one after the overlap").await;
    assert!(Timestamp::now() >= ends, "and not before");
    room.secret_until("web", "written without the old one", |secret| {
        if text(secret, "previous_client_secret").is_none() { Ok(()) } else { Err("it is still there") }
    })
    .await;
    before.accepted(&new, "the new one").await;

    // The report comes after the last write.
    let revision = room
        .until("web", "reported on without the old one", |registration| {
            let credentials = registration.status.iter().flat_map(|status| &status.credentials);
            let web = credentials.into_iter().find(|credential| credential.name == "web").ok_or("no report")?;
            if web.previous.is_none() {
                Ok(web.current.as_ref().map(|current| current.revision))
            } else {
                Err("the old one")
            }
        })
        .await;
    assert_eq!(revision, Some(2), "once");
    assert!(room.application("other").await.has_what(&other), "nobody asked for this one");
    room.event("web", Reason::RotationRequested).await;
    let entry = room.ledger_entry(&before.client_id).await.unwrap();
    assert_eq!(entry["credentials"]["web"]["revisions"].as_array().unwrap().len(), 1, "it has left the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_refuses_the_old_at_once_and_publishes_the_new_without_it() {
    let room = room("revoke").await;
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        {"name": "api", "accessToken": {}},
        {"name": "other", "secretName": "other", "clientSecret": {}},
    ]);
    room.apply("web", json!({"displayName": "Web", "credentials": credentials})).await;
    room.ready("web").await;
    let first = room.application("web").await;
    let other = room.application("other").await;

    // In the middle of an overlap, so that two must go.
    let now = pass_of_a_second().await;
    room.annotate("web", json!({"appreg.dev/rotate-minted-before": format!("web={now}")})).await;
    let second = room.another_client_secret("web", &first.client_secret).await;
    first.accepted(&first.client_secret, "the first in the overlap").await;
    first.accepted(&second, "the second").await;

    let now = pass_of_a_second().await;
    room.annotate("web", json!({"appreg.dev/revoke-minted-before": format!("web={now}")})).await;
    let at_once = Duration::from_secs(10);
    first.refused_within(at_once, &second, "what was current").await;
    first.refused_within(at_once, &first.client_secret, "what was previous").await;
    let third = room.another_client_secret("web", &second).await;
    first.accepted(&third, "the new one").await;
    let secret = room.secret("web").await;
    assert!(text(&secret, "previous_client_secret").is_none());
    other.accepted(&other.client_secret, "another entry's").await;
    assert!(room.application("other").await.has_what(&other), "nobody asked for this one");
    room.event("web", Reason::RevocationRequested).await;

    // All of it, by the spec: it stays in git and does nothing more.
    let token = text(&room.secret("web-token").await, "access_token").unwrap();
    let now = pass_of_a_second().await;
    let spec = json!({"displayName": "Web", "credentials": credentials, "revokeMintedBefore": now.to_string()});
    room.apply("web", spec).await;
    for (secret, old) in [("web", &third), ("other", &other.client_secret)] {
        let new = room.another_client_secret(secret, old).await;
        first.refused_within(at_once, old, secret).await;
        first.accepted(&new, secret).await;
    }
    room.secret_until("web-token", "another access token", |secret| {
        if text(secret, "access_token").is_some_and(|new| new != token) { Ok(()) } else { Err("the same") }
    })
    .await;
    let registration = room.ready("web").await;
    let entry = room.ledger_entry(&client_id(&registration)).await.unwrap();
    assert_eq!(entry["revokedBefore"], json!(now), "what introspection goes by");
    let before = room.secret("web").await.resource_version();
    room.annotate("web", json!({"example.com/touched": "yes"})).await;
    room.ready("web").await;
    assert_eq!(room.secret("web").await.resource_version(), before, "idempotent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_removed_is_refused_at_once_and_its_secret_goes() {
    let room = room("remove").await;
    let web = json!({"name": "web", "clientSecret": {}});
    let night = json!({"name": "night", "secretName": "night", "clientSecret": {}});
    room.apply("web", json!({"displayName": "Web", "credentials": [web, night]})).await;
    room.ready("web").await;
    let web_has = room.application("web").await;
    let night_has = room.application("night").await;
    room.apply("web", json!({"displayName": "Web", "credentials": [web]})).await;
    night_has.refused_within(Duration::from_secs(10), &night_has.client_secret, "the removed entry's").await;
    web_has.accepted(&web_has.client_secret, "the other entry's").await;
    crate::harness::eventually_within(SOON, "the Secret is gone", async || {
        match room.secrets().get_opt("night").await.unwrap() {
            None => Ok(()),
            Some(_) => Err("it is there"),
        }
    })
    .await;
    room.event("web", Reason::EntryRemoved).await;
    let registration = room.ready("web").await;
    assert!(condition(&registration, ConditionType::Ready).is_some());
    assert!(room.application("web").await.has_what(&web_has), "the other entry is as it was");
}

/// What the observer of one credential has seen.
#[derive(Debug, Default)]
struct Seen {
    /// How often it looked.
    looks: usize,
    /// How many different values were published.
    values: usize,
    /// How often a value that is not published as current any more was good, before its end.
    old_accepted: usize,
    /// How often it was refused, after its end.
    old_refused: usize,
}

/// One value that was published.
struct Known {
    text: String,
    /// Where the registration's status has told it.
    not_after: Option<Timestamp>,
}

/// Reads a Secret's client secret over and over and tries it, and every other one it ever saw.
async fn follow_client_secret(room: &Room, registration: &str, secret: &str, until: Timestamp) -> Seen {
    let mut seen = Seen::default();
    let mut values: BTreeMap<u64, Known> = BTreeMap::new();
    let mut pace = pace();
    while Timestamp::now() < until {
        pace.tick().await;
        seen.looks += 1;
        let object = room.secret(secret).await;
        let (revision, _) = published(&object, "web");
        let application = Application::of(&object);
        let shown = application.client_secret.clone();
        let answer = application.ask().await;
        assert!(answer.is_token(), "{registration}, revision {revision}, as published: {answer:?}");
        let known = values.entry(revision).or_insert_with(|| Known { text: shown.clone(), not_after: None });
        assert!(known.text == shown, "one value per revision: {revision}");
        learn_ends(room, registration, "web", &mut values).await;
        for (old, value) in values.iter().filter(|(old, _)| **old != revision) {
            let Some(end) = value.not_after else { continue };
            let asked = Timestamp::now();
            let answer = application.ask_with(&value.text).await;
            let answered = Timestamp::now();
            if answered < end {
                assert!(answer.is_token(), "{registration}, revision {old} until {end}, at {asked}: {answer:?}");
                seen.old_accepted += 1;
            } else if asked >= end {
                assert!(answer.is_refusal(), "{registration}, revision {old} until {end}, at {asked}: {answer:?}");
                seen.old_refused += 1;
            }
        }
        // What has ended for long is refused as ever; asking again and again would only wear out the limit of reads.
        values
            .retain(|_, value| value.not_after.is_none_or(|end| Timestamp::now() < end + SignedDuration::from_secs(2)));
        seen.values = seen.values.max(usize::try_from(revision).unwrap());
    }
    seen
}

/// Reads a Secret's certificate over and over, and has rustls verify it and the ones before against the authorities that
/// the Secret shows now; OpenSSL looks at each once.
async fn follow_certificate(room: &Room, registration: &str, secret: &str, until: Timestamp) -> Seen {
    let mut seen = Seen::default();
    let mut values: BTreeMap<u64, Known> = BTreeMap::new();
    let mut shown: BTreeMap<u64, ShownCertificate> = BTreeMap::new();
    let mut pace = pace();
    while Timestamp::now() < until {
        pace.tick().await;
        seen.looks += 1;
        let object = room.secret(secret).await;
        let (revision, _) = published(&object, "mtls");
        let certificate = ShownCertificate::of(&object);
        let now = Timestamp::now();
        assert_eq!(certificate.verify_with_rustls(&certificate.authorities, now), Ok(()), "{registration} {revision}");
        assert_eq!(certificate.key_matches(), Ok(()), "{registration} {revision}");
        let is_new = !shown.contains_key(&revision);
        let text = certificate.certificate.clone();
        let known = values.entry(revision).or_insert(Known { text, not_after: None });
        assert_eq!(known.text, certificate.certificate, "one value per revision");
        if is_new {
            let id = crate::stage::text(&object, "client_id").unwrap();
            is_in_the_ledger(room, &id, &certificate).await;
            if let Some(names) = certificate.verify_with_openssl() {
                assert!(names.contains(&format!("URI:urn:appreg:default:{id}")), "{names}");
            }
        }
        learn_ends(room, registration, "mtls", &mut values).await;
        for (old, before) in shown.iter().filter(|(old, _)| **old != revision) {
            let now = Timestamp::now();
            if values.get(old).and_then(|value| value.not_after).is_some_and(|end| now < end) {
                assert_eq!(before.verify_with_rustls(&certificate.authorities, now), Ok(()), "{registration} {old}");
                seen.old_accepted += 1;
            }
        }
        shown.insert(revision, certificate);
        seen.values = shown.len();
    }
    seen
}

/// Reads a Secret's access token over and over, and has the foreign library verify it and those before, until their
/// ends.
async fn follow_token(room: &Room, registration: &str, secret: &str, until: Timestamp) -> Seen {
    let mut seen = Seen::default();
    let object = room.secret(secret).await;
    let http = https(&text(&object, "issuer_ca.crt").unwrap()).unwrap();
    let issuer = text(&object, "issuer").unwrap();
    let response = http.get(text(&object, "jwks_uri").unwrap()).send().await.unwrap();
    let keys: JwkSet = response.json().await.unwrap();
    let mut tokens: BTreeMap<String, i64> = BTreeMap::new();
    let mut pace = pace();
    while Timestamp::now() < until {
        pace.tick().await;
        seen.looks += 1;
        let object = room.secret(secret).await;
        let token = text(&object, "access_token").unwrap();
        let end = verified(&token, &keys, &issuer).unwrap_or_else(|problem| panic!("{registration}: {problem}"));
        assert_eq!(text(&object, "expires_at"), Some(end.to_string()));
        tokens.insert(token.clone(), end);
        for (old, end) in tokens.iter().filter(|(old, _)| **old != token) {
            if Timestamp::now().as_second() < *end {
                assert_eq!(verified(old, &keys, &issuer), Ok(*end));
                seen.old_accepted += 1;
            }
        }
        seen.values = tokens.len();
    }
    seen
}

/// A token's `exp`, if a foreign library believes it now, to the second.
fn verified(token: &str, keys: &JwkSet, issuer: &str) -> Result<i64, String> {
    let head = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
    let key = keys.find(&head.kid.unwrap_or_default()).ok_or("an unknown key")?;
    let key = jsonwebtoken::DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_issuer(&[issuer]);
    rules.set_audience(&[issuer]);
    rules.leeway = 0;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &rules).map_err(|error| error.to_string())?.claims;
    claims["exp"].as_i64().ok_or_else(|| "no exp".to_owned())
}

/// The ledger had it before it was published.
async fn is_in_the_ledger(room: &Room, client_id: &str, shown: &ShownCertificate) {
    let der = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let digest = BASE64_URL_SAFE_NO_PAD.encode(digest);
    let entry = room.ledger_entry(client_id).await.unwrap();
    let revisions = entry["credentials"]["mtls"]["revisions"].as_array().unwrap();
    assert!(revisions.iter().any(|revision| revision["verifier"]["certSHA256"] == digest.as_str()));
}

/// The revisions that a Secret says it shows: the current one and the one before.
fn published(secret: &Secret, entry: &str) -> (u64, Option<u64>) {
    let annotation = &secret.annotations()["appreg.dev/published"];
    let published: Value = serde_json::from_str(annotation).unwrap();
    (published[entry]["current"].as_u64().unwrap(), published[entry]["previous"].as_u64())
}

/// Takes the ends of revisions from the registration's status.
async fn learn_ends(room: &Room, registration: &str, entry: &str, values: &mut BTreeMap<u64, Known>) {
    if values.values().all(|value| value.not_after.is_some()) {
        return;
    }
    let registration = room.registrations().get(registration).await.unwrap();
    let credentials = registration.status.into_iter().flat_map(|status| status.credentials);
    for credential in credentials.filter(|credential| credential.name == entry) {
        for revision in [credential.current, credential.previous].into_iter().flatten() {
            if let Some(value) = values.get_mut(&revision.revision) {
                value.not_after = revision.not_after.map(appreg::api::StatusTime::timestamp);
            }
        }
    }
}

fn pace() -> tokio::time::Interval {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
