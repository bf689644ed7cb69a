//! Reads: the facts of one registration, from the watches, and live where a plan asked for it.
//!
//! What is read live is remembered in the world. Key material stays in [`Held`] and never reaches the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::api::{self, AppRegistration, Kind, Message, RegistrationApproval, RegistrationApprovalSpec};
use crate::credential::Fields;
use crate::credential::access_token::Claims;
use crate::credential::published::Published;
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};
use crate::kubernetes::{DeserializeGuard, ObjectName, version_of};
use crate::ledger::{self, Entry};
use crate::plan::facts::{Facts, LedgerFact, OurSecret, Registration, SecretFact, Source, Standing};
use crate::plan::{self, Look, Reading};
use crate::policy::Absence;
use crate::signer::jwt;

use super::Context;
use super::keys::{self, Keys};
use super::objects::{self, LedgerObject, Registered, SecretMeta};
use super::servers::Servers;
use super::world::World;

/// What must be read live in this pass: it only grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    pub(crate) look: Look,
    /// Ledger entries whose watch lags behind a write of somebody else.
    pub(crate) entries: BTreeSet<ObjectName>,
    /// Secrets that the API server has refused in a dry run, each with why.
    pub(crate) refusals: BTreeMap<String, plan::Problem>,
}

/// Facts for the plan, and what only the writes may see.
pub(crate) struct Snapshot {
    pub(crate) facts: Facts,
    pub(crate) held: Held,
    pub(crate) keys: Arc<Keys>,
    /// The registration's resourceVersion: a report made from these facts is refused if it is stale.
    pub(crate) resource_version: String,
    pub(crate) registration: Arc<AppRegistration>,
}

/// The fields of Secrets that were read live.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) secrets: BTreeMap<String, Fields>,
}

/// What there is to reconcile.
pub(crate) enum Seen {
    /// Nothing any more.
    Gone,
    /// A registration that could not be understood, and says so already.
    Told,
    /// A registration that could not be understood.
    Unreadable { generation: i64, version: u64, problem: Message },
    /// A registration.
    Snapshot(Box<Snapshot>),
}

/// The facts of one registration.
pub(crate) async fn snapshot(ctx: &Context, object: &ObjectName, sight: &Sight) -> Result<Seen, Error> {
    let registration = {
        let state = ctx.state();
        let version = state.world.registrations.version(object).unwrap_or(0);
        match state.world.registrations.value(object) {
            None => return Ok(Seen::Gone),
            Some(Registered::Unreadable { is_told: true, .. }) => return Ok(Seen::Told),
            Some(Registered::Unreadable { generation, problem, .. }) => {
                let problem = problem.clone();
                return Ok(Seen::Unreadable { generation: *generation, version, problem });
            }
            Some(Registered::Readable(registration)) => registration.clone(),
        }
    };
    let uid = registration.metadata.uid.clone().unwrap_or_default();
    if sight.look.registration && !is_confirmed(ctx, object, &uid).await? {
        return Ok(Seen::Gone);
    }
    for entry in &sight.entries {
        read_entry(ctx, entry).await?;
    }
    let live = read_secrets(ctx, object, &sight.look.secrets).await?;
    let approvals = read_approvals(ctx, object, &uid, &sight.look.approvals).await;
    let servers = ctx.servers.load_full();
    let state = ctx.state();
    let mut snapshot = gather(&state.world, &registration, &servers, &live, ctx);
    snapshot.facts.registration.confirmed = sight.look.registration;
    snapshot.facts.refusals.clone_from(&sight.refusals);
    for (name, read) in approvals {
        match read {
            Ok(spec) => drop(snapshot.facts.governance.approvals.insert(name, spec)),
            Err(absence) => drop(snapshot.facts.governance.absent.insert(name, absence)),
        }
    }
    Ok(Seen::Snapshot(Box::new(snapshot)))
}

