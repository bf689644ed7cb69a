//! What governs which registrations: policies, approvals and the labels of namespaces, with the indexes that keep the cost
//! of a pass and of an edit flat. An edit of one policy concerns the namespaces that it selects or selected, and no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::PartialObjectMeta;

use crate::api::{
    Message, RegistrationApproval, RegistrationApprovalSpec, RegistrationPolicy, RegistrationPolicyStatus,
    RegistrationRef, selects,
};
use crate::config;
use crate::kubernetes::store::{Changed, Store};
use crate::kubernetes::watch::Change;
use crate::kubernetes::{DeserializeGuard, ObjectName};
use crate::ledger::Grant;
use crate::policy::{BY_POLICY, Governance, Invalid, Rules};

/// A policy as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct PolicyObject {
    /// `metadata.generation`.
    pub(crate) generation: i64,
    /// The rules with the namespaces that they are for, or why they cannot be understood.
    pub(crate) rules: Result<(Arc<Rules>, LabelSelector), Message>,
    /// Its status as last reported.
    pub(crate) status: RegistrationPolicyStatus,
}

/// An approval as it is kept: one that cannot be understood is known to exist, and approves nothing.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalObject(pub(crate) Option<Arc<RegistrationApprovalSpec>>);

/// Reduces a policy.
pub(crate) fn policy(DeserializeGuard(object): DeserializeGuard<RegistrationPolicy>) -> PolicyObject {
    match object {
        Ok(policy) => {
            let name = policy.metadata.name.unwrap_or_default();
            let rules = Rules::of_object(&name, &policy.spec)
                .map(|rules| (Arc::new(rules), policy.spec.namespace_selector))
                .map_err(|Invalid { field, problem }| Message::of_field(format!("spec.{field}"), problem));
            PolicyObject {
                generation: policy.metadata.generation.unwrap_or_default(),
                rules,
                status: policy.status.unwrap_or_default(),
            }
        }
        Err(invalid) => PolicyObject {
            generation: invalid.metadata.generation.unwrap_or_default(),
            status: invalid.status(),
            rules: Err(Message::of_field(invalid.field, invalid.problem)),
        },
    }
}

/// Reduces an approval.
pub(crate) fn approval(DeserializeGuard(object): DeserializeGuard<RegistrationApproval>) -> ApprovalObject {
    ApprovalObject(object.ok().map(|approval| Arc::new(approval.spec)))
}

/// A namespace as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceObject {
    /// `metadata.labels`.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub(crate) is_terminating: bool,
}

/// Reduces a namespace.
pub(crate) fn namespace(namespace: PartialObjectMeta<Namespace>) -> NamespaceObject {
    let is_terminating = namespace.metadata.deletion_timestamp.is_some();
    NamespaceObject { labels: namespace.metadata.labels.unwrap_or_default(), is_terminating }
}

/// Whether an approval is for this registration, and for this object of it if it names one.
pub(crate) fn is_for(reference: &RegistrationRef, registration: &ObjectName, uid: &str) -> bool {
    *reference.namespace == *registration.namespace
        && *reference.name == *registration.name
        && reference.uid.as_ref().is_none_or(|wanted| wanted == uid)
}

/// What the watches of policies, approvals and namespaces have shown.
#[derive(Default)]
pub(crate) struct Governors {
    /// The configured policy. Its restrictions count where no policy states one.
    configured: Arc<Rules>,
    /// Whether the configured policy allows anything itself.
    is_configured_in_force: bool,
    pub(crate) policies: Store<PolicyObject>,
    approvals: Store<ApprovalObject>,
    namespaces: Store<NamespaceObject>,
    /// Whether policies have been listed at all.
    lists_policies: bool,
    /// Whether namespaces have been listed at all.
    lists_namespaces: bool,
    /// The policies that select a namespace, by its name.
    selecting: HashMap<Arc<str>, BTreeSet<ObjectName>>,
    /// The namespaces that a policy selects.
    selected: HashMap<ObjectName, BTreeSet<Arc<str>>>,
    /// Approvals by the registration that they are for.
    approvals_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
}

