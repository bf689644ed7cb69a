//! What nobody should write, written all the same: two hundred generated specs, objects that cannot be read, a ledger
//! that was tampered with. Each is refused by the API server or reported on its own status, and nobody else notices.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use appreg::api::{AppRegistration, ConditionType, Reason};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::applied::{self, BINARY, condition, create, fields, in_order, is_in_order, registrations, secrets, until};
use crate::harness::operator::{LEDGER, NAMESPACE};
use crate::harness::{
    ControlPlane, Operator, Running, TokenClient, eventually, eventually::holds, eventually_within, oauth, permissive,
};

/// How many specs are generated.
const SPECS: usize = 200;
/// How long a healthy registration may wait among hostile ones, on two busy cores.
const SECONDS: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_hostile_specs_are_refused_or_reported_and_hold_nobody_up() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &permissive(&[])).await.unwrap();
    operator.log("info,appreg=debug");
    let controller = operator.controller(&plane).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    foreign_secrets(&plane, &shop).await;
    let system = system_secrets(&plane).await;
    let mut random = Random { state: 20_261_122, refusable: false };
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for number in 0..SPECS {
        random.refusable = number % 2 == 1;
        let hostile = hostile(&mut random, number, &shop);
        match apply(&plane, &hostile).await {
            Ok(()) => accepted.push(hostile),
            Err(message) => refused.push(message),
        }
        if number == SPECS / 2 {
            let started = Instant::now();
            create(&plane, &shop, "healthy", json!({})).await;
            in_order(&plane, &shop, "healthy").await;
            assert!(started.elapsed() < SECONDS, "it was held up for {:?}", started.elapsed());
        }
    }
    assert!(accepted.len() > SPECS / 3 && refused.len() > SPECS / 5, "the generator has become one-sided");

    let mut reasons = BTreeSet::new();
    for hostile in &accepted {
        reasons.extend(handled(&plane, hostile, &controller).await);
    }
    for expected in ["Issued", "ClientIDTaken", "InvalidSpec", "PolicyDenied", "SecretConflict"] {
        assert!(reasons.contains(expected), "the generator no longer leads to {expected}: {reasons:?}");
    }
    for hostile in accepted.iter().step_by(7) {
        edit_status(&plane, hostile).await;
    }
    assert_eq!(system, system_secrets(&plane).await, "the operator's own Secrets are nobody's");
    still_runs(&controller);
}

/// What holds after everything that is done to the controller here.
fn still_runs(controller: &Running) {
    let log = controller.process.log();
    assert!(controller.process.is_running(), "{}", controller.process.log_tail(40));
    assert!(!log.contains("panicked"), "{}", log.lines().filter(|l| l.contains("panicked")).collect::<String>());
}

/// Creates it; else the API server's message, which names a field.
async fn apply(plane: &ControlPlane, hostile: &Value) -> Result<(), String> {
    let api = dynamic(plane, hostile["metadata"]["namespace"].as_str().unwrap());
    let object: DynamicObject = serde_json::from_value(hostile.clone()).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            let names_a_field = ["spec", "metadata."].iter().any(|field| status.message.contains(field));
            assert!(status.code == 422 && names_a_field, "{}: {}\n{hostile}", status.code, status.message);
            Err(status.message)
        }
        Err(error) => panic!("{error}\n{hostile}"),
    }
}

