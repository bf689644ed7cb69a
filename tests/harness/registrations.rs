//! Registrations made, changed and waited for, without a process or a connection for each step.

use std::time::Duration;

use anyhow::{Result, bail};
use appreg::api::AppRegistration;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::eventually::eventually_within;

/// Creates `namespace`/`name` with this spec.
pub async fn create(client: &kube::Client, namespace: &str, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "appreg.dev/v1alpha1",
        "kind": "AppRegistration",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    api(client, namespace).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

/// Changes its spec by a merge patch.
pub async fn change(client: &kube::Client, namespace: &str, name: &str, spec: &Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    api(client, namespace).patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The registration as JSON, an absent field as null.
pub async fn read(client: &kube::Client, namespace: &str, name: &str) -> Result<Value> {
    Ok(serde_json::to_value(api(client, namespace).get(name).await?)?)
}

/// Every Secret of a namespace.
pub async fn secrets(client: &kube::Client, namespace: &str) -> Result<Vec<Secret>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// The documents of the ledger whose owner is in `namespace`.
pub async fn ledger(client: &kube::Client, namespace: &str) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    for secret in secrets(client, super::operator::LEDGER).await? {
        let json = secret.data.as_ref().and_then(|data| data.get("ledger.json"));
        let Some(json) = json else { continue };
        let entry: Value = serde_json::from_slice(&json.0)?;
        if entry["owner"]["namespace"] == namespace {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// An error that says what is missing, unless the registration is Ready, reported on in its present state, with a status
/// that names its Secrets as they are.
pub async fn settled(client: &kube::Client, namespace: &str, name: &str) -> Result<Value> {
    let registration = read(client, namespace, name).await?;
    let status = &registration["status"];
    if status["observedGeneration"] != registration["metadata"]["generation"] {
        bail!("the status is of generation {}", status["observedGeneration"]);
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_true = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
    if !is_true("Ready") || is_true("Reconciling") || is_true("Stalled") {
        bail!("{}", status["conditions"]);
    }
    let secrets = secrets(client, namespace).await?;
    for reported in status["secrets"].as_array().into_iter().flatten() {
        let secret = secrets.iter().find(|secret| secret.metadata.name.as_deref() == reported["name"].as_str());
        let Some(secret) = secret else { bail!("there is no Secret {}", reported["name"]) };
        let holds_tokens_alone = secret.data.iter().any(|data| data.contains_key("access_token"));
        if secret.metadata.resource_version.as_deref() != reported["resourceVersion"].as_str() && !holds_tokens_alone {
            bail!("the status speaks of another version of the Secret {}", reported["name"]);
        }
    }
    Ok(registration)
}

/// Waits for that.
///
/// # Panics
/// When it does not come in time.
pub async fn settle(client: &kube::Client, namespace: &str, name: &str, within: Duration) -> Value {
    let what = format!("{namespace}/{name} is Ready and reported");
    eventually_within(within, &what, async || settled(client, namespace, name).await).await
}

/// Registrations of one namespace.
pub fn api(client: &kube::Client, namespace: &str) -> Api<AppRegistration> {
    Api::namespaced(client.clone(), namespace)
}
