//! Tells: the status where it differs, Events for what people want to know, one log line, metrics.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{AppRegistration, AppRegistrationStatus, ConditionType, Reason};
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::Error;
use crate::kubernetes::watch::Item;
use crate::plan::{self, Change, Failure, Plan, Step};

use super::act::Outcome;
use super::events::{self, Notice, Severity};
use super::objects::Registered;
use super::observe::Snapshot;
use super::{Context, requests};

/// Reports a plan and what came of it. A status that is refused because it is stale is not an error: what changed
/// meanwhile brings the registration back.
pub(crate) async fn publish(
    ctx: &Context,
    snapshot: &Snapshot,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<(), Error> {
    let facts = &snapshot.facts;
    let object = &ObjectName::new(&facts.registration.namespace, &facts.registration.name);
    let status = match &outcome.failure {
        Some(failure) => plan::after_failure(facts, plan, failure, crate::rotation::whole_seconds(now)),
        None => filled(plan.status.clone(), outcome),
    };
    tell(ctx, snapshot, plan, outcome, &status);
    if status == facts.registration.status {
        return Ok(());
    }
    let version =
        requests::write_status::<AppRegistration, _>(ctx, object, &snapshot.resource_version, &status).await?;
    let Some(version) = version else { return Ok(()) };
    let mut registration = AppRegistration::clone(&snapshot.registration);
    registration.status = Some(status);
    registration.metadata.resource_version = Some(version.to_string());
    let value = Registered::Readable(Arc::new(registration));
    ctx.state().world.status_wrote(Item { object: object.clone(), version, value });
    Ok(())
}

/// Reports a registration that could not be understood: that one, and nothing else is held up by it.
pub(crate) async fn unreadable(
    ctx: &Context,
    object: &ObjectName,
    (generation, version): (i64, u64),
    problem: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let message: String = format!("the registration cannot be understood: {problem}").chars().take(1024).collect();
    let condition = |type_: ConditionType, status: &str| Condition {
        type_: type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: Reason::InvalidSpec.as_str().to_owned(),
        message: message.clone(),
        observed_generation: Some(generation),
        last_transition_time: Time(crate::rotation::whole_seconds(now)),
    };
    let status = AppRegistrationStatus {
        observed_generation: Some(generation),
        conditions: vec![condition(ConditionType::Ready, "False"), condition(ConditionType::Stalled, "True")],
        ..AppRegistrationStatus::default()
    };
    if ctx.state().world.is_reported(object, version) {
        // Reported already, at this very version.
        return Ok(());
    }
    tracing::warn!(registration = %object, problem, "a registration cannot be understood");
    if let Some(version) =
        requests::write_status::<AppRegistration, _>(ctx, object, &version.to_string(), &status).await?
    {
        ctx.state().world.report(object, version);
    }
    Ok(())
}

/// The status with what only minting and writing made known.
fn filled(mut status: AppRegistrationStatus, outcome: &Outcome) -> AppRegistrationStatus {
    for credential in &mut status.credentials {
        let Some(known) = outcome.minted.get(&credential.name) else { continue };
        if let Some(current) = &mut credential.current {
            current.hint.clone_from(&known.hint);
            current.thumbprint.clone_from(&known.thumbprint);
        }
    }
    for secret in &mut status.secrets {
        if let Some(version) = outcome.versions.get(&secret.name) {
            secret.resource_version.clone_from(version);
        }
    }
    status
}

/// Events, metrics and the log line.
fn tell(ctx: &Context, snapshot: &Snapshot, plan: &Plan, outcome: &Outcome, status: &AppRegistrationStatus) {
    let registration = &snapshot.registration;
    for notice in notices(plan, outcome) {
        ctx.events.tell(events::about(registration), notice);
    }
    for mint in plan.mints.iter().filter(|_| outcome.failure.is_none()) {
        ctx.metrics.minted(mint.reason);
    }
    let before = &snapshot.facts.registration.status.conditions;
    if let Some(failure) = &outcome.failure {
        ctx.metrics.failed(failure.reason.unwrap_or(Reason::RotationFailing));
    }
    for condition in &status.conditions {
        // What is kept against every policy needs nobody for it to work, and is told by what is not approved alone.
        let is_alone = !status.conditions.iter().any(|c| c.type_ == "Stalled" || c.type_ == "Reconciling");
        let is_problem = matches!(condition.type_.as_str(), "Stalled" | "Reconciling")
            || (condition.type_ == "Approved" && condition.status == "False" && is_alone);
        let is_new = !before.iter().any(|c| c.type_ == condition.type_ && c.reason == condition.reason);
        let reason = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason);
        if let Some(reason) = reason.filter(|r| is_problem && is_new && **r != Reason::Progressing) {
            let notice = Notice {
                severity: Severity::Warning,
                reason: *reason,
                action: "Reconcile",
                note: condition.message.clone(),
            };
            ctx.events.tell(events::about(registration), notice);
        }
    }
    if !plan.steps.is_empty() || outcome.failure.is_some() {
        log(snapshot, plan, outcome.failure.as_ref());
    }
}

