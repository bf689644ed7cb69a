//! What is granted of what a registration asks for, and by what.
//!
//! Pure: the policies that select the namespace, the approvals of the registration and the grant so far go in; a grant,
//! what is denied and what is kept against every policy come out.
//!
//! Each item is a request of its own: one policy must allow all that belongs to it (of a redirect URI scheme and host, of
//! a certificate kind and key), and what different policies allow adds up. It cannot be otherwise where adding a policy
//! only ever adds and what is allowed is granted while the rest waits: what one policy grants alone, it must grant beside
//! any other.

pub mod glob;
pub mod rules;

mod credentials;
mod sentence;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{AppRegistrationSpec, CustomerScopeType, KindSpec, OnViolation, RegistrationApprovalSpec, parse_time};
use crate::ledger::Grant;

pub use credentials::{Beginning, Bounded, Refusal, effective_duration};
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

/// What is asked for by name, and recorded by what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// OAuth scopes.
    Scopes,
    /// Audiences to call.
    Audiences,
    /// Audiences to serve.
    ResourceAudiences,
    /// Redirect URIs.
    RedirectUris,
    /// Customers; `*` is all of them.
    Customers,
    /// Customer groups.
    CustomerGroups,
    /// DNS names of certificates.
    DnsNames,
}

impl Field {
    /// Every field, in the order of a request.
    pub const ALL: [Self; 7] = [
        Self::Scopes,
        Self::Audiences,
        Self::ResourceAudiences,
        Self::RedirectUris,
        Self::Customers,
        Self::CustomerGroups,
        Self::DnsNames,
    ];

    /// The field of a registration, as a path below `spec`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Audiences => "audiences",
            Self::ResourceAudiences => "resourceAudiences",
            Self::RedirectUris => "redirectURIs",
            Self::Customers => "customerScope.customers",
            Self::CustomerGroups => "customerScope.groups",
            Self::DnsNames => "credentials.certificate.dnsNames",
        }
    }

    /// The field of a policy that allows it, as a path below `spec`.
    #[must_use]
    pub const fn policy_path(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Audiences => "audiences",
            Self::ResourceAudiences => "resourceAudiences",
            Self::RedirectUris => "redirectURIs",
            Self::Customers => "customers",
            Self::CustomerGroups => "customerGroups",
            Self::DnsNames => "dnsNames",
        }
    }

    /// What is granted of it.
    #[must_use]
    pub const fn of(self, grant: &Grant) -> &BTreeMap<String, String> {
        match self {
            Self::Scopes => &grant.scopes,
            Self::Audiences => &grant.audiences,
            Self::ResourceAudiences => &grant.resource_audiences,
            Self::RedirectUris => &grant.redirect_uris,
            Self::Customers => &grant.customers,
            Self::CustomerGroups => &grant.customer_groups,
            Self::DnsNames => &grant.dns_names,
        }
    }

    const fn of_mut(self, grant: &mut Grant) -> &mut BTreeMap<String, String> {
        match self {
            Self::Scopes => &mut grant.scopes,
            Self::Audiences => &mut grant.audiences,
            Self::ResourceAudiences => &mut grant.resource_audiences,
            Self::RedirectUris => &mut grant.redirect_uris,
            Self::Customers => &mut grant.customers,
            Self::CustomerGroups => &mut grant.customer_groups,
            Self::DnsNames => &mut grant.dns_names,
        }
    }

    /// What a registration asks for of it; `*` stands for all customers.
    #[must_use]
    pub fn asked(self, spec: &AppRegistrationSpec) -> Vec<String> {
        let customers = |wanted: CustomerScopeType| spec.customer_scope.as_ref().filter(|scope| scope.type_ == wanted);
        match self {
            Self::Scopes => spec.scopes.clone(),
            Self::Audiences => spec.audiences.clone(),
            Self::ResourceAudiences => spec.resource_audiences.clone(),
            Self::RedirectUris => spec.redirect_uris.clone(),
            Self::Customers if customers(CustomerScopeType::All).is_some() => vec!["*".to_owned()],
            Self::Customers => customers(CustomerScopeType::Customers).map(|s| s.customers.clone()).unwrap_or_default(),
            Self::CustomerGroups => customers(CustomerScopeType::Groups).map(|s| s.groups.clone()).unwrap_or_default(),
            Self::DnsNames => {
                let entries = spec.effective_credentials();
                let names = entries.iter().filter_map(|entry| match entry.kind_spec() {
                    Some(KindSpec::Certificate(certificate)) => Some(certificate.dns_names.clone()),
                    _ => None,
                });
                let mut names: Vec<_> = names.flatten().collect();
                names.sort_unstable();
                names.dedup();
                names
            }
        }
    }

    fn approved(self, approval: &RegistrationApprovalSpec) -> &[String] {
        match self {
            Self::Scopes => &approval.scopes,
            Self::Audiences => &approval.audiences,
            Self::ResourceAudiences => &approval.resource_audiences,
            Self::RedirectUris => &approval.redirect_uris,
            Self::Customers => &approval.customers,
            Self::CustomerGroups => &approval.customer_groups,
            Self::DnsNames => &[],
        }
    }
}

