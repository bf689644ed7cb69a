//! What shall be done: [`decide`] turns facts into a plan, and does nothing else.
//!
//! Pure and total: no clock, no client, no randomness, no error. Same facts and time, same plan. A plan is plain data
//! without key material: it is printed, logged and compared. It may be cut after any step; planning again converges to
//! the same end, because additions come first and removals last, and because *current* is what the Secret holds.

pub mod facts;

mod checks;
mod connection;
mod desired;
mod display;
mod entry;
mod given;
mod ledger;
mod methods;
mod notice;
mod objections;
mod obstacle;
mod secret;
mod status;
mod steps;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::api::Reason;
use crate::policy::{self, Absence};
use crate::rotation;

pub use connection::Connection;
pub use given::Change;
pub use notice::{Notice, Severity, new_problems, notices};
pub use objections::{Objections, objections};
pub use secret::{Reading, contents, hinted_contents};
pub use status::{Failure, after_failure};
pub use steps::{
    Accept, LedgerWrite, Look, Mint, Order, Plan, Problem, Publish, Remove, Retire, SecretWrite, Step, TokenOrder,
    Value,
};

use self::ledger::Client;
use checks::View;
use desired::Desired;
use entry::Verdict;
use facts::{Facts, SecretFact};
use given::Given;

/// How long to wait before looking again at what only somebody else can mend and no watch tells of.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// How long a client ID that is taken is left alone.
const TRY_TAKEN_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// The plan for one registration at one time.
#[must_use]
pub fn decide(facts: &Facts, now: Timestamp) -> Plan {
    let now = rotation::whole_seconds(now);
    let unseen = unseen(facts);
    if !unseen.is_empty() {
        return Plan::looking_at(Look { secrets: unseen, ..Look::default() });
    }
    let client = match ledger::client(facts, now) {
        Ok(client) => client,
        Err(ledger::Blocked::Confirm) => {
            return Plan::looking_at(Look { registration: true, ..Look::default() });
        }
        Err(ledger::Blocked::Read(secrets)) => return Plan::looking_at(Look { secrets, ..Look::default() }),
        Err(ledger::Blocked::Problem(problem)) => return blocked(facts, &problem, now),
    };
    let draft = Draft::of(facts, &client, now);
    if !draft.decision.unseen.is_empty() {
        return Plan::looking_at(Look { approvals: draft.decision.unseen, ..Look::default() });
    }
    let plan = draft.plan(facts, &client, now);
    let look = look(&plan, facts, &client);
    if look.is_empty() { plan } else { Plan::looking_at(look) }
}

/// Everything decided about the entries, before it becomes steps.
struct Draft {
    resolved: desired::Resolved,
    decision: policy::Decision,
    verdicts: Vec<(Desired, Verdict)>,
    given: Vec<(Given, given::Verdict)>,
    problems: Vec<Problem>,
    next_revocation: Option<Timestamp>,
}

