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

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answered = Response<UnsyncBoxBody<Bytes, io::Error>>;
/// namespace (empty for cluster objects), name
type Place = (String, String);

/// The server. Clones are the same server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    world: Arc<Mutex<World>>,
    rules: Arc<Mutex<Vec<Rule>>>,
    /// Told whenever watches may have something to say.
    stirred: watch::Sender<u64>,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`: RBAC's words.
    pub(crate) verb: &'static str,
    /// `secrets`, `appregistrations/status`.
    pub(crate) resource: String,
    /// Empty for all namespaces and for objects of the cluster.
    pub(crate) namespace: String,
    /// Empty for lists and watches.
    pub(crate) name: String,
}

impl Call {
    /// True for everything that changes something.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => Ok(()),
            ("", name) => write!(f, " {name}"),
            (namespace, "") => write!(f, " {namespace}"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection breaks before the server has seen the request.
    LoseRequest,
    /// The request is carried out and the connection breaks before the answer.
    LoseReply,
    /// The request is never answered, and not carried out.
    Hang,
    /// The request is carried out and never answered.
    HangAfter,
    /// The server answers this status, and carries nothing out.
    Answer(Value),
    /// The server answers this text with this code: a proxy, or a kind that is not served.
    Text(u16, String),
}

impl Fault {
    /// RBAC, or a server that has just started.
    pub(crate) fn forbidden() -> Self {
        Self::Answer(status(403, "Forbidden", "forbidden: not allowed", json!({})))
    }

    /// A `ResourceQuota` is used up.
    pub(crate) fn quota_exceeded() -> Self {
        let message = "secrets \"x\" is forbidden: exceeded quota: small, requested: count/secrets=1";
        Self::Answer(status(403, "Forbidden", message, json!({"kind": "secrets"})))
    }

    /// A create in a namespace that is being deleted.
    pub(crate) fn namespace_terminating() -> Self {
        let causes = json!({"causes": [{"reason": "NamespaceTerminating", "message": "is being terminated",
            "field": "metadata.namespace"}]});
        Self::Answer(status(403, "Forbidden", "unable to create new content: namespace is being terminated", causes))
    }

    /// A create in a namespace that does not exist.
    pub(crate) fn namespace_missing(namespace: &str) -> Self {
        let message = format!("namespaces {namespace:?} not found");
        Self::Answer(status(404, "NotFound", &message, json!({"kind": "namespaces", "name": namespace})))
    }

    /// Too many requests.
    pub(crate) fn throttled() -> Self {
        Self::Answer(status(429, "TooManyRequests", "storage is (re)initializing", json!({})))
    }

    /// The server failed; what became of a write is unknown to its client (here: nothing).
    pub(crate) fn internal() -> Self {
        Self::Answer(status(500, "InternalError", "Internal error occurred", json!({})))
    }

    /// The CRD is gone.
    pub(crate) fn not_served() -> Self {
        Self::Text(404, "404 page not found\n".to_owned())
    }
}

/// Which requests, counted from the moment the rule is made.
pub(crate) struct Nth {
    which: Box<dyn Fn(&Call) -> bool + Send>,
    /// The first that it applies to, from 1.
    first: u64,
    /// How many from there.
    times: u64,
}

impl Nth {
    /// The `n`-th write, from 1.
    pub(crate) fn write(n: u64) -> Self {
        Self { which: Box::new(Call::is_write), first: n, times: 1 }
    }

    /// The `n`-th request of any kind, from 1.
    pub(crate) fn request(n: u64) -> Self {
        Self { which: Box::new(|_| true), first: n, times: 1 }
    }

    /// Every request with this verb and resource (`secrets`, `appregistrations/status`), until [`FakeApi::heal`].
    pub(crate) fn every(verb: &'static str, resource: &'static str) -> Self {
        Self::every_that(move |call| call.verb == verb && call.resource == resource)
    }

    /// Every request that `which` is true of, until [`FakeApi::heal`].
    pub(crate) fn every_that(which: impl Fn(&Call) -> bool + Send + 'static) -> Self {
        Self { which: Box::new(which), first: 1, times: u64::MAX }
    }

    /// Only the first `times` of them.
    pub(crate) fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Not the first `skipped` of them.
    pub(crate) fn after(mut self, skipped: u64) -> Self {
        self.first += skipped;
        self
    }
}

/// All objects and the version at one moment, for [`FakeApi::restore`].
#[derive(Clone)]
pub(crate) struct Backup {
    version: u64,
    objects: BTreeMap<String, BTreeMap<Place, Value>>,
    history: usize,
}

type Action = Arc<dyn Fn(&FakeApi) + Send + Sync>;

enum Effect {
    Fault(Fault),
    Before(Action),
}

struct Rule {
    nth: Nth,
    met: u64,
    effect: Effect,
}

struct World {
    version: u64,
    uids: u64,
    objects: BTreeMap<String, BTreeMap<Place, Value>>,
    history: Vec<Happened>,
    /// Watches from before this version get 410.
    compacted: u64,
    /// Rest of a paged list, by its token.
    pages: HashMap<String, (Vec<Value>, String)>,
    log: Vec<String>,
    /// Watches made under an older reign end.
    reign: u64,
    broken: bool,
    held: bool,
    bookmarks: u64,
    open: usize,
}

#[derive(Clone)]
struct Happened {
    version: u64,
    resource: String,
    place: Place,
    before: Option<Value>,
    after: Option<Value>,
    /// The object as a `DELETED` event shows it.
    last: Option<Value>,
}

/// What a person does, and what a test looks at.
impl FakeApi {
    /// An empty server.
    pub(crate) fn new() -> Self {
        let world = World {
            version: 100,
            uids: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            pages: HashMap::new(),
            log: Vec::new(),
            reign: 0,
            broken: false,
            held: false,
            bookmarks: 0,
            open: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), rules: Arc::default(), stirred: watch::channel(0).0 }
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

    /// Creates the object or replaces it whole (its status too), as seen by the server afterwards. `metadata.uid` may be
    /// given.
    pub(crate) fn person_applies(&self, object: &impl Serialize) -> Value {
        let mut object = serde_json::to_value(object).unwrap();
        let resource = plural(object["kind"].as_str().expect("kind"));
        let place = place_of(&object);
        let applied = {
            let mut world = self.lock();
            let before = world.object(&resource, &place).cloned();
            world.fill_in(&mut object, before.as_ref());
            world.commit(&resource, place, Some(object))
        };
        self.stir();
        applied.expect("applied")
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
            world.fill_in(&mut object, Some(&before));
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

/// One request.
struct Asked {
    call: Call,
    query: HashMap<String, String>,
    body: Value,
    api_version: String,
    metadata_only: bool,
}

impl FakeApi {
    async fn serve(&self, request: Request<Body>) -> Result<Answered, BoxError> {
        let asked = Asked::read(request).await?;
        let fault = self.fault_for(&asked.call);
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
        let mut watcher = Watcher {
            server: self.clone(),
            stirred: self.stirred.subscribe(),
            selects: Selects::of(asked),
            from,
            read: 0,
            reign: world.reign,
            bookmarks: world.bookmarks,
            ends: tokio::time::Instant::now() + Duration::from_secs(timeout),
            ready: VecDeque::new(),
            over: false,
        };
        if from < world.compacted {
            let gone = status(410, "Expired", "too old resource version", json!({}));
            watcher.ready.push_back(json!({"type": "ERROR", "object": gone}));
            watcher.over = true;
        }
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

struct Watcher {
    server: FakeApi,
    stirred: watch::Receiver<u64>,
    selects: Selects,
    from: u64,
    /// How much of the history has been read.
    read: usize,
    reign: u64,
    bookmarks: u64,
    ends: tokio::time::Instant,
    ready: VecDeque<Value>,
    over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<io::Result<Value>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            self.stirred.borrow_and_update();
            if let Err(error) = self.look() {
                self.over = true;
                return Some(Err(error));
            }
            if self.over || !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.stirred.changed() => {}
                () = tokio::time::sleep_until(self.ends) => {
                    let version = self.server.version();
                    self.push_bookmark(version);
                    self.over = true;
                }
            }
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let world = Arc::clone(&self.server.world);
        let world = world.lock().unwrap();
        if self.reign != world.reign {
            self.over = true;
            return if world.broken { Err(io::Error::other("connection reset")) } else { Ok(()) };
        }
        if !world.held {
            let news = world.history[self.read..].iter().filter(|happened| happened.version > self.from);
            self.ready.extend(news.filter_map(|happened| self.selects.event(happened)));
            self.read = world.history.len();
        }
        if self.bookmarks != world.bookmarks {
            self.bookmarks = world.bookmarks;
            self.push_bookmark(world.version);
        }
        Ok(())
    }

    /// Like a real server, never one from before the watch.
    fn push_bookmark(&mut self, version: u64) {
        if version >= self.from {
            let object = json!({"apiVersion": self.selects.api_version, "kind": "Bookmark",
                "metadata": {"resourceVersion": version.to_string()}});
            self.ready.push_back(json!({"type": "BOOKMARK", "object": object}));
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Ok(mut world) = self.server.world.lock() {
            world.open -= 1;
        }
    }
}

/// Which objects a list or watch is about.
struct Selects {
    resource: String,
    namespace: String,
    labels: Vec<(String, Option<String>)>,
    fields: Vec<(String, String)>,
    metadata_only: bool,
    api_version: String,
}

impl Selects {
    fn of(asked: &Asked) -> Self {
        let terms = |parameter: &str| -> Vec<String> {
            let selector = asked.query.get(parameter).cloned().unwrap_or_default();
            selector.split(',').filter(|term| !term.is_empty()).map(str::to_owned).collect()
        };
        let pair = |term: &str| term.split_once('=').map(|(a, b)| (a.to_owned(), b.trim_start_matches('=').to_owned()));
        Self {
            resource: asked.call.resource.clone(),
            namespace: asked.call.namespace.clone(),
            labels: terms("labelSelector")
                .iter()
                .map(|term| pair(term).map_or((term.clone(), None), |(label, value)| (label, Some(value))))
                .collect(),
            fields: terms("fieldSelector").iter().map(|term| pair(term).expect("field=value")).collect(),
            metadata_only: asked.metadata_only,
            api_version: asked.api_version.clone(),
        }
    }

    fn matches(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        (self.namespace.is_empty() || meta["namespace"].as_str() == Some(&self.namespace))
            && self.labels.iter().all(|(label, wanted)| match (meta["labels"][label].as_str(), wanted) {
                (Some(value), Some(wanted)) => value == wanted,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            })
            && self.fields.iter().all(|(field, wanted)| {
                object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str) == Some(wanted)
            })
    }

    fn event(&self, happened: &Happened) -> Option<Value> {
        if happened.resource != self.resource {
            return None;
        }
        let matched = happened.before.as_ref().is_some_and(|object| self.matches(object));
        let after = happened.after.as_ref().filter(|object| self.matches(object));
        let (kind, object) = match (matched, after) {
            (false, Some(object)) => ("ADDED", object),
            (true, Some(object)) => ("MODIFIED", object),
            (true, None) => ("DELETED", happened.last.as_ref()?),
            (false, None) => return None,
        };
        Some(json!({"type": kind, "object": shown(object, self.metadata_only)}))
    }
}

/// Success: code and object. Failure: a `Status`.
type Outcome = Result<(u16, Value), Value>;

impl World {
    fn object(&self, resource: &str, place: &Place) -> Option<&Value> {
        self.objects.get(resource)?.get(place)
    }

    fn get(&self, asked: &Asked) -> Outcome {
        let object = self.object(asked.base(), &asked.place()).ok_or_else(|| asked.not_found())?;
        Ok((200, shown(object, asked.metadata_only)))
    }

    fn list(&mut self, asked: &Asked) -> Outcome {
        let (mut items, version) = match asked.query.get("continue") {
            Some(token) => self
                .pages
                .get(token)
                .cloned()
                .ok_or_else(|| status(410, "Expired", "the provided continue parameter is too old", json!({})))?,
            None => {
                let selects = Selects::of(asked);
                let objects = self.objects.get(&selects.resource).into_iter().flat_map(BTreeMap::values);
                let items = objects.filter(|o| selects.matches(o)).map(|o| shown(o, asked.metadata_only)).collect();
                (items, self.version.to_string())
            }
        };
        let mut meta = json!({"resourceVersion": version});
        let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        if items.len() > limit {
            let token = format!("page-{}", self.pages.len());
            self.pages.insert(token.clone(), (items.split_off(limit), version));
            meta["continue"] = json!(token);
        }
        Ok((200, json!({"apiVersion": asked.api_version, "kind": "List", "metadata": meta, "items": items})))
    }

    fn create(&mut self, asked: &Asked) -> Outcome {
        let mut object = asked.body.clone();
        let meta = &mut object["metadata"];
        if meta["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(status(400, "BadRequest", message, json!({})));
        }
        if !asked.call.namespace.is_empty() {
            meta["namespace"] = json!(asked.call.namespace);
        }
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let Some(prefix) = meta["generateName"].as_str() else {
                return Err(asked.invalid("metadata.name", "FieldValueRequired"));
            };
            meta["name"] = json!(format!("{prefix}{}", self.version));
        }
        if let Some(meta) = meta.as_object_mut() {
            meta.remove("uid");
        }
        let place = place_of(&object);
        if self.object(asked.base(), &place).is_some() {
            let message = format!("{} {:?} already exists", asked.base(), place.1);
            return Err(status(409, "AlreadyExists", &message, json!({"name": place.1, "kind": asked.base()})));
        }
        if asked.has_status()
            && let Some(object) = object.as_object_mut()
        {
            object.insert("status".to_owned(), json!({"observedGeneration": -1}));
        }
        self.fill_in(&mut object, None);
        let object = self.commit(asked.base(), place, Some(object)).expect("committed");
        Ok((201, shown(&object, asked.metadata_only)))
    }

    fn update(&mut self, asked: &Asked) -> Outcome {
        let before = self.object(asked.base(), &asked.place()).cloned().ok_or_else(|| asked.not_found())?;
        let mut object = asked.body.clone();
        let given = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if asked.call.verb == "patch" {
            object = before.clone();
            merge(&mut object, &asked.body);
        }
        match given {
            Some(version) if Some(version.as_str()) != before["metadata"]["resourceVersion"].as_str() => {
                return Err(asked.conflict("the object has been modified"));
            }
            None if asked.has_status() && asked.call.verb == "update" => {
                return Err(asked.invalid("metadata.resourceVersion", "FieldValueInvalid"));
            }
            Some(_) | None => {}
        }
        if object["metadata"]["uid"].as_str().is_some_and(|uid| Some(uid) != before["metadata"]["uid"].as_str()) {
            return Err(asked.conflict("Precondition failed: UID in precondition"));
        }
        if asked.base() == "secrets" {
            let same = |field: &str| before[field] == object[field];
            if !same("type") && !object["type"].is_null() {
                return Err(asked.invalid("type", "FieldValueInvalid"));
            }
            if before["immutable"] == json!(true) && !(same("data") && same("immutable")) {
                return Err(asked.invalid("data", "FieldValueForbidden"));
            }
        }
        if asked.is_status() {
            let status = object["status"].take();
            object = before.clone();
            object["status"] = status;
        } else if asked.has_status() {
            object["status"] = before["status"].clone();
        }
        self.fill_in(&mut object, Some(&before));
        if object == before {
            return Ok((200, shown(&before, asked.metadata_only)));
        }
        let object = self.commit(asked.base(), asked.place(), Some(object)).expect("committed");
        Ok((200, shown(&object, asked.metadata_only)))
    }

    fn delete(&mut self, asked: &Asked) -> Outcome {
        let before = self.object(asked.base(), &asked.place()).cloned().ok_or_else(|| asked.not_found())?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &asked.body["preconditions"][field];
            if !wanted.is_null() && *wanted != before["metadata"][field] {
                return Err(asked.conflict("Precondition failed"));
            }
        }
        self.commit(asked.base(), asked.place(), None);
        let details = json!({"name": asked.call.name, "kind": asked.base(), "uid": before["metadata"]["uid"]});
        Ok((200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "details": details})))
    }

    /// What the server itself writes into metadata.
    fn fill_in(&mut self, object: &mut Value, before: Option<&Value>) {
        let spec_differs = before.is_some_and(|before| before["spec"] != object["spec"]);
        let meta = object["metadata"].as_object_mut().expect("metadata");
        match before {
            Some(before) => {
                for field in
                    ["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "name", "namespace"]
                {
                    match before["metadata"].get(field) {
                        Some(value) => meta.insert(field.to_owned(), value.clone()),
                        None => meta.remove(field),
                    };
                }
                if spec_differs && let Some(generation) = meta["generation"].as_i64() {
                    meta.insert("generation".to_owned(), json!(generation + 1));
                }
            }
            None => {
                self.uids += 1;
                let uid = format!("00000000-0000-4000-8000-{:012x}", self.uids);
                meta.entry("uid").or_insert_with(|| json!(uid));
                meta.entry("creationTimestamp").or_insert_with(|| json!("2026-01-01T00:00:00Z"));
                meta.insert("managedFields".to_owned(), json!([{"manager": "fake", "operation": "Update"}]));
                if object.get("spec").is_some() {
                    object["metadata"]["generation"] = json!(1);
                }
            }
        }
    }

    fn commit(&mut self, resource: &str, place: Place, after: Option<Value>) -> Option<Value> {
        self.version += 1;
        let version = json!(self.version.to_string());
        let after = after.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.clone();
            object
        });
        let objects = self.objects.entry(resource.to_owned()).or_default();
        let before = match &after {
            Some(object) => objects.insert(place.clone(), object.clone()),
            None => objects.remove(&place),
        };
        let last = before.clone().map(|mut object| {
            object["metadata"]["resourceVersion"] = version;
            object
        });
        let happened = Happened {
            version: self.version,
            resource: resource.to_owned(),
            place,
            before,
            after: after.clone(),
            last,
        };
        self.history.push(happened);
        after
    }
}

impl Asked {
    async fn read(request: Request<Body>) -> Result<Self, BoxError> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&format!("http://fake{}", parts.uri))?;
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        let (api_version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return Err(format!("the fake does not serve {}", parts.uri.path()).into()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let name = rest.get(1).copied().unwrap_or_default();
        let resource = match rest {
            [resource, _, subresource] => format!("{resource}/{subresource}"),
            [resource, ..] => (*resource).to_owned(),
            [] => return Err("no resource".into()),
        };
        let verb = match parts.method {
            Method::GET if !name.is_empty() => "get",
            Method::GET if query.get("watch").is_some_and(|watch| watch == "true") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if !name.is_empty() => "delete",
            method => return Err(format!("the fake does not know {method} on {resource}").into()),
        };
        let accept =
            parts.headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let metadata_only = accept.contains("as=PartialObjectMetadata");
        let bytes = body.collect().await?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        let call = Call { verb, resource, namespace: namespace.to_owned(), name: name.to_owned() };
        Ok(Self { call, query, body, api_version, metadata_only })
    }

    /// The resource without its subresource.
    fn base(&self) -> &str {
        self.call.resource.split('/').next().unwrap_or_default()
    }

    fn is_status(&self) -> bool {
        self.call.resource.ends_with("/status")
    }

    /// Kinds of ours have a status that only `/status` writes.
    fn has_status(&self) -> bool {
        self.api_version.starts_with("appreg.dev/")
    }

    fn place(&self) -> Place {
        (self.call.namespace.clone(), self.call.name.clone())
    }

    fn not_found(&self) -> Value {
        let message = format!("{} {:?} not found", self.base(), self.call.name);
        status(404, "NotFound", &message, json!({"name": self.call.name, "kind": self.base()}))
    }

    fn conflict(&self, message: &str) -> Value {
        status(409, "Conflict", message, json!({"name": self.call.name, "kind": self.base()}))
    }

    fn invalid(&self, field: &str, reason: &str) -> Value {
        let causes = json!([{"field": field, "reason": reason, "message": "invalid"}]);
        let details = json!({"name": self.call.name, "kind": self.base(), "causes": causes});
        status(422, "Invalid", &format!("{:?} is invalid: {field}", self.call.name), details)
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().expect("an object");
    for (field, value) in patch {
        if value.is_null() {
            target.remove(field);
        } else {
            merge(target.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

fn shown(object: &Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object.clone();
    }
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

fn place_of(object: &Value) -> Place {
    let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (part("namespace"), part("name"))
}

/// `Secret` → `secrets`, `RegistrationPolicy` → `registrationpolicies`.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

fn status(code: u16, reason: &str, message: &str, details: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": details})
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
