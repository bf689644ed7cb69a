//! The watch loop against the fake API server. Time is tokio's, paused: pauses and deadlines pass at once.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use appreg::kubernetes::{
    DeserializeGuard, ObjectName,
    store::Store,
    watch::{Change, Health, Selection, Watch},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt, core::PartialObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::fake_api::{FakeApi, Fault, Nth};

/// A running watch of secrets, and what its consumer knows.
struct Watching {
    store: Arc<Mutex<Store<String>>>,
    health: watch::Receiver<Health>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Watching {
    fn start<K>(server: &FakeApi, selection: Selection, door: fn(K) -> String) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let store = Arc::new(Mutex::new(Store::new()));
        let (sender, health) = Health::channel();
        let stop = CancellationToken::new();
        let watch = Watch::<K> { name: "secrets", api: Api::all(server.client()), selection };
        let owned = Arc::clone(&store);
        let apply = move |change: Change<String>| drop(owned.lock().unwrap().apply(change));
        let mut tasks = JoinSet::new();
        tasks.spawn(watch.run(door, apply, sender, stop.clone()));
        Self { store, health, stop, tasks }
    }

    fn of(server: &FakeApi) -> Self {
        Self::start::<Secret>(server, Selection::default(), |secret| secret.labels().values().cloned().collect())
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Health) -> bool) {
        let waited = timeout(Duration::from_mins(5), self.health.wait_for(|health| condition(health))).await.map(drop);
        assert!(waited.is_ok(), "never {what}: {:?}", self.health.borrow());
    }

    async fn until_current(&mut self, server: &FakeApi) {
        let version = server.version();
        self.until("current", |health| health.is_current() && health.seen >= version).await;
    }

    /// What the store holds: name, value.
    fn held(&self) -> Vec<(String, String)> {
        self.store.lock().unwrap().iter().map(|(object, value)| (object.name.to_string(), value.clone())).collect()
    }

    fn names(&self) -> Vec<String> {
        self.held().into_iter().map(|(name, _)| name).collect()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn secret(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "shop", "name": name, "labels": {"l": label}}})
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test(start_paused = true)]
async fn lists_in_pages_and_then_follows_every_change() {
    let server = FakeApi::new();
    for n in 0..7 {
        server.person_applies(&secret(&format!("s{n}"), "a"));
    }
    let selection = Selection { page_size: 3, ..Selection::default() };
    let mut watching = Watching::start::<Secret>(&server, selection, |secret| secret.labels()["l"].clone());
    watching.until_current(&server).await;
    assert_eq!(watching.names().len(), 7);
    assert_eq!(server.take_requests()[..3], ["list secrets 200", "list secrets 200", "list secrets 200"]);

    server.person_applies(&secret("new", "a"));
    server.person_applies(&secret("s0", "b"));
    server.person_deletes("secrets", "shop", "s1");
    watching.until_current(&server).await;
    assert_eq!(watching.held()[..3], [pair("new", "a"), pair("s0", "b"), pair("s2", "a")]);
    watching.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_door_sees_who_wrote_an_object_in_lists_and_in_events_and_keeps_what_it_wants() {
    let server = FakeApi::new();
    server.person_applies(&secret("listed", "a"));
    let door = |secret: Secret| secret.metadata.managed_fields.is_some_and(|writers| !writers.is_empty()).to_string();
    let mut watching = Watching::start::<Secret>(&server, Selection::default(), door);
    watching.until_current(&server).await;
    server.person_applies(&secret("watched", "a"));
    watching.until_current(&server).await;
    assert_eq!(watching.held(), [pair("listed", "true"), pair("watched", "true")]);
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_is_asked_for_and_is_enough() {
    let server = FakeApi::new();
    let mut object = secret("a", "x");
    object["data"] = json!({"client_secret": "c2VjcmV0"});
    server.person_applies(&object);
    let door = |secret: PartialObjectMeta<Secret>| format!("{secret:?}");
    let mut watching = Watching::start(&server, Selection::default(), door);
    watching.until_current(&server).await;
    server.person_applies(&secret("b", "x"));
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["a", "b"]);
    assert!(!watching.held()[0].1.contains("c2VjcmV0"));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_no_longer_selected_is_gone() {
    let server = FakeApi::new();
    server.person_applies(&secret("a", "yes"));
    server.person_applies(&secret("other", "no"));
    let mut watching = Watching::start::<Secret>(&server, Selection::labelled("l=yes"), |_| String::new());
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["a"]);
    server.person_edits("secrets", "shop", "a", |object| object["metadata"]["labels"]["l"] = json!("no"));
    server.person_edits("secrets", "shop", "other", |object| object["metadata"]["labels"]["l"] = json!("yes"));
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_its_time_is_resumed_without_loss_and_stays_healthy() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    let since = watching.health.borrow().since;
    for n in 0..3 {
        tokio::time::sleep(Duration::from_secs(46)).await;
        server.hold_watches();
        server.person_applies(&secret(&format!("s{n}"), "a"));
        server.end_watches();
        server.release_watches();
        watching.until_current(&server).await;
    }
    assert_eq!(watching.names(), ["s0", "s1", "s2"]);
    let health = watching.health.borrow().clone();
    assert_eq!((health.lists, health.since), (1, since));
    assert_eq!(server.open_watches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_told_and_resumed_without_loss_and_without_a_list_of_everything() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    server.on(Nth::every_that(|_| true), Fault::LoseRequest);
    server.break_watches();
    watching.until("unhealthy", |health| !health.healthy).await;
    server.person_applies(&secret("meanwhile", "a"));
    assert!(watching.names().is_empty());
    watching.until("telling why", |health| health.problem.as_ref().is_some_and(|p| p.contains("connection"))).await;
    server.heal();
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["meanwhile"]);
    assert_eq!(watching.health.borrow().lists, 1);
}

#[tokio::test(start_paused = true)]
async fn everything_is_listed_again_after_410_and_what_vanished_meanwhile_is_gone() {
    let server = FakeApi::new();
    server.person_applies(&secret("stays", "a"));
    server.person_applies(&secret("goes", "a"));
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    server.hold_watches();
    server.person_deletes("secrets", "shop", "goes");
    server.person_applies(&secret("comes", "a"));
    server.compact();
    server.break_watches();
    server.release_watches();
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["comes", "stays"]);
    assert_eq!(watching.health.borrow().lists, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_accepted_and_taken_back_at_once_never_counts_as_healthy() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    server.person_applies(&secret("a", "a"));
    server.compact();
    server.on(Nth::every("list", "secrets").after(1), Fault::forbidden());
    server.hold_watches();
    server.break_watches();
    watching.until("unhealthy", |health| !health.healthy).await;
    let mut health = watching.health.clone();
    let became_healthy = timeout(Duration::from_secs(30), health.wait_for(|health| health.healthy)).await.is_ok();
    assert!(!became_healthy, "{:?}", server.requests());
    server.heal();
    server.release_watches();
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_list_is_not_healthy_and_is_tried_again_at_most_once_a_second() {
    let server = FakeApi::new();
    server.person_applies(&secret("a", "a"));
    server.on(Nth::every("list", "secrets"), Fault::forbidden());
    let mut watching = Watching::of(&server);
    watching.until("telling why", |health| health.problem.is_some()).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let health = watching.health.borrow().clone();
    assert!(!health.synced && !health.healthy && health.problem.unwrap().starts_with("403 Forbidden"));
    let tries = server.take_requests().len();
    assert!((55..70).contains(&tries), "{tries}");
    server.heal();
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_or_expires_begins_the_list_anew_and_hands_over_nothing_halfway() {
    let server = FakeApi::new();
    for n in 0..5 {
        server.person_applies(&secret(&format!("s{n}"), "a"));
    }
    server.on(Nth::request(2), Fault::throttled());
    server.before(Nth::request(4), FakeApi::compact);
    let selection = Selection { page_size: 2, ..Selection::default() };
    let mut watching = Watching::start::<Secret>(&server, selection, |_| String::new());
    watching.until_current(&server).await;
    assert_eq!((watching.names().len(), watching.health.borrow().lists), (5, 1));
    let codes: Vec<_> = server.requests().iter().map(|r| r.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(codes[..4], ["200", "429", "200", "410"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_noticed_by_the_deadline() {
    let server = FakeApi::new();
    server.on(Nth::every("list", "secrets").times(1), Fault::Hang);
    let mut watching = Watching::of(&server);
    watching.until("telling why", |health| health.problem.as_deref() == Some("no answer within 5 s")).await;
    watching.until_current(&server).await;

    server.on(Nth::every("watch", "secrets").times(1), Fault::Hang);
    server.end_watches();
    watching.until("unhealthy", |health| !health.healthy).await;
    watching.until_current(&server).await;
}

#[tokio::test(start_paused = true)]
async fn one_object_that_cannot_be_read_does_not_stop_the_rest() {
    let server = FakeApi::new();
    let mut bad = secret("bad", "a");
    bad["data"] = json!({"client_secret": "%%%"});
    server.person_applies(&bad);
    server.person_applies(&secret("good", "a"));
    let door = |guard: DeserializeGuard<Secret>| if guard.0.is_ok() { "ok".to_owned() } else { "bad".to_owned() };
    let mut watching = Watching::start(&server, Selection::default(), door);
    watching.until_current(&server).await;
    assert_eq!(watching.held(), [pair("bad", "bad"), pair("good", "ok")]);

    bad["metadata"]["name"] = json!("worse");
    server.person_applies(&bad);
    server.person_applies(&secret("better", "a"));
    watching.until_current(&server).await;
    assert_eq!(watching.held()[1..], [pair("better", "ok"), pair("good", "ok"), pair("worse", "bad")]);
    assert_eq!(watching.health.borrow().lists, 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_guard_an_event_that_cannot_be_read_is_told_and_not_met_for_ever() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    let mut bad = secret("bad", "a");
    bad["data"] = json!({"client_secret": "%%%"});
    server.person_applies(&bad);
    watching.until("unhealthy", |health| !health.healthy).await;
    let problem = watching.health.borrow().problem.clone().unwrap();
    assert!(!problem.contains("%%%"), "{problem}");
    server.person_edits("secrets", "shop", "bad", |object| object["data"] = Value::Null);
    watching.until_current(&server).await;
    assert_eq!(watching.names(), ["bad"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_restored_from_a_backup_is_believed() {
    let server = FakeApi::new();
    server.person_applies(&secret("kept", "old"));
    let backup = server.backup();
    server.person_applies(&secret("kept", "new"));
    server.person_applies(&secret("lost", "a"));
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    server.restore(&backup);
    watching.until("listed again", |health| health.lists == 2 && health.is_current()).await;
    assert_eq!(watching.held(), [pair("kept", "old")]);
    assert_eq!(watching.health.borrow().seen, server.version());
    server.person_applies(&secret("kept", "newer"));
    watching.until("current", |health| health.seen >= server.version()).await;
    assert_eq!(watching.held(), [pair("kept", "newer")]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_again_and_again_does_not_spin() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    server.take_requests();
    for _ in 0..600 {
        server.end_watches();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let watches = server.requests().len();
    assert!((30..120).contains(&watches), "{watches} watches in a minute");
    assert!(watching.health.borrow().healthy);
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_has_been_applied() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    for n in 0..20 {
        let applied = server.person_applies(&secret("a", &n.to_string()));
        let version: u64 = applied["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        watching.until("seen", |health| health.seen >= version).await;
        assert_eq!(watching.store.lock().unwrap().version(&ObjectName::new("shop", "a")), Some(version));
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_it_at_once_wherever_it_is() {
    let server = FakeApi::new();
    let mut watching = Watching::of(&server);
    watching.until_current(&server).await;
    assert_eq!(server.open_watches(), 1);
    let health = watching.health.clone();
    watching.end().await;
    assert_eq!(server.open_watches(), 0);
    assert!(!health.borrow().healthy);

    server.on(Nth::every_that(|_| true), Fault::Hang);
    let watching = Watching::of(&server);
    tokio::task::yield_now().await;
    watching.end().await;
}