/// What a change of namespaces means.
pub(crate) struct Relabelled {
    /// Those whose policies are others now; `None` is all of them.
    pub(crate) policies: Option<BTreeSet<Arc<str>>>,
    /// Those whose labels are.
    pub(crate) labels: BTreeSet<Arc<str>>,
}

impl Governors {
    /// Nothing but the configured policy, if it is enabled.
    pub(crate) fn new(configured: &config::Policy) -> Result<Self, Invalid> {
        let rules = Rules::of_config(configured)?;
        Ok(Self { configured: Arc::new(rules), is_configured_in_force: configured.enabled, ..Self::default() })
    }

    /// Takes what the watch of policies says, and returns the namespaces that it concerns; `None` is all of them.
    pub(crate) fn policies(&mut self, change: Change<PolicyObject>) -> Option<BTreeSet<Arc<str>>> {
        let is_first = matches!(change, Change::Listed { .. }) && !std::mem::replace(&mut self.lists_policies, true);
        let mut concerned = BTreeSet::new();
        for Changed { object, before } in self.policies.apply(change) {
            let after = self.policies.value(&object);
            // A report on a policy changes its status alone.
            if let (Some(before), Some(after)) = (&before, after)
                && before.rules == after.rules
            {
                continue;
            }
            let selector = after.and_then(|policy| policy.rules.as_ref().ok()).map(|(_, selector)| selector.clone());
            let selected: BTreeSet<Arc<str>> = selector.map(|s| self.selected_by(&s)).unwrap_or_default();
            let was = self.selected.insert(object.clone(), selected.clone()).unwrap_or_default();
            for gone in was.difference(&selected) {
                if let Some(policies) = self.selecting.get_mut(gone) {
                    policies.remove(&object);
                }
            }
            for come in &selected {
                self.selecting.entry(come.clone()).or_default().insert(object.clone());
            }
            if self.policies.value(&object).is_none() {
                self.selected.remove(&object);
            }
            concerned.extend(was);
            concerned.extend(selected);
        }
        if is_first { None } else { Some(concerned) }
    }

    /// Takes what the watch of namespaces says, and returns those whose policies are others now, and with them all whose
    /// labels are.
    pub(crate) fn namespaces(&mut self, change: Change<NamespaceObject>) -> Relabelled {
        let is_first = matches!(change, Change::Listed { .. }) && !std::mem::replace(&mut self.lists_namespaces, true);
        let (mut concerned, mut labels) = (BTreeSet::new(), BTreeSet::new());
        for Changed { object, before } in self.namespaces.apply(change) {
            let name = object.name.clone();
            let after = self.labels(&name);
            if before.as_ref().map(|namespace| &namespace.labels) != after {
                labels.insert(name.clone());
            }
            let policies: BTreeSet<ObjectName> = match after {
                None => BTreeSet::new(),
                Some(labels) => self
                    .policies
                    .iter()
                    .filter(|(_, policy)| {
                        let rules = policy.rules.as_ref();
                        rules.is_ok_and(|(_, selector)| selects(selector, labels).unwrap_or(false))
                    })
                    .map(|(policy, _)| policy.clone())
                    .collect(),
            };
            let was = self.selecting.insert(name.clone(), policies.clone()).unwrap_or_default();
            for gone in was.difference(&policies) {
                if let Some(selected) = self.selected.get_mut(gone) {
                    selected.remove(&name);
                }
            }
            for come in policies.difference(&was) {
                self.selected.entry(come.clone()).or_default().insert(name.clone());
            }
            let is_known = self.namespaces.value(&object).is_some();
            if !is_known {
                self.selecting.remove(&name);
            }
            if was != policies || before.is_some() != is_known {
                concerned.insert(name);
            }
        }
        Relabelled { policies: if is_first { None } else { Some(concerned) }, labels }
    }