/// Everything that governs one registration.
#[derive(Clone, Debug, Default)]
pub struct Governance {
    /// The policies that select the namespace, by name; the configured one is among them if it is enabled.
    pub policies: Vec<Arc<Rules>>,
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
    /// The field that asks.
    pub field: Field,
    /// The item asked for: never a credential.
    pub item: String,
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
    /// The field that asks.
    pub field: Field,
    /// The item.
    pub item: String,
    /// What granted it.
    pub by: String,
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
    let asked = Field::ALL.map(|field| (field, field.asked(spec)));
    // One answer for all that is denied, and none where nothing is.
    let closest = LazyCell::new(|| closest(governance, subject, &asked));
    for (field, items) in &asked {
        let field = *field;
        let before = field.of(before);
        for item in items {
            let request = Request { governance, subject, field, item, now };
            let by = match before.get(item) {
                None => request.allowed_by(),
                Some(by) => request.still_by(by, &mut decision),
            };
            if let Some(by) = by {
                field.of_mut(&mut decision.grant).insert(item.clone(), by);
            } else {
                let why = request.why_not(&closest);
                decision.denied.push(Denied { field, item: item.clone(), why });
            }
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
    field: Field,
    item: &'a str,
    now: Timestamp,
}

impl<'a> Request<'a> {
    /// The policies that allow it, with or without approval.
    fn allowing(self) -> impl Iterator<Item = &'a Arc<Rules>> {
        self.governance.policies.iter().filter(move |rules| rules.allows(self.field, self.item, self.subject))
    }

    fn is_free(self, rules: &Rules) -> bool {
        rules.allows(self.field, self.item, self.subject) && !rules.needs_approval(self.field, self.item, self.subject)
    }

    /// Whether an approval is in force and lists it.
    fn is_approved(self, approval: &RegistrationApprovalSpec) -> bool {
        self.field.approved(approval).iter().any(|item| item == self.item) && is_in_force(approval, self.now)
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
            decision.kept.push(Kept { field: self.field, item: self.item.to_owned(), by: by.to_owned() });
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
            let lists = |approval: &RegistrationApprovalSpec| {
                self.field.approved(approval).iter().any(|item| item == self.item)
            };
            let mut approvals = self.governance.approvals.iter();
            return match approvals.find(|(_, approval)| lists(approval)) {
                Some((name, _)) => Why::ApprovalEnded { approval: name.clone() },
                None => Why::NeedsApproval { policy: rules.name.clone() },
            };
        }
        if let Some(unknown) = &self.governance.unknown {
            return Why::Unknown(unknown.clone());
        }
        (**closest).map_or(Why::NoPolicy, |rules| Why::NotAllowed {
            closest: rules.name.clone(),
            allows: rules.globs(self.field).map(str::to_owned).collect(),
        })
    }
}

/// The policy that allows most of a request; of several that allow as much, the first by name.
fn closest<'a>(governance: &'a Governance, subject: Subject<'_>, asked: &[(Field, Vec<String>)]) -> Option<&'a Rules> {
    let allowed = |rules: &Rules| -> usize {
        let of = |(field, items): &(Field, Vec<String>)| {
            items.iter().filter(|item| rules.allows(*field, item, subject)).count()
        };
        asked.iter().map(of).sum()
    };
    governance.policies.iter().map(AsRef::as_ref).rev().max_by_key(|rules| allowed(rules))
}

/// When an approval ends; one whose end cannot be read has ended.
fn expiry(approval: &RegistrationApprovalSpec) -> Option<Timestamp> {
    approval.expires.as_deref().map(|text| parse_time(text).unwrap_or(Timestamp::MIN))
}

fn is_in_force(approval: &RegistrationApprovalSpec, now: Timestamp) -> bool {
    expiry(approval).is_none_or(|end| now < end)
}
