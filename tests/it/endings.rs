//! The ends of registrations and the refusals of Secrets, request by request: deletions that something holds up, many
//! deletions at once, quotas, webhooks that deny or dawdle.

use std::collections::BTreeSet;
use std::time::Duration;

use appreg::api::{AppRegistration, names};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use tokio::time::sleep;

use crate::fake_api::{FakeApi, Fault, Nth};
use crate::reconcile::{Stage, rotate, web};

fn entries(server: &FakeApi) -> usize {
    let secrets = server.objects::<Secret>("secrets");
    secrets.iter().filter(|secret| secret.type_.as_deref() == Some(names::LEDGER_SECRET_TYPE)).count()
}

/// Somebody deletes a registration that a finalizer holds.
fn hold_and_delete(stage: &Stage) {
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:10Z");
        object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    }));
}

fn condition(stage: &Stage, type_: &str) -> Option<(String, String)> {
    let object = stage.server.object::<AppRegistration>("appregistrations", "shop", "storefront")?;
    let condition = object.status?.conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((condition.reason, condition.message))
}

#[tokio::test(start_paused = true)]
async fn a_client_ends_within_35_s_of_a_deletion_whoever_holds_the_object() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    hold_and_delete(&stage);
    stage
        .until("it says so", |_| condition(&stage, "Reconciling").is_some_and(|(reason, _)| reason == "Terminating"))
        .await;
    assert_eq!(entries(&stage.server), 1, "not at once");
    for _ in 0..35 {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    assert_eq!(entries(&stage.server), 0);
    stage
        .until("it is not ready", |_| condition(&stage, "Ready").is_some_and(|(reason, _)| reason == "Terminating"))
        .await;
    assert_eq!(stage.quiet().await, Vec::<String>::new(), "no new client comes to be");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_a_registration_that_is_being_deleted_and_its_secret_is_not_made_again() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    hold_and_delete(&stage);
    stage.clock.advance(SignedDuration::from_secs(10));
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["annotations"] = json!({"appreg.dev/revoke-minted-before": "2026-01-01T00:00:05Z"});
    }));
    stage.until("nothing is accepted", |_| stage.entry().credentials["web"].revisions.is_empty()).await;
    stage.requests();
    stage.server.person_deletes("secrets", "shop", "storefront");
    sleep(Duration::from_secs(5)).await;
    assert!(stage.requests().iter().all(|request| !request.starts_with("create ")));
}

