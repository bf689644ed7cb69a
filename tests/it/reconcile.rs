//! The controller on the fake API server: which requests it makes, and that no lost, refused or doubled write breaks what
//! it promises. Time is paused, so deadlines and pauses pass at once; the wall clock stands until a test moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use appreg::api::{AppRegistration, names};
use appreg::clock::{Clock as _, ManualClock};
use appreg::config::Config;
use appreg::controller::run::{Controller, Options};
use appreg::kubernetes::client::Clients;
use appreg::ledger::{Digest, Entry, Verifier};
use appreg::metrics;
use appreg::shared_lists::{NAMES, REVOKED_FIELD, USED_FIELD};
use appreg::signer::Index;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::fake_api::{Call, FakeApi, Fault, Nth};

pub(crate) const LEDGER: &str = "appreg-ledger";
pub(crate) const SYSTEM: &str = "appreg-system";
/// The configuration of a controller that a test has no other for.
const CONFIG: &str = "authorizationServer: {issuer: \"https://auth.example\"}";
const CRD: &str = "appregistrations.appreg.dev";

/// A fake API server and a clock; controllers come and go.
pub(crate) struct Stage {
    pub(crate) server: FakeApi,
    pub(crate) clock: Arc<ManualClock>,
}

/// A running controller; dropped, it is gone at once, as if killed.
pub(crate) struct Running {
    handle: JoinHandle<()>,
    pub(crate) registry: Registry,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let server = FakeApi::new();
        server.person_applies(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": CRD},
        }));
        Self { server, clock: Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap())) }
    }

    /// A controller whose keys are in order.
    pub(crate) async fn controller(&self) -> Running {
        self.controller_with(CONFIG).await
    }

    /// The same with another configuration.
    pub(crate) async fn controller_with(&self, config: &str) -> Running {
        let running = self.start_with(config);
        self.until("the keys are there", |server| {
            server.object::<Secret>("secrets", LEDGER, "token-service-tls").is_some()
        })
        .await;
        running
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(CONFIG)
    }

    #[expect(clippy::disallowed_methods, reason = "the handle is held and aborted: a controller that is killed")]
    pub(crate) fn start_with(&self, config: &str) -> Running {
        let options = Options {
            config: Config::parse(config).unwrap(),
            ledger_namespace: LEDGER.into(),
            controller_namespace: SYSTEM.into(),
            concurrency: 4,
        };
        let clients =
            Clients { watches: self.server.client(), requests: self.server.client(), writes: self.server.client() };
        let mut registry = metrics::registry();
        let controller = Controller::new(options, clients, self.clock.clone(), &mut registry).unwrap();
        Running { handle: tokio::spawn(controller.run(CancellationToken::new())), registry }
    }

    pub(crate) fn apply(&self, name: &str, credentials: &Value) {
        self.apply_spec(name, &json!({"credentials": credentials}));
    }

    /// Applies a registration with this spec and its name as its display name.
    pub(crate) fn apply_spec(&self, name: &str, spec: &Value) {
        let mut all = json!({"displayName": name});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.server.person_applies(&json!({
            "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
            "metadata": {"namespace": "shop", "name": name}, "spec": all, "status": {"observedGeneration": -1},
        }));
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&FakeApi) -> bool) {
        for _ in 0..20_000 {
            if holds(&self.server) {
                return;
            }
            self.pass(SignedDuration::from_millis(20)).await;
        }
        panic!("not within 400 s: {what}; requests: {:#?}", self.server.requests());
    }

    /// Time passes on both clocks.
    pub(crate) async fn pass(&self, time: SignedDuration) {
        sleep(Duration::try_from(time).unwrap()).await;
        self.clock.advance(time);
    }

    pub(crate) async fn until_ready(&self, name: &str) {
        self.until("Ready", |server| is_ready(server, name)).await;
    }

    /// The requests since the last call, watches and Events aside.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = self.server.take_requests();
        requests.into_iter().filter(|r| !r.starts_with("watch ") && !r.contains(" events ")).collect()
    }

    /// What was requested while nothing was to be done, lists of a start aside.
    pub(crate) async fn quiet(&self) -> Vec<String> {
        sleep(Duration::from_secs(10)).await;
        self.requests();
        sleep(Duration::from_mins(2)).await;
        self.requests().into_iter().filter(|request| !request.starts_with("list ")).collect()
    }

    pub(crate) fn secret(&self, name: &str) -> Secret {
        self.server.object("secrets", "shop", name).unwrap_or_else(|| panic!("no Secret {name}"))
    }

    /// The fields of a Secret, as texts.
    pub(crate) fn fields(&self, secret: &str) -> BTreeMap<String, String> {
        let data = self.secret(secret).data.unwrap_or_default();
        data.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes.0).unwrap())).collect()
    }

    pub(crate) fn entry(&self) -> Entry {
        let secrets: Vec<Secret> = self.server.objects("secrets");
        let secret = secrets.iter().find(|s| s.type_.as_deref() == Some(names::LEDGER_SECRET_TYPE)).expect("an entry");
        let name = secret.metadata.name.clone().unwrap();
        Entry::parse(&name, Some(&secret.data.as_ref().unwrap()["ledger.json"].0)).unwrap()
    }

    /// The revision of entry `web` that the Secret holds, by the ledger.
    pub(crate) fn held_revision(&self) -> Option<u64> {
        let secret = self.secret("storefront");
        let digest = Digest::of(&secret.data.as_ref().unwrap()["client_secret"].0);
        let entry = self.entry();
        entry.credentials["web"]
            .revisions
            .iter()
            .find(|r| matches!(&r.verifier, Verifier::ClientSecret(v) if v.sha256 == digest))
            .map(|r| r.revision)
    }
}

