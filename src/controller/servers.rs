//! The authorization servers: which there are, the upkeep of each one's keys, and the report on its object.
//!
//! Which are in force is decided by `authority`, pure. One whose keys are not in order holds up no other; its
//! registrations wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::api::{AuthorizationServer, AuthorizationServerStatus, Message, Reason};
use crate::authority::{self, Authority, Catalog, Declared, InForce, Takes};
use crate::config::{self, Config, Server, published};
use crate::kubernetes::client::Error;
use crate::kubernetes::store::Store;
use crate::kubernetes::watch::Change;
use crate::kubernetes::{DeserializeGuard, ObjectName};
use crate::mint::slow::Pool;
use crate::plan::facts::Admission;
use crate::rotation;

use super::keys::{self, Keys, Problem};
use super::objects::LedgerObject;
use super::world::World;
use super::{Context, lists, requests, serving};

/// When to look again where nothing is known to change.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// When to look again at a server whose keys could not be brought in order.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(2);

/// Every server in force: replaced as a whole.
#[derive(Clone)]
pub(crate) struct Servers {
    configured: Arc<Keys>,
    others: BTreeMap<String, Arc<Keys>>,
    /// Whether each one's keys were looked at since the start.
    is_loaded: bool,
}

/// The object of a server as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct ServerObject {
    generation: i64,
    declared: Declared,
    status: AuthorizationServerStatus,
}

/// What the watch of server objects has shown.
#[derive(Default)]
pub(crate) struct ServerObjects {
    store: Store<ServerObject>,
    is_listed: bool,
}

/// Reduces an object.
pub(crate) fn object(DeserializeGuard(object): DeserializeGuard<AuthorizationServer>) -> ServerObject {
    match object {
        Ok(AuthorizationServer { metadata, spec, status }) => {
            let created_at = metadata.creation_timestamp.map(|at| at.0);
            ServerObject {
                generation: metadata.generation.unwrap_or_default(),
                declared: Declared::of(metadata.name.as_deref().unwrap_or_default(), created_at, spec),
                status: status.unwrap_or_default(),
            }
        }
        Err(invalid) => ServerObject {
            generation: invalid.metadata.generation.unwrap_or_default(),
            status: invalid.status(),
            declared: Declared {
                created_at: invalid.metadata.creation_timestamp.map(|at| at.0),
                server: Err(Message::of_field(invalid.field, invalid.problem)),
            },
        },
    }
}

impl ServerObjects {
    /// Takes what the watch says.
    pub(crate) fn apply(&mut self, change: Change<ServerObject>) {
        self.is_listed |= matches!(change, Change::Listed { .. });
        self.store.apply(change);
    }

    fn declared(&self) -> Option<BTreeMap<String, Declared>> {
        let of = |(object, value): (&ObjectName, &ServerObject)| (object.name.to_string(), value.declared.clone());
        self.is_listed.then(|| self.store.iter().map(of).collect())
    }
}

impl Servers {
    /// The configured server, before anything was read.
    pub(crate) fn none(config: &Config, pool: Pool) -> Self {
        let keys = Keys::none(config.server.clone(), config.policy.clone(), Takes::Everyone, pool);
        Self { configured: Arc::new(keys), others: BTreeMap::new(), is_loaded: false }
    }

    /// The configured server.
    pub(crate) const fn configured(&self) -> &Arc<Keys> {
        &self.configured
    }

    /// The server of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Keys>> {
        if name == self.configured.server() { Some(&self.configured) } else { self.others.get(name) }
    }

    /// All servers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Keys>> {
        std::iter::once(&self.configured).chain(self.others.values())
    }

    /// Whether plans may be made.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_loaded && self.configured.is_complete()
    }
}

