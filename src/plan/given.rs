//! The verdict on a credential that is given and not minted: a public key that was made elsewhere, or a `ServiceAccount`.
//!
//! No Secret holds it, so the ledger alone decides: what stands in the spec is taken up there as it is, in one write, and
//! what it replaces leaves in the same write. What cannot be taken up leaves what was there before as it is.

use jiff::{SignedDuration, Timestamp};

use crate::api::{Kind, Reason};
use crate::credential::public_key::{self, Unusable};
use crate::ledger::{Credential, MOST_LIVE_REVISIONS, Revision};
use crate::rotation::{self, CLOCK_SKEW, NO_END};

use super::Problem;

/// One given credential as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The entry's name.
    pub name: String,
    /// What was taken up before this time is revoked: the latest watermark that has come.
    pub revoke_before: Option<Timestamp>,
    /// The first watermark that is still to come.
    pub next_watermark: Option<Timestamp>,
    /// How long a public key is accepted at most, counted from when it was taken up.
    pub longest: Option<SignedDuration>,
    /// What it is.
    pub settings: Settings,
}

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    /// A certificate or a key, or why it is none.
    PublicKey(Result<Box<public_key::Given>, Unusable>),
    /// A `ServiceAccount`.
    ServiceAccount {
        /// The `sub` of its tokens.
        subject: String,
    },
}

/// Something that becomes of a given credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The credential entry.
    pub entry: String,
    /// Its revision; 0 for a `ServiceAccount`, which has none.
    pub revision: u64,
    /// What: it is taken up for the first time, replaces another one, or is revoked.
    pub reason: Reason,
    /// Its end, if it has one.
    pub not_after: Option<Timestamp>,
}

/// What shall happen to one given credential.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// As the ledger shall have it; `None` while nothing of it is to stand there.
    pub credential: Option<Credential>,
    /// The revision to be reported: the one given, else the one still accepted.
    pub revision: Option<u64>,
    /// What becomes of it.
    pub changes: Vec<Change>,
    /// What stands in the way.
    pub problem: Option<Problem>,
    /// Whether something of it is accepted before any step.
    pub is_served: bool,
    /// Whether something is after every step.
    pub will_be_served: bool,
    /// When to look again.
    pub wake: Option<Timestamp>,
}

/// What is known of a given credential.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    /// The time of this plan, in whole seconds.
    pub now: Timestamp,
    /// What the ledger has of it.
    pub ledger: Option<&'a Credential>,
    /// What stands in the way of taking up anything.
    pub obstacle: Option<Problem>,
}

/// How a key stands to what the ledger has.
enum Standing {
    /// It is accepted as this revision.
    Accepted(u64),
    /// It, or another certificate of its key, was revoked.
    Revoked,
    /// Its validity is over.
    Over,
    /// It was accepted for as long as policies allowed.
    Bounded,
    /// Its validity has not begun.
    NotYet,
    /// It is to be taken up.
    New,
}

impl Given {
    /// The kind.
    #[must_use]
    pub(super) const fn kind(&self) -> Kind {
        match self.settings {
            Settings::PublicKey(_) => Kind::PublicKey,
            Settings::ServiceAccount { .. } => Kind::ServiceAccount,
        }
    }
}

/// The verdict on one given credential.
#[must_use]
pub(super) fn decide(given: &Given, seen: Seen<'_>) -> Verdict {
    match &given.settings {
        Settings::PublicKey(key) => public_key(given, key.as_deref().map_err(|unusable| *unusable), seen),
        Settings::ServiceAccount { subject } => service_account(given, subject, seen),
    }
}

fn service_account(given: &Given, subject: &str, seen: Seen<'_>) -> Verdict {
    let before = seen.ledger;
    if before.is_none() && seen.obstacle.is_some() {
        return Verdict { problem: seen.obstacle, ..Verdict::default() };
    }
    let mut credential = before.cloned().unwrap_or_else(|| Credential::new(Kind::ServiceAccount));
    credential.subject = Some(subject.to_owned());
    if given.revoke_before > credential.revoked_before {
        // A token does not say with which of its ServiceAccount's tokens it was had. So all that are out now count as had
        // with the old ones, also those of a token service whose clock is ahead.
        let all_that_are_out = rotation::add(seen.now, CLOCK_SKEW);
        credential.tokens_revoked_before = credential.tokens_revoked_before.max(Some(all_that_are_out));
    }
    credential.revoked_before = credential.revoked_before.max(given.revoke_before);
    credential.revisions.clear();
    let is_served = before.is_some_and(|before| before.subject == credential.subject);
    let reason = match before {
        None => Some(Reason::TakenUp),
        Some(_) if !is_served => Some(Reason::SpecChanged),
        Some(before) => (before.revoked_before != credential.revoked_before).then_some(Reason::Revoked),
    };
    let change = |reason| Change { entry: given.name.clone(), revision: 0, reason, not_after: None };
    let changes = reason.map(change).into_iter().collect();
    Verdict { credential: Some(credential), changes, is_served, will_be_served: true, ..Verdict::default() }
}

