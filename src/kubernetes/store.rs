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

/// The objects of one kind, each reduced to a `T` and named by an `N`.
#[derive(Clone, Debug)]
pub struct Store<T, N = ObjectName> {
    objects: BTreeMap<N, Held<T>>,
    /// Objects that we deleted, with the version they had, until the watch shows that they are gone.
    removed: BTreeMap<N, u64>,
    /// The newest version that the server has shown by list or watch; own writes do not count.
    shown: u64,
}

#[derive(Clone, Debug)]
struct Held<T> {
    version: u64,
    value: T,
    source: Source,
}

/// Who told us of an object's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// List or watch.
    Shown,
    /// Our own write or live GET; list and watch have not shown it yet.
    Own,
}

/// One object that is different now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T, N = ObjectName> {
    /// Which object.
    pub object: N,
    /// What was held before; what is held now is [`Store::value`].
    pub before: Option<T>,
}

impl<T, N> Default for Store<T, N> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), removed: BTreeMap::new(), shown: 0 }
    }
}

impl<T, N: Clone + Ord> Store<T, N> {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of `object`; `None` if it does not exist.
    #[must_use]
    pub fn value(&self, object: &N) -> Option<&T> {
        self.objects.get(object).map(|held| &held.value)
    }

    /// The resourceVersion that [`value`](Self::value) has.
    #[must_use]
    pub fn version(&self, object: &N) -> Option<u64> {
        self.objects.get(object).map(|held| held.version)
    }

    /// All objects, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&N, &T)> {
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
    pub fn apply(&mut self, change: Change<T, N>) -> Vec<Changed<T, N>> {
        let mut all = Vec::new();
        self.apply_each(change, |_, changed| all.push(changed));
        all
    }

    /// The same, handed over one by one once all is applied: a first list of very many objects makes no second one.
    pub fn apply_each(&mut self, change: Change<T, N>, mut each: impl FnMut(&Self, Changed<T, N>)) {
        match change {
            Change::Listed { items, version } if self.objects.is_empty() && self.removed.is_empty() => {
                self.first_list(items, version);
                for object in self.objects.keys() {
                    each(self, Changed { object: object.clone(), before: None });
                }
            }
            change => {
                for changed in self.changed_by(change) {
                    each(self, changed);
                }
            }
        }
    }

