//! What the operator would grant: policies, approvals and namespaces of the files, held against each registration by the
//! function with which the controller plans.
//!
//! A registration is looked at as a new one, of which the ledger has nothing. What a cluster has beside the files is not
//! known: not the labels of namespaces, and not the registrations that count for a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::field_path::FieldPath;
use super::finding::{Rule, Violation};
use crate::api::{
    AppRegistration, AuthorizationServer, Entry, Message, Reason, RegistrationApproval, RegistrationApprovalSpec,
    RegistrationPolicy, secret_name, selects,
};
use crate::authority::{self, Catalog, Declared, Takes};
use crate::config::Config;
use crate::plan::facts::{Admission, Environment, Facts, LedgerFact, Registration, SecretFact, Source};
use crate::plan::{Objections, objections};
use crate::policy::{ALL_CUSTOMERS, Denied, Governance, Invalid, Item, ItemKind, Rules, Subject};
use crate::signer;
use crate::signer::ca::CaIndex;

/// The label that every namespace has, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What governs the registrations of the files.
pub(super) struct Governors {
    config: Config,
    declared: BTreeMap<String, Declared>,
    catalog: Catalog,
    /// The configured policy: its restrictions count where no policy states one.
    configured: Arc<Rules>,
    policies: Vec<(LabelSelector, Arc<Rules>)>,
    approvals: BTreeMap<(String, String), BTreeMap<String, Arc<RegistrationApprovalSpec>>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    /// How many registrations of a namespace were looked at.
    registrations: BTreeMap<String, usize>,
    /// The namespaces whose labels were needed and are not known.
    assumed: BTreeSet<String>,
}

impl Governors {
    /// Those of a configuration, with the labels of namespaces that are known from elsewhere.
    pub(super) fn new(config: &Config, labels: BTreeMap<String, BTreeMap<String, String>>) -> Result<Self, Invalid> {
        let rules = Rules::of_config(&config.policy)?;
        Ok(Self {
            config: config.clone(),
            declared: BTreeMap::new(),
            catalog: authority::catalog(&config.server, Some(&BTreeMap::new()), &BTreeMap::new()),
            configured: Arc::new(rules),
            policies: Vec::new(),
            approvals: BTreeMap::new(),
            labels,
            registrations: BTreeMap::new(),
            assumed: BTreeSet::new(),
        })
    }

    /// Takes a policy up, or says why it cannot be understood.
    pub(super) fn policy(&mut self, policy: RegistrationPolicy) -> Result<(), Violation> {
        let name = policy.metadata.name.unwrap_or_default();
        let rules = Rules::of_object(&name, &policy.spec).map_err(|invalid| {
            let field = field_of(&format!("spec.{}", invalid.field), &[]);
            let message = format!("{}. Until then the policy selects nothing and allows nothing", invalid.problem);
            Violation::error(Rule::UnreadablePolicy, field, message)
        })?;
        self.policies.push((policy.spec.namespace_selector, Arc::new(rules)));
        self.policies.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        Ok(())
    }

    /// Takes an authorization server up.
    pub(super) fn server(&mut self, server: AuthorizationServer) {
        let name = server.metadata.name.unwrap_or_default();
        let created_at = server.metadata.creation_timestamp.map(|at| at.0);
        self.declared.insert(name.clone(), Declared::of(&name, created_at, server.spec));
        self.catalog = authority::catalog(&self.config.server, Some(&self.declared), &BTreeMap::new());
    }

    /// Why an authorization server that was taken up is not in force, beside all others.
    pub(super) fn refusal(&self, server: &str) -> Option<Violation> {
        let (_, problem) = self.catalog.refused.get(server)?;
        Some(about(Rule::ServerNotInForce, problem, &[]))
    }

    /// Takes an approval up.
    pub(super) fn approval(&mut self, approval: RegistrationApproval) {
        let registration = &approval.spec.registration_ref;
        let key = (registration.namespace.clone(), registration.name.clone());
        let name = approval.metadata.name.unwrap_or_default();
        self.approvals.entry(key).or_default().insert(name, Arc::new(approval.spec));
    }

