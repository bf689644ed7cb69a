//! Writes: a plan's steps, in its order, by compare-and-swap. It decides nothing.
//!
//! Plaintext exists here between the first and the last step, and nowhere else. Every write is a POST of what must not
//! exist or a PUT with the resourceVersion that the plan was made from; a stale one is refused by the API server, and
//! that is not an error but a reason to look again.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::api::{Reason, names};
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};
use crate::kubernetes::watch::Item;
use crate::kubernetes::{ObjectName, version_of};
use crate::ledger::{self, Entry, Revision, Verifier};
use crate::mint::certificate::{CertificateOrder, MintedCertificate};
use crate::mint::client_secret::MintedClientSecret;
use crate::mint::slow::Slot;
use crate::mint::{self, Material};
use crate::plan::facts::Owned;
use crate::plan::{
    self, Accept, Failure, LedgerWrite, Mint, Order, Plan, Problem, Publish, Remove, Retire, SecretWrite, Step, Value,
};

use super::objects::{self, LedgerObject};
use super::observe::Snapshot;
use super::{Context, requests};

/// The value of a field with a credential in a dry run.
const PLACEHOLDER: &[u8] = b"-";

/// What came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What minting made known, by entry and revision.
    pub(crate) minted: BTreeMap<String, Known>,
    /// The resourceVersions of the Secrets that were written.
    pub(crate) versions: BTreeMap<String, String>,
    /// The steps that were done.
    pub(crate) done: Vec<usize>,
    /// The first failure.
    pub(crate) failure: Option<Failure>,
    /// What was written by somebody else meanwhile: look at it and decide again.
    pub(crate) stale: Vec<Stale>,
}

/// What minting made known of a revision.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) hint: Option<String>,
    pub(crate) thumbprint: Option<String>,
}

/// What was written by somebody else meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// This ledger entry.
    Entry(ObjectName),
    /// This Secret.
    Secret(String),
}

/// What was minted for one entry.
enum Minted {
    ClientSecret(MintedClientSecret),
    Certificate(Box<MintedCertificate>),
    Token(Material),
}

/// Why a write did not succeed.
enum Refused {
    Stale(Stale),
    Failed(Failure),
    /// The API server refused the Secret, and so it was not written.
    Denied(Failure),
}

/// Whether a plan takes a core for long: it then needs a slot of the pool.
pub(crate) fn is_slow(plan: &Plan) -> bool {
    plan.mints.iter().any(|mint| match &mint.order {
        Order::Certificate { key_type, .. } => mint::certificate::is_slow(*key_type),
        Order::ClientSecret | Order::AccessToken(_) => false,
    })
}

/// Mints what the plan orders and takes its steps, until the first failure. Beyond it, Secrets get their attempt all the
/// same unless the ledger did not take up what they shall show: they do not depend on each other, and what is revoked is
/// dropped after one attempt to publish its successor, whatever came of it.
pub(crate) async fn apply(ctx: &Context, snapshot: &Snapshot, plan: &Plan, slot: Option<Slot>) -> Outcome {
    let mut outcome = Outcome::default();
    if plan.steps.is_empty() {
        return outcome;
    }
    let minted = match mint_all(snapshot, plan, slot).await {
        Ok(minted) => minted,
        Err(error) => {
            let message = format!("A credential could not be made, because {error}. The controller retries");
            outcome.failure = Some(Failure { reason: None, message });
            BTreeMap::new()
        }
    };
    for (entry, minted) in &minted {
        outcome.minted.insert(entry.clone(), minted.known());
    }
    let mut refused = Vec::new();
    let mut is_accepted = outcome.failure.is_none();
    let mut writer = Writer { ctx, snapshot, plan, minted, entry: None };
    for (index, step) in plan.steps.iter().enumerate() {
        let is_halted = outcome.failure.is_some() || !outcome.stale.is_empty();
        let is_taken = match step {
            Step::Accept(_) | Step::Remove(_) => !is_halted,
            Step::Publish(_) => is_accepted,
            Step::Retire(retire) => !is_halted || retire.is_unconditional(),
        };
        if !is_taken {
            continue;
        }
        let taken = writer.take(step, &mut outcome).await;
        if matches!(step, Step::Accept(_)) {
            is_accepted = taken.is_ok();
        }
        match taken {
            Ok(()) => outcome.done.push(index),
            Err(Refused::Stale(stale)) => outcome.stale.push(stale),
            Err(Refused::Failed(failure)) => outcome.failure = outcome.failure.or(Some(failure)),
            Err(Refused::Denied(failure)) => {
                outcome.failure = outcome.failure.or(Some(failure));
                refused.extend(revisions_of(plan, step));
            }
        }
    }
    // A refusal is known: what was accepted for it was never published, and takes no place.
    writer.take_back(&refused).await;
    outcome
}

