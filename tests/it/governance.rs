//! The controller under policies and approvals, on the fake API server: what is requested for them, and that nothing that
//! fails or vanishes takes anything away.

use appreg::api::AppRegistration;
use appreg::api::names::LEDGER_SECRET_TYPE;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::fake_api::{FakeApi, Fault, Nth};
use crate::reconcile::{Running, Stage, web};

/// Nothing but objects allows anything.
pub(crate) const FAIL_CLOSED: &str =
    "{authorizationServer: {issuer: \"https://auth.example\"}, policy: {enabled: false}}";

pub(crate) fn namespace(stage: &Stage, name: &str, labels: &Value) {
    stage.server.person_applies(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
    }));
}

pub(crate) fn policy(stage: &Stage, name: &str, more: &Value) {
    let mut spec = json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationPolicy", "metadata": {"name": name}, "spec": spec,
    }));
}

fn approve(stage: &Stage, name: &str, scopes: &[&str]) {
    approve_uid(stage, name, None, scopes);
}

/// The same for one object of that name alone.
fn approve_uid(stage: &Stage, name: &str, uid: Option<&str>, scopes: &[&str]) {
    let mut reference = json!({"namespace": "shop", "name": "storefront"});
    if let Some(uid) = uid {
        reference["uid"] = json!(uid);
    }
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationApproval", "metadata": {"name": name},
        "spec": {"registrationRef": reference, "scopes": scopes},
    }));
}

fn apply(stage: &Stage, name: &str, scopes: &[&str]) {
    stage.server.person_applies(&json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"displayName": name, "credentials": web(), "scopes": scopes},
        "status": {"observedGeneration": -1},
    }));
}

fn condition(server: &FakeApi, name: &str, type_: &str) -> Option<(String, String, String)> {
    let registration: AppRegistration = server.object("appregistrations", "shop", name)?;
    let condition = registration.status?.conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status, condition.reason, condition.message))
}

fn granted(stage: &Stage) -> Vec<(String, String)> {
    stage.entry().grant.scopes.into_iter().collect()
}

fn pair(scope: &str, by: &str) -> (String, String) {
    (scope.to_owned(), by.to_owned())
}

pub(crate) async fn until_reason(stage: &Stage, name: &str, type_: &str, reason: &str) -> String {
    let seen = |server: &FakeApi| condition(server, name, type_).filter(|(_, seen, _)| seen == reason);
    stage.until(&format!("{name}: {type_} for {reason}"), |server| seen(server).is_some()).await;
    seen(&stage.server).unwrap().2
}

/// A fail-closed controller, a policy that wants an approval for `admin`, and a registration to which it was given.
async fn approved(stage: &Stage) -> Running {
    stage.server.person_applies(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "registrationapprovals.appreg.dev"},
    }));
    namespace(stage, "shop", &json!({"team": "shop"}));
    policy(stage, "shop", &json!({"scopes": ["*"], "approvalRequired": {"scopes": ["admin"]}}));
    approve(stage, "yes", &["admin"]);
    let controller = stage.controller_with(FAIL_CLOSED).await;
    apply(stage, "storefront", &["admin", "read"]);
    stage.until_ready("storefront").await;
    assert_eq!(granted(stage), [pair("admin", "approval/yes"), pair("read", "policy/shop")]);
    stage.requests();
    controller
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_nothing_is_minted_and_one_that_comes_is_enough() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({"team": "shop"}));
    let _controller = stage.controller_with(FAIL_CLOSED).await;
    apply(&stage, "storefront", &["read"]);
    let message = until_reason(&stage, "storefront", "Stalled", "NoPolicy").await;
    assert!(message.starts_with("No RegistrationPolicy selects the namespace shop: "), "{message}");
    assert!(stage.server.object::<Value>("secrets", "shop", "storefront").is_none());
    policy(&stage, "shop", &json!({"scopes": ["read"]}));
    stage.until_ready("storefront").await;
    assert_eq!(granted(&stage), [pair("read", "policy/shop")]);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_a_namespace_gets_is_noticed_and_one_that_it_loses_takes_nothing() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({}));
    policy(&stage, "shop", &json!({"scopes": ["read"]}));
    let _controller = stage.controller_with(FAIL_CLOSED).await;
    apply(&stage, "storefront", &["read"]);
    until_reason(&stage, "storefront", "Stalled", "NoPolicy").await;
    namespace(&stage, "shop", &json!({"team": "shop"}));
    stage.until_ready("storefront").await;
    namespace(&stage, "shop", &json!({}));
    let message = until_reason(&stage, "storefront", "Approved", "PolicyDenied").await;
    assert!(
        message.starts_with("Field spec.scopes: read was granted by policy/shop, and no policy allows it any more"),
        "{message}"
    );
    assert_eq!(granted(&stage), [pair("read", "policy/shop")]);
    assert_eq!(condition(&stage.server, "storefront", "Ready").unwrap().0, "True");
    assert_eq!(condition(&stage.server, "storefront", "Stalled"), None, "nothing that a person must do for it to work");
}

