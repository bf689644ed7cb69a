//! `secretTemplate`: what it brings onto a Secret, and that it leaves with it, on the fake API server.

use std::collections::BTreeMap;

use appreg::api::names::APPLIED_TEMPLATE_ANNOTATION;
use serde_json::{Value, json};

use crate::fake_api::{Fault, Nth};
use crate::reconcile::{Stage, web};

const SECRET: &str = "storefront";

/// A registration with one client secret and this template.
fn apply(stage: &Stage, template: &Value) {
    stage.apply_spec("storefront", &json!({"credentials": web(), "secretTemplate": template}));
}

fn labels(stage: &Stage) -> BTreeMap<String, String> {
    stage.secret(SECRET).metadata.labels.unwrap_or_default()
}

fn annotations(stage: &Stage) -> BTreeMap<String, String> {
    stage.secret(SECRET).metadata.annotations.unwrap_or_default()
}

fn template() -> Value {
    json!({
        "labels": {"team": "shop", "tier": "front"},
        "annotations": {"note": "a", "reloader.example/match": "true"},
        "fields": {"CLIENT_ID": "client_id", "client-secret": "client_secret"},
    })
}

/// Without one label, one annotation and one field.
fn smaller_template() -> Value {
    json!({
        "labels": {"team": "shop"}, "annotations": {"note": "b"},
        "fields": {"CLIENT_ID": "client_id", "OLD": "previous_client_secret"},
    })
}

/// Somebody else's label and annotation.
fn add_foreign(stage: &Stage) {
    assert!(stage.server.person_edits("secrets", "shop", SECRET, |secret| {
        secret["metadata"]["labels"]["theirs"] = json!("x");
        secret["metadata"]["annotations"]["theirs.example/a"] = json!("y");
    }));
}

fn has_foreign(stage: &Stage) -> bool {
    labels(stage).get("theirs").is_some_and(|value| value == "x")
        && annotations(stage).get("theirs.example/a").is_some_and(|value| value == "y")
}

/// Whether the Secret has of the templates above what the smaller one has, and no more.
fn is_smaller(stage: &Stage) -> bool {
    let (labels, annotations, fields) = (labels(stage), annotations(stage), stage.fields(SECRET));
    labels.contains_key("team")
        && !labels.contains_key("tier")
        && annotations.get("note").is_some_and(|note| note == "b")
        && !annotations.contains_key("reloader.example/match")
        && fields.get("CLIENT_ID") == fields.get("client_id")
        && !fields.contains_key("client-secret")
}

#[tokio::test(start_paused = true)]
async fn a_template_costs_nothing_more_and_what_leaves_it_leaves_the_secret_by_one_read_and_one_write() {
    let stage = Stage::new();
    let controller = stage.controller().await;
    stage.requests();
    apply(&stage, &template());
    stage.until_ready("storefront").await;
    let [create, status] = ["create secrets shop 201", "update appregistrations/status shop/storefront 200"];
    assert_eq!(stage.requests(), ["create secrets appreg-ledger 201", create, status]);
    let fields = stage.fields(SECRET);
    assert_eq!((&fields["CLIENT_ID"], &fields["client-secret"]), (&fields["client_id"], &fields["client_secret"]));
    assert_eq!(
        (labels(&stage)["tier"].as_str(), annotations(&stage)["reloader.example/match"].as_str()),
        ("front", "true")
    );
    add_foreign(&stage);
    stage.quiet().await;
    assert_eq!(stage.quiet().await, Vec::<String>::new());

    let by_one_write = ["get secrets shop/storefront 200", "update secrets shop/storefront 200", status];
    apply(&stage, &smaller_template());
    stage.until("smaller", |_| is_smaller(&stage)).await;
    stage.until_ready("storefront").await;
    assert_eq!(stage.requests(), by_one_write);
    assert!(!stage.fields(SECRET).contains_key("OLD"), "there is no previous client secret yet");
    assert!(has_foreign(&stage), "what is somebody else's stays");
    assert_eq!(stage.fields(SECRET)["client_secret"], fields["client_secret"], "nothing is minted for it");
    assert_eq!(stage.quiet().await, Vec::<String>::new());

    apply(&stage, &Value::Null);
    stage.until("gone", |_| !stage.fields(SECRET).contains_key("CLIENT_ID")).await;
    stage.until_ready("storefront").await;
    assert_eq!(stage.requests(), by_one_write);
    let (labels, annotations) = (labels(&stage), annotations(&stage));
    for name in ["team", "tier"] {
        assert!(!labels.contains_key(name), "{name}");
    }
    for name in ["note", "reloader.example/match", APPLIED_TEMPLATE_ANNOTATION] {
        assert!(!annotations.contains_key(name), "{name}");
    }
    assert!(has_foreign(&stage), "what is somebody else's stays");
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new(), "nor after a restart");
}

