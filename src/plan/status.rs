//! Facts and plan → the status: what a person, kstatus and `kubectl wait` read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{
    AppRegistrationStatus, ConditionType, CredentialStatus, Granted, GrantedApi, Kind, LongDuration, Message, Reason,
    RevisionStatus, SecretStatus, ServerInUse, StatusTime,
};
use crate::credential::public_key;
use crate::ledger::Credential;
use crate::rotation::{self, Identity, NO_END};

use super::desired::{Desired, Settings};
use super::facts::{Admission, Facts, LedgerFact};
use super::given::{self, Given};
use super::ledger::{Client, SERVER};
use super::{Draft, Plan, Problem, Step};

/// The longest message of a condition, in characters. The API allows 32768.
const LONGEST_MESSAGE: usize = 1024;

/// The first step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, as a condition's reason; none where the reason follows from what is served.
    pub reason: Option<Reason>,
    /// For a person.
    pub message: String,
}

/// The status when every step has succeeded.
pub(super) fn success(
    facts: &Facts,
    client: &Client,
    draft: &Draft,
    steps: &[Step],
    now: Timestamp,
) -> AppRegistrationStatus {
    let credentials = credentials(facts, client, draft);
    let mut next: Vec<_> = draft
        .verdicts
        .iter()
        .filter(|(desired, _)| desired.settings.kind() != Kind::AccessToken)
        .filter_map(|(_, verdict)| verdict.wake)
        .chain(draft.given.iter().filter_map(|(_, verdict)| verdict.wake))
        .chain(draft.watermarks_to_come())
        .collect();
    next.sort_unstable();
    let is_nothing = draft.verdicts.is_empty() && draft.given.is_empty();
    let is_ready = draft.verdicts.iter().all(|(_, verdict)| verdict.will_be_served)
        && draft.given.iter().all(|(_, verdict)| verdict.will_be_served)
        && !draft.problems.iter().any(|problem| problem.reason == Reason::InvalidSpec && is_nothing);
    let before = &facts.registration.status;
    AppRegistrationStatus {
        observed_generation: Some(facts.registration.generation),
        client_id: Some(client.id.clone()),
        authorization_server: Some(server(facts)),
        granted: Some(granted(draft)),
        credentials,
        secrets: secrets(facts, draft, steps, &draft.doubtful(facts, steps)),
        next_rotation_time: next.first().copied().map(StatusTime::from),
        conditions: conditions(facts, &before.conditions, &approved(facts, draft), &ready(facts, is_ready, draft), now),
    }
}

/// The status of a registration of which nothing can be decided: what was reported stays, with the problem.
pub(super) fn blocked(facts: &Facts, problem: &Problem, now: Timestamp) -> AppRegistrationStatus {
    let registration = &facts.registration;
    let mut status = match &facts.ledger {
        // Nothing was ever made for it. Whatever its status says, it has from somebody else.
        LedgerFact::Absent | LedgerFact::Taken => AppRegistrationStatus::default(),
        LedgerFact::Held { .. } | LedgerFact::Unreadable(_) => registration.status.clone(),
    };
    status.observed_generation = Some(registration.generation);
    status.authorization_server = Some(server(facts));
    status.next_rotation_time = None;
    let was_ready = !status.credentials.is_empty()
        && status.credentials.iter().all(|credential| {
            let is_valid = |end: Option<StatusTime>| end.is_none_or(|end| now < end.timestamp());
            // Of these two the status has no times.
            matches!(credential.kind, Some(Kind::AccessToken | Kind::ServiceAccount))
                || credential.current.as_ref().is_some_and(|current| is_valid(current.not_after))
        });
    let ready = Ready { is_ready: was_ready, problem: Some(problem.clone()) };
    let approval = Approval { denied: is_denied(problem.reason).then(|| problem.clone()), notes: Vec::new() };
    status.conditions = conditions(facts, &registration.status.conditions, &approval, &ready, now);
    status
}