pub(crate) fn is_ready(server: &FakeApi, name: &str) -> bool {
    let registration = server.object::<AppRegistration>("appregistrations", "shop", name);
    let Some(registration) = registration else { return false };
    let generation = registration.metadata.generation;
    let Some(status) = registration.status else { return false };
    status.observed_generation == generation
        && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        && !status.conditions.iter().any(|c| c.type_ == "Reconciling" || c.type_ == "Stalled")
}

pub(crate) fn web() -> Value {
    json!([{"name": "web", "clientSecret": {}}])
}

pub(crate) fn rotate(stage: &Stage) {
    stage.clock.advance(SignedDuration::from_secs(10));
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["annotations"] = json!({"appreg.dev/rotate-minted-before": "2026-01-01T00:00:05Z"});
    }));
}

fn revoke(stage: &Stage) {
    stage.clock.advance(SignedDuration::from_secs(10));
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["annotations"] = json!({"appreg.dev/revoke-minted-before": "2026-01-01T00:00:05Z"});
    }));
}

fn remove(stage: &Stage) {
    assert!(stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["spec"]["credentials"] = json!([{"name": "web", "clientSecret": {}}]);
    }));
}

#[tokio::test(start_paused = true)]
async fn a_new_registration_costs_one_write_each_for_ledger_secret_and_status_and_no_read() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.requests();
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    let uid = stage.server.object::<AppRegistration>("appregistrations", "shop", "storefront").unwrap();
    let ledger = appreg::ledger::name("default", &uid.metadata.uid.unwrap());
    assert!(ledger.starts_with("client-"));
    assert_eq!(
        stage.requests(),
        [
            "create secrets appreg-ledger 201",
            "create secrets shop 201",
            "update appregistrations/status shop/storefront 200",
        ]
    );
    assert_eq!(stage.held_revision(), Some(1));
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_rotation_costs_the_same_and_one_get_per_secret() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    stage.requests();
    rotate(&stage);
    stage.until("revision 2", |_| stage.held_revision() == Some(2)).await;
    stage.until_ready("storefront").await;
    let requests = stage.requests();
    let verbs: Vec<_> = requests.iter().map(|r| r.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        verbs,
        ["get secrets", "update secrets", "update secrets", "update appregistrations/status"],
        "{requests:?}"
    );
    let secret = stage.secret("storefront");
    assert!(secret.data.unwrap().contains_key("previous_client_secret"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_lists_and_watches_and_nothing_else() {
    let stage = Stage::new();
    let controller = stage.controller().await;
    for n in 0..20 {
        stage.apply(
            &format!("app-{n}"),
            &json!([{"name": "web", "clientSecret": {}}, {"name": "api", "accessToken": {}}]),
        );
    }
    for n in 0..20 {
        stage.until_ready(&format!("app-{n}")).await;
    }
    drop(controller);
    stage.requests();
    let _controller = stage.start();
    sleep(Duration::from_mins(1)).await;
    let requests = stage.requests();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.starts_with("list ")), "{requests:#?}");
}

