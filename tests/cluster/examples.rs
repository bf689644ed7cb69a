//! The examples, on a real API server: each is accepted as it stands, and gives what it promises.

use std::{collections::BTreeMap, fs, path::PathBuf};

use appreg::api::{AppRegistration, AppRegistrationSpec, ConditionType};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::Value;

use crate::applied;
use crate::harness::{ControlPlane, Operator, TokenClient, eventually, eventually::holds};

/// What comes out of an example.
pub(crate) struct Expectation {
    /// The file in `examples/`.
    pub(crate) file: &'static str,
    /// The client ID where one is chosen, else it is the registration's uid.
    pub(crate) client_id: Option<&'static str>,
    /// The Secrets, each with its type and what it holds besides [`CONNECTION`].
    pub(crate) secrets: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// The credentials in the status: name, kind, effective duration.
    pub(crate) credentials: &'static [(&'static str, &'static str, &'static str)],
    /// The scopes at the server's default audience.
    pub(crate) scopes: &'static [&'static str],
    /// The APIs, by audience, each with the scopes there; the first is the one that is meant where none is named.
    pub(crate) apis: &'static [(&'static str, &'static [&'static str])],
    pub(crate) redirect_uris: &'static [&'static str],
    pub(crate) customer_groups: &'static [&'static str],
}

/// The fields of every Secret.
const CONNECTION: [&str; 5] = ["client_id", "issuer", "issuer_ca.crt", "jwks_uri", "token_endpoint"];

const CLIENT_SECRET: &[&str] = &["client_secret", "token_endpoint_auth_method"];
const CERTIFICATE: &[&str] = &["ca.crt", "tls.crt", "tls.key", "token_endpoint_auth_method"];
const ACCESS_TOKEN: &[&str] = &["access_token", "expires_at", "scope", "token_type"];
const OTHER_NAMES: &[&str] = &[
    "CLIENT_ID",
    "CLIENT_SECRET",
    "client-id",
    "client-secret",
    "client_secret",
    "spring.security.oauth2.client.registration.shop.client-id",
    "spring.security.oauth2.client.registration.shop.client-secret",
    "token_endpoint_auth_method",
];