/// Waits until the operator has said what becomes of it; the reasons it gives are ones that the documentation has.
async fn handled(plane: &ControlPlane, hostile: &Value, controller: &Running) -> Vec<String> {
    let meta = &hostile["metadata"];
    let (namespace, name) = (meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
    let api = registrations(plane, namespace);
    let registration = eventually_within(Duration::from_secs(90), &format!("{name} is reported on"), async || {
        let registration = api.get(name).await.map_err(|error| error.to_string())?;
        let says = |type_| condition(&registration, type_).is_some_and(|(status, _)| status == "True");
        let is_told = says(ConditionType::Stalled) || says(ConditionType::Reconciling);
        let observed = registration.status.as_ref().and_then(|s| s.observed_generation);
        let done = observed == registration.metadata.generation && (is_in_order(&registration) || is_told);
        holds(done, || format!("{:?}\n{hostile}\n{}", registration.status, controller.process.log_tail(20)))?;
        Ok::<_, String>(registration)
    })
    .await;
    let conditions = registration.status.unwrap_or_default().conditions;
    for condition in &conditions {
        let known = Reason::ALL.iter().any(|reason| reason.as_str() == condition.reason);
        assert!(known && !condition.message.is_empty() && condition.message.len() <= 4096, "{condition:?}");
    }
    conditions.into_iter().map(|condition| condition.reason).collect()
}

/// A status that somebody else writes is put right, and nothing is done because of it.
async fn edit_status(plane: &ControlPlane, hostile: &Value) {
    let meta = &hostile["metadata"];
    let (namespace, name) = (meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
    let api = registrations(plane, namespace);
    let before = api.get(name).await.unwrap();
    let lie = json!({"status": {
        "clientID": "shop.somebody-else",
        "observedGeneration": 99,
        "nextRotationTime": "9999-12-31T23:59:59Z",
        "secrets": [{"name": "victim", "resourceVersion": "1"}, {"name": name, "resourceVersion": "not a number"}],
        "credentials": [{"name": "web", "secretName": "victim", "kind": "ClientSecret", "current": {"revision": 77}}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Lies", "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z"}],
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&lie)).await.unwrap();
    let what = format!("the status of {name} is put right");
    eventually(&what, async || {
        let after = api.get(name).await.map_err(|error| error.to_string())?;
        let said = |registration: &AppRegistration| {
            let status = registration.status.clone().unwrap_or_default();
            let reasons: Vec<_> =
                status.conditions.into_iter().map(|c| (c.type_, c.status, c.reason, c.message)).collect();
            (status.client_id, status.observed_generation, reasons)
        };
        holds(said(&after) == said(&before), || format!("{:?}\nbefore {:?}", after.status, before.status))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_cannot_be_understood_says_so_and_the_others_go_on() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    create(&plane, &shop, "before", json!({})).await;
    in_order(&plane, &shop, "before").await;
    let tokens = token_client(&plane, &shop, "before").await;

    // A later version of appreg knew more, and has left what it knew.
    let crds: Api<CustomResourceDefinition> = Api::all(plane.client("admin"));
    let strict = crds.get("appregistrations.appreg.dev").await.unwrap();
    let mut loose = strict.clone();
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = loose.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
    let properties = schema.properties.as_mut().unwrap();
    properties.insert("spec".to_owned(), serde_json::from_value(open).unwrap());
    schema.x_kubernetes_validations = None;
    loose.spec.versions[0].selectable_fields = None;
    crds.replace("appregistrations.appreg.dev", &PostParams::default(), &loose).await.unwrap();
    let hologram = json!({"displayName": 7, "credentials": [{"name": "web", "clientSecret": {}}]});
    let api = dynamic(&plane, &shop);
    eventually("the loosened definition is served", async || {
        let object = object(&shop, "strange", &hologram);
        api.create(&PostParams::default(), &object).await.map(drop)
    })
    .await;
    let known = json!({"spec": {"grantTypes": ["telepathy"]}});
    api.patch("before", &PatchParams::default(), &Patch::Merge(&known)).await.unwrap();
    let kind = json!({"displayName": "later", "credentials": [{"name": "web", "hologram": {}}]});
    api.create(&PostParams::default(), &object(&shop, "later-kind", &kind)).await.unwrap();
    for name in ["strange", "before", "later-kind"] {
        let told = stalled(&plane, &shop, name, "InvalidSpec").await;
        let field = match name {
            "strange" => "Field spec.displayName: must be a string",
            "before" => "Field spec.grantTypes[0]: must be one of",
            _ => "spec.credentials[web]",
        };
        assert!(told.contains(field), "{name}: {told}");
    }
    create(&plane, &shop, "after", json!({})).await;
    in_order(&plane, &shop, "after").await;

    // The strict definition again: what is stored is what it was.
    let mut back = crds.get("appregistrations.appreg.dev").await.unwrap();
    back.spec = strict.spec;
    crds.replace("appregistrations.appreg.dev", &PostParams::default(), &back).await.unwrap();
    create(&plane, &shop, "again", json!({})).await;
    in_order(&plane, &shop, "again").await;
    // What was told is not told again after a restart.
    let versions = async || {
        let all = api.list(&ListParams::default()).await.unwrap();
        all.iter().map(|object| (object.name_any(), object.resource_version())).collect::<Vec<_>>()
    };
    let told = versions().await;
    controller.process.terminate(Duration::from_secs(20)).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    // Longer than a registration must be absent for its client to be removed: this one is not absent.
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(versions().await, told);
    let (client_id, client_secret) = credentials(&plane, &shop, "before").await;
    assert!(tokens.basic(&client_id, &client_secret).await.unwrap().is_token(), "what was accepted stays so");
    applied::change(&plane, &shop, "before", json!({"spec": {"grantTypes": null}})).await;
    in_order(&plane, &shop, "before").await;
    assert_eq!(credentials(&plane, &shop, "before").await, (client_id, client_secret));
    still_runs(&controller);
    still_runs(&token_service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_entry_that_cannot_be_read_is_never_written_and_goes_on_being_served() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &permissive(&[])).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    for name in ["broken", "newer", "healthy"] {
        create(&plane, &shop, name, json!({})).await;
        in_order(&plane, &shop, name).await;
    }
    let tokens = token_client(&plane, &shop, "healthy").await;
    let (_, original) = entry_of(&plane, &shop, "broken").await;

    let broken = damage(&plane, &shop, "broken", |_| "{\"version\":1,".to_owned()).await;
    let newer = damage(&plane, &shop, "newer", |json| json.replacen("\"version\":1", "\"version\":2", 1)).await;
    for name in ["broken", "newer"] {
        let told = stalled(&plane, &shop, name, "LedgerUnreadable").await;
        assert!(told.contains("ledger entry"), "{told}");
        // Not even what asks for a new credential is a reason to write over it.
        let now = json!({"spec": {"rotateMintedBefore": "2026-01-01T00:00:00Z", "scopes": ["orders:read"]}});
        let changed = applied::change(&plane, &shop, name, now).await;
        until(&plane, (&shop, name), "has seen the change", |registration| {
            registration.status.as_ref().and_then(|s| s.observed_generation) == changed.metadata.generation
        })
        .await;
    }
    assert_eq!(metric(&controller, "appreg_unreadable").await, "2");
    create(&plane, &shop, "later", json!({})).await;
    in_order(&plane, &shop, "later").await;
    for name in ["broken", "newer", "healthy", "later"] {
        let (client_id, client_secret) = credentials(&plane, &shop, name).await;
        let what = format!("{name} is served");
        eventually(&what, async || {
            let answer = tokens.basic(&client_id, &client_secret).await.map_err(|error| error.to_string())?;
            holds(answer.is_token(), || format!("{answer:?}"))
        })
        .await;
    }
    for (name, version) in [("broken", broken), ("newer", newer)] {
        assert_eq!(entry_of(&plane, &shop, name).await.0.resource_version(), Some(version), "{name} was written");
    }

    // Restored from a backup, it is as if nothing had been.
    damage(&plane, &shop, "broken", |_| original.clone()).await;
    in_order(&plane, &shop, "broken").await;
    assert_eq!(metric(&controller, "appreg_unreadable").await, "1");
    still_runs(&controller);
    still_runs(&token_service);
}

/// The value of a metric without labels.
async fn metric(running: &Running, name: &str) -> String {
    oauth::install_provider();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let text = http.get(format!("http://{}/metrics", running.admin)).send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

/// Waits until a registration is Stalled with this reason; its message.
async fn stalled(plane: &ControlPlane, namespace: &str, name: &str, reason: &str) -> String {
    // What cannot be understood cannot be read as what it is here either.
    let api = dynamic(plane, namespace);
    eventually(&format!("{name} says {reason}"), async || {
        let object = api.get(name).await.map_err(|error| error.to_string())?;
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == "Stalled" && c["reason"] == reason);
        found.map(|c| c["message"].as_str().unwrap_or_default().to_owned()).ok_or_else(|| format!("{conditions:?}"))
    })
    .await
}

/// The ledger entry of a registration: the Secret, and what it holds.
async fn entry_of(plane: &ControlPlane, namespace: &str, name: &str) -> (Secret, String) {
    let uid = registrations(plane, namespace).get(name).await.unwrap().uid().unwrap();
    let params = ListParams::default().labels(&format!("appreg.dev/registration-uid={uid}"));
    let found = secrets(plane, LEDGER).list(&params).await.unwrap().items;
    let [entry] = &found[..] else { panic!("{} entries of {name}", found.len()) };
    (entry.clone(), fields(entry)["ledger.json"].clone())
}

/// Writes something else into a ledger entry; its new resourceVersion.
async fn damage(plane: &ControlPlane, namespace: &str, name: &str, to: impl Fn(&str) -> String) -> String {
    let (mut entry, json) = entry_of(plane, namespace, name).await;
    entry.data.as_mut().unwrap().insert("ledger.json".to_owned(), ByteString(to(&json).into_bytes()));
    let api = secrets(plane, LEDGER);
    api.replace(&entry.name_any(), &PostParams::default(), &entry).await.unwrap().resource_version().unwrap()
}

async fn credentials(plane: &ControlPlane, namespace: &str, name: &str) -> (String, String) {
    let fields = fields(&secrets(plane, namespace).get(name).await.unwrap());
    (fields["client_id"].clone(), fields["client_secret"].clone())
}

async fn token_client(plane: &ControlPlane, namespace: &str, name: &str) -> TokenClient {
    let fields = fields(&secrets(plane, namespace).get(name).await.unwrap());
    TokenClient::new(&fields["issuer_ca.crt"], &fields["token_endpoint"]).unwrap()
}

fn object(namespace: &str, name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }))
    .unwrap()
}

fn dynamic(plane: &ControlPlane, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(plane.client("admin"), namespace, &ApiResource::erase::<AppRegistration>(&()))
}

/// Secrets that are somebody else's, under names that registrations will ask for.
async fn foreign_secrets(plane: &ControlPlane, namespace: &str) {
    for (name, immutable) in [("victim", false), ("victim.immutable", true)] {
        let secret = json!({
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "appreg"}},
            "immutable": immutable, "stringData": {"client_secret": "not ours"},
        });
        let secret: Secret = serde_json::from_value(secret).unwrap();
        secrets(plane, namespace).create(&PostParams::default(), &secret).await.unwrap();
    }
}

/// The operator's own Secrets, and the foreign ones' like: by uid and resourceVersion.
async fn system_secrets(plane: &ControlPlane) -> Vec<(String, Option<String>, Option<String>)> {
    let mut found = Vec::new();
    for (namespace, name) in
        [(LEDGER, "signing-keys"), (LEDGER, "ca-bundle"), (LEDGER, "token-service-tls"), (NAMESPACE, "appreg-ca")]
    {
        let secret = eventually(name, async || secrets(plane, namespace).get(name).await).await;
        found.push((name.to_owned(), secret.uid(), secret.resource_version()));
    }
    found
}

/// A deterministic source (`SplitMix64`), so that what fails fails again.
struct Random {
    state: u64,
    /// Whether this spec may ask for what the API server refuses, or only for what is odd.
    refusable: bool,
}

/// What is odd and allowed, and what is refused.
type Odd<'a> = (&'a [&'a str], &'a [&'a str]);

impl Random {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// The same, in specs that may be refused.
    fn refused_once_in(&mut self, times: usize) -> bool {
        self.once_in(times) && self.refusable
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn odd<'a>(&mut self, (allowed, refused): Odd<'a>) -> &'a str {
        let from = if self.refused_once_in(3) { refused } else { allowed };
        from[self.below(from.len())]
    }
}

const TEXTS: [&str; 11] = [
    "Shop",
    " ",
    "\u{202e}txet desrever",
    "zero\u{200b}width\u{feff}",
    "line\nbreak\ttab",
    "nul\u{0}byte",
    "👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦",
    "'; DROP TABLE registrations; --",
    "{{ .Values.secret }} ${HOME} $(id) `id`",
    "%s%n%p\\x00\\u0000",
    "é̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂̂",
];
const DURATIONS: Odd<'_> = (
    &["90d", "1h", "60s", "1w2d3h4m5s", "1s", "24h", "23h59m60s", "00001h"],
    &["1097d", "0s", "-1h", "1.5h", "", "1y", "٣d", "99999999s", "999999999999d", "1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d"],
);
const TIMES: Odd<'_> = (
    &[
        "2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123456789+14:00",
    ],
    &[
        "2016-12-31T23:59:60Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00+99:99",
        "2026-01-01",
        "now",
    ],
);
const ANNOTATIONS: Odd<'_> = (
    &[
        "garbage",
        "web=,=,,=",
        "web=2026-01-01T00:00:00Z,web=tomorrow",
        "=2026-01-01T00:00:00Z",
        "nobody=2999-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "\u{202e}",
        "2026-01-01T00:00:00Z;2026-01-01T00:00:00Z",
        "",
    ],
    &["long"],
);
const URIS: Odd<'_> = (
    &[
        "https://shop.example/cb",
        "http://localhost:8000",
        "http://[::1]:8000/cb",
        "https://xn--80ak6aa92e.example/%F0%9F%98%80",
        "https://169.254.169.254/latest/meta-data",
    ],
    &[
        "http://shop.example/",
        "https://user@shop.example/",
        "https://shop.example/#fragment",
        "javascript:alert(1)",
        "https://",
        "//shop.example",
        "https://shop.example/\n",
        "http://localhost.evil.example/",
    ],
);
const SECRET_NAMES: Odd<'_> = (
    &["shared", "shared", "victim", "victim.immutable", "kube-root-ca.crt", "signing-keys", "own.dotted.name", "0"],
    &["UPPER", "../../etc", "a..b", "-"],
);
const CLIENT_IDS: Odd<'_> = (
    &["chosen", "a.b", "x..y", "0", "default", "ns.chosen"],
    &["Upper", "00000000-0000-0000-0000-000000000000", "-", "ſ", "{namespace}.*", ""],
);
const SCOPES: Odd<'_> = (&["orders:read", "{namespace}", "'", "[]"], &["a b", "\"", "x\\y", "ü", "", "*"]);
const AUDIENCES: Odd<'_> = (
    &["https://orders.example", "urn:a", "*", "{namespace}", "]", "https://127.0.0.1", "."],
    &["a b", "\"", "x\\y", "ü", ""],
);
const FIELDS: Odd<'_> = (
    &["CLIENT_ID", "a", ".dot", "-", "tls.CRT", "__proto__", "x.y.z"],
    &["client_id", "tls.key", "a b", "a/b", "..", "ü", ""],
);
const SOURCES: Odd<'_> = (
    &["client_id", "client_secret", "previous_client_secret", "tls.key", "access_token", "issuer_ca.crt"],
    &["password", "CLIENT_ID", ""],
);
const DNS_NAMES: Odd<'_> =
    (&["*.default.svc", "google.com", "web.kube-system.svc", "localhost"], &["*", "a..b", "*.*.svc", "ü.svc"]);