/// The public half of an Ed25519 key, in PEM: RFC 8410 section 10.1.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

fn given() -> Value {
    json!([{"name": "partner", "publicKey": {"pem": PUBLIC_KEY}}, {"name": "pod", "serviceAccount": {"name": "app"}}])
}

#[tokio::test(start_paused = true)]
async fn what_is_given_costs_a_ledger_write_and_a_status_write_and_a_restart_nothing() {
    let stage = Stage::new();
    let controller = stage.controller().await;
    stage.requests();
    stage.apply("storefront", &given());
    stage.until_ready("storefront").await;
    assert_eq!(
        stage.requests(),
        ["create secrets appreg-ledger 201", "update appregistrations/status shop/storefront 200"]
    );
    let entry = stage.entry();
    assert!(entry.credentials["partner"].revisions[0].verifier.jwk().is_some());
    assert_eq!(entry.credentials["pod"].subject.as_deref(), Some("system:serviceaccount:shop:app"));
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_killed_at_any_write_takes_up_what_is_given_once() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        for write in 1..=2 {
            let stage = Stage::new();
            let controller = stage.controller().await;
            stage.server.on(Nth::write(write), fault.clone());
            stage.apply("storefront", &given());
            stage.pass(SignedDuration::from_secs(1)).await;
            drop(controller);
            let _controller = stage.controller().await;
            stage.until_ready("storefront").await;
            let entry = stage.entry();
            let revisions: Vec<_> = entry.credentials["partner"].revisions.iter().map(|r| r.revision).collect();
            assert_eq!(revisions, [1], "write {write}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_revoked_is_told_as_an_event_and_the_file_is_in_none() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &given());
    stage.until_ready("storefront").await;
    revoke(&stage);
    stage.until("an Event", |server| !events(server).is_empty()).await;
    stage.until("both Events", |server| events(server).len() >= 3).await;
    let said = events(&stage.server).join("\n");
    for part in
        ["partner: revision 1 was revoked", "pod was revoked: earlier tokens", "was revoked by revokeMintedBefore"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("MCowBQYDK2VwAyEA"), "{said}");
    assert!(stage.entry().credentials["partner"].revisions[0].is_expired(stage.clock.now()));
}

fn events(server: &FakeApi) -> Vec<String> {
    let events: Vec<Event> = server.objects("events");
    events.into_iter().filter_map(|event| event.note).collect()
}

/// What is done to a registration that is in order, and how to know that it is done.
struct Workload {
    name: &'static str,
    before: Value,
    act: fn(&Stage),
    is_done: fn(&Stage) -> bool,
}

fn workloads() -> [Workload; 4] {
    [
        Workload {
            name: "first mint",
            before: Value::Null,
            act: |stage| stage.apply("storefront", &web()),
            is_done: |stage| stage.held_revision().is_some(),
        },
        Workload {
            name: "rotation",
            before: web(),
            act: rotate,
            is_done: |stage| stage.held_revision().is_some_and(|r| r > 1),
        },
        Workload {
            name: "revocation",
            before: web(),
            act: revoke,
            is_done: |stage| {
                stage.held_revision().is_some_and(|r| r > 1) && stage.entry().credentials["web"].revision(1).is_none()
            },
        },
        Workload {
            name: "removal of an entry",
            before: json!([{"name": "web", "clientSecret": {}}, {"name": "other", "clientSecret": {}, "secretName": "other"}]),
            act: remove,
            is_done: |stage| {
                stage.server.object::<Secret>("secrets", "shop", "other").is_none()
                    && !stage.entry().credentials.contains_key("other")
            },
        },
    ]
}

/// Looks at every value that the Secret ever shows: one per revision (S3), and accepted while it is shown (S1, S2).
#[derive(Default)]
struct Observer {
    by_revision: BTreeMap<u64, Digest>,
    client_ids: BTreeSet<String>,
    /// A leak outranks availability: what is revoked is dropped even if its successor could not be published.
    revokes: bool,
}

impl Observer {
    fn look(&mut self, stage: &Stage, case: &str) {
        let Some(secret) = stage.server.object::<Secret>("secrets", "shop", "storefront") else { return };
        let data = secret.data.unwrap();
        let digest = Digest::of(&data["client_secret"].0);
        let entry = stage.entry();
        let accepted = entry.credentials["web"]
            .revisions
            .iter()
            .find(|r| matches!(&r.verifier, Verifier::ClientSecret(v) if v.sha256 == digest));
        let Some(revision) = accepted else {
            assert!(self.revokes, "{case}: what the Secret shows is not accepted");
            return;
        };
        let known = self.by_revision.entry(revision.revision).or_insert(digest);
        assert!(*known == digest, "{case}: two values of revision {}", revision.revision);
        self.client_ids.insert(String::from_utf8(data["client_id"].0.clone()).unwrap());
        assert_eq!(self.client_ids.len(), 1, "{case}: the client ID changed");
    }
}

async fn settle(stage: &Stage, workload: &Workload, observer: &mut Observer, case: &str) {
    for _ in 0..5000 {
        observer.look(stage, case);
        if (stage.server.object::<Secret>("secrets", "shop", "storefront").is_some())
            && (workload.is_done)(stage)
            && is_ready(&stage.server, "storefront")
        {
            return;
        }
        stage.pass(SignedDuration::from_millis(50)).await;
    }
    panic!("{case}: not done; requests: {:#?}", stage.server.requests());
}

/// How many writes a workload makes when nothing goes wrong.
async fn writes_of(workload: &Workload) -> u64 {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    if !workload.before.is_null() {
        stage.apply("storefront", &workload.before);
        stage.until_ready("storefront").await;
    }
    stage.requests();
    (workload.act)(&stage);
    settle(&stage, workload, &mut Observer::default(), workload.name).await;
    sleep(Duration::from_secs(5)).await;
    let requests = stage.requests();
    let writes = requests.iter().filter(|r| !r.starts_with("get ") && !r.starts_with("list ")).count();
    u64::try_from(writes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_lost_on_its_way_or_on_its_way_back_changes_nothing_in_the_end() {
    for workload in workloads() {
        let writes = writes_of(&workload).await;
        assert!(writes >= 3, "{}: {writes}", workload.name);
        for k in 1..=writes {
            for fault in [Fault::LoseRequest, Fault::LoseReply, Fault::internal()] {
                let case = format!("{}: write {k}: {fault:?}", workload.name);
                let stage = Stage::new();
                let _controller = stage.controller().await;
                if !workload.before.is_null() {
                    stage.apply("storefront", &workload.before);
                    stage.until_ready("storefront").await;
                }
                let mut observer = Observer { revokes: workload.name == "revocation", ..Observer::default() };
                observer.look(&stage, &case);
                stage.server.on(Nth::write(k), fault);
                (workload.act)(&stage);
                settle(&stage, &workload, &mut observer, &case).await;
                assert_eq!(stage.quiet().await, Vec::<String>::new(), "{case}: still writing");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_killed_before_or_after_any_write_is_followed_by_one_that_ends_the_same() {
    for workload in workloads() {
        let writes = writes_of(&workload).await;
        for k in 1..=writes {
            for fault in [Fault::Hang, Fault::HangAfter] {
                let case = format!("{}: killed at write {k}: {fault:?}", workload.name);
                let stage = Stage::new();
                let controller = stage.controller().await;
                if !workload.before.is_null() {
                    stage.apply("storefront", &workload.before);
                    stage.until_ready("storefront").await;
                }
                let mut observer = Observer { revokes: workload.name == "revocation", ..Observer::default() };
                observer.look(&stage, &case);
                stage.requests();
                stage.server.on(Nth::write(k), fault);
                (workload.act)(&stage);
                // The write hangs: a moment later it has begun, and its deadline of five seconds has not come.
                sleep(Duration::from_secs(2)).await;
                drop(controller);
                stage.server.heal();
                observer.look(&stage, &case);
                let _controller = stage.start();
                settle(&stage, &workload, &mut observer, &case).await;
                assert_eq!(stage.quiet().await, Vec::<String>::new(), "{case}: still writing");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_controllers_at_once_end_with_one_value_and_leave_each_other_alone() {
    let stage = Stage::new();
    let _one = stage.controller().await;
    let _two = stage.start();
    sleep(Duration::from_secs(5)).await;
    for n in 0..10 {
        stage.apply(&format!("app-{n}"), &web());
    }
    for n in 0..10 {
        stage.until_ready(&format!("app-{n}")).await;
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_registration_leaves_the_ledger_after_thirty_seconds_and_not_before() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    assert!(stage.server.person_deletes("appregistrations", "shop", "storefront"));
    sleep(Duration::from_mins(1)).await;
    stage.entry();
    stage.requests();
    stage.clock.advance(SignedDuration::from_secs(31));
    let has_entry = |server: &FakeApi| {
        server.objects::<Secret>("secrets").iter().any(|s| s.type_.as_deref() == Some(names::LEDGER_SECRET_TYPE))
    };
    stage.until("swept", |server| !has_entry(server)).await;
    let verbs: Vec<_> = stage.requests().iter().map(|r| r.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(verbs, ["get appregistrations", "get customresourcedefinitions", "delete secrets"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_swept_behind_a_custom_resource_definition_that_was_replaced() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    stage.server.person_deletes("appregistrations", "shop", "storefront");
    stage.server.person_deletes("customresourcedefinitions", "", CRD);
    stage.server.person_applies(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": CRD},
    }));
    sleep(Duration::from_secs(5)).await;
    stage.clock.advance(SignedDuration::from_secs(600));
    sleep(Duration::from_mins(2)).await;
    stage.entry();
    assert!(stage.server.requests().iter().all(|r| !r.starts_with("delete ")));
    let events = stage.server.objects::<Event>("events");
    let told: Vec<_> = events.iter().filter(|e| e.reason.as_deref() == Some("SweepSuspended")).collect();
    assert_eq!(told.len(), 1, "said once: {events:?}");
    assert_eq!(told[0].regarding.as_ref().unwrap().name.as_deref(), Some("signing-keys"));
}

#[tokio::test(start_paused = true)]
async fn in_a_namespace_that_is_being_deleted_nothing_is_tried_twice() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let creates =
        Nth::every_that(|call| call.verb == "create" && call.resource == "secrets" && call.namespace == "shop");
    stage.server.on(creates, Fault::namespace_terminating());
    stage.requests();
    stage.apply("storefront", &web());
    for _ in 0..60 {
        stage.pass(SignedDuration::from_secs(1)).await;
    }
    let attempts = stage.requests().iter().filter(|r| r.starts_with("create secrets shop")).count();
    assert_eq!(attempts, 1);
}

pub(crate) fn system(stage: &Stage, name: &str) -> Secret {
    stage.server.object("secrets", LEDGER, name).unwrap_or_else(|| panic!("no Secret {name}"))
}

pub(crate) fn signing_keys(stage: &Stage) -> Index {
    Index::parse(system(stage, "signing-keys").data.unwrap().get("keys.json").map(|bytes| bytes.0.as_slice())).unwrap()
}

fn serving_end(stage: &Stage) -> Timestamp {
    let chain = system(stage, "token-service-tls").data.unwrap()["tls.crt"].0.clone();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&chain).unwrap();
    Timestamp::from_second(pem.parse_x509().unwrap().validity().not_after.timestamp()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn over_half_a_year_keys_and_serving_certificate_are_replaced_before_they_end() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    let (mut kids, mut serving) = (BTreeSet::new(), BTreeSet::new());
    for day in 0..200 {
        let now = stage.clock.now();
        let keys = signing_keys(&stage);
        let signing = keys.signing(now).expect("a key signs").kid.clone();
        for key in keys.keys() {
            assert!(
                system(&stage, "signing-keys").data.unwrap().contains_key(&format!("{}.pem", key.kid)),
                "day {day}: the index names a key that is not there"
            );
        }
        kids.insert(signing);
        let end = serving_end(&stage);
        assert!(now < end, "day {day}: the serving certificate has ended");
        serving.insert(end);
        stage.clock.advance(SignedDuration::from_hours(24));
        sleep(Duration::from_secs(90)).await;
    }
    assert_eq!(kids.len(), 3, "signing keys in 200 days");
    assert_eq!(serving.len(), 4, "serving certificates in 200 days");
}

#[tokio::test(start_paused = true)]
async fn the_lists_that_token_services_share_are_made_once_made_again_when_they_are_gone_and_never_looked_into() {
    let stage = Stage::new();
    let controller = stage.controller().await;
    let of_lists = |requests: Vec<String>| {
        let mut requests: Vec<_> = requests.into_iter().filter(|r| r.contains("revocations-")).collect();
        requests.sort();
        requests
    };
    let looked_for = NAMES.map(|name| format!("get secrets {LEDGER}/{name} 404"));
    let requests = stage.requests();
    let created = requests.iter().filter(|request| *request == &format!("create secrets {LEDGER} 201")).count();
    assert_eq!(created, NAMES.len() + 3, "lists, signing keys, bundle, serving certificate: {requests:#?}");
    assert_eq!(of_lists(requests), looked_for);
    for name in NAMES {
        let fields = system(&stage, name).data.unwrap();
        assert_eq!(fields.keys().collect::<Vec<_>>(), [REVOKED_FIELD, USED_FIELD]);
        assert!(fields.values().all(|bytes| bytes.0 == b"{}"));
    }
    stage.server.person_edits("secrets", LEDGER, NAMES[3], |secret| {
        secret["data"] = json!({"revoked.json": "YnJva2Vu"});
    });
    assert_eq!(stage.quiet().await, [""; 0], "what a token service writes is none of the controller's business");
    drop(controller);
    let _controller = stage.start();
    assert_eq!(stage.quiet().await, [""; 0], "nor after a restart");
    stage.server.person_deletes("secrets", LEDGER, NAMES[3]);
    stage.until("made again", |server| server.object::<Secret>("secrets", LEDGER, NAMES[3]).is_some()).await;
    assert_eq!(of_lists(stage.requests()), [looked_for[3].clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_made_keeps_nothing_else_from_being_made() {
    let stage = Stage::new();
    let is_list = |call: &Call| call.verb == "get" && call.name.starts_with("revocations-");
    stage.server.on(Nth::every_that(is_list), Fault::forbidden());
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    assert!(stage.server.object::<Secret>("secrets", LEDGER, NAMES[0]).is_none());
    stage.server.heal();
    stage.until("made", |server| NAMES.iter().all(|n| server.object::<Secret>("secrets", LEDGER, n).is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn signing_keys_that_cannot_be_read_are_never_written_over_and_nothing_is_minted_without_them() {
    let stage = Stage::new();
    drop(stage.controller().await);
    stage.server.person_edits("secrets", LEDGER, "signing-keys", |secret| {
        secret["data"]["keys.json"] = json!("e30=");
    });
    let before = system(&stage, "signing-keys");
    let _controller = stage.start();
    stage.apply("storefront", &web());
    stage.requests();
    sleep(Duration::from_mins(5)).await;
    assert!(stage.requests().iter().all(|request| request.starts_with("list ")), "{:?}", stage.server.requests());
    assert_eq!(system(&stage, "signing-keys"), before);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_going_gets_nothing_more() {
    let stage = Stage::new();
    let _controller = stage.controller().await;
    stage.apply("storefront", &web());
    stage.until_ready("storefront").await;
    stage.server.person_edits("appregistrations", "shop", "storefront", |object| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    });
    sleep(Duration::from_secs(1)).await;
    stage.requests();
    stage.server.person_deletes("secrets", "shop", "storefront");
    assert_eq!(stage.quiet().await, Vec::<String>::new());
    assert!(stage.server.object::<Secret>("secrets", "shop", "storefront").is_none());
}