    /// Takes what the watch of approvals says, and returns the registrations that it concerns.
    pub(crate) fn approvals(&mut self, change: Change<ApprovalObject>) -> BTreeSet<ObjectName> {
        let mut concerned = BTreeSet::new();
        for Changed { object, before } in self.approvals.apply(change) {
            let after = self.approvals.value(&object);
            for (value, is_new) in [(before.as_ref(), false), (after, true)] {
                let Some(ApprovalObject(Some(spec))) = value else { continue };
                let RegistrationRef { namespace, name, uid: _ } = &spec.registration_ref;
                let registration = ObjectName::new(namespace, name);
                let approvals = self.approvals_of.entry(registration.clone()).or_default();
                if is_new {
                    approvals.insert(object.clone());
                } else {
                    approvals.remove(&object);
                    if approvals.is_empty() {
                        self.approvals_of.remove(&registration);
                    }
                }
                concerned.insert(registration);
            }
        }
        concerned
    }

    /// What governs a registration, with what it was granted so far. How many come before it is for the caller to say.
    pub(crate) fn of(&self, registration: &ObjectName, uid: &str, grant: Option<&Grant>) -> Governance {
        let namespace = &registration.namespace;
        let is_known = self.labels(namespace).is_some();
        let selecting = self.selecting.get(namespace).into_iter().flatten();
        let mut policies: Vec<Arc<Rules>> = selecting.filter_map(|policy| self.rules(policy).cloned()).collect();
        policies.extend(self.is_configured_in_force.then(|| self.configured.clone()));
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let unknown = match (self.lists_policies, self.lists_namespaces, is_known) {
            (false, _, _) => Some("RegistrationPolicies could not be listed yet".to_owned()),
            (true, false, _) => Some("Namespaces could not be listed yet".to_owned()),
            (true, true, false) => Some(format!("the labels of the namespace {namespace} are not known yet")),
            (true, true, true) => None,
        };
        let departed = grant
            .into_iter()
            .flat_map(Grant::granted_by)
            .filter_map(|by| by.strip_prefix(BY_POLICY))
            .filter(|name| policies.iter().all(|rules| rules.name != **name))
            .filter(|name| {
                let rules = self.rules(&ObjectName::new("", name));
                rules.is_some_and(|rules| rules.on_violation == crate::api::OnViolation::Withdraw)
            })
            .map(str::to_owned)
            .collect();
        let approvals = self.approvals_of.get(registration).into_iter().flatten();
        let approvals = approvals.filter_map(|object| {
            let ApprovalObject(spec) = self.approvals.value(object)?;
            let spec = spec.clone().filter(|spec| is_for(&spec.registration_ref, registration, uid))?;
            Some((object.name.to_string(), spec))
        });
        Governance {
            policies,
            configured: self.configured.clone(),
            departed,
            approvals: approvals.collect(),
            absent: BTreeMap::new(),
            older: 0,
            unknown,
        }
    }