/// One for each precedent of the product's first table, and what none of them has, with the default policy and the one in
/// `examples/policies/` that has the example's name.
pub(crate) const EXPECTATIONS: [Expectation; 10] = [
    // ePages: a name is enough.
    Expectation {
        file: "name-only.yaml",
        client_id: None,
        secrets: &[("newsletter", "Opaque", CLIENT_SECRET), ("newsletter-token", "Opaque", ACCESS_TOKEN)],
        credentials: &[("default", "clientSecret", "90d"), ("token", "accessToken", "1h")],
        scopes: &[],
        apis: &[],
        redirect_uris: &[],
        customer_groups: &[],
    },
    // App.net: website and callbacks, a token for chosen scopes.
    Expectation {
        file: "website-and-callbacks.yaml",
        client_id: None,
        secrets: &[("photo-album", "Opaque", CLIENT_SECRET), ("photo-album-token", "Opaque", ACCESS_TOKEN)],
        credentials: &[("web", "clientSecret", "90d"), ("reader", "accessToken", "1h")],
        scopes: &["photos:read", "photos:write"],
        apis: &[],
        redirect_uris: &[
            "http://localhost:8000",
            "https://photos.example/callback",
            "https://staging.photos.example/callback",
        ],
        customer_groups: &[],
    },
    // Akeneo: activation and callback.
    Expectation {
        file: "activation-and-callback.yaml",
        client_id: None,
        secrets: &[("product-import", "Opaque", CLIENT_SECRET), ("product-import-token", "Opaque", ACCESS_TOKEN)],
        credentials: &[("default", "clientSecret", "90d"), ("token", "accessToken", "1h")],
        scopes: &["products:read", "products:write"],
        apis: &[],
        redirect_uris: &["https://import.example/callback"],
        customer_groups: &[],
    },
    // apaleo: client code, logo, two described client secrets.
    Expectation {
        file: "client-code-and-two-secrets.yaml",
        client_id: Some("default.booking-engine"),
        secrets: &[("booking-engine", "Opaque", CLIENT_SECRET), ("booking-engine-export", "Opaque", CLIENT_SECRET)],
        credentials: &[("website", "clientSecret", "365d"), ("nightly-export", "clientSecret", "90d")],
        scopes: &["reservations:manage", "reservations:read"],
        apis: &[],
        redirect_uris: &["https://booking.example/callback"],
        customer_groups: &[],
    },
    // AvePoint Elements: certificate, one, two and three years, groups of customers.
    Expectation {
        file: "certificate-and-customers.yaml",
        client_id: None,
        secrets: &[
            ("backup-agent", "Opaque", CLIENT_SECRET),
            ("backup-agent-mtls", "kubernetes.io/tls", CERTIFICATE),
            ("backup-agent-three-years", "Opaque", CLIENT_SECRET),
            ("backup-agent-two-years", "Opaque", CLIENT_SECRET),
        ],
        credentials: &[
            ("mtls", "certificate", "90d"),
            ("one-year", "clientSecret", "365d"),
            ("two-years", "clientSecret", "730d"),
            ("three-years", "clientSecret", "1095d"),
        ],
        scopes: &["backups:read", "backups:restore"],
        apis: &[],
        redirect_uris: &[],
        customer_groups: &["emea-retail", "emea-wholesale"],
    },
    // AvePoint Elements once more: the upload of a .cer file.
    Expectation {
        file: "uploaded-certificate.yaml",
        client_id: None,
        secrets: &[],
        credentials: &[("tape-robot-2026", "publicKey", "")],
        scopes: &["backups:read"],
        apis: &[],
        redirect_uris: &[],
        customer_groups: &["emea-retail"],
    },
    // A pod's own identity.
    Expectation {
        file: "service-account.yaml",
        client_id: None,
        secrets: &[],
        credentials: &[("workload", "serviceAccount", "")],
        scopes: &["prices:read"],
        apis: &[],
        redirect_uris: &[],
        customer_groups: &[],
    },
    // A token for each API, with the scopes that are granted there.
    Expectation {
        file: "several-apis.yaml",
        client_id: None,
        secrets: &[
            ("order-desk", "Opaque", CLIENT_SECRET),
            ("order-desk-orders-token", "Opaque", ACCESS_TOKEN),
            ("order-desk-token", "Opaque", ACCESS_TOKEN),
        ],
        credentials: &[
            ("web", "clientSecret", "90d"),
            ("stock", "accessToken", "1h"),
            ("orders-report", "accessToken", "1h"),
        ],
        scopes: &[],
        apis: &[
            ("https://orders.example", &["orders:read", "orders:write"]),
            ("https://stock.example", &["stock:read"]),
        ],
        redirect_uris: &[],
        customer_groups: &[],
    },
    // No credential that its users could read.
    Expectation {
        file: "public-client.yaml",
        client_id: None,
        secrets: &[],
        credentials: &[],
        scopes: &[],
        apis: &[],
        redirect_uris: &["http://127.0.0.1/callback", "https://app.example/callback"],
        customer_groups: &[],
    },
    // The names that a gateway, a framework and a shell want.
    Expectation {
        file: "other-field-names.yaml",
        client_id: None,
        secrets: &[("gateway", "Opaque", OTHER_NAMES)],
        credentials: &[("web", "clientSecret", "90d")],
        scopes: &[],
        apis: &[],
        redirect_uris: &["https://shop.example/oauth2/callback"],
        customer_groups: &[],
    },
];

impl Expectation {
    fn registration(&self) -> AppRegistrationSpec {
        registration(self.file).spec
    }
}

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
}

fn registration(file: &str) -> AppRegistration {
    serde_yaml::from_str(&fs::read_to_string(directory().join(file)).unwrap()).unwrap()
}

/// The policy that a platform team applies for an example, if it asks for more than the default policy allows.
fn policy(file: &str) -> Option<PathBuf> {
    Some(directory().join("policies").join(file)).filter(|path| path.exists())
}

/// Every example as a user applies it, in the namespace `default`, with the chart's default policy and the example's own.
#[tokio::test(flavor = "multi_thread")]
async fn each_example_gives_what_it_promises_and_its_credentials_get_a_token() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, applied::BINARY, &[]).await.unwrap();
    let _controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    for expectation in &EXPECTATIONS {
        for path in policy(expectation.file).into_iter().chain([directory().join(expectation.file)]) {
            plane.kubectl(&["apply", "-n", "default", "-f", &path.to_string_lossy()]).await.unwrap().ok().unwrap();
        }
    }
    for expectation in &EXPECTATIONS {
        check(plane.client("admin"), "default", expectation).await;
        use_what_is_delivered(&plane, expectation).await;
    }
}

