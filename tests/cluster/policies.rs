//! Policy and approval on a real API server, with real processes: a test for each sentence of what is promised, and for
//! each console that has a say in who may ask for what. Nothing but objects allows anything here.

use std::sync::LazyLock;

use appreg::api::{
    AppRegistration, ConditionType, Reason, RegistrationApproval, RegistrationPolicy, RegistrationPolicyStatus, names,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::harness::operator::LEDGER;
use crate::harness::{ControlPlane, Operator, eventually_within};
use crate::stage::{BINARY, Room, SOON, Stage, condition, conditions, text};

/// A stage without a default policy.
async fn stage() -> &'static Stage {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    let sets = ["policy.enabled=false", "policy.durations.clientSecret.min=5s", "policy.durations.accessToken.min=5s"];
    STAGE.get_or_init(|| async { RUNTIME.spawn(Stage::start(sets.into())).await.expect("the stage is set") }).await
}

/// A namespace with the label `team` of its own name, so that policies of one test select no other's.
async fn room() -> Room {
    let room = stage().await.room("team").await;
    label(&room, &json!({"team": room.namespace})).await;
    room
}

async fn label(room: &Room, labels: &Value) {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(room.client.clone());
    let patch = json!({"metadata": {"labels": labels}});
    api.patch(&room.namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Applies a policy for the room, and returns its name.
async fn policy(room: &Room, name: &str, more: Value) -> String {
    let mut spec = json!({"namespaceSelector": {"matchLabels": {"team": room.namespace}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let name = format!("{}-{name}", room.namespace);
    let object = json!({"apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationPolicy", "metadata": {"name": name}, "spec": spec});
    let api: Api<RegistrationPolicy> = Api::all(room.client.clone());
    api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap();
    name
}

async fn approve(room: &Room, name: &str, registration: &str, more: Value) -> String {
    let mut spec = json!({"registrationRef": {"namespace": room.namespace, "name": registration}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let name = format!("{}-{name}", room.namespace);
    let object = json!({"apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationApproval", "metadata": {"name": name}, "spec": spec});
    approvals(room).patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap();
    name
}

fn approvals(room: &Room) -> Api<RegistrationApproval> {
    Api::all(room.client.clone())
}

async fn unmake(room: &Room, policy: &str) {
    let api: Api<RegistrationPolicy> = Api::all(room.client.clone());
    api.delete(policy, &DeleteParams::default()).await.unwrap();
}

/// Waits until exactly these scopes are granted, each by what.
async fn until_granted(room: &Room, name: &str, scopes: &[(&str, &str)]) {
    let expected: Value = scopes.iter().map(|(scope, by)| ((*scope).to_owned(), json!(by))).collect();
    let id = room.until(name, "a client ID", client_id_of).await;
    eventually_within(SOON, &format!("{name} is granted {expected}"), async || {
        let entry = room.ledger_entry(&id).await.ok_or("there is no ledger entry")?;
        if entry["grant"]["scopes"] == expected { Ok(()) } else { Err(entry["grant"]["scopes"].to_string()) }
    })
    .await;
}

fn client_id_of(registration: &AppRegistration) -> Result<String, String> {
    let id = registration.status.as_ref().and_then(|status| status.client_id.clone());
    id.ok_or_else(|| conditions(registration))
}

/// The claims of the ready access token of a registration. Its signature is others' to verify.
async fn claims(room: &Room, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    room.secret_until(&format!("{name}-token"), what, |secret| {
        let token = text(secret, "access_token").unwrap_or_default();
        let payload = token.split('.').nth(1).map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&payload).unwrap_or_default();
        if fits(&claims) { Ok(claims) } else { Err("another token") }
    })
    .await
}

async fn status_of(room: &Room, policy: &str, what: &str, fits: impl Fn(&RegistrationPolicyStatus) -> bool) {
    let api: Api<RegistrationPolicy> = Api::all(room.client.clone());
    eventually_within(SOON, &format!("{policy}: {what}"), async || {
        let status = api.get(policy).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        if fits(&status) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_grants_nothing_new_and_what_exists_goes_on() {
    let room = room().await;
    room.apply("app", json!({"displayName": "App", "scopes": ["read"]})).await;
    let why = room.says("app", ConditionType::Stalled, Reason::NoPolicy).await;
    assert!(why.contains(&format!("No RegistrationPolicy selects the namespace {}", room.namespace)), "{why}");
    assert!(room.secrets().get_opt("app").await.unwrap().is_none(), "something was minted");

    let all = policy(&room, "all", json!({"scopes": ["*"]})).await;
    room.ready("app").await;
    let first = room.application("app").await;
    unmake(&room, &all).await;
    room.says("app", ConditionType::Approved, Reason::PolicyDenied).await;
    room.annotate(
        "app",
        json!({names::ROTATE_MINTED_BEFORE_ANNOTATION: crate::stage::pass_of_a_second().await.to_string()}),
    )
    .await;
    room.another_client_secret("app", &first.client_secret).await;
    first.accepted(&first.client_secret, "the old one, in its overlap").await;

    room.apply("late", json!({"displayName": "Late"})).await;
    room.says("late", ConditionType::Stalled, Reason::NoPolicy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_policy_only_adds_and_the_ledger_says_by_what_each_item_was_granted() {
    let room = room().await;
    let one = policy(&room, "one", json!({"scopes": ["read"]})).await;
    room.apply("app", json!({"displayName": "App", "scopes": ["read", "write"]})).await;
    let why = room.says("app", ConditionType::Stalled, Reason::PolicyDenied).await;
    assert!(
        why.starts_with("Field spec.scopes: write is not allowed: add it to scopes of a RegistrationPolicy"),
        "{why}"
    );
    assert!(why.contains(&format!("The closest one, policy/{one}, allows read there")), "{why}");
    until_granted(&room, "app", &[("read", &format!("policy/{one}"))]).await;
    assert_eq!(room.event("app", Reason::PolicyDenied).await, why);
    let shown = room.stage.plane.kubectl(&["-n", &room.namespace, "get", "appreg", "app"]).await.unwrap().stdout;
    assert!(shown.contains("Field spec.scopes: write is not allowed"), "kubectl get says why not: {shown}");

    let two = policy(&room, "two", json!({"scopes": ["write"]})).await;
    room.ready("app").await;
    let by = [("read", format!("policy/{one}")), ("write", format!("policy/{two}"))];
    until_granted(&room, "app", &by.each_ref().map(|(scope, by)| (*scope, by.as_str()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_never_stops_a_rotation_and_a_duration_beyond_it_is_clamped_and_reported() {
    let room = room().await;
    policy(&room, "short", json!({"durations": {"clientSecret": {"max": "1h"}}})).await;
    let credentials = json!([{"name": "web", "effectiveDuration": "365d", "clientSecret": {}}]);
    room.apply("app", json!({"displayName": "App", "credentials": credentials})).await;
    let app = room.ready("app").await;
    assert_eq!(app.status.as_ref().unwrap().credentials[0].effective_duration.as_deref(), Some("1h"));
    let said = &condition(&app, ConditionType::Approved).unwrap().message;
    let policy_name = format!("policy/{}-short", room.namespace);
    let bounded = format!("Field spec.credentials[web].effectiveDuration: bounded to 1h by {policy_name}: ");
    assert!(said.starts_with(&bounded), "{said}");

    let first = room.application("app").await;
    policy(&room, "short", json!({"credentialKinds": ["Certificate"], "durations": {"clientSecret": {"max": "1h"}}}))
        .await;
    let mut both = credentials.clone();
    both.as_array_mut().unwrap().push(json!({"name": "batch", "secretName": "batch", "clientSecret": {}}));
    room.apply("app", json!({"displayName": "App", "credentials": both})).await;
    let why = room.says("app", ConditionType::Stalled, Reason::PolicyDenied).await;
    let said = format!(
        "Field spec.credentials[batch]: the kind ClientSecret is not allowed by {policy_name}. Use another kind"
    );
    assert!(why.starts_with(&said), "{why}");
    room.annotate(
        "app",
        json!({names::ROTATE_MINTED_BEFORE_ANNOTATION: crate::stage::pass_of_a_second().await.to_string()}),
    )
    .await;
    room.another_client_secret("app", &first.client_secret).await;
    assert!(room.secrets().get_opt("batch").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_asked_for_survives_an_edit_of_its_policy_unless_that_says_withdraw() {
    let room = room().await;
    let name = policy(&room, "p", json!({"scopes": ["*"]})).await;
    room.apply("app", json!({"displayName": "App", "scopes": ["read", "write"]})).await;
    room.ready("app").await;
    status_of(&room, &name, "selects one, none violates it", |status| {
        (status.registrations, status.violations) == (Some(1), Some(0))
    })
    .await;

    policy(&room, "p", json!({"scopes": ["read"]})).await;
    let why = room.says("app", ConditionType::Approved, Reason::PolicyDenied).await;
    assert!(
        why.starts_with(&format!(
            "Field spec.scopes: write was granted by policy/{name}, and no policy allows it any more"
        )),
        "{why}"
    );
    let app = room.registrations().get("app").await.unwrap();
    assert!(condition(&app, ConditionType::Ready).unwrap().status == "True", "{}", conditions(&app));
    status_of(&room, &name, "one violates it, by name", |status| {
        status.violations == Some(1) && status.violating == [format!("{}/app", room.namespace)]
    })
    .await;
    let id = client_id_of(&app).unwrap();
    assert_eq!(room.ledger_entry(&id).await.unwrap()["grant"]["scopes"].as_object().unwrap().len(), 2);

    policy(&room, "p", json!({"scopes": ["read"], "onViolation": "Withdraw"})).await;
    until_granted(&room, "app", &[("read", &format!("policy/{name}"))]).await;
    claims(&room, "app", "a token without what was withdrawn", |claims| claims["scope"] == "read").await;
    status_of(&room, &name, "none violates it any more", |status| status.violations == Some(0)).await;
}

/// `aud` and `scope` of the ready access token in a Secret.
async fn until_target(room: &Room, name: &str, what: &str, expected: (&str, &[&str])) {
    claims(room, name, what, |claims| {
        let mut scopes: Vec<&str> = claims["scope"].as_str().unwrap_or_default().split_whitespace().collect();
        scopes.sort_unstable();
        (claims["aud"].as_str(), &*scopes) == (Some(expected.0), expected.1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_token_never_carries_another_apis_scope_through_edits_of_policies_and_refreshes() {
    const ORDERS: &str = "https://orders.example";
    const INVOICES: &str = "https://invoices.example";
    let room = room().await;
    let allow = async |orders: &[&str], invoices: &[&str]| {
        let apis = json!([
            {"audiences": [ORDERS], "scopes": orders},
            {"audiences": [INVOICES], "scopes": invoices},
        ]);
        let more = json!({"scopes": invoices, "apis": apis, "onViolation": "Withdraw"});
        policy(&room, "p", more).await;
    };
    allow(&["read", "write"], &["read", "write", "audit"]).await;
    let asked = ["read", "write", "audit"];
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        // Refreshed again and again while this test runs.
        {"name": "api", "effectiveDuration": "6s", "accessToken": {"audience": ORDERS}},
    ]);
    let spec = json!({
        "displayName": "App", "scopes": asked, "credentials": credentials,
        "apis": [{"audience": INVOICES, "scopes": asked}, {"audience": ORDERS, "scopes": ["read", "write"]}],
    });
    room.apply("app", spec).await;
    room.ready("app").await;
    let steps: [(&[&str], &[&str]); 4] = [
        (&["read", "write"], &["read", "write", "audit"]),
        (&["read"], &["audit", "write"]),
        (&[], &["audit", "read", "write"]),
        (&["write"], &["read"]),
    ];
    for (orders, invoices) in steps {
        allow(orders, invoices).await;
        until_target(&room, "app", &format!("a token with {orders:?} alone"), (ORDERS, orders)).await;
        let signed = text(&room.secret("app-token").await, "access_token");
        room.secret_until("app-token", "refreshed", |secret| {
            if text(secret, "access_token") == signed { Err("the same token") } else { Ok(()) }
        })
        .await;
        until_target(&room, "app", "the same after a refresh", (ORDERS, orders)).await;
        // What the client secret is worth at the token endpoint is the same.
        let client = room.application("app").await;
        let elsewhere = [("resource", ORDERS), ("scope", "audit")];
        let answer = client.tokens.basic_for(&client.client_id, &client.client_secret, &elsewhere).await.unwrap();
        assert_eq!((answer.status, answer.error.as_deref()), (400, Some("invalid_scope")), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_an_approval_waits_for_it_and_ends_with_it_and_what_is_not_asked_for_goes_at_once() {
    let room = room().await;
    let name = policy(&room, "p", json!({"scopes": ["*"], "approvalRequired": {"scopes": ["admin"]}})).await;
    room.apply("app", json!({"displayName": "App", "scopes": ["read", "admin"]})).await;
    let why = room.says("app", ConditionType::Reconciling, Reason::ApprovalRequired).await;
    let said =
        format!("Field spec.scopes: admin waits for an approval: policy/{name} allows it when a RegistrationApproval");
    assert!(why.starts_with(&said), "{why}");
    claims(&room, "app", "a token with what is granted meanwhile", |claims| claims["scope"] == "read").await;

    // Nobody approves themselves: the administrator of a namespace has no right to.
    let attempt =
        ["auth", "can-i", "create", "registrationapprovals", "--as=tenant", "--as-group=system:authenticated"];
    assert!(!room.stage.plane.kubectl(&attempt).await.unwrap().success());

    let approval = approve(&room, "yes", "app", json!({"scopes": ["admin"]})).await;
    room.ready("app").await;
    let by_policy = format!("policy/{name}");
    let by_approval = format!("approval/{approval}");
    until_granted(&room, "app", &[("admin", &by_approval), ("read", &by_policy)]).await;

    // More waits, and what was approved stays in force.
    let more = json!([{"audience": "https://api.example"}]);
    room.apply("app", json!({"displayName": "App", "scopes": ["read", "admin"], "apis": more})).await;
    room.says("app", ConditionType::Stalled, Reason::PolicyDenied).await;
    until_granted(&room, "app", &[("admin", &by_approval), ("read", &by_policy)]).await;
    // Less takes effect at once.
    room.apply("app", json!({"displayName": "App", "scopes": ["admin"]})).await;
    until_granted(&room, "app", &[("admin", &by_approval)]).await;

    approvals(&room).delete(&approval, &DeleteParams::default()).await.unwrap();
    room.says("app", ConditionType::Reconciling, Reason::ApprovalRequired).await;
    until_granted(&room, "app", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_ends_by_itself() {
    let room = room().await;
    policy(&room, "p", json!({"scopes": ["*"], "approvalRequired": {"scopes": ["*"]}})).await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    let approval = approve(&room, "week", "app", json!({"scopes": ["admin"], "expirationTime": end.to_string()})).await;
    room.apply("app", json!({"displayName": "App", "scopes": ["admin"]})).await;
    until_granted(&room, "app", &[("admin", &format!("approval/{approval}"))]).await;
    let why = room.says("app", ConditionType::Reconciling, Reason::ApprovalRequired).await;
    assert!(
        why.starts_with(&format!(
            "Field spec.scopes: admin is not approved any more, because approval/{approval} has ended"
        )),
        "{why}"
    );
    assert!(jiff::Timestamp::now() >= end);
    until_granted(&room, "app", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_client_ids_and_dns_names_are_the_namespaces_own_unless_a_policy_says_otherwise() {
    let room = room().await;
    policy(&room, "p", json!({})).await;
    let namespace = &room.namespace;
    room.apply("mine", json!({"displayName": "Mine", "clientID": format!("{namespace}.mine")})).await;
    room.ready("mine").await;
    room.apply("theirs", json!({"displayName": "Theirs", "clientID": "bank.theirs"})).await;
    let why = room.stalled("theirs", Reason::PolicyDenied).await;
    assert!(why.starts_with("Field spec.clientID: bank.theirs is not allowed; policy/"), "{why}");

    let names = [format!("app.{namespace}.svc"), "bank.example".to_owned()];
    let credentials = json!([{"name": "mtls", "secretName": "mtls", "certificate": {"dnsNames": names}}]);
    room.apply("mtls", json!({"displayName": "mTLS", "credentials": credentials})).await;
    let why = room.stalled("mtls", Reason::PolicyDenied).await;
    assert!(why.starts_with("Field spec.credentials.certificate.dnsNames: bank.example is not allowed"), "{why}");
    let mtls = room.registrations().get("mtls").await.unwrap();
    let entry = room.ledger_entry(&client_id_of(&mtls).unwrap()).await.unwrap();
    assert_eq!(entry["grant"]["dnsNames"].as_object().unwrap().keys().collect::<Vec<_>>(), [&names[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_namespaces_labels_is_noticed() {
    let room = room().await;
    policy(&room, "p", json!({"scopes": ["*"]})).await;
    label(&room, &json!({"team": null})).await;
    room.apply("app", json!({"displayName": "App"})).await;
    room.says("app", ConditionType::Stalled, Reason::NoPolicy).await;
    label(&room, &json!({"team": room.namespace})).await;
    room.ready("app").await;
}

/// Akeneo PIM: who may create apps is a permission, and so is what they may reach.
#[tokio::test(flavor = "multi_thread")]
async fn akeneo_who_may_register_what_is_said_by_rbac_and_by_policies() {
    let room = room().await;
    policy(&room, "pim", json!({
        "redirectURIs": {"hosts": ["*.shop.example"]}, "scopes": ["read_products"], "grantTypes": ["authorization_code"],
    }))
    .await;
    room.apply("connector", json!({
        "displayName": "Connector", "grantTypes": ["authorization_code"], "scopes": ["read_products"], "clientType": "Public",
        "initiateLoginURI": "https://app.shop.example/activate", "redirectURIs": ["https://app.shop.example/callback"],
    }))
    .await;
    room.ready("connector").await;
    room.apply(
        "other",
        json!({
            "displayName": "Other", "grantTypes": ["authorization_code"], "clientType": "Public",
            "redirectURIs": ["https://app.evil.example/callback"],
        }),
    )
    .await;
    let why = room.stalled("other", Reason::PolicyDenied).await;
    assert!(why.starts_with("Field spec.redirectURIs: https://app.evil.example/callback is not allowed"), "{why}");
    let attempt = ["auth", "can-i", "create", "appregistrations", "-n", &room.namespace, "--as=nobody"];
    assert!(!room.stage.plane.kubectl(&attempt).await.unwrap().success(), "who may create is RBAC's to say");
}

/// apaleo: admins register, and an app is approved before it is published.
#[tokio::test(flavor = "multi_thread")]
async fn apaleo_what_an_app_asks_for_is_approved_before_it_is_in_force() {
    let room = room().await;
    policy(
        &room,
        "connect",
        json!({
            "scopes": ["*"], "redirectURIs": {"hosts": ["*"]},
            "approvalRequired": {"scopes": ["*"], "redirectURIs": ["*"]},
        }),
    )
    .await;
    let spec = json!({
        "displayName": "Connect", "clientID": format!("{}.connect", room.namespace), "scopes": ["reservations.read"],
        "redirectURIs": ["https://connect.example/callback"],
    });
    room.apply("connect", spec).await;
    room.says("connect", ConditionType::Reconciling, Reason::ApprovalRequired).await;
    until_granted(&room, "connect", &[]).await;
    let items = json!({"scopes": ["reservations.read"], "redirectURIs": ["https://connect.example/callback"]});
    let approval = approve(&room, "published", "connect", items).await;
    let connect = room.ready("connect").await;
    assert_eq!(connect.status.unwrap().granted.unwrap().redirect_uris, ["https://connect.example/callback"]);
    until_granted(&room, "connect", &[("reservations.read", &format!("approval/{approval}"))]).await;
}

/// `AvePoint` Elements: permissions, and a customer scope of all, of specific customers or of groups, carried in tokens.
#[tokio::test(flavor = "multi_thread")]
async fn elements_permissions_and_each_customer_scope_that_a_policy_allows_are_carried_in_tokens() {
    let room = room().await;
    let ready = async |name: &str, customer_scope: Value| {
        let spec = json!({"displayName": name, "scopes": ["backup"], "customerScope": customer_scope});
        room.apply(name, spec).await;
    };
    policy(&room, "msp", json!({"scopes": ["backup"], "customers": ["acme-*"], "customerGroups": ["emea"]})).await;
    ready("customers", json!({"type": "Customers", "customers": ["acme-1", "acme-2", "bolt"]})).await;
    let why = room.stalled("customers", Reason::PolicyDenied).await;
    assert!(why.starts_with("Field spec.customerScope.customers: bolt is not allowed"), "{why}");
    let of = claims(&room, "customers", "the customers that are allowed", |claims| claims["scope"] == "backup").await;
    assert_eq!(of["customers"], json!(["acme-1", "acme-2"]));
    ready("groups", json!({"type": "Groups", "groups": ["emea"]})).await;
    room.ready("groups").await;
    let of = claims(&room, "groups", "the groups", |claims| claims["scope"] == "backup").await;
    assert_eq!((of["customer_groups"].clone(), of["customers"].clone()), (json!(["emea"]), Value::Null));
    ready("all", json!({"type": "All"})).await;
    let why = room.stalled("all", Reason::PolicyDenied).await;
    assert!(why.starts_with("Field spec.customerScope.type: All is not allowed"), "{why}");
    policy(&room, "all", json!({"customers": ["*"], "approvalRequired": {"customers": ["*"]}})).await;
    room.says("all", ConditionType::Reconciling, Reason::ApprovalRequired).await;
    approve(&room, "all", "all", json!({"customers": ["*"]})).await;
    room.ready("all").await;
    let of = claims(&room, "all", "all customers", |claims| claims["customers"] == json!(["*"])).await;
    assert_eq!(of["scope"], "backup");
}

/// What else is wrong with either is in the tables of `tests/schema/governors.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_restriction_of_a_policy_is_refused_and_an_approval_stays_with_its_registration() {
    let room = room().await;
    let misspelt = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationPolicy", "metadata": {"name": "misspelt"},
        "spec": {"namespaceSelector": {}, "scope": ["a"]},
    });
    let output = room.stage.plane.kubectl_apply_as("admin", &misspelt.to_string()).await.unwrap();
    assert!(!output.success() && output.stderr.contains("unknown field \"spec.scope\""), "{}", output.stderr);
    let name = approve(&room, "mine", "app", json!({"scopes": ["a"]})).await;
    let moved = json!({"spec": {"registrationRef": {"name": "other"}}});
    let refused = approvals(&room).patch(&name, &PatchParams::default(), &Patch::Merge(&moved)).await.unwrap_err();
    assert!(refused.to_string().contains("create a second approval"), "{refused}");
    assert_eq!(approvals(&room).get(&name).await.unwrap().spec.registration_ref.name, "app");
}

/// docs/teams.md, with the files of `examples/teams/`.
#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_page_lead_from_the_closed_default_to_policies_of_teams_without_an_interruption() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    let example = |name: &str| format!("{}/examples/teams/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let apply = async |name: &str| {
        // A definition is served a moment after it is established.
        eventually_within(SOON, name, async || plane.kubectl(&["apply", "-f", &example(name)]).await?.ok()).await;
    };
    let client = plane.client("admin");
    let registrations: Api<AppRegistration> = Api::namespaced(client.clone(), "shop");
    let until = async |name: &str, what: &str, fits: &dyn Fn(&AppRegistration) -> bool| {
        eventually_within(SOON, &format!("{name}: {what}"), async || {
            let registration = registrations.get(name).await.map_err(|error| error.to_string())?;
            if fits(&registration) { Ok(registration) } else { Err(conditions(&registration)) }
        })
        .await
    };
    let is = |registration: &AppRegistration, type_, status: &str, reason: Reason| {
        condition(registration, type_).is_some_and(|c| c.status == status && c.reason == reason.as_str())
    };
    let grant = async |client_id: &str| {
        let api: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client.clone(), LEDGER);
        let secret = api.get(&appreg::ledger::name("default", client_id)).await.unwrap();
        let entry: Value = serde_json::from_slice(&secret.data.unwrap()["ledger.json"].0).unwrap();
        entry["grant"].clone()
    };
    let orders = |grant: &Value| grant["apis"]["https://orders.example"]["scopes"].clone();

    // The default policy grants what stays within the namespace, and nothing at other APIs.
    apply("namespace").await;
    apply("storefront").await;
    let legacy = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration", "metadata": {"name": "legacy", "namespace": "shop"},
        "spec": {"displayName": "Legacy", "clientID": "shop.legacy", "redirectURIs": ["https://legacy.example/callback"]},
    });
    plane.kubectl_apply(&legacy.to_string()).await.unwrap();
    let is_denied = |r: &AppRegistration| is(r, ConditionType::Approved, "False", Reason::PolicyDenied);
    let storefront = until("storefront", "is denied", &is_denied).await;
    let said = &condition(&storefront, ConditionType::Approved).unwrap().message;
    assert!(said.starts_with("Field spec.apis: https://orders.example is not allowed: add it to apis of a"), "{said}");
    until("legacy", "is ready", &|r| is(r, ConditionType::Approved, "True", Reason::Granted)).await;
    let by_default = json!({"https://legacy.example/callback": "policy/default"});
    assert_eq!(grant("shop.legacy").await["redirectURIs"], by_default);

    // Policies beside it only add; what needs an approval waits for it.
    apply("baseline").await;
    apply("shop").await;
    until("storefront", "waits", &|r| is(r, ConditionType::Approved, "False", Reason::ApprovalRequired)).await;
    assert_eq!(orders(&grant("shop.storefront").await), json!({"orders:read": "policy/shop"}));
    apply("approval").await;
    until("storefront", "is approved", &|r| is(r, ConditionType::Approved, "True", Reason::Granted)).await;
    let both = json!({"orders:read": "policy/shop", "orders:write": "approval/shop-storefront"});
    assert_eq!(orders(&grant("shop.storefront").await), both);
    assert_eq!(grant("shop.storefront").await["customers"], json!({"shop-retail": "approval/shop-storefront"}));

    // Without it, what no policy allows any more stays and is said.
    controller.process.terminate(std::time::Duration::from_secs(15)).await.unwrap();
    operator.helm("upgrade", &["policy.enabled=false"]).await.unwrap();
    let _controller = operator.controller(&plane).await.unwrap();
    let legacy = until("legacy", "is kept", &is_denied).await;
    let said = &condition(&legacy, ConditionType::Approved).unwrap().message;
    assert!(
        said.starts_with("Field spec.redirectURIs: https://legacy.example/callback was granted by policy/default"),
        "{said}"
    );
    assert!(is(&legacy, ConditionType::Ready, "True", Reason::Issued), "{}", conditions(&legacy));
    assert_eq!(grant("shop.legacy").await["redirectURIs"], by_default);
    until("storefront", "is approved", &|r| is(r, ConditionType::Approved, "True", Reason::Granted)).await;
    assert_eq!(orders(&grant("shop.storefront").await), both);
}
