//! One registration, end to end, with the chart's own values: from a name alone to tokens that foreign software gets and
//! believes.

use std::process::Stdio;
use std::time::Duration;

use appreg::api::AppRegistration;
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use oauth2::TokenResponse as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::foreign;
use crate::harness::oauth::https;
use crate::harness::{ControlPlane, Operator};
use crate::stage::{Application, BINARY, client_id, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_alone_yields_a_client_id_a_client_secret_and_an_access_token_that_foreign_clients_can_use() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    plane.kubectl(&["create", "namespace", "shop"]).await.unwrap().ok().unwrap();
    let name_alone = "{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, \
                      metadata: {name: storefront, namespace: shop}, spec: {displayName: Storefront}}";
    plane.kubectl_apply(name_alone).await.unwrap();
    let wait = ["wait", "-n", "shop", "--for=condition=Ready", "appregistration/storefront", "--timeout=60s"];
    let wait = plane.kubectl(&wait).await.unwrap();
    if !wait.success() {
        let state = plane.kubectl(&["get", "appreg", "-n", "shop", "-o", "yaml"]).await.unwrap().stdout;
        panic!("{}\n{state}\n{}", wait.stderr, controller.process.log_tail(60));
    }

    let registrations: Api<AppRegistration> = Api::namespaced(plane.client("admin"), "shop");
    let registration = registrations.get("storefront").await.unwrap();
    assert_eq!(Some(client_id(&registration)), registration.metadata.uid, "the uid where none was chosen");
    let secrets: Api<Secret> = Api::namespaced(plane.client("admin"), "shop");
    let secret = secrets.get("storefront").await.unwrap();
    let application = Application::of(&secret);
    assert_eq!(application.client_id, client_id(&registration));
    let issuer = text(&secret, "issuer").unwrap();
    assert_eq!(issuer, operator.issuer());
    let ca = text(&secret, "issuer_ca.crt").unwrap();

    let metadata = discover(&ca, &issuer).await;
    for (field, member) in [("token_endpoint", "token_endpoint"), ("jwks_uri", "jwks_uri"), ("issuer", "issuer")] {
        assert_eq!(text(&secret, field).as_deref(), metadata[member].as_str(), "{field} is what discovery says");
    }
    let keys = key_set(&ca, metadata["jwks_uri"].as_str().unwrap()).await;

    let token = with_the_oauth2_crate(&ca, &metadata, &application).await;
    let claims = verified(&token, &keys, &issuer);
    assert_eq!(claims["client_id"].as_str(), Some(application.client_id.as_str()));
    assert_eq!(claims["sub"], claims["client_id"]);

    let by_post = application.tokens.post(&application.client_id, &application.client_secret).await.unwrap();
    assert_eq!((by_post.status, by_post.error.as_deref()), (401, Some("invalid_client")), "basic alone is registered");

    if let Some(token) = with_curl(&plane, &ca, &metadata, &application).await {
        assert_eq!(verified(&token, &keys, &issuer)["client_id"], claims["client_id"]);
    }

    let ready_made = secrets.get("storefront-token").await.unwrap();
    let claims = verified(&text(&ready_made, "access_token").unwrap(), &keys, &issuer);
    assert_eq!(claims["client_id"].as_str(), Some(application.client_id.as_str()));
    assert_eq!(text(&ready_made, "expires_at"), claims["exp"].as_i64().map(|exp| exp.to_string()));
    assert_eq!(text(&ready_made, "token_type").as_deref(), Some("Bearer"));
    let jti = claims["jti"].as_str().unwrap();
    assert!(jti.starts_with("token~"), "{jti} names the entry");

    columns_are_shown(&plane, &client_id(&registration)).await;
    let spec = serde_json::to_value(&registration.spec).unwrap();
    assert_eq!(spec, serde_json::json!({"displayName": "Storefront"}), "the operator writes no spec");
    assert!(registration.metadata.finalizers.is_none(), "nor finalizers");
}

/// The documents under both well-known addresses, which agree.
pub(crate) async fn discover(ca: &str, issuer: &str) -> Value {
    let http = https(ca).unwrap();
    let get = async |name: &str| -> Value {
        let response = http.get(format!("{issuer}/.well-known/{name}")).send().await.unwrap();
        response.error_for_status().unwrap().json().await.unwrap()
    };
    let metadata = get("oauth-authorization-server").await;
    assert_eq!(metadata["issuer"], issuer, "RFC 8414 section 3.3");
    let openid = get("openid-configuration").await;
    for member in ["issuer", "token_endpoint", "jwks_uri"] {
        assert_eq!(openid[member], metadata[member]);
    }
    // Only the one of OpenID Connect Discovery must have it.
    assert_eq!(openid["authorization_endpoint"], format!("{issuer}/authorize"));
    assert_eq!(metadata.get("authorization_endpoint"), None);
    metadata
}