#[tokio::test(start_paused = true)]
async fn what_left_the_template_leaves_the_secret_whatever_becomes_of_the_write() {
    for fault in [Fault::LoseRequest, Fault::LoseReply, Fault::internal(), Fault::Hang, Fault::HangAfter] {
        let case = format!("{fault:?}");
        let stage = Stage::new();
        let controller = stage.controller().await;
        apply(&stage, &template());
        stage.until_ready("storefront").await;
        stage.server.on(Nth::every("update", "secrets").times(1), fault);
        apply(&stage, &smaller_template());
        stage.pass(jiff::SignedDuration::from_secs(2)).await;
        drop(controller);
        let _controller = stage.start();
        stage.until(&format!("{case}: smaller"), |_| is_smaller(&stage)).await;
        stage.until_ready("storefront").await;
        stage.quiet().await;
        assert_eq!(stage.quiet().await, Vec::<String>::new(), "{case}: still writing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_field_has_the_value_of_its_source_through_rotations_and_hand_edits() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let fields =
        json!({"SECRET": "client_secret", "ALSO": "client_secret", "OLD": "previous_client_secret", "PEM": "tls.crt"});
    apply(&stage, &json!({"fields": fields}));
    stage.until_ready("storefront").await;
    let first = stage.fields(SECRET)["client_secret"].clone();
    let holds = |secret: &str, old: Option<&String>| {
        let fields = stage.fields(SECRET);
        fields["client_secret"] == secret
            && fields.get("SECRET") == fields.get("client_secret")
            && fields.get("ALSO") == fields.get("client_secret")
            && fields.get("OLD") == old
            && !fields.contains_key("PEM")
    };
    assert!(holds(&first, None));

    stage.clock.advance(jiff::SignedDuration::from_secs(10));
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["annotations"] = json!({"appreg.dev/rotate-minted-before": "2026-01-01T00:00:05Z"});
    }));
    stage.until("rotated", |_| stage.fields(SECRET)["client_secret"] != first).await;
    stage.until_ready("storefront").await;
    let second = stage.fields(SECRET)["client_secret"].clone();
    assert!(holds(&second, Some(&first)), "with the one before");

    for edit in [json!("eA=="), Value::Null] {
        assert!(stage.server.person_edits("secrets", "shop", SECRET, |secret| match &edit {
            Value::Null => drop(secret["data"].as_object_mut().unwrap().remove("SECRET")),
            value => secret["data"]["SECRET"] = value.clone(),
        }));
        stage.until("written again", |_| holds(&second, Some(&first))).await;
        stage.until_ready("storefront").await;
    }
    assert_eq!(stage.held_revision(), Some(2), "and nothing is minted for it");
}

#[tokio::test(start_paused = true)]
async fn each_secret_has_the_further_fields_whose_source_it_has() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let fields = json!({"ID": "client_id", "SECRET": "client_secret", "TOKEN": "access_token", "CERT": "tls.crt", "KEY": "tls.key"});
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        {"name": "api", "accessToken": {}},
        {"name": "mtls", "secretName": "storefront-mtls", "certificate": {}},
    ]);
    stage.apply_spec("storefront", &json!({"credentials": credentials, "secretTemplate": {"fields": fields}}));
    stage.until_ready("storefront").await;
    for (secret, expected) in [
        ("storefront", vec!["ID", "SECRET"]),
        ("storefront-token", vec!["ID", "TOKEN"]),
        ("storefront-mtls", vec!["CERT", "ID", "KEY"]),
    ] {
        let fields = stage.fields(secret);
        let further: Vec<&str> =
            fields.keys().map(String::as_str).filter(|name| name.chars().all(|c| c.is_ascii_uppercase())).collect();
        assert_eq!(further, expected, "{secret}");
    }
    // A token is refreshed by one write, its further field with it.
    let before = stage.fields("storefront-token")["TOKEN"].clone();
    stage.requests();
    stage.clock.advance(jiff::SignedDuration::from_mins(50));
    stage.until("refreshed", |_| stage.fields("storefront-token")["TOKEN"] != before).await;
    let fields = stage.fields("storefront-token");
    assert_eq!(fields["TOKEN"], fields["access_token"]);
    assert_eq!(stage.requests(), ["update secrets shop/storefront-token 200"]);
}
