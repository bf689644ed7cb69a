//! The Secrets' side of a plan: what each shall hold and carry, and which go.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{self, DeletionPolicy, Kind, Reason, SecretField, SecretTemplate, names};
use crate::credential::access_token::Claims;
use crate::credential::published::Published;
use crate::credential::template::AppliedTemplate;
use crate::credential::{Fields, Held, Shown, access_token, certificate, client_secret, field, text};
use crate::ledger::Entry;

use super::connection;
use super::desired::{Desired, Settings};
use super::entry::Verdict;
use super::facts::{Contents, Environment, Facts, OurSecret, Owned, SecretFact};
use super::ledger::Client;
use super::{Draft, Problem, Publish, Remove, SecretWrite, Value, methods};

/// The type of a Secret that holds a certificate alone.
const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";

/// What is needed to tell what a Secret holds.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The credential entries that are written to this Secret.
    pub entries: &'a [api::Entry],
    /// The ledger entry whose values count; none where nothing in a Secret is to be trusted.
    pub ledger: Option<&'a Entry>,
    /// The Secret's annotation.
    pub published: &'a Published,
    /// The registration's template.
    pub template: Option<&'a SecretTemplate>,
    /// What all registrations share.
    pub environment: &'a Environment,
}

/// What a Secret holds, by a GET. `claims` tells what a token says if a key of ours signed it.
#[must_use]
pub fn contents(reading: Reading<'_>, fields: &Fields, claims: impl Fn(&str) -> Option<Claims>) -> Contents {
    let mut contents = Contents { fields: fields.keys().cloned().collect(), ..Contents::default() };
    let mut is_as_written = true;
    for entry in reading.entries {
        let Some(kind) = entry.kind() else { continue };
        let ledger = reading.ledger.and_then(|l| l.credentials.get(&entry.name)).filter(|c| c.kind == kind);
        let hint = reading.published.0.get(&entry.name);
        let shown = match kind {
            Kind::ClientSecret => client_secret::inspect(fields, ledger),
            Kind::Certificate => {
                let previous = match Shown::hinted(kind, hint, ledger) {
                    Some(Shown::Certificate { previous, .. }) => previous,
                    Some(Shown::ClientSecret { .. } | Shown::AccessToken(_)) | None => Held::Nothing,
                };
                is_as_written &=
                    text(fields, field::CA).is_none_or(|ca| connection::trusts(&reading.environment.authorities, ca));
                certificate::inspect(fields, ledger, previous)
            }
            Kind::AccessToken => {
                let value = fields.get(field::ACCESS_TOKEN).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
                let of_this_client = |claims: &Claims| reading.ledger.is_some_and(|l| l.client_id == claims.client_id);
                let claims = text(fields, field::ACCESS_TOKEN).and_then(&claims).filter(of_this_client);
                is_as_written &= claims.as_ref().is_none_or(|claims| access_token::is_described(fields, claims));
                access_token::inspect(&entry.name, value.is_empty(), claims)
            }
            // No Secret holds them.
            Kind::PublicKey | Kind::ServiceAccount => continue,
        };
        contents.shown.insert(entry.name.clone(), shown);
    }
    let public = [
        field::CLIENT_ID,
        field::ISSUER,
        field::TOKEN_ENDPOINT,
        field::JWKS_URI,
        field::TOKEN_ENDPOINT_AUTH_METHOD,
        field::ISSUER_CA,
    ];
    let public = public.into_iter().filter_map(|name| Some((name, text(fields, name)?))).collect();
    // A further field has the value of another one, or the Secret is written again.
    is_as_written &= reading.template.is_none_or(|template| {
        let has_source = |(name, source): (&String, &SecretField)| {
            let source = fields.get(source.as_str());
            source.is_none() || fields.get(name) == source
        };
        template.fields.iter().all(has_source)
    });
    // What stands beside a credential counts like the connection: where it was edited, it is written anew.
    contents.connection = if is_as_written { connection::digest(reading.environment, &public) } else { String::new() };
    contents
}

/// What a Secret holds by its annotations, where nobody but us has written it since.
#[must_use]
pub fn hinted_contents(reading: Reading<'_>, annotations: &BTreeMap<String, String>) -> Contents {
    let shown = |entry: &api::Entry| {
        let kind = entry.kind()?;
        let ledger = reading.ledger.and_then(|l| l.credentials.get(&entry.name)).filter(|c| c.kind == kind);
        Some((entry.name.clone(), Shown::hinted(kind, reading.published.0.get(&entry.name), ledger)?))
    };
    Contents {
        shown: reading.entries.iter().filter_map(shown).collect(),
        connection: annotations.get(names::CONNECTION_ANNOTATION).cloned().unwrap_or_default(),
        fields: Vec::new(),
    }
}