impl Keys {
    /// Whether the server takes something new from a namespace with these labels.
    pub(crate) fn admission(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Admission {
        let server = self.server();
        if !self.is_complete() {
            return Admission::Unavailable(format!(
                "The authorization server {server} has no keys yet: the controller creates them, and retries"
            ));
        }
        self.takes.refusal(server, namespace, labels).map_or(Admission::Open, Admission::Closed)
    }
}

/// Brings the keys of all servers in order, and what the token service needs besides; returns when to look again.
pub(crate) async fn upkeep(ctx: &Context, now: Timestamp) -> Result<Timestamp, Problem> {
    let now = rotation::whole_seconds(now);
    let configured = keep_configured(ctx, now).await;
    let catalog = catalog(ctx);
    forget(ctx, &catalog);
    let next_others = keep_others(ctx, &catalog, now).await;
    count_emergencies(ctx, now);
    // None waits for another to be in order: nothing is served without a certificate, but tokens are without the lists.
    let lists = lists::upkeep(ctx).await;
    let next = configured?;
    let serving = serving::upkeep(ctx, now).await?;
    lists?;
    Ok([next, next_others, Some(serving)]
        .into_iter()
        .flatten()
        .map(rotation::whole_seconds_up)
        .filter(|at| *at > now)
        .min()
        .unwrap_or_else(|| rotation::add(now, LOOK_AGAIN)))
}

async fn keep_configured(ctx: &Context, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let mut keys = Keys::clone(ctx.servers.load().configured());
    let next = keys::upkeep(ctx, &mut keys, now).await;
    if keys.environment.endpoint_authorities != keys.environment.authorities {
        keys.know(|environment| environment.endpoint_authorities = environment.authorities.clone());
    }
    install(ctx, &keys);
    next
}

/// The other servers; returns when to look again.
async fn keep_others(ctx: &Context, catalog: &Catalog, now: Timestamp) -> Option<Timestamp> {
    let mut next = None;
    let others = catalog.in_force.iter().filter(|(name, _)| **name != ctx.config.server.name);
    let mut problems = BTreeMap::new();
    for (name, InForce { authority, takes }) in others {
        // A type that is not ours to serve has no keys here.
        let Authority::BuiltIn(server) = authority;
        let mut keys = known(ctx, server, takes);
        let at = match keys::upkeep(ctx, &mut keys, now).await {
            Ok(at) => at,
            Err(problem) => {
                // Somebody else was first; what they wrote is looked at before anything is told.
                let told = (!problem.is_conflict()).then(|| problem.to_string());
                problems.insert(name.clone(), told);
                Some(rotation::add(now, TRY_AGAIN))
            }
        };
        install(ctx, &keys);
        next = next.into_iter().chain(at).min();
    }
    loaded(ctx);
    for (object, version, status) in due_reports(ctx, catalog, &problems, now) {
        if let Err(error) = report(ctx, &object, version, &status).await {
            tracing::debug!(server = %object.name, problem = error.chain(), "a status was not written");
            next = next.into_iter().chain([rotation::add(now, TRY_AGAIN)]).min();
        }
    }
    next
}

/// Which servers are in force, by what the watches have shown.
fn catalog(ctx: &Context) -> Catalog {
    let servers = ctx.servers.load();
    let state = ctx.state();
    let published = published(&state.world, &servers);
    authority::catalog(&ctx.config.server, state.world.servers.declared().as_ref(), &published)
}

/// What the token service was told of servers. Where that cannot be read any more, what was understood before counts.
fn published(world: &World, servers: &Servers) -> BTreeMap<String, Server> {
    let settings = |object: &ObjectName, value: &LedgerObject| {
        let LedgerObject::System(secret) = value else { return None };
        let name = object.name.strip_prefix(published::SECRET_PREFIX)?;
        let field = secret.data.as_ref().and_then(|data| keys::bytes(data, published::FIELD));
        let before = || servers.others.get(name).map(|keys| keys.environment.server.clone());
        Some((name.to_owned(), published::parse(name, field).ok().or_else(before)?))
    };
    world.published().filter_map(|(object, value)| settings(object, value)).collect()
}

/// A server's keys as they were last loaded, with its settings as they are now.
fn known(ctx: &Context, server: &Server, takes: &Takes) -> Keys {
    let servers = ctx.servers.load();
    let policy: &config::Policy = &ctx.config.policy;
    let before = servers.named(&server.name).map(|keys| Keys::clone(keys));
    let none = || Keys::none(server.clone(), policy.clone(), takes.clone(), ctx.pool.clone());
    let mut keys = before.unwrap_or_else(none);
    let endpoint_authorities = &servers.configured.environment.authorities;
    if keys.environment.server != *server || keys.environment.endpoint_authorities != *endpoint_authorities {
        keys.know(|environment| {
            environment.server = server.clone();
            environment.endpoint_authorities = endpoint_authorities.clone();
        });
    }
    keys.takes = takes.clone();
    keys
}

/// Has everyone go on with these keys, and the server's registrations looked at where they may see a difference.
fn install(ctx: &Context, keys: &Keys) {
    let before = ctx.servers.load_full();
    let is_seen = before
        .named(keys.server())
        .is_none_or(|before| !Arc::ptr_eq(&before.environment, &keys.environment) || before.takes != keys.takes);
    let mut servers = Servers::clone(&before);
    if keys.server() == servers.configured.server() {
        servers.configured = Arc::new(keys.clone());
    } else {
        servers.others.insert(keys.server().to_owned(), Arc::new(keys.clone()));
    }
    ctx.servers.store(Arc::new(servers));
    if is_seen {
        ctx.state().push_registrations_at(keys.server());
        ctx.work.notify_one();
    }
}

/// The same for a server that is known already: another one is so when all its keys are there.
pub(super) fn install_again(ctx: &Context, keys: &Keys) {
    if ctx.servers.load().named(keys.server()).is_some() {
        install(ctx, keys);
    }
}

/// Forgets servers that are no longer in force.
fn forget(ctx: &Context, catalog: &Catalog) {
    let mut servers = Servers::clone(&ctx.servers.load());
    let gone: Vec<_> = servers.others.keys().filter(|name| !catalog.in_force.contains_key(*name)).cloned().collect();
    if gone.is_empty() {
        return;
    }
    servers.others.retain(|name, _| !gone.contains(name));
    ctx.servers.store(Arc::new(servers));
    for name in gone {
        ctx.state().push_registrations_at(&name);
    }
    ctx.work.notify_one();
}

fn loaded(ctx: &Context) {
    let servers = ctx.servers.load();
    if !servers.is_loaded {
        ctx.servers.store(Arc::new(Servers { is_loaded: true, ..Servers::clone(&servers) }));
        ctx.work.notify_one();
    }
}

fn count_emergencies(ctx: &Context, now: Timestamp) {
    let servers = ctx.servers.load();
    let count = |is_meant: &dyn Fn(&Keys) -> bool| {
        i64::try_from(servers.all().filter(|keys| is_meant(keys)).count()).unwrap_or(i64::MAX)
    };
    ctx.metrics.signing_keys_revocation_pending.set(count(&|keys| keys.emergency.is_pending(now)));
    ctx.metrics.signing_keys_revocation_malformed.set(count(&|keys| keys.emergency.is_malformed()));
}

/// The objects whose status says something else than what is true, with what is.
fn due_reports(
    ctx: &Context,
    catalog: &Catalog,
    problems: &BTreeMap<String, Option<String>>,
    now: Timestamp,
) -> Vec<(ObjectName, u64, AuthorizationServerStatus)> {
    let state = ctx.state();
    let objects = &state.world.servers.store;
    let due = |(object, value): (&ObjectName, &ServerObject)| {
        let name = &*object.name;
        let server = catalog.in_force.get(name).map(|in_force| in_force.authority.server());
        let (reason, message) = match (catalog.refused.get(name), problems.get(name), server) {
            (Some((reason, problem)), ..) => (*reason, problem.to_string()),
            (None, Some(Some(problem)), _) => (Reason::ServerUnavailable, problem.clone()),
            (None, None, Some(server)) => (Reason::InForce, format!("Serving tokens at {}", server.token_endpoint())),
            (None, Some(None), _) | (None, None, None) => return None,
        };
        // Another server may have its name and its keys, if it is the configured one.
        let server = server.filter(|_| name != ctx.config.server.name);
        let status = status(value, server, (reason, message), now);
        (value.status != status).then(|| (object.clone(), objects.version(object).unwrap_or(0), status))
    };
    objects.iter().filter_map(due).collect()
}

fn status(
    object: &ServerObject,
    server: Option<&Server>,
    (reason, message): (Reason, String),
    now: Timestamp,
) -> AuthorizationServerStatus {
    AuthorizationServerStatus {
        observed_generation: Some(object.generation),
        issuer: server.map(|server| server.issuer.clone()),
        token_endpoint: server.map(Server::token_endpoint),
        conditions: vec![requests::ready(&object.status.conditions, (reason, &message), object.generation, now)],
    }
}

async fn report(
    ctx: &Context,
    object: &ObjectName,
    version: u64,
    status: &AuthorizationServerStatus,
) -> Result<(), Error> {
    for condition in &status.conditions {
        let (ready, reason, message) = (&condition.status, &condition.reason, &condition.message);
        tracing::info!(server = %object.name, ready, reason, message, "reported");
    }
    requests::write_status::<AuthorizationServer, _>(ctx, object, &version.to_string(), status).await.map(drop)
}
