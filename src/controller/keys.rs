//! The upkeep of what a server signs with: its certificate authorities, and by [`super::signing_keys`] its token signing
//! keys.
//!
//! What is due is decided by `signer`, pure; here it is written. Each Secret is created only by POST after a live 404,
//! and replaced only with the resourceVersion that was read. What cannot be read is never written over: what is in
//! memory goes on, and a cold start waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::{Api, CustomResourceExt};

use crate::authority::Takes;
use crate::config::{self, Server};
use crate::credential::{Fields, field};
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};
use crate::kubernetes::watch::Item;
use crate::kubernetes::{ObjectName, version_of};
use crate::mint;
use crate::mint::ca::SigningCa;
use crate::mint::signing_key::SigningKey;
use crate::mint::slow::Pool;
use crate::plan::facts::Environment;
use crate::signer::Index;
use crate::signer::ca::CaIndex;
use crate::signer::jwt::PublicKey;

use super::objects::{self, CA_BUNDLE, CA_KEYS, LedgerObject, SIGNING_KEYS};
use super::signing_keys::{self, Emergency};
use super::{Context, requests, servers};

/// The label of every one of our own Secrets.
const LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "appreg");

/// The same as a selector.
pub(super) const OUR_SECRETS: &str = "app.kubernetes.io/part-of=appreg";

/// The field of `appreg-ca` and of `ca-bundle` that holds the index of certificate authorities.
const CA_INDEX_FIELD: &str = "cas.json";

/// The annotation of `signing-keys` that remembers under which custom resource definition the ledger was made.
pub(crate) const CRD_UID_ANNOTATION: &str = "appreg.dev/crd-uid";

/// A server's keys, and what plans know of it.
#[derive(Clone)]
pub(crate) struct Keys {
    /// What plans know.
    pub(crate) environment: Arc<Environment>,
    /// Whom the server takes.
    pub(crate) takes: Takes,
    /// Token signing keys by kid.
    pub(crate) signing: HashMap<String, Arc<SigningKey>>,
    /// Their public halves.
    pub(crate) public: Vec<PublicKey>,
    /// What was last asked of the token signing keys.
    pub(crate) emergency: Emergency,
    /// The pool for slow key generation.
    pub(crate) pool: Pool,
    authorities: HashMap<String, Arc<SigningCa>>,
}

/// The Secrets that hold a server's keys. Those of the configured server have the plain names.
pub(crate) struct KeySecrets {
    /// The token signing keys, and the settings of a server that is not the configured one.
    pub(crate) signing_keys: ObjectName,
    /// The certificate authorities' certificates.
    bundle: ObjectName,
    /// The certificate authorities' private keys, in the controller's namespace.
    authorities: ObjectName,
}

/// Why the keys are not in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A request failed.
    #[error("{what} could not be read or written: {}. The controller retries", .source.chain())]
    Request {
        /// The object, at the beginning of a sentence.
        what: String,
        /// Why.
        source: Error,
    },
    /// What is there cannot be read, and is not written over.
    #[error("The Secret {0} cannot be read: restore it, or delete it to start with new keys")]
    Unreadable(String),
    /// A key could not be made.
    #[error("{what} could not be made, because {source}. The controller retries")]
    Mint {
        /// What, at the beginning of a sentence.
        what: &'static str,
        /// Why.
        source: mint::Error,
    },
}

impl Problem {
    /// Whether somebody else wrote first: what they wrote is read, and decided on anew.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Request { source, .. } => source.conflict() || source.already_exists(),
            Self::Unreadable(_) | Self::Mint { .. } => false,
        }
    }
}

impl KeySecrets {
    /// The Secrets of a server.
    pub(crate) fn of(ctx: &Context, server: &str) -> Self {
        let suffix = if server == ctx.config.server.name { String::new() } else { format!("-{server}") };
        let named = |namespace: &str, name: &str| ObjectName::new(namespace, &format!("{name}{suffix}"));
        Self {
            signing_keys: named(&ctx.ledger_namespace, SIGNING_KEYS),
            bundle: named(&ctx.ledger_namespace, CA_BUNDLE),
            authorities: named(&ctx.controller_namespace, CA_KEYS),
        }
    }
}

