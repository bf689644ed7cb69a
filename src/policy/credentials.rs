//! What policies say of a client and its credentials: whether they may begin, and how long they live. What exists goes on
//! whatever they say.

use jiff::SignedDuration;

use crate::api::{GrantType, KeyType, Kind, Reason, TokenEndpointAuthMethod};
use crate::config;

use super::rules::{Bounds, Rules};
use super::{Governance, Subject};

/// A refusal: its reason, and for a person what would allow it.
pub type Refusal = (Reason, String);

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
    /// Whether a client may come to be, with a chosen client ID if there is one: one policy must allow it and have room.
    pub fn admits_client(&self, client_id: Option<&str>, subject: Subject<'_>) -> Result<(), Refusal> {
        let Subject { namespace, .. } = subject;
        if self.policies.is_empty() {
            return Err(self.no_policy(namespace));
        }
        let allows = |rules: &&Rules| client_id.is_none_or(|id| rules.allows_client_id(id, subject));
        let mut allowing = self.policies.iter().map(AsRef::as_ref).filter(allows).peekable();
        let Some(first) = allowing.peek().copied() else {
            let id = client_id.unwrap_or_default();
            // The one that says something of its own is nearer than one with the usual.
            let closest = self.policies.iter().max_by_key(|rules| rules.client_id_globs().count());
            let (name, globs) = closest.map_or_else(Default::default, |rules| {
                (rules.name.clone(), rules.client_id_globs().collect::<Vec<_>>().join(", "))
            });
            return Err((
                Reason::PolicyDenied,
                format!(
                    "spec.clientID: {id} is not allowed by policy/{name}, which allows {globs}; choose one of these"
                ),
            ));
        };
        if allowing.any(|rules| rules.most_registrations.is_none_or(|most| self.older < most)) {
            return Ok(());
        }
        let most = first.most_registrations.unwrap_or_default();
        Err((
            Reason::QuotaExceeded,
            format!(
                "policy/{} allows {most} registrations in the namespace {namespace}, and {} came before this one: delete \
                 one, or raise limits.registrationsPerNamespace",
                first.name, self.older
            ),
        ))
    }

    /// Whether a credential may begin: one policy must allow its kind and key, and have room.
    pub fn admits_credential(&self, credential: Beginning<'_>, subject: Subject<'_>) -> Result<(), Refusal> {
        let Beginning { entry, kind, key_type, others } = credential;
        if self.policies.is_empty() {
            let (reason, message) = self.no_policy(subject.namespace);
            return Err((reason, format!("spec.credentials[{entry}]: {message}")));
        }
        let names = |policies: Vec<&Rules>| {
            policies.iter().map(|rules| format!("policy/{}", rules.name)).collect::<Vec<_>>().join(", ")
        };
        let all = || self.policies.iter().map(AsRef::as_ref);
        let of_kind: Vec<&Rules> = all().filter(|rules| rules.allows_kind(kind)).collect();
        if of_kind.is_empty() {
            let message =
                format!("spec.credentials[{entry}]: the kind {kind} is not allowed by {}", names(all().collect()));
            return Err((Reason::PolicyDenied, message));
        }
        let of_key: Vec<&Rules> =
            of_kind.iter().copied().filter(|rules| key_type.is_none_or(|key| rules.allows_key_type(key))).collect();
        if of_key.is_empty() {
            let key = key_type.map(KeyType::as_str).unwrap_or_default();
            let message = format!(
                "spec.credentials[{entry}].certificate.keyType: {key} is not allowed by {}: use another one",
                names(of_kind)
            );
            return Err((Reason::PolicyDenied, message));
        }
        if of_key.iter().any(|rules| rules.most_credentials.is_none_or(|most| others < most)) {
            return Ok(());
        }
        let message = format!(
            "spec.credentials[{entry}]: {} allows no more than {others}: remove one, or raise limits.credentials",
            names(of_key)
        );
        Err((Reason::QuotaExceeded, message))
    }

    /// Whether any policy allows certificates with such a key.
    #[must_use]
    pub fn allows_key_type(&self, key_type: KeyType) -> bool {
        self.policies.iter().any(|rules| rules.allows_key_type(key_type))
    }

    /// Whether any policy allows a grant of RFC 6749.
    #[must_use]
    pub fn allows_grant_type(&self, grant_type: GrantType) -> bool {
        self.policies.iter().any(|rules| rules.allows_grant_type(grant_type))
    }

    /// Whether any policy allows a way to authenticate.
    #[must_use]
    pub fn allows_auth_method(&self, method: TokenEndpointAuthMethod) -> bool {
        self.policies.iter().any(|rules| rules.allows_auth_method(method))
    }

    fn no_policy(&self, namespace: &str) -> Refusal {
        let message = match &self.unknown {
            Some(unknown) => format!("nothing new is granted: {unknown}"),
            None => super::sentence::no_policy(namespace),
        };
        (Reason::NoPolicy, message)
    }
}

/// The effective duration of a credential of this kind: what is asked for, else the configured default; within the bounds
/// of one of the policies that allow the kind, moved as little as possible. Where none does, within the configured ones:
/// a policy never stops a rotation.
#[must_use]
pub fn effective_duration(
    governance: &Governance,
    kind: Kind,
    configured: &config::Durations,
    asked: Option<SignedDuration>,
) -> Bounded {
    let asked = asked.unwrap_or_else(|| configured.default.signed());
    let bounds = |rules: &Rules| rules.bounds(kind).map(|bounds| (bounds.clamp(asked), Some(rules.name.clone())));
    let all = || governance.policies.iter().map(AsRef::as_ref);
    let mut moved: Vec<_> = all().filter(|rules: &&Rules| rules.allows_kind(kind)).filter_map(bounds).collect();
    if moved.is_empty() {
        moved.push((Bounds::of(configured).clamp(asked), None));
    }
    let nearest = moved.into_iter().min_by_key(|(duration, _)| (*duration - asked).abs());
    let (duration, by) = nearest.unwrap_or((asked, None));
    let by = by.unwrap_or_else(|| "default".to_owned());
    Bounded { duration, clamped_by: (duration != asked).then_some(by) }
}
