//! What is known when a plan is made: values only, no key material, no handles.
//!
//! What is missing or cannot be parsed is a value here and never an error: a decision can be made about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{AppRegistrationSpec, AppRegistrationStatus, names};
use crate::config::{Policy, Server};
use crate::credential::Shown;
use crate::credential::published::Published;
use crate::ledger;
use crate::policy::{Governance, Subject};
use crate::signer;
use crate::signer::ca::CaIndex;

use super::Problem;

/// Everything that a decision is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The registration.
    pub registration: Registration,
    /// What all registrations of its authorization server share.
    pub environment: Arc<Environment>,
    /// Whether that server takes something new from its namespace.
    pub admission: Admission,
    /// The policies and approvals that govern it.
    pub governance: Governance,
    /// The ledger entry of its client.
    pub ledger: LedgerFact,
    /// The Secrets it wants, and those that carry its mark, by name.
    pub secrets: BTreeMap<String, SecretFact>,
    /// Secrets that the API server has just refused in a dry run, each with why.
    pub refusals: BTreeMap<String, Problem>,
}

/// The registration as the API server has it.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Its namespace.
    pub namespace: String,
    /// Whether its namespace is being deleted: objects in it can be replaced, and no longer be created. It may go on for
    /// as long as a pod in it takes to end.
    pub namespace_is_terminating: bool,
    /// Whether it is being deleted itself, and something holds it: a finalizer, or its dependents.
    pub is_terminating: bool,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its spec.
    pub spec: AppRegistrationSpec,
    /// Its status as last reported: compared with, never believed.
    pub status: AppRegistrationStatus,
    /// Whether a live GET in this pass showed that this uid exists.
    pub confirmed: bool,
}

/// Whether an authorization server takes something new from a namespace. The texts are for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It does.
    #[default]
    Open,
    /// Nothing new begins; what exists goes on.
    Closed(String),
    /// Nothing can be done at all: the server's keys are not there.
    Unavailable(String),
}

/// What all registrations of an authorization server share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The authorization server.
    pub server: Server,
    /// The configured policy: of it only the durations count here, as defaults and as the product's bounds.
    pub policy: Policy,
    /// The token signing keys.
    pub keys: signer::Index,
    /// The certificate authorities of its clients.
    pub authorities: CaIndex,
    /// The certificate authorities of the token endpoint: those of the configured server, for all servers.
    pub endpoint_authorities: CaIndex,
}

/// What the ledger has for the registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFact {
    /// Nothing.
    Absent,
    /// An entry.
    Held {
        /// The resourceVersion of its Secret.
        resource_version: String,
        /// The entry.
        entry: Box<ledger::Entry>,
        /// Whose it is.
        standing: Standing,
    },
    /// The client ID is another registration's.
    Taken,
    /// Something that cannot be used.
    Unreadable(ledger::Unreadable),
}

/// Whose a ledger entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This registration's.
    Ours,
    /// That of a registration of the same namespace and name which had another uid.
    Former,
}

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFact {
    /// It is not there.
    Absent(Source),
    /// It is there and is not ours: never written.
    Foreign,
    /// It is ours.
    Ours(Box<OurSecret>),
}

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a watch: it may lag.
    Watched,
    /// From a GET in this pass.
    Live,
}

/// A Secret that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurSecret {
    /// Where this is known from.
    pub source: Source,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it carries our controller ownerReference, or none at all.
    pub owned: Owned,
    /// Its type; known from a GET alone.
    pub type_: Option<String>,
    /// Whether it is marked immutable; known from a GET alone.
    pub immutable: bool,
    /// What it holds; `None` if that cannot be told without a GET.
    pub contents: Option<Contents>,
}

/// Who owns a Secret of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// The registration: it is collected with it.
    ByRegistration,
    /// Nobody: it carries our mark alone.
    ByNobody,
}

/// What a Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What it shows of each entry.
    pub shown: BTreeMap<String, Shown>,
    /// A comparison of its public fields, see [`super::connection`].
    pub connection: String,
    /// The names of its fields; empty where only a hint is known.
    pub fields: Vec<String>,
}

/// What bounds every registration's credentials.
#[derive(Clone, Copy, Debug)]
pub struct Law<'a> {
    /// What all registrations share.
    pub environment: &'a Environment,
    /// The policies and approvals.
    pub governance: &'a Governance,
}

impl Facts {
    /// What bounds the credentials.
    #[must_use]
    pub fn law(&self) -> Law<'_> {
        Law { environment: &self.environment, governance: &self.governance }
    }
}

impl Registration {
    /// Who asks.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject { namespace: &self.namespace, name: &self.name }
    }
}

impl OurSecret {
    /// What its annotation says that it holds.
    #[must_use]
    pub fn published(&self) -> Published {
        Published::parse(self.annotations.get(names::PUBLISHED_ANNOTATION).map(String::as_str))
    }
}

impl SecretFact {
    /// The Secret, if it is ours.
    #[must_use]
    pub fn ours(&self) -> Option<&OurSecret> {
        match self {
            Self::Ours(secret) => Some(secret),
            Self::Absent(_) | Self::Foreign => None,
        }
    }

    /// Whether this is known from a GET in this pass.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Absent(source) => *source == Source::Live,
            Self::Foreign => true,
            Self::Ours(secret) => secret.source == Source::Live,
        }
    }
}
