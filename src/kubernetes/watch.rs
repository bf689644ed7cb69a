//! A list and an endless watch of one kind, whose health is known.
//!
//! kube's own `watcher` cannot say that it is healthy: a watch that starts again is silent until the next event. What
//! is deleted because an owner is absent needs to know it, so this is a loop over `Api::list` and `Api::watch`.
//!
//! It holds no objects. Each one is reduced **at the door**, to what its consumer keeps, and handed over by a plain
//! function call, in order; [`Health::seen`] is therefore what has been applied, not what has been received.

use std::{fmt, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ObjectName,
    client::{ANSWER_WITHIN, Error, call},
    version_of,
};

/// Which objects to watch, and how patiently.
#[derive(Clone, Debug)]
pub struct Selection {
    /// A label selector in the API's syntax; `None` is everything.
    pub labels: Option<String>,
    /// A field selector in the API's syntax; `None` is everything.
    pub fields: Option<String>,
    /// The server ends each watch after this long (whole seconds). It bounds how late a dead connection or revoked
    /// rights are noticed.
    pub watch_for: Duration,
    /// How long the server may take to answer: each page of a list, and the beginning of a watch.
    pub answer_within: Duration,
    /// Objects per page of a list.
    pub page_size: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            labels: None,
            fields: None,
            watch_for: Duration::from_secs(45),
            answer_within: ANSWER_WITHIN,
            page_size: 500,
        }
    }
}

impl Selection {
    /// Everything that has these labels.
    #[must_use]
    pub fn labelled(labels: &str) -> Self {
        Self { labels: Some(labels.to_owned()), ..Self::default() }
    }

    /// The one object of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { fields: Some(format!("metadata.name={name}")), ..Self::default() }
    }
}

/// What is known of a watch.
#[derive(Clone, Debug)]
pub struct Health {
    /// True once a list has been applied; stays true.
    pub synced: bool,
    /// True if the last list or watch succeeded.
    pub healthy: bool,
    /// When `healthy` last changed, or the watch was made. Monotonic.
    pub since: Instant,
    /// Everything up to this resourceVersion has been applied. Goes down only when the server itself went back.
    pub seen: u64,
    /// How many lists have been applied.
    pub lists: u64,
    /// Why it is not healthy. Never quotes an object.
    pub problem: Option<String>,
}

impl Health {
    /// Before anything has been asked.
    #[must_use]
    pub fn unknown() -> Self {
        Self { synced: false, healthy: false, since: Instant::now(), seen: 0, lists: 0, problem: None }
    }

    /// The channel for [`Watch::run`]: the loop has the sender, any number of others the receiver.
    #[must_use]
    pub fn channel() -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self::unknown())
    }

    /// True if all that exists is known, as of now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.synced && self.healthy
    }
}

/// An object as the watch's consumer wants it. `N` is what names it: where there are very many, something smaller than
/// its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T, N = ObjectName> {
    /// Which object.
    pub object: N,
    /// Its resourceVersion.
    pub version: u64,
    /// What the consumer keeps of it.
    pub value: T,
}

/// What happened to the objects watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T, N = ObjectName> {
    /// All that exists, as of `version`. What is not in it does not exist.
    Listed {
        /// The objects, in the server's order.
        items: Vec<Item<T, N>>,
        /// The list's resourceVersion.
        version: u64,
    },
    /// An object came into being or changed.
    Applied(Item<T, N>),
    /// An object is gone, or is no longer selected.
    Deleted {
        /// Which object.
        object: N,
        /// The resourceVersion of its deletion.
        version: u64,
    },
}

/// One kind to be watched.
#[derive(Clone, Debug)]
pub struct Watch<K> {
    /// How logs call it, for example `registrations`.
    pub name: &'static str,
    /// The client (the one for watches), kind and namespace.
    pub api: Api<K>,
    /// Which objects.
    pub selection: Selection,
}

