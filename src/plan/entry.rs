//! The verdict on one credential entry: what is minted, what the Secret shows, what leaves the ledger, when it is looked
//! at next.

use jiff::{SignedDuration, Timestamp};

use crate::api::{Kind, Reason};
use crate::credential::published::PublishedEntry;
use crate::credential::{Held, Shown, ShownToken, field};
use crate::ledger::{Credential, MOST_LIVE_REVISIONS};
use crate::rotation;

use super::checks::{self, View};
use super::desired::Settings;
use super::{Mint, Order, Problem, TokenOrder, Value};

/// How old a revision must be before room is made of it: a Secret whose write had no answer may still appear.
const LIMIT_GRACE: SignedDuration = SignedDuration::from_mins(10);

/// What shall happen to one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// What is minted.
    pub mint: Option<Mint>,
    /// What the Secret shall show: fields by name; empty if the entry has nothing to show.
    pub fields: Vec<(&'static str, Value)>,
    /// What the Secret's annotation shall say of it.
    pub published: Option<PublishedEntry>,
    /// Why the Secret must be written, if this entry asks for it.
    pub publish: Option<Reason>,
    /// Revisions that leave the ledger after the Secret was written.
    pub drop: Vec<(u64, Reason)>,
    /// A revision that makes room in the same write that adds one.
    pub evict: Option<u64>,
    /// What stands in the way.
    pub problem: Option<Problem>,
    /// Whether its Secret cannot be written as it is.
    pub is_obstructed: bool,
    /// Whether the Secret shows a credential that is accepted now, before any step.
    pub is_served: bool,
    /// Whether it does after every step.
    pub will_be_served: bool,
    /// When to look again.
    pub wake: Option<Timestamp>,
}

/// What stands in the way of minting for an entry whatever its reason; `None` if nothing does.
pub(super) type Obstacle = Option<Problem>;

/// The verdict on one entry.
#[must_use]
pub(super) fn decide(view: &View<'_>, obstacle: Obstacle) -> Verdict {
    match view.desired.settings {
        Settings::ClientSecret | Settings::Certificate { .. } => revisioned(view, obstacle),
        Settings::AccessToken { .. } => token(view, obstacle),
    }
}

fn revisioned(view: &View<'_>, obstacle: Obstacle) -> Verdict {
    let reason = checks::first(view);
    let is_served = view.current().is_some_and(|current| current.is_accepted(view.now));
    let mut verdict = Verdict { is_served, ..Verdict::default() };
    let mut minted = None;
    if let Some(reason) = reason {
        let room = room(view);
        match (obstacle, room) {
            (Some(problem), _) => verdict.problem = Some(problem),
            (None, Room::Full { until }) => {
                let text = format!(
                    "{MOST_LIVE_REVISIONS} revisions are live, which is the most, so the next one waits until one of them \
                     ends: stop whatever keeps changing the Secret {}",
                    view.desired.secret
                );
                let field = format!("spec.credentials[{}]", view.desired.name);
                verdict.problem = Some(Problem::of_field(Reason::MintLimited, field, text));
                verdict.wake = Some(until);
            }
            (None, Room::Free { evict }) => {
                verdict.evict = evict;
                let revision = next_revision(view);
                minted = Some((reason, revision));
            }
        }
    }
    match minted {
        Some((reason, revision)) => mint(view, reason, revision, &mut verdict),
        None => keep(view, &mut verdict),
    }
    verdict
}

/// A new revision: it is shown, the old one beside it if the rotation is not a break.
fn mint(view: &View<'_>, reason: Reason, revision: u64, verdict: &mut Verdict) {
    let rhythm = view.desired.rhythm;
    let not_after = rhythm.not_after(view.now);
    let entry = view.desired.name.clone();
    let previous =
        view.current().filter(|old| is_gentle(reason) && old.is_accepted(view.now) && !view.is_revoked(old.minted_at));
    let order = match &view.desired.settings {
        Settings::ClientSecret => {
            verdict.fields.push((field::CLIENT_SECRET, Value::Minted(entry.clone())));
            if previous.is_some() {
                verdict.fields.push((field::PREVIOUS_CLIENT_SECRET, Value::Held(field::CLIENT_SECRET)));
            }
            Order::ClientSecret
        }
        Settings::Certificate { key_type, dns_names } => {
            verdict.fields.push((field::CERTIFICATE, Value::Minted(entry.clone())));
            verdict.fields.push((field::PRIVATE_KEY, Value::Minted(entry.clone())));
            Order::Certificate { key_type: *key_type, dns_names: dns_names.clone() }
        }
        Settings::AccessToken { .. } => return,
    };
    verdict.published = Some(said_of(view, revision, previous.map(|old| old.revision), view.now));
    verdict.publish = Some(reason);
    let is_evicted = |r: u64| verdict.evict == Some(r);
    let drop = revoked(view, None).into_iter().filter(|(r, _)| !is_evicted(*r)).collect();
    let overlap_end = rotation::add(view.now, rhythm.overlap());
    let retires = others(view, None)
        .any(|r| r.not_after > overlap_end && !view.is_revoked(r.minted_at) && !is_evicted(r.revision));
    verdict.drop = drop;
    verdict.wake = earliest([Some(view.renewal_time(revision, view.now, not_after)), retires.then_some(overlap_end)]);
    verdict.will_be_served = true;
    verdict.mint = Some(Mint { entry, revision, reason, minted_at: view.now, not_after, order });
}

