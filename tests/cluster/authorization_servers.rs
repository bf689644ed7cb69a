//! Authorization servers on a real API server, with real processes: what may be written, two servers side by side, a
//! namespace that one does not take, and a server that is deleted.

use appreg::api::{AuthorizationServer, ConditionType, Reason, crds};
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, CustomResourceExt as _};
use serde_json::{Value, json};

use crate::harness::{self, eventually_within};
use crate::registration::{discover, key_set, verified};
use crate::stage::{Application, Room, SOON, condition, conditions, room, text};

fn spec(built_in: &Value) -> Value {
    json!({"namespaceSelector": {}, "builtIn": built_in})
}

/// Specs by name, each with what the refusal says; nothing where it is accepted.
fn rules() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let with = |field: &str, value: Value| {
        let mut built_in = json!({"issuer": "https://auth.example/partners"});
        built_in[field] = value;
        spec(&built_in)
    };
    let issuer = |issuer: &str| spec(&json!({"issuer": issuer}));
    let url: &[&str] = &["spec.builtIn.issuer", "must be an https URL of host, port and path"];
    vec![
        ("the least", issuer("https://auth.example"), &[]),
        ("host, port and path", issuer("https://auth.example:8443/a/b-c"), &[]),
        ("an IPv6 address", issuer("https://[2001:db8::1]:8443"), &[]),
        ("all settings", with("servingNames", json!(["b.example", "10.0.0.1", "::1"])), &[]),
        ("an audience", with("defaultAudience", json!("https://api.example")), &[]),
        ("a lifetime", with("accessTokenLifetime", json!("24h")), &[]),
        ("an algorithm", with("signingAlgorithm", json!("EdDSA")), &[]),
        ("no encryption", issuer("http://auth.example"), url),
        ("a trailing slash", issuer("https://auth.example/"), url),
        ("a query", issuer("https://auth.example?a"), url),
        ("a fragment", issuer("https://auth.example#a"), url),
        ("a user name", issuer("https://a@auth.example"), url),
        ("a well-known path", issuer("https://auth.example/.well-known"), url),
        ("an empty part", issuer("https://auth.example//a"), url),
        ("no issuer", spec(&json!({})), &["spec.builtIn.issuer: Required value"]),
        ("no type", json!({"namespaceSelector": {}}), &["builtIn must be set"]),
        (
            "no selector",
            json!({"builtIn": {"issuer": "https://a.example"}}),
            &["spec.namespaceSelector: Required value"],
        ),
        (
            "an operator without values",
            json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
                "builtIn": {"issuer": "https://a.example"}}),
            &["values must have an item for In and NotIn"],
        ),
        ("no lifetime", with("accessTokenLifetime", json!("0s")), &["accessTokenLifetime", "longer than 0s"]),
        ("a long lifetime", with("accessTokenLifetime", json!("25h")), &["accessTokenLifetime", "at most 24h"]),
        ("no signature", with("signingAlgorithm", json!("none")), &["signingAlgorithm", "ES256"]),
        ("a wildcard", with("servingNames", json!(["*.example"])), &["servingNames", "without wildcard"]),
        ("many names", with("servingNames", json!(["a", "b", "c", "d", "e"])), &["servingNames", "at most 4"]),
    ]
}

