//! The removal of ledger entries whose registration is gone. No finalizer: a deletion never waits for us.
//!
//! An entry goes only if (1) both watches are healthy, (2) its owner's uid has been absent for 30 s, (3) a live GET
//! shows another uid or a genuine 404, and after it the custom resource definition is the one that the ledger was made
//! under and is not being deleted, (4) by DELETE with the uid and the resourceVersion seen before (3).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use kube::core::PartialObjectMeta;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::{AppRegistration, DeletionPolicy, Reason};
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};
use crate::kubernetes::watch::Health;
use crate::ledger::Entry;
use crate::plan::{Notice, Severity};
use crate::rotation;

use super::objects::{LedgerObject, SIGNING_KEYS};
use super::{Context, keys, world};

/// How long an owner must have been absent.
const ABSENT_FOR: SignedDuration = SignedDuration::from_secs(30);
/// The shortest time between two turns.
const PACE: Duration = Duration::from_millis(100);
/// How many entries are looked at, or removed, at the same time: hundreds end together, and the API server has others to
/// serve.
const MOST_AT_ONCE: usize = 16;
/// How long to wait where something stands in the way.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Since when which owners have been absent.
#[derive(Debug, Default)]
pub(crate) struct Absences(BTreeMap<ObjectName, (String, Timestamp)>);

impl Absences {
    /// Takes note of who is absent now, and returns who has been for long enough.
    pub(crate) fn note(&mut self, orphans: &BTreeMap<ObjectName, Arc<Entry>>, now: Timestamp) -> Vec<ObjectName> {
        self.0.retain(|object, (uid, _)| orphans.get(object).is_some_and(|entry| entry.owner.uid == *uid));
        for (object, entry) in orphans {
            if entry.deletion_policy == DeletionPolicy::Delete {
                self.0.entry(object.clone()).or_insert_with(|| (entry.owner.uid.clone(), now));
            }
        }
        self.0
            .iter()
            .filter(|(_, (_, since))| rotation::add(*since, ABSENT_FOR) <= now)
            .map(|(object, _)| object.clone())
            .collect()
    }

    /// When the next one will have been absent for long enough.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.values().map(|(_, since)| rotation::add(*since, ABSENT_FOR)).min()
    }
}

/// Sweeps until cancelled from outside.
pub(crate) async fn run(ctx: &Context, registrations: watch::Receiver<Health>, ledger: watch::Receiver<Health>) {
    let mut absences = Absences::default();
    loop {
        let now = ctx.clock.now();
        let orphans = world::orphans(&ctx.state().world);
        let is_current = || registrations.borrow().is_current() && ledger.borrow().is_current();
        let due = if registrations.borrow().synced && ledger.borrow().synced {
            absences.note(&orphans, now)
        } else {
            Vec::new()
        };
        if due.is_empty() {
            ctx.metrics.sweep_suspended.set(0);
        }
        let is_held_up = turn(ctx, &orphans, due, &is_current).await;
        let until_next = absences.next().map(|at| at.duration_since(ctx.clock.now()));
        let pause = match until_next {
            _ if is_held_up => LOOK_AGAIN,
            Some(until) => Duration::try_from(until).unwrap_or_default().clamp(PACE, LOOK_AGAIN),
            None => Duration::MAX,
        };
        tokio::select! {
            () = sleep(pause.min(Duration::from_hours(1))) => {}
            () = ctx.sweep_due.notified() => {}
        }
    }
}

/// An entry whose owner has been absent for long enough, as the watch shows it.
struct Candidate<'a> {
    object: ObjectName,
    entry: &'a Entry,
    uid: String,
    version: u64,
}

/// Removes what is due, side by side, and tells whether something stands in the way. The definition is asked for once,
/// after every owner was: what holds for one entry holds for all.
async fn turn(
    ctx: &Context,
    orphans: &BTreeMap<ObjectName, Arc<Entry>>,
    due: Vec<ObjectName>,
    is_current: &impl Fn() -> bool,
) -> bool {
    if due.is_empty() {
        return false;
    }
    if !is_current() {
        return true;
    }
    let candidates: Vec<_> = due.into_iter().filter_map(|object| candidate(ctx, orphans, object)).collect();
    let checks: Vec<_> = candidates.iter().map(|candidate| gone(ctx, candidate)).collect();
    let checked: Vec<_> = stream::iter(checks).buffer_unordered(MOST_AT_ONCE).collect().await;
    let gone: Vec<_> = checked.into_iter().flatten().collect();
    if gone.is_empty() {
        return true;
    }
    match definition_stands(ctx).await {
        Ok(true) => {}
        Ok(false) => return true,
        Err(error) => {
            tracing::debug!(problem = error.chain(), "nothing is swept");
            return true;
        }
    }
    if !is_current() {
        return true;
    }
    let count = gone.len();
    let removals: Vec<_> = gone.into_iter().map(|candidate| remove(ctx, candidate)).collect();
    let removed: Vec<_> = stream::iter(removals).buffer_unordered(MOST_AT_ONCE).collect().await;
    removed.iter().any(Result::is_err) || count < candidates.len()
}

