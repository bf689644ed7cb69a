//! The upkeep of what everything is signed with: certificate authorities, serving certificate, and by
//! [`super::signing_keys`] the token signing keys.
//!
//! What is due is decided by `signer`, pure; here it is written. Each Secret is created only by POST after a live 404,
//! and replaced only with the resourceVersion that was read. What cannot be read is never written over: what is in
//! memory goes on, and a cold start waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::{Api, CustomResourceExt as _};

use crate::api::AppRegistration;
use crate::config::Config;
use crate::credential::{Fields, field, text};
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};
use crate::kubernetes::watch::Item;
use crate::kubernetes::{ObjectName, version_of};
use crate::mint;
use crate::mint::ca::SigningCa;
use crate::mint::certificate::{self, ServingOrder};
use crate::mint::signing_key::SigningKey;
use crate::mint::slow::Pool;
use crate::plan::facts::Environment;
use crate::rotation;
use crate::signer::Index;
use crate::signer::ca::CaIndex;
use crate::signer::jwt::PublicKey;

use super::objects::{self, CA_BUNDLE, CA_KEYS, LedgerObject, SERVING_CERTIFICATE, SIGNING_KEYS};
use super::signing_keys::{self, Emergency};
use super::{Context, lists, requests};

/// The field of `appreg-ca` and of `ca-bundle` that holds the index of certificate authorities.
const CA_INDEX_FIELD: &str = "cas.json";

/// The annotation of `signing-keys` that remembers under which custom resource definition the ledger was made.
pub(crate) const CRD_UID_ANNOTATION: &str = "appreg.dev/crd-uid";