#[tokio::test(start_paused = true)]
async fn hundreds_that_are_deleted_together_end_together_and_the_definition_is_asked_for_once() {
    const MANY: usize = 300;
    let stage = Stage::new();
    let config =
        "authorizationServer: {issuer: \"https://auth.example\"}\npolicy: {limits: {registrationsPerNamespace: 1000}}";
    let _controller = stage.controller_with(config).await;
    for n in 0..MANY {
        stage.apply(&format!("app-{n}"), &web());
    }
    stage.until("all have a client", |server| entries(server) == MANY).await;
    sleep(Duration::from_secs(30)).await;
    stage.requests();
    for n in 0..MANY {
        stage.server.person_deletes("appregistrations", "shop", &format!("app-{n}"));
    }
    for _ in 0..35 {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    assert_eq!(entries(&stage.server), 0);
    let requests = stage.requests();
    let count = |start: &str| requests.iter().filter(|request| request.starts_with(start)).count();
    assert_eq!((count("get appregistrations"), count("delete secrets")), (MANY, MANY));
    assert!(count("get customresourcedefinitions") <= 8, "once a turn: {}", count("get customresourcedefinitions"));
}

/// A webhook or a policy refuses Secrets of the namespace, with these words.
fn refuse(stage: &Stage, code: u16, reason: &str, message: &str) {
    let secrets =
        |call: &crate::fake_api::Call| call.is_write() && call.resource == "secrets" && call.namespace == "shop";
    let answer = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": {"name": "storefront", "kind": "secrets"}});
    stage.server.on(Nth::every_that(secrets).times(u64::MAX), Fault::Answer(answer));
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_takes_no_place_and_nothing_that_is_in_use_ends_by_it() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    let in_use = stage.fields("storefront")["client_secret"].clone();
    refuse(
        &stage,
        403,
        "Forbidden",
        "secrets \"storefront\" is forbidden: exceeded quota: small, requested: count/secrets=1",
    );
    stage.server.person_deletes("secrets", "shop", "storefront");
    stage
        .until("it says so", |_| condition(&stage, "Reconciling").is_some_and(|(reason, _)| reason == "QuotaExceeded"))
        .await;
    for _ in 0..(30 * 60) {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    let web = &stage.entry().credentials["web"];
    assert_eq!(web.revisions.iter().map(|r| r.revision).collect::<Vec<_>>(), [1], "the one in use, and no other");
    let digest = appreg::ledger::Digest::of(in_use.as_bytes());
    assert!(matches!(&web.revisions[0].verifier, appreg::ledger::Verifier::ClientSecret(v) if v.sha256 == digest));
    assert_eq!(condition(&stage, "Reconciling").unwrap().0, "QuotaExceeded", "the true reason to the end");
    stage.server.heal();
    stage.until_ready("storefront").await;
    assert_ne!(stage.fields("storefront")["client_secret"], in_use);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_policy_names_it_and_blames_no_spec_and_the_next_question_is_a_dry_run() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    refuse(
        &stage,
        422,
        "Invalid",
        "secrets \"storefront\" is forbidden: ValidatingAdmissionPolicy 'team-label' with binding 'all' denied request: value",
    );
    stage.apply("storefront", &web());
    stage
        .until("it says so", |_| condition(&stage, "Ready").is_some_and(|(reason, _)| reason == "SecretRefused"))
        .await;
    let (_, message) = condition(&stage, "Ready").unwrap();
    assert!(message.contains("ValidatingAdmissionPolicy 'team-label'") && !message.contains("value"), "{message}");
    sleep(Duration::from_secs(1)).await;
    stage.requests();
    for _ in 0..120 {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    let requests: BTreeSet<String> = stage.requests().into_iter().collect();
    assert!(
        requests.iter().all(|request| !request.contains("secrets appreg-ledger/")),
        "no ledger write: {requests:?}"
    );
    assert!(requests.iter().any(|request| request.starts_with("create secrets shop")), "{requests:?}");
    stage.server.heal();
    stage.until_ready("storefront").await;
    assert!(stage.fields("storefront")["client_secret"].len() > 20, "and no placeholder of the dry run");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_is_lost_is_read_back_and_the_pass_goes_on_from_it() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let is_entry = |call: &crate::fake_api::Call| {
        call.verb == "create" && call.name.is_empty() && call.namespace == "appreg-ledger"
    };
    stage.server.on(Nth::every_that(is_entry).times(1), Fault::LoseReply);
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    assert_eq!(stage.entry().credentials["web"].next_revision, 2, "one revision, and no second attempt");
}

#[tokio::test(start_paused = true)]
async fn no_credential_is_in_a_dry_run_neither_a_new_one_nor_one_in_use() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    let in_use = stage.secret("storefront").data.unwrap()["client_secret"].clone();
    refuse(&stage, 403, "Forbidden", "admission webhook \"labels.example\" denied the request: no team label");
    rotate(&stage);
    stage
        .until("it says so", |_| condition(&stage, "Reconciling").is_some_and(|(reason, _)| reason == "SecretRefused"))
        .await;
    for _ in 0..120 {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    let tried = stage.server.dry_runs();
    assert!(!tried.is_empty(), "it was tried");
    for secret in tried {
        let data = secret["data"].as_object().unwrap();
        assert_eq!(data["client_secret"], data["previous_client_secret"], "the placeholder stands in both");
        assert!(data.values().all(|value| *value != json!(in_use)), "and what is in use stands nowhere");
    }
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_takes_its_whole_time_stops_no_rotation_and_holds_up_nobody_else() {
    const SLOW: usize = 12;
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let secrets =
        |call: &crate::fake_api::Call| call.is_write() && call.resource == "secrets" && call.namespace == "shop";
    // The longest that a webhook may take.
    stage.server.on(Nth::every_that(secrets), Fault::Slow(Duration::from_secs(30)));
    stage.apply("storefront", &web());
    for n in 1..SLOW {
        stage.apply(&format!("app-{n}"), &web());
    }
    stage.until("all have a client", |server| entries(server) >= SLOW).await;
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
        "metadata": {"namespace": "billing", "name": "invoices"},
        "spec": {"displayName": "invoices", "credentials": web()}, "status": {"observedGeneration": -1},
    }));
    stage
        .until("another namespace is served", |server| {
            server.object::<Secret>("secrets", "billing", "invoices").is_some()
        })
        .await;
    assert!(
        stage.server.object::<Secret>("secrets", "shop", "storefront").is_none(),
        "before the webhook has answered"
    );
    stage.until_ready("storefront").await;
    let first = stage.fields("storefront")["client_secret"].clone();
    rotate(&stage);
    stage
        .until("the new one is published beside it", |_| {
            let fields = stage.fields("storefront");
            fields.get("previous_client_secret") == Some(&first) && fields["client_secret"] != first
        })
        .await;
    let writes = stage.requests().into_iter().filter(|request| request.contains(" secrets shop"));
    let (created, replaced): (Vec<_>, Vec<_>) = writes
        .filter(|r| r.starts_with("create") || r.starts_with("update"))
        .partition(|request| request.starts_with("create"));
    assert_eq!((created.len(), replaced), (SLOW, vec!["update secrets shop/storefront 200".to_owned()]), "each once");
}
