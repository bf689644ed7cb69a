//! What this replica knows of revoked access tokens and used client assertions, together with the other replicas.
//!
//! ```text
//! revoke, first_use ─▶ Lists ◀─watch── the eight Secrets (crate::shared_lists)
//!                        └──── writer ──compare and swap──▶
//! ```
//!
//! Memory has the union of everything that was ever seen, until its end. A list that is edited, emptied or deleted takes
//! nothing back: what it lacks is written again. A revocation is answered once it is written; used assertions are
//! written in batches afterwards, so for the length of a batch and the lag of a watch another replica may accept one a
//! second time. What is not written when the program is killed is lost with it.
//!
//! Room is shared by one rule: the less is free, the less may one client have. So one client that takes what it can fills a
//! third, a hundred such leave something free, and a client with few marks is not refused because of them.

mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::rotation;
use crate::seats::share;
use crate::shared_lists::{
    ClientTag, Damage, Found, List, MOST_MARKS, Mark, NAMES, REVOKED_FIELD, USED_FIELD, end_seconds, now_seconds,
};

pub use writer::Writer;

/// The most revoked tokens that are remembered for a client.
pub const MOST_REVOKED_OF_A_CLIENT: usize = 1024;
/// The most used client assertions that a replica remembers.
pub const MOST_USED: usize = 1 << 19;
/// How long a revocation may take to be written down.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// How many seconds pass at least between two searches for used assertions that have ended, where there is no room.
const FORGET_AGAIN_SECONDS: u32 = 1;

/// A list as the API server has it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The Secret without its fields.
    secret: Secret,
    revoked: List,
    used: List,
    /// What could not be read of it.
    pub damage: Option<Damage>,
}

/// All lists.
#[derive(Debug)]
pub struct Lists {
    all: [Shared; NAMES.len()],
    /// Told when the writer may have something to do.
    due: Notify,
    /// How many used assertions could not be shared because their list was full.
    surplus: AtomicUsize,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// How many used assertions are remembered.
    used: AtomicUsize,
    /// The number of the last round of the writer that has ended.
    ended: watch::Sender<u64>,
}

/// What is known of one list.
#[derive(Debug, Default)]
struct Known {
    /// The list as it was last seen; `None` if there is none.
    shown: Option<Arc<Shown>>,
    revoked: Marks,
    used: Marks,
    /// Used assertions that had no room in the list.
    surplus: HashMap<Mark, u32>,
    /// How many used assertions each client has.
    uses: HashMap<ClientTag, Uses>,
    /// When it was last searched for what has ended.
    searched_at: u32,
    /// The number of the last round of the writer that has begun.
    begun: u64,
    /// A revocation waits, or the list has just come: the writer must not wait for its time.
    is_urgent: bool,
    /// Why the last round failed.
    problem: Option<String>,
}

/// How many used assertions a client has.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// In the list, or to be.
    listed: usize,
    /// In all.
    all: usize,
}

/// What is in the list, and what is to be.
#[derive(Debug, Default)]
struct Marks {
    shared: List,
    unshared: List,
}

/// How many marks there are, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Revoked tokens.
    pub revoked: usize,
    /// Revoked tokens that are not written yet.
    pub revoked_unwritten: usize,
    /// Used client assertions.
    pub used: usize,
    /// Used client assertions that are not written yet.
    pub used_unwritten: usize,
    /// Used client assertions that had no room in their list, since the start.
    pub used_surplus: usize,
}

impl Shown {
    /// Reads a list's Secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let field = |name: &str| {
            List::parse(secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice()))
        };
        let (Found { list: revoked, damage }, used) = (field(REVOKED_FIELD), field(USED_FIELD));
        let mut shell = Secret { metadata: secret.metadata.clone(), type_: secret.type_.clone(), ..Secret::default() };
        shell.metadata.managed_fields = None;
        Self { secret: shell, revoked, used: used.list, damage: damage.or(used.damage) }
    }

    /// The Secret's metadata: which object it is, and at which version.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl Default for Lists {
    fn default() -> Self {
        let all = std::array::from_fn(|_| Shared {
            known: Mutex::default(),
            used: AtomicUsize::new(0),
            ended: watch::channel(0).0,
        });
        Self { all, due: Notify::new(), surplus: AtomicUsize::new(0) }
    }
}