fn log(snapshot: &Snapshot, plan: &Plan, failure: Option<&Failure>) {
    let registration = &snapshot.facts.registration;
    let name = format!("{}/{}", registration.namespace, registration.name);
    let reasons: Vec<&str> = plan.mints.iter().map(|mint| mint.reason.as_str()).collect();
    let (steps, reasons) = (plan.steps.len(), reasons.join(","));
    match failure {
        None => tracing::info!(registration = name, steps, reasons, "reconciled"),
        Some(failure) => {
            tracing::warn!(registration = name, steps, reasons, problem = failure.message, "not reconciled");
        }
    }
}

/// What people want to know of the steps that were done: rotation, revocation, repair; not the first mint, not the
/// refresh of a token.
fn notices(plan: &Plan, outcome: &Outcome) -> Vec<Notice> {
    let published = outcome.done.iter().any(|index| matches!(plan.steps[*index], Step::Publish(_)));
    let mut notices: Vec<_> = plan
        .mints
        .iter()
        .filter(|mint| published && is_told(mint.reason))
        .map(|mint| {
            let (action, what) = if mint.reason == Reason::RevocationRequested {
                ("Revoke", "revoked and replaced")
            } else {
                ("Rotate", "replaced")
            };
            let note = if mint.revision > 0 {
                format!("{} {what} by revision {}, valid until {}", mint.entry, mint.revision, mint.not_after)
            } else {
                format!("{} {what} by a token valid until {}", mint.entry, mint.not_after)
            };
            Notice { severity: severity(mint.reason), reason: mint.reason, action, note }
        })
        .collect();
    for index in &outcome.done {
        if let Step::Accept(accept) = &plan.steps[*index] {
            notices.extend(accept.given.iter().filter(|change| change.reason != Reason::TakenUp).map(of_given));
        }
        match &plan.steps[*index] {
            // A hand edit that cost a credential is told by the mint.
            Step::Publish(publish) if is_repair(publish.reason, plan) => notices.push(Notice {
                severity: Severity::Warning,
                reason: publish.reason,
                action: "Repair",
                note: format!("the Secret {} was written anew: a field or a mark was missing or changed", publish.name),
            }),
            Step::Retire(retire) if !retire.entries.is_empty() => notices.push(Notice {
                severity: Severity::Normal,
                reason: Reason::EntryRemoved,
                action: "Revoke",
                note: format!("no longer accepted: {}", retire.entries.join(", ")),
            }),
            Step::Accept(accept) if matches!(accept.reason, Reason::Adopted | Reason::TakenOver) => {
                notices.push(Notice {
                    severity: Severity::Normal,
                    reason: accept.reason,
                    action: "Register",
                    note: format!("the client {} is this registration's from now on", accept.entry.client_id),
                });
            }
            Step::Accept(_) | Step::Publish(_) | Step::Remove(_) | Step::Retire(_) => {}
        }
    }
    notices
}

/// What became of a credential that is given, after its first time.
fn of_given(change: &Change) -> Notice {
    let Change { entry, revision, reason, not_after } = change;
    let what = match *revision {
        0 => "its ServiceAccount".to_owned(),
        revision => format!("revision {revision} of its key"),
    };
    let (action, note) = if *reason == Reason::Revoked {
        ("Revoke", format!("{entry}: {what}, and what was had with it, is refused from now on"))
    } else {
        let until = not_after.map_or_else(String::new, |end| format!(", until {end}"));
        ("Rotate", format!("{entry}: {what} is accepted from now on{until}, and nothing that was before"))
    };
    Notice { severity: Severity::Normal, reason: *reason, action, note }
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