impl Draft {
    fn of(facts: &Facts, client: &Client, now: Timestamp) -> Self {
        let registration = &facts.registration;
        let mut decision = ledger::grant(facts, client, now);
        let resolved = desired::resolve(registration, facts.law(), client.entry(), &decision, now);
        let customers = decision.grant.customers_claim();
        let customer_groups = decision.grant.customer_groups_claim();
        let clock = obstacle::clock_is_behind(client, now);
        let terminating = obstacle::is_terminating(facts);
        let mut verdicts = Vec::new();
        let mut problems: Vec<_> = terminating.iter().chain(&resolved.problems).cloned().collect();
        for desired in &resolved.entries {
            let kind = desired.settings.kind();
            let secret = facts.secrets.get(&desired.secret).unwrap_or(&ABSENT);
            let nothing = desired.settings.nothing_shown();
            let shown = secret
                .ours()
                .and_then(|secret| secret.contents.as_ref())
                .and_then(|contents| contents.shown.get(&desired.name))
                .unwrap_or(&nothing);
            let view = View {
                now,
                uid: &registration.uid,
                client_id: &client.id,
                desired,
                ledger: client.credential(&desired.name, kind),
                secret,
                shown,
                keys: &facts.environment.keys,
                issuer: &facts.environment.server.issuer,
                tokens_from: tokens_from(client, desired),
                customers: customers.as_deref(),
                customer_groups: customer_groups.as_deref(),
            };
            let unwritable = secret::obstacle(facts, desired, secret);
            let obstacle = unwritable
                .clone()
                .or_else(|| terminating.clone())
                .or_else(|| clock.clone())
                .or_else(|| {
                    obstacle::credential_is_denied(&desired.name, desired.settings.key_type(), kind, client, facts)
                })
                .or_else(|| obstacle::authority_is_missing(&view, facts))
                .or_else(|| desired.settings.obstacle());
            let mut verdict = entry::decide(&view, obstacle);
            // Said even while nothing is due: a person has time to mend it before something is.
            verdict.is_obstructed = unwritable.is_some();
            verdict.problem = verdict.problem.or(unwritable).or_else(|| desired.settings.obstacle());
            problems.extend(verdict.problem.clone());
            verdicts.push((desired.clone(), verdict));
        }
        let given: Vec<_> = resolved.given.iter().map(|g| (g.clone(), Self::given(g, facts, client, now))).collect();
        problems.extend(given.iter().filter_map(|(_, verdict)| verdict.problem.clone()));
        let before = client.entry();
        let (methods, denied) = methods::allowed(&registration.spec, before, &given, &facts.governance);
        decision.grant.auth_methods = methods;
        problems.extend(denied);
        let (grant_types, denied) = methods::grant_types(&registration.spec, before, &facts.governance);
        decision.grant.grant_types = Some(grant_types);
        problems.extend(denied);
        let next_revocation = desired::next_revocation(registration, now);
        Self { resolved, decision, verdicts, given, problems, next_revocation }
    }

    /// The verdict on a credential that is given.
    fn given(given: &Given, facts: &Facts, client: &Client, now: Timestamp) -> given::Verdict {
        let kind = given.kind();
        let ledger = client.credential(&given.name, kind);
        let denied = || {
            obstacle::is_terminating(facts)
                .or_else(|| obstacle::credential_is_denied(&given.name, None, kind, client, facts))
        };
        let obstacle = match given.settings {
            given::Settings::PublicKey(_) => obstacle::clock_is_behind(client, now).or_else(denied),
            // It has no revisions, and with them no time that a clock could be behind.
            given::Settings::ServiceAccount { .. } => denied(),
        };
        given::decide(given, given::Seen { now, ledger, obstacle })
    }

    fn plan(&self, facts: &Facts, client: &Client, now: Timestamp) -> Plan {
        let mints: Vec<_> = self.verdicts.iter().filter_map(|(_, verdict)| verdict.mint.clone()).collect();
        let mut steps = Vec::new();
        let accept = ledger::accept(facts, client, self, now);
        let accepts = accept.is_some();
        steps.extend(accept.map(Step::Accept));
        let mut publishes = secret::publish(facts, client, self, now);
        // A Secret that is there is kept up to date to the last; none is created any more.
        publishes.retain(|publish| !facts.registration.is_terminating || publish.write != SecretWrite::Create);
        steps.extend(publishes.into_iter().map(Step::Publish));
        steps.extend(secret::remove(facts).into_iter().map(Step::Remove));
        steps.extend(ledger::retire(client, self, accepts).map(Step::Retire));
        let is_doubtful = facts.governance.absent.values().any(|absence| *absence == Absence::Doubtful);
        let wake = self
            .verdicts
            .iter()
            .filter_map(|(_, verdict)| verdict.wake)
            .chain(self.decision.next_expiry)
            .chain(is_doubtful.then(|| rotation::add(now, LOOK_AGAIN)))
            .chain(self.given.iter().filter_map(|(_, verdict)| verdict.wake))
            .chain(self.watermarks_to_come())
            .chain(
                self.problems
                    .iter()
                    .filter(|p| obstacle::needs_another_look(p.reason))
                    .map(|_| rotation::add(now, LOOK_AGAIN)),
            )
            .min()
            .map(rotation::whole_seconds_up);
        Plan {
            look: Look::default(),
            status: status::success(facts, client, self, &steps, now),
            doubtful: self.doubtful(facts, &steps),
            kept_by: self.decision.kept.iter().map(|kept| kept.by.clone()).collect(),
            is_served: self.verdicts.iter().all(|(_, verdict)| verdict.is_served)
                && self.given.iter().all(|(_, verdict)| verdict.is_served),
            mints,
            steps,
            wake,
        }
    }