const ALGORITHMS: Odd<'_> = (&["ECDSA", "ECDSA", "Ed25519", "ECDSA", "RSA"], &["DSA", "rsa", "ECDSAP256"]);
const SERVERS: Odd<'_> = (&["default", "keycloak", "appreg"], &["DEFAULT", ""]);
const TEMPLATE_NAMES: Odd<'_> = (
    &["team.example/owner", "plain", "a..b/name", "xappreg.dev/x", "0.0.0/0"],
    &[
        "kubernetes.io/x",
        "app.kubernetes.io/managed-by",
        "appreg.dev/registration-uid",
        "argocd.argoproj.io/instance",
        "/",
    ],
);

/// A registration that nobody should write.
fn hostile(random: &mut Random, number: usize, namespace: &str) -> Value {
    let name = match random.below(8) {
        0 => format!("h{number}-{}", "x".repeat(62 - format!("h{number}-").len())),
        1 => format!("h{number}.dotted.name"),
        2 if random.refusable => format!("h{number}-{}", "x".repeat(64)),
        3 if random.refusable => format!("H{number}_upper"),
        _ => format!("hostile-{number}"),
    };
    let namespace = if random.once_in(15) { LEDGER } else { namespace };
    let mut meta = json!({"name": name, "namespace": namespace});
    if random.once_in(3) {
        let key = *random.pick(&["appreg.dev/rotate-minted-before", "appreg.dev/revoke-minted-before"]);
        let text = random.odd(ANNOTATIONS);
        meta["annotations"] = json!({key: if text == "long" { text.repeat(70_000) } else { text.to_owned() }});
    }
    json!({"apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration", "metadata": meta, "spec": spec(random, namespace)})
}