/// The status after a step has failed: what was reported of the credentials stays, with the failure.
#[must_use]
pub fn after_failure(facts: &Facts, plan: &Plan, failure: &Failure, now: Timestamp) -> AppRegistrationStatus {
    let registration = &facts.registration;
    let before = &registration.status;
    let mut status = AppRegistrationStatus {
        credentials: before.credentials.clone(),
        secrets: before.secrets.clone(),
        next_rotation_time: None,
        ..plan.status.clone()
    };
    let reason = failure.reason.unwrap_or(if plan.is_served { Reason::RotationFailing } else { Reason::Progressing });
    let ready = Ready {
        is_ready: plan.is_served && !before.credentials.is_empty(),
        problem: Some(Problem::new(reason, failure.message.clone())),
    };
    let approved = plan.status.conditions.iter().find(|c| c.type_ == ConditionType::Approved.as_str());
    let denied = approved
        .filter(|c| c.status == "False")
        .map(|c| Problem::new(Reason::named(&c.reason).unwrap_or(Reason::PolicyDenied), c.message.clone()));
    let approval = Approval { denied, notes: Vec::new() };
    status.conditions = conditions(facts, &before.conditions, &approval, &ready, now);
    status
}

/// Whether a reason says that something is not granted.
const fn is_denied(reason: Reason) -> bool {
    matches!(reason, Reason::PolicyDenied | Reason::NoPolicy | Reason::ServerDenied | Reason::QuotaExceeded)
}

/// Whether a reason needs a person (`Stalled`); the others are worked on or waited for (`Reconciling`).
const fn is_stalled(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PolicyDenied
            | Reason::NoPolicy
            | Reason::ServerDenied
            | Reason::SecretConflict
            | Reason::SecretImmutable
            | Reason::ClientIDTaken
            | Reason::InvalidSpec
            | Reason::LedgerUnreadable
            // Of what is given: a person has to give something newer.
            | Reason::Expired
            | Reason::Revoked
    )
}

struct Ready {
    is_ready: bool,
    problem: Option<Problem>,
}

struct Approval {
    denied: Option<Problem>,
    notes: Vec<Message>,
}

fn ready(facts: &Facts, is_ready: bool, draft: &Draft) -> Ready {
    // What needs a person is said first: it would otherwise hide behind what mends itself.
    let problem =
        draft.problems.iter().find(|problem| is_stalled(problem.reason)).or_else(|| draft.problems.first()).cloned();
    // What is kept against every policy is said as not approved, and is nothing that must be done.
    let denied = draft.decision.reason().and_then(|reason| {
        let message = approved(facts, draft).denied?.message;
        Some(Problem { reason, message })
    });
    Ready { is_ready, problem: problem.or(denied) }
}

fn approved(facts: &Facts, draft: &Draft) -> Approval {
    let of_entries: Vec<_> = draft.problems.iter().filter(|problem| is_denied(problem.reason)).collect();
    let reason = draft.decision.reason().or_else(|| of_entries.first().map(|problem| problem.reason));
    let of_items = Some(draft.decision.message(facts.registration.subject())).filter(|message| !message.is_empty());
    let all: Vec<_> =
        of_items.into_iter().chain(of_entries.iter().map(|problem| problem.message.to_string())).collect();
    let denied = (!all.is_empty()).then(|| Problem::new(reason.unwrap_or(Reason::PolicyDenied), all.join(". ")));
    let denied = denied.or_else(|| match &facts.admission {
        // Nothing new is asked for, so nothing is to be done about it.
        Admission::Closed(reason) => Some(Problem::of_field(Reason::ServerDenied, SERVER, reason.clone())),
        Admission::Open | Admission::Unavailable(_) => None,
    });
    Approval { denied, notes: draft.resolved.notes.clone() }
}

