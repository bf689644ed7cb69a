//! A fake API server: a tower service over a map, given to `kube::Client::new`. No socket, no process.
//!
//! It keeps what our decisions depend on: resourceVersions (one counter for everything, as in etcd), uids, generations,
//! 404, 409 and 422 as a real server says them (facts in the tests below), preconditions, paged lists, metadata-only
//! answers, watches with bookmarks, 410 and history. It does **not** imitate server-side apply, CEL, schemas, admission,
//! garbage collection, RBAC or quota; the real control plane shows those, and here an answer is put in by hand.
//!
//! It serves every resource of every group; nobody need register one.
//!
//! ```ignore
//! let server = FakeApi::new();
//! server.person_applies(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "shop", "name": "a"}}));
//! server.on(Nth::write(2), Fault::LoseReply);             // the second write from now commits, its answer is lost
//! let secrets: Api<Secret> = Api::namespaced(server.client(), "shop");
//! …
//! assert_eq!(server.requests(), ["create secrets shop/b 201", "update secrets shop/b -"]);
//! ```
//!
//! What a person does (`person_…`) is neither recorded nor subject to faults. Run tests with
//! `#[tokio::test(start_paused = true)]`: then deadlines, pauses and watch timeouts pass at once and in order.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken fake is a broken test")]

mod fault;
mod request;
mod watcher;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use fault::{Call, Fault, Nth};

use fault::{Action, Effect, Rule};
use request::{Asked, Selects};
use watcher::Watcher;
use world::{World, place_of, plural};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answered = Response<UnsyncBoxBody<Bytes, io::Error>>;
/// namespace (empty for cluster objects), name
type Place = (String, String);

/// The server. Clones are the same server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    world: Arc<Mutex<World>>,
    rules: Arc<Mutex<Vec<Rule>>>,
    /// What stands at URLs that are no resource's.
    documents: Arc<Mutex<BTreeMap<String, String>>>,
    /// Told whenever watches may have something to say.
    stirred: watch::Sender<u64>,
}

/// All objects and the version at one moment, for [`FakeApi::restore`].
#[derive(Clone)]
pub(crate) struct Backup {
    version: u64,
    objects: BTreeMap<String, BTreeMap<Place, Value>>,
    history: usize,
}

