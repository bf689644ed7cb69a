//! Least privilege, proven by use: every rule of the chart is used by the operator, and every request that the operator
//! makes is allowed by a rule of the chart.
//!
//! The roles are read from the API server, as far as they are bound to the operator's accounts; the requests come from
//! its audit log. A rule that nothing uses fails this test, and so does a request that only some other role allows.

use std::collections::BTreeSet;

use appreg::shared_lists::{NAMES, index_of_client};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::applied::{
    self, BINARY, audited, controller_user, create, fields, in_order, registrations, secret, secrets,
    token_service_user, until,
};
use crate::harness::operator::{LEDGER, NAMESPACE};
use crate::harness::{
    AuditEvent, ControlPlane, Operator, TokenClient, eventually, eventually::holds, eventually_within,
};

use std::time::Duration;

/// One thing that may be done, or was done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    /// With the subresource.
    resource: String,
    /// Where a role allows it; empty for everywhere, and for what has no namespace.
    namespace: String,
    /// The one object that it is allowed for; empty for any.
    name: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_uses_every_right_that_the_chart_gives_it_and_no_other() {
    let plane = audited().await;
    let mut operator = Operator::install(&plane, BINARY, &["policy.enabled=false"]).await.unwrap();
    let mark = plane.audit().mark().await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    everything(&plane, &operator).await;
    controller.process.terminate(Duration::from_secs(15)).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();

    for (account, user) in [("appreg-controller", controller_user()), ("appreg-token-service", token_service_user())] {
        let granted = granted(&plane, account).await;
        let requests = plane.audit().of_since(&user, mark).await.unwrap();
        let (others, requests): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.resource.is_empty());
        let documents: BTreeSet<_> = others.iter().map(|request| (&*request.verb, &*request.uri)).collect();
        let reads_keys = account == "appreg-token-service";
        assert_eq!(
            documents,
            discovery(&plane).await.iter().filter(|_| reads_keys).map(|url| ("get", &**url)).collect()
        );
        let refused: Vec<_> = others.iter().filter(|request| matches!(request.code, 401 | 403)).collect();
        assert!(refused.is_empty(), "{account}: {refused:?}");
        assert!(!granted.is_empty() && !requests.is_empty(), "{account}");
        let refused: Vec<_> = requests.iter().filter(|request| matches!(request.code, 401 | 403)).collect();
        assert!(refused.is_empty(), "{account}: {refused:?}");
        let unfounded = unfounded(&granted, &requests);
        assert!(unfounded.is_empty(), "{account} does what no rule of the chart allows: {unfounded:?}");
        let unused = unused(&granted, &requests);
        assert!(unused.is_empty(), "{account} may do what it never does: {unused:?}");
    }

    let only: BTreeSet<_> = granted(&plane, "appreg-token-service").await;
    let secrets_of_the_ledger = |verb: &str| Right {
        verb: verb.to_owned(),
        group: String::new(),
        resource: "secrets".to_owned(),
        namespace: LEDGER.to_owned(),
        name: String::new(),
    };
    let read = ["get", "list", "watch"].map(secrets_of_the_ledger);
    let written = NAMES.map(|name| Right { name: name.to_owned(), ..secrets_of_the_ledger("update") });
    assert_eq!(only, read.into_iter().chain(written).collect());
    assert!(controller.process.is_running() && token_service.process.is_running());
}

/// A second authorization server, with keys of its own, that is reported on.
async fn serve(plane: &ControlPlane) {
    let server = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AuthorizationServer", "metadata": {"name": "partners"},
        "spec": {"namespaceSelector": {}, "builtIn": {"issuer": "https://auth.partners.example"}},
    });
    plane.kubectl_apply(&server.to_string()).await.unwrap();
    let wait = ["wait", "--for=condition=Ready", "authorizationserver/partners", "--timeout=60s"];
    plane.kubectl(&wait).await.unwrap().ok().unwrap();
}

