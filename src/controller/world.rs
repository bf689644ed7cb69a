//! What the watches have shown, with the indexes that a reconcile asks.
//!
//! Every change goes through [`World`], the watches' and our own writes' alike, so that the indexes are always those of
//! what is held. What a change means for the schedule is returned, not done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::{AppRegistration, secret_name};
use crate::config::published;
use crate::kubernetes::ObjectName;
use crate::kubernetes::store::{Changed, Store};
use crate::kubernetes::watch::{Change, Item};
use crate::ledger::Entry;

use super::governance::{ApprovalObject, Governors, NamespaceObject, PolicyObject, Relabelled};
use super::objects::{LedgerObject, Registered, SecretMeta};
use super::policy_status::Tally;
use super::servers::{ServerObject, ServerObjects};

/// What the watches have shown.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) registrations: Store<Registered>,
    pub(crate) ledger: Store<LedgerObject>,
    pub(crate) secrets: Store<SecretMeta>,
    /// The Secrets with the private keys of certificate authorities.
    pub(crate) authority: Store<LedgerObject>,
    /// The objects of authorization servers.
    pub(crate) servers: ServerObjects,
    /// What governs which of them.
    pub(crate) governors: Governors,
    /// What was decided of them against policies.
    pub(crate) tally: Tally,
    /// How many registrations and ledger entries cannot be read.
    pub(crate) unreadable: i64,
    uids: HashMap<String, ObjectName>,
    /// The Secrets with the settings and keys of servers besides the configured one.
    published: BTreeSet<ObjectName>,
    by_namespace: HashMap<Arc<str>, BTreeSet<ObjectName>>,
    entries_by_uid: HashMap<String, BTreeSet<ObjectName>>,
    entries_by_owner: HashMap<(String, String), BTreeSet<ObjectName>>,
    secrets_by_controller: HashMap<String, BTreeSet<ObjectName>>,
    /// Registrations that wait for a client ID, by the name of its ledger entry.
    waiting: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// The resourceVersion at which a Secret was seen to hold what its annotations say.
    verified: HashMap<ObjectName, u64>,
    /// Secrets that the API server refused when they were last written.
    refused: BTreeSet<ObjectName>,
    /// The resourceVersion at which a registration that cannot be understood was reported.
    reported: HashMap<ObjectName, u64>,
}

/// What a change asks for.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Registrations that were never reported on.
    pub(crate) new: Vec<ObjectName>,
    /// Registrations to look at.
    pub(crate) again: Vec<ObjectName>,
    /// Registrations that are gone.
    pub(crate) gone: Vec<ObjectName>,
    /// Whether the keys' Secrets changed.
    pub(crate) keys: bool,
    /// Whether the sweep may have something to do.
    pub(crate) sweep: bool,
}

impl World {
    /// Takes what the watch of registrations says.
    pub(crate) fn registrations(&mut self, change: Change<Registered>) -> Due {
        let mut due = Due::default();
        for Changed { object, before } in self.registrations.apply(change) {
            let after = self.registrations.value(&object);
            let unreadable =
                |value: Option<&Registered>| i64::from(value.is_some_and(|value| value.readable().is_none()));
            self.unreadable += unreadable(after) - unreadable(before.as_ref());
            let (old, new) = (before.as_ref().map(Registered::uid), after.map(Registered::uid));
            if old != new {
                if let Some(uid) = old {
                    self.uids.remove(uid);
                    due.sweep = true;
                }
                if let Some(uid) = new {
                    self.uids.insert(uid.to_owned(), object.clone());
                }
            }
            if before.is_some() != after.is_some() {
                let is_new = after.is_some();
                index(&mut self.by_namespace, object.namespace.clone(), &object, is_new);
                for policy in self.governors.selecting(&object.namespace) {
                    self.tally.touch(policy);
                }
            }
            match self.registrations.value(&object) {
                None => {
                    if let Some(before) = before.as_ref().and_then(Registered::readable) {
                        let entries = before.spec.effective_credentials();
                        for secret in entries.iter().filter_map(|entry| secret_name(entry, &object.name)) {
                            self.refused.remove(&ObjectName::new(&object.namespace, &secret));
                        }
                    }
                    self.reported.remove(&object);
                    self.tally.note(&object, None);
                    // Room may have been made for one that waits. One that has a client waits for none.
                    let others = self.by_namespace.get(&object.namespace).into_iter().flatten();
                    let has_client = |uid: &str| self.entries_by_uid.contains_key(uid);
                    let waits = |object: &&ObjectName| {
                        self.registrations.value(object).is_some_and(|registered| !has_client(registered.uid()))
                    };
                    due.again.extend(others.filter(waits).cloned());
                    due.gone.push(object);
                }
                Some(after) if after.is_terminating() => {
                    due.sweep = true;
                    due.again.push(object);
                }
                Some(after) if after.was_never_reported() => due.new.push(object),
                Some(_) => due.again.push(object),
            }
        }
        due
    }