/// How long a serving certificate lives, and how long before its end it is replaced.
const SERVING_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
const SERVING_RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// When to look again where nothing is known to change.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Keys, and what plans know of them.
#[derive(Clone)]
pub(crate) struct Keys {
    /// What plans know.
    pub(crate) environment: Arc<Environment>,
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

/// Why the keys are not in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A request failed.
    #[error("{what}: {}", .source.chain())]
    Request {
        /// The Secret.
        what: &'static str,
        /// Why.
        source: Error,
    },
    /// What is there cannot be read, and is not written over.
    #[error("the Secret {0} cannot be read; restore it, or delete it to start with new keys")]
    Unreadable(&'static str),
    /// A key could not be made.
    #[error("{what} could not be made: {source}")]
    Mint {
        /// What.
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

impl Keys {
    /// Before anything was read.
    pub(crate) fn none(config: &Config, pool: Pool) -> Self {
        Self {
            environment: Arc::new(Environment {
                server: config.server.clone(),
                policy: config.policy.clone(),
                keys: Index::default(),
                authorities: CaIndex::default(),
                endpoint_authorities: CaIndex::default(),
            }),
            signing: HashMap::new(),
            public: Vec::new(),
            emergency: Emergency::None,
            pool,
            authorities: HashMap::new(),
        }
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

/// Brings all keys in order and loads them; returns when to look again.
pub(crate) async fn upkeep(ctx: &Context, now: Timestamp) -> Result<Timestamp, Problem> {
    let now = rotation::whole_seconds(now);
    // None waits for another to be in order: a leaked signing key goes even if the CA cannot be read, and nothing is
    // served without a certificate, but tokens are without the lists.
    let signing = signing_keys::upkeep(ctx, now).await;
    let trust = trust(ctx, now).await;
    let lists = lists::upkeep(ctx).await;
    let (next_key, next_ca) = (signing?, trust?);
    let serving = serving_certificate(ctx, now).await?;
    lists?;
    Ok([next_key, next_ca, Some(serving)]
        .into_iter()
        .flatten()
        .map(rotation::whole_seconds_up)
        .filter(|at| *at > now)
        .min()
        .unwrap_or_else(|| rotation::add(now, LOOK_AGAIN)))
}

/// Changes what is known of the keys. Only the upkeep does, one change after the other.
pub(super) fn change(ctx: &Context, change: impl FnOnce(&mut Keys)) {
    let mut keys = Keys::clone(&ctx.keys.load());
    change(&mut keys);
    ctx.keys.store(Arc::new(keys));
}

/// Has everyone go on with other keys, and every registration looked at.
pub(super) fn replace(ctx: &Context, other: impl FnOnce(&mut Keys)) {
    change(ctx, other);
    ctx.state().push_all();
    ctx.work.notify_one();
}

/// The certificate authorities and their bundle; returns when to look again.
async fn trust(ctx: &Context, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let (index, authorities) = authorities(ctx, now).await?;
    bundle(ctx, &index, now).await?;
    let next = index.next_transition();
    if ctx.keys.load().environment.authorities != index {
        replace(ctx, |keys| {
            keys.environment = Arc::new(Environment { authorities: index, ..Environment::clone(&keys.environment) });
            keys.authorities = authorities;
        });
    }
    Ok(next)
}

/// The uid of the custom resource definition that the ledger was made under.
pub(crate) fn remembered_crd(ctx: &Context) -> Option<String> {
    let object = ObjectName::new(&ctx.ledger_namespace, SIGNING_KEYS);
    let secret = stored(ctx, &object)?;
    secret.metadata.annotations.as_ref()?.get(CRD_UID_ANNOTATION).cloned()
}

/// The uid of the custom resource definition, unless it is being deleted.
pub(crate) async fn live_crd(ctx: &Context) -> Result<Option<String>, Error> {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(ctx.clients.requests.clone());
    let crd = call(ANSWER_WITHIN, api.get(AppRegistration::crd_name())).await?;
    Ok(if crd.metadata.deletion_timestamp.is_some() { None } else { crd.metadata.uid })
}

/// Whether the definition of a kind exists and is not being deleted.
pub(crate) async fn stands<K: kube::CustomResourceExt>(ctx: &Context) -> bool {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(ctx.clients.requests.clone());
    let crd = call(ANSWER_WITHIN, api.get(K::crd_name())).await;
    crd.is_ok_and(|crd| crd.metadata.deletion_timestamp.is_none())
}

async fn authorities(ctx: &Context, now: Timestamp) -> Result<(CaIndex, HashMap<String, Arc<SigningCa>>), Problem> {
    let object = ObjectName::new(&ctx.controller_namespace, CA_KEYS);
    let held = current(ctx, &object, CA_KEYS).await?;
    let mut fields = held.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let index = match &held {
        None => CaIndex::default(),
        Some(_) => CaIndex::parse(bytes(&fields, CA_INDEX_FIELD)).map_err(|_| Problem::Unreadable(CA_KEYS))?,
    };
    let expired = index.expired(now);
    let mut wanted = index.clone().without(&expired);
    for id in &expired {
        fields.remove(&format!("{id}.pem"));
    }
    if wanted.needs_new(now) {
        let minted = mint::ca::mint(now).map_err(|source| Problem::Mint { what: "a certificate authority", source })?;
        fields.insert(format!("{}.pem", minted.record.id), ByteString(minted.private_key_pem.expose().to_vec()));
        wanted = wanted.with(minted.record);
    }
    if wanted != index {
        fields.insert(CA_INDEX_FIELD.to_owned(), ByteString(wanted.to_json()));
        put(ctx, &object, CA_KEYS, held.as_deref(), Body::opaque(fields.clone())).await?;
    }
    let mut keys = HashMap::new();
    for record in wanted.all() {
        let pem = bytes(&fields, &format!("{}.pem", record.id)).ok_or(Problem::Unreadable(CA_KEYS))?;
        let signing = SigningCa::from_pem(record, pem).map_err(|_| Problem::Unreadable(CA_KEYS))?;
        keys.insert(record.id.clone(), Arc::new(signing));
    }
    Ok((wanted, keys))
}

/// The certificates alone, for the token service and for whoever verifies client certificates.
async fn bundle(ctx: &Context, authorities: &CaIndex, now: Timestamp) -> Result<(), Problem> {
    let object = ObjectName::new(&ctx.ledger_namespace, CA_BUNDLE);
    let held = current(ctx, &object, CA_BUNDLE).await?;
    let fields = Fields::from([
        (field::CA.to_owned(), ByteString(authorities.bundle(now).into_bytes())),
        (CA_INDEX_FIELD.to_owned(), ByteString(authorities.to_json())),
    ]);
    if held.as_ref().and_then(|secret| secret.data.as_ref()) == Some(&fields) {
        return Ok(());
    }
    put(ctx, &object, CA_BUNDLE, held.as_deref(), Body::opaque(fields)).await
}

/// The token service's certificate; returns when it is renewed.
async fn serving_certificate(ctx: &Context, now: Timestamp) -> Result<Timestamp, Problem> {
    let object = ObjectName::new(&ctx.ledger_namespace, SERVING_CERTIFICATE);
    let held = current(ctx, &object, SERVING_CERTIFICATE).await?;
    let server = &ctx.config.server;
    let mut names = vec![server.host().to_owned()];
    names.extend(server.serving_names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    let keys = ctx.keys.load_full();
    if let Some(fields) = held.as_ref().and_then(|secret| secret.data.as_ref())
        && let Some(renewal) = serving_renewal(fields, &names, &keys.environment.authorities, now)
        && renewal > now
    {
        return Ok(renewal);
    }
    let not_after = rotation::add(now, SERVING_LIFE);
    let mint_problem = |source| Problem::Mint { what: "the serving certificate", source };
    let authority = keys.signing_authority(not_after).ok_or(mint_problem(mint::Error::NotSigned))?;
    let minted = certificate::mint_serving(&ServingOrder { names, minted_at: now, not_after }, &authority)
        .map_err(mint_problem)?;
    let fields = Fields::from([
        (field::CERTIFICATE.to_owned(), ByteString(minted.certificate_pem.into_bytes())),
        (field::PRIVATE_KEY.to_owned(), ByteString(minted.private_key_pem.expose().to_vec())),
        (field::CA.to_owned(), ByteString(keys.environment.authorities.bundle(now).into_bytes())),
    ]);
    let body = Body { fields, annotations: BTreeMap::new(), type_: "kubernetes.io/tls" };
    put(ctx, &object, SERVING_CERTIFICATE, held.as_deref(), body).await?;
    Ok(rotation::add(not_after, -SERVING_RENEW_BEFORE))
}

/// When a serving certificate is renewed; none if it does not fit: other names, another authority, unreadable.
fn serving_renewal(fields: &Fields, names: &[String], authorities: &CaIndex, now: Timestamp) -> Option<Timestamp> {
    use x509_parser::prelude::FromDer as _;
    let certificate = text(fields, field::CERTIFICATE)?;
    let key = text(fields, field::PRIVATE_KEY)?;
    let bundle = text(fields, field::CA)?;
    if !authorities.bundle(now).contains(bundle.trim()) || key.is_empty() {
        return None;
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let mut actual: Vec<String> = parsed
        .subject_alternative_name()
        .ok()??
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    actual.sort_unstable();
    actual.dedup();
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
    (actual == names).then(|| rotation::add(end, -SERVING_RENEW_BEFORE))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}

/// What one of our own Secrets shall hold.
pub(super) struct Body {
    pub(super) fields: Fields,
    pub(super) annotations: BTreeMap<String, String>,
    type_: &'static str,
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
    let store = if *object.name == *CA_KEYS { &state.world.authority } else { &state.world.ledger };
    match store.value(object) {
        Some(LedgerObject::System(secret)) => Some(secret.clone()),
        Some(LedgerObject::Entry { .. } | LedgerObject::SharedList | LedgerObject::Other) | None => None,
    }
}

/// One of our own Secrets; a live GET if the watch has none, so that only a genuine 404 makes a new one.
pub(super) async fn current(
    ctx: &Context,
    object: &ObjectName,
    what: &'static str,
) -> Result<Option<Arc<Secret>>, Problem> {
    if let Some(secret) = stored(ctx, object) {
        return Ok(Some(secret));
    }
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    match call(ANSWER_WITHIN, api.get(&object.name)).await {
        Ok(secret) => Ok(Some(Arc::new(secret))),
        Err(error) if error.is_absent(&object.name) => Ok(None),
        Err(source) => Err(Problem::Request { what, source }),
    }
}

/// Writes one of our own Secrets, over exactly what was read.
pub(super) async fn put(
    ctx: &Context,
    object: &ObjectName,
    what: &'static str,
    held: Option<&Secret>,
    body: Body,
) -> Result<(), Problem> {
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(object.name.to_string()),
            namespace: Some(object.namespace.to_string()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "appreg".to_owned())])),
            annotations: (!body.annotations.is_empty()).then_some(body.annotations),
            resource_version: held.and_then(|secret| secret.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        type_: Some(body.type_.to_owned()),
        data: Some(body.fields),
        ..Secret::default()
    };
    let written = requests::write(ctx, object, &secret).await.map_err(|source| Problem::Request { what, source })?;
    tracing::info!(secret = what, "written");
    let version = version_of(&written);
    secret.metadata = written.metadata;
    secret.metadata.managed_fields = None;
    let item = Item { object: object.clone(), version, value: objects::ledger_object(secret) };
    let mut state = ctx.state();
    if *object.name == *CA_KEYS {
        state.world.authority.wrote(item);
    } else {
        state.world.ledger_wrote(item);
    }
    Ok(())
}
