//! What everything costs, in requests, exactly: by the API server's own audit log. It waits for a quiet minute, so its
//! name lets it begin among the first.

use std::time::Duration;

use appreg::shared_lists::NAMES;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::applied::{
    self, BINARY, asked, audited, controller_user, create, fields, in_order, registrations, secrets, until,
};
use crate::harness::operator::LEDGER;
use crate::harness::operator::Running;
use crate::harness::{AuditEvent, ControlPlane, Mark, Operator, eventually, eventually_within, permissive};
use crate::stage::pass_of_a_second;

/// How long nothing may follow after the last request of a pass. Whatever a pass causes by its own writes, the watches
/// bring back within milliseconds.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// One client secret.
const WEB: &str = r#"{"credentials": [{"name": "web", "clientSecret": {}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_life_of_a_registration_costs_exactly_its_requests() {
    let plane = audited().await;
    let mut operator = Operator::install(&plane, BINARY, &["policy.durations.accessToken.min=5s"]).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    let shop = shop.as_str();
    let cost = Cost { plane: &plane, shop };

    let controller = first_start(&mut operator, &cost).await;

    // A new client secret: the ledger, the Secret, the report; nothing is read.
    let mark = cost.mark().await;
    create(&plane, shop, "one", serde_json::from_str(WEB).unwrap()).await;
    in_order(&plane, shop, "one").await;
    assert_eq!(
        cost.since(mark).await,
        ["create secrets in the ledger", "create secrets", "update appregistrations/status"]
    );

    // A name alone: a client secret and an access token, each in its Secret.
    let mark = cost.mark().await;
    create(&plane, shop, "two", json!({})).await;
    in_order(&plane, shop, "two").await;
    assert_eq!(
        cost.since(mark).await,
        ["create secrets in the ledger", "create secrets", "create secrets", "update appregistrations/status"]
    );

    // A rotation: one GET more, and one Event that nobody waits for.
    let before = in_order(&plane, shop, "one").await;
    let mark = cost.mark().await;
    let change = json!({"spec": {"rotateMintedBefore": a_second_ago()}});
    applied::change(&plane, shop, "one", change).await;
    until(&plane, (shop, "one"), "is rotated", |now| {
        now.status.as_ref().is_some_and(|s| s.credentials[0].current.as_ref().is_some_and(|c| c.revision == 2))
    })
    .await;
    assert_ne!(before.resource_version(), None);
    let mut requests = cost.since(mark).await;
    let events = requests.extract_if(.., |request| request == "create events").count();
    assert_eq!(
        requests,
        ["get secrets", "update secrets in the ledger", "update secrets", "update appregistrations/status"]
    );
    assert_eq!(events, 1);

    // A token's refresh: the Secret, and nothing else.
    let token = json!([{"name": "api", "effectiveDuration": "15s", "accessToken": {}}]);
    create(&plane, shop, "three", json!({"credentials": token})).await;
    in_order(&plane, shop, "three").await;
    let first = expires_at(&plane, shop).await;
    let mark = cost.mark().await;
    eventually("the access token is refreshed", async || {
        if expires_at(&plane, shop).await == first { Err("it is the first one still") } else { Ok(()) }
    })
    .await;
    assert_eq!(cost.within(mark, Duration::from_secs(1)).await, ["update secrets"]);

    // The end: who the owner was, whether its kind is still there, and away with the entry.
    registrations(&plane, shop).delete("three", &DeleteParams::default()).await.unwrap();
    registrations(&plane, shop).delete("two", &DeleteParams::default()).await.unwrap();
    let deleted = registrations(&plane, shop).get_opt("two").await.unwrap();
    assert!(deleted.is_none(), "no finalizer holds it");
    let mark = cost.mark().await;
    let ledger = secrets(&plane, LEDGER);
    let two = format!("{shop}/two");
    eventually_within(Duration::from_mins(1), "the ledger entries of what was deleted are swept", async || {
        let all = ledger.list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
        let left = all.iter().filter(|secret| secret.type_.as_deref() == Some("appreg.dev/ledger")).count();
        if left == 1 { Ok(()) } else { Err(format!("{left} entries; {two}")) }
    })
    .await;
    let one = ["get appregistrations", "get customresourcedefinitions", "delete secrets in the ledger"];
    let requests: Vec<_> = cost.since(mark).await.iter().map(|request| request.replace(" (404)", "")).collect();
    assert_eq!(requests, [one, one].concat(), "{}", controller.process.log_tail(30));
}