    /// Takes what the watch of the CA's private keys says.
    pub(crate) fn authority(&mut self, change: Change<LedgerObject>) -> Due {
        self.authority.apply(change);
        Due { keys: true, ..Due::default() }
    }

    /// Takes what the watch of policies says.
    pub(crate) fn policies(&mut self, change: Change<PolicyObject>) -> Due {
        match &change {
            Change::Listed { items, .. } => items.iter().for_each(|item| self.tally.touch(&item.object)),
            Change::Applied(item) => self.tally.touch(&item.object),
            Change::Deleted { .. } => {}
        }
        let concerned = self.governors.policies(change);
        self.concerned(concerned)
    }

    /// Takes what the watch of namespaces says.
    pub(crate) fn namespaces(&mut self, change: Change<NamespaceObject>) -> Due {
        let Relabelled { policies, labels } = self.governors.namespaces(change);
        for namespace in policies.iter().flatten() {
            for policy in self.governors.selecting(namespace) {
                self.tally.touch(policy);
            }
        }
        let mut due = self.concerned(policies);
        // Whom a server takes depends on labels as well; the configured one takes everyone.
        let of = |namespace: &Arc<str>| self.by_namespace.get(namespace).into_iter().flatten();
        let names_a_server = |object: &&ObjectName| {
            let registration = self.registrations.value(object).and_then(Registered::readable);
            registration.is_some_and(|registration| registration.spec.authorization_server_ref.is_some())
        };
        due.again.extend(labels.iter().flat_map(of).filter(names_a_server).cloned());
        due
    }

