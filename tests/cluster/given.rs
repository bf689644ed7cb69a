//! Credentials that are given and not minted, end to end: what a person uploads, and what a pod has by itself.

use appreg::api::{AppRegistration, ConditionType, CredentialStatus, StatusTime};
use appreg::ledger::{self, Digest, Entry, Verifier};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::applied::{BINARY, asked, audited, change, condition, controller_user, create, in_order, secrets, until};
use crate::harness::operator::LEDGER;
use crate::harness::{ControlPlane, Operator, eventually};

/// A self-signed certificate in DER, as a person makes one; valid from a minute ago.
fn certificate(until: Timestamp) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = at(Timestamp::now().as_second() - 60);
    params.not_after = at(until.as_second());
    params.self_signed(&key).unwrap().der().to_vec()
}

/// In so many seconds, as X.509 can say it.
fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

fn credential(registration: &AppRegistration) -> CredentialStatus {
    registration.status.as_ref().unwrap().credentials[0].clone()
}

/// What the ledger has of a client.
async fn entry(plane: &ControlPlane, registration: &AppRegistration) -> Entry {
    let secrets: Api<Secret> = Api::namespaced(plane.client("admin"), LEDGER);
    let client_id = registration.status.as_ref().unwrap().client_id.as_deref().unwrap();
    let name = ledger::name("default", client_id);
    let secret = secrets.get(&name).await.unwrap();
    Entry::parse(&name, Some(&secret.data.unwrap()[ledger::FIELD].0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_is_taken_up_without_a_secret_counts_to_its_own_end_and_is_said_to_have_ended() {
    let plane = audited().await;
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let _controller = operator.controller(&plane).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    create(&plane, &shop, "warm-up", json!({"credentials": [{"name": "pod", "serviceAccount": {"name": "app"}}]}))
        .await;
    in_order(&plane, &shop, "warm-up").await;
    // What the operator makes last of its own: from then on it has nothing to do but the registrations.
    let own = secrets(&plane, LEDGER);
    eventually("there is a serving certificate", async || own.get("token-service-tls").await).await;

    // A ServiceAccount alone: a ledger entry, a status, nothing else.
    let mark = plane.audit().mark().await.unwrap();
    create(&plane, &shop, "pod", json!({"credentials": [{"name": "pod", "serviceAccount": {"name": "app"}}]})).await;
    let registration = in_order(&plane, &shop, "pod").await;
    let requests = plane.audit().of_since(&controller_user(), mark).await.unwrap();
    assert_eq!(
        asked(&requests),
        [format!("create secrets in {LEDGER}"), format!("update appregistrations/status in {shop}")]
    );
    assert_eq!(credential(&registration).subject, Some(format!("system:serviceaccount:{shop}:app")));
    let subject = entry(&plane, &registration).await.credentials["pod"].subject.clone();
    assert_eq!(subject, Some(format!("system:serviceaccount:{shop}:app")));

    // An uploaded certificate: its own end counts, and stands in the status.
    let end = in_seconds(25);
    let der = certificate(end);
    let upload = |der: &[u8]| json!([{"name": "partner", "publicKey": {"der": BASE64_STANDARD.encode(der)}}]);
    create(&plane, &shop, "partner", json!({"credentials": upload(&der)})).await;
    let registration = in_order(&plane, &shop, "partner").await;
    let current = credential(&registration).current.unwrap();
    assert_eq!(current.not_after.map(StatusTime::timestamp), Some(end));
    assert_eq!(current.thumbprint, Some(Digest::of(&der).to_base64url()));
    let next = registration.status.as_ref().unwrap().next_rotation_time.as_ref().unwrap().timestamp();
    assert_eq!(next, end, "what changes next is the end of the certificate");
    let recorded = entry(&plane, &registration).await.credentials["partner"].revisions[0].clone();
    assert_eq!(recorded.not_after, end);
    let Verifier::Certificate(verifier) = &recorded.verifier else { panic!("{recorded:?}") };
    assert_eq!(verifier.cert_sha256, Digest::of(&der));

    // At its end the registration says so by itself, and what to do.
    let is = |registration: &AppRegistration, type_, wanted: &str| {
        condition(registration, type_).is_some_and(|(_, reason)| reason == wanted)
    };
    let expired = until(&plane, (&shop, "partner"), "says that its certificate has ended", |registration| {
        is(registration, ConditionType::Stalled, "Expired") && is(registration, ConditionType::Ready, "Expired")
    })
    .await;
    let message = &expired.status.unwrap().conditions[0].message;
    assert!(
        message.contains("spec.credentials[partner].publicKey") && message.contains("write a newer one"),
        "{message}"
    );

    // Another one takes its place at once.
    let later = in_seconds(3600);
    change(&plane, &shop, "partner", json!({"spec": {"credentials": upload(&certificate(later))}})).await;
    let registration = in_order(&plane, &shop, "partner").await;
    let current = credential(&registration).current.unwrap();
    assert_eq!((current.revision, current.not_after.map(StatusTime::timestamp)), (2, Some(later)));

    // All this without one Secret in the namespace.
    let secrets: Api<Secret> = Api::namespaced(plane.client("admin"), &shop);
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 0);
}