/// The revisions that a step would have published for the first time.
fn revisions_of(plan: &Plan, step: &Step) -> Vec<(String, u64)> {
    let Step::Publish(publish) = step else { return Vec::new() };
    let is_shown = |mint: &&Mint| {
        publish.fields.values().any(|value| matches!(value, Value::Minted(entry) if *entry == mint.entry))
    };
    let minted = plan.mints.iter().filter(|mint| mint.revision > 0).filter(is_shown);
    minted.map(|mint| (mint.entry.clone(), mint.revision)).collect()
}

/// Asks by a dry run for Secrets of the plan that were refused before, so that nothing is accepted in vain. Returns those
/// that are refused again. The dry run has a placeholder for every credential: none is made for it, and none that is in
/// use is shown to the webhooks that it passes.
pub(crate) async fn rehearse(ctx: &Context, snapshot: &Snapshot, plan: &Plan) -> BTreeMap<String, Problem> {
    let mut refusals = BTreeMap::new();
    for step in &plan.steps {
        let Step::Publish(publish) = step else { continue };
        let object = ObjectName::new(&snapshot.facts.registration.namespace, &publish.name);
        if revisions_of(plan, step).is_empty() || !ctx.state().world.was_refused(&object) {
            continue;
        }
        let writer = Writer { ctx, snapshot, plan, minted: BTreeMap::new(), entry: None };
        let secret = writer.secret(publish, Some(PLACEHOLDER));
        if let Err(error) = requests::rehearse(ctx, &object, &secret).await
            && error.is_refusal()
        {
            let failure = refused(&publish.name, &error);
            let reason = failure.reason.unwrap_or(Reason::SecretRefused);
            refusals.insert(publish.name.clone(), Problem::new(reason, failure.message));
        }
    }
    refusals
}

async fn mint_all(
    snapshot: &Snapshot,
    plan: &Plan,
    mut slot: Option<Slot>,
) -> Result<BTreeMap<String, Minted>, mint::Error> {
    let mut minted = BTreeMap::new();
    for mint in &plan.mints {
        let value = match &mint.order {
            Order::ClientSecret => Minted::ClientSecret(mint::client_secret::mint()?),
            Order::Certificate { key_type, dns_names } => {
                let order = CertificateOrder {
                    key_type: *key_type,
                    server: snapshot.facts.environment.server.name.clone(),
                    client_id: plan.status.client_id.clone().unwrap_or_default(),
                    dns_names: dns_names.clone(),
                    minted_at: mint.minted_at,
                    not_after: mint.not_after,
                };
                let authority = snapshot.keys.signing_authority(mint.not_after).ok_or(mint::Error::NotSigned)?;
                let made = match slot.take().filter(|_| mint::certificate::is_slow(*key_type)) {
                    Some(slot) => slot.run(move || mint::certificate::mint(&order, &authority)).await?,
                    None if mint::certificate::is_slow(*key_type) => {
                        // A second slow one of the same plan: the slot has been given back.
                        let slot = snapshot.keys.pool.enter().await?;
                        slot.run(move || mint::certificate::mint(&order, &authority)).await?
                    }
                    None => mint::certificate::mint(&order, &authority)?,
                };
                Minted::Certificate(Box::new(made))
            }
            Order::AccessToken(order) => Minted::Token(sign(snapshot, plan, mint, order)?),
        };
        minted.insert(mint.entry.clone(), value);
    }
    Ok(minted)
}