impl Lists {
    /// Takes a list as the API server has it now. What it lacks of what is known here is to be written again.
    pub fn shown(&self, index: usize, shown: Arc<Shown>, now: Timestamp) {
        let now = now_seconds(now);
        let list = &self.all[index];
        let mut known = list.lock();
        known.revoked.shown(&shown.revoked, now);
        known.used.shown(&shown.used, now);
        known.surplus.retain(|mark, _| !shown.used.counts(mark, now));
        known.count_uses();
        known.is_urgent |= known.shown.is_none();
        known.shown = Some(shown);
        list.count_used(&known);
        if known.is_due() {
            self.due.notify_one();
        }
    }

    /// Takes that a list was deleted. It is written whole once the controller has made it again.
    pub fn gone(&self, index: usize, now: Timestamp) {
        let now = now_seconds(now);
        let mut known = self.all[index].lock();
        known.revoked.shown(&List::default(), now);
        known.used.shown(&List::default(), now);
        known.shown = None;
    }

    /// Whether a token was revoked.
    #[must_use]
    pub fn is_revoked(&self, mark: &Mark, now: Timestamp) -> bool {
        self.all[mark.list()].lock().revoked.counts(mark, now_seconds(now))
    }

    /// Revokes a token until its `exp`, here at once; returns when that is written down for all replicas and for ever.
    ///
    /// Refused with [`Refusal::TooManyRevocations`] if its client has revoked more than its share,
    /// [`Refusal::NotRecorded`] if it could not be written: then it holds here, and is written as soon as that is possible.
    pub async fn revoke(&self, mark: Mark, expires_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let list = &self.all[mark.list()];
        let (until, now) = (end_seconds(expires_at), now_seconds(now));
        let begun = {
            let mut known = list.lock();
            if known.revoked.shared.counts(&mark, now) {
                return Ok(());
            }
            if !known.revoked.unshared.counts(&mark, now) {
                known.revoked.admit(&mark, now)?;
                known.revoked.unshared.add(mark, until);
            }
            known.is_urgent = true;
            known.begun
        };
        self.due.notify_one();
        let mut ended = list.ended.subscribe();
        // A round that had begun before may have read the list before.
        let recorded = ended.wait_for(|ended| *ended > begun || list.lock().revoked.shared.counts(&mark, now));
        let _ = timeout(RECORDED_WITHIN, recorded).await;
        if list.lock().revoked.shared.counts(&mark, now) { Ok(()) } else { Err(Refusal::NotRecorded) }
    }

    /// Whether a client assertion is used for the first time, as far as this replica knows. From now on it was used,
    /// until it could no longer be accepted: a minute after its `exp`, for clocks that differ. Refused with
    /// [`Refusal::TooManyAssertions`] if its client has used more than its share, so that it could not be remembered.
    pub fn first_use(&self, client_id: &str, jti: &str, exp: Timestamp, now: Timestamp) -> Result<bool, Refusal> {
        let mark = Mark::of(client_id, jti);
        let (until, now) = (end_seconds(rotation::add(exp, rotation::CLOCK_SKEW)), now_seconds(now));
        let list = &self.all[mark.list()];
        let mut known = list.lock();
        if known.used.counts(&mark, now) || known.surplus.get(&mark).is_some_and(|until| *until > now) {
            return Ok(false);
        }
        if !self.has_share(list, &known, &mark) {
            known.forget_ended_uses(now);
            list.count_used(&known);
            if !self.has_share(list, &known, &mark) {
                return Err(Refusal::TooManyAssertions);
            }
        }
        if !known.has_share_of_list(&mark) {
            known.forget_ended_uses(now);
        }
        if known.has_share_of_list(&mark) {
            let was_due = known.is_due();
            known.used.unshared.add(mark, until);
            known.uses.entry(mark.tag()).or_default().add_listed();
            if !was_due {
                self.due.notify_one();
            }
        } else {
            known.surplus.insert(mark, until);
            known.uses.entry(mark.tag()).or_default().all += 1;
            if self.surplus.fetch_add(1, Ordering::Relaxed) == 0 {
                let list = NAMES[mark.list()];
                tracing::warn!(list, "some used client assertions are not shared: a client has used many");
            }
        }
        list.count_used(&known);
        Ok(true)
    }

