//! Two controllers at once, without an election: of no use, and harmless.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::json;

use crate::harness::{
    ControlPlane, Observer, Operator, Proxy, Request, eventually,
    eventually::holds,
    eventually_within,
    operator::LEDGER,
    registrations::{change, create, settled},
};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
const REGISTRATIONS: usize = 30;
const SOON: Duration = Duration::from_mins(2);
/// How long nothing must be written; twice as long in the end.
const QUIET: Duration = Duration::from_secs(5);
/// What one controller writes for one registration, in a first mint and in a rotation: ledger, two Secrets, status.
const WRITES: usize = 4;
/// By how much two may write more than one, retries of what the other was faster with included. Seen: 1.5 times as much.
const MOST: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_at_once_publish_one_value_per_revision_and_come_to_rest() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client("admin");
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let [one, other] = [Proxy::start(&plane).await.unwrap(), Proxy::start(&plane).await.unwrap()];
    // Started together: they make keys and certificate authority at the same time, too.
    let controllers =
        [operator.start_controller(&one).await.unwrap(), operator.start_controller(&other).await.unwrap()];
    for controller in &controllers {
        controller.ready().await.unwrap();
    }
    let _token_service = operator.token_service(&plane).await.unwrap();
    let observer = Observer::start(&plane).await.unwrap();
    let namespace = plane.namespace("shop").await.unwrap();
    one.forget();
    other.forget();
    let names: Vec<String> = (0..REGISTRATIONS).map(|n| format!("app-{n:02}")).collect();
    let spec = json!({"displayName": "App"});

    let started = Instant::now();
    let all = names.iter().map(|name| create(&client, &namespace, name, &spec));
    futures::future::try_join_all(all).await.unwrap();
    all_settled(&client, &namespace, &names, Timestamp::MIN).await;
    let minted = quiet([&one, &other], QUIET).await;
    println!("minted within {:?}: {}", started.elapsed().saturating_sub(QUIET), minted.summary());
    assert!(minted.writes() <= MOST * WRITES * REGISTRATIONS, "{}", minted.summary());

    for (field, pause) in [("rotateMintedBefore", QUIET), ("revokeMintedBefore", 2 * QUIET)] {
        let mark = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        let started = Instant::now();
        if field == "revokeMintedBefore" {
            observer.revoking(&namespace, "default");
        }
        let spec = json!({field: mark.to_string()});
        let all = names.iter().map(|name| change(&client, &namespace, name, &spec));
        futures::future::try_join_all(all).await.unwrap();
        all_settled(&client, &namespace, &names, mark).await;
        let asked = quiet([&one, &other], pause).await;
        println!("{field} within {:?}: {}", started.elapsed().saturating_sub(pause), asked.summary());
        assert!(asked.writes() <= MOST * WRITES * REGISTRATIONS, "{}", asked.summary());
    }
    eventually("what was revoked is refused", async || {
        let left = observer.not_yet_refused();
        holds(left.is_empty(), || left.join(", "))
    })
    .await;
    println!("{}", observer.summary());
    let published = observer.published(&namespace, "default");
    assert_eq!(published.len(), 3 * REGISTRATIONS, "each was replaced exactly twice: {published:?}");
    observer.assert_no_violation();
    let failed = controllers.map(|controller| controller.process.log().matches("a pass failed").count());
    println!("passes that failed: {failed:?}");
}

/// Waits until every registration is Ready with values that were minted at `since` or later.
async fn all_settled(client: &kube::Client, namespace: &str, names: &[String], since: Timestamp) {
    let mut left: BTreeSet<_> = names.iter().collect();
    eventually_within(SOON, "every registration is Ready", async || {
        for name in left.clone() {
            let registration = settled(client, namespace, name).await?;
            let credentials = registration["status"]["credentials"].as_array().cloned().unwrap_or_default();
            let minted = |credential: &serde_json::Value| {
                let text = credential["current"]["mintedTime"].as_str()?;
                text.parse::<Timestamp>().ok()
            };
            let is_new = credentials.iter().all(|c| c["kind"] == "AccessToken" || minted(c) >= Some(since));
            anyhow::ensure!(is_new, "{name} is not rotated");
            left.remove(name);
        }
        Ok(())
    })
    .await;
}

/// What two controllers asked for.
struct Asked {
    writes: [Vec<Request>; 2],
    reads: [usize; 2],
}

impl Asked {
    fn writes(&self) -> usize {
        self.writes.iter().map(Vec::len).sum()
    }

    fn summary(&self) -> String {
        let of = |status: u16| self.writes.iter().flatten().filter(|r| r.status == Some(status)).count();
        let in_ledger = self.writes.iter().flatten().filter(|r| r.path.contains(LEDGER)).count();
        let is_status = |r: &&Request| r.path.ends_with("/status");
        let status = self.writes.iter().flatten().filter(is_status).count();
        format!(
            "{} and {} writes ({in_ledger} of the ledger, {status} of a status), {} of them refused as stale; {:?} live \
             reads; one controller alone: {}",
            self.writes[0].len(),
            self.writes[1].len(),
            of(409),
            self.reads,
            WRITES * REGISTRATIONS
        )
    }
}

/// Waits until nothing has been written for so long, and returns what was asked from the last time on. Events do not count.
async fn quiet(proxies: [&Proxy; 2], pause: Duration) -> Asked {
    let writes = |proxy: &Proxy| -> Vec<Request> {
        proxy.writes().into_iter().filter(|request| !request.path.contains("/events")).collect()
    };
    let count = || proxies.iter().map(|proxy| writes(proxy).len()).sum::<usize>();
    let mut last = (count(), Instant::now());
    eventually_within(SOON, "both controllers rest", async || {
        if count() != last.0 {
            last = (count(), Instant::now());
        }
        holds(last.1.elapsed() >= pause, || {
            let tail: Vec<_> =
                proxies.iter().flat_map(|p| writes(p).into_iter().rev().take(5)).map(|r| r.to_string()).collect();
            format!("{} writes, the last\n{}", last.0, tail.join("\n"))
        })
    })
    .await;
    let reads = proxies.map(|proxy| {
        let is_read = |r: &&Request| r.method == http::Method::GET && !r.name().is_empty();
        proxy.requests().iter().filter(is_read).count()
    });
    let asked = Asked { writes: proxies.map(writes), reads };
    for proxy in &proxies {
        proxy.forget();
    }
    asked
}
