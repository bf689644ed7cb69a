//! The controller with several authorization servers, on the fake API server: keys and authorities of each one, what is
//! requested for them, and that what exists goes on whatever becomes of a server's object.

use appreg::api::{AppRegistration, AuthorizationServer};
use appreg::config::published;
use appreg::ledger;
use appreg::signer::Index;
use appreg::signer::ca::CaIndex;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::reconcile::{LEDGER, Running, SYSTEM, Stage, signing_keys, system};

const ISSUER: &str = "https://auth.example/partners";

fn namespace(stage: &Stage, labels: &Value) {
    stage.server.person_applies(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels},
    }));
}

fn server(stage: &Stage, name: &str, issuer: &str, more: &Value) {
    let mut spec = json!({"namespaceSelector": {"matchLabels": {"tier": "partner"}}, "builtIn": {"issuer": issuer}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AuthorizationServer", "metadata": {"name": name}, "spec": spec,
    }));
}

/// Ready, its reason and its message, of a server's object at its present generation.
fn told(server: &FakeApi, name: &str) -> Option<(String, String, String)> {
    let object: Value = server.object("authorizationservers", "", name)?;
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        return None;
    }
    let ready = object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")?;
    let text = |field: &str| ready[field].as_str().unwrap().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

async fn until_told(stage: &Stage, name: &str, reason: &str) -> String {
    let seen = |server: &FakeApi| told(server, name).filter(|(_, seen, _)| seen == reason);
    stage.until(&format!("{name}: {reason}"), |server| seen(server).is_some()).await;
    seen(&stage.server).unwrap().2
}

fn apply(stage: &Stage, name: &str, server: Option<&str>, spec: &Value) {
    let mut all = json!({"displayName": name});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    if let Some(server) = server {
        all["authorizationServerRef"] = json!({"name": server});
    }
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
        "metadata": {"namespace": "shop", "name": name}, "spec": all, "status": {"observedGeneration": -1},
    }));
}

fn condition(server: &FakeApi, name: &str, type_: &str) -> Option<(String, String, String)> {
    let registration: AppRegistration = server.object("appregistrations", "shop", name)?;
    let condition = registration.status?.conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status, condition.reason, condition.message))
}

async fn until_reason(stage: &Stage, name: &str, type_: &str, reason: &str) -> String {
    let seen = |server: &FakeApi| condition(server, name, type_).filter(|(_, seen, _)| seen == reason);
    stage.until(&format!("{name}: {type_} for {reason}"), |server| seen(server).is_some()).await;
    seen(&stage.server).unwrap().2
}

fn field(secret: &Secret, name: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[name].0.clone()).unwrap()
}

fn index(secret: &Secret) -> Index {
    Index::parse(secret.data.as_ref().unwrap().get("keys.json").map(|bytes| bytes.0.as_slice())).unwrap()
}

fn authorities(secret: &Secret) -> CaIndex {
    CaIndex::parse(secret.data.as_ref().unwrap().get("cas.json").map(|bytes| bytes.0.as_slice())).unwrap()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

fn serving_names(stage: &Stage) -> Vec<String> {
    let chain = system(stage, "token-service-tls").data.unwrap()["tls.crt"].0.clone();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&chain).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    names.iter().map(|name| name.to_string().trim_start_matches("DNSName(").trim_end_matches(')').to_owned()).collect()
}

/// A controller, a namespace that `partners` takes, and that server in force.
async fn partners(stage: &Stage) -> Running {
    namespace(stage, &json!({"tier": "partner"}));
    let controller = stage.controller().await;
    server(stage, "partners", ISSUER, &json!({}));
    until_told(stage, "partners", "InForce").await;
    controller
}

fn web() -> Value {
    json!({"credentials": [{"name": "web", "clientSecret": {}}]})
}

