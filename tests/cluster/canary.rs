//! No credential leaves by any door but the one it is meant for.
//!
//! Controller and token service run at `trace` through all that may go right or wrong, while an observer collects every
//! value that is ever in a Secret. Then everything that the processes have said is searched for each of them:
//! logs, Events, registrations with their status, what kubectl shows, metrics, arguments, environments, the audit log.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use appreg::api::AppRegistration;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::applied::{BINARY, change, condition, create, fields, in_order, registrations, secret, secrets, until};
use crate::harness::operator::LEDGER;
use crate::harness::{
    Audit, ControlPlane, Controllers, Operator, Options, Running, TokenClient, eventually, eventually::holds, oauth,
};
use crate::needles::Needles;

const SHORT: [&str; 3] = [
    "policy.durations.clientSecret.min=5s",
    "policy.durations.certificate.min=5s",
    "policy.durations.accessToken.min=5s",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_is_in_anything_that_the_operator_says() {
    let controllers = Controllers::BasicAnd(vec!["resourcequota-controller"]);
    let options = Options { audit: Audit::Everyone, controllers, ..Options::default() };
    let plane = ControlPlane::start_with(options).await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &SHORT).await.unwrap();
    operator.log("trace");
    let observer = Observer::start(plane.client("admin"));
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();

    what_goes_right(&plane, &shop).await;
    what_goes_wrong(&plane, &shop).await;
    what_clients_send(&plane, &shop, &observer).await;

    // Both once more, so that what is said at the start and at the end is there with everything in place.
    let mut said = vec![seen_from_outside(&controller).await, seen_from_outside(&token_service).await];
    for running in [&controller, &token_service] {
        let status = running.process.terminate(Duration::from_secs(20)).await.unwrap();
        assert!(status.success(), "{status}");
    }
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    said.extend([seen_from_outside(&controller).await, seen_from_outside(&token_service).await]);
    said.push(everything_in_the_cluster(&plane, &shop).await);
    let mut places: Vec<_> = said.into_iter().flatten().collect();
    places.extend(files(plane.directory()));

    let needles = observer.needles(&plane);
    assert!(needles.len() > 25, "only {} values were collected", needles.len());
    for expected in ["controller-1.log", "token-service-2.log", "audit.log", "metrics", "environ", "Events", "describe"]
    {
        let found = places.iter().find(|(name, _)| name.contains(expected));
        assert!(found.is_some_and(|(_, text)| text.len() > 100), "{expected} was not looked at");
    }
    let logged: Vec<_> = places.iter().filter(|(name, _)| name.contains("controller-1.log")).collect();
    assert!(String::from_utf8_lossy(&logged[0].1).contains("DEBUG appreg::"), "the log is not at trace");
    let leaks: Vec<_> = places
        .iter()
        .flat_map(|(name, text)| {
            needles.found_in(text).into_iter().map(move |(value, at)| format!("{value} in {name} at {at}"))
        })
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// First mints of every kind, rotation, revocation, refresh, a hand edit, the removal of an entry, deletion.
async fn what_goes_right(plane: &ControlPlane, shop: &str) {
    let credentials = json!([
        {"name": "web", "clientSecret": {}},
        {"name": "short", "secretName": "short", "effectiveDuration": "20s", "clientSecret": {}},
        {"name": "mtls", "secretName": "mtls", "certificate": {}},
        {"name": "extra", "secretName": "extra", "clientSecret": {}},
        {"name": "api", "effectiveDuration": "15s", "accessToken": {}},
    ]);
    create(plane, shop, "all", json!({"credentials": credentials})).await;
    create(plane, shop, "gone", json!({})).await;
    in_order(plane, shop, "all").await;
    in_order(plane, shop, "gone").await;
    registrations(plane, shop).delete("gone", &DeleteParams::default()).await.unwrap();
    let soon = || (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string();
    change(plane, shop, "all", json!({"spec": {"rotateMintedBefore": soon()}})).await;
    revision(plane, shop, 2).await;
    change(plane, shop, "all", json!({"spec": {"revokeMintedBefore": soon()}})).await;
    revision(plane, shop, 3).await;
    let edit = json!({"stringData": {"client_secret": "a value that a person has put here by hand"}});
    let edit = Patch::Merge(&edit);
    secrets(plane, shop).patch("all", &PatchParams::default(), &edit).await.unwrap();
    revision(plane, shop, 4).await;
    let all = registrations(plane, shop).get("all").await.unwrap();
    let mut kept = serde_json::to_value(all.spec.credentials).unwrap();
    kept.as_array_mut().unwrap().retain(|entry| entry["name"] != "extra");
    change(plane, shop, "all", json!({"spec": {"credentials": kept}})).await;
    in_order(plane, shop, "all").await;
}

/// A quota, an immutable Secret, one of another type, one that is somebody else's, a ledger entry that is not JSON.
async fn what_goes_wrong(plane: &ControlPlane, shop: &str) {
    let tight = plane.namespace("tight").await.unwrap();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"secrets": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(plane.client("admin"), &tight);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    eventually("the quota is in force", async || {
        let quota = quotas.get("none").await.map_err(|error| error.to_string())?;
        holds(quota.status.is_some_and(|status| status.hard.is_some()), || "not yet".to_owned())
    })
    .await;
    create(plane, &tight, "too-many", json!({})).await;
    says(plane, (&tight, "too-many"), "QuotaExceeded").await;

    create(plane, shop, "frozen", json!({})).await;
    in_order(plane, shop, "frozen").await;
    let freeze = json!({"immutable": true});
    secrets(plane, shop).patch("frozen", &PatchParams::default(), &Patch::Merge(&freeze)).await.unwrap();
    change(plane, shop, "frozen", json!({"spec": {"rotateMintedBefore": jiff::Timestamp::now().to_string()}})).await;
    says(plane, (shop, "frozen"), "SecretImmutable").await;

    let invalid = json!({"secretTemplate": {"annotations": {"a..b/name": "refused when it is written"}}});
    create(plane, shop, "invalid", invalid).await;
    says(plane, (shop, "invalid"), "InvalidSpec").await;

    let foreign =
        json!({"metadata": {"name": "foreign"}, "stringData": {"client_secret": "somebody else's own value"}});
    let foreign: Secret = serde_json::from_value(foreign).unwrap();
    secrets(plane, shop).create(&PostParams::default(), &foreign).await.unwrap();
    create(plane, shop, "foreign", json!({})).await;
    says(plane, (shop, "foreign"), "SecretConflict").await;

    create(plane, shop, "tampered", json!({})).await;
    let uid = in_order(plane, shop, "tampered").await.uid().unwrap();
    let value = fields(&secrets(plane, shop).get("tampered").await.unwrap())["client_secret"].clone();
    let entries = ListParams::default().labels(&format!("appreg.dev/registration-uid={uid}"));
    let entry = secrets(plane, LEDGER).list(&entries).await.unwrap().items.remove(0).name_any();
    // Whoever puts a credential where it does not belong shall not find it in the log.
    let tamper = json!({"stringData": {"ledger.json": format!("{{\"version\": \"{value}\"}}")}});
    secrets(plane, LEDGER).patch(&entry, &PatchParams::default(), &Patch::Merge(&tamper)).await.unwrap();
    says(plane, (shop, "tampered"), "LedgerUnreadable").await;
}

/// Right and wrong credentials in right and wrong places.
async fn what_clients_send(plane: &ControlPlane, shop: &str, observer: &Observer) {
    let fields = fields(&secrets(plane, shop).get("all").await.unwrap());
    let (id, value) = (fields["client_id"].as_str(), fields["client_secret"].as_str());
    let tokens = TokenClient::new(&fields["issuer_ca.crt"], &fields["token_endpoint"]).unwrap();
    let answer = tokens.basic(id, value).await.unwrap();
    assert!(answer.is_token(), "{answer:?}");
    observer.issued(&answer.access_token.unwrap());
    assert!(tokens.post(id, value).await.unwrap().is_refusal(), "it is registered for HTTP Basic");
    let wrong = format!("{}x", &value[..value.len() - 1]);
    let grant = ("grant_type", "client_credentials");
    assert!(tokens.basic(id, &wrong).await.unwrap().is_refusal());
    assert!(tokens.basic("nobody", value).await.unwrap().is_refusal());
    assert!(tokens.basic(value, id).await.unwrap().is_refusal());
    for form in [
        vec![grant, ("client_id", id), ("client_secret", value), ("client_secret", value)],
        vec![grant, ("client_id", id), ("client_secret", value), ("scope", value)],
        vec![("grant_type", value), ("client_id", id), ("client_secret", value)],
        vec![grant, ("client_id", id), ("client_secret", value), (value, value)],
        vec![grant, ("client_id", id), ("client_assertion", value)],
    ] {
        let _ = tokens.form(&form).await.unwrap();
    }
    let http = oauth::https(&fields["issuer_ca.crt"]).unwrap();
    let endpoint = &fields["token_endpoint"];
    let big = format!("client_secret={value}&padding={}", "x".repeat(2_000_000));
    for request in [
        http.get(format!("{endpoint}?client_id={id}&client_secret={value}")),
        http.post(format!("{endpoint}?client_secret={value}")).form(&[grant]),
        http.get(format!("{}/{value}", fields["issuer"])),
        http.post(endpoint).bearer_auth(value).form(&[grant]),
        http.post(endpoint).header("authorization", format!("Basic {value}")).form(&[grant]),
        http.post(endpoint).header("x-credential", value).body(big),
        http.post(endpoint)
            .header("content-type", "application/json")
            .body(format!("{{\"client_secret\":\"{value}\"}}")),
        http.put(endpoint).body(value.to_owned()),
    ] {
        // Refused, each in its way; a connection that is closed meanwhile is an answer, too.
        let status = request.send().await.map(|response| response.status());
        assert!(!status.is_ok_and(|status| status.is_success()));
    }
}

/// Waits until the first entry of the registration `all` is at a revision.
async fn revision(plane: &ControlPlane, shop: &str, number: u64) {
    until(plane, (shop, "all"), &format!("is at revision {number}"), |all| {
        let credentials = all.status.as_ref().map(|status| status.credentials.as_slice()).unwrap_or_default();
        credentials
            .iter()
            .any(|c| c.name == "web" && c.current.as_ref().is_some_and(|current| current.revision == number))
    })
    .await;
    secret(plane, (shop, "all"), "has a value", |secret| fields(secret).contains_key("client_secret")).await;
}

async fn says(plane: &ControlPlane, which: (&str, &str), reason: &str) {
    use appreg::api::ConditionType::{Reconciling, Stalled};
    until(plane, which, &format!("says {reason}"), |registration| {
        [Reconciling, Stalled].iter().any(|type_| condition(registration, *type_).is_some_and(|(_, r)| r == reason))
    })
    .await;
}

/// Sees every Secret there ever is.
struct Observer {
    seen: Arc<Mutex<Vec<Secret>>>,
    issued: Mutex<Vec<String>>,
    watching: tokio::task::JoinHandle<()>,
}

impl Observer {
    fn start(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watching = tokio::spawn(watch(client, seen.clone()));
        Self { seen, issued: Mutex::default(), watching }
    }

    /// A token that the token endpoint gave.
    fn issued(&self, token: &str) {
        self.issued.lock().unwrap().push(token.to_owned());
    }

    /// All credentials, those by which the operator itself is known to the API server among them.
    fn needles(&self, plane: &ControlPlane) -> Needles {
        self.watching.abort();
        let mut needles = Needles::default();
        for secret in self.seen.lock().unwrap().iter() {
            for (field, value) in fields(secret) {
                let name = format!("{field} of {}/{}", secret.namespace().unwrap_or_default(), secret.name_any());
                match field.as_str() {
                    "client_secret" | "previous_client_secret" => needles.client_secret(&name, &value),
                    "access_token" => needles.token(&name, &value),
                    _ if value.contains("PRIVATE KEY-----") => needles.private_key(&name, &value),
                    _ => {}
                }
            }
        }
        for token in self.issued.lock().unwrap().iter() {
            needles.token("a token of the token endpoint", token);
        }
        for file in std::fs::read_dir(plane.directory()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".kubeconfig") && (name.starts_with("controller-") || name.starts_with("token-service-"))
            {
                let kubeconfig: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                needles.token("a service account's token", kubeconfig["users"][0]["user"]["token"].as_str().unwrap());
            }
        }
        needles
    }
}

async fn watch(client: Client, seen: Arc<Mutex<Vec<Secret>>>) {
    let api: Api<Secret> = Api::all(client);
    let mut version = "0".to_owned();
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), &version).await else { continue };
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            if let WatchEvent::Added(secret) | WatchEvent::Modified(secret) = event {
                version = secret.resource_version().unwrap_or_default();
                seen.lock().unwrap().push(secret);
            }
        }
    }
}

