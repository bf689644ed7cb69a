//! What the tests of the whole operator share: a control plane whose audit log has the operator's requests, registrations
//! applied as a user applies them, and waiting until they are in order.

use std::collections::BTreeMap;

use appreg::api::{AppRegistration, ConditionType};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::operator::NAMESPACE;
use crate::harness::{Audit, AuditEvent, ControlPlane, Options, eventually, eventually::holds};

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_appreg");

/// The controller's user, as the audit log has it.
pub(crate) fn controller_user() -> String {
    format!("system:serviceaccount:{NAMESPACE}:appreg-controller")
}

/// The token service's user, as the audit log has it.
pub(crate) fn token_service_user() -> String {
    format!("system:serviceaccount:{NAMESPACE}:appreg-token-service")
}

/// A control plane whose audit log has the requests of the operator's two users.
pub(crate) async fn audited() -> ControlPlane {
    let audit = Audit::Users(vec![controller_user(), token_service_user()]);
    ControlPlane::start_with(Options { audit, ..Options::default() }).await.unwrap()
}

/// The registrations of a namespace, for the administrator.
pub(crate) fn registrations(plane: &ControlPlane, namespace: &str) -> Api<AppRegistration> {
    Api::namespaced(plane.client("admin"), namespace)
}

/// The Secrets of a namespace, for the administrator.
pub(crate) fn secrets(plane: &ControlPlane, namespace: &str) -> Api<Secret> {
    Api::namespaced(plane.client("admin"), namespace)
}

/// Creates a registration with this spec; `displayName` is added.
pub(crate) async fn create(plane: &ControlPlane, namespace: &str, name: &str, spec: Value) -> AppRegistration {
    let mut object = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration", "metadata": {"name": name}, "spec": spec,
    });
    object["spec"]["displayName"] = json!(name);
    let object = serde_json::from_value(object).unwrap();
    registrations(plane, namespace).create(&PostParams::default(), &object).await.unwrap()
}

/// Merges a change into a registration.
pub(crate) async fn change(plane: &ControlPlane, namespace: &str, name: &str, change: Value) -> AppRegistration {
    registrations(plane, namespace).patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap()
}

/// The status of a condition, and its reason.
pub(crate) fn condition(registration: &AppRegistration, type_: ConditionType) -> Option<(String, String)> {
    let conditions = registration.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == type_.as_str())?;
    Some((found.status.clone(), found.reason.clone()))
}

/// Whether its present generation is fulfilled: Ready, and neither Reconciling nor Stalled.
pub(crate) fn is_in_order(registration: &AppRegistration) -> bool {
    let is_true = |type_| condition(registration, type_).is_some_and(|(status, _)| status == "True");
    let observed = registration.status.as_ref().and_then(|status| status.observed_generation);
    observed == registration.metadata.generation
        && is_true(ConditionType::Ready)
        && !is_true(ConditionType::Reconciling)
        && !is_true(ConditionType::Stalled)
}

/// Waits until a registration is in order.
pub(crate) async fn in_order(plane: &ControlPlane, namespace: &str, name: &str) -> AppRegistration {
    let api = registrations(plane, namespace);
    eventually(&format!("{namespace}/{name} is in order"), async || {
        let registration = api.get(name).await.map_err(|error| error.to_string())?;
        holds(is_in_order(&registration), || format!("{:?}", registration.status))?;
        Ok::<_, String>(registration)
    })
    .await
}

/// Waits until a registration's status is as a test wants it.
pub(crate) async fn until(
    plane: &ControlPlane,
    (namespace, name): (&str, &str),
    what: &str,
    is: impl Fn(&AppRegistration) -> bool,
) -> AppRegistration {
    let api = registrations(plane, namespace);
    eventually(&format!("{namespace}/{name} {what}"), async || {
        let registration = api.get(name).await.map_err(|error| error.to_string())?;
        holds(is(&registration), || format!("{:?}", registration.status))?;
        Ok::<_, String>(registration)
    })
    .await
}

/// The fields of a Secret that are text.
pub(crate) fn fields(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(name, bytes)| (name.clone(), String::from_utf8_lossy(&bytes.0).into_owned())).collect()
}

/// Waits until a Secret exists and is as a test wants it.
pub(crate) async fn secret(
    plane: &ControlPlane,
    (namespace, name): (&str, &str),
    what: &str,
    is: impl Fn(&Secret) -> bool,
) -> Secret {
    let api = secrets(plane, namespace);
    eventually(&format!("the Secret {namespace}/{name} {what}"), async || {
        let secret = api.get(name).await.map_err(|error| error.to_string())?;
        holds(is(&secret), || format!("its resourceVersion is {:?}", secret.resource_version()))?;
        Ok::<_, String>(secret)
    })
    .await
}

/// Requests as `update secrets in shop`, in their order, without watches: those begin anew by themselves.
pub(crate) fn asked(events: &[AuditEvent]) -> Vec<String> {
    events.iter().filter(|event| event.verb != "watch").map(said).collect()
}

fn said(event: &AuditEvent) -> String {
    let place = if event.namespace.is_empty() { String::new() } else { format!(" in {}", event.namespace) };
    let code = if (200..300).contains(&event.code) { String::new() } else { format!(" ({})", event.code) };
    format!("{}{place}{code}", event.action())
}