/// As an application would: everything that is needed is in the Secret itself.
async fn use_what_is_delivered(plane: &ControlPlane, expected: &Expectation) {
    let secrets: Api<Secret> = Api::namespaced(plane.client("admin"), "default");
    for (name, _, delivered) in expected.secrets {
        let fields = applied::fields(&secrets.get(name).await.unwrap());
        let what = format!("{}: {name}", expected.file);
        if delivered.contains(&"client_secret") {
            let tokens = TokenClient::new(&fields["issuer_ca.crt"], &fields["token_endpoint"]).unwrap();
            assert_eq!(fields["token_endpoint_auth_method"], "client_secret_basic", "{what}");
            let answer = tokens.basic(&fields["client_id"], &fields["client_secret"]).await.unwrap();
            assert!(answer.is_token(), "{what}: {answer:?}");
            let scope = answer.scope.unwrap_or_default();
            let of_target = expected.apis.first().map_or(expected.scopes, |(_, scopes)| *scopes);
            assert_eq!(sorted(&scope), of_target, "{what}: with nothing asked for, all that is granted there");
            for (audience, scopes) in expected.apis {
                let resource = [("resource", *audience)];
                let answer = tokens.basic_for(&fields["client_id"], &fields["client_secret"], &resource).await.unwrap();
                let token = claims(answer.access_token.as_deref().unwrap_or_default());
                assert_eq!(token["aud"], *audience, "{what}");
                assert_eq!(sorted(token["scope"].as_str().unwrap_or_default()), *scopes, "{what}: {audience}");
            }
            let wrong = fields["client_secret"].replace("apr_", "apr-");
            assert!(tokens.basic(&fields["client_id"], &wrong).await.unwrap().is_refusal(), "{what}");
        }
        if let Some(token) = fields.get("access_token") {
            let claims = claims(token);
            assert_eq!(claims["client_id"], fields["client_id"], "{what}");
            assert_eq!(claims["iss"], fields["issuer"], "{what}");
            assert_eq!(claims["exp"].to_string(), fields["expires_at"], "{what}");
            assert_eq!(claims["scope"].as_str().unwrap_or_default(), fields["scope"], "{what}");
            assert_eq!(fields["token_type"], "Bearer", "{what}");
            let of_api = expected.apis.iter().find(|(audience, _)| claims["aud"] == *audience);
            let granted = of_api.map_or(expected.scopes, |(_, scopes)| *scopes);
            assert_eq!(of_api.is_none(), expected.apis.is_empty(), "{what}: {claims}");
            assert!(sorted(&fields["scope"]).iter().all(|scope| granted.contains(scope)), "{what}: {claims}");
        }
        for (name, source) in expected.registration().secret_template.iter().flat_map(|template| &template.fields) {
            assert!(fields.get(name) == fields.get(source.as_str()), "{what}: {name} is not {source}");
        }
        if delivered.contains(&"tls.crt") {
            // What the key and the chain are worth is the certificates' own tests' business: here they are a pair.
            assert!(fields["tls.crt"].starts_with("-----BEGIN CERTIFICATE-----"), "{what}");
            assert!(fields["tls.key"].contains("PRIVATE KEY-----"), "{what}");
            assert!(fields["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"), "{what}");
        }
    }
}

fn sorted(scope: &str) -> Vec<&str> {
    let mut scopes: Vec<_> = scope.split_whitespace().collect();
    scopes.sort_unstable();
    scopes
}

