//! Tells: the status where it differs, Events for what people want to know, one log line, metrics.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{AppRegistration, AppRegistrationStatus, ConditionType, Message, Reason};
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::Error;
use crate::kubernetes::watch::Item;
use crate::plan::{self, Failure, Plan};

use super::act::Outcome;
use super::events;
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
    problem: &Message,
    now: Timestamp,
) -> Result<(), Error> {
    let message = format!("{problem}. Until then nothing is issued, rotated or removed for the registration");
    let message: String = message.chars().take(1024).collect();
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
    tracing::warn!(registration = %object, %problem, "a registration cannot be understood");
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
    let before = &snapshot.facts.registration.status.conditions;
    let notices = plan::notices(plan, &outcome.done);
    for notice in notices.into_iter().chain(plan::new_problems(before, &status.conditions)) {
        ctx.events.tell(events::about(registration), notice);
    }
    for mint in plan.mints.iter().filter(|_| outcome.failure.is_none()) {
        ctx.metrics.minted(mint.reason);
    }
    if let Some(failure) = &outcome.failure {
        ctx.metrics.failed(failure.reason.unwrap_or(Reason::RotationFailing));
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