fn gather(
    world: &World,
    registration: &Arc<AppRegistration>,
    servers: &Servers,
    live: &BTreeMap<String, Option<Secret>>,
    ctx: &Context,
) -> Snapshot {
    let facts_of = registration_fact(world, registration);
    // That there is no such server is for the plan to say.
    let named = servers.named(facts_of.spec.authorization_server());
    let keys = named.unwrap_or_else(|| servers.configured());
    let admission = keys.admission(&facts_of.namespace, world.governors.labels(&facts_of.namespace));
    let ledger = ledger_fact(world, &facts_of, ctx);
    let trusted = match &ledger {
        LedgerFact::Held { entry, .. } => Some(entry.clone()),
        LedgerFact::Absent | LedgerFact::Taken | LedgerFact::Unreadable(_) => None,
    };
    let object = ObjectName::new(&facts_of.namespace, &facts_of.name);
    let mut governance = world.governors.of(&object, &facts_of.uid, trusted.as_ref().map(|entry| &entry.grant));
    // A registration that has a client is not counted again, and nobody is where there is room for all.
    let in_namespace = world.registrations_in(&object.namespace);
    if trusted.is_none() && governance.most_registrations().is_some_and(|most| in_namespace > most.value) {
        governance.older = world.before(registration);
    }
    let entries = facts_of.spec.effective_credentials().into_owned();
    let mut names: BTreeSet<String> = entries.iter().filter_map(|e| api::secret_name(e, &facts_of.name)).collect();
    names.extend(
        world.secrets_of(&facts_of.uid).filter(|o| *o.namespace == *facts_of.namespace).map(|o| o.name.to_string()),
    );
    let mut held = Held::default();
    let mut secrets = BTreeMap::new();
    for name in names {
        let of_secret: Vec<_> =
            entries.iter().filter(|e| api::secret_name(e, &facts_of.name).as_ref() == Some(&name)).cloned().collect();
        let lens = Lens { registration: &facts_of, entries: &of_secret, ledger: trusted.as_deref(), keys };
        let fact = match live.get(&name) {
            Some(None) => SecretFact::Absent(Source::Live),
            Some(Some(secret)) => lens.live(secret, &mut held),
            None => lens.watched(world, &ObjectName::new(&facts_of.namespace, &name)),
        };
        secrets.insert(name, fact);
    }
    let environment = keys.environment.clone();
    Snapshot {
        facts: Facts {
            registration: facts_of,
            environment,
            admission,
            governance,
            ledger,
            secrets,
            refusals: BTreeMap::new(),
        },
        held,
        keys: keys.clone(),
        resource_version: registration.metadata.resource_version.clone().unwrap_or_default(),
        registration: registration.clone(),
    }
}

/// How one Secret is looked at.
struct Lens<'a> {
    registration: &'a Registration,
    entries: &'a [api::Entry],
    ledger: Option<&'a Entry>,
    keys: &'a Keys,
}

impl Lens<'_> {
    fn reading<'a>(&'a self, published: &'a Published) -> Reading<'a> {
        Reading {
            entries: self.entries,
            ledger: self.ledger,
            published,
            template: self.registration.spec.secret_template.as_ref(),
            environment: &self.keys.environment,
        }
    }

    fn live(&self, secret: &Secret, held: &mut Held) -> SecretFact {
        let meta = objects::meta(secret.metadata.clone());
        let Registration { namespace, name, uid, .. } = self.registration;
        let Some(owned) = meta.owned(namespace, name, uid) else { return SecretFact::Foreign };
        let fields = secret.data.clone().unwrap_or_default();
        let published = published(&meta);
        let contents = plan::contents(self.reading(&published), &fields, |token| self.claims(token));
        held.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), fields);
        SecretFact::Ours(Box::new(OurSecret {
            source: Source::Live,
            uid: meta.uid,
            resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
            labels: meta.labels,
            annotations: meta.annotations,
            owned,
            type_: secret.type_.clone(),
            immutable: secret.immutable == Some(true),
            contents: Some(contents),
        }))
    }

    fn watched(&self, world: &World, object: &ObjectName) -> SecretFact {
        let (Some(meta), Some(version)) = (world.secrets.value(object), world.secrets.version(object)) else {
            return SecretFact::Absent(Source::Watched);
        };
        let Registration { namespace, name, uid, status, .. } = self.registration;
        let Some(owned) = meta.owned(namespace, name, uid) else { return SecretFact::Foreign };
        let reported = || {
            let reported = status.secrets.iter().find(|secret| *secret.name == *object.name);
            reported.is_some_and(|secret| secret.resource_version == version.to_string())
        };
        // A token Secret changes without a report: that nobody else wrote it is what its managedFields say.
        let tokens_alone = self.entries.iter().all(|entry| entry.kind() == Some(Kind::AccessToken));
        let is_known = world.verified(object) == Some(version)
            || self.entries.is_empty()
            || reported()
            || (tokens_alone && meta.only_ours);
        let published = published(meta);
        SecretFact::Ours(Box::new(OurSecret {
            source: Source::Watched,
            uid: meta.uid.clone(),
            resource_version: version.to_string(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            owned,
            type_: None,
            immutable: false,
            contents: is_known.then(|| plan::hinted_contents(self.reading(&published), &meta.annotations)),
        }))
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let verified = jwt::verify(token.as_bytes(), &self.keys.public)?;
        Some(Claims {
            scopes: verified.scopes().map(str::to_owned).collect(),
            kid: verified.kid,
            client_id: verified.client_id,
            jti: verified.jti,
            issued_at: verified.issued_at,
            not_after: verified.expires_at,
            audiences: verified.audiences,
            customers: verified.customers,
            customer_groups: verified.customer_groups,
            issuer: verified.issuer,
        })
    }
}

fn published(meta: &SecretMeta) -> Published {
    Published::parse(meta.annotations.get(api::names::PUBLISHED_ANNOTATION).map(String::as_str))
}

fn registration_fact(world: &World, registration: &AppRegistration) -> Registration {
    let meta = &registration.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    Registration {
        namespace_is_terminating: world.governors.is_terminating(&namespace),
        is_terminating: meta.deletion_timestamp.is_some(),
        namespace,
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        spec: registration.spec.clone(),
        status: registration.status.clone().unwrap_or_default(),
        confirmed: false,
    }
}

