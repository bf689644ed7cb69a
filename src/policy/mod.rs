//! What is granted of what a registration asks for, and by what.
//!
//! Pure: the policies that select the namespace, the approvals of the registration and the grant so far go in; a grant,
//! what is denied and what is kept against every policy come out.
//!
//! Each item is a request of its own. One policy must allow all that belongs to it: of a scope its API too, of a redirect
//! URI scheme and host. This follows from two rules: adding a policy never takes a grant away, and allowed items are granted
//! while others wait. So an item that policy A grants alone, A also grants beside policy B.

pub mod glob;
pub mod rules;

mod credentials;
mod item;
mod restrictions;
mod sentence;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{AppRegistrationSpec, OnViolation, RegistrationApprovalSpec, parse_time};
use crate::ledger::Grant;

pub use credentials::{Beginning, Bounded, Refusal, effective_duration};
pub use item::{ALL_CUSTOMERS, Item, ItemKind};
pub use restrictions::{Bounds, By, Restrictions};
pub use rules::{Invalid, Rules};

/// What a grant is recorded under that a policy made, before its name.
pub const BY_POLICY: &str = "policy/";
/// What a grant is recorded under that an approval made, before its name.
pub const BY_APPROVAL: &str = "approval/";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The registration's namespace.
    pub namespace: &'a str,
    /// The registration's name.
    pub name: &'a str,
}

/// Everything that governs one registration.
#[derive(Clone, Debug, Default)]
pub struct Governance {
    /// The policies that select the namespace, by name; the configured one is among them if it is enabled.
    pub policies: Vec<Arc<Rules>>,
    /// The configured policy, also while it is off: its restrictions count where no policy states one.
    pub configured: Arc<Rules>,
    /// Policies that granted something to this registration, say `Withdraw`, and do not select the namespace any more.
    pub departed: BTreeSet<String>,
    /// The approvals of this registration, by name.
    pub approvals: BTreeMap<String, Arc<RegistrationApprovalSpec>>,
    /// What a live read in this pass said of approvals that granted something and are not among `approvals`.
    pub absent: BTreeMap<String, Absence>,
    /// How many registrations of the namespace come before this one.
    pub older: usize,
    /// Why policies or namespaces are not known, if they are not: nothing is withdrawn then, and nothing new granted but
    /// by the configured policy.
    pub unknown: Option<String>,
}

/// What a live read said of an approval that the watch does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It does not exist.
    Confirmed,
    /// That could not be found out.
    Doubtful,
}

/// An item that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The item.
    pub item: Item,
    /// Why.
    pub why: Why,
}

/// Why an item is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No policy selects the namespace.
    NoPolicy,
    /// Policies are not known.
    Unknown(String),
    /// No policy allows it; the one that allows most of the request, and what it allows of this field.
    NotAllowed {
        /// Its name.
        closest: String,
        /// Its globs.
        allows: Vec<String>,
    },
    /// A policy allows it with an approval, and there is none.
    NeedsApproval {
        /// The policy's name.
        policy: String,
    },
    /// The approval that lists it has ended.
    ApprovalEnded {
        /// The approval's name.
        approval: String,
    },
}

/// An item that stays granted although no policy allows it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The item.
    pub item: Item,
    /// What granted it.
    pub by: String,
    /// The policy that allows it, but only with an approval; none allows it at all if `None`.
    pub waits_for_approval_of: Option<String>,
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What is granted; `auth_methods` and `grant_types` are left to the caller, who knows the credentials.
    pub grant: Grant,
    /// What is not.
    pub denied: Vec<Denied>,
    /// What is granted against every policy.
    pub kept: Vec<Kept>,
    /// Approvals whose absence must be confirmed by a live read before what they granted ends.
    pub unseen: BTreeSet<String>,
    /// When the first approval ends that is of use here.
    pub next_expiry: Option<Timestamp>,
}

/// What is granted of the request at this time.
///
/// What was granted before and is still asked for stays, by what granted it then as long as that allows it, else by
/// whatever allows it now. Where nothing does: what a policy granted is kept, unless that policy says `Withdraw`; what an
/// approval granted ends with the approval, which must be seen to be gone.
#[must_use]
pub fn evaluate(
    spec: &AppRegistrationSpec,
    subject: Subject<'_>,
    governance: &Governance,
    before: &Grant,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    decision.grant.default_audience = spec.apis.first().map(|api| api.audience.clone());
    decision.grant.customer_scope = spec.customer_scope.as_ref().map(|scope| scope.type_);
    let asked = Item::asked(spec);
    // One answer for all that is denied, and none where nothing is.
    let closest = LazyCell::new(|| closest(governance, subject, &asked));
    for item in &asked {
        if item.audience.as_ref().is_some_and(|audience| !decision.grant.apis.contains_key(audience)) {
            // The API itself is denied, and said to be: a scope there would be worth nothing.
            continue;
        }
        let request = Request { governance, subject, item, now };
        let by = match item.granted_by(before) {
            None => request.allowed_by(),
            Some(by) => request.still_by(by, &mut decision),
        };
        if let Some(by) = by {
            item.record(by, &mut decision.grant);
        } else {
            let why = request.why_not(&closest);
            decision.denied.push(Denied { item: item.clone(), why });
        }
    }
    decision.next_expiry = governance.approvals.values().filter_map(|a| expiry(a)).filter(|end| *end > now).min();
    decision
}