    /// Takes the labels of a namespace up.
    pub(super) fn namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.labels.entry(name.to_owned()).or_default().extend(labels);
    }

    /// What a registration would not get, if it were created now in this namespace.
    pub(super) fn check(&mut self, registration: &AppRegistration, namespace: &str, now: Timestamp) -> Vec<Violation> {
        let facts = self.facts(registration, namespace);
        let subject = facts.registration.subject();
        let entries = registration.spec.credentials.as_deref().unwrap_or_default();
        let Objections { denied, problems, notes } = objections(&facts, now);
        let denied = denied.iter().map(|denied| of_item(denied, registration, subject));
        let problems = problems.iter().filter_map(|problem| {
            let rule = rule(problem.reason)?;
            Some(about(rule, &problem.message, entries))
        });
        let notes = notes.iter().map(|note| about(Rule::Bounded, note, entries).as_warning());
        denied.chain(problems).chain(notes).collect()
    }

    /// What a reader must know to trust the answer.
    pub(super) fn notes(&self) -> Vec<String> {
        let assumed = self.assumed.iter().map(|namespace| {
            format!(
                "the labels of the namespace {namespace} are not known, only its name was compared with the selectors of \
                 policies and servers: add its Namespace to the files, or --namespace-labels {namespace}:NAME=VALUE"
            )
        });
        // Every default policy has a limit; a file with policies is one of somebody who thinks about them.
        let limits = self.policies.iter().any(|(_, rules)| rules.limits_registrations());
        let limits = limits.then(|| {
            "limits.registrationsPerNamespace was compared with the registrations of the files; those that a cluster has \
             were not counted"
                .to_owned()
        });
        assumed.chain(limits).collect()
    }

    fn facts(&mut self, registration: &AppRegistration, namespace: &str) -> Facts {
        let name = registration.metadata.name.clone().unwrap_or_default();
        let count = self.registrations.entry(namespace.to_owned()).or_default();
        let older = std::mem::replace(count, *count + 1);
        let (environment, admission) = self.server_of(registration, namespace);
        let entries = registration.spec.effective_credentials();
        let secrets = entries.iter().filter_map(|entry| secret_name(entry, &name));
        Facts {
            environment: Arc::new(environment),
            admission,
            governance: Governance { older, ..self.governance(namespace, &name) },
            ledger: LedgerFact::Absent,
            secrets: secrets.map(|secret| (secret, SecretFact::Absent(Source::Live))).collect(),
            refusals: BTreeMap::new(),
            registration: Registration {
                namespace: namespace.to_owned(),
                name,
                uid: "00000000-0000-0000-0000-000000000000".to_owned(),
                annotations: registration.metadata.annotations.clone().unwrap_or_default(),
                spec: registration.spec.clone(),
                confirmed: true,
                ..Registration::default()
            },
        }
    }

    /// The authorization server that a registration names, and whether it takes it; the configured one where there is no
    /// such server, as the controller has it.
    fn server_of(&mut self, registration: &AppRegistration, namespace: &str) -> (Environment, Admission) {
        let named = self.catalog.in_force.get(registration.spec.authorization_server()).cloned();
        let server =
            named.as_ref().map_or_else(|| self.config.server.clone(), |named| named.authority.server().clone());
        let takes = named.map_or(Takes::Everyone, |named| named.takes);
        let needs_labels = matches!(&takes, Takes::Selected(selector) if *selector != LabelSelector::default());
        let labels = self.labels_of(namespace, needs_labels);
        let refusal = takes.refusal(&server.name, namespace, Some(&labels));
        let environment = Environment {
            server,
            policy: self.config.policy.clone(),
            keys: signer::Index::default(),
            authorities: CaIndex::default(),
            endpoint_authorities: CaIndex::default(),
        };
        (environment, refusal.map_or(Admission::Open, Admission::Closed))
    }

    /// The labels of a namespace; where they are needed and not known, its name alone, which is remembered.
    fn labels_of(&mut self, namespace: &str, are_needed: bool) -> BTreeMap<String, String> {
        let known = self.labels.get(namespace);
        if known.is_none() && are_needed {
            self.assumed.insert(namespace.to_owned());
        }
        let mut labels = known.cloned().unwrap_or_default();
        labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
        labels
    }

    fn governance(&mut self, namespace: &str, name: &str) -> Governance {
        let needs_labels = self.policies.iter().any(|(selector, _)| *selector != LabelSelector::default());
        let labels = self.labels_of(namespace, needs_labels);
        let selecting = self.policies.iter().filter(|(selector, _)| selects(selector, &labels).unwrap_or(false));
        let mut policies: Vec<_> = selecting.map(|(_, rules)| rules.clone()).collect();
        policies.extend(self.config.policy.enabled.then(|| self.configured.clone()));
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let approvals = self.approvals.get(&(namespace.to_owned(), name.to_owned()));
        Governance {
            policies,
            configured: self.configured.clone(),
            approvals: approvals.cloned().unwrap_or_default(),
            ..Governance::default()
        }
    }
}

/// An object that a definition has accepted, as its type.
pub(super) fn typed<T: DeserializeOwned>(stored: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(stored).map_err(|error| format!("{} cannot be understood", error.path()))
}

