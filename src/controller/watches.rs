//! The watches: what is followed, what is kept of it, and which part of the world takes it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{AppRegistration, AuthorizationServer, RegistrationApproval, RegistrationPolicy, names};
use crate::kubernetes::DeserializeGuard;
use crate::kubernetes::watch::{Change, Health, Selection, Watch};

use super::keys::OUR_SECRETS;
use super::objects;
use super::world::{Due, World};
use super::{Context, governance, servers};

/// The watches, in the order in which their health is told.
pub(super) const WATCHES: [&str; 8] =
    ["registrations", "ledger", "secrets", "authority", "policies", "approvals", "namespaces", "servers"];

/// Whether nothing can be decided without this watch. Without the others nothing new is granted by what they would show,
/// and what exists goes on.
pub(super) fn is_essential(watch: &str) -> bool {
    !matches!(watch, "policies" | "approvals" | "namespaces" | "servers")
}

/// Starts one of [`WATCHES`].
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    ctx: &Arc<Context>,
    name: &'static str,
    health: watch::Sender<Health>,
    stop: CancellationToken,
) {
    let client = ctx.clients.watches.clone();
    let follower = Follower { ctx: ctx.clone(), health, stop };
    match name {
        "registrations" => {
            let watch = watch::<DeserializeGuard<AppRegistration>>(name, Api::all(client));
            tasks.spawn(follower.follow(watch, objects::registered, World::registrations));
        }
        "ledger" => {
            let watch = watch::<Secret>(name, Api::namespaced(client, &ctx.ledger_namespace));
            tasks.spawn(follower.follow(watch, objects::ledger_object, World::ledger));
        }
        "secrets" => {
            let mut watch = watch::<PartialObjectMeta<Secret>>(name, Api::all(client));
            watch.selection = Selection::labelled(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY));
            // Ledger entries carry the same label and have a watch of their own.
            watch.selection.fields = Some(format!("type!={}", names::LEDGER_SECRET_TYPE));
            tasks.spawn(follower.follow(watch, objects::secret_meta, World::secrets));
        }
        "policies" => {
            let watch = watch::<DeserializeGuard<RegistrationPolicy>>(name, Api::all(client));
            tasks.spawn(follower.follow(watch, governance::policy, World::policies));
        }
        "approvals" => {
            let watch = watch::<DeserializeGuard<RegistrationApproval>>(name, Api::all(client));
            tasks.spawn(follower.follow(watch, governance::approval, World::approvals));
        }
        "servers" => {
            let watch = watch::<DeserializeGuard<AuthorizationServer>>(name, Api::all(client));
            tasks.spawn(follower.follow(watch, servers::object, World::servers));
        }
        "namespaces" => {
            let watch = watch::<PartialObjectMeta<Namespace>>(name, Api::all(client));
            tasks.spawn(follower.follow(watch, governance::namespace, World::namespaces));
        }
        _ => {
            let mut watch = watch::<Secret>(name, Api::namespaced(client, &ctx.controller_namespace));
            // Others keep their Secrets here as well, and some of them are large.
            watch.selection = Selection::labelled(OUR_SECRETS);
            tasks.spawn(follower.follow(watch, objects::ledger_object, World::authority));
        }
    }
}

fn watch<K>(name: &'static str, api: Api<K>) -> Watch<K> {
    Watch { name, api, selection: Selection::default() }
}

struct Follower {
    ctx: Arc<Context>,
    health: watch::Sender<Health>,
    stop: CancellationToken,
}

impl Follower {
    async fn follow<K, T>(self, watch: Watch<K>, reduce: impl Fn(K) -> T, take: fn(&mut World, Change<T>) -> Due)
    where
        K: Resource + Clone + fmt::Debug + DeserializeOwned,
    {
        let Self { ctx, health, stop } = self;
        let apply = |change| {
            let due = take(&mut ctx.state().world, change);
            ctx.take(due);
        };
        watch.run(reduce, apply, health, stop).await;
    }
}