/// What a neighbour on the machine and a scraper see of a process.
async fn seen_from_outside(running: &Running) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    for file in ["cmdline", "environ", "status"] {
        let path = format!("/proc/{}/{file}", running.process.pid());
        seen.push((format!("{path} of {}", running.process.name()), std::fs::read(&path).unwrap()));
    }
    oauth::install_provider();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    for path in ["metrics", "readyz", "livez"] {
        let answer = http.get(format!("http://{}/{path}", running.admin)).send().await.unwrap();
        seen.push((format!("{path} of {}", running.process.name()), answer.bytes().await.unwrap().to_vec()));
    }
    seen
}

/// What people see who may not read Secrets, and what the ledger remembers.
async fn everything_in_the_cluster(plane: &ControlPlane, shop: &str) -> Vec<(String, Vec<u8>)> {
    let admin = plane.client("admin");
    let everywhere = ListParams::default();
    let events = Api::<Event>::all(admin.clone()).list(&everywhere).await.unwrap().items;
    let ours = events.iter().filter(|event| event.reporting_controller.as_deref() == Some("appreg.dev/controller"));
    assert!(ours.count() >= 5, "Events were written");
    let registrations = Api::<AppRegistration>::all(admin.clone()).list(&everywhere).await.unwrap().items;
    let mut seen = vec![
        ("Events".to_owned(), serde_json::to_vec(&events).unwrap()),
        ("registrations".to_owned(), serde_json::to_vec(&registrations).unwrap()),
    ];
    for secret in Api::<Secret>::all(admin).list(&everywhere).await.unwrap() {
        seen.push((format!("metadata of {}", secret.name_any()), serde_json::to_vec(&secret.metadata).unwrap()));
        if let Some(ledger) = fields(&secret).get("ledger.json").filter(|ledger| ledger.contains("clientID")) {
            seen.push((format!("ledger entry {}", secret.name_any()), ledger.clone().into_bytes()));
        }
    }
    for args in [
        ["describe", "appreg", "-n", shop].as_slice(),
        &["describe", "secrets", "-n", shop],
        &["get", "appreg", "-A", "-o", "wide"],
        &["get", "events", "-A"],
        &["get", "configmaps", "-A", "-o", "yaml"],
    ] {
        let output = plane.kubectl(args).await.unwrap().ok().unwrap();
        seen.push((format!("kubectl {}", args.join(" ")), output.into_bytes()));
    }
    seen
}

/// The logs of all processes, and the audit log.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let logs = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log" || extension == "yaml"));
    logs.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}