/// What a token says; that it is genuine is shown elsewhere, by foreign libraries.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Waits until the example's registration is ready, and compares what has come out of it.
pub(crate) async fn check(client: Client, namespace: &str, expected: &Expectation) {
    let file = expected.file;
    let name = registration(file).name_any();
    let registrations: Api<AppRegistration> = Api::namespaced(client.clone(), namespace);
    let registration = eventually(&format!("{file} is ready"), async || {
        let registration = registrations.get(&name).await.map_err(|error| error.to_string())?;
        let status = registration.status.clone().unwrap_or_default();
        let is = |type_: ConditionType| {
            let type_ = type_.as_str();
            status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
        };
        let done = status.observed_generation == registration.metadata.generation
            && is(ConditionType::Ready)
            && is(ConditionType::Approved)
            && !is(ConditionType::Reconciling)
            && !is(ConditionType::Stalled);
        holds(done, || format!("{status:?}"))?;
        Ok::<_, String>(registration)
    })
    .await;

    let uid = registration.uid().unwrap();
    let status = registration.status.unwrap();
    let client_id = expected.client_id.unwrap_or(&uid);
    assert_eq!(status.client_id.as_deref(), Some(client_id), "{file}");

    let granted = status.granted.unwrap_or_default();
    assert_eq!(granted.scopes, expected.scopes, "{file}");
    let apis: Vec<_> = granted.apis.iter().map(|api| (api.audience.as_str(), api.scopes.clone())).collect();
    let expected_apis: Vec<_> = expected
        .apis
        .iter()
        .map(|(audience, scopes)| (*audience, scopes.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(apis, expected_apis, "{file}");
    assert_eq!(granted.redirect_uris, expected.redirect_uris, "{file}");
    assert_eq!(granted.customer_groups, expected.customer_groups, "{file}");

    let credentials: Vec<_> = status
        .credentials
        .iter()
        .map(|credential| {
            let kind = credential.kind.map_or("", appreg::api::Kind::as_str);
            (credential.name.as_str(), kind, credential.effective_duration.as_deref().unwrap_or_default())
        })
        .collect();
    assert_eq!(credentials, expected.credentials, "{file}");

    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let secrets = secrets.list(&ListParams::default()).await.unwrap();
    let found: BTreeMap<String, (String, Vec<String>)> = secrets
        .iter()
        .filter(|secret| secret.owner_references().iter().any(|owner| owner.uid == uid))
        .map(|secret| {
            let fields = secret.data.iter().flatten().map(|(name, _)| name.clone()).collect();
            (secret.name_any(), (secret.type_.clone().unwrap_or_default(), fields))
        })
        .collect();
    let expected_secrets: BTreeMap<String, (String, Vec<String>)> = expected
        .secrets
        .iter()
        .map(|(name, type_, fields)| {
            let mut fields: Vec<String> = CONNECTION.iter().chain(*fields).map(ToString::to_string).collect();
            fields.sort();
            ((*name).to_owned(), ((*type_).to_owned(), fields))
        })
        .collect();
    assert_eq!(found, expected_secrets, "{file}");
    for secret in secrets.iter().filter(|secret| found.contains_key(&secret.name_any())) {
        let data = secret.data.as_ref().unwrap();
        assert_eq!(data["client_id"].0, client_id.as_bytes(), "{file}: {}", secret.name_any());
    }
}

#[test]
fn every_example_has_an_expectation() {
    let mut files: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| file.file_type().unwrap().is_file())
        .map(|file| file.file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    files.sort();
    let mut expected: Vec<&str> = EXPECTATIONS.iter().map(|expectation| expectation.file).collect();
    expected.sort_unstable();
    assert_eq!(files, expected);
}

#[tokio::test]
async fn a_real_api_server_accepts_every_example_as_it_stands() {
    let plane = ControlPlane::start().await.unwrap();
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    plane.kubectl(&["apply", "--server-side", "-f", crds]).await.unwrap().ok().unwrap();
    for definition in ["appregistrations", "registrationpolicies"] {
        let wait = ["wait", "--for=condition=Established", &format!("crd/{definition}.appreg.dev")];
        plane.kubectl(&wait).await.unwrap().ok().unwrap();
    }
    let all = EXPECTATIONS.iter().flat_map(|e| policy(e.file).into_iter().chain([directory().join(e.file)]));
    // A definition is served a moment after it is established. A warning is as good as a refusal here.
    for file in all {
        eventually(&file.to_string_lossy(), async || {
            let args =
                ["create", "--dry-run=server", "--validate=strict", "-n", "default", "-f", &file.to_string_lossy()];
            let output = plane.kubectl(&args).await?;
            let warned = output.stderr.clone();
            output.ok()?;
            anyhow::ensure!(warned.is_empty(), "{warned}");
            anyhow::Ok(())
        })
        .await;
    }
}
