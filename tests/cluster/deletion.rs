//! The end of a registration, and its coming back: deletion, recreation, orphaning, restore, loss, and a namespace's end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use appreg::api::{ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::harness::eventually_within;
use crate::harness::operator::LEDGER;
use crate::stage::{Application, CONTROLLER, Room, SOON, client_id, conditions, pass_of_a_second, room};

/// How long after a deletion the credentials may still be accepted: 30 s without the owner, and what it takes.
const REFUSED_WITHIN: Duration = Duration::from_secs(35);

fn one_client_secret(display_name: &str) -> Value {
    json!({"displayName": display_name, "credentials": [{"name": "web", "clientSecret": {}}]})
}

async fn registered(room: &Room, name: &str, spec: &Value) -> Application {
    room.apply(name, spec.clone()).await;
    room.ready(name).await;
    room.application(name).await
}

/// Deletes the Secret of a registration that is gone. The garbage collector would: soon, once it has learned of a resource
/// that is new in the cluster; it may also have been faster.
async fn collected(room: &Room, secret: &str) {
    if let Err(error) = room.secrets().delete(secret, &DeleteParams::default()).await {
        assert!(matches!(&error, kube::Error::Api(status) if status.is_not_found()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_deletion_the_client_is_refused_within_35_seconds_and_a_recreation_is_a_new_client() {
    let room = room("deletion").await;
    let plain = one_client_secret("Plain");
    let chosen = {
        let mut spec = one_client_secret("Chosen");
        spec["clientID"] = json!(format!("{}.chosen", room.namespace));
        spec
    };
    let gone = registered(&room, "gone", &plain).await;
    let again = registered(&room, "again", &plain).await;
    let same_id = registered(&room, "same-id", &chosen).await;
    let secret = room.secret("gone").await;
    let created = room.ledger_entry(&same_id.client_id).await.unwrap()["createdAt"].clone();

    pass_of_a_second().await;
    let deleted = Instant::now();
    for name in ["gone", "again", "same-id"] {
        room.delete(name).await;
        // A finalizer would leave it there.
        assert!(room.registrations().get_opt(name).await.unwrap().is_none(), "a deletion waits for nobody");
    }
    for name in ["again", "same-id"] {
        collected(&room, name).await;
    }
    let new = registered(&room, "again", &plain).await;
    assert_ne!(new.client_id, again.client_id, "a new client");
    assert!(new.client_secret != again.client_secret, "with a client secret of its own");
    let taken_over = registered(&room, "same-id", &chosen).await;
    assert_eq!(taken_over.client_id, same_id.client_id, "the chosen ID is taken over");
    assert!(taken_over.client_secret != same_id.client_secret, "and nothing else");
    let answer = taken_over.ask_with(&same_id.client_secret).await;
    assert!(answer.is_refusal(), "at once: {answer:?}");
    room.event("same-id", Reason::TakenOver).await;
    let entry = room.ledger_entry(&same_id.client_id).await.unwrap();
    assert_ne!(entry["createdAt"], created, "tokens from before are inactive");

    for (application, what) in [(&gone, "gone"), (&again, "again")] {
        let left = REFUSED_WITHIN.saturating_sub(deleted.elapsed());
        application.refused_within(left, &application.client_secret, what).await;
        assert!(room.ledger_entry(&application.client_id).await.is_none(), "{what}: its entry is swept");
    }
    assert!(deleted.elapsed() >= Duration::from_secs(29), "not before it was absent for 30 s");
    eventually_within(SOON, "its Secret is collected", async || {
        let left = room.secrets().get_opt("gone").await.unwrap();
        if left.and_then(|left| left.uid()) == secret.uid() { Err("it is there") } else { Ok(()) }
    })
    .await;
    for application in [&new, &taken_over] {
        assert!(application.ask().await.is_token(), "the new ones stay");
    }
    let answer = new.ask_with(&again.client_secret).await;
    assert!(answer.is_refusal(), "the old client secret is none of the new client's: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaned_secret_stays_accepted_and_a_recreation_adopts_it_as_it_is() {
    let room = room("orphan").await;
    let mut spec = one_client_secret("Orphan");
    spec["deletionPolicy"] = json!("Orphan");
    let before = registered(&room, "web", &spec).await;
    let secret = room.secret("web").await;
    assert!(secret.owner_references().is_empty(), "it is not collected");

    // Another one beside it, without that policy: when it is swept, so would this one have been.
    let beside = registered(&room, "beside", &one_client_secret("Beside")).await;
    room.delete("web").await;
    room.delete("beside").await;
    beside.refused_within(REFUSED_WITHIN, &beside.client_secret, "the one beside").await;
    assert!(before.ask().await.is_token(), "still accepted");
    assert!(room.secret("web").await == secret, "the Secret is what it was");
    assert!(room.ledger_entry(&before.client_id).await.is_some());

    adopted(&room, &spec, &before).await;
    // And on under the other policy: from now on it is collected.
    room.apply("web", one_client_secret("Orphan")).await;
    room.secret_until(
        "web",
        "owned",
        |secret| {
            if secret.owner_references().len() == 1 { Ok(()) } else { Err("not owned") }
        },
    )
    .await;
    let after = room.application("web").await;
    assert!(after.has_what(&before), "the same client ID and client secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_adopted_with_client_id_and_client_secret() {
    let room = room("restore").await;
    let spec = one_client_secret("Restored");
    let before = registered(&room, "web", &spec).await;
    let backup = room.secret("web").await;
    room.delete("web").await;
    collected(&room, "web").await;
    // As a backup tool restores: without uid, resourceVersion and ownerReferences, Secrets before custom resources.
    let mut restored = Secret { metadata: ObjectMeta::default(), ..backup.clone() };
    restored.metadata.name = backup.metadata.name.clone();
    restored.metadata.labels = backup.metadata.labels.clone();
    restored.metadata.annotations = backup.metadata.annotations.clone();
    room.secrets().create(&PostParams::default(), &restored).await.unwrap();
    adopted(&room, &spec, &before).await;
    room.secret_until(
        "web",
        "owned",
        |secret| {
            if secret.owner_references().len() == 1 { Ok(()) } else { Err("not owned") }
        },
    )
    .await;
    // Its former owner is gone for good; nobody sweeps what has a new one.
    tokio::time::sleep(REFUSED_WITHIN).await;
    assert!(before.ask().await.is_token());
}

/// Applies a registration again, and asserts that it has the client that it had.
async fn adopted(room: &Room, spec: &Value, before: &Application) {
    let data = room.secret("web").await.data;
    let applied = room.apply("web", spec.clone()).await;
    let registration = room.ready("web").await;
    assert_eq!(registration.uid(), applied.uid());
    assert_eq!(client_id(&registration), before.client_id, "the client ID of before, not the new uid");
    assert_ne!(registration.uid(), Some(before.client_id.clone()));
    let after = room.secret("web").await;
    assert!(after.data == data, "nothing was minted");
    assert_eq!(after.labels()["appreg.dev/registration-uid"], registration.uid().unwrap());
    let entry = room.ledger_entry(&before.client_id).await.unwrap();
    assert_eq!(entry["owner"]["uid"], registration.uid().unwrap().as_str());
    assert_eq!(entry["credentials"]["web"]["nextRevision"], 2);
    assert!(before.ask().await.is_token());
    room.event("web", Reason::Adopted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_ledger_entry_is_lost_nothing_in_a_secret_is_trusted() {
    let room = room("lost").await;
    let spec = one_client_secret("Lost");
    let before = registered(&room, "web", &spec).await;
    let ledger: Api<Secret> = Api::namespaced(room.client.clone(), LEDGER);
    let entry = appreg::ledger::name("default", &before.client_id);
    ledger.delete(&entry, &DeleteParams::default()).await.unwrap();
    let new = room.another_client_secret("web", &before.client_secret).await;
    assert_eq!(client_id(&room.ready("web").await), before.client_id, "the client ID is what it was");
    before.accepted(&new, "the new one").await;
    let answer = before.ask().await;
    assert!(answer.is_refusal(), "what the ledger does not know is not accepted: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_without_a_hot_loop() {
    let room = room("ending").await;
    let names: Vec<_> = (0..5).map(|number| format!("app-{number}")).collect();
    for name in &names {
        room.apply(name, json!({"displayName": name})).await;
    }
    let mut ids = Vec::new();
    for name in &names {
        ids.push(client_id(&room.ready(name).await));
    }
    let audit = room.stage.plane.audit();
    let mark = audit.mark().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(room.client.clone());
    namespaces.delete(&room.namespace, &DeleteParams::default()).await.unwrap();
    eventually_within(SOON, "the namespace is gone", async || {
        match namespaces.get_opt(&room.namespace).await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(serde_json::to_string(&namespace.status).unwrap_or_default()),
        }
    })
    .await;
    eventually_within(REFUSED_WITHIN + SOON, "the ledger entries are swept", async || {
        for id in &ids {
            if room.ledger_entry(id).await.is_some() {
                return Err(id.clone());
            }
        }
        Ok(())
    })
    .await;
    let entries: Vec<_> = ids.iter().map(|id| appreg::ledger::name("default", id)).collect();
    let mut requests = audit.of_since(CONTROLLER, mark).await.unwrap();
    requests.retain(|request| request.namespace == room.namespace || entries.contains(&request.name));
    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.group != "events.k8s.io") {
        *attempts.entry(format!("{} {} {}", request.action(), request.name, request.code)).or_default() += 1;
    }
    // Two Secrets go, each with an event, a pass and a report.
    let most = attempts.values().max().copied().unwrap_or_default();
    assert!(most <= 3, "at most three attempts of a kind for each object: {attempts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_namespace_waits_for_its_pods_credentials_are_rotated_and_no_secret_is_made() {
    let room = room("draining").await;
    let credentials = json!([{"name": "web", "clientSecret": {}}, {"name": "api", "accessToken": {}}]);
    let before = registered(&room, "app", &json!({"displayName": "Draining", "credentials": credentials})).await;
    let pods: Api<Pod> = Api::namespaced(room.client.clone(), &room.namespace);
    let pod = json!({
        "metadata": {"name": "application", "finalizers": ["example.com/requests-under-way"]},
        "spec": {"containers": [{"name": "application", "image": "application"}]},
    });
    // Its ServiceAccount is made by a controller.
    eventually_within(SOON, "a pod", async || {
        let pod = serde_json::from_value(pod.clone()).unwrap();
        pods.create(&PostParams::default(), &pod).await.map_err(|error| error.to_string())
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(room.client.clone());
    namespaces.delete(&room.namespace, &DeleteParams::default()).await.unwrap();

    // The pod goes on, and so does what it holds.
    pass_of_a_second().await;
    room.annotate("app", json!({"appreg.dev/rotate-minted-before": Timestamp::now().to_string()})).await;
    let new = room.another_client_secret("app", &before.client_secret).await;
    before.accepted(&new, "the new one").await;
    before.accepted(&before.client_secret, "the old one").await;

    // What is deleted now cannot be made again: that is said, and not tried with every change.
    room.secrets().delete("app", &DeleteParams::default()).await.unwrap();
    room.says("app", ConditionType::Reconciling, Reason::NamespaceTerminating).await;
    let audit = room.stage.plane.audit();
    let mark = audit.mark().await.unwrap();
    for number in 0..6 {
        let named = json!({"displayName": format!("Draining {number}"), "credentials": credentials});
        let generation = room.apply("app", named).await.metadata.generation;
        room.until("app", "seen", |registration| {
            let seen = registration.status.as_ref().and_then(|status| status.observed_generation);
            if seen == generation { Ok(()) } else { Err(conditions(registration)) }
        })
        .await;
    }
    let entry = appreg::ledger::name("default", &before.client_id);
    let mut requests = audit.of_since(CONTROLLER, mark).await.unwrap();
    requests.retain(|request| request.namespace == room.namespace || request.name == entry);
    // The Event of what was said above may come as late as this.
    requests.retain(|request| request.group != "events.k8s.io");
    let others: Vec<_> = requests.iter().filter(|request| request.subresource != "status").collect();
    assert!(others.is_empty(), "six reports and nothing else: {others:#?}");
    assert_eq!(requests.len(), 6);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("application", &PatchParams::default(), &free).await.unwrap();
}