    /// The Secrets with the settings and keys of servers besides the configured one.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&ObjectName, &LedgerObject)> {
        self.named_objects(Some(&self.published))
    }

    /// Takes what the watch of authorization servers says. What it means for registrations follows from the upkeep.
    pub(crate) fn servers(&mut self, change: Change<ServerObject>) -> Due {
        self.servers.apply(change);
        Due { keys: true, ..Due::default() }
    }

    /// Takes what the watch of approvals says.
    pub(crate) fn approvals(&mut self, change: Change<ApprovalObject>) -> Due {
        Due { again: self.governors.approvals(change).into_iter().collect(), ..Due::default() }
    }

    /// Takes note of what a registration keeps against every policy; `None` is a pass that did not get so far.
    pub(crate) fn decided(&mut self, registration: &ObjectName, kept_by: Option<BTreeSet<String>>) {
        if self.registrations.value(registration).is_some() {
            match kept_by {
                Some(kept_by) => self.tally.note(registration, Some(kept_by)),
                None => self.tally.saw(registration),
            }
        }
    }

    /// The registrations of these namespaces, or all.
    fn concerned(&self, namespaces: Option<BTreeSet<Arc<str>>>) -> Due {
        let again = match namespaces {
            None => self.registrations.iter().map(|(object, _)| object.clone()).collect(),
            Some(namespaces) => {
                let of = |namespace: &Arc<str>| self.by_namespace.get(namespace).into_iter().flatten();
                namespaces.iter().flat_map(of).cloned().collect()
            }
        };
        Due { again, ..Due::default() }
    }

    /// The registrations at an authorization server.
    pub(crate) fn registrations_at(&self, server: &str) -> impl Iterator<Item = &ObjectName> {
        let is_there =
            move |value: &Registered| value.readable().is_some_and(|r| r.spec.authorization_server() == server);
        self.registrations.iter().filter(move |(_, value)| is_there(value)).map(|(object, _)| object)
    }

    /// How many registrations a namespace has.
    pub(crate) fn registrations_in(&self, namespace: &str) -> usize {
        self.by_namespace.get(namespace).map_or(0, BTreeSet::len)
    }

    /// How many registrations of the namespace come before this one: those that have a client, and those that are older.
    pub(crate) fn before(&self, registration: &AppRegistration) -> usize {
        let namespace = registration.metadata.namespace.as_deref().unwrap_or_default();
        let age = |registration: &AppRegistration| {
            (registration.metadata.creation_timestamp.clone(), registration.metadata.uid.clone())
        };
        let own = age(registration);
        let others = self.by_namespace.get(namespace).into_iter().flatten();
        others
            .filter_map(|object| self.registrations.value(object)?.readable())
            .filter(|other| other.metadata.uid != registration.metadata.uid)
            .filter(|other| {
                let uid = other.metadata.uid.as_deref().unwrap_or_default();
                self.entries_by_uid.contains_key(uid) || age(other) < own
            })
            .count()
    }

    /// Takes what the watch of the ledger namespace says.
    pub(crate) fn ledger(&mut self, change: Change<LedgerObject>) -> Due {
        let changed = self.ledger.apply(change);
        self.ledger_changed(changed)
    }

    /// Takes an own write or a live read of the ledger namespace; nothing is due because of it.
    pub(crate) fn ledger_wrote(&mut self, item: Item<LedgerObject>) {
        let changed = self.ledger.wrote(item).into_iter().collect();
        self.ledger_changed(changed);
    }

    /// Takes a live GET in the ledger namespace.
    pub(crate) fn ledger_found(&mut self, object: &ObjectName, live: Option<(u64, LedgerObject)>) {
        let changed = self.ledger.found(object, live).into_iter().collect();
        self.ledger_changed(changed);
    }

    /// Takes an own DELETE in the ledger namespace.
    pub(crate) fn ledger_removed(&mut self, object: &ObjectName, version: u64) -> Due {
        let changed = self.ledger.removed(object, version).into_iter().collect();
        self.ledger_changed(changed)
    }

    /// Takes what the watch of Secrets says.
    pub(crate) fn secrets(&mut self, change: Change<SecretMeta>) -> Due {
        let changed = self.secrets.apply(change);
        self.secrets_changed(changed)
    }

    /// Takes an own write of a Secret.
    pub(crate) fn secret_wrote(&mut self, item: Item<SecretMeta>) {
        self.refused.remove(&item.object);
        self.verified.insert(item.object.clone(), item.version);
        let changed = self.secrets.wrote(item).into_iter().collect();
        self.secrets_changed(changed);
    }

    /// Takes an own DELETE of a Secret.
    pub(crate) fn secret_removed(&mut self, object: &ObjectName, version: u64) {
        let changed = self.secrets.removed(object, version).into_iter().collect();
        self.secrets_changed(changed);
    }

    /// Takes an own write of a registration's status.
    pub(crate) fn status_wrote(&mut self, item: Item<Registered>) {
        self.registrations.wrote(item);
    }

    /// Remembers that a Secret holds what its annotations say.
    pub(crate) fn verify(&mut self, secret: &ObjectName, version: u64) {
        self.verified.insert(secret.clone(), version);
    }

    /// The resourceVersion at which a Secret was seen to hold what its annotations say.
    pub(crate) fn verified(&self, secret: &ObjectName) -> Option<u64> {
        self.verified.get(secret).copied()
    }

    /// Remembers that a registration that cannot be understood was reported at this resourceVersion.
    pub(crate) fn report(&mut self, registration: &ObjectName, version: u64) {
        self.reported.insert(registration.clone(), version);
    }

    /// Whether a registration that cannot be understood was reported at this resourceVersion.
    pub(crate) fn is_reported(&self, registration: &ObjectName, version: u64) -> bool {
        self.reported.get(registration) == Some(&version)
    }

    /// Remembers that a registration waits for a client ID.
    pub(crate) fn wait_for(&mut self, entry: ObjectName, registration: ObjectName) {
        self.waiting.entry(entry).or_default().insert(registration);
    }

    /// The API server refused this Secret.
    pub(crate) fn secret_refused(&mut self, object: ObjectName) {
        self.refused.insert(object);
    }

    /// Whether the API server refused this Secret when it was last written.
    pub(crate) fn was_refused(&self, object: &ObjectName) -> bool {
        self.refused.contains(object)
    }

    /// Whether a registration of this uid exists.
    pub(crate) fn exists(&self, uid: &str) -> bool {
        self.uids.contains_key(uid)
    }

    /// Whether the registration of this uid is being deleted, and something holds it: a deletion cannot be taken back.
    fn is_terminating(&self, uid: &str) -> bool {
        let object = self.uids.get(uid);
        object.and_then(|object| self.registrations.value(object)).is_some_and(Registered::is_terminating)
    }

    /// The ledger entries of a registration's uid.
    pub(crate) fn entries_of(&self, uid: &str) -> impl Iterator<Item = (&ObjectName, &LedgerObject)> {
        self.named_objects(self.entries_by_uid.get(uid))
    }

    /// The ledger entries of registrations of this namespace and name, whatever their uid.
    pub(crate) fn entries_named(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = (&ObjectName, &LedgerObject)> {
        self.named_objects(self.entries_by_owner.get(&(namespace.to_owned(), name.to_owned())))
    }

    /// The Secrets that a registration's uid controls.
    pub(crate) fn secrets_of(&self, uid: &str) -> impl Iterator<Item = &ObjectName> {
        self.secrets_by_controller.get(uid).into_iter().flatten()
    }

    fn named_objects<'a>(
        &'a self,
        names: Option<&'a BTreeSet<ObjectName>>,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a LedgerObject)> {
        names.into_iter().flatten().filter_map(|name| Some((name, self.ledger.value(name)?)))
    }

    fn ledger_changed(&mut self, changed: Vec<Changed<LedgerObject>>) -> Due {
        let mut due = Due::default();
        for Changed { object, before } in changed {
            let after = self.ledger.value(&object).cloned();
            let unreadable = |value: Option<&LedgerObject>| {
                i64::from(matches!(value, Some(LedgerObject::Entry { entry: Err(_), .. })))
            };
            self.unreadable += unreadable(after.as_ref()) - unreadable(before.as_ref());
            for (value, is_new) in [(before.as_ref(), false), (after.as_ref(), true)] {
                match value {
                    Some(LedgerObject::System(_)) => {
                        due.keys = true;
                        if object.name.starts_with(published::SECRET_PREFIX) {
                            if is_new {
                                self.published.insert(object.clone())
                            } else {
                                self.published.remove(&object)
                            };
                        }
                    }
                    // Made again if it is gone; what is in it is the token service's.
                    Some(LedgerObject::SharedList) => due.keys |= after.is_none(),
                    Some(LedgerObject::Entry { registration_uid, entry, .. }) => {
                        let entry = entry.as_deref().ok();
                        for uid in
                            registration_uid.iter().map(String::as_str).chain(entry.map(|e| e.owner.uid.as_str()))
                        {
                            index(&mut self.entries_by_uid, uid.to_owned(), &object, is_new);
                            due.again.extend(self.uids.get(uid).cloned());
                        }
                        if let Some(owner) = entry.map(|e| &e.owner) {
                            let named = (owner.namespace.clone(), owner.name.clone());
                            index(&mut self.entries_by_owner, named, &object, is_new);
                        }
                        // A look at all entries for each one that is written would grow with their square.
                        due.sweep |= is_new && entry.is_some_and(|entry| !self.uids.contains_key(&entry.owner.uid));
                    }
                    Some(LedgerObject::Other) | None => {}
                }
            }
            if after.is_none() {
                due.again.extend(self.waiting.remove(&object).into_iter().flatten());
            }
        }
        due
    }

    fn secrets_changed(&mut self, changed: Vec<Changed<SecretMeta>>) -> Due {
        let mut due = Due::default();
        for Changed { object, before } in changed {
            let after = self.secrets.value(&object).cloned();
            for (value, is_new) in [(before.as_ref(), false), (after.as_ref(), true)] {
                let Some(meta) = value else { continue };
                if let Some(uid) = &meta.controller {
                    index(&mut self.secrets_by_controller, uid.clone(), &object, is_new);
                    due.again.extend(self.uids.get(uid).cloned());
                }
                due.again.extend(meta.registration().map(|name| ObjectName::new(&object.namespace, name)));
            }
            if after.is_none() {
                self.verified.remove(&object);
            }
        }
        due
    }
}