impl<K> Watch<K>
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    /// Lists and watches until `stop` is cancelled.
    ///
    /// `door` reduces an object to what is kept, and drops its managedFields: two thirds of its size. `apply` is called with every
    /// change, in order, and must not block. No failure ends the loop: it is told in `health` and tried again, after
    /// 100 ms doubling to 1 s.
    pub async fn run<T>(
        self,
        door: impl Fn(K) -> T,
        apply: impl FnMut(Change<T>),
        health: watch::Sender<Health>,
        stop: CancellationToken,
    ) {
        self.run_named(|object| (ObjectName::of(&object), door(object)), apply, health, stop).await;
    }

    /// The same with names of the consumer's own. Beside a hundred thousand small values the names that the server has
    /// for them are the larger part, and what is freed between values that stay is of no use to anyone.
    pub async fn run_named<T, N>(
        self,
        door: impl Fn(K) -> (N, T),
        apply: impl FnMut(Change<T, N>),
        health: watch::Sender<Health>,
        stop: CancellationToken,
    ) {
        let mut running = Running {
            watch: self,
            door,
            apply,
            health,
            version: String::new(),
            resumed: Instant::now(),
            pause: FIRST_PAUSE,
        };
        stop.run_until_cancelled(running.forever()).await;
        running.health.send_modify(|h| h.turn(false, None));
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// After so long without trouble the pauses begin again with the first.
const PEACE: Duration = Duration::from_secs(10);
/// A server that has just restarted accepts a watch with 200 and takes it back in its first event.
const SETTLE: Duration = Duration::from_millis(200);
/// A watch that ends sooner than this is not followed by the next without a pause.
const SHORT: Duration = Duration::from_secs(1);
/// The server ends a watch by itself; if it is this late, the connection is dead.
const OVERDUE: Duration = Duration::from_secs(5);

/// Why a watch ended.
enum End {
    /// In its time.
    Normal,
    /// It broke; the place is not lost.
    Broken(Error),
    /// The place is lost: list again.
    Lost(Error),
}

struct Running<K, F, A> {
    watch: Watch<K>,
    door: F,
    apply: A,
    health: watch::Sender<Health>,
    /// Where to resume.
    version: String,
    /// The end of the last pause.
    resumed: Instant,
    pause: Duration,
}

impl<K, T, N, F, A> Running<K, F, A>
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
    F: Fn(K) -> (N, T),
    A: FnMut(Change<T, N>),
{
    async fn forever(&mut self) {
        loop {
            match self.list().await {
                Ok(()) => self.watch_until_lost().await,
                Err(error) => self.trouble(&error).await,
            }
        }
    }

    /// All pages of a consistent list.
    async fn list(&mut self) -> Result<(), Error> {
        let selection = &self.watch.selection;
        let mut params = ListParams {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            limit: Some(selection.page_size),
            ..ListParams::default()
        };
        let mut items = Vec::new();
        let version = loop {
            let page = call(selection.answer_within, self.watch.api.list(&params)).await?;
            items.extend(page.items.into_iter().map(|object| self.item(object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        let number = version_number(Some(&version))?;
        (self.apply)(Change::Listed { items, version: number });
        self.version = version;
        self.health.send_modify(|h| {
            h.synced = true;
            h.seen = number;
            h.lists += 1;
        });
        self.well();
        Ok(())
    }

    async fn watch_until_lost(&mut self) {
        loop {
            let started = Instant::now();
            match self.watch_once().await {
                End::Normal if started.elapsed() >= SHORT => {}
                End::Normal => self.wait().await,
                End::Lost(error) => return self.trouble(&error).await,
                End::Broken(error) => {
                    self.trouble(&error).await;
                    if self.server_version().await < self.seen() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for the server, and returns its version.
    ///
    /// Behind a broken connection there may be an etcd restored from a backup. It accepts a watch from a version it
    /// has not reached yet, and is silent until it has: only a list can tell.
    async fn server_version(&mut self) -> u64 {
        let params = ListParams { limit: Some(1), ..ListParams::default() };
        loop {
            let page = call(self.watch.selection.answer_within, self.watch.api.list(&params)).await;
            match page.and_then(|page| version_number(page.metadata.resource_version.as_deref())) {
                Ok(version) => return version,
                Err(error) => self.trouble(&error).await,
            }
        }
    }

    async fn watch_once(&mut self) -> End {
        let selection = self.watch.selection.clone();
        let params = WatchParams {
            label_selector: selection.labels,
            field_selector: selection.fields,
            timeout: Some(u32::try_from(selection.watch_for.as_secs()).unwrap_or(u32::MAX)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let stream = match call(selection.answer_within, self.watch.api.watch(&params, &self.version)).await {
            Ok(stream) => stream,
            Err(error) if error.expired() => return End::Lost(error),
            Err(error) => return End::Broken(error),
        };
        let mut stream = pin!(stream);
        let mut patience = SETTLE;
        loop {
            let next = match timeout(patience, stream.try_next()).await {
                Ok(next) => next,
                Err(_) if patience == SETTLE => {
                    self.well();
                    patience = selection.watch_for + OVERDUE;
                    continue;
                }
                Err(_) => return End::Broken(Error::Timeout(patience)),
            };
            let event = match next {
                Ok(Some(event)) => event,
                Ok(None) => return End::Normal,
                Err(error) => return ended_by(error.into()),
            };
            if let WatchEvent::Error(status) = event {
                return ended_by(Error::Api(status));
            }
            self.take(event);
            self.well();
            patience = selection.watch_for + OVERDUE;
        }
    }

    fn take(&mut self, event: WatchEvent<K>) {
        let (change, version) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let item = self.item(object);
                let version = item.version;
                (Some(Change::Applied(item)), version)
            }
            WatchEvent::Deleted(object) => {
                let version = version_of(&object);
                (Some(Change::Deleted { object: (self.door)(object).0, version }), version)
            }
            WatchEvent::Bookmark(bookmark) => (None, bookmark.metadata.resource_version.parse().unwrap_or(0)),
            WatchEvent::Error(_) => return,
        };
        if let Some(change) = change {
            (self.apply)(change);
        }
        if version > self.seen() {
            self.version = version.to_string();
            self.health.send_modify(|h| h.seen = version);
        }
    }

    fn item(&self, object: K) -> Item<T, N> {
        let version = version_of(&object);
        let (object, value) = (self.door)(object);
        Item { object, version, value }
    }

    fn seen(&self) -> u64 {
        self.health.borrow().seen
    }

    fn well(&mut self) {
        let name = self.watch.name;
        self.health.send_if_modified(|h| {
            let turned = !h.healthy;
            if turned {
                tracing::info!(watch = name, version = h.seen, "watch is healthy");
                h.turn(true, None);
            }
            turned
        });
    }

    /// Tells what went wrong, once, and waits.
    async fn trouble(&mut self, error: &Error) {
        let problem = error.chain();
        let name = self.watch.name;
        self.health.send_modify(|h| {
            if h.healthy || h.problem.is_none() {
                tracing::warn!(watch = name, problem, "watch is not healthy; trying again until it is");
            } else {
                tracing::debug!(watch = name, problem, "watch is still not healthy");
            }
            h.turn(false, Some(problem));
        });
        self.wait().await;
    }

    async fn wait(&mut self) {
        if self.resumed.elapsed() >= PEACE {
            self.pause = FIRST_PAUSE;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.resumed = Instant::now();
    }
}

impl Health {
    fn turn(&mut self, healthy: bool, problem: Option<String>) {
        if self.healthy != healthy {
            self.since = Instant::now();
        }
        self.healthy = healthy;
        self.problem = problem;
    }
}

fn version_number(version: Option<&str>) -> Result<u64, Error> {
    version.and_then(|version| version.parse().ok()).ok_or(Error::Unreadable)
}

/// An event that cannot be read would be met again for ever if the watch were resumed: the list will tell. kube shows
/// such an event as a status without a code.
fn ended_by(error: Error) -> End {
    match &error {
        Error::Unreadable => End::Lost(error),
        Error::Api(status) if status.code == 410 || status.code == 0 => End::Lost(error),
        Error::Api(_) | Error::Timeout(_) | Error::Connection(_) | Error::Client(_) => End::Broken(error),
    }
}
