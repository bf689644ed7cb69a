//! Two who want the same: nothing of another's is ever touched, one wins, the other says so, and then it is quiet.

use std::time::Duration;

use appreg::api::{ConditionType, Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::harness::eventually_within;
use crate::stage::{CONTROLLER, Room, SOON, client_id, condition, conditions, room, text};

/// How long nothing may happen for it to count as quiet.
const QUIET: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_of_the_same_name_is_never_touched_and_the_registration_says_so() {
    let room = room("conflict").await;
    // A plain one; one that carries our labels but another registration's name; one that another object controls.
    let marks = json!({
        "labels": {"app.kubernetes.io/managed-by": "appreg"},
        "annotations": {"appreg.dev/registration": format!("{}/somebody-else", room.namespace)},
    });
    let config_map = owner(&room).await;
    let owned = json!({
        "labels": {"app.kubernetes.io/managed-by": "appreg"},
        "annotations": {"appreg.dev/registration": format!("{}/owned", room.namespace)},
        "ownerReferences": [config_map],
    });
    let mut foreign = Vec::new();
    for (name, metadata) in [("plain", json!({})), ("marked", marks), ("owned", owned), ("token-of-token", json!({}))] {
        let secret_name = if name == "token-of-token" { "token-of-token-token" } else { name };
        foreign.push(create_secret(&room, secret_name, metadata).await);
        room.apply(name, json!({"displayName": name})).await;
    }
    for (name, secret) in ["plain", "marked", "owned", "token-of-token"].iter().zip(&foreign) {
        let message = room.stalled(name, Reason::SecretConflict).await;
        assert!(message.contains(&format!("the Secret {} exists", secret.name_any())), "{message}");
        assert!(message.contains("secretName"), "{message} names the field");
        room.event(name, Reason::SecretConflict).await;
        let registration = room.registrations().get(name).await.unwrap();
        let ready = condition(&registration, ConditionType::Ready).unwrap();
        assert_eq!(ready.status, "False", "{name}: {}", conditions(&registration));
    }
    // What is not in the way is served all the same.
    let application = room.application("token-of-token").await;
    assert!(application.ask().await.is_token());

    is_quiet(&[&room], &[]).await;
    for secret in &foreign {
        assert!(room.secret(&secret.name_any()).await == *secret, "it is what it was, to the resourceVersion");
    }

    for (name, secret) in ["plain", "marked", "owned", "token-of-token"].iter().zip(&foreign) {
        room.secrets().delete(&secret.name_any(), &DeleteParams::default()).await.unwrap();
        room.annotate(name, json!({"example.com/look": "again"})).await;
        let registration = room.ready(name).await;
        assert_eq!(Some(client_id(&registration)), registration.metadata.uid);
        assert!(room.application(name).await.ask().await.is_token());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registrations_that_want_one_secret_one_wins_and_the_other_waits_without_a_fight() {
    let room = room("one-secret").await;
    let spec = |name: &str| {
        let credentials = json!([{"name": "web", "secretName": "shared", "clientSecret": {}}]);
        json!({"displayName": name, "credentials": credentials})
    };
    tokio::join!(room.apply("alpha", spec("alpha")), room.apply("omega", spec("omega")));
    let (winner, loser) = settled(&room, &room, Reason::SecretConflict).await;
    let message = room.stalled(loser, Reason::SecretConflict).await;
    assert!(message.contains("the Secret shared exists"), "{message}");
    assert!(!message.contains(winner), "{message}");
    let before = room.secret("shared").await;
    let won = room.application("shared").await;
    assert_eq!(won.client_id, client_id(&room.registrations().get(winner).await.unwrap()));

    is_quiet(&[&room], &[]).await;
    assert!(room.secret("shared").await == before, "the Secret is what it was");
    assert!(won.ask().await.is_token());

    room.delete(winner).await;
    eventually_within(SOON, "the Secret is collected", async || {
        match room.secrets().get_opt("shared").await.unwrap() {
            Some(secret) if secret.uid() == before.uid() => Err("it is there"),
            _ => Ok(()),
        }
    })
    .await;
    room.annotate(loser, json!({"example.com/look": "again"})).await;
    let registration = room.ready(loser).await;
    let second = room.application("shared").await;
    assert_eq!(second.client_id, client_id(&registration));
    assert!(second.ask().await.is_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registrations_that_want_one_client_id_one_wins_and_the_other_gets_it_when_the_first_is_gone() {
    let (left, right) = (room("left").await, room("right").await);
    let suffix = left.namespace.rsplit('-').next().unwrap().to_owned();
    let id = format!("contested.{suffix}");
    let spec =
        json!({"displayName": "Contested", "clientID": id, "credentials": [{"name": "web", "clientSecret": {}}]});
    tokio::join!(left.apply("alpha", spec.clone()), right.apply("omega", spec.clone()));
    let (winner, loser) = settled(&left, &right, Reason::ClientIDTaken).await;
    let rooms = |name: &str| if name == "alpha" { &left } else { &right };
    let (won, lost) = (rooms(winner), rooms(loser));

    let message = lost.stalled(loser, Reason::ClientIDTaken).await;
    assert!(message.contains("spec.clientID") && message.contains(&id), "{message}");
    assert!(!message.contains(&won.namespace) && !message.contains(winner), "{message} names nobody");
    lost.event(loser, Reason::ClientIDTaken).await;
    let registration = lost.registrations().get(loser).await.unwrap();
    let text = serde_json::to_string(&registration.status).unwrap();
    assert!(!text.contains(&won.namespace), "nor does the status");
    assert_eq!(condition(&registration, ConditionType::Ready).unwrap().status, "False");
    assert!(lost.secrets().get_opt(loser).await.unwrap().is_none(), "nothing is published");
    let first = won.application(winner).await;
    assert_eq!(first.client_id, id);

    let entry = appreg::ledger::name("default", &id);
    is_quiet(&[&left, &right], &[&entry]).await;
    assert!(first.ask().await.is_token());

    won.delete(winner).await;
    let registration = eventually_within(Duration::from_secs(45) + SOON, "the other one is ready", async || {
        let registration = lost.registrations().get(loser).await.unwrap();
        let ready = condition(&registration, ConditionType::Ready).is_some_and(|c| c.status == "True");
        if ready { Ok(registration) } else { Err(conditions(&registration)) }
    })
    .await;
    assert_eq!(client_id(&registration), id);
    let second = lost.application(loser).await;
    assert!(second.ask().await.is_token());
    let answer = second.ask_with(&first.client_secret).await;
    assert!(answer.is_refusal(), "what the first one had is worth nothing now: {answer:?}");
}

/// Waits until one of the registrations `one` and `two` is ready and the other one stalled; who won, who lost.
async fn settled(one: &Room, two: &Room, reason: Reason) -> (&'static str, &'static str) {
    eventually_within(SOON, "one is ready and the other one stalled", async || {
        let one = one.registrations().get("alpha").await.unwrap();
        let two = two.registrations().get("omega").await.unwrap();
        let ready = |registration| condition(registration, ConditionType::Ready).is_some_and(|c| c.status == "True");
        let stalled =
            |registration| condition(registration, ConditionType::Stalled).is_some_and(|c| c.reason == reason.as_str());
        match (ready(&one), stalled(&one), ready(&two), stalled(&two)) {
            (true, false, false, true) => Ok(("alpha", "omega")),
            (false, true, true, false) => Ok(("omega", "alpha")),
            _ => Err(format!("one: {}; two: {}", conditions(&one), conditions(&two))),
        }
    })
    .await
}

/// For ten seconds the controller neither writes anything in these namespaces or to these ledger entries nor asks for
/// it, and looks at none of their registrations. The Events that were waiting may be sent first.
async fn is_quiet(rooms: &[&Room], entries: &[&str]) {
    let stage = rooms[0].stage;
    let audit = stage.plane.audit();
    let requests = async |mark| {
        let mut requests = audit.of_since(CONTROLLER, mark).await.unwrap();
        let is_here = |namespace: &str| rooms.iter().any(|room| room.namespace == namespace);
        requests.retain(|request| is_here(&request.namespace) || entries.contains(&request.name.as_str()));
        requests
    };
    let decisions = || {
        let log = stage.controller_log();
        let is_here = |line: &&str| rooms.iter().any(|room| line.contains(&format!("{}/", room.namespace)));
        log.lines().filter(is_here).count()
    };
    eventually_within(SOON, "two quiet seconds", async || {
        let mark = audit.mark().await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if requests(mark).await.is_empty() { Ok(()) } else { Err("requests") }
    })
    .await;
    let (mark, before) = (audit.mark().await.unwrap(), decisions());
    tokio::time::sleep(QUIET).await;
    assert_eq!(requests(mark).await, [], "no request in {QUIET:?}");
    assert_eq!(decisions(), before, "no line in the log in {QUIET:?}");
}

async fn create_secret(room: &Room, name: &str, mut metadata: Value) -> Secret {
    metadata["name"] = json!(name);
    let object = json!({"metadata": metadata, "stringData": {"client_secret": "somebody-else's", "own": "field"}});
    let secret: Secret = serde_json::from_value(object).unwrap();
    let created = room.secrets().create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(text(&created, "own").as_deref(), Some("field"));
    created
}

/// An object that can own others, as an ownerReference.
async fn owner(room: &Room) -> Value {
    let api: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(room.client.clone(), &room.namespace);
    let map = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let map = api.create(&PostParams::default(), &map).await.unwrap();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": map.uid(), "controller": true})
}
