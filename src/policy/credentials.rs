//! What policies say of a client and its credentials: whether they may begin, and how long they live. What exists goes on
//! whatever they say.

use jiff::SignedDuration;

use crate::api::{KeyType, Kind, Message, Reason};
use crate::config;

use super::{By, Governance, Subject};

/// A refusal: its reason, and for a person how to get it allowed.
pub type Refusal = (Reason, Message);

/// A duration after the policies' bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// The duration that applies.
    pub duration: SignedDuration,
    /// The policy that moved it, if one did.
    pub clamped_by: Option<String>,
}

/// A credential that does not exist yet.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// The entry's name.
    pub entry: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// The key type of a certificate.
    pub key_type: Option<KeyType>,
    /// How many credentials the registration has, or has asked for before it.
    pub others: usize,
}

impl Governance {
    /// Whether a client may come to be. If it has a chosen client ID, one policy must allow it; the namespace must have
    /// room.
    pub fn admits_client(&self, client_id: Option<&str>, subject: Subject<'_>) -> Result<(), Refusal> {
        let Subject { namespace, .. } = subject;
        if self.policies.is_empty() {
            return Err(self.no_policy(namespace));
        }
        let allows = |id: &str| self.policies.iter().any(|rules| rules.allows_client_id(id, subject));
        if let Some(id) = client_id.filter(|id| !allows(id)) {
            // The one that says most is nearest; of several, the first by name.
            let closest = self.policies.iter().rev().max_by_key(|rules| rules.client_id_globs(subject).len());
            let (name, globs) = closest
                .map_or_else(Default::default, |rules| (rules.name.clone(), rules.client_id_globs(subject).join(", ")));
            let text = format!(
                "{id} is not allowed; policy/{name} allows {globs}. Choose one of these, or add it to clientIDs of a \
                 RegistrationPolicy that selects the namespace {namespace}"
            );
            return Err((Reason::PolicyDenied, Message::of_field("spec.clientID", text)));
        }
        match self.most_registrations().filter(|most| self.older >= most.value) {
            None => Ok(()),
            Some(By { value, policy }) => Err((
                Reason::QuotaExceeded,
                Message::new(format!(
                    "The namespace {namespace} has no room: policy/{policy} allows {value} registrations, and as many came \
                     before this one. Delete one, or raise limits.registrationsPerNamespace"
                )),
            )),
        }
    }

    /// Whether a credential may begin: its kind and its key must be allowed, and the registration must have room.
    pub fn admits_credential(&self, credential: Beginning<'_>, subject: Subject<'_>) -> Result<(), Refusal> {
        let Beginning { entry, kind, key_type, others } = credential;
        let field = format!("spec.credentials[{entry}]");
        if self.policies.is_empty() {
            let (reason, message) = self.no_policy(subject.namespace);
            return Err((reason, Message::of_field(field, message.text)));
        }
        if !self.allows_kind(kind) {
            let text = format!(
                "the kind {kind:?} is not allowed by {}. Use another kind, or add it to credentialKinds",
                self.stating_kinds()
            );
            return Err((Reason::PolicyDenied, Message::of_field(field, text)));
        }
        if let Some(key) = key_type.filter(|key| !self.allows_key_type(*key)) {
            let text = format!(
                "{key} is not allowed by {}. Use another one, or add it to privateKeys",
                self.stating_private_keys()
            );
            return Err((Reason::PolicyDenied, Message::of_field(format!("{field}.certificate.privateKey"), text)));
        }
        match self.most_credentials().filter(|most| others >= most.value) {
            None => Ok(()),
            Some(By { value, policy }) => {
                let text =
                    format!("policy/{policy} allows {value} credentials. Remove one, or raise limits.credentials");
                Err((Reason::QuotaExceeded, Message::of_field(field, text)))
            }
        }
    }

    fn no_policy(&self, namespace: &str) -> Refusal {
        let text = match &self.unknown {
            Some(unknown) => super::sentence::unknown(unknown),
            None => super::sentence::no_policy(namespace),
        };
        (Reason::NoPolicy, Message::new(text))
    }
}

/// The effective duration of a credential of this kind: the one asked for, else the configured default, moved into the
/// bounds of the policies as little as possible. A policy never stops a rotation.
#[must_use]
pub fn effective_duration(
    governance: &Governance,
    kind: Kind,
    configured: &config::Durations,
    asked: Option<SignedDuration>,
) -> Bounded {
    let asked = asked.unwrap_or_else(|| configured.default.signed());
    let (duration, clamped_by) = governance.bounds(kind).clamp(asked);
    Bounded { duration, clamped_by }
}
