//! What is said of files is what the controller would decide of the same objects in a cluster: the controller's own index
//! of policies and its own plan are held beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Value, json};

use super::{File, Finding, Options, Rule, chart_config, lint};
use crate::api::{AppRegistration, ConditionType, secret_name};
use crate::config::Config;
use crate::controller::governance::{self, Governors, NamespaceObject};
use crate::kubernetes::watch::{Change, Item};
use crate::kubernetes::{DeserializeGuard, ObjectName};
use crate::ledger::Grant;
use crate::plan::facts::{Admission, Environment, Facts, LedgerFact, Registration, SecretFact, Source};
use crate::plan::{Plan, Step, decide};
use crate::policy::{self, ALL_CUSTOMERS, Governance, ItemKind};
use crate::signer;
use crate::signer::ca::CaIndex;

const NAMESPACES: [&str; 3] = ["shop", "bank", "games"];

fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn some(items: &[&'static str]) -> impl Strategy<Value = Vec<&'static str>> + use<> {
    subsequence(items.to_vec(), 0..=items.len())
}

/// A list, or nothing.
fn maybe(items: &[&'static str]) -> impl Strategy<Value = Value> + use<> {
    prop_oneof![Just(Value::Null), some(items).prop_map(|items| json!(items))]
}

fn one(values: Vec<Value>) -> impl Strategy<Value = Value> {
    prop::sample::select(values)
}

fn entries() -> impl Strategy<Value = Value> {
    let all = vec![
        json!({"name": "web", "effectiveDuration": "400d", "clientSecret": {}}),
        json!({"name": "cli", "secretName": "cli", "effectiveDuration": "10s", "clientSecret": {}}),
        json!({"name": "tls", "certificate": {"privateKey": {"algorithm": "RSA"}, "dnsNames": ["a.shop.svc", "a.bank.svc"]}}),
        json!({"name": "ed", "secretName": "ed", "certificate": {"privateKey": {"algorithm": "Ed25519"}}}),
        json!({"name": "api", "accessToken": {"scopes": ["orders:read", "admin"]}}),
        json!({"name": "bill", "secretName": "bill", "accessToken": {"audience": "billing"}}),
        json!({"name": "key", "publicKey": {"der": "MAA="}}),
        json!({"name": "pod", "serviceAccount": {"name": "pod"}}),
    ];
    prop_oneof![Just(Value::Null), subsequence(all, 1..=4).prop_map(Value::Array)]
}

/// APIs with their scopes.
fn apis() -> impl Strategy<Value = Vec<Value>> {
    let api = |audience: &'static str| {
        (any::<bool>(), some(&["orders:read", "admin"]))
            .prop_map(move |(is_there, scopes)| is_there.then(|| json!({"audience": audience, "scopes": scopes})))
    };
    (api("https://api.shop.example"), api("billing")).prop_map(|(one, other)| one.into_iter().chain(other).collect())
}

fn spec() -> impl Strategy<Value = Value> {
    let customers = one(vec![
        Value::Null,
        json!({"type": "All"}),
        json!({"type": "Customers", "customers": ["acme", "umbrella"]}),
        json!({"type": "Groups", "groups": ["retail"]}),
    ]);
    let client_id = one(vec![Value::Null, json!("shop.a"), json!("other")]);
    let method = one(vec![Value::Null, Value::Null, json!("client_secret_post"), json!("private_key_jwt")]);
    let items = (
        some(&["orders:read", "orders:write", "admin"]),
        apis(),
        some(&["https://api.shop.example", "https://a.shop.svc"]),
        some(&["https://www.shop.example/cb", "https://evil.example/cb", "http://localhost/cb"]),
    );
    (items, customers, client_id, method, entries()).prop_map(
        |((scopes, apis, serves, redirects), customers, client_id, method, entries)| {
            json!({
                "displayName": "x", "scopes": scopes, "apis": apis, "servedAudiences": serves,
                "redirectURIs": redirects, "customerScope": customers, "clientID": client_id,
                "tokenEndpointAuthMethod": method, "credentials": entries,
            })
        },
    )
}

fn policies() -> impl Strategy<Value = Value> {
    let selector = one(vec![
        json!({}),
        json!({"matchLabels": {"team": "web"}}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": "bank"}}),
        json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["web"]}]}),
        json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
    ]);
    let hosts = one(vec![
        Value::Null,
        json!({"hosts": ["*.shop.example"]}),
        json!({"hosts": ["*"], "schemes": ["https", "http"]}),
    ]);
    let durations = one(vec![Value::Null, json!({"clientSecret": {"min": "1h", "max": "30d"}})]);
    let limits = one(vec![Value::Null, json!({"registrationsPerNamespace": 1}), json!({"credentials": 2})]);
    let lists = (
        some(&["orders:*", "admin", "{name}"]),
        one(vec![
            json!([]),
            json!([{"audiences": ["https://*"], "scopes": ["orders:*"]}]),
            json!([{"audiences": ["billing"]}, {"audiences": ["https://api.*", "x"], "scopes": ["admin"]}]),
        ]),
        some(&["*"]),
        some(&["acme", "*"]),
        some(&["retail"]),
        maybe(&["*", "{namespace}.*"]),
        maybe(&["*.svc"]),
    );
    let kinds = maybe(&["ClientSecret", "Certificate", "AccessToken", "ServiceAccount"]);
    let keys =
        one(vec![Value::Null, json!([]), json!([{"algorithm": "ECDSA"}, {"algorithm": "RSA", "minSize": 3072}])]);
    let rest = (keys, maybe(&["client_credentials"]), maybe(&["client_secret_basic"]));
    let approval =
        (some(&["orders:write", "admin"]), one(vec![json!([]), json!([{"audiences": ["*"], "scopes": ["admin"]}])]));
    (selector, hosts, durations, limits, lists, (kinds, rest), approval).prop_map(
        |(selector, hosts, durations, limits, lists, (kinds, (keys, grants, methods)), (approval, api_approval))| {
            let (scopes, apis, serves, customers, groups, client_ids, dns_names) = lists;
            json!({
                "namespaceSelector": selector, "redirectURIs": hosts, "durations": durations, "limits": limits,
                "scopes": scopes, "apis": apis, "servedAudiences": serves, "customers": customers,
                "customerGroups": groups, "clientIDs": client_ids, "dnsNames": dns_names,
                "credentialKinds": kinds, "privateKeys": keys, "grantTypes": grants, "tokenEndpointAuthMethods": methods,
                "approvalRequired": {"scopes": approval, "apis": api_approval},
            })
        },
    )
}