/// What a person does, and what a test looks at.
impl FakeApi {
    /// An empty server.
    pub(crate) fn new() -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new())),
            rules: Arc::default(),
            documents: Arc::default(),
            stirred: watch::channel(0).0,
        }
    }

    /// A client of this server. Must be called inside a tokio runtime.
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.serve(request).await }
        });
        Client::new(service, "default")
    }

    /// Creates the object, or replaces all of it but the status (unless one is given), and returns what is stored then.
    /// A new object may bring its uid.
    pub(crate) fn person_applies(&self, object: &impl Serialize) -> Value {
        let mut object = serde_json::to_value(object).unwrap();
        let resource = plural(object["kind"].as_str().expect("kind"));
        let place = place_of(&object);
        let applied = {
            let mut world = self.lock();
            let before = world.object(&resource, &place).cloned();
            world.fill_in(&mut object, before.as_ref(), "a-person");
            if before.as_ref() == Some(&object) {
                return object;
            }
            world.commit(&resource, place, Some(object))
        };
        self.stir();
        applied.expect("applied")
    }

    /// Puts objects there exactly as they are, with the uid and the resourceVersion that they had.
    pub(crate) fn person_restores(&self, objects: &[Value]) {
        let mut world = self.lock();
        for object in objects {
            let version = object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number");
            world.version = world.version.max(version);
            let resource = plural(object["kind"].as_str().expect("kind"));
            world.objects.entry(resource).or_default().insert(place_of(object), object.clone());
        }
        // New ones get other uids than those.
        world.uids += 1000;
        drop(world);
        self.compact();
    }

    /// Changes the object in place, for example strips a label. False if it does not exist.
    pub(crate) fn person_edits(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> bool {
        let place = (namespace.to_owned(), name.to_owned());
        {
            let mut world = self.lock();
            let Some(before) = world.object(resource, &place).cloned() else { return false };
            let mut object = before.clone();
            edit(&mut object);
            world.fill_in(&mut object, Some(&before), "a-person");
            if before == object {
                return true;
            }
            world.commit(resource, place, Some(object));
        }
        self.stir();
        true
    }

    /// Deletes the object. False if it does not exist.
    pub(crate) fn person_deletes(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let place = (namespace.to_owned(), name.to_owned());
        {
            let mut world = self.lock();
            if world.object(resource, &place).is_none() {
                return false;
            }
            world.commit(resource, place, None);
        }
        self.stir();
        true
    }

    /// Has a document stand at a URL that is no resource's, such as `/openid/v1/jwks`. Requests for it are recorded as
    /// `get /openid/v1/jwks 200` and are subject to faults.
    pub(crate) fn person_publishes(&self, path: &str, document: &Value) {
        self.documents.lock().unwrap().insert(path.to_owned(), document.to_string());
    }

    /// The object as it is stored.
    pub(crate) fn object<K: DeserializeOwned>(&self, resource: &str, namespace: &str, name: &str) -> Option<K> {
        let place = (namespace.to_owned(), name.to_owned());
        self.lock().object(resource, &place).cloned().map(|object| serde_json::from_value(object).unwrap())
    }

    /// All objects of a resource, by namespace and name.
    pub(crate) fn objects<K: DeserializeOwned>(&self, resource: &str) -> Vec<K> {
        let world = self.lock();
        let objects = world.objects.get(resource).into_iter().flat_map(BTreeMap::values).cloned();
        objects.map(|object| serde_json::from_value(object).unwrap()).collect()
    }

    /// The newest resourceVersion.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Every request so far, in order, with the code of its answer, or `-` if it had none:
    /// `create secrets shop/storefront 201`, `watch appregistrations 200`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// The requests so far, and forgets them.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// The objects that were sent to be tried by a dry run, in order, whatever the answer was.
    pub(crate) fn dry_runs(&self) -> Vec<Value> {
        self.lock().dry_runs.clone()
    }

    /// How many watches are open.
    pub(crate) fn open_watches(&self) -> usize {
        self.lock().open
    }
}

/// What goes wrong.
impl FakeApi {
    /// Has a fault happen to requests. Of several rules, the first that applies counts; all of them count requests.
    pub(crate) fn on(&self, nth: Nth, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { nth, met: 0, effect: Effect::Fault(fault) });
    }

    /// Does something just before requests, for example a hand edit between a read and its write.
    pub(crate) fn before(&self, nth: Nth, action: impl Fn(&FakeApi) + Send + Sync + 'static) {
        self.rules.lock().unwrap().push(Rule { nth, met: 0, effect: Effect::Before(Arc::new(action)) });
    }

    /// Ends all rules.
    pub(crate) fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Watches show nothing new until [`release_watches`](Self::release_watches): a cache that lags behind.
    pub(crate) fn hold_watches(&self) {
        self.lock().held = true;
    }

    /// Ends [`hold_watches`](Self::hold_watches).
    pub(crate) fn release_watches(&self) {
        self.lock().held = false;
        self.stir();
    }

    /// Sends every open watch a bookmark with the newest version.
    pub(crate) fn bookmark(&self) {
        self.lock().bookmarks += 1;
        self.stir();
    }

    /// Ends all open watches in the normal way.
    pub(crate) fn end_watches(&self) {
        let mut world = self.lock();
        world.reign += 1;
        world.broken = false;
        drop(world);
        self.stir();
    }

    /// Breaks the connection of all open watches.
    pub(crate) fn break_watches(&self) {
        let mut world = self.lock();
        world.reign += 1;
        world.broken = true;
        drop(world);
        self.stir();
    }

    /// Forgets the history up to now: watches that start from before get 410, as after a restart of a single server.
    pub(crate) fn compact(&self) {
        let mut world = self.lock();
        world.compacted = world.version;
        world.pages.clear();
    }

    /// All there is, now.
    pub(crate) fn backup(&self) -> Backup {
        let world = self.lock();
        Backup { version: world.version, objects: world.objects.clone(), history: world.history.len() }
    }

    /// Puts a backup in place of everything: versions go back. All watches break.
    pub(crate) fn restore(&self, backup: &Backup) {
        let mut world = self.lock();
        world.version = backup.version;
        world.objects.clone_from(&backup.objects);
        world.history.truncate(backup.history);
        drop(world);
        self.break_watches();
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn stir(&self) {
        self.stirred.send_modify(|n| *n += 1);
    }
}

