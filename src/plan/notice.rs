//! Plan and outcome → the Events about a registration: what people want to know of the steps that were done, and of
//! problems that are new.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ConditionType, Reason, Sighting};

use super::{Change, Mint, Plan, Step};

/// Whether a notice is a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is not.
    Normal,
    /// It is.
    Warning,
}

/// The content of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a warning.
    pub severity: Severity,
    /// Why.
    pub reason: Reason,
    /// What was done, in one word.
    pub action: &'static str,
    /// For a person: begins with a capital letter.
    pub note: String,
}

/// The notices of the steps that were done, by their positions: rotation, revocation, repair. The first mint and the
/// refresh of a token are none.
#[must_use]
pub fn notices(plan: &Plan, done: &[usize]) -> Vec<Notice> {
    let steps = || done.iter().filter_map(|index| plan.steps.get(*index));
    let is_published = steps().any(|step| matches!(step, Step::Publish(_)));
    let mints = plan.mints.iter().filter(|mint| is_published && is_told(mint.reason));
    let mut notices: Vec<_> = mints.map(of_mint).collect();
    for step in steps() {
        match step {
            Step::Accept(accept) => {
                let changes = accept.given.iter().filter(|change| change.reason != Reason::TakenUp);
                notices.extend(changes.map(of_given));
                if matches!(accept.reason, Reason::Adopted | Reason::TakenOver) {
                    let client_id = &accept.entry.client_id;
                    let note = because(&format!("Client {client_id} now belongs to this registration"), accept.reason);
                    notices.push(Notice {
                        severity: Severity::Normal,
                        reason: accept.reason,
                        action: "Register",
                        note,
                    });
                }
            }
            // A hand edit that cost a credential is told by the mint.
            Step::Publish(publish) if is_repair(publish.reason, plan) => notices.push(Notice {
                severity: Severity::Warning,
                reason: publish.reason,
                action: "Repair",
                note: format!(
                    "The Secret {} was repaired: a field, label or annotation was missing or changed",
                    publish.name
                ),
            }),
            Step::Retire(retire) if !retire.entries.is_empty() => notices.push(Notice {
                severity: Severity::Normal,
                reason: Reason::EntryRemoved,
                action: "Revoke",
                note: format!(
                    "Credentials that were removed from the spec are no longer accepted: {}",
                    retire.entries.join(", ")
                ),
            }),
            Step::Publish(_) | Step::Remove(_) | Step::Retire(_) => {}
        }
    }
    notices
}

/// The notices of problems that the conditions say and did not say before.
#[must_use]
pub fn new_problems(before: &[Condition], after: &[Condition]) -> Vec<Notice> {
    let is = |condition: &Condition, type_: ConditionType| condition.type_ == type_.as_str();
    let is_obstructed = |c: &Condition| is(c, ConditionType::Stalled) || is(c, ConditionType::Reconciling);
    // Items that are kept although no policy allows them do not block the registration: Approved=False alone reports them.
    let is_alone = !after.iter().any(is_obstructed);
    let is_problem =
        |c: &&Condition| is_obstructed(c) || (is_alone && is(c, ConditionType::Approved) && c.status == "False");
    let is_new = |c: &&Condition| !before.iter().any(|b| b.type_ == c.type_ && b.reason == c.reason);
    let told = after.iter().filter(is_problem).filter(is_new);
    told.filter_map(|condition| {
        let reason = Reason::named(&condition.reason).filter(|reason| reason.is_seen_in(Sighting::Event))?;
        let note = condition.message.clone();
        Some(Notice { severity: Severity::Warning, reason, action: "Reconcile", note })
    })
    .collect()
}

/// A minted credential that takes the place of another one.
fn of_mint(mint: &Mint) -> Notice {
    let Mint { entry, revision, reason, not_after, .. } = mint;
    let (action, what) = match reason {
        Reason::RevocationRequested => ("Revoke", "was revoked and replaced"),
        _ => ("Rotate", "was replaced"),
    };
    let by = match *revision {
        0 => "a token".to_owned(),
        revision => format!("revision {revision}"),
    };
    let note = because(&format!("Credential {entry} {what} by {by}, which is valid until {not_after}"), *reason);
    Notice { severity: severity(*reason), reason: *reason, action, note }
}

/// A credential that the application brings itself, after its first time.
fn of_given(change: &Change) -> Notice {
    let Change { entry, revision, reason, not_after } = change;
    let until = not_after.map_or_else(String::new, |end| format!(" until {end}"));
    let (action, note) = match (*reason, *revision) {
        (Reason::Revoked, 0) => (
            "Revoke",
            format!(
                "Credential {entry} was revoked: earlier tokens of its ServiceAccount, and access tokens obtained with \
                 them, are rejected"
            ),
        ),
        (Reason::Revoked, revision) => (
            "Revoke",
            format!("Credential {entry}: revision {revision} was revoked; access tokens obtained with it are rejected"),
        ),
        (_, 0) => (
            "Rotate",
            format!("Credential {entry}: its new ServiceAccount is now accepted{until}; the former one is not"),
        ),
        (_, revision) => (
            "Rotate",
            format!("Credential {entry}: revision {revision} is now accepted{until}; earlier revisions are not"),
        ),
    };
    Notice { severity: Severity::Normal, reason: *reason, action, note }
}

/// What happened, and the meaning of its reason.
fn because(note: &str, reason: Reason) -> String {
    format!("{note}. {}", reason.meaning().trim_end_matches('.'))
}

fn is_repair(reason: Reason, plan: &Plan) -> bool {
    reason == Reason::FieldMissing
        || (reason == Reason::SecretChanged && !plan.mints.iter().any(|mint| mint.reason == reason))
}

const fn is_told(reason: Reason) -> bool {
    !matches!(reason, Reason::FirstMint | Reason::TokenDue | Reason::GrantChanged)
}

const fn severity(reason: Reason) -> Severity {
    match reason {
        Reason::SecretChanged | Reason::SecretDeleted | Reason::FieldMissing | Reason::Expired => Severity::Warning,
        _ => Severity::Normal,
    }
}