impl Registered {
    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        match self {
            Self::Readable(registration) => registration.metadata.uid.as_deref().unwrap_or_default(),
            Self::Unreadable { uid, .. } => uid,
        }
    }

    /// The registration, if it was understood.
    pub(crate) fn readable(&self) -> Option<&Arc<AppRegistration>> {
        match self {
            Self::Readable(registration) => Some(registration),
            Self::Unreadable { .. } => None,
        }
    }

    /// Whether it is being deleted, and something holds it.
    pub(crate) fn is_terminating(&self) -> bool {
        match self {
            Self::Readable(registration) => registration.metadata.deletion_timestamp.is_some(),
            Self::Unreadable { is_terminating, .. } => *is_terminating,
        }
    }

    fn was_never_reported(&self) -> bool {
        self.readable().is_some_and(|registration| {
            registration.status.as_ref().and_then(|status| status.observed_generation).is_none_or(|seen| seen < 0)
        })
    }
}

impl LedgerObject {
    /// The entry, if this is one that was understood.
    pub(crate) fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Entry { entry, .. } => entry.as_ref().ok(),
            Self::System(_) | Self::SharedList | Self::Other => None,
        }
    }
}

/// Adds an object to an index or takes it out.
fn index<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, BTreeSet<ObjectName>>,
    key: K,
    object: &ObjectName,
    is_in: bool,
) {
    if is_in {
        index.entry(key).or_default().insert(object.clone());
    } else if let std::collections::hash_map::Entry::Occupied(mut entry) = index.entry(key) {
        entry.get_mut().remove(object);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// Ledger entries whose registration is not there, or is being deleted, for the sweep.
pub(crate) fn orphans(world: &World) -> BTreeMap<ObjectName, Arc<Entry>> {
    world
        .ledger
        .iter()
        .filter_map(|(object, value)| Some((object, value.entry()?)))
        .filter(|(_, entry)| !world.exists(&entry.owner.uid) || world.is_terminating(&entry.owner.uid))
        .map(|(object, entry)| (object.clone(), entry.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Grant, Owner};

    fn entry_of(uid: &str, version: u64) -> Change<LedgerObject> {
        let entry = Entry {
            version: 1,
            server: "default".into(),
            client_id: uid.into(),
            owner: Owner { namespace: "shop".into(), name: uid.into(), uid: uid.into() },
            created_at: jiff::Timestamp::UNIX_EPOCH,
            revoked_before: None,
            deletion_policy: crate::api::DeletionPolicy::Delete,
            grant: Grant::default(),
            credentials: BTreeMap::new(),
            remote: None,
        };
        Change::Applied(Item {
            object: ObjectName::new("ledger", &entry.name()),
            version,
            value: LedgerObject::Entry {
                uid: format!("entry of {uid}"),
                registration_uid: Some(uid.into()),
                entry: Ok(Arc::new(entry)),
            },
        })
    }

    #[test]
    fn only_an_entry_whose_registration_is_not_there_wakes_the_sweep() {
        let mut world = World::default();
        let registration = Registered::Unreadable {
            is_terminating: false,
            uid: "present".into(),
            generation: 1,
            is_told: true,
            problem: crate::api::Message::new("None that matters here"),
        };
        world.registrations(Change::Applied(Item {
            object: ObjectName::new("shop", "present"),
            version: 1,
            value: registration,
        }));
        assert!(!world.ledger(entry_of("present", 2)).sweep);
        assert!(world.ledger(entry_of("absent", 3)).sweep);
    }
}