impl FakeApi {
    async fn serve(&self, request: Request<Body>) -> Result<Answered, BoxError> {
        let asked = Asked::read(request).await?;
        let fault = self.fault_for(&asked.call);
        if asked.is_dry_run() {
            self.lock().dry_runs.push(asked.body.clone());
        }
        let answer = match fault {
            None => self.carry_out(&asked),
            Some(Fault::LoseRequest) => return self.cut(&asked.call),
            Some(Fault::LoseReply) => {
                self.carry_out(&asked);
                return self.cut(&asked.call);
            }
            Some(Fault::Hang) => return self.hang(&asked.call).await,
            Some(Fault::HangAfter) => {
                self.carry_out(&asked);
                return self.hang(&asked.call).await;
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.carry_out(&asked)
            }
            Some(Fault::Answer(status)) => answered(&status),
            Some(Fault::Text(code, text)) => full(StatusCode::from_u16(code).unwrap(), text.into_bytes()),
        };
        self.lock().log.push(format!("{} {}", asked.call, answer.status().as_u16()));
        Ok(answer)
    }

    fn fault_for(&self, call: &Call) -> Option<Fault> {
        let mut fault = None;
        let mut actions: Vec<Action> = Vec::new();
        for rule in self.rules.lock().unwrap().iter_mut().filter(|rule| (rule.nth.which)(call)) {
            rule.met += 1;
            if rule.met < rule.nth.first || rule.met - rule.nth.first >= rule.nth.times {
                continue;
            }
            match &rule.effect {
                Effect::Before(action) => actions.push(Arc::clone(action)),
                Effect::Fault(found) => fault = fault.or_else(|| Some(found.clone())),
            }
        }
        for action in actions {
            action(self);
        }
        fault
    }

    fn cut(&self, call: &Call) -> Result<Answered, BoxError> {
        self.lock().log.push(format!("{call} -"));
        Err("connection closed before message completed".into())
    }

    async fn hang(&self, call: &Call) -> Result<Answered, BoxError> {
        self.lock().log.push(format!("{call} -"));
        std::future::pending().await
    }

    fn carry_out(&self, asked: &Asked) -> Answered {
        if asked.call.verb == "watch" {
            return self.watch(asked);
        }
        if asked.call.resource.starts_with('/') {
            return match self.documents.lock().unwrap().get(&asked.call.resource) {
                Some(document) => full(StatusCode::OK, document.clone().into_bytes()),
                None => full(StatusCode::NOT_FOUND, b"404 page not found\n".to_vec()),
            };
        }
        let answer = {
            let mut world = self.lock();
            match asked.call.verb {
                "list" => world.list(asked),
                "get" => world.get(asked),
                "create" => world.create(asked),
                "update" | "patch" => world.update(asked),
                _ => world.delete(asked),
            }
        };
        if asked.call.is_write() {
            self.stir();
        }
        match answer {
            Ok((code, object)) => json_answer(code, &object),
            Err(status) => answered(&status),
        }
    }

    fn watch(&self, asked: &Asked) -> Answered {
        let from: u64 = asked.query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let timeout = asked.query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(290);
        let mut world = self.lock();
        world.open += 1;
        let watcher = Watcher {
            server: self.clone(),
            stirred: self.stirred.subscribe(),
            selects: Selects::of(asked),
            from,
            read: 0,
            reign: world.reign,
            bookmarks: world.bookmarks,
            ends: tokio::time::Instant::now() + Duration::from_secs(timeout),
            ready: VecDeque::new(),
            expired: from < world.compacted,
            over: false,
        };
        drop(world);
        let events = stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        });
        let frames =
            events.map(|event: io::Result<Value>| event.map(|event| Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames)))
    }
}

fn answered(status: &Value) -> Answered {
    json_answer(status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).expect("a code"), status)
}

fn json_answer(code: u16, object: &Value) -> Answered {
    full(StatusCode::from_u16(code).unwrap(), object.to_string().into_bytes())
}