fn approval() -> impl Strategy<Value = Value> {
    let registration = (0..NAMESPACES.len(), 0..2_usize);
    let expires = one(vec![Value::Null, json!("2026-11-26T11:00:00Z"), json!("2026-11-26T13:00:00Z")]);
    (registration, some(&["orders:write", "admin", "orders:read"]), expires).prop_map(
        |((namespace, number), scopes, expires)| {
            json!({
                "registrationRef": {"namespace": NAMESPACES[namespace], "name": format!("r{number}")},
                "scopes": scopes, "customers": ["acme"], "expirationTime": expires,
                "apis": [{"audience": "https://api.shop.example", "scopes": ["admin"]}],
            })
        },
    )
}

/// The objects of a cluster, which are those of the files.
#[derive(Clone, Debug)]
struct World {
    default_policy: bool,
    labels: BTreeMap<&'static str, Value>,
    policies: Vec<Value>,
    approvals: Vec<Value>,
    registrations: Vec<Value>,
}

fn object(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    // What is null stands in nobody's file.
    let Value::Object(fields) = spec else { panic!("an object") };
    let spec: serde_json::Map<_, _> = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
    json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn world() -> impl Strategy<Value = World> {
    let labels = one(vec![json!({}), json!({"team": "web"}), json!({"team": "other", "tier": "front"})]);
    let specs = prop::collection::vec(spec(), 2 * NAMESPACES.len());
    let policies = prop::collection::vec(policies(), 0..4);
    let approvals = prop::collection::vec(approval(), 0..4);
    (any::<bool>(), prop::collection::vec(labels, NAMESPACES.len()), policies, approvals, specs).prop_map(
        |(default_policy, labels, policies, approvals, specs)| World {
            default_policy,
            labels: NAMESPACES.into_iter().zip(labels).collect(),
            policies: named("RegistrationPolicy", "p", policies),
            approvals: named("RegistrationApproval", "a", approvals),
            registrations: specs
                .into_iter()
                .enumerate()
                .map(|(n, spec)| object("AppRegistration", Some(NAMESPACES[n / 2]), &format!("r{}", n % 2), spec))
                .collect(),
        },
    )
}

fn named(kind: &str, prefix: &str, specs: Vec<Value>) -> Vec<Value> {
    specs.into_iter().enumerate().map(|(n, spec)| object(kind, None, &format!("{prefix}{n}"), spec)).collect()
}

impl World {
    fn config(&self) -> Config {
        let mut config = chart_config();
        config.policy.enabled = self.default_policy;
        config
    }

    /// Registrations first: files are in any order.
    fn files(&self) -> Vec<File> {
        let namespaces = self.labels.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
        let all = self.registrations.iter().chain(&self.policies).chain(&self.approvals).cloned().chain(namespaces);
        all.enumerate().map(|(n, object)| File { name: n.to_string(), text: Ok(object.to_string()) }).collect()
    }

    /// The controller's index after it has listed the same objects.
    fn governors(&self, refused: &BTreeSet<String>) -> Governors {
        fn listed<T>(items: impl Iterator<Item = (ObjectName, T)>) -> Change<T> {
            let item = |(object, value)| Item { object, version: 1, value };
            Change::Listed { items: items.map(item).collect(), version: 1 }
        }
        fn name(object: &Value) -> ObjectName {
            ObjectName::new("", object["metadata"]["name"].as_str().unwrap())
        }
        let config = self.config();
        let mut governors = Governors::new(&config.policy).unwrap();
        let stored = |objects: &[Value]| -> Vec<Value> {
            objects
                .iter()
                .filter(|object| !refused.contains(object["metadata"]["name"].as_str().unwrap()))
                .cloned()
                .collect()
        };
        governors.namespaces(listed(self.labels.iter().map(|(namespace, labels)| {
            let mut labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap();
            labels.insert("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned());
            (ObjectName::new("", namespace), NamespaceObject { labels, is_terminating: false })
        })));
        governors.policies(listed(stored(&self.policies).into_iter().map(|object| {
            let policy: DeserializeGuard<_> = serde_json::from_value(object.clone()).unwrap();
            (name(&object), governance::policy(policy))
        })));
        governors.approvals(listed(stored(&self.approvals).into_iter().map(|object| {
            let approval: DeserializeGuard<_> = serde_json::from_value(object.clone()).unwrap();
            (name(&object), governance::approval(approval))
        })));
        governors
    }

    /// What the controller would do with a registration that it has never seen.
    fn plan(&self, governors: &Governors, registration: &Value, older: usize) -> (AppRegistration, Plan) {
        let config = self.config();
        let read: AppRegistration = serde_json::from_value(registration.clone()).unwrap();
        let (namespace, name) = (read.metadata.namespace.clone().unwrap(), read.metadata.name.clone().unwrap());
        let of = governors.of(&ObjectName::new(&namespace, &name), "u", None::<&Grant>);
        let entries = read.spec.effective_credentials().into_owned();
        let secrets = entries.iter().filter_map(|entry| secret_name(entry, &name));
        let facts = Facts {
            environment: Arc::new(Environment {
                server: config.server,
                policy: config.policy,
                keys: signer::Index::default(),
                authorities: CaIndex::default(),
                endpoint_authorities: CaIndex::default(),
            }),
            admission: Admission::Open,
            governance: Governance { older, ..of },
            ledger: LedgerFact::Absent,
            secrets: secrets.map(|name| (name, SecretFact::Absent(Source::Live))).collect(),
            refusals: BTreeMap::new(),
            registration: Registration {
                namespace,
                name,
                uid: "u".to_owned(),
                spec: read.spec.clone(),
                ..Default::default()
            },
        };
        (read, decide(&facts, now()))
    }
}

/// What lint says of one registration against what the plan does.
fn assert_agreement(registration: &AppRegistration, plan: &Plan, found: &[&Finding]) {
    let context = || format!("{registration:?}\n{found:#?}\n{:#?}", plan.status.conditions);
    let condition = |type_: ConditionType| plan.status.conditions.iter().find(|c| c.type_ == type_.as_str());
    let is_denial =
        |rule: Rule| matches!(rule, Rule::NotAllowed | Rule::NoPolicy | Rule::QuotaExceeded | Rule::ApprovalRequired);
    let denials: Vec<_> = found.iter().filter(|finding| is_denial(finding.violation.rule)).collect();
    let approved = condition(ConditionType::Approved).unwrap();
    assert_eq!(denials.is_empty(), approved.status == "True", "{}", context());
    let is_bounded = found.iter().any(|finding| finding.violation.rule == Rule::Bounded);
    if denials.is_empty() {
        assert_eq!(is_bounded, approved.message != "Everything that is asked for is granted", "{}", context());
    }
    let is_stalled = condition(ConditionType::Stalled).is_some();
    let is_error =
        found.iter().any(|finding| !matches!(finding.violation.rule, Rule::ApprovalRequired | Rule::Bounded));
    // Only one obstacle is the condition's, and a waiting approval may hide behind it.
    assert!(
        is_stalled || !found.iter().any(|f| matches!(f.violation.rule, Rule::NoPolicy | Rule::InvalidSpec)),
        "{}",
        context()
    );
    assert!(!is_stalled || is_error, "{}", context());

    let accepted = plan.steps.iter().find_map(|step| match step {
        Step::Accept(accept) => Some(&accept.entry.grant),
        _ => None,
    });
    let Some(grant) = accepted else { return };
    let is_of_granted_api = |item: &policy::Item| item.audience.as_ref().is_none_or(|api| grant.apis.contains_key(api));
    let asked = policy::Item::asked(&registration.spec);
    let denied: BTreeSet<_> =
        asked.into_iter().filter(|item| item.granted_by(grant).is_none() && is_of_granted_api(item)).collect();
    let said: BTreeSet<_> = denials.iter().filter_map(|finding| item_of(registration, finding)).collect();
    assert_eq!(denied, said, "{}", context());
}

/// The item that a finding is about, if it is about one.
fn item_of(registration: &AppRegistration, finding: &Finding) -> Option<policy::Item> {
    let path = finding.violation.field.to_string();
    let name = finding.violation.message.split([' ', '.']).next().unwrap();
    let whole = finding.violation.message.split(' ').next().unwrap();
    let api = |at: &str| &registration.spec.apis[at.split(']').next().unwrap().parse::<usize>().unwrap()];
    let item = |kind| Some(policy::Item::new(kind, whole));
    let (list, rest) = path.strip_prefix("spec.")?.split_once('[').unwrap_or((path.strip_prefix("spec.")?, ""));
    match list {
        "scopes" => item(ItemKind::Scope),
        "apis" if rest.contains("].scopes[") => Some(policy::Item::api_scope(&api(rest).audience, whole)),
        "apis" => item(ItemKind::Api),
        "servedAudiences" => item(ItemKind::ServedAudience),
        "redirectURIs" => item(ItemKind::RedirectUri),
        "customerScope.type" => (name == "All").then(|| policy::Item::new(ItemKind::Customer, ALL_CUSTOMERS)),
        "customerScope.customers" => item(ItemKind::Customer),
        "customerScope.groups" => item(ItemKind::CustomerGroup),
        "credentials" if path.contains(".certificate.dnsNames[") => item(ItemKind::DnsName),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_not_granted_to_a_new_registration_is_what_is_said_of_its_file(world in world()) {
        let files = world.files();
        let options = Options {
            namespace: "default".to_owned(),
            namespace_labels: BTreeMap::new(),
            config: Some(world.config()),
            now: now(),
        };
        let report = lint(&files, &options).unwrap();
        prop_assert_eq!(&report.obstacles, &[]);
        let found = |file: usize| report.findings.iter().filter(move |finding| finding.file == file.to_string());
        let is_refused = |file: usize| found(file).any(|finding| finding.violation.rule < Rule::UnreadablePolicy);
        let first = world.registrations.len();
        let refused = world.policies.iter().chain(&world.approvals).enumerate();
        let refused = refused.filter(|(n, _)| is_refused(first + n)).map(|(_, o)| o["metadata"]["name"].as_str().unwrap().to_owned());
        let governors = world.governors(&refused.collect());
        let mut older = BTreeMap::<&str, usize>::new();
        for (file, object) in world.registrations.iter().enumerate().filter(|(file, _)| !is_refused(*file)) {
            let older = older.entry(object["metadata"]["namespace"].as_str().unwrap()).or_default();
            let (registration, plan) = world.plan(&governors, object, *older);
            *older += 1;
            assert_agreement(&registration, &plan, &found(file).collect::<Vec<_>>());
        }
    }
}