fn conditions(
    facts: &Facts,
    before: &[Condition],
    approval: &Approval,
    ready: &Ready,
    now: Timestamp,
) -> Vec<Condition> {
    let mut wanted = Vec::new();
    let problem = ready.problem.as_ref();
    let (reason, message) = match problem {
        Some(problem) if !ready.is_ready => (problem.reason, problem.message.to_string()),
        Some(_) | None if ready.is_ready => (Reason::Issued, "Every credential is accepted".to_owned()),
        Some(_) | None => (Reason::Progressing, "Credentials are being made".to_owned()),
    };
    wanted.push((ConditionType::Ready, ready.is_ready, reason, message));
    if let Some(denied) = &approval.denied {
        wanted.push((ConditionType::Approved, false, denied.reason, denied.message.to_string()));
    } else {
        let notes = if approval.notes.is_empty() {
            "Everything that is asked for is granted".to_owned()
        } else {
            approval.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join(". ")
        };
        wanted.push((ConditionType::Approved, true, Reason::Granted, notes));
    }
    if let Some(problem) = problem {
        let type_ = if is_stalled(problem.reason) { ConditionType::Stalled } else { ConditionType::Reconciling };
        wanted.push((type_, true, problem.reason, problem.message.to_string()));
    } else if !ready.is_ready {
        let message = "Credentials are being made".to_owned();
        wanted.push((ConditionType::Reconciling, true, Reason::Progressing, message));
    }
    let condition = |(type_, is_true, reason, message): (ConditionType, bool, Reason, String)| {
        let status = if is_true { "True" } else { "False" };
        let since = before
            .iter()
            .find(|c| c.type_ == type_.as_str() && c.status == status)
            .map_or_else(|| Time(now), |c| c.last_transition_time.clone());
        Condition {
            type_: type_.as_str().to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: message.chars().take(LONGEST_MESSAGE).collect(),
            observed_generation: Some(facts.registration.generation),
            last_transition_time: since,
        }
    };
    wanted.into_iter().map(condition).collect()
}

fn server(facts: &Facts) -> ServerInUse {
    let server = &facts.environment.server;
    ServerInUse { name: server.name.clone(), issuer: server.issuer.clone(), token_endpoint: server.token_endpoint() }
}

fn granted(draft: &Draft) -> Granted {
    let grant = &draft.decision.grant;
    let items = |map: &BTreeMap<String, String>| map.keys().cloned().collect();
    Granted {
        scopes: items(&grant.scopes),
        apis: grant.apis.iter().map(|(audience, api)| granted_api(audience, &api.scopes)).collect(),
        served_audiences: items(&grant.served_audiences),
        redirect_uris: items(&grant.redirect_uris),
        customers: items(&grant.customers),
        customer_groups: items(&grant.customer_groups),
    }
}

fn granted_api(audience: &str, scopes: &BTreeMap<String, String>) -> GrantedApi {
    GrantedApi { audience: audience.to_owned(), scopes: scopes.keys().cloned().collect() }
}

