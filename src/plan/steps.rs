//! A plan as data: printed, logged, compared in tests; without key material.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{AppRegistrationStatus, KeyType, Message, Reason, SecretField};
use crate::ledger::Entry;
use crate::policy;

use super::facts;
use super::given::Change;

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
    pub audience: String,
    /// `customers`; `None` where the token has no such claim.
    pub customers: Option<Vec<String>>,
    /// `customer_groups`; `None` where the token has no such claim.
    pub customer_groups: Option<Vec<String>>,
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
    /// Further fields, each with the name of the field whose value it has too.
    pub copies: BTreeMap<String, SecretField>,
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
    /// For a person: what is wrong and the fix, never a credential.
    pub message: Message,
}

impl From<policy::Refusal> for Problem {
    fn from((reason, message): policy::Refusal) -> Self {
        Self { reason, message }
    }
}

impl Problem {
    /// A problem of the registration as a whole.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, message: Message::new(text) }
    }

    /// A problem of a field.
    #[must_use]
    pub fn of_field(reason: Reason, field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { reason, message: Message::of_field(field, text) }
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
