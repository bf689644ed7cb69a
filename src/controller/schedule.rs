//! What runs next, and when to wake up: plain data, given `now`.
//!
//! - An object runs at most once at a time; what happens to it while it runs makes it run again.
//! - New objects go before the backlog; inside each, first come, first served.
//! - One wake per object, by wall clock, the latest set counts: the owner calls [`Schedule::tick`] at
//!   [`Schedule::next_wake`] and besides at least every 30 s, because a monotonic timer sleeps through a suspend.
//! - A failing object is tried again after half a second, doubling to five minutes: at most 20 times in any hour, once
//!   it has got there, however often it fails.
//!
//! It runs nothing and knows no limit of concurrency: the owner asks for the [`next`](Schedule::next_run) object when it has
//! room.
//!
//! ```
//! use appreg::controller::schedule::Schedule;
//!
//! let now = "2026-11-22T12:00:00Z".parse().unwrap();
//! let mut schedule = Schedule::new();
//! schedule.push("old");
//! schedule.push_new("new");
//! assert_eq!(schedule.next_run(), Some("new"));
//! schedule.push("new"); // changed while it runs
//! assert_eq!(schedule.next_run(), Some("old"));
//! assert_eq!(schedule.next_run(), None);
//! schedule.done(&"new");
//! assert_eq!(schedule.next_run(), Some("new"));
//! schedule.failed(&"new", now);
//! assert!(schedule.next_wake().unwrap() > now);
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_mins(5);

/// Which objects are due, running, and waiting for their time.
#[derive(Clone, Debug)]
pub struct Schedule<K> {
    objects: HashMap<K, State>,
    queue: BTreeMap<(Class, u64), K>,
    wakes: BTreeSet<(Timestamp, K)>,
    running: usize,
    /// The place that the next one in the queue gets.
    place: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    New,
    Backlog,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    queued: Option<(Class, u64)>,
    running: bool,
    /// Pushed while running.
    again: Option<Class>,
    wake: Option<Timestamp>,
    failures: u32,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), queue: BTreeMap::new(), wakes: BTreeSet::new(), running: 0, place: 0 }
    }
}

impl<K: Clone + Ord + Hash> Schedule<K> {
    /// Nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `object` run soon, before the backlog.
    pub fn push_new(&mut self, object: K) {
        self.enqueue(object, Class::New);
    }

    /// Has `object` run, after what already waits. One that is queued keeps its place.
    pub fn push(&mut self, object: K) {
        self.enqueue(object, Class::Backlog);
    }

    /// Has `object` pushed to the backlog at `time`, instead of any time set before.
    pub fn wake_at(&mut self, object: K, time: Timestamp) {
        self.clear_wake(&object);
        self.objects.entry(object.clone()).or_default().wake = Some(time);
        self.wakes.insert((time, object));
    }

    /// Pushes every object whose time has come, and returns how many.
    pub fn tick(&mut self, now: Timestamp) -> usize {
        let mut due = 0;
        while let Some((time, _)) = self.wakes.first()
            && *time <= now
            && let Some((_, object)) = self.wakes.pop_first()
        {
            if let Some(state) = self.objects.get_mut(&object) {
                state.wake = None;
            }
            self.push(object);
            due += 1;
        }
        due
    }

    /// The object that is to run now, which from here on counts as running until [`done`](Self::done) or
    /// [`failed`](Self::failed).
    pub fn next_run(&mut self) -> Option<K> {
        let (_, object) = self.queue.pop_first()?;
        let state = self.objects.entry(object.clone()).or_default();
        state.queued = None;
        state.running = true;
        self.running += 1;
        Some(object)
    }

    /// Ends a run that succeeded.
    pub fn done(&mut self, object: &K) {
        if let Some(state) = self.objects.get_mut(object) {
            state.failures = 0;
        }
        self.end_run(object);
    }

    /// Ends a run that failed, and sets the time of the next try, which is returned.
    pub fn failed(&mut self, object: &K, now: Timestamp) -> Timestamp {
        let state = self.objects.entry(object.clone()).or_default();
        let time = now.saturating_add(retry_after(object, state.failures)).unwrap_or(Timestamp::MAX);
        state.failures = state.failures.saturating_add(1);
        self.wake_at(object.clone(), time);
        self.end_run(object);
        time
    }

    /// The earliest time set.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(time, _)| *time)
    }

    /// Drops `object` from queue and wakes and forgets its failures. A run under way ends as usual.
    pub fn forget(&mut self, object: &K) {
        self.clear_wake(object);
        let Some(state) = self.objects.get_mut(object) else { return };
        if let Some(place) = state.queued.take() {
            self.queue.remove(&place);
        }
        state.again = None;
        state.failures = 0;
        self.tidy(object);
    }

    /// How many objects wait to run.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many objects run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// How often `object` has failed since it last succeeded.
    #[must_use]
    pub fn failures(&self, object: &K) -> u32 {
        self.objects.get(object).map_or(0, |state| state.failures)
    }

    fn enqueue(&mut self, object: K, class: Class) {
        let state = self.objects.entry(object.clone()).or_default();
        if state.running {
            state.again = Some(state.again.map_or(class, |before| before.min(class)));
            return;
        }
        match state.queued {
            Some((queued, _)) if queued <= class => return,
            Some(place) => {
                self.queue.remove(&place);
            }
            None => {}
        }
        state.queued = Some((class, self.place));
        self.queue.insert((class, self.place), object);
        self.place += 1;
    }

    fn end_run(&mut self, object: &K) {
        let Some(state) = self.objects.get_mut(object) else { return };
        if !state.running {
            return;
        }
        state.running = false;
        self.running -= 1;
        match state.again.take() {
            Some(class) => self.enqueue(object.clone(), class),
            None => self.tidy(object),
        }
    }

    fn clear_wake(&mut self, object: &K) {
        if let Some(state) = self.objects.get_mut(object)
            && let Some(time) = state.wake.take()
        {
            self.wakes.remove(&(time, object.clone()));
        }
    }

    /// Keeps no state of an object that has nothing ahead.
    fn tidy(&mut self, object: &K) {
        let idle = |s: &State| s.queued.is_none() && !s.running && s.wake.is_none() && s.failures == 0;
        if self.objects.get(object).is_some_and(idle) {
            self.objects.remove(object);
        }
    }
}

/// 0.5 s doubling to 300 s, and up to a tenth more, by a hash of the object: those that failed together do not all come
/// back together.
fn retry_after<K: Hash>(object: &K, failures: u32) -> Duration {
    let base = 2_u32
        .checked_pow(failures)
        .and_then(|factor| FIRST_RETRY.checked_mul(factor))
        .map_or(LAST_RETRY, |d| d.min(LAST_RETRY));
    let mut hasher = DefaultHasher::new();
    (object, failures).hash(&mut hasher);
    let spread = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
    base + base * spread / 10_000
}