/// Lookup: by uid; under the derived name of a chosen client ID; by namespace and name of a former registration.
fn ledger_fact(world: &World, registration: &Registration, ctx: &Context) -> LedgerFact {
    let server = registration.spec.authorization_server();
    let held = |object: &ObjectName, entry: &Entry, standing| LedgerFact::Held {
        resource_version: world.ledger.version(object).unwrap_or(0).to_string(),
        entry: Box::new(entry.clone()),
        standing,
    };
    let mut unreadable = None;
    for (object, value) in world.entries_of(&registration.uid) {
        let LedgerObject::Entry { entry, .. } = value else { continue };
        match entry {
            Ok(entry) if entry.owner.uid == registration.uid && entry.server == server => {
                return held(object, entry, Standing::Ours);
            }
            Ok(_) => {}
            Err(problem) => unreadable = Some(problem.clone()),
        }
    }
    let is_former = |entry: &Entry| {
        entry.owner.namespace == registration.namespace
            && entry.owner.name == registration.name
            && entry.server == server
    };
    let wanted = registration.spec.client_id.as_deref().unwrap_or(&registration.uid);
    let derived = ObjectName::new(&ctx.ledger_namespace, &ledger::name(server, wanted));
    match world.ledger.value(&derived) {
        Some(LedgerObject::Entry { entry: Ok(entry), .. }) if is_former(entry) => {
            return held(&derived, entry, Standing::Former);
        }
        Some(LedgerObject::Entry { entry: Err(problem), .. }) => return LedgerFact::Unreadable(problem.clone()),
        Some(
            LedgerObject::Entry { entry: Ok(_), .. }
            | LedgerObject::System(_)
            | LedgerObject::SharedList
            | LedgerObject::Other,
        ) => {
            return LedgerFact::Taken;
        }
        None => {}
    }
    if let Some(problem) = unreadable {
        return LedgerFact::Unreadable(problem);
    }
    if registration.spec.client_id.is_some() {
        return LedgerFact::Absent;
    }
    world
        .entries_named(&registration.namespace, &registration.name)
        .filter_map(|(object, value)| Some((object, value.entry()?)))
        .filter(|(_, entry)| is_former(entry) && !world.exists(&entry.owner.uid))
        .max_by_key(|(_, entry)| entry.created_at)
        .map_or(LedgerFact::Absent, |(object, entry)| held(object, entry, Standing::Former))
}

async fn is_confirmed(ctx: &Context, object: &ObjectName, uid: &str) -> Result<bool, Error> {
    let api: Api<kube::core::PartialObjectMeta<AppRegistration>> =
        Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    match call(ANSWER_WITHIN, api.get(&object.name)).await {
        Ok(live) => Ok(live.metadata.uid.as_deref() == Some(uid)),
        Err(error) if error.is_absent(&object.name) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn read_entry(ctx: &Context, object: &ObjectName) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    let live = match call(ANSWER_WITHIN, api.get(&object.name)).await {
        Ok(secret) => Some((version_of(&secret), objects::ledger_object(secret))),
        Err(error) if error.is_absent(&object.name) => None,
        Err(error) => return Err(error),
    };
    ctx.state().world.ledger_found(object, live);
    Ok(())
}

/// Reads approvals that the watch does not show any more. What they granted ends only where they are seen to be gone: a
/// 404 of the object, while its definition stands. Everything else is doubt, and holds up nothing.
async fn read_approvals(
    ctx: &Context,
    registration: &ObjectName,
    uid: &str,
    names: &BTreeSet<String>,
) -> Vec<(String, Result<Arc<RegistrationApprovalSpec>, Absence>)> {
    let api: Api<DeserializeGuard<RegistrationApproval>> = Api::all(ctx.clients.requests.clone());
    let mut read = Vec::new();
    for name in names {
        let approval = match call(ANSWER_WITHIN, api.get(name)).await {
            Ok(DeserializeGuard(Ok(RegistrationApproval { spec, .. }))) => {
                let for_this = super::governance::is_for(&spec.registration_ref, registration, uid);
                // One of this name that is another registration's is as good as none.
                if for_this { Ok(Arc::new(spec)) } else { Err(Absence::Confirmed) }
            }
            Err(error) if error.is_absent(name) => match keys::live_crd::<RegistrationApproval>(ctx).await {
                Ok(Some(_)) => Err(Absence::Confirmed),
                Ok(None) | Err(_) => Err(Absence::Doubtful),
            },
            Ok(DeserializeGuard(Err(_))) | Err(_) => Err(Absence::Doubtful),
        };
        read.push((name.clone(), approval));
    }
    read
}

async fn read_secrets(
    ctx: &Context,
    registration: &ObjectName,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Option<Secret>>, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &registration.namespace);
    let mut live = BTreeMap::new();
    for name in names {
        let secret = match call(ANSWER_WITHIN, api.get(name)).await {
            Ok(secret) => Some(secret),
            Err(error) if error.is_absent(name) => None,
            Err(error) => return Err(error),
        };
        live.insert(name.clone(), secret);
    }
    Ok(live)
}