impl Keys {
    /// Before anything was read.
    pub(crate) fn none(server: Server, policy: config::Policy, takes: Takes, pool: Pool) -> Self {
        Self {
            environment: Arc::new(Environment {
                server,
                policy,
                keys: Index::default(),
                authorities: CaIndex::default(),
                endpoint_authorities: CaIndex::default(),
            }),
            takes,
            signing: HashMap::new(),
            public: Vec::new(),
            emergency: Emergency::None,
            pool,
            authorities: HashMap::new(),
        }
    }

    /// The server's name.
    pub(crate) fn server(&self) -> &str {
        &self.environment.server.name
    }

    /// Has plans know something else.
    pub(crate) fn know(&mut self, change: impl FnOnce(&mut Environment)) {
        change(Arc::make_mut(&mut self.environment));
    }

    /// What is not as it should be, as a clause for `/readyz`.
    pub(crate) fn problem(&self, ctx: &Context) -> Option<String> {
        if !self.is_complete() {
            return Some(format!(
                "the authorization server {} has no keys yet; the controller creates them",
                self.server()
            ));
        }
        self.emergency.problem(&KeySecrets::of(ctx, self.server()).signing_keys.name)
    }

    /// Whether there is something to sign everything with.
    pub(crate) fn is_complete(&self) -> bool {
        !self.signing.is_empty() && !self.authorities.is_empty()
    }

    /// The certificate authority that signs a leaf with this end.
    pub(crate) fn signing_authority(&self, leaf_not_after: Timestamp) -> Option<Arc<SigningCa>> {
        let record = self.environment.authorities.signing(leaf_not_after)?;
        self.authorities.get(&record.id).cloned()
    }
}

/// Brings a server's keys in order and loads them; returns when to look again.
pub(super) async fn upkeep(ctx: &Context, keys: &mut Keys, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    // Neither waits for the other to be in order: a leaked signing key goes even if the CA cannot be read.
    let signing = signing_keys::upkeep(ctx, keys, now).await;
    servers::install_again(ctx, keys);
    let trust = trust(ctx, keys, now).await;
    Ok([signing?, trust?].into_iter().flatten().min())
}

/// The certificate authorities and their bundle; returns when to look again.
async fn trust(ctx: &Context, keys: &mut Keys, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let secrets = KeySecrets::of(ctx, keys.server());
    let (index, authorities) = authorities(ctx, &secrets.authorities, now).await?;
    bundle(ctx, &secrets.bundle, &index, now).await?;
    let next = index.next_transition();
    if keys.environment.authorities != index {
        keys.know(|environment| environment.authorities = index);
        keys.authorities = authorities;
    }
    Ok(next)
}

/// The uid of the custom resource definition that the ledger was made under.
pub(crate) fn remembered_crd(ctx: &Context) -> Option<String> {
    let object = KeySecrets::of(ctx, &ctx.config.server.name).signing_keys;
    let secret = stored(ctx, &object)?;
    secret.metadata.annotations.as_ref()?.get(CRD_UID_ANNOTATION).cloned()
}

/// The uid of the definition of a kind, unless it is being deleted.
pub(crate) async fn live_crd<K: CustomResourceExt>(ctx: &Context) -> Result<Option<String>, Error> {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(ctx.clients.requests.clone());
    let crd = call(ANSWER_WITHIN, api.get(K::crd_name())).await?;
    Ok(if crd.metadata.deletion_timestamp.is_some() { None } else { crd.metadata.uid })
}

async fn authorities(
    ctx: &Context,
    object: &ObjectName,
    now: Timestamp,
) -> Result<(CaIndex, HashMap<String, Arc<SigningCa>>), Problem> {
    let unreadable = || Problem::Unreadable(object.name.to_string());
    let held = current(ctx, object).await?;
    let mut fields = held.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let index = match &held {
        None => CaIndex::default(),
        Some(_) => CaIndex::parse(bytes(&fields, CA_INDEX_FIELD)).map_err(|_| unreadable())?,
    };
    let expired = index.expired(now);
    let mut wanted = index.clone().without(&expired);
    for id in &expired {
        fields.remove(&format!("{id}.pem"));
    }
    if wanted.needs_new(now) {
        let minted = mint::ca::mint(now).map_err(|source| Problem::Mint { what: "A certificate authority", source })?;
        fields.insert(format!("{}.pem", minted.record.id), ByteString(minted.private_key_pem.expose().to_vec()));
        wanted = wanted.with(minted.record);
    }
    // The watch does not show one without our label, and each upkeep would read it live.
    let is_unseen = held.as_ref().is_some_and(|secret| !is_labelled(secret));
    if wanted != index || is_unseen {
        fields.insert(CA_INDEX_FIELD.to_owned(), ByteString(wanted.to_json()));
        put(ctx, object, held.as_deref(), Body::opaque(fields.clone())).await?;
    }
    let mut keys = HashMap::new();
    for record in wanted.all() {
        let pem = bytes(&fields, &format!("{}.pem", record.id)).ok_or_else(unreadable)?;
        let signing = SigningCa::from_pem(record, pem).map_err(|_| unreadable())?;
        keys.insert(record.id.clone(), Arc::new(signing));
    }
    Ok((wanted, keys))
}