/// What keeps a Secret from being written.
pub(super) fn obstacle(facts: &Facts, desired: &Desired, secret: &SecretFact) -> Option<Problem> {
    let name = &desired.secret;
    let field = || format!("spec.credentials[{}].secretName", desired.name);
    if let Some(refusal) = facts.refusals.get(&desired.secret) {
        return Some(refusal.clone());
    }
    match secret {
        SecretFact::Absent(_) => facts.registration.namespace_is_terminating.then(|| {
            let text = format!(
                "the Secret {name} cannot be created, because the namespace is being deleted: create the registration in \
                 another namespace"
            );
            Problem::of_field(Reason::NamespaceTerminating, field(), text)
        }),
        SecretFact::Foreign => {
            let text =
                format!("the Secret {name} exists and is not this registration's: delete it, or choose another name");
            Some(Problem::of_field(Reason::SecretConflict, field(), text))
        }
        SecretFact::Ours(secret) if secret.immutable => {
            let text = format!("the Secret {name} is immutable: delete it, and it is made anew");
            Some(Problem::of_field(Reason::SecretImmutable, field(), text))
        }
        SecretFact::Ours(secret) => {
            let wanted = type_of(facts, name);
            let actual = secret.type_.as_deref().filter(|actual| *actual != wanted)?;
            let text =
                format!("the Secret {name} has the type {actual} and not {wanted}: delete it, and it is made anew");
            Some(Problem::of_field(Reason::SecretConflict, field(), text))
        }
    }
}

/// The Secrets that must be written.
pub(super) fn publish(facts: &Facts, client: &Client, draft: &Draft, now: Timestamp) -> Vec<Publish> {
    let mut secrets: Vec<&str> = Vec::new();
    for (desired, _) in &draft.verdicts {
        if !secrets.contains(&desired.secret.as_str()) {
            secrets.push(&desired.secret);
        }
    }
    secrets
        .into_iter()
        .filter_map(|name| {
            let verdicts: Vec<_> = draft.verdicts.iter().filter(|(desired, _)| desired.secret == name).collect();
            publish_one(facts, client, name, &verdicts, now)
        })
        .collect()
}

/// The Secrets that no entry wants any more.
pub(super) fn remove(facts: &Facts) -> Vec<Remove> {
    let registration = &facts.registration;
    let entries = registration.spec.effective_credentials();
    if entries.iter().any(|entry| entry.kind().is_none()) {
        // Where an entry of a kind that a later version knows has its Secret is not known here.
        return Vec::new();
    }
    let wanted: BTreeSet<_> = entries.iter().filter_map(|entry| api::secret_name(entry, &registration.name)).collect();
    facts
        .secrets
        .iter()
        .filter(|(name, _)| !wanted.contains(*name))
        .filter_map(|(name, secret)| Some((name, secret.ours()?)))
        .filter(|(_, secret)| secret.labels.get(names::REGISTRATION_UID_LABEL) == Some(&registration.uid))
        .map(|(name, secret)| Remove { name: name.clone(), uid: secret.uid.clone() })
        .collect()
}

