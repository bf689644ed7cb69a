//! Public clients (RFC 6749 section 2.1), by `clientType`, on the fake API server. That the token endpoint has nothing for
//! them is in `tests/it/token_service/token_endpoint.rs`.

use appreg::api::{AppRegistration, GrantType, TokenEndpointAuthMethod};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::governance::until_reason;
use crate::reconcile::Stage;

fn public() -> Value {
    json!({"clientType": "Public", "redirectURIs": ["https://shop.example/callback", "http://localhost:8000"]})
}

fn has_secret(stage: &Stage, name: &str) -> bool {
    stage.server.object::<Secret>("secrets", "shop", name).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_public_client_costs_a_ledger_write_and_a_status_write_and_has_no_secret() {
    let stage = Stage::new();
    let controller = stage.controller().await;
    stage.requests();
    stage.apply_spec("storefront", &public());
    stage.until_ready("storefront").await;
    let written = ["create secrets appreg-ledger 201", "update appregistrations/status shop/storefront 200"];
    assert_eq!(stage.requests(), written);
    let entry = stage.entry();
    assert!(entry.credentials.is_empty());
    assert_eq!(entry.grant.auth_methods, [TokenEndpointAuthMethod::None]);
    assert_eq!(entry.grant.grant_types, Some(vec![GrantType::AuthorizationCode, GrantType::RefreshToken]));
    assert_eq!(entry.grant.redirect_uris.len(), 2);
    let registration: AppRegistration = stage.server.object("appregistrations", "shop", "storefront").unwrap();
    let status = registration.status.unwrap();
    assert_eq!(
        (status.client_id.as_ref(), status.credentials, status.secrets),
        (Some(&entry.client_id), vec![], vec![])
    );
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new(), "nor after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_becomes_public_keeps_its_id_and_loses_its_credentials_and_none_of_them_comes_back() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply_spec("storefront", &json!({}));
    stage.until_ready("storefront").await;
    let (before, id) = (stage.fields("storefront")["client_secret"].clone(), stage.entry().client_id);

    stage.apply_spec("storefront", &public());
    stage
        .until("no Secret is left", |_| !has_secret(&stage, "storefront") && !has_secret(&stage, "storefront-token"))
        .await;
    stage.until("no credential is accepted", |_| stage.entry().credentials.is_empty()).await;
    stage.until_ready("storefront").await;
    assert_eq!(stage.entry().client_id, id);
    assert_eq!(stage.entry().grant.auth_methods, [TokenEndpointAuthMethod::None]);
    assert_eq!(stage.quiet().await, Vec::<String>::new());

    stage.clock.advance(SignedDuration::from_secs(10));
    stage.apply_spec("storefront", &json!({"clientType": "Confidential"}));
    stage.until("a client secret", |_| has_secret(&stage, "storefront")).await;
    stage.until_ready("storefront").await;
    assert_ne!(stage.fields("storefront")["client_secret"], before);
    assert_eq!((&stage.fields("storefront")["client_id"], stage.entry().client_id), (&id, id.clone()));
    assert!(!stage.entry().grant.auth_methods.contains(&TokenEndpointAuthMethod::None));
}

#[tokio::test(start_paused = true)]
async fn an_object_with_an_empty_list_of_credentials_is_told_how_to_be_a_public_client() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply_spec("storefront", &json!({"credentials": [], "redirectURIs": ["https://shop.example/callback"]}));
    let message = until_reason(&stage, "storefront", "Stalled", "InvalidSpec").await;
    assert!(message.starts_with("Field spec.credentials: must not be empty: set clientType: Public"), "{message}");
    stage.apply_spec("storefront", &public());
    stage.until_ready("storefront").await;
}