/// A policy that is reported on, an approval, and its end.
async fn govern(plane: &ControlPlane, namespace: &str) {
    let policy = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationPolicy", "metadata": {"name": "everybody"},
        "spec": {"namespaceSelector": {}, "scopes": ["*"], "approvalRequired": {"scopes": ["admin"]}},
    });
    let approval = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationApproval", "metadata": {"name": "once"},
        "spec": {"registrationRef": {"namespace": namespace, "name": "approved"}, "scopes": ["admin"]},
    });
    plane.kubectl_apply(&policy.to_string()).await.unwrap();
    plane.kubectl_apply(&approval.to_string()).await.unwrap();
    create(plane, namespace, "approved", json!({"scopes": ["admin"]})).await;
    in_order(plane, namespace, "approved").await;
    plane.kubectl(&["delete", "registrationapproval", "once"]).await.unwrap().ok().unwrap();
    until(plane, (namespace, "approved"), "waits for approval", |approved| {
        approved.status.as_ref().is_some_and(|status| status.conditions.iter().any(|c| c.reason == "ApprovalRequired"))
    })
    .await;
    registrations(plane, namespace).delete("approved", &DeleteParams::default()).await.unwrap();
    let policies: kube::Api<appreg::api::RegistrationPolicy> = Api::all(plane.client("admin"));
    eventually("the policy is reported on", async || {
        let status = policies.get("everybody").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        holds(status.registrations == Some(0), || format!("{status:?}"))
    })
    .await;
}

/// All that the operator has to do with the API server: from the first keys to the last sweep.
async fn everything(plane: &ControlPlane, operator: &Operator<'_>) {
    let shop = plane.namespace("shop").await.unwrap();
    let shop = shop.as_str();
    serve(plane).await;
    govern(plane, shop).await;
    // First mints, of every kind.
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        {"name": "mtls", "secretName": "all-mtls", "certificate": {}},
        {"name": "extra", "secretName": "all-extra", "clientSecret": {}},
        {"name": "api", "accessToken": {}},
    ]);
    create(plane, shop, "all", json!({"clientID": format!("{shop}.all"), "credentials": credentials})).await;
    create(plane, shop, "gone", json!({})).await;
    in_order(plane, shop, "all").await;
    in_order(plane, shop, "gone").await;
    registrations(plane, shop).delete("gone", &DeleteParams::default()).await.unwrap();

    // A rotation, with its Event.
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    let before = json!({"spec": {"rotateMintedBefore": now.to_string()}});
    applied::change(plane, shop, "all", before).await;
    until(plane, (shop, "all"), "is rotated", |all| {
        all.status.as_ref().is_some_and(|s| {
            s.credentials.iter().filter_map(|c| c.current.as_ref()).all(|current| current.revision == 2)
        })
    })
    .await;

    // The removal of an entry, and of its Secret with it.
    let all = registrations(plane, shop).get("all").await.unwrap();
    let mut kept = serde_json::to_value(all.spec.credentials).unwrap();
    kept.as_array_mut().unwrap().retain(|entry| entry["name"] != "extra");
    applied::change(plane, shop, "all", json!({"spec": {"credentials": kept}})).await;
    eventually("the Secret of a removed entry is gone", async || {
        let left = secrets(plane, shop).get_opt("all-extra").await.map_err(|error| error.to_string())?;
        holds(left.is_none(), || "it is there".to_owned())
    })
    .await;

    // A Secret stripped of a field and of its mark.
    let stripped = json!({"data": {"client_secret": null}, "metadata": {"labels": null}});
    let stripped = kube::api::Patch::Merge(stripped);
    secrets(plane, shop).patch("all", &kube::api::PatchParams::default(), &stripped).await.unwrap();
    secret(plane, (shop, "all"), "is repaired", |secret| {
        fields(secret).contains_key("client_secret") && secret.labels().contains_key("appreg.dev/registration-uid")
    })
    .await;

    // The same name again: the client ID is taken over.
    let old = registrations(plane, shop).get("all").await.unwrap();
    registrations(plane, shop).delete("all", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", async || {
        let left = registrations(plane, shop).get_opt("all").await.map_err(|error| error.to_string())?;
        holds(left.is_none(), || "it is there".to_owned())
    })
    .await;
    create(plane, shop, "all", serde_json::to_value(&old.spec).unwrap()).await;
    // The garbage collector looks for new kinds every 30 s: until then the old Secrets stand in the way.
    eventually_within(Duration::from_secs(90), "the garbage collector has removed the old Secrets", async || {
        let new = registrations(plane, shop).get("all").await.map_err(|error| error.to_string())?;
        holds(applied::is_in_order(&new), || format!("{:?}", new.status))
    })
    .await;
    let new = in_order(plane, shop, "all").await;
    assert_ne!(new.uid(), old.uid());
    assert_eq!(new.status.unwrap().client_id, old.status.unwrap().client_id);

    // An unknown client: the token service looks at the API server itself before it refuses.
    let bundle = fields(&secrets(plane, LEDGER).get("ca-bundle").await.unwrap())["ca.crt"].clone();
    let tokens = TokenClient::new(&bundle, &format!("{}/token", operator.issuer())).unwrap();
    assert!(tokens.basic("nobody", "nothing").await.unwrap().is_refusal());

    revocations(plane, operator, shop, &tokens).await;

    // The sweep of what was deleted first.
    let ledger = secrets(plane, LEDGER);
    eventually_within(Duration::from_mins(1), "the deleted registration's ledger entry is swept", async || {
        let all = ledger.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let entries = all.iter().filter(|secret| secret.type_.as_deref() == Some("appreg.dev/ledger")).count();
        holds(entries == 1 + NAMES.len(), || format!("{entries} entries"))
    })
    .await;
}