/// No new revision: the Secret keeps showing what it shows, except for what must go.
fn keep(view: &View<'_>, verdict: &mut Verdict) {
    // A leak outranks availability: what is revoked goes even where nothing can take its place.
    verdict.drop = revoked(view, None);
    let Some(current) = view.current().filter(|current| !view.is_revoked(current.minted_at)) else { return };
    verdict.will_be_served = verdict.is_served;
    let hint = published(view);
    // Of the annotation `since` alone counts, and only if it speaks of this revision: an older value put back by hand
    // begins its time anew. It was not readable before it was minted, whatever the annotation says.
    let since = hint.as_ref().filter(|hint| hint.current == Some(current.revision)).map_or(view.now, |hint| hint.since);
    let since = since.max(current.minted_at);
    let overlap_end = rotation::add(since, view.desired.rhythm.overlap());
    let mut wake = vec![
        (verdict.problem.is_none()).then(|| view.renewal_time(current.revision, current.minted_at, current.not_after)),
    ];
    for other in others(view, Some(current.revision)) {
        if view.is_revoked(other.minted_at) || other.not_after <= overlap_end {
            continue;
        }
        if overlap_end <= view.now {
            verdict.drop.push((other.revision, Reason::OverlapEnded));
        } else {
            wake.push(Some(overlap_end));
        }
    }
    verdict.wake = earliest(wake.into_iter().chain([verdict.wake]));
    show(view, current.revision, since, hint, verdict);
}

/// The fields of an entry that goes on showing what it shows.
fn show(view: &View<'_>, current: u64, since: Timestamp, hint: Option<PublishedEntry>, verdict: &mut Verdict) {
    let stays = |revision: u64| !verdict.drop.iter().any(|(dropped, _)| *dropped == revision);
    let previous = view.previous().map(|r| r.revision).filter(|r| stays(*r) && *r != current);
    match view.shown {
        Shown::ClientSecret { previous: shown, .. } => {
            verdict.fields.push((field::CLIENT_SECRET, Value::Held(field::CLIENT_SECRET)));
            if previous.is_some() {
                verdict.fields.push((field::PREVIOUS_CLIENT_SECRET, Value::Held(field::PREVIOUS_CLIENT_SECRET)));
            } else if *shown != Held::Nothing {
                verdict.publish = Some(verdict.drop.first().map_or(Reason::SecretChanged, |(_, reason)| *reason));
            }
        }
        Shown::Certificate { .. } => {
            verdict.fields.push((field::CERTIFICATE, Value::Held(field::CERTIFICATE)));
            verdict.fields.push((field::PRIVATE_KEY, Value::Held(field::PRIVATE_KEY)));
        }
        Shown::AccessToken(_) => {}
    }
    let published = said_of(view, current, previous, since);
    // A Secret does not hold the previous certificate, only says its number: no reason to write it.
    let said = hint.map(|hint| match view.shown {
        Shown::Certificate { .. } => PublishedEntry { previous, ..hint },
        Shown::ClientSecret { .. } | Shown::AccessToken(_) => hint,
    });
    if said.as_ref() != Some(&published) {
        verdict.publish = verdict.publish.or(Some(Reason::FieldMissing));
    }
    verdict.published = Some(published);
}

