//! The reverse look-up: what a policy's status says of the registrations that it selects, written at a bounded rate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::api::{MOST_NAMED_VIOLATIONS, Reason, RegistrationPolicy, RegistrationPolicyStatus};
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::Error;
use crate::policy::BY_POLICY;
use crate::rotation;

use super::governance::PolicyObject;
use super::{Context, requests};

/// The status of one policy is written at most this often.
const AT_MOST_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Between two writes: at most ten in a second, however many policies there are.
const PACE: Duration = Duration::from_millis(100);
/// How long to wait for changes to gather, and before what failed is tried again.
const GATHER: Duration = Duration::from_secs(1);

/// Which registrations keep what no policy allows, by what granted it, and how many each policy selects.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// What granted the kept items of every registration that was decided on since the start.
    kept_by: HashMap<ObjectName, BTreeSet<String>>,
    /// The violating registrations by policy.
    violating: HashMap<String, BTreeSet<ObjectName>>,
    /// How many registrations keep anything.
    keeping: usize,
    /// Policies whose status may be another now.
    due: BTreeSet<ObjectName>,
    /// When a status was written, of the last [`AT_MOST_EVERY`].
    written: BTreeMap<ObjectName, Timestamp>,
}

impl Tally {
    /// Takes note of what a registration keeps; `None` is one that is gone.
    pub(crate) fn note(&mut self, registration: &ObjectName, kept_by: Option<BTreeSet<String>>) {
        let after = kept_by.clone().unwrap_or_default();
        let before = match kept_by {
            Some(kept_by) => self.kept_by.insert(registration.clone(), kept_by),
            None => self.kept_by.remove(registration),
        };
        let before = before.unwrap_or_default();
        self.keeping = self.keeping + usize::from(!after.is_empty()) - usize::from(!before.is_empty());
        for policy in before.symmetric_difference(&after).filter_map(|by| by.strip_prefix(BY_POLICY)) {
            let violating = self.violating.entry(policy.to_owned()).or_default();
            if !violating.remove(registration) {
                violating.insert(registration.clone());
            }
            if violating.is_empty() {
                self.violating.remove(policy);
            }
            self.due.insert(ObjectName::new("", policy));
        }
    }

    /// Takes note that a registration was looked at, whatever came of it.
    pub(crate) fn saw(&mut self, registration: &ObjectName) {
        self.kept_by.entry(registration.clone()).or_default();
    }

    /// How many registrations keep something that no policy allows.
    pub(crate) const fn keeping(&self) -> usize {
        self.keeping
    }

    /// How many registrations were decided on.
    pub(crate) fn decided(&self) -> usize {
        self.kept_by.len()
    }

    /// The status of this policy may be another now.
    pub(crate) fn touch(&mut self, policy: &ObjectName) {
        if !self.due.contains(policy) {
            self.due.insert(policy.clone());
        }
    }

    /// The registrations that violate a policy, ordered by namespace and name.
    fn violating(&self, policy: &ObjectName) -> (usize, Vec<String>) {
        let Some(violating) = self.violating.get(&*policy.name) else { return (0, Vec::new()) };
        (violating.len(), violating.iter().take(MOST_NAMED_VIOLATIONS).map(ToString::to_string).collect())
    }

    /// Takes the policies whose status may be written now; the others stay due.
    fn take_due(&mut self, now: Timestamp) -> Vec<ObjectName> {
        self.written.retain(|_, at| now < rotation::add(*at, AT_MOST_EVERY) && *at <= now);
        let (later, ready): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.due).into_iter().partition(|policy| self.written.contains_key(policy));
        self.due = later;
        ready.into_iter().collect()
    }
}

/// Reports on policies until cancelled from outside.
pub(crate) async fn run(ctx: &Context) {
    loop {
        let due = {
            let mut state = ctx.state();
            // Before every registration was looked at once, the count of violations would be too low.
            let is_counted = state.world.tally.decided() >= state.world.registrations.len();
            if is_counted { state.world.tally.take_due(ctx.clock.now()) } else { Vec::new() }
        };
        for policy in due {
            match report(ctx, &policy).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    tracing::debug!(%policy, problem = error.chain(), "the status of a policy was not written");
                    ctx.state().world.tally.touch(&policy);
                }
            }
            sleep(PACE).await;
        }
        sleep(GATHER).await;
    }
}

/// Writes the status of a policy if it is another one now, and says whether it did.
async fn report(ctx: &Context, policy: &ObjectName) -> Result<bool, Error> {
    let now = rotation::whole_seconds(ctx.clock.now());
    let (version, status) = {
        let state = ctx.state();
        let Some(object) = state.world.governors.policies.value(policy) else { return Ok(false) };
        let registrations = state.world.governors.selected(policy).map(|ns| state.world.registrations_in(ns)).sum();
        let status = status(object, registrations, state.world.tally.violating(policy), now);
        if status == object.status {
            return Ok(false);
        }
        (state.world.governors.policies.version(policy).unwrap_or(0), status)
    };
    let written = requests::write_status::<RegistrationPolicy, _>(ctx, policy, &version.to_string(), &status).await?;
    if written.is_some() {
        ctx.state().world.tally.written.insert(policy.clone(), now);
    }
    Ok(true)
}

fn status(
    object: &PolicyObject,
    registrations: usize,
    (violations, violating): (usize, Vec<String>),
    now: Timestamp,
) -> RegistrationPolicyStatus {
    let count = |number: usize| Some(i64::try_from(number).unwrap_or(i64::MAX));
    let (reason, message) = match &object.rules {
        Ok(_) => (Reason::InForce, "The policy is in force".to_owned()),
        Err(problem) => {
            (Reason::InvalidSpec, format!("{problem}. Until then the policy selects nothing and allows nothing"))
        }
    };
    RegistrationPolicyStatus {
        observed_generation: Some(object.generation),
        registrations: count(registrations),
        violations: count(violations),
        violating,
        conditions: vec![requests::ready(&object.status.conditions, (reason, &message), object.generation, now)],
    }
}