fn publish_one(
    facts: &Facts,
    client: &Client,
    name: &str,
    verdicts: &[&(Desired, Verdict)],
    now: Timestamp,
) -> Option<Publish> {
    let secret = facts.secrets.get(name).unwrap_or(&super::ABSENT);
    let shown: Vec<_> = verdicts.iter().filter(|(_, verdict)| !verdict.fields.is_empty()).collect();
    let first = verdicts.first()?;
    let gone = has_gone_entries(facts, client, name, secret);
    let is_empty = shown.is_empty() && !(gone && type_of(facts, name) == OPAQUE);
    if is_empty || obstacle(facts, &first.0, secret).is_some() {
        return None;
    }
    let endpoint_bundle = facts.environment.endpoint_authorities.bundle(now);
    let usual = shown.iter().find_map(|(desired, _)| methods::of_kind(desired.settings.kind()).first().copied());
    let method = facts.registration.spec.token_endpoint_auth_method.or(usual);
    let connection = connection::of(&facts.environment, &client.id, method, &endpoint_bundle);
    let digest = connection.digest(&facts.environment);
    let mut fields: BTreeMap<_, _> =
        connection.fields.into_iter().map(|(name, text)| (name, Value::Text(text))).collect();
    let mut published = Published::default();
    keep_unresolved(facts, name, verdicts, &mut fields, &mut published);
    for (desired, verdict) in &shown {
        fields.extend(verdict.fields.iter().cloned());
        if matches!(desired.settings, Settings::Certificate { .. }) {
            fields.insert(field::CA, Value::Text(facts.environment.authorities.bundle(now)));
        }
        if let Some(entry) = &verdict.published {
            published.0.insert(desired.name.clone(), entry.clone());
        }
    }
    let mut marks = Marks::of(facts, client, secret.ours());
    marks.annotations.insert(names::CONNECTION_ANNOTATION.to_owned(), digest.clone());
    let copies: BTreeMap<String, SecretField> = marks
        .copies
        .iter()
        .filter(|(_, source)| fields.contains_key(source.as_str()))
        .map(|(n, s)| (n.clone(), *s))
        .collect();
    let reason = verdicts
        .iter()
        .find_map(|(_, verdict)| verdict.publish)
        .or_else(|| gone.then_some(Reason::EntryRemoved))
        .or_else(|| marks.reason(secret.ours()?, &digest, &fields))
        .or_else(|| matches!(secret, SecretFact::Absent(_)).then_some(Reason::SecretDeleted))?;
    marks.annotations.insert(names::PUBLISHED_ANNOTATION.to_owned(), published.to_json());
    let (mut labels, mut annotations) =
        secret.ours().map(|s| (s.labels.clone(), s.annotations.clone())).unwrap_or_default();
    labels.retain(|name, _| !marks.left.labels.contains(name));
    annotations.retain(|name, _| !marks.left.annotations.contains(name));
    labels.extend(marks.labels);
    annotations.extend(marks.annotations);
    let write = secret.ours().map_or(SecretWrite::Create, |secret| SecretWrite::Replace {
        uid: secret.uid.clone(),
        resource_version: secret.resource_version.clone(),
    });
    let type_ = type_of(facts, name);
    let name = name.to_owned();
    Some(Publish { name, write, type_, reason, fields, copies, labels, annotations, owned: marks.owned })
}

/// Whether a Secret says that it holds something of an entry that is no longer in the spec, or is of another kind there.
fn has_gone_entries(facts: &Facts, client: &Client, name: &str, secret: &SecretFact) -> bool {
    let registration = &facts.registration;
    let entries = registration.spec.effective_credentials();
    let is_gone = |of: &String| {
        let entry = entries.iter().find(|e| e.name == *of && is_written_to(e, facts, name));
        let recorded = client.entry().and_then(|ledger| ledger.credentials.get(of)).map(|credential| credential.kind);
        entry.is_none_or(|entry| recorded.is_some_and(|kind| entry.kind().is_some_and(|now| now != kind)))
    };
    secret.ours().is_some_and(|secret| secret.published().0.keys().any(is_gone))
}

/// Entries whose settings cannot be understood are not removed: what a Secret holds of them is written again.
fn keep_unresolved(
    facts: &Facts,
    name: &str,
    verdicts: &[&(Desired, Verdict)],
    fields: &mut BTreeMap<&'static str, Value>,
    published: &mut Published,
) {
    let registration = &facts.registration;
    let Some(secret) = facts.secrets.get(name).and_then(SecretFact::ours) else { return };
    let present = secret.contents.as_ref().map(|contents| contents.fields.as_slice()).unwrap_or_default();
    for entry in registration.spec.effective_credentials().iter() {
        let is_resolved = verdicts.iter().any(|(desired, _)| desired.name == entry.name);
        let Some(kind) = entry.kind() else { continue };
        if is_resolved || !is_written_to(entry, facts, name) {
            continue;
        }
        // Without a GET the names of the fields are not known: that something is kept makes the plan ask for one.
        let kept = fields_of(kind).iter().filter(|field| present.is_empty() || present.iter().any(|p| p == *field));
        fields.extend(kept.map(|field| (*field, Value::Held(field))));
        if let Some(said) = secret.published().0.get(&entry.name) {
            published.0.insert(entry.name.clone(), said.clone());
        }
    }
}

/// The fields of a kind of credential.
const fn fields_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::ClientSecret => &[field::CLIENT_SECRET, field::PREVIOUS_CLIENT_SECRET],
        Kind::Certificate => &[field::CERTIFICATE, field::PRIVATE_KEY, field::CA],
        Kind::AccessToken => &[field::ACCESS_TOKEN, field::TOKEN_TYPE, field::EXPIRES_AT, field::SCOPE],
        Kind::PublicKey | Kind::ServiceAccount => &[],
    }
}

