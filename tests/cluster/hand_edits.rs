//! What people do to Secrets and status by hand, and what becomes of it: repaired or reported, without a new client ID,
//! and without refusing what was accepted before its time.

use std::time::Duration;

use appreg::api::{ConditionType, Reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::foreign::ShownCertificate;
use crate::stage::{Application, Room, SOON, client_id, condition, conditions, room, text};

const PUBLISHED: &str = "appreg.dev/published";

/// One client secret, whose overlap is 13 s: `renewBefore` and a tenth of the duration.
fn short_overlap() -> Value {
    json!([{"name": "web", "effectiveDuration": "100s", "renewBefore": "3s", "clientSecret": {}}])
}

async fn registered(room: &Room, name: &str, credentials: Value) -> Application {
    room.apply(name, json!({"displayName": name, "credentials": credentials})).await;
    room.ready(name).await;
    room.application(name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_is_made_anew_and_what_was_accepted_stays_so_for_the_overlap() {
    let room = room("deleted").await;
    let before = registered(&room, "web", short_overlap()).await;
    let deleted = Timestamp::now();
    room.secrets().delete("web", &DeleteParams::default()).await.unwrap();
    let new = room.another_client_secret("web", &before.client_secret).await;
    before.accepted(&new, "the new one").await;
    before.accepted(&before.client_secret, "the old one: an application may still hold it").await;
    let after = room.application("web").await;
    assert_eq!(after.client_id, before.client_id);
    room.event("web", Reason::SecretDeleted).await;
    before.refused_within(Duration::from_secs(13) + SOON, &before.client_secret, "the old one, in the end").await;
    let overlap = Timestamp::now().duration_since(deleted);
    assert!(overlap >= SignedDuration::from_secs(12), "not before its time: {overlap}");
    before.accepted(&new, "the new one").await;
    assert_eq!(client_id(&room.ready("web").await), before.client_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_value_is_replaced_without_a_previous_one_and_what_was_accepted_stays_so_for_the_overlap() {
    let room = room("edited").await;
    let before = registered(&room, "web", short_overlap()).await;
    let edited = Timestamp::now();
    room.edit("web", json!({"stringData": {"client_secret": "chosen-by-hand"}})).await;
    let new = room
        .secret_until("web", "a value of ours", |secret| {
            let value = text(secret, "client_secret").filter(|value| value != "chosen-by-hand");
            value.ok_or("what was written by hand")
        })
        .await;
    assert!(new != before.client_secret, "its plaintext is nowhere any more");
    let secret = room.secret("web").await;
    assert!(text(&secret, "previous_client_secret").is_none());
    before.accepted(&new, "the new one").await;
    before.accepted(&before.client_secret, "the old one").await;
    let answer = before.ask_with("chosen-by-hand").await;
    assert!(answer.is_refusal(), "{answer:?}");
    room.event("web", Reason::SecretChanged).await;
    before.refused_within(Duration::from_secs(13) + SOON, &before.client_secret, "the old one, in the end").await;
    assert!(Timestamp::now().duration_since(edited) >= SignedDuration::from_secs(12), "not before its time");
    assert_eq!(room.application("web").await.client_id, before.client_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_that_was_stripped_is_minted_anew_and_a_planted_previous_one_goes() {
    let room = room("stripped").await;
    let before = registered(&room, "web", json!([{"name": "web", "clientSecret": {}}])).await;
    room.edit("web", json!({"stringData": {"previous_client_secret": "planted"}})).await;
    let kept = room
        .secret_until("web", "without what was planted", |secret| {
            if text(secret, "previous_client_secret").is_some() {
                return Err("it is there");
            }
            Ok(text(secret, "client_secret"))
        })
        .await;
    assert!(kept.as_ref() == Some(&before.client_secret), "the current one is as it was");
    room.event("web", Reason::SecretChanged).await;

    room.edit("web", json!({"data": {"client_secret": null}})).await;
    let new = room.another_client_secret("web", &before.client_secret).await;
    before.accepted(&new, "the new one").await;
    before.accepted(&before.client_secret, "the old one").await;
    room.event("web", Reason::FieldMissing).await;

    // The old one again, by hand: current is what the Secret holds, never the highest number.
    room.edit("web", json!({"stringData": {"client_secret": before.client_secret}})).await;
    room.until("web", "the first revision is current again", |registration| {
        let credentials = registration.status.iter().flat_map(|status| &status.credentials);
        let current = credentials.into_iter().find_map(|web| Some(web.current.as_ref()?.revision));
        if current == Some(1) { Ok(()) } else { Err(format!("{current:?}")) }
    })
    .await;
    assert!(room.application("web").await.has_what(&before), "as before");
    assert_eq!(client_id(&room.ready("web").await), before.client_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_fields_that_were_stripped_or_edited_are_written_anew_and_the_credentials_stay() {
    let room = room("fields").await;
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        {"name": "mtls", "certificate": {}},
        {"name": "api", "accessToken": {}},
    ]);
    let before = registered(&room, "web", credentials).await;
    let [web, token] = [room.secret("web").await, room.secret("web-token").await];
    let public = ["client_id", "issuer", "token_endpoint", "jwks_uri", "token_endpoint_auth_method", "issuer_ca.crt"];
    for field in public.into_iter().chain(["ca.crt"]) {
        for patch in [json!({"data": {field: null}}), json!({"stringData": {field: "edited"}})] {
            room.edit("web", patch.clone()).await;
            has_the_fields_of(&room, &web, &patch).await;
        }
    }
    let of_token = ["token_type", "expires_at", "scope"];
    for field in public.into_iter().filter(|field| *field != "token_endpoint_auth_method").chain(of_token) {
        for patch in [json!({"data": {field: null}}), json!({"stringData": {field: "edited"}})] {
            room.edit("web-token", patch.clone()).await;
            has_the_fields_of(&room, &token, &patch).await;
        }
    }
    assert_eq!(room.secret("web-token").await.uid(), token.uid());
    assert_eq!(room.secret("web").await.uid(), web.uid());
    before.accepted(&before.client_secret, "as before").await;
    room.event("web", Reason::FieldMissing).await;
    let entry = room.ledger_entry(&before.client_id).await.unwrap();
    for credential in ["web", "mtls"] {
        assert_eq!(entry["credentials"][credential]["nextRevision"], 2, "nothing was minted for {credential}");
    }
}

/// Waits until a Secret holds in every field what it held.
async fn has_the_fields_of(room: &Room, before: &Secret, patch: &Value) {
    let names: Vec<_> =
        patch.as_object().unwrap().values().filter_map(Value::as_object).flat_map(|m| m.keys()).collect();
    room.secret_until(&before.name_any(), &format!("as before {names:?} was edited"), |secret| {
        let (old, new) = (before.data.as_ref().unwrap(), secret.data.as_ref().unwrap());
        let differ: Vec<_> = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
        if differ.is_empty() { Ok(()) } else { Err(format!("{differ:?} differ")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_were_stripped_are_set_again_and_those_of_others_stay() {
    let room = room("marks").await;
    let before = registered(&room, "web", json!([{"name": "web", "clientSecret": {}}])).await;
    let theirs = json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "theirs"}}});
    let original = room.edit("web", theirs).await;
    let null = Value::Null;
    let marks = |what: &str, name: &str, value: &Value| json!({"metadata": {what: {name: value}}});
    let all_labels = ["app.kubernetes.io/managed-by", "appreg.dev/registration-uid"];
    let all_annotations = ["appreg.dev/registration", "appreg.dev/client-id", PUBLISHED];
    let mut patches = vec![json!({"metadata": {"ownerReferences": null}})];
    patches.extend(all_labels.map(|label| marks("labels", label, &null)));
    patches.extend(all_labels.map(|label| marks("labels", label, &json!("other"))));
    patches.extend(all_annotations.map(|annotation| marks("annotations", annotation, &null)));
    patches.extend(all_annotations.map(|annotation| marks("annotations", annotation, &json!("other"))));
    // Everything but the ownerReference at once.
    patches.push(json!({"metadata": {
        "labels": all_labels.iter().map(|name| ((*name).to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>(),
        "annotations": all_annotations.iter().map(|n| ((*n).to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>(),
    }}));
    for patch in patches {
        room.edit("web", patch.clone()).await;
        room.secret_until("web", &format!("its marks after {patch}"), |secret| {
            let without_hint = |secret: &Secret| {
                let mut annotations = secret.annotations().clone();
                let hint = annotations.remove(PUBLISHED).unwrap_or_default();
                (annotations, serde_json::from_str::<Value>(&hint).unwrap_or_default()["web"]["current"] == 1)
            };
            let is_marked = secret.labels() == original.labels()
                && without_hint(secret) == without_hint(&original)
                && secret.owner_references() == original.owner_references();
            let seen = || format!("{:?} {:?}", secret.labels(), secret.annotations());
            if is_marked { Ok(()) } else { Err(seen()) }
        })
        .await;
        let secret = room.secret("web").await;
        assert!(secret.data == original.data, "no field is touched after {patch}");
        assert_eq!(secret.uid(), original.uid());
    }
    room.event("web", Reason::FieldMissing).await;
    before.accepted(&before.client_secret, "as before").await;
    assert_eq!(client_id(&room.ready("web").await), before.client_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_any_mark_is_nobodys_until_somebody_marks_it_again() {
    let room = room("nobodys").await;
    let before = registered(&room, "web", json!([{"name": "web", "clientSecret": {}}])).await;
    let patch = json!({"metadata": {"ownerReferences": null, "labels": {"app.kubernetes.io/managed-by": null}}});
    let stripped = room.edit("web", patch).await;
    let message = room.stalled("web", Reason::SecretConflict).await;
    assert!(message.contains("the Secret web"), "{message}");
    assert_eq!(room.secret("web").await.resource_version(), stripped.resource_version(), "it is not written");
    before.accepted(&before.client_secret, "it stays accepted").await;
    room.edit("web", json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "appreg"}}})).await;
    room.ready("web").await;
    let after = room.application("web").await;
    assert!(after.has_what(&before), "the same client ID and client secret");
    assert_eq!(room.secret("web").await.owner_references().len(), 1, "it is collected with its registration again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_secret_is_reported_and_made_anew_once_it_is_deleted() {
    let room = room("immutable").await;
    let before = registered(&room, "web", json!([{"name": "web", "clientSecret": {}}])).await;
    let frozen = room.edit("web", json!({"immutable": true})).await;
    let message = room.stalled("web", Reason::SecretImmutable).await;
    assert!(message.contains("the Secret web is immutable"), "{message}");
    let registration = room.registrations().get("web").await.unwrap();
    let ready = condition(&registration, ConditionType::Ready).unwrap();
    assert_eq!(ready.status, "True", "what is published is accepted: {}", conditions(&registration));
    before.accepted(&before.client_secret, "what is published").await;
    room.event("web", Reason::SecretImmutable).await;

    // It stays reported whatever else happens, and it is not tried to be written.
    room.annotate("web", json!({"appreg.dev/rotate-minted-before": Timestamp::now().to_string()})).await;
    room.stalled("web", Reason::SecretImmutable).await;
    let spec = json!({"displayName": "Renamed", "credentials": [{"name": "web", "clientSecret": {}}]});
    let generation = room.apply("web", spec).await.metadata.generation;
    room.until("web", "the new generation is stalled", |registration| {
        let stalled = condition(registration, ConditionType::Stalled);
        let reason = stalled.filter(|c| c.observed_generation == generation).map(|c| c.reason.as_str());
        if reason == Some("SecretImmutable") { Ok(()) } else { Err(conditions(registration)) }
    })
    .await;
    assert_eq!(room.secret("web").await.resource_version(), frozen.resource_version());
    let entry = room.ledger_entry(&before.client_id).await.unwrap();
    assert_eq!(entry["credentials"]["web"]["nextRevision"], 2, "nothing is minted that cannot be shown");

    room.secrets().delete("web", &DeleteParams::default()).await.unwrap();
    let registration = room.ready("web").await;
    let after = room.application("web").await;
    assert!(after.client_secret != before.client_secret, "a new one");
    before.accepted(&after.client_secret, "the new one").await;
    assert_eq!(client_id(&registration), before.client_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_was_wiped_or_forged_is_reported_anew_and_changes_nothing() {
    let room = room("status").await;
    let before = registered(&room, "web", json!([{"name": "web", "clientSecret": {}}])).await;
    let reported = room.ready("web").await;
    let version = room.secret("web").await.resource_version();
    let forged = json!({"clientID": "somebody.else", "observedGeneration": 1, "credentials": [], "conditions": []});
    for status in [Value::Null, json!({}), forged] {
        let patch = json!({"status": status});
        room.registrations().patch_status("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        room.until("web", "the same report", |registration| {
            let comparable = |registration: &appreg::api::AppRegistration| {
                let mut status = registration.status.clone().unwrap_or_default();
                status.conditions.iter_mut().for_each(|c| c.last_transition_time.0 = Timestamp::UNIX_EPOCH);
                status
            };
            if comparable(registration) == comparable(&reported) { Ok(()) } else { Err(conditions(registration)) }
        })
        .await;
    }
    assert_eq!(room.secret("web").await.resource_version(), version, "the Secret was not written");
    before.accepted(&before.client_secret, "as before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_certificate_key_or_token_is_replaced() {
    let room = room("foreign").await;
    let credentials = json!([
        {"name": "mtls", "secretName": "mtls", "certificate": {}},
        {"name": "api", "accessToken": {}},
    ]);
    for name in ["one", "two"] {
        let mut credentials = credentials.clone();
        credentials[0]["secretName"] = json!(format!("{name}-mtls"));
        room.apply(name, json!({"displayName": name, "credentials": credentials})).await;
    }
    let id = client_id(&room.ready("one").await);
    room.ready("two").await;
    let other = room.secret("two-mtls").await;
    let before = room.secret("one-mtls").await;

    // Another one's key under our certificate, and then another one's pair.
    let theirs = |field: &str| other.data.as_ref().unwrap()[field].clone();
    for patch in [
        json!({"data": {"tls.key": theirs("tls.key")}}),
        json!({"data": {"tls.crt": theirs("tls.crt"), "tls.key": theirs("tls.key")}}),
        json!({"stringData": {"tls.crt": "not a certificate"}}),
    ] {
        let edited = room.edit("one-mtls", patch).await;
        let shown = room
            .secret_until("one-mtls", "a new certificate", |secret| {
                let is_new = secret.data.as_ref().unwrap()["tls.crt"] != edited.data.as_ref().unwrap()["tls.crt"];
                if is_new { Ok(ShownCertificate::of(secret)) } else { Err("the edited one") }
            })
            .await;
        assert_eq!(shown.verify_with_rustls(&shown.authorities, Timestamp::now()), Ok(()));
        assert_eq!(shown.key_matches(), Ok(()));
        if let Some(names) = shown.verify_with_openssl() {
            assert!(names.contains(&id), "{names}");
        }
    }
    assert_eq!(room.secret("one-mtls").await.uid(), before.uid());
    assert_eq!(room.secret("one-mtls").await.type_.as_deref(), Some("kubernetes.io/tls"));

    // A token of another client of ours, a text that is none, and none at all.
    let theirs = room.secret("two-token").await.data.unwrap()["access_token"].clone();
    for value in [json!(theirs), json!("bm90IGEgdG9rZW4="), Value::Null] {
        let edited = room.edit("one-token", json!({"data": {"access_token": value}})).await;
        room.secret_until("one-token", "a token of its own", |secret| {
            let token = secret.data.as_ref().and_then(|data| data.get("access_token"));
            let is_new = token.is_some() && token != edited.data.as_ref().and_then(|data| data.get("access_token"));
            let payload = text(secret, "access_token").and_then(|token| payload(&token)).unwrap_or_default();
            if is_new && payload["client_id"] == id.as_str() { Ok(()) } else { Err("not yet") }
        })
        .await;
    }
    room.secrets().delete("one-token", &DeleteParams::default()).await.unwrap();
    room.secret_until("one-token", "there again", |_| Ok::<_, String>(())).await;
    room.event("one", Reason::SecretChanged).await;
    assert_eq!(client_id(&room.ready("one").await), id);
}

/// What a token says, without looking at its signature.
fn payload(token: &str) -> Option<Value> {
    use base64::Engine as _;
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