/// The Secrets that hold more than access tokens, with the resourceVersion that was seen to be in order. Those that the
/// plan writes get theirs from the answer.
fn secrets(facts: &Facts, draft: &Draft, steps: &[Step], doubtful: &BTreeSet<String>) -> Vec<SecretStatus> {
    let mut names: Vec<&str> = draft
        .verdicts
        .iter()
        .filter(|(desired, _)| desired.settings.kind() != Kind::AccessToken)
        .map(|(desired, _)| desired.secret.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let is_written = |name: &str| steps.iter().any(|step| matches!(step, Step::Publish(p) if p.name == name));
    let version = |name: &str| facts.secrets.get(name)?.ours().map(|secret| secret.resource_version.clone());
    names
        .into_iter()
        .filter(|name| !doubtful.contains(*name))
        .filter_map(|name| match version(name) {
            Some(version) => Some(SecretStatus { name: name.to_owned(), resource_version: version }),
            None if is_written(name) => Some(SecretStatus { name: name.to_owned(), ..SecretStatus::default() }),
            None => None,
        })
        .collect()
}

/// The credentials in the order of the spec.
fn credentials(facts: &Facts, client: &Client, draft: &Draft) -> Vec<CredentialStatus> {
    let minted = draft.verdicts.iter().map(|(desired, verdict)| {
        let credential = client.entry().and_then(|entry| entry.credentials.get(&desired.name));
        credential_status(facts, desired, verdict, credential)
    });
    let given = draft.given.iter().map(|(given, verdict)| given_status(given, verdict));
    let mut all: Vec<_> = minted.chain(given).collect();
    let entries = facts.registration.spec.effective_credentials();
    all.sort_by_key(|status| entries.iter().position(|entry| entry.name == status.name));
    all
}

/// What is given as the ledger shall have it.
fn given_status(given: &Given, verdict: &given::Verdict) -> CredentialStatus {
    let credential = verdict.credential.as_ref();
    let of = |revision: u64| {
        let known = credential?.revision(revision)?;
        Some(RevisionStatus {
            revision,
            thumbprint: public_key::thumbprint(&known.verifier),
            minted_time: Some(known.minted_at.into()),
            not_after: Some(known.not_after).filter(|end| *end < NO_END).map(StatusTime::from),
            ..RevisionStatus::default()
        })
    };
    CredentialStatus {
        name: given.name.clone(),
        kind: Some(given.kind()),
        subject: credential.and_then(|credential| credential.subject.clone()),
        current: verdict.revision.and_then(of),
        ..CredentialStatus::default()
    }
}

fn credential_status(
    facts: &Facts,
    desired: &Desired,
    verdict: &super::entry::Verdict,
    credential: Option<&Credential>,
) -> CredentialStatus {
    let rhythm = desired.rhythm;
    let text = |duration: jiff::SignedDuration| {
        Some(LongDuration::from_seconds(duration.as_secs().unsigned_abs()).to_string())
    };
    let mut status = CredentialStatus {
        name: desired.name.clone(),
        kind: Some(desired.settings.kind()),
        secret_name: Some(desired.secret.clone()),
        effective_duration: text(rhythm.effective_duration),
        renew_before: text(rhythm.renew_before),
        ..CredentialStatus::default()
    };
    if let Settings::AccessToken { audience, scopes } = &desired.settings {
        status.audience = Some(audience.clone());
        status.scopes = scopes.clone().unwrap_or_default();
        return status;
    }
    status.overlap = text(rhythm.overlap());
    // What it shall show, not what its annotation says: that is anybody's to write.
    let Some(shown) = verdict.published.as_ref() else { return status };
    let identity = |revision| Identity { uid: &facts.registration.uid, entry: &desired.name, revision };
    let of = |revision: u64| -> Option<RevisionStatus> {
        let renewal = |minted_at, not_after| Some(rhythm.renewal_time(identity(revision), minted_at, not_after).into());
        if let Some(mint) = verdict.mint.as_ref().filter(|mint| mint.revision == revision) {
            return Some(RevisionStatus {
                revision,
                minted_time: Some(mint.minted_at.into()),
                not_after: Some(mint.not_after.into()),
                renewal_time: renewal(mint.minted_at, mint.not_after),
                ..RevisionStatus::default()
            });
        }
        let known = credential?.revision(revision)?;
        Some(RevisionStatus {
            revision,
            hint: known.hint.clone(),
            thumbprint: public_key::thumbprint(&known.verifier),
            minted_time: Some(known.minted_at.into()),
            not_after: Some(known.not_after.into()),
            renewal_time: renewal(known.minted_at, known.not_after),
            accepted_until_time: None,
        })
    };
    status.current = shown.current.and_then(of);
    status.previous = shown.previous.and_then(of).map(|previous| {
        let overlap_end = rotation::add(shown.since, rhythm.overlap());
        let end = previous.not_after.map_or(overlap_end, |end| end.timestamp().min(overlap_end));
        RevisionStatus { accepted_until_time: Some(end.into()), renewal_time: None, ..previous }
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Sighting;

    #[test]
    fn the_reference_says_of_each_reason_whether_a_person_must_act() {
        for reason in Reason::ALL {
            assert_eq!(is_stalled(*reason), reason.is_seen_in(Sighting::Stalled), "{reason}");
            assert!(!is_denied(*reason) || reason.is_seen_in(Sighting::Approved), "{reason}");
        }
    }
}
