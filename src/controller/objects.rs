//! What is kept of each object that is watched, and what our own objects look like.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use kube::core::PartialObjectMeta;

use crate::api::{AppRegistration, AppRegistrationStatus, Message, names};
use crate::credential::field;
use crate::kubernetes::DeserializeGuard;
use crate::ledger::{self, Entry, Unreadable};
use crate::plan::facts::Owned;
use crate::shared_lists;

/// Our name in managedFields.
pub(crate) const FIELD_MANAGER: &str = "appreg";

/// The Secret with the configured server's token signing keys.
pub(crate) const SIGNING_KEYS: &str = "signing-keys";
/// The Secret with the certificate authorities' certificates.
pub(crate) const CA_BUNDLE: &str = "ca-bundle";
/// The Secret with the token service's serving certificate.
pub(crate) const SERVING_CERTIFICATE: &str = "token-service-tls";
/// The Secret with the certificate authorities' private keys, in the controller's namespace.
pub(crate) const CA_KEYS: &str = "appreg-ca";

/// The fields of every Secret with an access token.
const TOKEN_FIELDS: [&str; 9] = [
    field::ACCESS_TOKEN,
    field::TOKEN_TYPE,
    field::EXPIRES_AT,
    field::SCOPE,
    field::CLIENT_ID,
    field::ISSUER,
    field::TOKEN_ENDPOINT,
    field::JWKS_URI,
    field::ISSUER_CA,
];

/// A registration as it is kept.
#[derive(Clone, Debug)]
pub(crate) enum Registered {
    /// It was understood.
    Readable(Arc<AppRegistration>),
    /// It was not; its metadata and what was wrong.
    Unreadable {
        /// Its uid.
        uid: String,
        /// Whether it is being deleted.
        is_terminating: bool,
        /// `metadata.generation`.
        generation: i64,
        /// What was wrong.
        problem: Message,
        /// Whether its status says so already: then it is not said again after a restart.
        is_told: bool,
    },
}

/// A Secret of the ledger namespace as it is kept.
#[derive(Clone, Debug)]
pub(crate) enum LedgerObject {
    /// A ledger entry.
    Entry {
        /// The Secret's uid.
        uid: String,
        /// The label that says whose it is.
        registration_uid: Option<String>,
        /// The entry.
        entry: Result<Arc<Entry>, Unreadable>,
    },
    /// One of the operator's own Secrets, whole.
    System(Arc<Secret>),
    /// One of the lists that the token service writes.
    SharedList,
    /// Anything else.
    Other,
}

/// The metadata of a Secret as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct SecretMeta {
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The controller ownerReference's uid.
    pub(crate) controller: Option<String>,
    /// Whether its managedFields name no other writer than us, and still list what an access token's Secret has: who
    /// takes a field away leaves no name behind, but our list is the shorter.
    pub(crate) only_ours: bool,
}

/// Reduces a registration.
pub(crate) fn registered(DeserializeGuard(object): DeserializeGuard<AppRegistration>) -> Registered {
    match object {
        Ok(mut registration) => {
            registration.metadata.managed_fields = None;
            Registered::Readable(Arc::new(registration))
        }
        Err(invalid) => {
            let status: AppRegistrationStatus = invalid.status();
            let problem = Message::of_field(invalid.field, invalid.problem);
            let is_told = status.observed_generation == invalid.metadata.generation
                && status.conditions.iter().any(|condition| condition.message.starts_with(&problem.to_string()));
            Registered::Unreadable {
                is_terminating: invalid.metadata.deletion_timestamp.is_some(),
                uid: invalid.metadata.uid.unwrap_or_default(),
                generation: invalid.metadata.generation.unwrap_or_default(),
                is_told,
                problem,
            }
        }
    }
}

/// Reduces a Secret of the ledger namespace.
pub(crate) fn ledger_object(mut secret: Secret) -> LedgerObject {
    secret.metadata.managed_fields = None;
    let name = secret.metadata.name.clone().unwrap_or_default();
    if is_system(&name) {
        return LedgerObject::System(Arc::new(secret));
    }
    if shared_lists::index_of_secret(&name).is_some() {
        return LedgerObject::SharedList;
    }
    if secret.type_.as_deref() != Some(names::LEDGER_SECRET_TYPE) {
        return LedgerObject::Other;
    }
    let bytes = secret.data.as_ref().and_then(|data| data.get(ledger::FIELD)).map(|bytes| bytes.0.as_slice());
    LedgerObject::Entry {
        entry: Entry::parse(&name, bytes).map(Arc::new),
        uid: secret.metadata.uid.unwrap_or_default(),
        registration_uid: secret.metadata.labels.and_then(|mut l| l.remove(names::REGISTRATION_UID_LABEL)),
    }
}