#[tokio::test(start_paused = true)]
async fn an_approval_ends_what_it_granted_once_a_live_read_has_shown_that_it_is_gone() {
    let stage = Stage::new();
    let _controller = approved(&stage).await;
    assert!(stage.server.person_deletes("registrationapprovals", "", "yes"));
    until_reason(&stage, "storefront", "Approved", "ApprovalRequired").await;
    assert_eq!(granted(&stage), [pair("read", "policy/shop")]);
    assert_eq!(
        stage.requests(),
        [
            "get registrationapprovals yes 404",
            "get customresourcedefinitions registrationapprovals.appreg.dev 200",
            "update secrets appreg-ledger/CLIENT 200",
            "update appregistrations/status shop/storefront 200",
        ]
        .map(|request| request.replace("CLIENT", &stage.entry().name()))
    );
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_approval_with_a_uid_is_for_that_object_alone_and_not_for_one_of_the_same_name_later() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({"team": "shop"}));
    policy(&stage, "shop", &json!({"scopes": ["*"], "approvalRequired": {"scopes": ["admin", "audit"]}}));
    let _controller = stage.controller_with(FAIL_CLOSED).await;
    apply(&stage, "storefront", &["admin", "audit", "read"]);
    let uid = || {
        let registration: AppRegistration = stage.server.object("appregistrations", "shop", "storefront").unwrap();
        registration.metadata.uid.unwrap()
    };
    let first = uid();
    approve_uid(&stage, "other", Some("7f0c2d4e-1b5a-4c3d-8e9f-0a1b2c3d4e5f"), &["admin"]);
    approve_uid(&stage, "this", Some(&first), &["audit"]);
    let expected = [pair("audit", "approval/this"), pair("read", "policy/shop")];
    stage.until("its own approval counts", |_| has_entry(&stage) && granted(&stage) == expected).await;
    until_reason(&stage, "storefront", "Approved", "ApprovalRequired").await;
    stage.quiet().await;
    assert_eq!(granted(&stage), expected, "the approval of another object never does");

    assert!(stage.server.person_deletes("appregistrations", "shop", "storefront"));
    stage.clock.advance(SignedDuration::from_secs(60));
    stage.until("the client is gone", |_| !has_entry(&stage)).await;
    apply(&stage, "storefront", &["admin", "audit", "read"]);
    assert_ne!(uid(), first);
    stage.until("it is another client", |_| has_entry(&stage)).await;
    until_reason(&stage, "storefront", "Approved", "ApprovalRequired").await;
    assert_eq!(granted(&stage), [pair("read", "policy/shop")], "created under the same name");
    approve(&stage, "any", &["audit"]);
    stage.until("an approval without a uid counts", |_| granted(&stage)[0] == pair("audit", "approval/any")).await;
}