#[tokio::test]
async fn what_cannot_be_a_server_is_refused_with_the_field_and_the_fix() {
    let plane = harness::shared().await;
    let client = plane.client("admin");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in
        crds::all().into_iter().filter(|crd| crd.metadata.name.as_deref() == Some(AuthorizationServer::crd_name()))
    {
        let name = crd.metadata.name.clone().unwrap();
        definitions.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.unwrap();
    }
    let servers: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<AuthorizationServer>(&()));
    let object = |name: &str, spec: &Value| -> DynamicObject {
        let kind = "AuthorizationServer";
        let object =
            json!({"apiVersion": "appreg.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        serde_json::from_value(object).unwrap()
    };
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |name: &str, spec: &Value| {
        servers.create(&dry_run, &object(name, spec)).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let good = spec(&json!({"issuer": "https://auth.example"}));
    eventually_within(SOON, "the definition is served", async || create("a", &good).await).await;
    let mut wrong = Vec::new();
    let names: [(&str, &str, &[&str]); 3] = [
        ("default", "default", &["metadata.name must not be default"]),
        ("forty characters", &"a".repeat(40), &[]),
        ("more", &"a".repeat(41), &["metadata.name must have at most 40 characters"]),
    ];
    let by_name = names.map(|(case, name, said)| (case, name.to_owned(), good.clone(), said));
    let by_spec = rules().into_iter().map(|(case, spec, said)| (case, "rules".to_owned(), spec, said));
    for (case, name, spec, said) in by_name.into_iter().chain(by_spec) {
        match (create(&name, &spec).await, said) {
            (Ok(()), []) => {}
            (Ok(()), _) => wrong.push(format!("{case}: should be refused")),
            (Err(message), []) => wrong.push(format!("{case}: should be accepted, but: {message}")),
            (Err(message), said) => {
                wrong.extend(
                    said.iter()
                        .filter(|part| !message.contains(*part))
                        .map(|part| format!("{case}: {part} in {message}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What stands in every token stays; what does not may be edited.
    let name = "rules-fixed";
    let stored = servers.create(&PostParams::default(), &object(name, &good)).await.unwrap();
    assert_eq!((&stored.data["spec"], &stored.data["status"]), (&good, &json!({"observedGeneration": -1})));
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        servers.patch(name, &PatchParams::default(), &patch).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = patch(json!({"builtIn": {"issuer": "https://other.example"}})).await.unwrap_err();
    assert!(refused.contains("spec.builtIn.issuer") && refused.contains("issuer must stay as it was"), "{refused}");
    patch(json!({"builtIn": {"signingAlgorithm": "RS256"}, "namespaceSelector": {"matchLabels": {"a": "b"}}}))
        .await
        .unwrap();
    servers.delete(name, &DeleteParams::default()).await.unwrap();
}

/// A server at a path below the configured one's issuer, for namespaces with the label `tier: <its name>`.
struct Server {
    name: String,
    issuer: String,
}

impl Server {
    async fn apply(room: &Room) -> Self {
        let issuer = format!("{}/{}", room.stage.issuer(), room.namespace);
        let server = Self { name: format!("at-{}", room.namespace), issuer };
        server.write(room).await;
        server
    }

    async fn write(&self, room: &Room) {
        let object = json!({
            "apiVersion": "appreg.dev/v1alpha1", "kind": "AuthorizationServer", "metadata": {"name": self.name},
            "spec": {"namespaceSelector": {"matchLabels": {"tier": self.name}}, "builtIn": {"issuer": self.issuer}},
        });
        let servers: Api<AuthorizationServer> = Api::all(room.client.clone());
        servers.patch(&self.name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap();
        eventually_within(SOON, &format!("{} is in force", self.name), async || {
            let status = servers.get(&self.name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if ready && status.issuer.as_deref() == Some(&self.issuer) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    async fn delete(&self, room: &Room) {
        let servers: Api<AuthorizationServer> = Api::all(room.client.clone());
        servers.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    /// Whether the room's namespace is one that the server takes.
    async fn takes(&self, room: &Room, is_taken: bool) {
        let label = is_taken.then_some(&self.name);
        let patch = json!({"metadata": {"labels": {"tier": label}}});
        let namespaces: Api<Namespace> = Api::all(room.client.clone());
        namespaces.patch(&room.namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
}

/// What an application has from its Secret, and a resource server from the documents.
struct Client {
    application: Application,
    ca: String,
    issuer: String,
    keys: JwkSet,
}

impl Client {
    async fn of(room: &Room, secret: &str) -> Self {
        let secret = room.secrets().get(secret).await.unwrap();
        let field = |name: &str| text(&secret, name).unwrap();
        let (ca, issuer) = (field("issuer_ca.crt"), field("issuer"));
        let metadata = discover(&ca, &issuer).await;
        assert_eq!(metadata["issuer"], json!(issuer));
        let keys = key_set(&ca, metadata["jwks_uri"].as_str().unwrap()).await;
        Self { application: Application::of(&secret), ca, issuer, keys }
    }

    async fn token(&self) -> String {
        let Application { tokens, client_id, client_secret, .. } = &self.application;
        let answer = tokens.basic(client_id, client_secret).await.unwrap();
        answer.access_token.unwrap_or_else(|| panic!("{:?}: {:?}", answer.status, answer.error))
    }
}

fn of_server(server: &Server, client_id: &str) -> Value {
    json!({"displayName": "Storefront", "clientID": client_id, "authorizationServerRef": {"name": server.name}})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_id_at_two_servers_is_two_clients_whose_tokens_verify_against_their_own_keys_alone() {
    let room = room("servers").await;
    let server = Server::apply(&room).await;
    server.takes(&room, true).await;
    let id = format!("{}.storefront", room.namespace);
    room.apply("own", json!({"displayName": "Storefront", "clientID": id})).await;
    room.apply("other", of_server(&server, &id)).await;
    room.ready("own").await;
    let other = room.ready("other").await.status.unwrap();
    assert_eq!(other.client_id.as_deref(), Some(&*id));
    assert_eq!(other.authorization_server.unwrap().issuer, server.issuer);
    let [own, other] = [Client::of(&room, "own").await, Client::of(&room, "other").await];
    assert_eq!((&other.issuer, &own.ca), (&server.issuer, &other.ca));
    for (client, stranger, delivered) in [(&own, &other, "own-token"), (&other, &own, "other-token")] {
        let delivered = text(&room.secrets().get(delivered).await.unwrap(), "access_token").unwrap();
        for token in [client.token().await, delivered] {
            assert_eq!(verified(&token, &client.keys, &client.issuer)["client_id"], json!(id));
            let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
            assert!(stranger.keys.find(&kid).is_none(), "the keys of the other server");
        }
        let endpoint = format!("{}/token", stranger.issuer);
        let answer =
            client.application.tokens.at(&endpoint).basic(&id, &client.application.client_secret).await.unwrap();
        assert!(answer.is_refusal(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_a_server_does_not_take_gets_nothing_new_and_keeps_what_it_has() {
    let room = room("servers").await;
    let server = Server::apply(&room).await;
    let id = |name: &str| format!("{}.{name}", room.namespace);
    room.apply("app", of_server(&server, &id("app"))).await;
    let message = room.stalled("app", Reason::ServerDenied).await;
    for part in [&server.name, &room.namespace, &format!("tier={}", server.name)] {
        assert!(message.contains(part), "{message}");
    }
    server.takes(&room, true).await;
    room.ready("app").await;
    let client = Client::of(&room, "app").await;
    server.takes(&room, false).await;
    room.until("app", "is denied", |app| {
        let approved = condition(app, ConditionType::Approved).is_some_and(|c| c.reason == "ServerDenied");
        if approved { Ok(()) } else { Err(conditions(app)) }
    })
    .await;
    assert!(!client.token().await.is_empty(), "what exists goes on");
    room.apply("new", of_server(&server, &id("new"))).await;
    room.stalled("new", Reason::ServerDenied).await;
    room.apply("unknown", json!({"displayName": "A", "authorizationServerRef": {"name": "nobody"}})).await;
    assert!(room.stalled("unknown", Reason::InvalidSpec).await.contains("there is no authorization server nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_at_a_deleted_server_is_accepted_and_rotated_on_and_nothing_new_begins() {
    let room = room("servers").await;
    let server = Server::apply(&room).await;
    server.takes(&room, true).await;
    let id = |name: &str| format!("{}.{name}", room.namespace);
    room.apply("app", of_server(&server, &id("app"))).await;
    room.ready("app").await;
    let before = Client::of(&room, "app").await;
    server.delete(&room).await;
    room.until("app", "is told", |app| {
        let told = condition(app, ConditionType::Approved).is_some_and(|c| c.message.contains("was deleted"));
        if told { Ok(()) } else { Err(conditions(app)) }
    })
    .await;
    assert!(!before.token().await.is_empty());
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 1).unwrap();
    room.annotate("app", json!({"appreg.dev/rotate-minted-before": now.to_string()})).await;
    room.secret_until("app", "is rotated", |secret| {
        let is_another = text(secret, "client_secret").is_some_and(|s| s != before.application.client_secret);
        if is_another { Ok(()) } else { Err("the same client secret") }
    })
    .await;
    let after = Client::of(&room, "app").await;
    for client in [&before, &after] {
        verified(&client.token().await, &after.keys, &server.issuer);
    }
    room.apply("new", of_server(&server, &id("new"))).await;
    assert!(room.stalled("new", Reason::ServerDenied).await.contains("was deleted"));
    server.write(&room).await;
    room.ready("new").await;
}

/// docs/servers.md, with the files of `examples/servers/`.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_second_server_gives_a_registration_at_it() {
    let room = room("servers").await;
    let plane = room.stage.plane;
    for name in ["namespace", "partners", "registration"] {
        let file = format!("{}/examples/servers/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        plane.kubectl(&["apply", "-f", &file]).await.unwrap().ok().unwrap();
    }
    let wait = |what: &'static [&str]| async move {
        let args = [&["wait", "--for=condition=Ready", "--timeout=60s"], what].concat();
        plane.kubectl(&args).await.unwrap().ok().unwrap()
    };
    wait(&["authserver/partners"]).await;
    wait(&["appreg/booking", "-n", "travel-agency"]).await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(room.client.clone(), "travel-agency");
    let secret = secrets.get("booking").await.unwrap();
    assert_eq!(text(&secret, "issuer").as_deref(), Some("https://auth.partners.example"));
    assert_eq!(text(&secret, "client_id").as_deref(), Some("travel-agency.booking"));
    let table = plane.kubectl(&["get", "authserver"]).await.unwrap().ok().unwrap();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "ISSUER", "AGE"], "{table}");
    let partners = lines.iter().find(|line| line[0] == "partners").unwrap();
    assert_eq!(partners[1..3], ["True", "https://auth.partners.example"], "{table}");
}