    /// The labels of a namespace, if they are known.
    pub(crate) fn labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespace(namespace).map(|namespace| &namespace.labels)
    }

    /// Whether a namespace is known to be under deletion.
    pub(crate) fn is_terminating(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|namespace| namespace.is_terminating)
    }

    fn namespace(&self, name: &str) -> Option<&NamespaceObject> {
        self.namespaces.value(&ObjectName::new("", name))
    }

    /// The policies that select a namespace.
    pub(crate) fn selecting(&self, namespace: &str) -> impl Iterator<Item = &ObjectName> {
        self.selecting.get(namespace).into_iter().flatten()
    }

    /// The namespaces that a policy selects.
    pub(crate) fn selected(&self, policy: &ObjectName) -> impl Iterator<Item = &Arc<str>> {
        self.selected.get(policy).into_iter().flatten()
    }

    fn rules(&self, policy: &ObjectName) -> Option<&Arc<Rules>> {
        self.policies.value(policy)?.rules.as_ref().ok().map(|(rules, _)| rules)
    }

    fn selected_by(&self, selector: &LabelSelector) -> BTreeSet<Arc<str>> {
        let namespaces =
            self.namespaces.iter().filter(|(_, namespace)| selects(selector, &namespace.labels).unwrap_or(false));
        namespaces.map(|(object, _)| object.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::watch::Item;

    fn item<T>(name: &str, version: u64, value: T) -> Item<T> {
        Item { object: ObjectName::new("", name), version, value }
    }

    fn policy_for(team: &str, scopes: &[&str]) -> PolicyObject {
        let spec = crate::api::RegistrationPolicySpec {
            namespace_selector: LabelSelector {
                match_labels: Some(BTreeMap::from([("team".into(), team.into())])),
                ..LabelSelector::default()
            },
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Default::default()
        };
        let rules = Rules::of_object(team, &spec).unwrap();
        PolicyObject {
            generation: 1,
            rules: Ok((Arc::new(rules), spec.namespace_selector)),
            status: RegistrationPolicyStatus::default(),
        }
    }

    fn of_team(team: &str) -> NamespaceObject {
        NamespaceObject { labels: BTreeMap::from([("team".into(), team.into())]), is_terminating: false }
    }

    /// A thousand policies and a thousand namespaces, each policy for one of them.
    fn thousand() -> Governors {
        let mut governors = Governors::new(&config::Policy { enabled: false, ..Default::default() }).unwrap();
        let policies = (0..1000).map(|n| item(&format!("p{n}"), n + 1, policy_for(&n.to_string(), &["a"]))).collect();
        assert_eq!(
            governors.policies(Change::Listed { items: policies, version: 1000 }),
            None,
            "the first list is about all"
        );
        let namespaces = (0..1000).map(|n| item(&format!("ns{n}"), n + 1, of_team(&n.to_string()))).collect();
        assert_eq!(governors.namespaces(Change::Listed { items: namespaces, version: 1000 }).policies, None);
        governors
    }

    fn names(concerned: Option<BTreeSet<Arc<str>>>) -> Vec<String> {
        concerned.expect("not all").iter().map(ToString::to_string).collect()
    }

    fn selecting(governors: &Governors, namespace: &str) -> Vec<String> {
        let governance = governors.of(&ObjectName::new(namespace, "app"), "u", None);
        assert_eq!(governance.unknown, None);
        governance.policies.iter().map(|rules| rules.name.clone()).collect()
    }

    #[test]
    fn an_edit_of_one_policy_of_a_thousand_concerns_what_it_selects_or_selected_and_nothing_else() {
        let mut governors = thousand();
        assert_eq!(selecting(&governors, "ns7"), ["7"]);
        let edited = policy_for("7", &["a", "b"]);
        assert_eq!(names(governors.policies(Change::Applied(item("p7", 2000, edited.clone())))), ["ns7"]);
        let reported =
            PolicyObject { status: RegistrationPolicyStatus { violations: Some(1), ..Default::default() }, ..edited };
        assert!(
            names(governors.policies(Change::Applied(item("p7", 2001, reported)))).is_empty(),
            "a report is no edit"
        );
        let moved = policy_for("8", &["a", "b"]);
        assert_eq!(names(governors.policies(Change::Applied(item("p7", 2002, moved)))), ["ns7", "ns8"]);
        assert_eq!(selecting(&governors, "ns7"), Vec::<String>::new());
        assert_eq!(selecting(&governors, "ns8"), ["8", "8"]);
        let gone = Change::Deleted { object: ObjectName::new("", "p7"), version: 2003 };
        assert_eq!(names(governors.policies(gone)), ["ns8"]);
        assert_eq!(governors.selected(&ObjectName::new("", "p7")).count(), 0);
    }

    #[test]
    fn a_change_of_a_namespaces_labels_concerns_it_alone_and_only_if_it_matters() {
        let mut governors = thousand();
        let mut namespace = of_team("7");
        namespace.labels.insert("colour".into(), "blue".into());
        let Relabelled { policies, labels } =
            governors.namespaces(Change::Applied(item("ns7", 2000, namespace.clone())));
        assert_eq!((names(policies), labels), (vec![], BTreeSet::from(["ns7".into()])));
        namespace.is_terminating = true;
        let Relabelled { policies, labels } = governors.namespaces(Change::Applied(item("ns7", 2001, namespace)));
        assert_eq!((names(policies), labels), (vec![], BTreeSet::new()), "its end is none of its labels");
        assert!(governors.is_terminating("ns7"));
        assert_eq!(names(governors.namespaces(Change::Applied(item("ns7", 2002, of_team("9")))).policies), ["ns7"]);
        assert_eq!(selecting(&governors, "ns7"), ["9"]);
        assert_eq!(names(governors.namespaces(Change::Applied(item("new", 2003, of_team("none")))).policies), ["new"]);
    }

    #[test]
    fn what_was_not_listed_is_not_taken_for_absent() {
        let mut governors = Governors::new(&config::Policy { enabled: false, ..Default::default() }).unwrap();
        let app = ObjectName::new("shop", "app");
        let unknown = |governors: &Governors| governors.of(&app, "u", None).unknown.unwrap_or_default();
        assert_eq!(unknown(&governors), "RegistrationPolicies could not be listed yet");
        governors.policies(Change::Listed { items: vec![], version: 1 });
        assert_eq!(unknown(&governors), "Namespaces could not be listed yet");
        governors.namespaces(Change::Listed { items: vec![], version: 1 });
        assert_eq!(unknown(&governors), "the labels of the namespace shop are not known yet");
        governors.namespaces(Change::Applied(item("shop", 2, of_team("shop"))));
        assert_eq!(unknown(&governors), "");
    }

    #[test]
    fn a_policy_that_left_a_namespace_is_known_by_what_it_granted() {
        let mut governors = Governors::new(&config::Policy::default()).unwrap();
        let mut leaving = policy_for("shop", &["a"]);
        if let Ok((rules, _)) = &mut leaving.rules {
            Arc::make_mut(rules).on_violation = crate::api::OnViolation::Withdraw;
        }
        governors.policies(Change::Applied(item("shop", 1, leaving)));
        governors.namespaces(Change::Applied(item("bank", 1, of_team("bank"))));
        let grant = Grant { scopes: BTreeMap::from([("a".into(), "policy/shop".into())]), ..Grant::default() };
        let governance = governors.of(&ObjectName::new("bank", "app"), "u", Some(&grant));
        assert_eq!(governance.departed, BTreeSet::from(["shop".to_owned()]));
        assert_eq!(governance.policies.len(), 1, "the configured one");
    }

    #[test]
    fn approvals_come_and_go_with_their_registration() {
        let approval_for = |name: &str| {
            ApprovalObject(Some(Arc::new(RegistrationApprovalSpec {
                registration_ref: RegistrationRef { namespace: "shop".into(), name: name.into(), uid: None },
                ..RegistrationApprovalSpec::default()
            })))
        };
        let mut governors = Governors::default();
        let concerned = governors.approvals(Change::Applied(item("yes", 1, approval_for("app"))));
        assert_eq!(concerned, BTreeSet::from([ObjectName::new("shop", "app")]));
        assert_eq!(governors.of(&ObjectName::new("shop", "app"), "u", None).approvals.len(), 1);
        assert_eq!(governors.of(&ObjectName::new("shop", "other"), "u", None).approvals.len(), 0);
        let gone = Change::Deleted { object: ObjectName::new("", "yes"), version: 2 };
        assert_eq!(governors.approvals(gone).len(), 1);
        assert_eq!(governors.of(&ObjectName::new("shop", "app"), "u", None).approvals.len(), 0);
    }
}