fn spec(random: &mut Random, namespace: &str) -> Value {
    let mut spec = json!({"displayName": random.pick(&TEXTS)});
    if random.refused_once_in(8) {
        spec["displayName"] =
            random.pick(&[json!(7), json!(null), json!(""), json!("x".repeat(129)), json!([])]).clone();
    }
    if random.once_in(4) {
        spec["description"] = json!(random.pick(&TEXTS).repeat(16));
    }
    if random.once_in(4) {
        let id = random.odd(CLIENT_IDS);
        spec["clientID"] = if random.once_in(2) { json!(format!("{namespace}.{id}")) } else { json!(id) };
    }
    if random.once_in(3) {
        spec["redirectURIs"] = json!([random.odd(URIS)]);
    } else if random.once_in(8) {
        spec["redirectURIs"] =
            (0..32).map(|n| json!(format!("https://shop.example/{n}/{}", "y".repeat(1900)))).collect();
    }
    if random.once_in(4) {
        spec["scopes"] = match random.below(4) {
            0 => (0..64).map(|n| json!(format!("{n:03}{}", "s".repeat(125)))).collect(),
            1 if random.refusable => (0..65).map(|n| json!(n.to_string())).collect(),
            2 if random.refusable => json!(["twice", "twice"]),
            _ => json!([random.odd(SCOPES)]),
        };
    }
    if random.once_in(4) {
        spec["apis"] = match random.below(4) {
            0 => (0..16).map(|n| json!({"audience": format!("{n:02}{}", "a".repeat(254)), "scopes": ["s"]})).collect(),
            1 if random.refusable => (0..17).map(|n| json!({"audience": n.to_string()})).collect(),
            2 if random.refusable => json!([{"audience": "twice"}, {"audience": "twice", "scopes": ["a"]}]),
            _ => json!([{"audience": random.odd(AUDIENCES), "scopes": [random.odd(SCOPES)]}, {"audience": "bare"}]),
        };
    }
    if random.refused_once_in(8) {
        spec["clientType"] = random.pick(&[json!("Public"), json!("public"), json!(true)]).clone();
    }
    if random.once_in(5) {
        let customers: Vec<_> = (0..64).map(|n| format!("{n:03}{}", "c".repeat(125))).collect();
        spec["customerScope"] = json!({"type": "Customers", "customers": customers});
    }
    if random.refused_once_in(5) {
        spec["customerScope"] = json!({"type": random.pick(&["All", "Groups", "Nobody"]), "customers": ["*"]});
    }
    if random.once_in(8) {
        spec["authorizationServerRef"] = json!({"name": random.odd(SERVERS)});
    }
    for field in ["rotateMintedBefore", "revokeMintedBefore"] {
        if random.once_in(5) {
            spec[field] = json!(random.odd(TIMES));
        }
    }
    if random.once_in(5) {
        spec["secretTemplate"] = template(random);
    }
    if random.refused_once_in(8) {
        spec["tokenEndpointAuthMethod"] = json!(random.pick(&["none", "telepathy"]));
    }
    if random.refused_once_in(8) {
        spec["grantTypes"] = random.pick(&[json!([]), json!(["refresh_token"]), json!(["password"])]).clone();
    }
    if !random.once_in(3) {
        let count = *random.pick(if random.refusable { &[0, 1, 2, 17] } else { &[1, 1, 2, 3, 3, 16] });
        spec["credentials"] = (0..count).map(|entry| credential(random, entry)).collect();
    }
    if random.refused_once_in(10) {
        spec["credentials"] = random.pick(&[json!({}), json!("all"), json!([[]]), json!([null])]).clone();
    }
    spec
}