fn has_entry(stage: &Stage) -> bool {
    let secrets: Vec<Secret> = stage.server.objects("secrets");
    secrets.iter().any(|secret| secret.type_.as_deref() == Some(LEDGER_SECRET_TYPE))
}

/// The reports on policies of some minutes, in which both clocks go on.
async fn reports_meanwhile(stage: &Stage) -> Vec<String> {
    for _ in 0..6 {
        stage.pass(SignedDuration::from_secs(30)).await;
    }
    stage.requests().into_iter().filter(|request| request.contains(" registrationpolicies/status ")).collect()
}

/// The value of a metric without labels.
fn metric(controller: &Running, name: &str) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &controller.registry).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

/// What may happen to approvals without anybody having taken one back.
async fn withdraws_nothing(what: &str, happens: impl Fn(&Stage)) {
    let stage = Stage::new();
    let _controller = approved(&stage).await;
    happens(&stage);
    // The registration is looked at again meanwhile, for another reason.
    apply(&stage, "storefront", &["admin", "read", "more"]);
    stage.until(&format!("{what}: more is granted"), |_| granted(&stage).contains(&pair("more", "policy/shop"))).await;
    stage.pass(SignedDuration::from_mins(20)).await;
    assert!(granted(&stage).contains(&pair("admin", "approval/yes")), "{what}");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_fails_or_is_missing_withdraws_an_approval() {
    withdraws_nothing("an empty relist", |stage| {
        stage.server.on(
            Nth::every("list", "registrationapprovals"),
            Fault::Text(
                200,
                json!({
                    "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationApprovalList", "items": [],
                    "metadata": {"resourceVersion": stage.server.version().to_string()},
                })
                .to_string(),
            ),
        );
        stage.server.compact();
        stage.server.break_watches();
    })
    .await;
    withdraws_nothing("a forbidden list", |stage| {
        stage.server.on(Nth::every("list", "registrationapprovals"), Fault::forbidden());
        stage.server.on(Nth::every("get", "registrationapprovals"), Fault::forbidden());
        stage.server.compact();
        stage.server.break_watches();
    })
    .await;
    withdraws_nothing("a definition that is being deleted", |stage| {
        stage.server.person_edits("customresourcedefinitions", "", "registrationapprovals.appreg.dev", |crd| {
            crd["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        stage.server.person_deletes("registrationapprovals", "", "yes");
    })
    .await;
    withdraws_nothing("a definition that is gone", |stage| {
        stage.server.on(Nth::every("list", "registrationapprovals"), Fault::not_served());
        stage.server.on(Nth::every("get", "registrationapprovals"), Fault::not_served());
        stage.server.person_deletes("registrationapprovals", "", "yes");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_never_saw_policies_or_approvals_goes_on_and_takes_nothing() {
    let stage = Stage::new();
    drop(approved(&stage).await);
    for resource in ["registrationpolicies", "registrationapprovals", "namespaces"] {
        stage.server.on(Nth::every("list", resource), Fault::forbidden());
        stage.server.on(Nth::every("get", resource), Fault::forbidden());
    }
    let _controller = stage.start_with(FAIL_CLOSED);
    stage.pass(SignedDuration::from_mins(10)).await;
    assert_eq!(granted(&stage), [pair("admin", "approval/yes"), pair("read", "policy/shop")]);
    // A rotation is not held up.
    stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["annotations"] = json!({"appreg.dev/rotate-minted-before": "2026-01-01T00:00:05Z"});
    });
    stage.until("revision 2", |_| stage.held_revision() == Some(2)).await;
    apply(&stage, "another", &[]);
    let message = until_reason(&stage, "another", "Stalled", "NoPolicy").await;
    let said =
        "Nothing new is granted for now, because RegistrationPolicies could not be listed yet. The controller retries";
    assert_eq!(message, said);
}

#[tokio::test(start_paused = true)]
async fn a_policy_says_whom_it_selects_and_who_violates_it_and_is_reported_on_at_a_bounded_rate() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({"team": "shop"}));
    policy(&stage, "shop", &json!({"scopes": ["*"]}));
    let controller = stage.controller_with(FAIL_CLOSED).await;
    let names: Vec<_> = (0..12).map(|n| format!("app-{n:02}")).collect();
    for name in &names {
        apply(&stage, name, &["read"]);
    }
    for name in &names {
        stage.until_ready(name).await;
    }
    let status = |field: &str| {
        let policy: Value = stage.server.object("registrationpolicies", "", "shop").unwrap();
        policy["status"][field].clone()
    };
    stage.until("twelve are selected", |_| status("registrations") == 12 && status("violations") == 0).await;
    stage.requests();
    policy(&stage, "shop", &json!({"scopes": []}));
    stage.until("all of them violate it", |_| status("violations") == 12).await;
    let first: Vec<_> = names.iter().take(10).map(|name| json!(format!("shop/{name}"))).collect();
    assert_eq!(status("violating"), json!(first));
    stage.until("the metric counts them", |_| metric(&controller, "appreg_policy_violations") == "12").await;
    let reports = stage.requests().into_iter().filter(|r| r.starts_with("update registrationpolicies/status")).count();
    assert!(reports <= 3, "{reports} reports of one edit that changed twelve registrations");
    policy(&stage, "shop", &json!({"scopes": ["*"]}));
    stage.until("none violates it", |_| status("violations") == 0).await;
    assert_eq!(status("violating"), Value::Null);
    stage.until("the metric counts none", |_| metric(&controller, "appreg_policy_violations") == "0").await;
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_understood_allows_nothing_and_says_so_and_what_it_allowed_stays() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({"team": "shop"}));
    policy(&stage, "shop", &json!({"scopes": ["*"], "onViolation": "Withdraw"}));
    let controller = stage.controller_with(FAIL_CLOSED).await;
    apply(&stage, "storefront", &["read"]);
    stage.until_ready("storefront").await;
    for (more, problem) in [
        (
            json!({"scopes": ["{team}"]}),
            "Field spec.scopes[0]: must have no braces but {namespace} and {name}: change {team}",
        ),
        (
            json!({"scopes": ["*"], "fromALaterVersion": true}),
            "Field spec.fromALaterVersion: must be a field that this version of appreg knows",
        ),
    ] {
        policy(&stage, "shop", &more);
        let message = || {
            let policy: Value = stage.server.object("registrationpolicies", "", "shop").unwrap();
            policy["status"]["conditions"][0].clone()
        };
        let told = |_: &FakeApi| message()["message"].as_str().is_some_and(|message| message.contains(problem));
        stage.until(problem, told).await;
        assert_eq!((message()["status"].clone(), message()["reason"].clone()), (json!("False"), json!("InvalidSpec")));
        until_reason(&stage, "storefront", "Approved", "PolicyDenied").await;
        assert_eq!(granted(&stage), [pair("read", "policy/shop")]);
        stage.requests();
        assert_eq!(reports_meanwhile(&stage).await, Vec::<String>::new(), "what it says is said once");
    }
    drop(controller);
    stage.requests();
    let _controller = stage.start_with(FAIL_CLOSED);
    assert_eq!(reports_meanwhile(&stage).await, Vec::<String>::new(), "and not again after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_limit_lets_the_older_registrations_in_and_room_that_is_made_is_given_to_the_next() {
    let stage = Stage::new();
    namespace(&stage, "shop", &json!({"team": "shop"}));
    policy(&stage, "shop", &json!({"limits": {"registrationsPerNamespace": 1}}));
    let _controller = stage.controller_with(FAIL_CLOSED).await;
    apply(&stage, "first", &[]);
    stage.until_ready("first").await;
    apply(&stage, "second", &[]);
    let message = until_reason(&stage, "second", "Reconciling", "QuotaExceeded").await;
    assert!(message.starts_with("The namespace shop has no room: policy/shop allows 1 registrations"), "{message}");
    assert!(stage.server.person_deletes("appregistrations", "shop", "first"));
    stage.until_ready("second").await;
}