fn token(view: &View<'_>, obstacle: Obstacle) -> Verdict {
    let is_served = view.token().is_some_and(|token| rotation::is_valid(token.issued_at, token.not_after, view.now))
        && view.token().is_some_and(|token| view.keys.is_published(&token.kid, view.now));
    let mut verdict = Verdict { is_served, ..Verdict::default() };
    let Settings::AccessToken { audience, scopes } = &view.desired.settings else { return verdict };
    let reason = checks::first(view);
    let signing = view.keys.signing(view.now);
    let entry = view.desired.name.clone();
    match (reason, obstacle, signing.zip(scopes.as_ref().ok())) {
        (Some(reason), None, Some((key, scopes))) => {
            let not_after = view.desired.rhythm.not_after(view.now);
            let token = ShownToken { kid: key.kid.clone(), issued_at: view.now, not_after, shape: view.shape() };
            verdict.wake = Some(checks::token_renewal_time(view, &token));
            verdict.fields = token_fields(Value::Minted(entry.clone()), not_after, scopes.join(" "));
            verdict.published = Some(PublishedEntry::of_token(&token));
            verdict.publish = Some(reason);
            let order = Order::AccessToken(TokenOrder {
                kid: key.kid.clone(),
                scopes: scopes.clone(),
                audience: audience.clone(),
                customers: view.customers.map(<[String]>::to_vec),
                customer_groups: view.customer_groups.map(<[String]>::to_vec),
            });
            verdict.will_be_served = true;
            verdict.mint = Some(Mint { entry, revision: 0, reason, minted_at: view.now, not_after, order });
        }
        (Some(_), obstacle, _) => {
            verdict.will_be_served = is_served;
            let no_key = || {
                let text =
                    "The authorization server has no token signing key yet: the controller creates one, and retries";
                Problem::new(Reason::ServerUnavailable, text)
            };
            verdict.problem = Some(obstacle.unwrap_or_else(no_key));
        }
        (None, _, _) => {
            verdict.will_be_served = is_served;
            if let Some((token, scopes)) = view.token().zip(scopes.as_ref().ok()) {
                verdict.wake = Some(checks::token_renewal_time(view, token));
                verdict.fields = token_fields(Value::Held(field::ACCESS_TOKEN), token.not_after, scopes.join(" "));
                let published = PublishedEntry::of_token(token);
                if self::published(view).as_ref() != Some(&published) {
                    verdict.publish = Some(Reason::FieldMissing);
                }
                verdict.published = Some(published);
            }
        }
    }
    verdict
}

fn token_fields(token: Value, not_after: Timestamp, scope: String) -> Vec<(&'static str, Value)> {
    vec![
        (field::ACCESS_TOKEN, token),
        (field::TOKEN_TYPE, Value::Text("Bearer".to_owned())),
        (field::EXPIRES_AT, Value::Text(not_after.as_second().to_string())),
        (field::SCOPE, Value::Text(scope)),
    ]
}

/// Whether the old revision goes on beside the new one. After a hand edit or a revocation it does not.
const fn is_gentle(reason: Reason) -> bool {
    matches!(reason, Reason::RenewalDue | Reason::RotationRequested | Reason::DurationShortened | Reason::SpecChanged)
}

/// Room for one more revision.
enum Room {
    Free { evict: Option<u64> },
    Full { until: Timestamp },
}

fn room(view: &View<'_>) -> Room {
    let live: Vec<_> = view.ledger.into_iter().flat_map(|l| &l.revisions).filter(|r| !r.is_expired(view.now)).collect();
    if live.len() < MOST_LIVE_REVISIONS {
        return Room::Free { evict: None };
    }
    let shown = [view.current(), view.previous()].map(|r| r.map(|r| r.revision));
    let old_enough = rotation::add(view.now, -LIMIT_GRACE);
    let spare = || live.iter().filter(|r| !shown.contains(&Some(r.revision)));
    if let Some(oldest) = spare().filter(|r| r.minted_at < old_enough).min_by_key(|r| r.revision) {
        Room::Free { evict: Some(oldest.revision) }
    } else {
        let ends = live.iter().map(|r| r.not_after).min();
        let matures = spare().map(|r| rotation::add(r.minted_at, LIMIT_GRACE + SignedDuration::from_secs(1))).min();
        Room::Full { until: earliest([ends, matures]).unwrap_or(view.now) }
    }
}

/// The number that the next mint takes: never one that stands in the ledger, whatever its counter says.
fn next_revision(view: &View<'_>) -> u64 {
    let highest = view.ledger.into_iter().flat_map(|l| &l.revisions).map(|r| r.revision).max().unwrap_or(0);
    view.ledger.map_or(1, |ledger| ledger.next_revision).max(highest.saturating_add(1))
}

/// Revisions that a revocation applies to, except one.
fn revoked(view: &View<'_>, except: Option<u64>) -> Vec<(u64, Reason)> {
    others(view, except).filter(|r| view.is_revoked(r.minted_at)).map(|r| (r.revision, Reason::Revoked)).collect()
}

/// Unexpired revisions except one.
fn others<'a>(view: &View<'a>, except: Option<u64>) -> impl Iterator<Item = &'a crate::ledger::Revision> {
    let now = view.now;
    view.ledger
        .into_iter()
        .flat_map(|ledger: &'a Credential| &ledger.revisions)
        .filter(move |r| Some(r.revision) != except && !r.is_expired(now))
}

/// What the annotation shall say of a revision.
fn said_of(view: &View<'_>, current: u64, previous: Option<u64>, since: Timestamp) -> PublishedEntry {
    let shape = (view.desired.settings.kind() == Kind::Certificate).then(|| view.shape());
    PublishedEntry { current: Some(current), previous, since, shape, kid: None, not_after: None }
}

/// What the annotation says.
fn published(view: &View<'_>) -> Option<PublishedEntry> {
    view.secret.ours().and_then(|secret| secret.published().0.get(&view.desired.name).cloned())
}

fn earliest(times: impl IntoIterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}