    /// Secrets that a person must mend, and those that say of an entry what they do not hold.
    fn doubtful(&self, facts: &Facts, steps: &[Step]) -> BTreeSet<String> {
        let is_written = |name: &str| steps.iter().any(|step| matches!(step, Step::Publish(p) if p.name == name));
        let says = |desired: &Desired| {
            let secret = facts.secrets.get(&desired.secret).and_then(SecretFact::ours);
            secret.is_some_and(|secret| secret.published().0.contains_key(&desired.name))
        };
        self.verdicts
            .iter()
            .filter(|(desired, verdict)| {
                verdict.is_obstructed || (verdict.published.is_none() && says(desired) && !is_written(&desired.secret))
            })
            .map(|(desired, _)| desired.secret.clone())
            .collect()
    }

    fn watermarks_to_come(&self) -> impl Iterator<Item = Timestamp> {
        let of_given = self.resolved.given.iter().filter_map(|given| given.next_watermark);
        let of_minted = self.resolved.entries.iter().filter_map(|desired| desired.next_watermark);
        of_minted.chain(of_given).chain(self.next_revocation)
    }
}

impl Plan {
    fn looking_at(look: Look) -> Self {
        Self { look, ..Self::default() }
    }

    /// Whether nothing is to be written except, maybe, the status.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.look.is_empty() && self.steps.is_empty() && self.mints.is_empty()
    }
}

const ABSENT: SecretFact = SecretFact::Absent(facts::Source::Watched);

/// Secrets of ours of which it is not known what they hold.
fn unseen(facts: &Facts) -> BTreeSet<String> {
    facts
        .secrets
        .iter()
        .filter(|(_, secret)| secret.ours().is_some_and(|secret| secret.contents.is_none()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// What a plan needs to have been read live (rule R5): the Secret of every revision that is added to or dropped from an
/// existing entry, and of every value that is kept.
fn look(plan: &Plan, facts: &Facts, client: &Client) -> Look {
    let mut secrets = BTreeSet::new();
    let secret_of = |entry: &str| {
        facts
            .registration
            .spec
            .effective_credentials()
            .iter()
            .find(|e| e.name == entry)
            .and_then(|e| crate::api::secret_name(e, &facts.registration.name))
    };
    if client.entry().is_some() {
        secrets.extend(plan.mints.iter().filter(|mint| mint.revision > 0).filter_map(|mint| secret_of(&mint.entry)));
    }
    for step in &plan.steps {
        match step {
            Step::Publish(publish) => {
                let replaces = matches!(publish.write, SecretWrite::Replace { .. });
                if replaces && !publish.is_made_anew(plan) {
                    secrets.insert(publish.name.clone());
                }
            }
            Step::Retire(retire) => {
                secrets.extend(retire.revisions.iter().filter_map(|(entry, _, _)| secret_of(entry)));
            }
            Step::Accept(_) | Step::Remove(_) => {}
        }
    }
    secrets.retain(|name| !facts.secrets.get(name).is_some_and(SecretFact::is_live));
    Look { secrets, ..Look::default() }
}

impl Publish {
    /// Whether nothing of the old Secret is kept: so with a Secret that holds access tokens alone.
    fn is_made_anew(&self, plan: &Plan) -> bool {
        self.fields.values().all(|value| match value {
            Value::Text(_) => true,
            Value::Minted(entry) => plan.mints.iter().any(|mint| mint.entry == *entry && mint.revision == 0),
            Value::Held(_) => false,
        })
    }
}

/// A registration of which nothing can be decided: what exists stays as it is.
fn blocked(facts: &Facts, problem: &Problem, now: Timestamp) -> Plan {
    let after = match problem.reason {
        Reason::ClientIDTaken => Some(TRY_TAKEN_AGAIN),
        // It cannot be taken back.
        Reason::Terminating => None,
        _ => Some(LOOK_AGAIN),
    };
    let wake = after.map(|after| rotation::add(now, after));
    Plan { status: status::blocked(facts, problem, now), wake, ..Plan::default() }
}

/// From when on tokens of an entry are accepted, by the ledger.
fn tokens_from(client: &Client, desired: &Desired) -> Option<Timestamp> {
    let entry = client.entry()?;
    let of_entry = entry.credentials.get(&desired.name).and_then(|credential| credential.revoked_before);
    Some(entry.created_at).max(entry.revoked_before).max(of_entry)
}