/// A revoked token in each of the lists that replicas share.
async fn revocations(plane: &ControlPlane, operator: &Operator<'_>, shop: &str, tokens: &TokenClient) {
    let revocation = tokens.at(&format!("{}/revoke", operator.issuer()));
    for (list, secret_name) in NAMES.iter().enumerate() {
        let ids = (0..1000).map(|n| format!("{shop}.list-{n}"));
        let client_id = ids.into_iter().find(|id| index_of_client(id) == list).unwrap();
        let name = format!("list-{list}");
        let credentials = json!([{"name": "web", "clientSecret": {}}]);
        create(plane, shop, &name, json!({"clientID": client_id, "credentials": credentials})).await;
        in_order(plane, shop, &name).await;
        let client_secret = fields(&secrets(plane, shop).get(&name).await.unwrap())["client_secret"].clone();
        let token = tokens.basic(&client_id, &client_secret).await.unwrap().access_token.unwrap();
        let status = revocation.revoke(&client_id, &client_secret, &token).await.unwrap();
        assert_eq!(status, 200, "{secret_name}");
    }
}

/// What the token service reads besides objects: the documents of the cluster's issuer, which every `ServiceAccount` may
/// read by a role of Kubernetes' own. The chart need not grant it.
async fn discovery(plane: &ControlPlane) -> [String; 2] {
    let name = "system:service-account-issuer-discovery";
    let admin = plane.client("admin");
    let binding = Api::<ClusterRoleBinding>::all(admin.clone()).get(name).await.unwrap();
    let everybody = |subject: &Subject| subject.kind == "Group" && subject.name == "system:serviceaccounts";
    assert!(binding.role_ref.name == name && binding.subjects.iter().flatten().any(everybody));
    let role = Api::<ClusterRole>::all(admin).get(name).await.unwrap();
    let allowed: Vec<_> =
        role.rules.iter().flatten().flat_map(|rule| rule.non_resource_urls.iter().flatten()).collect();
    ["/.well-known/openid-configuration", "/openid/v1/jwks"].map(|url| {
        let is_allowed = allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => url.starts_with(start),
            None => url == pattern.as_str(),
        });
        assert!(is_allowed, "{url} in {allowed:?}");
        url.to_owned()
    })
}

/// Requests that no right allows.
fn unfounded(granted: &BTreeSet<Right>, requests: &[AuditEvent]) -> BTreeSet<String> {
    requests.iter().filter(|request| !granted.iter().any(|right| allows(right, request))).map(said).collect()
}

/// Rights that no request needed.
fn unused<'a>(granted: &'a BTreeSet<Right>, requests: &[AuditEvent]) -> Vec<&'a Right> {
    granted.iter().filter(|right| !requests.iter().any(|request| allows(right, request))).collect()
}