    /// How many marks there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { used_surplus: self.surplus.load(Ordering::Relaxed), ..Counts::default() };
        for list in &self.all {
            let known = list.lock();
            counts.revoked += known.revoked.len();
            counts.revoked_unwritten += known.revoked.unshared.len();
            counts.used += known.used.len() + known.surplus.len();
            counts.used_unwritten += known.used.unshared.len();
        }
        counts
    }

    /// What stands in the way of sharing, in words; `None` if nothing does.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.all.iter().zip(NAMES).find_map(|(list, name)| {
            let known = list.lock();
            if known.shown.is_none() {
                return Some(format!("there is no Secret {name}: its clients cannot revoke tokens"));
            }
            known
                .problem
                .as_ref()
                .map(|problem| format!("the Secret {name} cannot be written: {problem}; it is tried again"))
        })
    }

    /// Whether a client has fewer used assertions than its share.
    fn has_share(&self, list: &Shared, known: &Known, mark: &Mark) -> bool {
        let all: usize = self.all.iter().map(|list| list.used.load(Ordering::Relaxed)).sum();
        let others = all.saturating_sub(list.used.load(Ordering::Relaxed));
        known.uses_of(mark).all < share(MOST_USED.saturating_sub(others + known.used_len()), MOST_USED)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_used(&self, known: &Known) {
        self.used.store(known.used_len(), Ordering::Relaxed);
    }
}

impl Known {
    /// Whether something is to be written that has room.
    fn is_due(&self) -> bool {
        self.is_urgent || self.has_unshared() || self.is_damaged()
    }

    fn has_unshared(&self) -> bool {
        self.revoked.can_share() || self.used.can_share()
    }

    fn is_damaged(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| shown.damage.is_some())
    }

    fn used_len(&self) -> usize {
        self.used.len() + self.surplus.len()
    }

    fn forget_ended_uses(&mut self, now: u32) {
        if now < self.searched_at.saturating_add(FORGET_AGAIN_SECONDS) && now >= self.searched_at {
            return;
        }
        self.searched_at = now;
        self.used.forget_ended(now);
        self.surplus.retain(|_, until| *until > now);
        self.count_uses();
    }

    /// Whether a client has fewer used assertions in this list than its share of it.
    fn has_share_of_list(&self, mark: &Mark) -> bool {
        self.uses_of(mark).listed < self.used.share()
    }

    fn uses_of(&self, mark: &Mark) -> Uses {
        self.uses.get(&mark.tag()).copied().unwrap_or_default()
    }

    fn count_uses(&mut self) {
        self.uses.clear();
        for (mark, _) in self.used.shared.iter().chain(self.used.unshared.iter()) {
            self.uses.entry(mark.tag()).or_default().add_listed();
        }
        for mark in self.surplus.keys() {
            self.uses.entry(mark.tag()).or_default().all += 1;
        }
    }
}

impl Uses {
    fn add_listed(&mut self) {
        self.listed += 1;
        self.all += 1;
    }
}

impl Marks {
    fn counts(&self, mark: &Mark, now: u32) -> bool {
        self.shared.counts(mark, now) || self.unshared.counts(mark, now)
    }

    fn len(&self) -> usize {
        self.shared.len() + self.unshared.len()
    }

    fn forget_ended(&mut self, now: u32) {
        self.shared.forget_ended(now);
        self.unshared.forget_ended(now);
    }

    /// Whether writing would bring something into the list. A full one takes no more.
    fn can_share(&self) -> bool {
        !self.unshared.is_empty() && self.shared.len() < crate::shared_lists::CAPACITY_MARKS
    }

    /// Whether one more revocation may be added: its client has fewer than its share.
    fn admit(&mut self, mark: &Mark, now: u32) -> Result<(), Refusal> {
        let of_client = self.shared.count_of(mark.tag(), now) + self.unshared.count_of(mark.tag(), now);
        if of_client >= self.share() {
            self.forget_ended(now);
        }
        let share = self.share().min(MOST_REVOKED_OF_A_CLIENT);
        if of_client < share { Ok(()) } else { Err(Refusal::TooManyRevocations) }
    }

    /// How many marks of the list one client may have.
    fn share(&self) -> usize {
        share(MOST_MARKS.saturating_sub(self.len()), MOST_MARKS)
    }

    /// Takes what is in the list now. What counts here and is not in it, or not for as long, is to be shared again.
    fn shown(&mut self, list: &List, now: u32) {
        let mut shared = list.clone();
        shared.forget_ended(now);
        let before = std::mem::replace(&mut self.shared, shared).merge(&std::mem::take(&mut self.unshared));
        let is_missing =
            |mark: &Mark, until: u32| until > now && self.shared.until(mark).is_none_or(|shown| shown < until);
        self.unshared = before.iter().filter(|(mark, until)| is_missing(mark, *until)).map(|(m, u)| (*m, u)).collect();
    }

    /// What the list shall hold.
    fn wanted(&self, now: u32) -> List {
        let mut wanted = self.shared.clone().merge(&self.unshared);
        wanted.forget_ended(now);
        wanted
    }
}
