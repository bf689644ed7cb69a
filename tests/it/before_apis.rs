//! A cluster from before APIs had scopes of their own: what is stored there is read, and its applications go on with their
//! client IDs and client secrets.
//!
//! `fixtures/before-apis.json` is everything that the controller of commit b7753b4 left on the fake API server for one
//! registration, whose client secret was rotated once. Its keys are of use nowhere else.

use std::sync::Arc;

use appreg::api::AppRegistration;
use appreg::api::names::LEDGER_SECRET_TYPE;
use appreg::clock::ManualClock;
use appreg::ledger::Entry;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::governance::{namespace, until_reason};
use crate::reconcile::Stage;

const ORDERS: &str = "https://orders.example";
const INVOICES: &str = "https://invoices.example";

/// What was there.
fn before() -> Value {
    serde_json::from_str(include_str!("fixtures/before-apis.json")).unwrap()
}

/// The ledger entry as it was stored.
fn stored_entry(before: &Value) -> Value {
    let objects = before["objects"].as_array().unwrap();
    let secret = objects.iter().find(|object| object["type"] == LEDGER_SECRET_TYPE).unwrap();
    let json = STANDARD.decode(secret["data"]["ledger.json"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The cluster as it was.
fn restored(before: &Value) -> Stage {
    let stage = Stage {
        server: FakeApi::new(),
        clock: Arc::new(ManualClock::at(before["now"].as_str().unwrap().parse().unwrap())),
    };
    stage.server.person_restores(before["objects"].as_array().unwrap());
    namespace(&stage, "shop", &json!({}));
    stage
}

/// The spec in the words of today.
fn spec() -> Value {
    json!({
        "displayName": "Storefront", "clientID": "shop.storefront",
        "redirectURIs": ["https://shop.example/callback"],
        "apis": [
            {"audience": ORDERS, "scopes": ["orders:read", "orders:write"]},
            {"audience": INVOICES, "scopes": ["orders:read", "orders:write"]},
        ],
        "servedAudiences": ["https://storefront.example"],
        "customerScope": {"type": "Groups", "groups": ["emea-retail"]},
        "secretTemplate": {"labels": {"team": "shop"}},
        "credentials": [
            {"name": "web", "clientSecret": {}},
            {
                "name": "mtls", "secretName": "storefront-mtls",
                "certificate": {"privateKey": {"algorithm": "ECDSA", "size": 384}, "dnsNames": ["storefront.shop.svc"]},
            },
            {"name": "api", "accessToken": {"scopes": ["orders:read"]}},
            {"name": "workload", "serviceAccount": {"name": "storefront"}},
        ],
    })
}

fn write_spec(stage: &Stage, spec: &Value) {
    assert!(
        stage.server.person_edits("appregistrations", "shop", "storefront", |object| object["spec"] = spec.clone())
    );
}

fn of_token(stage: &Stage) -> Value {
    let token = stage.fields("storefront-token")["access_token"].clone();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn the_fixture_is_of_the_shape_before() {
    let grant = &stored_entry(&before())["grant"];
    assert!(grant["apis"].is_null() && grant["servedAudiences"].is_null());
    assert_eq!(grant["audiences"].as_object().unwrap().len(), 2);
    assert_eq!(grant["resourceAudiences"].as_object().unwrap().len(), 1);
    let all = before().to_string();
    for old in ["mintedAt", "acceptedUntil\"", "nextTransitionTime", "keyType"] {
        assert!(all.contains(old), "{old}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_from_before_goes_on_with_the_same_client_and_every_credential_once_its_files_are_edited() {
    let before = before();
    let stage = restored(&before);
    let fields = |stage: &Stage| ["storefront", "storefront-mtls"].map(|name| stage.fields(name));
    let secrets = fields(&stage);
    let entry: Entry = serde_json::from_value(stored_entry(&before)).unwrap();
    write_spec(&stage, &spec());
    let controller = stage.start();
    stage.until_ready("storefront").await;
    stage.pass(SignedDuration::from_secs(10)).await;

    assert!(fields(&stage) == secrets, "client secret and certificate are those that were there, with all beside them");
    let now = stage.entry();
    assert_eq!((&now.client_id, now.created_at, &now.owner), (&entry.client_id, entry.created_at, &entry.owner));
    assert_eq!(now.credentials, entry.credentials, "every revision is accepted as it was, and none is new");
    let by_default = "policy/default";
    for audience in [ORDERS, INVOICES] {
        let api = &now.grant.apis[audience];
        assert_eq!(api.by, by_default);
        assert_eq!(api.scopes.keys().collect::<Vec<_>>(), ["orders:read", "orders:write"]);
    }
    assert_eq!(now.grant.served_audiences.keys().collect::<Vec<_>>(), ["https://storefront.example"]);
    assert_eq!(now.grant.customer_groups["emea-retail"], by_default);
    let token = of_token(&stage);
    assert_eq!((&token["aud"], &token["scope"]), (&json!(ORDERS), &json!("orders:read")), "it is for one API now");
    let writes: Vec<_> = stage.requests().into_iter().filter(|request| !request.starts_with("list ")).collect();
    let ledger = format!("update secrets appreg-ledger/{} 200", now.name());
    assert_eq!(
        writes,
        [
            // Each Secret is written once, to say what it has from the template.
            "get secrets shop/storefront 200",
            "get secrets shop/storefront-mtls 200",
            &ledger,
            "update secrets shop/storefront 200",
            "update secrets shop/storefront-mtls 200",
            "update secrets shop/storefront-token 200",
            "update appregistrations/status shop/storefront 200",
        ]
    );
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);

    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new(), "nor after a restart");
    let old = stage.fields("storefront")["client_secret"].clone();
    stage.clock.advance(SignedDuration::from_hours(24 * 80));
    stage.until("rotated", |_| stage.fields("storefront")["client_secret"] != old).await;
    stage.until_ready("storefront").await;
    assert_eq!(stage.fields("storefront")["previous_client_secret"], old);
    assert_eq!(stage.held_revision(), Some(entry.credentials["web"].next_revision), "the next number");
    assert_eq!(stage.entry().client_id, entry.client_id);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_nobody_has_edited_keeps_its_client_and_its_client_secret() {
    let before = before();
    let stage = restored(&before);
    let secret = stage.fields("storefront");
    let entry: Entry = serde_json::from_value(stored_entry(&before)).unwrap();
    // With the definitions of today the API server shows what they know of it.
    let mut known = stage.server.object::<Value>("appregistrations", "shop", "storefront").unwrap()["spec"].clone();
    for old in ["audiences", "resourceAudiences"] {
        assert!(known.as_object_mut().unwrap().remove(old).is_some());
    }
    assert!(known["credentials"][1]["certificate"].as_object_mut().unwrap().remove("keyType").is_some());
    write_spec(&stage, &known);
    let _controller = stage.start();
    until_reason(&stage, "storefront", "Approved", "PolicyDenied").await;
    stage.quiet().await;
    let registration: AppRegistration = stage.server.object("appregistrations", "shop", "storefront").unwrap();
    let ready = registration.status.unwrap().conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True", "{}", ready.message);
    let now = stage.fields("storefront");
    for field in ["client_id", "client_secret", "previous_client_secret"] {
        assert_eq!(now[field], secret[field], "{field}");
    }
    assert_eq!((stage.entry().client_id, stage.entry().created_at), (entry.client_id, entry.created_at));
    assert_eq!(stage.entry().credentials["web"], entry.credentials["web"]);
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}