/// One item asked for.
#[derive(Clone, Copy)]
struct Request<'a> {
    governance: &'a Governance,
    subject: Subject<'a>,
    item: &'a Item,
    now: Timestamp,
}

impl<'a> Request<'a> {
    /// The policies that allow it, with or without approval.
    fn allowing(self) -> impl Iterator<Item = &'a Arc<Rules>> {
        self.governance.policies.iter().filter(move |rules| rules.allows(self.item, self.subject))
    }

    fn is_free(self, rules: &Rules) -> bool {
        rules.allows(self.item, self.subject) && !rules.needs_approval(self.item, self.subject)
    }

    /// Whether an approval is in force and lists it.
    fn is_approved(self, approval: &RegistrationApprovalSpec) -> bool {
        self.item.is_listed(approval) && is_in_force(approval, self.now)
    }

    /// What grants it to one who does not have it.
    fn allowed_by(self) -> Option<String> {
        if let Some(rules) = self.governance.policies.iter().find(|rules| self.is_free(rules)) {
            return Some(rules.by());
        }
        self.allowing().next()?;
        let mut approvals = self.governance.approvals.iter();
        approvals.find(|(_, approval)| self.is_approved(approval)).map(|(name, _)| format!("{BY_APPROVAL}{name}"))
    }

    /// What grants it to one who has it by this.
    fn still_by(self, by: &str, decision: &mut Decision) -> Option<String> {
        let mut keep = || {
            let allowing = self.allowing().next().map(|rules| rules.name.clone());
            let item = self.item.clone();
            decision.kept.push(Kept { item, by: by.to_owned(), waits_for_approval_of: allowing });
            Some(by.to_owned())
        };
        if let Some(name) = by.strip_prefix(BY_APPROVAL) {
            let approval = self.governance.approvals.get(name);
            if approval.is_some_and(|approval| self.is_approved(approval)) {
                return if self.allowing().next().is_some() { Some(by.to_owned()) } else { keep() };
            }
            if let Some(other) = self.allowed_by() {
                return Some(other);
            }
            return match (approval, self.governance.absent.get(name)) {
                // It is there, and has ended or does not list the item any more.
                (Some(_), _) | (None, Some(Absence::Confirmed)) => None,
                (None, Some(Absence::Doubtful)) => keep(),
                (None, None) => {
                    decision.unseen.insert(name.to_owned());
                    keep()
                }
            };
        }
        let granting = by.strip_prefix(BY_POLICY).unwrap_or_default();
        let selects = self.governance.policies.iter().find(|rules| rules.name == granting);
        if selects.is_some_and(|rules| self.is_free(rules)) {
            return Some(by.to_owned());
        }
        if let Some(other) = self.allowed_by() {
            return Some(other);
        }
        let withdraws = selects.is_some_and(|rules| rules.on_violation == OnViolation::Withdraw)
            || (selects.is_none() && self.governance.departed.contains(granting));
        // Where policies are not known, another one might allow it.
        if withdraws && self.governance.unknown.is_none() { None } else { keep() }
    }

    /// Why nobody grants it; `closest` is asked only where no policy allows it.
    fn why_not(self, closest: &LazyCell<Option<&'a Rules>, impl FnOnce() -> Option<&'a Rules>>) -> Why {
        if let Some(rules) = self.allowing().next() {
            let mut approvals = self.governance.approvals.iter();
            return match approvals.find(|(_, approval)| self.item.is_listed(approval)) {
                Some((name, _)) => Why::ApprovalEnded { approval: name.clone() },
                None => Why::NeedsApproval { policy: rules.name.clone() },
            };
        }
        if let Some(unknown) = &self.governance.unknown {
            return Why::Unknown(unknown.clone());
        }
        (**closest).map_or(Why::NoPolicy, |rules| Why::NotAllowed {
            closest: rules.name.clone(),
            allows: rules.globs(self.item, self.subject),
        })
    }
}

/// The policy that allows most of a request; of several that allow as much, the first by name.
fn closest<'a>(governance: &'a Governance, subject: Subject<'_>, asked: &[Item]) -> Option<&'a Rules> {
    let allowed = |rules: &Rules| asked.iter().filter(|item| rules.allows(item, subject)).count();
    governance.policies.iter().map(AsRef::as_ref).rev().max_by_key(|rules| allowed(rules))
}

/// When an approval ends; one whose end cannot be read has ended.
fn expiry(approval: &RegistrationApprovalSpec) -> Option<Timestamp> {
    approval.expiration_time.as_deref().map(|text| parse_time(text).unwrap_or(Timestamp::MIN))
}

fn is_in_force(approval: &RegistrationApprovalSpec, now: Timestamp) -> bool {
    expiry(approval).is_none_or(|end| now < end)
}