fn full(code: StatusCode, body: Vec<u8>) -> Answered {
    let body = http_body_util::Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut answer = Response::new(UnsyncBoxBody::new(body));
    *answer.status_mut() = code;
    answer
}

mod tests {
    //! The fake says what a real server was seen to say (facts about kube 5 against a live API server).

    use k8s_openapi::api::core::v1::Secret;
    use kube::{
        Api, ResourceExt,
        api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
        core::{ApiResource, DynamicObject, GroupVersionKind},
    };
    use serde_json::json;

    use appreg::kubernetes::client::{ANSWER_WITHIN, Error, call};

    use super::{FakeApi, Fault, Nth};

    fn secrets(server: &FakeApi) -> Api<Secret> {
        Api::namespaced(server.client(), "shop")
    }

    fn secret(name: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "MQ=="}})).unwrap()
    }

    async fn asked<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        call(ANSWER_WITHIN, request).await
    }

    async fn refused<T>(request: impl Future<Output = kube::Result<T>>) -> Error {
        asked(request).await.err().expect("refused")
    }

    #[tokio::test(start_paused = true)]
    async fn writes_count_versions_and_stale_ones_are_refused() {
        let server = FakeApi::new();
        let api = secrets(&server);
        let first = asked(api.create(&PostParams::default(), &secret("a"))).await.unwrap();
        assert!(refused(api.create(&PostParams::default(), &secret("a"))).await.already_exists());
        let mut changed = first.clone();
        changed.labels_mut().insert("l".into(), "1".into());
        let second = asked(api.replace("a", &PostParams::default(), &changed)).await.unwrap();
        assert_ne!(second.resource_version(), first.resource_version());
        assert!(refused(api.replace("a", &PostParams::default(), &changed)).await.conflict());
        let same = asked(api.replace("a", &PostParams::default(), &second)).await.unwrap();
        assert_eq!(same.resource_version(), second.resource_version(), "a PUT that changes nothing");
        assert!(refused(api.replace("b", &PostParams::default(), &secret("b"))).await.is_absent("b"));
        assert!(refused(api.get("b")).await.is_absent("b"));
        assert_eq!(
            server.requests(),
            [
                "create secrets shop 201",
                "create secrets shop 409",
                "update secrets shop/a 200",
                "update secrets shop/a 409",
                "update secrets shop/a 200",
                "update secrets shop/b 404",
                "get secrets shop/b 404",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_keeps_its_preconditions() {
        let server = FakeApi::new();
        let api = secrets(&server);
        let stored = asked(api.create(&PostParams::default(), &secret("a"))).await.unwrap();
        let with = |uid: Option<String>, resource_version: Option<String>| DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version }),
            ..DeleteParams::default()
        };
        assert!(refused(api.delete("a", &with(Some("other".into()), None))).await.conflict());
        assert!(refused(api.delete("a", &with(None, Some("1".into())))).await.conflict());
        let answer = asked(api.delete("a", &with(stored.uid(), stored.resource_version()))).await.unwrap();
        assert!(answer.right().is_some_and(|status| status.is_success()));
        assert!(refused(api.delete("a", &DeleteParams::default())).await.is_absent("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_keeps_its_type_and_an_immutable_one_its_data() {
        let server = FakeApi::new();
        let api = secrets(&server);
        let mut stored =
            asked(api.create(&PostParams::default(), &Secret { type_: Some("Opaque".into()), ..secret("a") }))
                .await
                .unwrap();
        stored.type_ = Some("kubernetes.io/tls".into());
        assert_eq!(refused(api.replace("a", &PostParams::default(), &stored)).await.invalid_fields(), ["type"]);
        server.person_edits("secrets", "shop", "a", |object| object["immutable"] = json!(true));
        let mut stored = asked(api.get("a")).await.unwrap();
        stored.data = None;
        assert_eq!(refused(api.replace("a", &PostParams::default(), &stored)).await.invalid_fields(), ["data"]);
    }

    #[tokio::test(start_paused = true)]
    async fn status_and_spec_of_our_kinds_are_written_apart() {
        let server = FakeApi::new();
        server.person_applies(&json!({"apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
            "metadata": {"namespace": "shop", "name": "a"}, "spec": {"displayName": "A"}}));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("appreg.dev", "v1alpha1", "AppRegistration"));
        let api: Api<DynamicObject> = Api::namespaced_with(server.client(), "shop", &kind);
        let mut object = asked(api.get("a")).await.unwrap();
        assert_eq!(object.data["status"]["observedGeneration"], -1);
        object.data["status"]["observedGeneration"] = json!(1);
        object.data["spec"]["displayName"] = json!("ignored");
        let object = asked(api.replace_status("a", &PostParams::default(), &object)).await.unwrap();
        assert_eq!((object.data["spec"]["displayName"].as_str(), object.metadata.generation), (Some("A"), Some(1)));
        let mut unversioned = object.clone();
        unversioned.metadata.resource_version = None;
        assert!(refused(api.replace_status("a", &PostParams::default(), &unversioned)).await.invalid());
        let patch = json!({"spec": {"displayName": "B"}, "status": {"observedGeneration": 9}});
        let object = asked(api.patch("a", &PatchParams::default(), &Patch::Merge(patch))).await.unwrap();
        assert_eq!(
            (object.data["status"]["observedGeneration"].as_i64(), object.metadata.generation),
            (Some(1), Some(2))
        );
        assert_eq!(server.requests()[1], "update appregistrations/status shop/a 200");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_before_leaves_nothing_and_a_fault_after_leaves_the_write() {
        let server = FakeApi::new();
        let api = secrets(&server);
        server.on(Nth::write(1), Fault::LoseRequest);
        server.on(Nth::write(2), Fault::LoseReply);
        server.on(Nth::write(3), Fault::HangAfter);
        server.on(Nth::write(4), Fault::internal());
        for (name, committed) in [("a", false), ("b", true), ("c", true), ("d", false)] {
            assert!(refused(api.create(&PostParams::default(), &secret(name))).await.unknown_outcome());
            assert_eq!(server.object::<Secret>("secrets", "shop", name).is_some(), committed, "{name}");
        }
        asked(api.create(&PostParams::default(), &secret("e"))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_apart_as_those_of_a_real_server() {
        let server = FakeApi::new();
        let api = secrets(&server);
        server.on(Nth::request(1), Fault::quota_exceeded());
        server.on(Nth::request(2), Fault::namespace_terminating());
        server.on(Nth::request(3), Fault::namespace_missing("shop"));
        server.on(Nth::request(4), Fault::forbidden());
        server.on(Nth::request(5), Fault::not_served());
        let create = async || refused(api.create(&PostParams::default(), &secret("a"))).await;
        assert!(create().await.quota_exceeded());
        assert!(create().await.namespace_terminating());
        assert!(create().await.namespace_missing());
        assert!(create().await.forbidden());
        assert!(!refused(api.get("a")).await.is_absent("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_can_come_between_a_read_and_its_write() {
        let server = FakeApi::new();
        let api = secrets(&server);
        let stored = asked(api.create(&PostParams::default(), &secret("a"))).await.unwrap();
        server.before(Nth::every("update", "secrets").times(1), |server| {
            server.person_edits("secrets", "shop", "a", |object| object["data"] = json!({"a": "Mg=="}));
        });
        assert!(refused(api.replace("a", &PostParams::default(), &stored)).await.conflict());
    }

    #[tokio::test(start_paused = true)]
    async fn lists_select_by_label_by_name_and_by_namespace() {
        let server = FakeApi::new();
        for (namespace, name, label) in [("shop", "a", "x"), ("shop", "b", "y"), ("bank", "a", "x")] {
            server.person_applies(&json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": namespace, "name": name, "labels": {"l": label}}}));
        }
        let all: Api<Secret> = Api::all(server.client());
        let count = async |api: &Api<Secret>, params: ListParams| asked(api.list(&params)).await.unwrap().items.len();
        assert_eq!(count(&all, ListParams::default()).await, 3);
        assert_eq!(count(&all, ListParams::default().labels("l=x")).await, 2);
        assert_eq!(count(&all, ListParams::default().fields("metadata.name=b")).await, 1);
        assert_eq!(count(&secrets(&server), ListParams::default().labels("l=x")).await, 1);
    }
}