fn template(random: &mut Random) -> Value {
    let key = random.odd(TEMPLATE_NAMES);
    let annotations: serde_json::Map<_, _> = (0..16).map(|n| (format!("note-{n}"), json!("z".repeat(4096)))).collect();
    match random.below(4) {
        0 => json!({"labels": {key: random.odd((&["ok", ""], &["not ok", "-"]))}}),
        1 => json!({"annotations": {key: random.pick(&TEXTS)}}),
        2 => json!({"fields": {random.odd(FIELDS): random.odd(SOURCES)}}),
        _ => json!({"annotations": annotations}),
    }
}

fn credential(random: &mut Random, number: usize) -> Value {
    let name = if random.refused_once_in(5) {
        (*random.pick(&["UPPER", "a.b", "~"])).to_owned()
    } else {
        format!("e-{number}")
    };
    // Each a Secret of its own, so that something comes of most of them.
    let mut entry = json!({"name": name, "secretName": format!("own-{}-{number}", random.next())});
    let mut durations = DURATIONS;
    match random.below(8) {
        0..=3 => {
            entry["clientSecret"] = json!({});
            durations.0 = &["1096d", "26304h", "1s", "1w2d3h4m5s"];
        }
        4..=5 => {
            let mut key = json!({"algorithm": random.odd(ALGORITHMS)});
            if random.refused_once_in(3) {
                key["size"] = random.pick(&[json!(512), json!(2048), json!(-1), json!("256")]).clone();
            }
            entry["certificate"] = json!({"privateKey": key, "dnsNames": [random.odd(DNS_NAMES)]});
        }
        6 if random.refusable => entry["publicKey"] = json!({"pem": "-----BEGIN CERTIFICATE-----"}),
        _ => {
            entry["accessToken"] = random
                .pick(&[
                    json!({}),
                    json!({"scopes": ["admin"]}),
                    json!({"audience": "bare"}),
                    json!({"audience": "nobody"}),
                ])
                .clone();
            durations.0 = &["1h", "60s", "1s", "24h", "23h59m60s"];
        }
    }
    if random.refused_once_in(8) {
        entry["accessToken"] = json!({});
    }
    if random.once_in(4) {
        entry["secretName"] = json!(random.odd(SECRET_NAMES));
    }
    if random.once_in(3) {
        entry["effectiveDuration"] = json!(random.odd(durations));
    }
    if random.refused_once_in(4) {
        entry["renewBefore"] = json!(random.odd(DURATIONS));
    }
    if random.once_in(6) {
        entry["revokeMintedBefore"] = json!(random.odd(TIMES));
    }
    entry
}