fn sign(snapshot: &Snapshot, plan: &Plan, mint: &Mint, order: &plan::TokenOrder) -> Result<Material, mint::Error> {
    let key = snapshot.keys.signing.get(&order.kid).ok_or(mint::Error::NotSigned)?;
    let scope = order.scopes.join(" ");
    mint::token::sign(
        key,
        &mint::token::Claims {
            issuer: &snapshot.facts.environment.server.issuer,
            client_id: plan.status.client_id.as_deref().unwrap_or_default(),
            audiences: &[order.audience.as_str()],
            scope: &scope,
            issued_at: mint.minted_at,
            expires_at: mint.not_after,
            not_before: None,
            entry: Some(&mint.entry),
            revision: None,
            customers: order.customers.as_deref(),
            customer_groups: order.customer_groups.as_deref(),
            certificate: None,
        },
    )
}

/// Takes steps, and remembers what the ledger entry is meanwhile.
struct Writer<'a> {
    ctx: &'a Context,
    snapshot: &'a Snapshot,
    plan: &'a Plan,
    minted: BTreeMap<String, Minted>,
    /// The entry as this pass has written it, with its resourceVersion.
    entry: Option<(String, Entry)>,
}

impl Writer<'_> {
    async fn take(&mut self, step: &Step, outcome: &mut Outcome) -> Result<(), Refused> {
        match step {
            Step::Accept(accept) => self.accept(accept).await,
            Step::Publish(publish) => {
                let version = self.publish(publish).await?;
                outcome.versions.insert(publish.name.clone(), version);
                Ok(())
            }
            Step::Remove(remove) => self.remove(remove).await,
            Step::Retire(retire) => self.retire(retire).await,
        }
    }

    async fn accept(&mut self, accept: &Accept) -> Result<(), Refused> {
        let mut entry = accept.entry.clone();
        for mint in &self.plan.mints {
            let Some(verifier) = self.minted.get(&mint.entry).and_then(Minted::verifier) else { continue };
            let Some(credential) = entry.credentials.get_mut(&mint.entry) else { continue };
            credential.revisions.push(Revision {
                revision: mint.revision,
                minted_at: mint.minted_at,
                not_after: mint.not_after,
                hint: self.minted.get(&mint.entry).and_then(|minted| minted.known().hint),
                verifier,
            });
        }
        let version = match &accept.write {
            LedgerWrite::Create => None,
            LedgerWrite::Replace { resource_version } => Some(resource_version.clone()),
        };
        self.write_entry(entry, version).await
    }

    async fn retire(&mut self, retire: &Retire) -> Result<(), Refused> {
        let (version, mut entry) = if let Some(written) = self.entry.take() {
            written
        } else {
            let Some(version) = retire.resource_version.clone() else {
                // What this plan was to write first was not written: the next plan drops.
                return Ok(());
            };
            let plan::facts::LedgerFact::Held { entry, .. } = &self.snapshot.facts.ledger else { return Ok(()) };
            (version, (**entry).clone())
        };
        for name in &retire.entries {
            entry.credentials.remove(name);
        }
        for (name, revision, _) in &retire.revisions {
            if let Some(credential) = entry.credentials.get_mut(name) {
                credential.revisions.retain(|known| known.revision != *revision);
            }
        }
        self.write_entry(entry, Some(version)).await
    }

    async fn write_entry(&mut self, entry: Entry, version: Option<String>) -> Result<(), Refused> {
        let name = entry.name();
        let json = entry.to_json();
        if json.len() > ledger::LARGEST_ENTRY_BYTES {
            // Nobody could read it again: what it revokes would stay accepted. What only removes is smaller than before.
            let message = format!(
                "The ledger entry would have {} bytes, and at most {} are read: ask for fewer items, or for fewer credentials",
                json.len(),
                ledger::LARGEST_ENTRY_BYTES
            );
            return Err(Refused::Failed(Failure { reason: Some(Reason::QuotaExceeded), message }));
        }
        let object = ObjectName::new(&self.ctx.ledger_namespace, &name);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.ctx.ledger_namespace.to_string()),
                labels: Some(objects::ledger_labels(&entry.owner.uid)),
                resource_version: version,
                ..ObjectMeta::default()
            },
            type_: Some(names::LEDGER_SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([(ledger::FIELD.to_owned(), ByteString(json))])),
            ..Secret::default()
        };
        let written = match requests::write(self.ctx, &object, &secret).await {
            Ok(written) => written,
            Err(error) if error.already_exists() || error.conflict() || error.is_absent(&object.name) => {
                return Err(Refused::Stale(Stale::Entry(object)));
            }
            Err(error) => return Err(Refused::Failed(failed("The ledger entry", &error, None))),
        };
        let version = version_of(&written);
        self.ctx.state().world.ledger_wrote(Item {
            object,
            version,
            value: LedgerObject::Entry {
                uid: written.metadata.uid.unwrap_or_default(),
                registration_uid: Some(entry.owner.uid.clone()),
                entry: Ok(std::sync::Arc::new(entry.clone())),
            },
        });
        self.entry = Some((version.to_string(), entry));
        Ok(())
    }

    /// Takes revisions out of the ledger entry again that this pass has put there and that were refused. Where that
    /// fails they age out.
    async fn take_back(&mut self, refused: &[(String, u64)]) {
        let Some((version, mut entry)) = self.entry.take().filter(|_| !refused.is_empty()) else { return };
        for (name, revision) in refused {
            if let Some(credential) = entry.credentials.get_mut(name) {
                credential.revisions.retain(|known| known.revision != *revision);
            }
        }
        let _ = self.write_entry(entry, Some(version)).await;
    }

    /// A Secret as the plan wants it, with a placeholder for every credential if there is one.
    fn secret(&self, publish: &Publish, placeholder: Option<&[u8]>) -> Secret {
        let registration = &self.snapshot.facts.registration;
        let mut data = BTreeMap::new();
        for (field, value) in &publish.fields {
            let placeholder = placeholder.filter(|_| !matches!(value, Value::Text(_))).map(<[u8]>::to_vec);
            if let Some(bytes) = placeholder.or_else(|| self.value(publish, field, value)) {
                data.insert((*field).to_owned(), ByteString(bytes));
            }
        }
        for (name, source) in &publish.copies {
            if let Some(bytes) = data.get(source.as_str()).cloned() {
                data.insert(name.clone(), bytes);
            }
        }
        let (uid, version) = match &publish.write {
            SecretWrite::Create => (None, None),
            SecretWrite::Replace { uid, resource_version } => (Some(uid.clone()), Some(resource_version.clone())),
        };
        Secret {
            metadata: ObjectMeta {
                name: Some(publish.name.clone()),
                namespace: Some(registration.namespace.clone()),
                labels: Some(publish.labels.clone()),
                annotations: Some(publish.annotations.clone()),
                owner_references: match publish.owned {
                    Owned::ByRegistration => {
                        Some(vec![objects::owner_reference(&registration.name, &registration.uid)])
                    }
                    Owned::ByNobody => None,
                },
                uid,
                resource_version: version,
                ..ObjectMeta::default()
            },
            type_: Some(publish.type_.to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }

    async fn publish(&mut self, publish: &Publish) -> Result<String, Refused> {
        let namespace = &self.snapshot.facts.registration.namespace;
        let object = ObjectName::new(namespace, &publish.name);
        match requests::write(self.ctx, &object, &self.secret(publish, None)).await {
            Ok(written) => {
                let version = version_of(&written);
                let value = objects::meta(written.metadata);
                self.ctx.state().world.secret_wrote(Item { object, version, value });
                Ok(version.to_string())
            }
            Err(error) if error.already_exists() || error.conflict() || error.is_absent(&publish.name) => {
                Err(Refused::Stale(Stale::Secret(publish.name.clone())))
            }
            Err(error) if error.is_refusal() => {
                let failure = refused(&publish.name, &error);
                if failure.reason != Some(Reason::NamespaceTerminating) {
                    self.ctx.state().world.secret_refused(object);
                }
                Err(Refused::Denied(failure))
            }
            Err(error) => Err(Refused::Failed(failed(&format!("The Secret {}", publish.name), &error, None))),
        }
    }

    async fn remove(&mut self, remove: &Remove) -> Result<(), Refused> {
        let namespace = &self.snapshot.facts.registration.namespace;
        let object = ObjectName::new(namespace, &remove.name);
        let version = self.ctx.state().world.secrets.version(&object).unwrap_or(0);
        let api: Api<Secret> = Api::namespaced(self.ctx.clients.requests.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(remove.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match call(ANSWER_WITHIN, api.delete(&remove.name, &params)).await {
            Ok(_) => {}
            Err(error) if error.is_absent(&remove.name) || error.conflict() => {}
            Err(error) => {
                return Err(Refused::Failed(failed(&format!("The Secret {}", remove.name), &error, None)));
            }
        }
        self.ctx.state().world.secret_removed(&object, version);
        Ok(())
    }

    /// The bytes of a field.
    fn value(&self, publish: &Publish, field: &str, value: &Value) -> Option<Vec<u8>> {
        match value {
            Value::Text(text) => Some(text.clone().into_bytes()),
            Value::Minted(entry) => self.minted.get(entry).and_then(|minted| minted.field(field)),
            Value::Held(held) => self.snapshot.held.secrets.get(&publish.name)?.get(*held).map(|bytes| bytes.0.clone()),
        }
    }
}

impl Minted {
    fn verifier(&self) -> Option<Verifier> {
        match self {
            Self::ClientSecret(minted) => Some(Verifier::ClientSecret(minted.verifier.clone())),
            Self::Certificate(minted) => Some(Verifier::Certificate(minted.verifier.clone())),
            Self::Token(_) => None,
        }
    }

    fn known(&self) -> Known {
        match self {
            Self::ClientSecret(minted) => Known { hint: Some(minted.hint.clone()), thumbprint: None },
            Self::Certificate(minted) => {
                Known { hint: None, thumbprint: Some(minted.verifier.cert_sha256.to_base64url()) }
            }
            Self::Token(_) => Known::default(),
        }
    }

    fn field(&self, field: &str) -> Option<Vec<u8>> {
        use crate::credential::field as name;
        match self {
            Self::ClientSecret(minted) => Some(minted.material.expose().to_vec()),
            Self::Certificate(minted) if field == name::CERTIFICATE => {
                Some(minted.certificate_pem.clone().into_bytes())
            }
            Self::Certificate(minted) if field == name::PRIVATE_KEY => Some(minted.private_key_pem.expose().to_vec()),
            Self::Certificate(_) => None,
            Self::Token(token) => Some(token.expose().to_vec()),
        }
    }
}

/// Whose refusal it was. Only a field that the template has written is the spec's fault.
fn refused(name: &str, error: &Error) -> Failure {
    let fields = error.invalid_fields();
    let is_of_template =
        |field: &&str| ["metadata.labels", "metadata.annotations", "data["].iter().any(|of| field.starts_with(of));
    let reason = if error.namespace_terminating() || error.namespace_missing() {
        Reason::NamespaceTerminating
    } else if error.quota_exceeded() {
        Reason::QuotaExceeded
    } else if error.denied_by_admission() {
        Reason::SecretRefused
    } else if fields.contains(&"type") {
        Reason::SecretConflict
    } else if fields.contains(&"data") {
        Reason::SecretImmutable
    } else if fields.iter().any(is_of_template) {
        Reason::InvalidSpec
    } else {
        Reason::SecretRefused
    };
    failed(&format!("The Secret {name}"), error, Some(reason))
}

fn failed(what: &str, error: &Error, reason: Option<Reason>) -> Failure {
    let remedy = match reason {
        Some(Reason::NamespaceTerminating) => "Create the registration in another namespace",
        Some(Reason::QuotaExceeded) => "Free some of the quota, or raise it; the controller retries",
        Some(Reason::SecretConflict | Reason::SecretImmutable) => "Delete the Secret, and it is created again",
        Some(Reason::InvalidSpec) => "Change the spec so that the API server accepts the Secret",
        Some(Reason::SecretRefused) => "Make it accept the Secret; the controller asks again by a dry run",
        Some(_) | None => "The controller retries",
    };
    Failure { reason, message: format!("{what} could not be written: {}. {remedy}", error.chain()) }
}