#[tokio::test(start_paused = true)]
async fn a_server_gets_keys_and_authorities_of_its_own_and_a_name_in_the_certificate_by_one_write_each() {
    let stage = Stage::new();
    namespace(&stage, &json!({"tier": "partner"}));
    let _controller = stage.controller().await;
    stage.quiet().await;
    server(&stage, "partners", "https://partners.example", &json!({}));
    let message = until_told(&stage, "partners", "InForce").await;
    assert_eq!(message, "Serving tokens at https://partners.example/token");
    stage.until("the certificate", |_| serving_names(&stage).contains(&"partners.example".to_owned())).await;
    let mut requests: Vec<_> = stage.requests().into_iter().filter(|request| !request.starts_with("list ")).collect();
    requests.sort();
    assert_eq!(
        requests,
        [
            "create secrets appreg-ledger 201",
            "create secrets appreg-ledger 201",
            "create secrets appreg-system 201",
            "get secrets appreg-ledger/ca-bundle-partners 404",
            "get secrets appreg-ledger/signing-keys-partners 404",
            "get secrets appreg-system/appreg-ca-partners 404",
            "update authorizationservers/status partners 200",
            "update secrets appreg-ledger/token-service-tls 200",
        ]
    );
    assert!(serving_names(&stage).contains(&"auth.example".to_owned()));
    let own = system(&stage, "signing-keys-partners");
    assert_ne!(index(&own).keys()[0].kid, signing_keys(&stage).keys()[0].kid);
    let settings = published::parse("partners", Some(field(&own, published::FIELD).as_bytes())).unwrap();
    assert_eq!(settings.issuer, "https://partners.example");
    assert!(!system(&stage, "signing-keys").data.unwrap().contains_key(published::FIELD));
    let [of_default, of_partners] = ["ca-bundle", "ca-bundle-partners"].map(|name| authorities(&system(&stage, name)));
    assert_ne!(of_default.all()[0].id, of_partners.all()[0].id);
    assert!(stage.server.object::<Secret>("secrets", SYSTEM, "appreg-ca-partners").is_some());
    let object: AuthorizationServer = stage.server.object("authorizationservers", "", "partners").unwrap();
    let status = object.status.unwrap();
    assert_eq!(status.issuer.as_deref(), Some("https://partners.example"));
    assert_eq!(status.token_endpoint.as_deref(), Some("https://partners.example/token"));
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn one_client_id_is_another_client_at_each_server_at_the_same_cost_and_a_restart_lists_only() {
    let stage = Stage::new();
    let controller = partners(&stage).await;
    stage.quiet().await;
    let kinds = json!({"clientID": "shop.one", "credentials": [
        {"name": "web", "clientSecret": {}},
        {"name": "mtls", "secretName": "NAME-mtls", "certificate": {}},
        {"name": "api", "accessToken": {}},
    ]});
    for (name, server) in [("own", None), ("other", Some("partners"))] {
        stage.requests();
        apply(&stage, name, server, &serde_json::from_str(&kinds.to_string().replace("NAME", name)).unwrap());
        stage.until_ready(name).await;
        let status = format!("update appregistrations/status shop/{name} 200");
        let secret = "create secrets shop 201".to_owned();
        let ledger = "create secrets appreg-ledger 201".to_owned();
        assert_eq!(stage.requests(), [ledger, secret.clone(), secret.clone(), secret, status], "{name}");
    }
    let object = |name: &str| stage.server.object::<Secret>("secrets", LEDGER, name);
    assert!(object(&ledger::name("default", "shop.one")).is_some());
    assert!(object(&ledger::name("partners", "shop.one")).is_some());
    let [own, other] = ["own-token", "other-token"].map(|name| stage.secret(name));
    assert_eq!((field(&own, "issuer"), field(&other, "issuer")), ("https://auth.example".into(), ISSUER.into()));
    assert_eq!(field(&other, "jwks_uri"), format!("{ISSUER}/jwks"));
    assert_eq!(kid(&field(&own, "access_token")), signing_keys(&stage).keys()[0].kid);
    let of_partners = index(&system(&stage, "signing-keys-partners"));
    assert_eq!(kid(&field(&other, "access_token")), of_partners.keys()[0].kid);
    // One certificate serves all issuers; each server's clients have its own authority.
    assert_eq!(field(&own, "issuer_ca.crt"), field(&other, "issuer_ca.crt"));
    let [own, other] = ["own-mtls", "other-mtls"].map(|name| stage.secret(name));
    assert_eq!(field(&own, "ca.crt"), field(&own, "issuer_ca.crt"));
    assert_eq!(field(&other, "ca.crt"), field(&system(&stage, "ca-bundle-partners"), "ca.crt"));
    assert_ne!(field(&other, "ca.crt"), field(&own, "ca.crt"));
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    stage.until_ready("other").await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_taken_is_told_so_until_its_labels_or_the_selector_change() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    namespace(&stage, &json!({}));
    apply(&stage, "storefront", Some("partners"), &web());
    let message = until_reason(&stage, "storefront", "Stalled", "ServerDenied").await;
    for part in ["authorization server partners", "namespace shop", "tier=partner"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(stage.server.object::<Secret>("secrets", "shop", "storefront").is_none());
    namespace(&stage, &json!({"tier": "partner"}));
    stage.until_ready("storefront").await;
    let secret = field(&stage.secret("storefront"), "client_secret");
    // Taken no longer: what exists goes on and is rotated, and nothing new begins.
    namespace(&stage, &json!({}));
    until_reason(&stage, "storefront", "Approved", "ServerDenied").await;
    assert_eq!(condition(&stage.server, "storefront", "Ready").unwrap().0, "True");
    stage.clock.advance(SignedDuration::from_hours(24 * 80));
    stage.until("rotated", |_| field(&stage.secret("storefront"), "client_secret") != secret).await;
    apply(&stage, "new", Some("partners"), &web());
    until_reason(&stage, "new", "Stalled", "ServerDenied").await;
    server(&stage, "partners", ISSUER, &json!({"namespaceSelector": {}}));
    stage.until_ready("new").await;
    until_reason(&stage, "storefront", "Approved", "Granted").await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_server_is_named_and_its_registrations_begin_when_it_comes() {
    let stage = Stage::new();
    namespace(&stage, &json!({"tier": "partner"}));
    let _controller = stage.controller().await;
    apply(&stage, "storefront", Some("partners"), &web());
    let message = until_reason(&stage, "storefront", "Stalled", "InvalidSpec").await;
    let said = "Field spec.authorizationServerRef.name: there is no authorization server partners: create it, or create this \
                registration anew with another server";
    assert_eq!(message, said);
    server(&stage, "partners", ISSUER, &json!({}));
    stage.until_ready("storefront").await;
}

#[tokio::test(start_paused = true)]
async fn what_exists_at_a_deleted_server_is_rotated_by_what_was_published_through_restarts() {
    let stage = Stage::new();
    let controller = partners(&stage).await;
    apply(&stage, "storefront", Some("partners"), &json!({}));
    stage.until_ready("storefront").await;
    let [secret, token] = ["storefront", "storefront-token"].map(|name| stage.secret(name));
    assert!(stage.server.person_deletes("authorizationservers", "", "partners"));
    let message = until_reason(&stage, "storefront", "Approved", "ServerDenied").await;
    assert!(message.contains("partners was deleted"), "{message}");
    assert_eq!(condition(&stage.server, "storefront", "Ready").unwrap().0, "True");
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    stage.clock.advance(SignedDuration::from_hours(24 * 80));
    let is_another = |name: &str, of: &Secret, part: &str| field(&stage.secret(name), part) != field(of, part);
    stage.until("the client secret is rotated", |_| is_another("storefront", &secret, "client_secret")).await;
    stage.until("the token is refreshed", |_| is_another("storefront-token", &token, "access_token")).await;
    assert_eq!(field(&stage.secret("storefront-token"), "issuer"), ISSUER);
    apply(&stage, "new", Some("partners"), &web());
    assert!(until_reason(&stage, "new", "Stalled", "ServerDenied").await.contains("partners was deleted"));
    // Made anew it is the same server, and with another issuer it is none.
    server(&stage, "partners", "https://elsewhere.example", &json!({}));
    let message = until_told(&stage, "partners", "IssuerConflict").await;
    assert!(message.contains("spec.builtIn.issuer") && message.contains(ISSUER), "{message}");
    assert!(stage.server.person_deletes("authorizationservers", "", "partners"));
    server(&stage, "partners", ISSUER, &json!({}));
    stage.until_ready("new").await;
    until_reason(&stage, "storefront", "Approved", "Granted").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_gone_for_good_once_a_person_has_deleted_its_keys() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    assert!(stage.server.person_deletes("authorizationservers", "", "partners"));
    for (namespace, name) in
        [(LEDGER, "signing-keys-partners"), (LEDGER, "ca-bundle-partners"), (SYSTEM, "appreg-ca-partners")]
    {
        assert!(stage.server.person_deletes("secrets", namespace, name));
    }
    stage.quiet().await;
    apply(&stage, "storefront", Some("partners"), &web());
    until_reason(&stage, "storefront", "Stalled", "InvalidSpec").await;
    for name in ["signing-keys-partners", "ca-bundle-partners"] {
        assert!(stage.server.object::<Secret>("secrets", LEDGER, name).is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_understood_serves_nobody_new_and_says_so_once() {
    let stage = Stage::new();
    let controller = partners(&stage).await;
    apply(&stage, "storefront", Some("partners"), &web());
    stage.until_ready("storefront").await;
    let secret = field(&stage.secret("storefront"), "client_secret");
    server(&stage, "partners", ISSUER, &json!({"later": {"canary": 1}}));
    let message = until_told(&stage, "partners", "InvalidSpec").await;
    assert!(message.contains("spec") && !message.contains("canary"), "{message}");
    until_reason(&stage, "storefront", "Approved", "ServerDenied").await;
    server(&stage, "second", "https://second.example", &json!({"later": {}}));
    until_told(&stage, "second", "InvalidSpec").await;
    apply(&stage, "new", Some("second"), &web());
    until_reason(&stage, "new", "Stalled", "InvalidSpec").await;
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    stage.clock.advance(SignedDuration::from_hours(24 * 80));
    stage.until("rotated", |_| field(&stage.secret("storefront"), "client_secret") != secret).await;
    server(&stage, "partners", ISSUER, &json!({}));
    stage.server.person_edits("authorizationservers", "", "partners", |object| {
        object["spec"].as_object_mut().unwrap().remove("later");
    });
    until_told(&stage, "partners", "InForce").await;
    until_reason(&stage, "storefront", "Approved", "Granted").await;
}

#[tokio::test(start_paused = true)]
async fn of_two_servers_with_one_issuer_the_first_has_it_and_the_configured_one_has_its_own() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    server(&stage, "copy", "https://AUTH.example:8443/partners", &json!({}));
    assert!(until_told(&stage, "copy", "IssuerConflict").await.contains("server partners"));
    server(&stage, "shadow", "https://auth.example", &json!({}));
    assert!(until_told(&stage, "shadow", "IssuerConflict").await.contains("server default"));
    server(&stage, "default", "https://default.example", &json!({}));
    assert!(until_told(&stage, "default", "InvalidSpec").await.contains("metadata.name"));
    for name in ["copy", "shadow", "default"] {
        assert!(stage.server.object::<Secret>("secrets", LEDGER, &format!("signing-keys-{name}")).is_none(), "{name}");
    }
    // Once the first is gone for good, the next has the issuer.
    assert!(stage.server.person_deletes("authorizationservers", "", "partners"));
    assert!(stage.server.person_deletes("secrets", LEDGER, "signing-keys-partners"));
    until_told(&stage, "copy", "InForce").await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_read_hold_up_one_server_and_are_never_written_over() {
    let stage = Stage::new();
    let controller = partners(&stage).await;
    apply(&stage, "storefront", Some("partners"), &json!({}));
    stage.until_ready("storefront").await;
    assert!(stage.server.person_edits("secrets", LEDGER, "signing-keys-partners", |secret| {
        secret["data"]["keys.json"] = json!("e30=");
    }));
    let broken = system(&stage, "signing-keys-partners");
    let message = until_told(&stage, "partners", "ServerUnavailable").await;
    assert!(message.contains("signing-keys-partners") && message.contains("cannot be read"), "{message}");
    // What is in memory goes on.
    let token = stage.secret("storefront-token");
    stage.clock.advance(SignedDuration::from_hours(1));
    stage
        .until("refreshed", |_| {
            field(&stage.secret("storefront-token"), "access_token") != field(&token, "access_token")
        })
        .await;
    drop(controller);
    let _controller = stage.start();
    let message = until_reason(&stage, "storefront", "Reconciling", "ServerUnavailable").await;
    assert!(message.contains("partners"), "{message}");
    apply(&stage, "own", None, &json!({}));
    stage.until_ready("own").await;
    assert_eq!(system(&stage, "signing-keys-partners").data, broken.data);
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_later_version_are_never_written_over() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    assert!(stage.server.person_edits("secrets", LEDGER, "signing-keys-partners", |secret| {
        secret["data"][published::FIELD] = json!("eyJ2ZXJzaW9uIjoyfQ==");
    }));
    until_told(&stage, "partners", "ServerUnavailable").await;
    assert_eq!(field(&system(&stage, "signing-keys-partners"), published::FIELD), r#"{"version":2}"#);
    // What a hand has broken is written anew: the object has it.
    assert!(stage.server.person_edits("secrets", LEDGER, "signing-keys-partners", |secret| {
        secret["data"][published::FIELD] = json!("e30=");
    }));
    until_told(&stage, "partners", "InForce").await;
    let settings = field(&system(&stage, "signing-keys-partners"), published::FIELD);
    assert_eq!(published::parse("partners", Some(settings.as_bytes())).unwrap().issuer, ISSUER);
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_of_one_server_is_replaced_and_the_others_keep_theirs() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    apply(&stage, "own", None, &json!({}));
    apply(&stage, "other", Some("partners"), &json!({}));
    stage.until_ready("own").await;
    stage.until_ready("other").await;
    let leaked = index(&system(&stage, "signing-keys-partners")).keys()[0].kid.clone();
    let kept = signing_keys(&stage);
    let own = field(&stage.secret("own-token"), "access_token");
    stage.clock.advance(SignedDuration::from_secs(10));
    assert!(stage.server.person_edits("secrets", LEDGER, "signing-keys-partners", |secret| {
        secret["metadata"]["annotations"]["appreg.dev/revoke-minted-before"] = json!("2026-01-01T00:00:05Z");
    }));
    stage.until("signed again", |_| kid(&field(&stage.secret("other-token"), "access_token")) != leaked).await;
    assert!(index(&system(&stage, "signing-keys-partners")).keys().iter().all(|key| key.kid != leaked));
    assert_eq!(signing_keys(&stage), kept);
    assert_eq!(field(&stage.secret("own-token"), "access_token"), own);
}

#[tokio::test(start_paused = true)]
async fn settings_that_change_are_published_and_another_algorithm_waits_a_day() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    let more = json!({"builtIn": {"issuer": ISSUER, "accessTokenLifetime": "5m", "signingAlgorithm": "EdDSA"}});
    server(&stage, "partners", ISSUER, &more);
    let is_published = |_: &FakeApi| {
        let settings = field(&system(&stage, "signing-keys-partners"), published::FIELD);
        let settings = published::parse("partners", Some(settings.as_bytes())).unwrap();
        settings.access_token_lifetime.to_string() == "5m"
    };
    stage.until("published", is_published).await;
    let algorithms: Vec<_> =
        index(&system(&stage, "signing-keys-partners")).keys().iter().map(|key| key.alg.as_str()).collect();
    assert_eq!(algorithms, ["ES256", "EdDSA"]);
    assert_eq!(signing_keys(&stage).keys().len(), 1);
    stage.quiet().await;
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn servers_that_cannot_be_listed_are_not_deleted_ones() {
    let stage = Stage::new();
    let controller = partners(&stage).await;
    apply(&stage, "storefront", Some("partners"), &web());
    stage.until_ready("storefront").await;
    let secret = field(&stage.secret("storefront"), "client_secret");
    drop(controller);
    let forbidden =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden"});
    stage
        .server
        .on(crate::fake_api::Nth::every("list", "authorizationservers"), crate::fake_api::Fault::Answer(forbidden));
    let _controller = stage.start();
    let message = until_reason(&stage, "storefront", "Approved", "ServerDenied").await;
    assert!(message.contains("could not be listed"), "{message}");
    stage.clock.advance(SignedDuration::from_hours(24 * 80));
    stage.until("rotated", |_| field(&stage.secret("storefront"), "client_secret") != secret).await;
    stage.server.heal();
    until_reason(&stage, "storefront", "Approved", "Granted").await;
}

#[tokio::test(start_paused = true)]
async fn an_authority_whose_label_was_taken_away_is_labelled_again_and_costs_nothing_after() {
    let stage = Stage::new();
    let _controller = partners(&stage).await;
    stage.quiet().await;
    for name in ["appreg-ca", "appreg-ca-partners"] {
        let read = || stage.server.object::<Secret>("secrets", SYSTEM, name).unwrap();
        let before = read();
        assert!(stage.server.person_edits("secrets", SYSTEM, name, |secret| secret["metadata"]["labels"] = json!({})));
        stage.until("labelled", |_| read().metadata.labels == before.metadata.labels).await;
        assert_eq!(read().data, before.data);
        stage.quiet().await;
        assert_eq!(stage.quiet().await, Vec::<String>::new());
    }
}
