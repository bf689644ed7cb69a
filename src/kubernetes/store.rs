//! What a watch has shown, together with our own writes. Reads never go back in time.
//!
//! A write that was answered is visible at once, and an older event that comes later is ignored. No locks, no indexes:
//! the owner locks it, and keeps its indexes by the [`Changed`] values that every call returns.
//!
//! Three facts carry it. Versions grow with every write of a kind. A watch is in order, so once it has shown version
//! `v` it has shown everything up to `v`. A list is consistent, so it is never older than what was shown before it was
//! asked for; if it is, the server itself went back (its etcd was restored from a backup) and all we hold is void.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ObjectName,
    watch::{Change, Item},
};

/// The objects of one kind, each reduced to a `T`.
#[derive(Clone, Debug)]
pub struct Store<T> {
    objects: BTreeMap<ObjectName, Held<T>>,
    /// Objects that we deleted, with the version they had, until the watch shows that they are gone.
    removed: BTreeMap<ObjectName, u64>,
    /// The newest version that the server has shown by list or watch; own writes do not count.
    shown: u64,
}

#[derive(Clone, Debug)]
struct Held<T> {
    version: u64,
    value: T,
}

/// One object that is different now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// Which object.
    pub object: ObjectName,
    /// What was held before; what is held now is [`Store::value`].
    pub before: Option<T>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), removed: BTreeMap::new(), shown: 0 }
    }
}

impl<T> Store<T> {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of `object`; `None` if it does not exist.
    #[must_use]
    pub fn value(&self, object: &ObjectName) -> Option<&T> {
        self.objects.get(object).map(|held| &held.value)
    }

    /// The resourceVersion that [`value`](Self::value) has.
    #[must_use]
    pub fn version(&self, object: &ObjectName) -> Option<u64> {
        self.objects.get(object).map(|held| held.version)
    }

    /// All objects, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &T)> {
        self.objects.iter().map(|(object, held)| (object, &held.value))
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The newest resourceVersion that list or watch have shown.
    #[must_use]
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// Takes what the watch says, and returns what is different: after a list also what vanished.
    pub fn apply(&mut self, change: Change<T>) -> Vec<Changed<T>> {
        match change {
            Change::Listed { items, version } => self.listed(items, version),
            Change::Applied(item) => {
                self.shown = self.shown.max(item.version);
                self.newer(item).into_iter().collect()
            }
            Change::Deleted { object, version } => {
                self.shown = self.shown.max(version);
                if self.removed.get(&object).is_some_and(|removed| *removed <= version) {
                    self.removed.remove(&object);
                }
                if self.version(&object).is_none_or(|held| held >= version) {
                    return Vec::new();
                }
                self.drop_object(&object).into_iter().collect()
            }
        }
    }

    /// Takes the answer to an own write (POST, PUT or PATCH). `None` if nothing is different, or if the watch has
    /// already gone past it.
    pub fn wrote(&mut self, item: Item<T>) -> Option<Changed<T>> {
        if item.version <= self.shown {
            return None;
        }
        self.newer(item)
    }

    /// Takes a successful own DELETE of `object`, which had `version` (a DELETE's answer does not say its own).
    pub fn removed(&mut self, object: &ObjectName, version: u64) -> Option<Changed<T>> {
        match self.version(object) {
            Some(held) if held > version => return None,  // created again
            None if version <= self.shown => return None, // the watch was faster
            Some(_) | None => {}
        }
        let removed = self.removed.entry(object.clone()).or_default();
        *removed = version.max(*removed);
        self.drop_object(object)
    }

    /// Takes the answer to a live GET that was begun when no own write of `object` was under way: `None` is a genuine
    /// 404. It counts if it is newer; and if it is older than an own write that the watch has never shown, then the
    /// server went back, and what it says now is the truth.
    pub fn found(&mut self, object: &ObjectName, live: Option<(u64, T)>) -> Option<Changed<T>> {
        let unconfirmed =
            self.version(object).or_else(|| self.removed.get(object).copied()).filter(|v| *v > self.shown);
        match live {
            Some((version, value)) => {
                if unconfirmed.is_some_and(|own| version < own) {
                    self.removed.remove(object);
                    return Some(self.put(Item { object: object.clone(), version, value }));
                }
                self.wrote(Item { object: object.clone(), version, value })
            }
            None => unconfirmed.and_then(|_| self.drop_object(object)),
        }
    }

    fn listed(&mut self, items: Vec<Item<T>>, version: u64) -> Vec<Changed<T>> {
        let went_back = version < self.shown;
        self.shown = version;
        // What we wrote while the list was under way stands against it.
        let stands = |own: u64| own > version && !went_back;
        let listed: BTreeSet<ObjectName> = items.iter().map(|item| item.object.clone()).collect();
        self.removed.retain(|object, removed| stands(*removed) || (listed.contains(object) && !went_back));
        let vanished: Vec<ObjectName> = self
            .objects
            .iter()
            .filter(|(object, held)| !stands(held.version) && !listed.contains(*object))
            .map(|(object, _)| object.clone())
            .collect();
        let mut changed: Vec<Changed<T>> = vanished.iter().filter_map(|object| self.drop_object(object)).collect();
        for item in items {
            changed.extend(if went_back { Some(self.put(item)) } else { self.newer(item) });
        }
        changed
    }

    /// Takes `item` unless something at least as new is known.
    fn newer(&mut self, item: Item<T>) -> Option<Changed<T>> {
        if self.version(&item.object).is_some_and(|held| held >= item.version) {
            return None;
        }
        match self.removed.get(&item.object) {
            Some(removed) if *removed >= item.version => return None,
            Some(_) => {
                self.removed.remove(&item.object);
            }
            None => {}
        }
        Some(self.put(item))
    }

    fn put(&mut self, item: Item<T>) -> Changed<T> {
        let Item { object, version, value } = item;
        let before = self.objects.insert(object.clone(), Held { version, value }).map(|held| held.value);
        Changed { object, before }
    }

    fn drop_object(&mut self, object: &ObjectName) -> Option<Changed<T>> {
        let held = self.objects.remove(object)?;
        Some(Changed { object: object.clone(), before: Some(held.value) })
    }
}