fn of_item(denied: &Denied, registration: &AppRegistration, subject: Subject<'_>) -> Violation {
    let message = denied.message(subject).text;
    let field = place_of_item(denied, registration);
    match denied.reason() {
        Reason::NoPolicy => Violation::error(Rule::NoPolicy, field, message),
        Reason::ApprovalRequired => Violation::error(Rule::ApprovalRequired, field, message).as_warning(),
        _ => Violation::error(Rule::NotAllowed, field, message),
    }
}

/// The field in which an item stands.
fn place_of_item(denied: &Denied, registration: &AppRegistration) -> FieldPath {
    let Item { kind, audience, name } = &denied.item;
    let spec = FieldPath::default().field("spec");
    let list = |path: &str, items: &[String]| {
        let field = spec.below(path);
        items.iter().position(|item| item == name).map_or(field.clone(), |at| field.item(at))
    };
    let asked = &registration.spec;
    let api = |audience: &str| {
        let at = asked.apis.iter().position(|api| api.audience == audience)?;
        Some((spec.field("apis").item(at), &asked.apis[at]))
    };
    let scope = asked.customer_scope.clone().unwrap_or_default();
    match kind {
        ItemKind::Scope => list("scopes", &asked.scopes),
        ItemKind::Api => api(name).map_or(spec.field("apis"), |(field, _)| field.field("audience")),
        ItemKind::ApiScope => {
            let Some((field, api)) = audience.as_deref().and_then(api) else { return spec.field("apis") };
            let at = api.scopes.iter().position(|scope| scope == name);
            at.map_or(field.clone(), |at| field.field("scopes").item(at))
        }
        ItemKind::ServedAudience => list("servedAudiences", &asked.served_audiences),
        ItemKind::RedirectUri => list("redirectURIs", &asked.redirect_uris),
        ItemKind::Customer if name == ALL_CUSTOMERS => spec.below("customerScope.type"),
        ItemKind::Customer => list("customerScope.customers", &scope.customers),
        ItemKind::CustomerGroup => list("customerScope.groups", &scope.groups),
        ItemKind::DnsName => {
            let entries = asked.credentials.iter().flatten().enumerate();
            let mut names = entries.filter_map(|(index, entry)| {
                let at = entry.certificate.as_ref()?.dns_names.iter().position(|item| item == name)?;
                Some(spec.field("credentials").item(index).below("certificate.dnsNames").item(at))
            });
            names.next().unwrap_or(spec)
        }
    }
}

/// What stands in the way, if the files can mend it.
fn rule(reason: Reason) -> Option<Rule> {
    match reason {
        Reason::PolicyDenied | Reason::ServerDenied => Some(Rule::NotAllowed),
        Reason::NoPolicy => Some(Rule::NoPolicy),
        Reason::QuotaExceeded => Some(Rule::QuotaExceeded),
        // What is given and has ended, or was revoked, is in the files as well.
        Reason::InvalidSpec | Reason::Expired | Reason::Revoked => Some(Rule::InvalidSpec),
        _ => None,
    }
}

/// A violation of the field that a message is about.
fn about(rule: Rule, message: &Message, entries: &[Entry]) -> Violation {
    let field = field_of(message.field.as_deref().unwrap_or("spec"), entries);
    Violation::error(rule, field, &message.text)
}

/// The field that the operator calls so. It names entries of `credentials` and annotations in brackets, and other items by
/// their index.
fn field_of(path: &str, entries: &[Entry]) -> FieldPath {
    let (mut field, mut rest) = (FieldPath::default(), path);
    while !rest.is_empty() {
        rest = if let Some(bracket) = rest.strip_prefix('[') {
            let (part, after) = bracket.split_once(']').unwrap_or((bracket, ""));
            let index = entries.iter().position(|entry| entry.name == part).or_else(|| part.parse().ok());
            field = index.map_or_else(|| field.field(part), |index| field.item(index));
            after
        } else {
            let (part, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            field = field.field(part);
            after
        };
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_operator_names_is_found_by_names_of_entries_and_by_indexes() {
        let entries = ["web", "0"].map(|name| Entry { name: name.to_owned(), ..Entry::default() });
        for (named, path) in [
            ("spec", "spec"),
            ("spec.clientID", "spec.clientID"),
            ("spec.credentials[web].secretName", "spec.credentials[0].secretName"),
            ("spec.credentials[0]", "spec.credentials[1]"),
            (
                "spec.namespaceSelector.matchExpressions[2].operator",
                "spec.namespaceSelector.matchExpressions[2].operator",
            ),
        ] {
            assert_eq!(field_of(named, &entries).to_string(), path);
        }
        let annotation = FieldPath::default().below("metadata.annotations").field("appreg.dev/rotate-minted-before");
        assert_eq!(field_of("metadata.annotations[appreg.dev/rotate-minted-before]", &entries), annotation);
    }
}