    fn changed_by(&mut self, change: Change<T, N>) -> Vec<Changed<T, N>> {
        match change {
            Change::Listed { items, version } => self.listed(items, version),
            Change::Applied(item) => {
                self.shown = self.shown.max(item.version);
                self.newer(item, Source::Shown).into_iter().collect()
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
    pub fn wrote(&mut self, item: Item<T, N>) -> Option<Changed<T, N>> {
        if item.version <= self.shown {
            return None;
        }
        self.newer(item, Source::Own)
    }

    /// Takes a successful own DELETE of `object`, which had `version` (a DELETE's answer does not say its own).
    pub fn removed(&mut self, object: &N, version: u64) -> Option<Changed<T, N>> {
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
    pub fn found(&mut self, object: &N, live: Option<(u64, T)>) -> Option<Changed<T, N>> {
        let unshown = self.objects.get(object).filter(|held| held.source == Source::Own).map(|held| held.version);
        let Some((version, value)) = live else {
            return unshown.and_then(|_| self.drop_object(object));
        };
        let item = Item { object: object.clone(), version, value };
        let went_back = match self.removed.get(object) {
            Some(removed) => version <= *removed,
            None => unshown.is_some_and(|own| version < own),
        };
        if went_back {
            self.removed.remove(object);
            return Some(self.put(item, Source::Own));
        }
        self.wrote(item)
    }

    fn listed(&mut self, items: Vec<Item<T, N>>, version: u64) -> Vec<Changed<T, N>> {
        let went_back = version < self.shown;
        self.shown = version;
        // What we wrote while the list was under way stands against it.
        let stands = |own: u64| own > version && !went_back;
        let listed: BTreeSet<N> = items.iter().map(|item| item.object.clone()).collect();
        self.removed.retain(|object, removed| stands(*removed) || (listed.contains(object) && !went_back));
        let vanished: Vec<N> = self
            .objects
            .iter()
            .filter(|(object, held)| !stands(held.version) && !listed.contains(*object))
            .map(|(object, _)| object.clone())
            .collect();
        let mut changed: Vec<Changed<T, N>> = vanished.iter().filter_map(|object| self.drop_object(object)).collect();
        for item in items {
            let held = self.version(&item.object);
            let hidden = self.removed.get(&item.object).is_some_and(|removed| *removed >= item.version);
            let same = held == Some(item.version) && !went_back;
            if hidden || held.is_some_and(stands) {
                continue;
            }
            self.removed.remove(&item.object);
            let change = self.put(item, Source::Shown);
            changed.extend((!same).then_some(change));
        }
        changed
    }

    /// There is nothing to hold it against. Made at once, the map has no gaps: of very many objects that is much.
    fn first_list(&mut self, items: Vec<Item<T, N>>, version: u64) {
        let held = |Item { object, version, value }| (object, Held { version, value, source: Source::Shown });
        self.objects = items.into_iter().map(held).collect();
        self.shown = version;
    }

    /// Takes `item` unless something at least as new is known.
    fn newer(&mut self, item: Item<T, N>, source: Source) -> Option<Changed<T, N>> {
        if let Some(held) = self.objects.get_mut(&item.object)
            && held.version >= item.version
        {
            if held.version == item.version && source == Source::Shown {
                held.source = Source::Shown;
            }
            return None;
        }
        if self.removed.get(&item.object).is_some_and(|removed| *removed >= item.version) {
            return None;
        }
        self.removed.remove(&item.object);
        Some(self.put(item, source))
    }

    fn put(&mut self, item: Item<T, N>, source: Source) -> Changed<T, N> {
        let Item { object, version, value } = item;
        let before = self.objects.insert(object.clone(), Held { version, value, source }).map(|held| held.value);
        Changed { object, before }
    }

    fn drop_object(&mut self, object: &N) -> Option<Changed<T, N>> {
        let held = self.objects.remove(object)?;
        Some(Changed { object: object.clone(), before: Some(held.value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, test_runner::RngSeed};

    fn object(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn item(name: &str, version: u64) -> Item<u64> {
        Item { object: object(name), version, value: version }
    }

    fn listed(items: &[(&str, u64)], version: u64) -> Change<u64> {
        Change::Listed { items: items.iter().map(|(name, version)| item(name, *version)).collect(), version }
    }

    fn deleted(name: &str, version: u64) -> Change<u64> {
        Change::Deleted { object: object(name), version }
    }

    fn names(changed: &[Changed<u64>]) -> Vec<&str> {
        changed.iter().map(|changed| &*changed.object.name).collect()
    }

    fn after(changes: impl IntoIterator<Item = Change<u64>>) -> Store<u64> {
        let mut store = Store::new();
        for change in changes {
            store.apply(change);
        }
        store
    }

    #[test]
    fn a_list_tells_what_came_what_changed_and_what_vanished() {
        let mut store = after([listed(&[("a", 1), ("b", 2), ("c", 3)], 5)]);
        let changed = store.apply(listed(&[("a", 1), ("b", 7), ("d", 8)], 9));
        assert_eq!(names(&changed), ["c", "b", "d"]);
        assert_eq!(changed.iter().map(|c| c.before).collect::<Vec<_>>(), [Some(3), Some(2), None]);
        assert_eq!(store.iter().map(|(o, v)| (&*o.name, *v)).collect::<Vec<_>>(), [("a", 1), ("b", 7), ("d", 8)]);
    }

    #[test]
    fn an_own_write_is_visible_at_once_and_an_older_event_does_not_hide_it() {
        let mut store = after([listed(&[("a", 3)], 5)]);
        assert_eq!(store.wrote(item("a", 8)), Some(Changed { object: object("a"), before: Some(3) }));
        assert!(store.apply(Change::Applied(item("a", 7))).is_empty());
        assert!(store.apply(deleted("a", 7)).is_empty());
        assert_eq!(store.value(&object("a")), Some(&8));
        assert_eq!(names(&store.apply(Change::Applied(item("a", 9)))), ["a"]);
    }

    #[test]
    fn the_answer_of_an_own_write_that_the_watch_has_passed_changes_nothing() {
        let mut store = after([listed(&[], 5), Change::Applied(item("a", 6)), deleted("a", 7)]);
        assert_eq!(store.wrote(item("a", 6)), None);
        assert_eq!(store.value(&object("a")), None);
    }

    #[test]
    fn an_own_delete_hides_what_the_watch_still_shows_until_it_is_created_again() {
        let mut store = after([listed(&[("a", 3)], 5)]);
        assert_eq!(names(&store.removed(&object("a"), 3).into_iter().collect::<Vec<_>>()), ["a"]);
        assert!(store.apply(listed(&[("a", 3)], 6)).is_empty(), "a list from before the delete");
        assert_eq!(store.value(&object("a")), None);
        assert!(store.apply(deleted("a", 8)).is_empty());
        assert!(store.removed.is_empty());
        assert_eq!(names(&store.apply(Change::Applied(item("a", 9)))), ["a"]);
    }

    #[test]
    fn an_own_create_and_delete_before_a_list_stay_deleted_while_the_watch_catches_up() {
        let mut store = after([listed(&[], 5)]);
        store.wrote(item("a", 7));
        store.removed(&object("a"), 7);
        assert!(store.apply(listed(&[], 6)).is_empty());
        assert!(store.apply(Change::Applied(item("a", 7))).is_empty());
        assert!(store.apply(deleted("a", 8)).is_empty());
        assert!(store.is_empty() && store.removed.is_empty());
    }

    #[test]
    fn an_own_write_newer_than_the_list_is_kept_and_an_older_one_is_not() {
        let mut store = after([listed(&[], 5)]);
        store.wrote(item("old", 6));
        store.wrote(item("new", 9));
        assert_eq!(names(&store.apply(listed(&[], 7))), ["old"]);
        assert_eq!(store.version(&object("new")), Some(9));
    }

    #[test]
    fn when_the_server_went_back_the_list_wins_over_everything() {
        let mut store = after([listed(&[("a", 80), ("b", 81), ("same", 3)], 90)]);
        store.wrote(item("own", 95));
        store.removed(&object("b"), 81);
        let changed = store.apply(listed(&[("a", 30), ("b", 31), ("same", 3)], 40));
        assert_eq!(names(&changed), ["own", "a", "b", "same"]);
        assert_eq!(store.shown(), 40);
        assert_eq!(names(&store.apply(Change::Applied(item("a", 41)))), ["a"]);
    }

    #[test]
    fn a_list_is_believed_even_where_the_server_went_back_and_has_passed_what_it_had_shown() {
        let mut store = after([listed(&[("a", 80)], 90)]);
        assert_eq!(names(&store.apply(listed(&[("a", 30)], 95))), ["a"]);
    }

    #[test]
    fn a_live_get_settles_an_own_write_that_a_restored_server_has_lost() {
        let mut store = after([listed(&[("a", 3)], 5)]);
        store.wrote(item("a", 50));
        assert_eq!(names(&store.found(&object("a"), Some((3, 3))).into_iter().collect::<Vec<_>>()), ["a"]);
        assert_eq!(store.value(&object("a")), Some(&3));
        store.wrote(item("b", 60));
        assert!(store.found(&object("b"), None).is_some());
        assert_eq!(store.value(&object("b")), None);
    }

    #[test]
    fn a_live_get_counts_if_it_is_newer_and_only_then() {
        let mut store = after([listed(&[("a", 3), ("b", 8)], 9)]);
        assert!(store.found(&object("a"), Some((12, 12))).is_some());
        assert!(store.found(&object("b"), Some((7, 7))).is_none());
        assert!(store.found(&object("b"), None).is_none(), "the watch will tell, or knows better");
        assert_eq!(store.value(&object("b")), Some(&8));
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[derive(Clone, Debug)]
    enum Move {
        Person(usize, Does),
        /// Commits; the answer is still under way.
        Own(usize, Does),
        Answer(usize),
        /// The watch delivers the next event.
        Deliver,
        /// A list begins: what it will say is decided.
        List,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Does {
        Write,
        Delete,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let does = prop_oneof![3 => Just(Does::Write), 1 => Just(Does::Delete)];
        let one = prop_oneof![
            2 => (0..NAMES.len(), does.clone()).prop_map(|(n, d)| Move::Person(n, d)),
            4 => (0..NAMES.len(), does).prop_map(|(n, d)| Move::Own(n, d)),
            4 => (0..NAMES.len()).prop_map(Move::Answer),
            4 => Just(Move::Deliver),
            1 => Just(Move::List),
        ];
        prop::collection::vec(one, 0..60)
    }

    /// One object's life on the server: (version, exists), ascending.
    type Life = Vec<(u64, bool)>;

    struct Model {
        version: u64,
        lives: [Life; 3],
        events: Vec<Change<u64>>,
        delivered: u64,
        list: Option<Change<u64>>,
        answers: [Option<(Does, u64, u64)>; 3],
        /// Reads of an object must not be from before this version.
        floor: [u64; 3],
        store: Store<u64>,
        watched_strictly: bool,
    }

    impl Model {
        fn new() -> Self {
            Self {
                version: 0,
                lives: Default::default(),
                events: Vec::new(),
                delivered: 0,
                list: None,
                answers: Default::default(),
                floor: [0; 3],
                store: after([listed(&[], 0)]),
                watched_strictly: true,
            }
        }

        fn present(&self, n: usize) -> Option<u64> {
            self.lives[n].last().filter(|(_, exists)| *exists).map(|(version, _)| *version)
        }

        /// Returns the version before and after, unless there is nothing to delete.
        fn commit(&mut self, n: usize, does: Does) -> Option<(u64, u64)> {
            let before = self.present(n);
            if does == Does::Delete && before.is_none() {
                return None;
            }
            self.version += 1;
            self.lives[n].push((self.version, does == Does::Write));
            self.events.push(match does {
                Does::Write => Change::Applied(item(NAMES[n], self.version)),
                Does::Delete => deleted(NAMES[n], self.version),
            });
            Some((before.unwrap_or(0), self.version))
        }

        fn play(&mut self, moves: &[Move]) {
            for mv in moves {
                self.step(mv);
            }
        }

        /// Every answer arrives, and the watch catches up.
        fn settle(&mut self) {
            for n in 0..NAMES.len() {
                self.step(&Move::Answer(n));
            }
            while self.list.is_some() || self.delivered < self.version {
                self.step(&Move::Deliver);
            }
        }

        /// etcd comes back as of an earlier version, every connection breaks, and the watch lists.
        fn restore(&mut self, version: u64) {
            self.version = version;
            self.events.retain(|change| version_of(change) <= version);
            for life in &mut self.lives {
                life.retain(|(at, _)| *at <= version);
            }
            self.answers = Default::default();
            self.floor = [0; 3];
            self.list = Some(self.listed_now());
            self.deliver();
        }

        fn listed_now(&self) -> Change<u64> {
            let items = (0..3).filter_map(|n| self.present(n).map(|version| item(NAMES[n], version))).collect();
            Change::Listed { items, version: self.version }
        }

        fn step(&mut self, mv: &Move) {
            match *mv {
                Move::Person(n, does) => {
                    self.commit(n, does);
                }
                Move::Own(n, does) if self.answers[n].is_none() => {
                    self.answers[n] = self.commit(n, does).map(|(before, after)| (does, before, after));
                }
                Move::Own(..) => {}
                Move::Answer(n) => self.answer(n),
                Move::Deliver => self.deliver(),
                Move::List => {
                    // The watch is over; nothing is delivered between the list's beginning and its end.
                    self.list = Some(self.listed_now());
                }
            }
            if self.watched_strictly {
                self.reads_never_go_back();
            }
        }

        fn answer(&mut self, n: usize) {
            let Some((does, before, after)) = self.answers[n].take() else { return };
            self.floor[n] = self.floor[n].max(after);
            match does {
                Does::Write => drop(self.store.wrote(item(NAMES[n], after))),
                Does::Delete => drop(self.store.removed(&object(NAMES[n]), before)),
            }
        }

        fn deliver(&mut self) {
            let change = self.list.take().or_else(|| {
                let next = self.events.iter().find(|change| version_of(change) > self.delivered);
                next.cloned()
            });
            let Some(change) = change else { return };
            self.delivered = version_of(&change);
            self.store.apply(change);
        }

        /// What is read was true at some time not before the floor, which then rises to it.
        fn reads_never_go_back(&mut self) {
            for (n, name) in NAMES.iter().enumerate() {
                let floor = self.floor[n];
                if let Some(version) = self.store.version(&object(name)) {
                    assert!(version >= floor, "{name} is read at {version} after {floor}");
                    self.floor[n] = version;
                    continue;
                }
                let mut absent_since = self.lives[n].iter().all(|(version, _)| *version > floor).then_some(0);
                for (version, exists) in &self.lives[n] {
                    match absent_since {
                        Some(_) if *exists && *version > floor => break,
                        Some(_) if *exists => absent_since = None,
                        None if !exists => absent_since = Some(*version),
                        Some(_) | None => {}
                    }
                }
                let since =
                    absent_since.unwrap_or_else(|| panic!("{name} is absent after {floor}: {:?}", self.lives[n]));
                self.floor[n] = floor.max(since);
            }
        }
    }

    fn version_of(change: &Change<u64>) -> u64 {
        match change {
            Change::Listed { version, .. } | Change::Deleted { version, .. } => *version,
            Change::Applied(item) => item.version,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_order_reads_never_go_back_and_end_at_what_the_server_has(moves in moves()) {
            let mut model = Model::new();
            model.play(&moves);
            model.settle();
            for (n, name) in NAMES.iter().enumerate() {
                prop_assert_eq!(model.store.version(&object(name)), model.present(n));
            }
            prop_assert!(model.store.removed.is_empty());
        }

        #[test]
        fn after_a_restore_the_list_is_believed_and_reads_go_on_from_there(
            before in moves(), back in 0_u64..30, after in moves(),
        ) {
            let mut model = Model::new();
            model.play(&before);
            model.settle();
            let version = model.version.saturating_sub(back);
            model.restore(version);
            for (n, name) in NAMES.iter().enumerate() {
                prop_assert_eq!(model.store.version(&object(name)), model.present(n));
            }
            model.play(&after);
            model.settle();
            for (n, name) in NAMES.iter().enumerate() {
                prop_assert_eq!(model.store.version(&object(name)), model.present(n));
            }
        }

        /// The worst: own writes that no watch has shown are lost with the backup. What the list cannot tell, the live
        /// GET does that follows the first refused write.
        #[test]
        fn after_a_restore_that_lost_own_writes_a_live_get_settles_what_the_list_cannot(
            before in moves(), back in 0_u64..30, after in moves(),
        ) {
            let mut model = Model::new();
            model.play(&before);
            let version = model.version.saturating_sub(back);
            model.restore(version);
            model.watched_strictly = false;
            model.play(&after);
            model.settle();
            for (n, name) in NAMES.iter().enumerate() {
                let live = model.present(n).map(|version| (version, version));
                model.store.found(&object(name), live);
                prop_assert_eq!(model.store.version(&object(name)), model.present(n));
            }
        }
    }
}