/// What every Secret of a registration carries.
struct Marks {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Further fields, with the field whose value each has.
    copies: BTreeMap<String, SecretField>,
    /// What an earlier template brought and today's does not have.
    left: AppliedTemplate,
    owned: Owned,
}

impl Marks {
    fn of(facts: &Facts, client: &Client, secret: Option<&OurSecret>) -> Self {
        let registration = &facts.registration;
        let mut template = registration.spec.secret_template.clone().unwrap_or_default();
        // The API server refuses them; where it did not, ours win and nobody fights over them.
        let is_ours = |name: &String| name.split('/').next() == Some(names::GROUP);
        template.labels.retain(|name, _| !is_ours(name));
        template.annotations.retain(|name, _| !is_ours(name));
        template.fields.retain(|name, _| SecretField::named(name).is_none());
        let applied = AppliedTemplate::of(&template);
        let mut left = AppliedTemplate::parse(
            secret.and_then(|secret| secret.annotations.get(names::APPLIED_TEMPLATE_ANNOTATION)).map(String::as_str),
        );
        left.labels.retain(|name| !applied.labels.contains(name));
        left.annotations.retain(|name| !applied.annotations.contains(name));
        left.fields.retain(|name, _| !applied.fields.contains_key(name));
        let mut labels = template.labels;
        labels.insert(names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned());
        labels.insert(names::REGISTRATION_UID_LABEL.to_owned(), registration.uid.clone());
        let mut annotations = template.annotations;
        let mark = format!("{}/{}", registration.namespace, registration.name);
        annotations.insert(names::REGISTRATION_ANNOTATION.to_owned(), mark);
        annotations.insert(names::CLIENT_ID_ANNOTATION.to_owned(), client.id.clone());
        match applied.to_annotation() {
            Some(text) => drop(annotations.insert(names::APPLIED_TEMPLATE_ANNOTATION.to_owned(), text)),
            None => drop(left.annotations.insert(names::APPLIED_TEMPLATE_ANNOTATION.to_owned())),
        }
        let owned = match registration.spec.deletion_policy.unwrap_or_default() {
            DeletionPolicy::Delete => Owned::ByRegistration,
            DeletionPolicy::Orphan => Owned::ByNobody,
        };
        Self { labels, annotations, copies: template.fields, left, owned }
    }

    /// Why a Secret whose credentials are as they shall be must be written all the same.
    fn reason(&self, secret: &OurSecret, digest: &str, fields: &BTreeMap<&'static str, Value>) -> Option<Reason> {
        let has = |actual: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| actual.get(name) == Some(value))
        };
        let contents = secret.contents.as_ref()?;
        if !has(&secret.labels, &self.labels) || !has(&secret.annotations, &self.annotations) {
            return Some(Reason::FieldMissing);
        }
        let has_left = |actual: &BTreeMap<String, String>, left: &BTreeSet<String>| {
            left.iter().any(|name| actual.contains_key(name))
        };
        let is_outgrown = has_left(&secret.labels, &self.left.labels)
            || has_left(&secret.annotations, &self.left.annotations)
            || !self.left.fields.is_empty();
        if is_outgrown {
            return Some(Reason::SpecChanged);
        }
        if secret.owned != self.owned || contents.connection != digest {
            return Some(Reason::FieldMissing);
        }
        // The names of the fields are known from a GET alone.
        let lacks = |name: &str| !contents.fields.iter().any(|field| field == name);
        let copies = self.copies.iter().filter(|(_, source)| fields.contains_key(source.as_str()));
        let mut wanted = fields.keys().copied().chain(copies.map(|(name, _)| name.as_str()));
        (!contents.fields.is_empty() && wanted.any(lacks)).then_some(Reason::FieldMissing)
    }
}

/// The type of a Secret: a certificate that names its Secret has it to itself.
fn type_of(facts: &Facts, name: &str) -> &'static str {
    let registration = &facts.registration;
    let is_tls = registration.spec.effective_credentials().iter().any(|entry| {
        entry.kind() == Some(Kind::Certificate) && entry.secret_name.is_some() && is_written_to(entry, facts, name)
    });
    if is_tls { TLS } else { OPAQUE }
}

/// Whether an entry is written to this Secret.
fn is_written_to(entry: &api::Entry, facts: &Facts, secret: &str) -> bool {
    api::secret_name(entry, &facts.registration.name).as_deref() == Some(secret)
}