fn is_labelled(secret: &Secret) -> bool {
    secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0)).is_some_and(|value| value == LABEL.1)
}

/// The certificates alone, for the token service and for whoever verifies client certificates.
async fn bundle(ctx: &Context, object: &ObjectName, authorities: &CaIndex, now: Timestamp) -> Result<(), Problem> {
    let held = current(ctx, object).await?;
    let fields = Fields::from([
        (field::CA.to_owned(), ByteString(authorities.bundle(now).into_bytes())),
        (CA_INDEX_FIELD.to_owned(), ByteString(authorities.to_json())),
    ]);
    if held.as_ref().and_then(|secret| secret.data.as_ref()) == Some(&fields) {
        return Ok(());
    }
    put(ctx, object, held.as_deref(), Body::opaque(fields)).await
}

/// What one of our own Secrets shall hold.
pub(super) struct Body {
    pub(super) fields: Fields,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) type_: &'static str,
}

impl Body {
    pub(super) const fn opaque(fields: Fields) -> Self {
        Self { fields, annotations: BTreeMap::new(), type_: "Opaque" }
    }
}

pub(super) fn bytes<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    fields.get(name).map(|bytes| bytes.0.as_slice())
}

/// One of our own Secrets as the watch has it.
fn stored(ctx: &Context, object: &ObjectName) -> Option<Arc<Secret>> {
    let state = ctx.state();
    let store = if object.namespace == ctx.controller_namespace { &state.world.authority } else { &state.world.ledger };
    match store.value(object) {
        Some(LedgerObject::System(secret)) => Some(secret.clone()),
        Some(LedgerObject::Entry { .. } | LedgerObject::SharedList | LedgerObject::Other) | None => None,
    }
}

/// One of our own Secrets; a live GET if the watch has none, so that only a genuine 404 makes a new one.
pub(super) async fn current(ctx: &Context, object: &ObjectName) -> Result<Option<Arc<Secret>>, Problem> {
    if let Some(secret) = stored(ctx, object) {
        return Ok(Some(secret));
    }
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    match call(ANSWER_WITHIN, api.get(&object.name)).await {
        Ok(secret) => Ok(Some(Arc::new(secret))),
        Err(error) if error.is_absent(&object.name) => Ok(None),
        Err(source) => Err(Problem::Request { what: format!("The Secret {}", object.name), source }),
    }
}

/// Writes one of our own Secrets, over exactly what was read.
pub(super) async fn put(ctx: &Context, object: &ObjectName, held: Option<&Secret>, body: Body) -> Result<(), Problem> {
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(object.name.to_string()),
            namespace: Some(object.namespace.to_string()),
            labels: Some(BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
            annotations: (!body.annotations.is_empty()).then_some(body.annotations),
            resource_version: held.and_then(|secret| secret.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        type_: Some(body.type_.to_owned()),
        data: Some(body.fields),
        ..Secret::default()
    };
    let failed = |source| Problem::Request { what: format!("The Secret {}", object.name), source };
    let written = requests::write(ctx, object, &secret).await.map_err(failed)?;
    tracing::info!(secret = %object.name, "written");
    let version = version_of(&written);
    secret.metadata = written.metadata;
    secret.metadata.managed_fields = None;
    let item = Item { object: object.clone(), version, value: objects::ledger_object(secret) };
    let mut state = ctx.state();
    if object.namespace == ctx.controller_namespace {
        state.world.authority.wrote(item);
    } else {
        state.world.ledger_wrote(item);
    }
    Ok(())
}