/// The first start: keys, certificates and the lists that token services share, each made after a live 404.
async fn first_start(operator: &mut Operator<'_>, cost: &Cost<'_>) -> Running {
    let mark = cost.mark().await;
    let controller = operator.controller(cost.plane).await.unwrap();
    let requests = cost.since(mark).await;
    let count = |what: &str| requests.iter().filter(|request| *request == what).count();
    let made = [
        ("get secrets in the ledger (404)", 3 + NAMES.len()),
        ("create secrets in the ledger", 3 + NAMES.len()),
        ("get secrets in the controller's namespace (404)", 1),
        ("create secrets in the controller's namespace", 1),
        ("get customresourcedefinitions", 1),
    ];
    for (what, times) in made {
        assert_eq!(count(what), times, "{what}: {requests:#?}");
    }
    let lists = requests.iter().filter(|request| request.starts_with("list ")).count();
    let all: usize = made.iter().map(|(_, times)| times).sum();
    assert_eq!((lists, requests.len()), (8, 8 + all), "{requests:#?}");
    controller
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_registrations_at_rest_cost_nothing_and_a_restart_costs_lists() {
    const MANY: usize = 200;
    let plane = audited().await;
    let mut operator = Operator::install(&plane, BINARY, &permissive(&[])).await.unwrap();
    let shop = plane.namespace("shop").await.unwrap();
    let shop = shop.as_str();
    for number in 0..MANY {
        let spec = if number % 4 == 0 { json!({}) } else { serde_json::from_str(WEB).unwrap() };
        create(&plane, shop, &format!("app-{number:03}"), spec).await;
    }
    let cost = Cost { plane: &plane, shop };
    let controller = operator.controller(&plane).await.unwrap();
    all_in_order(&plane, shop, MANY).await;

    // Tokens that are newer than the last report on them.
    let mark = cost.mark().await;
    let watermark = pass_of_a_second().await;
    for number in (0..MANY).step_by(8) {
        let marks = json!({"metadata": {"annotations": {
            "appreg.dev/rotate-minted-before": format!("token={watermark}"),
        }}});
        applied::change(&plane, shop, &format!("app-{number:03}"), marks).await;
    }
    let refreshed = MANY.div_ceil(8);
    eventually("the tokens are signed anew", async || {
        let requests = cost.soon(mark).await;
        let done = requests.iter().filter(|request| *request == "update secrets").count();
        if done == refreshed { Ok(()) } else { Err(format!("{requests:?}")) }
    })
    .await;
    let mut requests = cost.since(mark).await;
    requests.retain(|request| request != "create events");
    assert_eq!(requests, vec!["update secrets"; refreshed]);

    let mark = cost.mark().await;
    assert_eq!(cost.within(mark, Duration::from_mins(1)).await, [""; 0], "a quiet minute");

    controller.process.terminate(Duration::from_secs(15)).await.unwrap();
    let mark = cost.mark().await;
    let _controller = operator.controller(&plane).await.unwrap();
    let requests = cost.since(mark).await;
    assert_eq!(
        sorted(requests),
        [
            "list appregistrations",
            "list authorizationservers",
            "list namespaces",
            "list registrationapprovals",
            "list registrationpolicies",
            "list secrets",
            "list secrets in the controller's namespace",
            "list secrets in the ledger"
        ]
    );
    let events = plane.audit().of_since(&controller_user(), mark).await.unwrap();
    let watches = events.iter().filter(|event| event.verb == "watch").count();
    assert_eq!(watches, 8, "{:?}", asked(&events));
}

/// Counts the controller's requests.
struct Cost<'a> {
    plane: &'a ControlPlane,
    shop: &'a str,
}

impl Cost<'_> {
    async fn mark(&self) -> Mark {
        self.plane.audit().mark().await.unwrap()
    }

    /// The requests since then, and those that follow from them.
    async fn since(&self, mark: Mark) -> Vec<String> {
        self.within(mark, AFTERWARDS).await
    }

    async fn within(&self, mark: Mark, duration: Duration) -> Vec<String> {
        tokio::time::sleep(duration).await;
        self.soon(mark).await
    }

    async fn soon(&self, mark: Mark) -> Vec<String> {
        let events: Vec<AuditEvent> = self.plane.audit().of_since(&controller_user(), mark).await.unwrap();
        let places = [
            (self.shop, ""),
            (LEDGER, " in the ledger"),
            (crate::harness::operator::NAMESPACE, " in the controller's namespace"),
        ];
        let plain = |request: String| {
            places.iter().fold(request, |text, (name, said)| text.replace(&format!(" in {name}"), said))
        };
        asked(&events).into_iter().map(plain).collect()
    }
}

async fn all_in_order(plane: &ControlPlane, namespace: &str, count: usize) {
    let api = registrations(plane, namespace);
    eventually_within(Duration::from_secs(90), "all are in order", async || {
        let all = api.list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
        let done = all.iter().filter(|registration| applied::is_in_order(registration)).count();
        if done == count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
}

async fn expires_at(plane: &ControlPlane, namespace: &str) -> String {
    let secret = secrets(plane, namespace).get("three-token").await.unwrap();
    fields(&secret)["expires_at"].clone()
}

/// A watermark that applies to everything that is older than a second.
fn a_second_ago() -> String {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now - 1).unwrap().to_string()
}

fn sorted(mut requests: Vec<String>) -> Vec<String> {
    requests.sort();
    requests
}