/// Whether a Secret is one of the operator's own: those of other servers than the configured one have its name behind them.
fn is_system(name: &str) -> bool {
    let of_a_server =
        |start: &str| name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    name == SERVING_CERTIFICATE || [SIGNING_KEYS, CA_BUNDLE, CA_KEYS].into_iter().any(of_a_server)
}

/// Reduces a Secret's metadata.
pub(crate) fn secret_meta(object: PartialObjectMeta<Secret>) -> SecretMeta {
    meta(object.metadata)
}

/// Reduces metadata.
pub(crate) fn meta(meta: ObjectMeta) -> SecretMeta {
    let only_ours = meta.managed_fields.as_ref().is_some_and(|entries| {
        entries.iter().all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
            && TOKEN_FIELDS.iter().all(|field| entries.iter().any(|entry| has_written(entry, field)))
    });
    SecretMeta {
        only_ours,
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
        controller: meta.owner_references.and_then(|references| {
            references.into_iter().find(|reference| reference.controller == Some(true)).map(|reference| reference.uid)
        }),
    }
}

/// Whether managedFields say that this writer wrote a field of `data`.
fn has_written(entry: &ManagedFieldsEntry, field: &str) -> bool {
    let data = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:data"));
    data.and_then(|data| data.as_object())
        .is_some_and(|data| data.keys().any(|key| key.strip_prefix("f:") == Some(field)))
}

impl SecretMeta {
    /// How a Secret belongs to a registration; `None` if it does not.
    pub(crate) fn owned(&self, namespace: &str, name: &str, uid: &str) -> Option<Owned> {
        match &self.controller {
            Some(controller) if controller == uid => Some(Owned::ByRegistration),
            Some(_) => None,
            None => {
                let managed = self.labels.get(names::MANAGED_BY_LABEL).is_some_and(|v| v == names::MANAGED_BY);
                let mark = format!("{namespace}/{name}");
                (managed && self.annotations.get(names::REGISTRATION_ANNOTATION) == Some(&mark))
                    .then_some(Owned::ByNobody)
            }
        }
    }

    /// The registration that it says it belongs to, by name.
    pub(crate) fn registration(&self) -> Option<&str> {
        self.annotations.get(names::REGISTRATION_ANNOTATION)?.split_once('/').map(|(_, name)| name)
    }
}

/// The ownerReference of a registration's Secrets: they are collected with it, and its deletion waits for none.
pub(crate) fn owner_reference(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "appreg.dev/v1alpha1".to_owned(),
        kind: "AppRegistration".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

/// The labels of a ledger entry.
pub(crate) fn ledger_labels(uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned()),
        (names::REGISTRATION_UID_LABEL.to_owned(), uid.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_somebody_took_away_is_missed_though_nobody_else_has_signed() {
        let entry = |manager: &str, fields: &[&str]| {
            let data: serde_json::Map<_, _> =
                fields.iter().map(|field| (format!("f:{field}"), serde_json::json!({}))).collect();
            serde_json::from_value::<ManagedFieldsEntry>(serde_json::json!({
                "manager": manager, "operation": "Update", "fieldsV1": {"f:data": data, "f:metadata": {}},
            }))
            .unwrap()
        };
        let only_ours = |entries: Vec<ManagedFieldsEntry>| {
            meta(ObjectMeta { managed_fields: Some(entries), ..ObjectMeta::default() }).only_ours
        };
        assert!(only_ours(vec![entry(FIELD_MANAGER, &TOKEN_FIELDS)]));
        assert!(!only_ours(vec![entry(FIELD_MANAGER, &TOKEN_FIELDS[1..])]), "a field was taken away");
        assert!(!only_ours(vec![entry(FIELD_MANAGER, &TOKEN_FIELDS), entry("kubectl-edit", &[])]));
        assert!(!meta(ObjectMeta::default()).only_ours, "nothing is known");
    }
}