pub(crate) async fn key_set(ca: &str, jwks_uri: &str) -> JwkSet {
    let response = https(ca).unwrap().get(jwks_uri).send().await.unwrap();
    response.error_for_status().unwrap().json().await.unwrap()
}

/// The claims of a token, by the foreign library; its audience is the issuer where none was granted.
pub(crate) fn verified(token: &str, keys: &JwkSet, issuer: &str) -> Value {
    let head = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(head.typ.as_deref(), Some("at+jwt"), "RFC 9068 section 2.1");
    let key = keys.find(&head.kid.unwrap()).expect("the key set has the token's key");
    let algorithm = key.common.key_algorithm.expect("the key names its algorithm").to_string().parse().unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let mut rules = jsonwebtoken::Validation::new(algorithm);
    rules.set_issuer(&[issuer]);
    rules.set_audience(&[issuer]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    jsonwebtoken::decode::<Value>(token, &key, &rules).unwrap().claims
}

async fn with_the_oauth2_crate(ca: &str, metadata: &Value, application: &Application) -> String {
    let http = https(ca).unwrap();
    let endpoint = metadata["token_endpoint"].as_str().unwrap().to_owned();
    let client = oauth2::basic::BasicClient::new(oauth2::ClientId::new(application.client_id.clone()))
        .set_client_secret(oauth2::ClientSecret::new(application.client_secret.clone()))
        .set_token_uri(oauth2::TokenUrl::new(endpoint).unwrap());
    let call = |request: oauth2::HttpRequest| {
        let http = http.clone();
        async move {
            let (parts, body) = request.into_parts();
            let request = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let response = request.send().await?;
            let mut answer = oauth2::HttpResponse::new(Vec::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = response.headers().clone();
            *answer.body_mut() = response.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(answer)
        }
    };
    let token = client.exchange_client_credentials().request_async(&call).await.unwrap();
    assert_eq!(token.expires_in(), Some(Duration::from_hours(1)));
    token.access_token().secret().clone()
}

/// Plain curl, as in the documentation; the client secret goes to its standard input, never into its arguments.
async fn with_curl(plane: &ControlPlane, ca: &str, metadata: &Value, application: &Application) -> Option<String> {
    if foreign::is_missing("curl") {
        return None;
    }
    let ca_file = plane.directory().join("issuer_ca.crt");
    std::fs::write(&ca_file, ca).unwrap();
    let mut curl = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", "20", "--cacert"])
        .arg(&ca_file)
        .args(["--data", "grant_type=client_credentials", "--config", "-"])
        .arg(metadata["token_endpoint"].as_str().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let config = format!("user = \"{}:{}\"\n", application.client_id, application.client_secret);
    let mut stdin = curl.stdin.take().unwrap();
    stdin.write_all(config.as_bytes()).await.unwrap();
    drop(stdin);
    let output = curl.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_u64()), (Some("Bearer"), Some(3600)));
    answer["access_token"].as_str().map(str::to_owned)
}

/// What `kubectl get` shows, with and without `-o wide`, by any of the resource's names.
async fn columns_are_shown(plane: &ControlPlane, client_id: &str) {
    let table = async |resource: &str, output: &[&str]| {
        let args = [&["get", resource, "-n", "shop"], output].concat();
        plane.kubectl(&args).await.unwrap().ok().unwrap()
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for resource in ["appregistrations", "appregistration", "appreg"] {
        let table = table(resource, &[]).await;
        let lines: Vec<_> = table.lines().map(words).collect();
        assert_eq!(
            lines[0],
            ["NAME", "READY", "CLIENT", "ID", "APPROVED", "NEXT", "ROTATION", "AGE", "PROBLEM"],
            "{table}"
        );
        assert_eq!(lines[1][..4], ["storefront", "True", client_id, "True"], "{table}");
        assert!(lines[1][4].parse::<jiff::Timestamp>().is_ok(), "the next rotation's time: {table}");
    }
    let wide = table("appreg", &["-o", "wide"]).await;
    let lines: Vec<_> = wide.lines().map(words).collect();
    assert_eq!(lines[0][8..], ["PROBLEM", "SERVER", "MESSAGE"], "{wide}");
    assert_eq!(lines[1][6], "default", "{wide}");
    assert!(lines[1].len() > 7, "a message: {wide}");
}
