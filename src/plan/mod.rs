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
mod obstacle;
mod secret;
mod status;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::api::{AppRegistrationStatus, KeyType, Reason};
use crate::ledger::Entry;
use crate::policy::{self, Absence};
use crate::rotation;

pub use connection::Connection;
pub use given::Change;
pub use secret::{Reading, contents, hinted_contents};
pub use status::{Failure, after_failure};

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

/// What shall be done for one registration, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What must be read live before anything can be decided. If not empty, nothing else stands here.
    pub look: Look,
    /// What is minted. Its plaintext lives between the first and the last step.
    pub mints: Vec<Mint>,
    /// The writes.
    pub steps: Vec<Step>,
    /// The status when every step has succeeded. What only minting makes known is still empty.
    pub status: AppRegistrationStatus,
    /// Secrets whose annotations do not tell what is the matter with them: they are read again at the next pass.
    pub doubtful: BTreeSet<String>,
    /// What granted the items that stay although no policy allows them any more, as the ledger says it.
    pub kept_by: BTreeSet<String>,
    /// Whether every credential was shown and accepted before the first step.
    pub is_served: bool,
    /// When to look again.
    pub wake: Option<Timestamp>,
}

/// What must be read live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The registration itself: that its uid still exists.
    pub registration: bool,
    /// These Secrets.
    pub secrets: BTreeSet<String>,
    /// These approvals, of which the watch shows nothing any more.
    pub approvals: BTreeSet<String>,
}

/// A credential to be minted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The credential entry.
    pub entry: String,
    /// Its revision; 0 for access tokens, which have none.
    pub revision: u64,
    /// Why.
    pub reason: Reason,
    /// `minted_at`, in whole seconds.
    pub minted_at: Timestamp,
    /// `not_after`, in whole seconds.
    pub not_after: Timestamp,
    /// Of what.
    pub order: Order,
}

/// What is minted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A client secret.
    ClientSecret,
    /// A certificate.
    Certificate {
        /// Its key.
        key_type: KeyType,
        /// Its DNS names.
        dns_names: Vec<String>,
    },
    /// An access token.
    AccessToken(TokenOrder),
}

/// What an access token says besides client, issuer and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    /// The key that signs.
    pub kid: String,
    /// `scope`.
    pub scopes: Vec<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `customers`.
    pub customers: Vec<String>,
    /// `customer_groups`.
    pub customer_groups: Vec<String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a plan has a handful of steps")]
pub enum Step {
    /// The ledger takes up what is about to be published (A).
    Accept(Accept),
    /// A Secret is written (B).
    Publish(Publish),
    /// A Secret that no entry wants any more is deleted.
    Remove(Remove),
    /// Revisions and entries leave the ledger.
    Retire(Retire),
}

/// The ledger entry as it shall be. The minted revisions are added to it by who mints them.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    /// How it is written.
    pub write: LedgerWrite,
    /// The entry without the minted revisions, whose numbers `next_revision` already counts.
    pub entry: Entry,
    /// What becomes of credentials that are given: it stands in the entry already.
    pub given: Vec<Change>,
    /// Why, where it is not for a mint.
    pub reason: Reason,
}

/// How the ledger entry is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerWrite {
    /// It does not exist.
    Create,
    /// It has this resourceVersion.
    Replace {
        /// `metadata.resourceVersion`.
        resource_version: String,
    },
}

/// A Secret as it shall be, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Its name.
    pub name: String,
    /// How it is written.
    pub write: SecretWrite,
    /// Its type.
    pub type_: &'static str,
    /// Why.
    pub reason: Reason,
    /// Its fields.
    pub fields: BTreeMap<&'static str, Value>,
    /// Its labels, those of others included.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, those of others included.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is collected with the registration.
    pub owned: facts::Owned,
}

/// How a Secret is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretWrite {
    /// It does not exist: by POST, never over anything.
    Create,
    /// It exists with this uid and resourceVersion.
    Replace {
        /// `metadata.uid`.
        uid: String,
        /// `metadata.resourceVersion`.
        resource_version: String,
    },
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Public text.
    Text(String),
    /// What is minted for this entry in this plan.
    Minted(String),
    /// What this field of the Secret holds now.
    Held(&'static str),
}

/// A Secret to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// Its name.
    pub name: String,
    /// Its uid: a precondition.
    pub uid: String,
}

/// What leaves the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retire {
    /// The resourceVersion of the entry, unless this plan writes it before.
    pub resource_version: Option<String>,
    /// Revisions by entry, each with why.
    pub revisions: Vec<(String, u64, Reason)>,
    /// Whole entries that are no longer in the spec.
    pub entries: Vec<String>,
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its reason: a condition's.
    pub reason: Reason,
    /// For a person: names the field and the fix, never a credential.
    pub message: String,
}

impl From<policy::Refusal> for Problem {
    fn from((reason, message): policy::Refusal) -> Self {
        Self { reason, message }
    }
}

impl Problem {
    /// A problem.
    #[must_use]
    pub const fn new(reason: Reason, message: String) -> Self {
        Self { reason, message }
    }
}

impl Look {
    /// Whether nothing must be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.registration && self.secrets.is_empty() && self.approvals.is_empty()
    }
}

impl Retire {
    /// Whether it is done whatever came of the writes before: a leak outranks availability.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        !self.entries.is_empty() || self.revisions.iter().any(|(_, _, reason)| *reason == Reason::Revoked)
    }
}

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
        let resolved = desired::resolve(registration, facts.law(), client.entry(), &decision.grant, now);
        let customers: Vec<_> = decision.grant.customers.keys().cloned().collect();
        let customer_groups: Vec<_> = decision.grant.customer_groups.keys().cloned().collect();
        let clock = obstacle::clock_is_behind(client, now);
        let mut verdicts = Vec::new();
        let mut problems = resolved.problems.clone();
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
                customers: &customers,
                customer_groups: &customer_groups,
            };
            let unwritable = secret::obstacle(facts, desired, secret);
            let obstacle = unwritable
                .clone()
                .or_else(|| clock.clone())
                .or_else(|| {
                    obstacle::credential_is_denied(&desired.name, desired.settings.key_type(), kind, client, facts)
                })
                .or_else(|| obstacle::authority_is_missing(&view, facts));
            let mut verdict = entry::decide(&view, obstacle);
            // Said even while nothing is due: a person has time to mend it before something is.
            verdict.is_obstructed = unwritable.is_some();
            verdict.problem = verdict.problem.or(unwritable);
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
        let denied = || obstacle::credential_is_denied(&given.name, None, kind, client, facts);
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
        steps.extend(secret::publish(facts, client, self, now).into_iter().map(Step::Publish));
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
    let after = if problem.reason == Reason::ClientIDTaken { TRY_TAKEN_AGAIN } else { LOOK_AGAIN };
    Plan { status: status::blocked(facts, problem, now), wake: Some(rotation::add(now, after)), ..Plan::default() }
}

/// From when on tokens of an entry are accepted, by the ledger.
fn tokens_from(client: &Client, desired: &Desired) -> Option<Timestamp> {
    let entry = client.entry()?;
    let of_entry = entry.credentials.get(&desired.name).and_then(|credential| credential.revoked_before);
    Some(entry.created_at).max(entry.revoked_before).max(of_entry)
}
