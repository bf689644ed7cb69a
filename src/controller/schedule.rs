//! What runs next, and when to wake up: plain data, given `now`.
//!
//! - An object runs at most once at a time; what happens to it while it runs makes it run again.
//! - New objects go before the backlog, but not without end: after fifteen in a row the backlog has its turn, so that a
//!   flood of new registrations holds up no rotation. Inside each, first come, first served.
//! - One wake per object, by wall clock, the latest set counts: the owner calls [`Schedule::tick`] at
//!   [`Schedule::next_wake`] and besides at least every 30 s, because a monotonic timer sleeps through a suspend.
//! - A failing object is tried again after half a second, doubling to five minutes: at most 20 times in any hour, once
//!   it has got there, however often it fails; sooner if the owner knows that an outage is over
//!   ([`Schedule::retry_failed`]).
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

/// So many new objects run in a row while others wait.
const MOST_NEW_IN_A_ROW: u32 = 15;
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
    /// How many new ones have run since the backlog had its turn.
    new_in_a_row: u32,
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
        Self {
            objects: HashMap::new(),
            queue: BTreeMap::new(),
            wakes: BTreeSet::new(),
            running: 0,
            place: 0,
            new_in_a_row: 0,
        }
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
        let first_of_backlog = self.queue.range((Class::Backlog, 0)..).next().map(|(place, _)| *place);
        let its_turn = first_of_backlog.filter(|_| self.new_in_a_row >= MOST_NEW_IN_A_ROW);
        let (class, place) = its_turn.or_else(|| self.queue.keys().next().copied())?;
        let object = self.queue.remove(&(class, place))?;
        self.new_in_a_row = match class {
            Class::New => self.new_in_a_row.saturating_add(1),
            Class::Backlog => 0,
        };
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

    /// Has every object that failed run soon, and be patient anew: what made them fail may be over.
    pub fn retry_failed(&mut self) {
        let failed: Vec<K> =
            self.objects.iter().filter(|(_, state)| state.failures > 0).map(|(object, _)| object.clone()).collect();
        for object in failed {
            self.clear_wake(&object);
            if let Some(state) = self.objects.get_mut(&object) {
                state.failures = 0;
            }
            self.push(object);
        }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use proptest::{prelude::*, test_runner::RngSeed};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn drain(schedule: &mut Schedule<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| schedule.next_run()).collect()
    }

    #[test]
    fn new_objects_go_before_the_backlog_and_each_is_first_come_first_served() {
        let mut schedule = Schedule::new();
        schedule.push("old 1");
        schedule.push_new("new 1");
        schedule.push("old 2");
        schedule.push_new("new 2");
        schedule.push("old 1");
        assert_eq!(drain(&mut schedule), ["new 1", "new 2", "old 1", "old 2"]);
    }

    #[test]
    fn a_flood_of_new_objects_does_not_hold_up_the_backlog() {
        let mut schedule = Schedule::new();
        schedule.push(0);
        for object in 1..=40 {
            schedule.push_new(object);
        }
        let order: Vec<i32> = std::iter::from_fn(|| schedule.next_run()).collect();
        assert_eq!(order.iter().position(|object| *object == 0), Some(15));
    }

    #[test]
    fn one_in_the_backlog_that_is_pushed_as_new_moves_to_the_new_ones() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        schedule.push("b");
        schedule.push_new("b");
        schedule.push("b");
        assert_eq!(drain(&mut schedule), ["b", "a"]);
    }

    #[test]
    fn an_object_pushed_while_it_runs_runs_again_after_and_only_once() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        assert_eq!(schedule.next_run(), Some("a"));
        schedule.push("a");
        schedule.push_new("a");
        assert_eq!(schedule.next_run(), None);
        schedule.done(&"a");
        assert_eq!(schedule.next_run(), Some("a"));
        schedule.done(&"a");
        assert_eq!(schedule.next_run(), None);
        assert_eq!((schedule.running(), schedule.queued(), schedule.objects.len()), (0, 0, 0));
    }

    #[test]
    fn the_latest_wake_set_is_the_only_one() {
        let mut schedule = Schedule::new();
        schedule.wake_at("a", at(10));
        schedule.wake_at("a", at(30));
        schedule.wake_at("b", at(20));
        assert_eq!(schedule.next_wake(), Some(at(20)));
        assert_eq!(schedule.tick(at(19)), 0);
        assert_eq!(schedule.tick(at(25)), 1);
        assert_eq!(schedule.tick(at(30)), 1);
        assert_eq!(drain(&mut schedule), ["b", "a"]);
        assert_eq!(schedule.next_wake(), None);
    }

    #[test]
    fn a_wake_that_comes_while_the_object_runs_makes_it_run_again() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        schedule.next_run();
        schedule.wake_at("a", at(1));
        schedule.tick(at(2));
        schedule.done(&"a");
        assert_eq!(schedule.next_run(), Some("a"));
    }

    #[test]
    fn a_clock_that_jumps_ahead_wakes_all_and_one_that_jumps_back_none() {
        let mut schedule = Schedule::new();
        schedule.wake_at("a", at(100));
        schedule.wake_at("b", at(7200));
        assert_eq!(schedule.tick(at(-5000)), 0);
        assert_eq!(schedule.tick(at(1_000_000)), 2);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_even_if_it_runs() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        schedule.next_run();
        schedule.push("a");
        schedule.wake_at("a", at(1));
        schedule.forget(&"a");
        schedule.done(&"a");
        schedule.push("b");
        schedule.forget(&"b");
        assert_eq!((schedule.next_run(), schedule.next_wake()), (None, None));
        assert!(schedule.objects.is_empty());
    }

    #[test]
    fn a_failing_object_is_tried_again_after_half_a_second_doubling_to_five_minutes() {
        let mut schedule = Schedule::new();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.push("a");
            schedule.next_run();
            let time = schedule.failed(&"a", now);
            pauses.push(time.duration_since(now).as_secs_f64());
            now = time;
        }
        for (n, pause) in pauses.iter().enumerate() {
            let base = (0.5 * 2_f64.powi(i32::try_from(n).unwrap())).min(300.0);
            assert!((base..base * 1.1).contains(pause), "pause {n} is {pause}");
        }
        assert_eq!(schedule.failures(&"a"), 12);
        schedule.push("a");
        schedule.next_run();
        schedule.done(&"a");
        assert_eq!(schedule.failures(&"a"), 0);
        schedule.push("a");
        schedule.next_run();
        assert!(schedule.failed(&"a", now).duration_since(now).as_secs_f64() < 0.6);
    }

    #[test]
    fn a_failing_object_is_tried_at_most_twenty_times_in_an_hour_once_it_has_slowed_down() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        let mut runs = Vec::new();
        let mut now = at(0);
        while now < at(4 * 3600) {
            schedule.tick(now);
            while let Some(object) = schedule.next_run() {
                runs.push(now);
                schedule.failed(&object, now);
            }
            now = schedule.next_wake().unwrap();
        }
        let steady = at(600);
        let busiest = runs
            .iter()
            .filter(|t| **t > steady)
            .map(|from| runs.iter().filter(|t| *t >= from && t.duration_since(*from).as_secs() < 3600).count());
        assert!(busiest.max().unwrap() <= 20);
    }

    #[test]
    fn what_failed_is_tried_at_once_when_an_outage_is_over_and_patiently_anew() {
        let mut schedule = Schedule::new();
        for _ in 0..10 {
            schedule.push("failing");
            schedule.push("fine");
            while let Some(object) = schedule.next_run() {
                if object == "fine" {
                    schedule.wake_at(object, at(10_000));
                    schedule.done(&object);
                } else {
                    schedule.failed(&object, at(0));
                }
            }
        }
        schedule.retry_failed();
        assert_eq!(schedule.next_run(), Some("failing"));
        assert_eq!(schedule.next_run(), None, "the other one has its time");
        let again = schedule.failed(&"failing", at(100));
        assert!(again < at(101), "{again}");
        assert_eq!(schedule.next_wake(), Some(again));
    }

    #[test]
    fn objects_that_failed_together_do_not_come_back_together() {
        let times: BTreeSet<_> = (0..100).map(|object: u32| retry_after(&object, 9)).collect();
        assert!(times.len() > 80);
        assert_eq!(retry_after(&7, 9), retry_after(&7, 9));
    }

    #[test]
    fn a_success_after_a_failure_leaves_the_wake_that_the_plan_sets() {
        let mut schedule = Schedule::new();
        schedule.push("a");
        schedule.next_run();
        schedule.failed(&"a", at(0));
        schedule.push("a");
        schedule.next_run();
        schedule.wake_at("a", at(500));
        schedule.done(&"a");
        assert_eq!(schedule.next_wake(), Some(at(500)));
    }

    #[derive(Clone, Debug)]
    enum Move {
        PushNew(u8),
        Push(u8),
        WakeAt(u8, i64),
        Pass(i64),
        Run,
        Done(u8),
        Failed(u8),
        Forget(u8),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let object = 0_u8..6;
        let one = prop_oneof![
            3 => object.clone().prop_map(Move::PushNew),
            3 => object.clone().prop_map(Move::Push),
            2 => (object.clone(), -20_i64..200).prop_map(|(o, t)| Move::WakeAt(o, t)),
            2 => (0_i64..40).prop_map(Move::Pass),
            5 => Just(Move::Run),
            3 => object.clone().prop_map(Move::Done),
            2 => object.clone().prop_map(Move::Failed),
            1 => object.prop_map(Move::Forget),
        ];
        prop::collection::vec(one, 0..150)
    }

    /// The same rules, written as slowly and plainly as possible.
    #[derive(Default)]
    struct Model {
        new: VecDeque<u8>,
        backlog: VecDeque<u8>,
        running: BTreeMap<u8, Option<Class>>,
        wakes: BTreeMap<u8, Timestamp>,
        new_in_a_row: u32,
    }

    impl Model {
        fn run(&mut self) -> Option<u8> {
            let backlog_first = self.new_in_a_row >= MOST_NEW_IN_A_ROW && !self.backlog.is_empty();
            if !backlog_first && let Some(object) = self.new.pop_front() {
                self.new_in_a_row += 1;
                return Some(object);
            }
            let object = self.backlog.pop_front()?;
            self.new_in_a_row = 0;
            Some(object)
        }

        fn push(&mut self, object: u8, class: Class) {
            if let Some(again) = self.running.get_mut(&object) {
                *again = Some(again.map_or(class, |before| before.min(class)));
            } else if class == Class::New && !self.new.contains(&object) {
                self.backlog.retain(|queued| *queued != object);
                self.new.push_back(object);
            } else if class == Class::Backlog && !self.new.contains(&object) && !self.backlog.contains(&object) {
                self.backlog.push_back(object);
            }
        }

        fn pass(&mut self, now: Timestamp) {
            let mut due: Vec<_> = self.wakes.iter().filter(|(_, t)| **t <= now).map(|(o, t)| (*t, *o)).collect();
            due.sort_unstable();
            for (_, object) in due {
                self.wakes.remove(&object);
                self.push(object, Class::Backlog);
            }
        }

        fn end(&mut self, object: u8) {
            if let Some(Some(class)) = self.running.remove(&object) {
                self.push(object, class);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_runs_twice_at_once_nothing_is_lost_and_nothing_is_kept(moves in moves()) {
            let mut schedule = Schedule::new();
            let mut model = Model::default();
            let mut now = 0;
            for mv in moves {
                match mv {
                    Move::PushNew(o) => { schedule.push_new(o); model.push(o, Class::New); }
                    Move::Push(o) => { schedule.push(o); model.push(o, Class::Backlog); }
                    Move::WakeAt(o, t) => { schedule.wake_at(o, at(t)); model.wakes.insert(o, at(t)); }
                    Move::Pass(seconds) => {
                        now += seconds;
                        schedule.tick(at(now));
                        model.pass(at(now));
                    }
                    Move::Run => {
                        let next = model.run();
                        prop_assert_eq!(schedule.next_run(), next);
                        if let Some(o) = next {
                            prop_assert!(model.running.insert(o, None).is_none(), "runs twice at once");
                        }
                    }
                    Move::Done(o) => { schedule.done(&o); model.end(o); }
                    Move::Failed(o) => {
                        if model.running.contains_key(&o) {
                            model.wakes.insert(o, schedule.failed(&o, at(now)));
                            model.end(o);
                        }
                    }
                    Move::Forget(o) => {
                        schedule.forget(&o);
                        model.wakes.remove(&o);
                        model.new.retain(|queued| *queued != o);
                        model.backlog.retain(|queued| *queued != o);
                        if let Some(again) = model.running.get_mut(&o) { *again = None; }
                    }
                }
                prop_assert_eq!(schedule.next_wake(), model.wakes.values().min().copied());
                prop_assert_eq!(schedule.queued(), model.new.len() + model.backlog.len());
                prop_assert_eq!(schedule.running(), model.running.len());
                prop_assert!(schedule.objects.len() <= 6 && schedule.wakes.len() == model.wakes.len());
            }
            // In the end everything that was asked for has run, and nothing is remembered.
            for object in 0..6 {
                schedule.done(&object);
                model.end(object);
            }
            schedule.tick(at(1_000_000));
            while let Some(object) = schedule.next_run() {
                schedule.done(&object);
            }
            prop_assert!(schedule.objects.is_empty() && schedule.wakes.is_empty() && schedule.queue.is_empty());
        }
    }
}
