//! Who waits for which live read: an API server that answers when the test says so.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use appreg::clock::ManualClock;
use appreg::token_service::follow::{Follower, Served};
use appreg::token_service::live::LiveReader;
use appreg::token_service::metrics::{LiveRead, Metrics};
use http::{Request, Response};
use kube::client::Body;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use super::{Entry, NAMESPACE, NOW};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the API server holds, and its gate.
struct Gated {
    reader: Arc<LiveReader>,
    served: Served,
    metrics: Metrics,
    stored: Arc<Mutex<String>>,
    asked: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Gated {
    fn new() -> Self {
        let (stored, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(Semaphore::new(0)));
        let answers = Arc::new(Semaphore::new(0));
        let (world, arrivals, gate) = (stored.clone(), asked.clone(), answers.clone());
        let server = tower::service_fn(move |_: Request<Body>| {
            let (answer, arrivals, gate) = (world.lock().unwrap().clone(), arrivals.clone(), gate.clone());
            async move {
                arrivals.add_permits(1);
                gate.acquire().await.unwrap().forget();
                Ok::<_, std::io::Error>(Response::new(Body::from(answer.into_bytes())))
            }
        });
        let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
        let served = Served::nothing("default");
        let follower = Arc::new(Follower::new(served.clone(), clock.clone(), &mut Registry::default()));
        let metrics = Metrics::default();
        let client = kube::Client::new(server, NAMESPACE);
        let reader = Arc::new(LiveReader::new(client, NAMESPACE, follower, clock, metrics.clone()));
        Self { reader, served, metrics, stored, asked, answers }
    }

    fn stores(&self, version: u64, entry: &Entry) {
        let mut secret = entry.secret();
        secret["metadata"]["resourceVersion"] = version.to_string().into();
        *self.stored.lock().unwrap() = secret.to_string();
    }

    /// Somebody who waits until the scope is the one expected, or their read has ended.
    fn waits_for(&self, waiting: &mut JoinSet<()>, scope: &'static str) {
        let (reader, directory) = (self.reader.clone(), self.served.directory.clone());
        waiting.spawn(async move {
            let settled = || directory.client("default", "shop.a").is_some_and(|client| &*client.scope == scope);
            reader.read(("default", "shop.a"), ADDRESS, settled).await;
            assert!(settled(), "{:?}", directory.client("default", "shop.a"));
        });
    }
}

#[tokio::test]
async fn who_asks_while_a_read_is_under_way_waits_for_one_that_began_later_and_shares_it() {
    let api = Gated::new();
    let mut waiting = JoinSet::new();
    api.stores(1, &Entry::new("shop.a").granted("scopes", &["old"]));
    api.waits_for(&mut waiting, "old");
    api.asked.acquire().await.unwrap().forget();
    // The first read has its answer already: what is published now is not in it.
    api.stores(2, &Entry::new("shop.a").granted("scopes", &["new"]));
    for _ in 0..5 {
        api.waits_for(&mut waiting, "new");
    }
    for _ in 0..50 {
        yield_now().await;
    }
    assert_eq!(api.asked.available_permits(), 0, "one read at a time");
    api.answers.add_permits(1);
    api.asked.acquire().await.unwrap().forget();
    api.answers.add_permits(1);
    while let Some(waited) = waiting.join_next().await {
        waited.unwrap();
    }
    assert_eq!(api.asked.available_permits(), 0, "two reads for six");
    assert_eq!(api.metrics.live_reads(LiveRead::Newer), 2);
}

#[tokio::test]
async fn who_is_settled_by_the_read_under_way_needs_no_other() {
    let api = Gated::new();
    let mut waiting = JoinSet::new();
    api.stores(1, &Entry::new("shop.a").granted("scopes", &["old"]));
    api.waits_for(&mut waiting, "old");
    api.asked.acquire().await.unwrap().forget();
    api.waits_for(&mut waiting, "old");
    for _ in 0..50 {
        yield_now().await;
    }
    api.answers.add_permits(1);
    while let Some(waited) = waiting.join_next().await {
        waited.unwrap();
    }
    assert_eq!(api.metrics.live_reads(LiveRead::Newer), 1);
}

#[tokio::test]
async fn a_read_goes_on_when_nobody_waits_any_more() {
    let api = Gated::new();
    let mut waiting = JoinSet::new();
    api.stores(1, &Entry::new("shop.a").granted("scopes", &["old"]));
    api.waits_for(&mut waiting, "old");
    api.asked.acquire().await.unwrap().forget();
    waiting.shutdown().await;
    api.answers.add_permits(1);
    while api.metrics.live_reads(LiveRead::Newer) == 0 {
        yield_now().await;
    }
    assert_eq!(api.served.directory.client("default", "shop.a").unwrap().scope.as_ref(), "old");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_given_up_after_two_seconds() {
    let api = Gated::new();
    let start = tokio::time::Instant::now();
    let outcome = api.reader.read(("default", "shop.a"), ADDRESS, || false).await;
    assert!(!outcome.is_certain());
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(api.metrics.live_reads(LiveRead::Failed), 1);
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_take_the_reads_of_all() {
    let api = Gated::new();
    api.answers.add_permits(100);
    api.stores(1, &Entry::new("shop.a"));
    let read = async |name: u32, address: IpAddr| {
        api.reader.read(("default", &name.to_string()), address, || false).await.is_certain()
    };
    let mut found = 0;
    for name in 0..100 {
        found += usize::from(read(name, ADDRESS).await);
    }
    assert_eq!(found, 10);
    for name in 100..110 {
        assert!(read(name, IpAddr::from([192, 0, 2, 1])).await, "another address");
    }
    assert!(!read(110, IpAddr::from([192, 0, 2, 2])).await, "twenty in all");
}