fn candidate<'a>(
    ctx: &Context,
    orphans: &'a BTreeMap<ObjectName, Arc<Entry>>,
    object: ObjectName,
) -> Option<Candidate<'a>> {
    let entry = orphans.get(&object)?;
    let state = ctx.state();
    let Some(LedgerObject::Entry { uid, .. }) = state.world.ledger.value(&object) else { return None };
    let (uid, version) = (uid.clone(), state.world.ledger.version(&object).unwrap_or(0));
    Some(Candidate { object, entry, uid, version })
}

/// The candidate, if its owner does not exist.
async fn gone<'a>(ctx: &Context, candidate: &'a Candidate<'a>) -> Option<&'a Candidate<'a>> {
    match is_gone(ctx, candidate.entry).await {
        Ok(is_gone) => is_gone.then_some(candidate),
        Err(error) => {
            tracing::debug!(entry = %candidate.object, problem = error.chain(), "not swept");
            None
        }
    }
}

/// Whether the definition is the one that the ledger was made under, and stays. If not, nothing is swept until a person
/// says so.
async fn definition_stands(ctx: &Context) -> Result<bool, Error> {
    let remembered = keys::remembered_crd(ctx);
    let live = keys::live_crd::<AppRegistration>(ctx).await?;
    if remembered.is_some() && live == remembered {
        ctx.metrics.sweep_suspended.set(0);
        return Ok(true);
    }
    if ctx.metrics.sweep_suspended.set(1) == 0 {
        tracing::warn!(
            annotation = keys::CRD_UID_ANNOTATION,
            "the custom resource definition is not the one that the ledger was made under: nothing is swept \
                 until the annotation is removed from the Secret signing-keys"
        );
        ctx.events.tell(
                ObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(SIGNING_KEYS.to_owned()),
                    namespace: Some(ctx.ledger_namespace.to_string()),
                    ..ObjectReference::default()
                },
                Notice {
                    severity: Severity::Warning,
                    reason: Reason::SweepSuspended,
                    action: "Sweep",
                    note: format!(
                        "The CustomResourceDefinition was replaced since the ledger was created, so no ledger entry is removed: \
                         check that every registration was restored, then remove the annotation {} from this Secret",
                        keys::CRD_UID_ANNOTATION
                    ),
                },
            );
    }
    Ok(false)
}

/// By the uid and the resourceVersion that were seen before the owner was looked for.
async fn remove(ctx: &Context, candidate: &Candidate<'_>) -> Result<(), Error> {
    let Candidate { object, entry, uid, version } = candidate;
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: Some(version.to_string()) }),
        ..DeleteParams::default()
    };
    match call(ANSWER_WITHIN, api.delete(&object.name, &params)).await {
        Ok(_) => {}
        Err(error) if error.is_absent(&object.name) => {}
        Err(error) => {
            tracing::debug!(entry = %object, problem = error.chain(), "not swept");
            return Err(error);
        }
    }
    let due = ctx.state().world.ledger_removed(object, *version);
    ctx.take(due);
    tracing::info!(entry = %object, registration = %format_args!("{}/{}", entry.owner.namespace, entry.owner.name), "swept");
    ctx.metrics.swept();
    Ok(())
}

/// Whether the owner does not exist: another uid under its name, a genuine 404, or a deletion that something holds up. A
/// deletion cannot be taken back, so the client does not wait for a finalizer.
async fn is_gone(ctx: &Context, entry: &Entry) -> Result<bool, Error> {
    let owner = &entry.owner;
    let api: Api<PartialObjectMeta<AppRegistration>> = Api::namespaced(ctx.clients.requests.clone(), &owner.namespace);
    match call(ANSWER_WITHIN, api.get(&owner.name)).await {
        Ok(live) => {
            let is_another = live.metadata.uid.as_deref().is_some_and(|uid| uid != owner.uid);
            Ok(is_another || live.metadata.deletion_timestamp.is_some())
        }
        Err(error) if error.is_absent(&owner.name) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Grant, Owner};

    fn entry(uid: &str, deletion_policy: DeletionPolicy) -> Arc<Entry> {
        Arc::new(Entry {
            version: 1,
            server: "default".into(),
            client_id: uid.into(),
            owner: Owner { namespace: "shop".into(), name: "storefront".into(), uid: uid.into() },
            created_at: Timestamp::UNIX_EPOCH,
            revoked_before: None,
            deletion_policy,
            grant: Grant::default(),
            credentials: BTreeMap::new(),
            remote: None,
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn an_owner_must_have_been_absent_for_thirty_seconds_without_a_break() {
        let mut absences = Absences::default();
        let object = ObjectName::new("ledger", "client-1");
        let orphans = BTreeMap::from([(object.clone(), entry("u", DeletionPolicy::Delete))]);
        assert!(absences.note(&orphans, at(0)).is_empty());
        assert!(absences.note(&orphans, at(29)).is_empty());
        assert!(absences.note(&BTreeMap::new(), at(29)).is_empty(), "it came back");
        assert!(absences.note(&orphans, at(31)).is_empty(), "it begins anew");
        assert_eq!(absences.next(), Some(at(61)));
        assert_eq!(absences.note(&orphans, at(61)), [object]);
    }

    #[test]
    fn an_entry_that_is_to_be_orphaned_is_never_due() {
        let mut absences = Absences::default();
        let orphans = BTreeMap::from([(ObjectName::new("ledger", "client-1"), entry("u", DeletionPolicy::Orphan))]);
        assert!(absences.note(&orphans, at(0)).is_empty());
        assert!(absences.note(&orphans, at(10_000)).is_empty());
    }
}