/// Whether a right allows a request. A `create` has no name yet.
fn allows(right: &Right, request: &AuditEvent) -> bool {
    let slash = if request.subresource.is_empty() { "" } else { "/" };
    right.verb == request.verb
        && right.group == request.group
        && right.resource == format!("{}{slash}{}", request.resource, request.subresource)
        && (right.namespace.is_empty() || right.namespace == request.namespace)
        && (right.name.is_empty() || right.name == request.name)
}

fn said(request: &AuditEvent) -> String {
    format!("{} ({}) in {:?}", request.action(), request.group, request.namespace)
}

/// Every right that a service account of the release is given, each rule taken apart.
async fn granted(plane: &ControlPlane, account: &str) -> BTreeSet<Right> {
    let admin = plane.client("admin");
    let mut rights = BTreeSet::new();
    let everywhere = ListParams::default();
    for binding in Api::<ClusterRoleBinding>::all(admin.clone()).list(&everywhere).await.unwrap() {
        if names(binding.subjects.as_deref(), account) {
            let role = Api::<ClusterRole>::all(admin.clone()).get(&binding.role_ref.name).await.unwrap();
            rights.extend(role.rules.iter().flatten().flat_map(|rule| taken_apart(rule, "")));
        }
    }
    for binding in Api::<RoleBinding>::all(admin.clone()).list(&everywhere).await.unwrap() {
        if names(binding.subjects.as_deref(), account) {
            let namespace = binding.namespace().unwrap();
            let rules = rules(plane, &namespace, &binding.role_ref).await;
            rights.extend(rules.iter().flat_map(|rule| taken_apart(rule, &namespace)));
        }
    }
    rights
}

async fn rules(plane: &ControlPlane, namespace: &str, role: &RoleRef) -> Vec<PolicyRule> {
    let admin = plane.client("admin");
    if role.kind == "ClusterRole" {
        return Api::<ClusterRole>::all(admin).get(&role.name).await.unwrap().rules.unwrap_or_default();
    }
    Api::<Role>::namespaced(admin, namespace).get(&role.name).await.unwrap().rules.unwrap_or_default()
}

fn names(subjects: Option<&[Subject]>, account: &str) -> bool {
    subjects.into_iter().flatten().any(|subject| {
        subject.kind == "ServiceAccount" && subject.name == account && subject.namespace.as_deref() == Some(NAMESPACE)
    })
}

fn taken_apart(rule: &PolicyRule, namespace: &str) -> Vec<Right> {
    let any = vec![String::new()];
    let names = rule.resource_names.as_ref().filter(|names| !names.is_empty()).unwrap_or(&any);
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(names.iter().map(|name| Right {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    namespace: namespace.to_owned(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

#[test]
fn a_right_too_many_and_a_request_too_many_are_both_noticed() {
    let rule = |verbs: &[&str], resource: &str, names: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: Some(names.iter().map(ToString::to_string).collect()),
        verbs: verbs.iter().map(ToString::to_string).collect(),
        ..PolicyRule::default()
    };
    let request = |verb: &str, subresource: &str, namespace: &str, name: &str| AuditEvent {
        user: String::new(),
        verb: verb.to_owned(),
        resource: "secrets".to_owned(),
        subresource: subresource.to_owned(),
        group: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        code: 200,
        user_agent: String::new(),
        uri: String::new(),
    };
    let granted: BTreeSet<_> = taken_apart(&rule(&["get", "list"], "secrets", &[]), "here").into_iter().collect();
    assert_eq!(
        unused(&granted, &[request("get", "", "here", "a")]).iter().map(|r| &r.verb).collect::<Vec<_>>(),
        ["list"]
    );
    for too_many in
        [request("get", "", "there", "a"), request("patch", "", "here", "a"), request("get", "x", "here", "a")]
    {
        assert_eq!(unfounded(&granted, std::slice::from_ref(&too_many)).len(), 1, "{too_many:?}");
    }
    let one: BTreeSet<_> = taken_apart(&rule(&["get"], "secrets", &["one"]), "").into_iter().collect();
    assert!(unfounded(&one, &[request("get", "", "here", "one")]).is_empty());
    assert_eq!(unfounded(&one, &[request("get", "", "here", "another")]).len(), 1);
}