fn public_key(given: &Given, key: Result<&public_key::Given, Unusable>, seen: Seen<'_>) -> Verdict {
    let now = seen.now;
    let accepted = |credential: &Credential| credential.revisions.iter().any(|r| r.is_accepted(now));
    let mut verdict = Verdict {
        credential: seen.ledger.cloned(),
        is_served: seen.ledger.is_some_and(accepted),
        ..Verdict::default()
    };
    if let Some(credential) = &mut verdict.credential {
        verdict.changes = revoke(given, credential, now);
    }
    let mut wakes = Vec::new();
    match key {
        Err(unusable) => verdict.problem = Some(said(given, Reason::InvalidSpec, &unusable.to_string())),
        Ok(key) => match standing(key, verdict.credential.as_ref(), now) {
            Standing::Accepted(revision) => keep(&mut verdict, revision, now),
            Standing::New => match seen.obstacle {
                Some(obstacle) => verdict.problem = Some(obstacle),
                None => take_up(given, key, &mut verdict, now),
            },
            Standing::NotYet => {
                let from = key.not_before;
                let text = format!("the certificate is valid from {from} on: it is accepted from then on");
                verdict.problem = Some(said(given, Reason::Progressing, &text));
                wakes.push(rotation::whole_seconds_up(from));
            }
            Standing::Over => {
                let text = format!("the certificate ended at {}: write a newer one", key.not_after);
                verdict.problem = Some(said(given, Reason::Expired, &text));
            }
            Standing::Bounded => {
                let text =
                    "the key was accepted for as long as the policies allow (durations.publicKey): write another one";
                verdict.problem = Some(said(given, Reason::Expired, text));
            }
            Standing::Revoked => {
                let text = "the key was revoked by revokeMintedBefore: write another one";
                verdict.problem = Some(said(given, Reason::Revoked, text));
            }
        },
    }
    let revisions = verdict.credential.iter().flat_map(|credential| &credential.revisions);
    for revision in revisions.clone().filter(|r| !r.is_expired(now)) {
        wakes.extend((revision.not_after < NO_END).then_some(revision.not_after));
        // From a clock that was ahead.
        wakes.extend(Some(rotation::add(revision.minted_at, -CLOCK_SKEW)).filter(|from| *from > now));
    }
    let is_given = |r: &&Revision| key.is_ok_and(|key| public_key::is_same(&r.verifier, &key.verifier));
    let shown = revisions.clone().rfind(is_given).or_else(|| revisions.clone().rfind(|r| r.is_accepted(now)));
    verdict.revision = shown.map(|r| r.revision);
    verdict.will_be_served = verdict.credential.as_ref().is_some_and(accepted);
    verdict.wake = wakes.into_iter().min();
    verdict
}

/// Ends what a watermark applies to. It stays in the ledger, so that the same key is not taken up again.
fn revoke(given: &Given, credential: &mut Credential, now: Timestamp) -> Vec<Change> {
    let Some(mark) = given.revoke_before else { return Vec::new() };
    credential.revoke(mark, now);
    let mut changes = Vec::new();
    for revision in &mut credential.revisions {
        if rotation::is_before_watermark(revision.minted_at, mark, now) && revision.not_after > mark {
            if !revision.is_expired(now) {
                let entry = given.name.clone();
                let not_after = Some(mark);
                changes.push(Change { entry, revision: revision.revision, reason: Reason::Revoked, not_after });
            }
            revision.not_after = mark;
        }
    }
    changes
}

fn standing(key: &public_key::Given, credential: Option<&Credential>, now: Timestamp) -> Standing {
    let revisions = || credential.into_iter().flat_map(|credential| &credential.revisions);
    let mark = credential.and_then(|credential| credential.revoked_before);
    let is_revoked = |r: &Revision| mark.is_some_and(|mark| r.minted_at < mark || r.not_after <= mark);
    let known = revisions().find(|r| public_key::is_same(&r.verifier, &key.verifier));
    if revisions().any(|r| public_key::has_same_key(&r.verifier, &key.verifier) && is_revoked(r)) {
        return Standing::Revoked;
    }
    if key.not_after <= now {
        return Standing::Over;
    }
    match known {
        Some(revision) if !revision.is_expired(now) => Standing::Accepted(revision.revision),
        Some(_) => Standing::Bounded,
        None if key.not_before > now => Standing::NotYet,
        None => Standing::New,
    }
}

/// It is there: whatever else is accepted beside it goes.
fn keep(verdict: &mut Verdict, revision: u64, now: Timestamp) {
    if let Some(credential) = &mut verdict.credential {
        credential.revisions.retain(|r| r.revision == revision || r.is_expired(now));
    }
}

/// It becomes the next revision. What it replaces goes; what has ended is remembered, as far as there is room.
fn take_up(given: &Given, key: &public_key::Given, verdict: &mut Verdict, now: Timestamp) {
    let is_first = verdict.credential.as_ref().is_none_or(|credential| credential.revisions.is_empty());
    let mut fresh = Credential::new(Kind::PublicKey);
    fresh.revoked_before = given.revoke_before;
    let credential = verdict.credential.get_or_insert(fresh);
    let highest = credential.revisions.iter().map(|r| r.revision).max().unwrap_or(0);
    let revision = credential.next_revision.max(highest.saturating_add(1));
    credential.revisions.retain(|r| r.is_expired(now));
    let surplus = credential.revisions.len().saturating_sub(MOST_LIVE_REVISIONS - 1);
    credential.revisions.drain(..surplus);
    credential.next_revision = revision.saturating_add(1);
    // Never before a watermark: one that another controller's clock has seen would end it at once.
    let minted_at = credential.revoked_before.map_or(now, |mark| mark.max(now));
    let bound = given.longest.map_or(NO_END, |longest| rotation::add(minted_at, longest));
    let not_after = key.not_after.min(bound);
    credential.revisions.push(Revision { revision, minted_at, not_after, hint: None, verifier: key.verifier.clone() });
    verdict.changes.push(Change {
        entry: given.name.clone(),
        revision,
        reason: if is_first { Reason::TakenUp } else { Reason::SpecChanged },
        not_after: Some(not_after).filter(|end| *end < NO_END),
    });
}

fn said(given: &Given, reason: Reason, text: &str) -> Problem {
    Problem::of_field(reason, format!("spec.credentials[{}].publicKey", given.name), text)
}
