//! The observer itself is tried: nobody else would notice if it saw nothing.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, Observer, Operator, eventually,
    eventually::holds,
    operator::LEDGER,
    registrations::{create, settle},
};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_observer_tells_every_kind_of_violation_and_shows_no_value() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client("admin");
    let mut operator = Operator::install(&plane, BINARY, &["policy.durations.clientSecret.min=5s"]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    let observer = Observer::start(&plane).await.unwrap();
    let namespace = plane.namespace("shop").await.unwrap();
    let spec = json!({"displayName": "Storefront", "credentials": [
        {"name": "web", "effectiveDuration": "12s", "clientSecret": {}},
    ]});
    create(&client, &namespace, "storefront", &spec).await.unwrap();
    settle(&client, &namespace, "storefront", SOON).await;
    eventually("a token", async || holds(observer.tally().accepted > 0, || observer.summary())).await;
    controller.process.kill(); // it would repair what follows
    observer.assert_no_violation();
    let tells = async |what: &str| {
        eventually(what, async || {
            let all = observer.violations();
            holds(all.iter().any(|violation| violation.contains(what)), || all.join("\n"))
        })
        .await;
    };
    let revision = |entry: &mut Value| entry["credentials"]["web"]["revisions"][0].take();

    // It lives on after the end that was announced.
    let mut web = Value::Null;
    edit_ledger(&client, |entry| {
        web = revision(entry);
        web["notAfter"] = json!("2099-01-01T00:00:00Z");
        entry["credentials"]["web"]["revisions"] = json!([web]);
    })
    .await;
    tells("S9: ").await;

    edit_ledger(&client, |entry| {
        let mut other = web.clone();
        other["verifier"]["sha256"] = json!("A".repeat(43));
        entry["credentials"]["web"]["revisions"] = json!([other]);
    })
    .await;
    tells("revision 1 has two values").await;
    tells("shows no accepted value of web").await;

    edit_ledger(&client, |entry| entry["credentials"]["web"]["nextRevision"] = json!(1)).await;
    tells("the next revision went back from 2 to 1").await;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut secret = secrets.get("storefront").await.unwrap();
    let published = secret.data.as_ref().unwrap()["client_secret"].0.clone();
    let data = secret.data.as_mut().unwrap();
    data.insert("client_id".to_owned(), ByteString(b"other".to_vec()));
    data.insert("client_secret".to_owned(), ByteString(b"known to nobody".to_vec()));
    secrets.replace("storefront", &PostParams::default(), &secret).await.unwrap();
    tells("S4: ").await;
    tells("shows a value that is not in the ledger").await;

    secrets.delete("storefront", &DeleteParams::default()).await.unwrap();
    tells("which showed web, is gone").await;

    let told = observer.violations().join("\n");
    assert!(!told.contains(std::str::from_utf8(&published).unwrap()) && !told.contains("known to nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_observer_tells_that_a_value_is_refused_too_early() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client("admin");
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    let observer = Observer::start(&plane).await.unwrap();
    let namespace = plane.namespace("shop").await.unwrap();
    create(&client, &namespace, "storefront", &json!({"displayName": "Storefront"})).await.unwrap();
    settle(&client, &namespace, "storefront", SOON).await;
    controller.process.kill();
    observer.assert_no_violation();

    edit_ledger(&client, |entry| entry["credentials"]["default"]["revisions"] = json!([])).await;

    for what in ["left the ledger while a Secret shows it", "was refused between"] {
        eventually(what, async || {
            let all = observer.violations();
            holds(all.iter().any(|violation| violation.contains(what)), || all.join("\n"))
        })
        .await;
    }
}

/// Changes the one ledger entry there is.
async fn edit_ledger(client: &kube::Client, edit: impl FnOnce(&mut Value)) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), LEDGER);
    let list = secrets.list(&ListParams::default().labels("app.kubernetes.io/managed-by=appreg")).await.unwrap();
    let mut secret = list.items.into_iter().find(|s| s.type_.as_deref() == Some("appreg.dev/ledger")).unwrap();
    let json = &mut secret.data.as_mut().unwrap().get_mut("ledger.json").unwrap().0;
    let mut entry: Value = serde_json::from_slice(json).unwrap();
    edit(&mut entry);
    *json = entry.to_string().into_bytes();
    let name = secret.metadata.name.clone().unwrap();
    secrets.replace(&name, &PostParams::default(), &secret).await.unwrap();
}
