//! Two token services and a controller: what one of them learns, all of them know, and none forgets by a restart.

use std::time::Duration;

use appreg::shared_lists::{NAMES, index_of_client};
use futures::future::join_all;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use crate::applied::{BINARY, change, create, fields, in_order, secrets};
use crate::harness::operator::LEDGER;
use crate::harness::process::free_port;
use crate::harness::{ControlPlane, Operator, Running, eventually, eventually::holds, permissive};
use crate::stage::Application;

/// One replica: where it listens, and its process.
struct Replica {
    address: String,
    running: Running,
}

impl Replica {
    async fn start(operator: &mut Operator<'_>, plane: &ControlPlane) -> Self {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let running = operator.token_service_at(plane, &address).await.unwrap();
        Self { address, running }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A token for a client, from here.
    async fn token(&self, client: &Application) -> String {
        let tokens = client.tokens.at(&self.url("/token"));
        let answer = tokens.basic(&client.client_id, &client.client_secret).await.unwrap();
        assert!(answer.is_token(), "{}: {answer:?}", self.address);
        answer.access_token.unwrap()
    }

    async fn is_active(&self, resource_server: &Application, token: &str) -> bool {
        let introspection = resource_server.tokens.at(&self.url("/introspect"));
        introspection.introspect(&resource_server.client_id, &resource_server.client_secret, token).await.unwrap()
    }

    async fn revoke(&self, client: &Application, token: &str) {
        let revocation = client.tokens.at(&self.url("/revoke"));
        let status = revocation.revoke(&client.client_id, &client.client_secret, token).await.unwrap();
        assert_eq!(status, 200, "{}", self.running.process.log_tail(20));
    }

    async fn terminate(self) {
        self.running.process.terminate(Duration::from_secs(20)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_a_millisecond_ago_is_accepted_by_both_and_a_revocation_holds_at_both_and_after_restarts() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &permissive(&[])).await.unwrap();
    let _controller = operator.controller(&plane).await.unwrap();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Replica::start(&mut operator, &plane).await);
    }
    let shop = plane.namespace("shop").await.unwrap();
    let applications = published_a_moment_ago(&plane, &shop, &replicas).await;
    let [storefront, api, ..] = &*applications else { panic!("too few") };

    // A registration without APIs has tokens for the issuer itself.
    let serves = json!({"spec": {"servedAudiences": [operator.issuer()]}});
    change(&plane, &shop, "app-1", serves).await;
    in_order(&plane, &shop, "app-1").await;

    let mut revoked = Vec::new();
    let kept = replicas[0].token(storefront).await;
    for (here, there) in [(0, 1), (1, 0)] {
        let token = replicas[here].token(storefront).await;
        for replica in &replicas {
            until_active(replica, api, &token).await;
        }
        replicas[here].revoke(storefront, &token).await;
        assert!(!replicas[here].is_active(api, &token).await, "where it was revoked it is refused at once");
        until_inactive(&replicas[there], api, &token).await;
        revoked.push(token);
    }

    // Somebody empties the list: nobody forgets, and it is written again.
    let list = NAMES[index_of_client(&storefront.client_id)];
    let mut emptied = secrets(&plane, LEDGER).get(list).await.unwrap();
    emptied.data = None;
    emptied.managed_fields_mut().clear();
    secrets(&plane, LEDGER).replace(list, &PostParams::default(), &emptied).await.unwrap();
    eventually("the list is restored", async || {
        let now = fields(&secrets(&plane, LEDGER).get(list).await.map_err(|error| error.to_string())?);
        let marks = now.get("revoked.json").map_or(0, |json| json.matches(':').count());
        holds(marks == revoked.len(), || format!("{marks} marks"))
    })
    .await;

    // One after the other is replaced, the first one killed.
    replicas.remove(0).running.process.kill();
    replicas.push(Replica::start(&mut operator, &plane).await);
    replicas.remove(0).terminate().await;
    replicas.push(Replica::start(&mut operator, &plane).await);
    for replica in &replicas {
        for token in &revoked {
            assert!(!replica.is_active(api, token).await, "a restart forgets nothing");
        }
        assert!(replica.is_active(api, &kept).await);
    }
    for replica in &replicas {
        assert!(!replica.running.process.log().contains(&kept), "no token is logged");
    }
}

/// Registers applications and asks both replicas with each client secret the moment it can be read.
async fn published_a_moment_ago(plane: &ControlPlane, shop: &str, replicas: &[Replica]) -> Vec<Application> {
    let mut applications = Vec::new();
    for n in 0..10 {
        let name = format!("app-{n}");
        create(plane, shop, &name, json!({"credentials": [{"name": "web", "clientSecret": {}}]})).await;
        let api = secrets(plane, shop);
        let secret = eventually("the Secret is there", async || {
            api.get_opt(&name).await.map_err(|error| error.to_string())?.ok_or_else(|| "not yet".to_owned())
        })
        .await;
        let application = Application::of(&secret);
        join_all(replicas.iter().map(|replica| replica.token(&application))).await;
        applications.push(application);
    }
    applications
}

async fn until_active(replica: &Replica, api: &Application, token: &str) {
    eventually("it is active", async || holds(replica.is_active(api, token).await, || "it is not".to_owned())).await;
}

async fn until_inactive(replica: &Replica, api: &Application, token: &str) {
    let what = "the revocation has reached the other replica";
    eventually(what, async || holds(!replica.is_active(api, token).await, || "it is active".to_owned())).await;
}
