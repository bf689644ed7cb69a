//! Clients that prove themselves without a client secret, from the registration to the token: a pod by its `ServiceAccount`,
//! certificates that we rotate, and a certificate that a person has uploaded.
//!
//! The token service reads the cluster's keys with the rights of its own `ServiceAccount` in the chart's installation, and
//! nothing that this test has given it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::applied::{BINARY, audited, change, create, fields, in_order, secret, secrets, token_service_user, until};
use crate::harness::oauth::install_provider;
use crate::harness::operator::LEDGER;
use crate::harness::{Answer, ControlPlane, Operator, TokenClient, eventually, eventually::holds};

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const GRANT: (&str, &str) = ("grant_type", "client_credentials");

/// A control plane with a running operator, and how to reach it.
struct Stage<'a> {
    plane: &'a ControlPlane,
    issuer: String,
    /// Of the token endpoint.
    ca: String,
}

impl Stage<'_> {
    fn endpoint(&self) -> String {
        format!("{}/token", self.issuer)
    }

    async fn assert(&self, client_id: &str, assertion: &str) -> Answer {
        let tokens = TokenClient::new(&self.ca, &self.endpoint()).unwrap();
        let kind = ("client_assertion_type", TYPE);
        tokens.form(&[GRANT, kind, ("client_assertion", assertion), ("client_id", client_id)]).await.unwrap()
    }

    /// Asks with a client certificate, in PEM with its key.
    async fn present(&self, client_id: &str, identity: &str) -> Answer {
        install_provider();
        let trusted = reqwest::Certificate::from_pem_bundle(self.ca.as_bytes()).unwrap();
        let identity = reqwest::Identity::from_pem(identity.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only(trusted).no_proxy().identity(identity).build().unwrap();
        let tokens = TokenClient::with(http, &self.endpoint());
        tokens.form(&[GRANT, ("client_id", client_id)]).await.unwrap()
    }

    /// A token as the kubelet projects one.
    async fn sa_token(&self, namespace: &str, name: &str, audience: &str, seconds: i64) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.plane.client("admin"), namespace);
        let audiences = Some(vec![audience.to_owned()]);
        let spec = TokenRequestSpec { audiences, expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer: TokenRequest =
            accounts.create_subresource("token", name, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token.unwrap()
    }
}

/// The claims of a token, read without verification.
fn claims(answer: &Answer) -> Value {
    let token = answer.access_token.as_deref().unwrap_or_else(|| panic!("no token: {answer:?}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

async fn client_id(plane: &ControlPlane, namespace: &str, name: &str) -> String {
    in_order(plane, namespace, name).await.status.unwrap().client_id.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_a_rotated_certificate_and_an_uploaded_one_get_tokens_from_the_registration_on() {
    let plane = audited().await;
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let _controller = operator.controller(&plane).await.unwrap();
    let mark = plane.audit().mark().await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    let ca = fields(&secrets(&plane, LEDGER).get("ca-bundle").await.unwrap())["ca.crt"].clone();
    let stage = Stage { plane: &plane, issuer: operator.issuer(), ca };
    let shop = plane.namespace("shop").await.unwrap();

    a_pod(&stage, &shop).await;
    a_rotated_certificate(&stage, &shop).await;
    an_uploaded_certificate(&stage, &shop).await;

    // By the rights that every ServiceAccount has.
    let requests = plane.audit().of_since(&token_service_user(), mark).await.unwrap();
    for document in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        let codes: Vec<_> = requests.iter().filter(|r| r.uri == document).map(|r| r.code).collect();
        assert_eq!(codes, [200], "{document} is read once, at the start");
    }
    // Nothing of it stands in the log.
    let log = token_service.process.log();
    assert!(!log.contains("eyJ") && !log.contains("PRIVATE KEY"), "a credential is in the log");
}

/// The pod's projected token, and those that are not for us, too long or of somebody else.
async fn a_pod(stage: &Stage<'_>, shop: &str) {
    let plane = stage.plane;
    let elsewhere = plane.namespace("elsewhere").await.unwrap();
    for (namespace, name) in [(shop, "robot"), (shop, "other"), (elsewhere.as_str(), "robot")] {
        let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(plane.client("admin"), namespace);
        accounts.create(&PostParams::default(), &account).await.unwrap();
    }
    let credentials = json!([{"name": "workload", "serviceAccount": {"name": "robot"}}]);
    create(plane, shop, "pod", json!({"credentials": credentials})).await;
    let pod = client_id(plane, shop, "pod").await;
    let sa_token = stage.sa_token(shop, "robot", &stage.issuer, 3600).await;
    for _ in 0..2 {
        let answer = stage.assert(&pod, &sa_token).await;
        assert!(answer.is_token(), "{answer:?}");
        assert!(answer.expires_in.unwrap() <= 3600);
        let claims = claims(&answer);
        assert_eq!(claims["client_id"], json!(pod));
        assert!(claims["jti"].as_str().unwrap().starts_with("workload~"));
    }
    for (what, namespace, name, audience, seconds) in [
        ("for the API server", shop, "robot", "https://kubernetes.default.svc", 3600),
        ("for two hours", shop, "robot", &*stage.issuer, 7200),
        ("another ServiceAccount's", shop, "other", &stage.issuer, 3600),
        ("another namespace's", &elsewhere, "robot", &stage.issuer, 3600),
    ] {
        let sa_token = stage.sa_token(namespace, name, audience, seconds).await;
        let answer = stage.assert(&pod, &sa_token).await;
        assert!(answer.is_refusal(), "{what}: {answer:?}");
    }
    // What is revoked is refused, and what is asked for afterwards is not.
    let revoked = jiff::Timestamp::now().to_string();
    change(plane, shop, "pod", json!({"spec": {"revokeMintedBefore": revoked}})).await;
    eventually("the old token is refused", async || {
        let answer = stage.assert(&pod, &sa_token).await;
        holds(answer.is_refusal(), || format!("{answer:?}"))
    })
    .await;
    eventually("a new token is accepted", async || {
        let sa_token = stage.sa_token(shop, "robot", &stage.issuer, 3600).await;
        let answer = stage.assert(&pod, &sa_token).await;
        holds(answer.is_token(), || format!("{answer:?}"))
    })
    .await;
}

/// The old and the new certificate of a rotation, and tokens bound to each.
async fn a_rotated_certificate(stage: &Stage<'_>, shop: &str) {
    let plane = stage.plane;
    let credentials = json!([{"name": "mtls", "secretName": "mtls-tls", "certificate": {}}]);
    create(plane, shop, "mtls", json!({"credentials": credentials})).await;
    let mtls = client_id(plane, shop, "mtls").await;
    let identity = async || {
        let published = fields(&secrets(plane, shop).get("mtls-tls").await.unwrap());
        format!("{}{}", published["tls.crt"], published["tls.key"])
    };
    let old = identity().await;
    let of_old = claims(&stage.present(&mtls, &old).await)["cnf"]["x5t#S256"].clone();
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    change(plane, shop, "mtls", json!({"spec": {"rotateMintedBefore": now.to_string()}})).await;
    let rotated = until(plane, (shop, "mtls"), "is rotated", |registration| {
        let current = registration.status.as_ref().and_then(|status| status.credentials[0].current.as_ref());
        current.is_some_and(|current| current.revision == 2)
    })
    .await;
    secret(plane, (shop, "mtls-tls"), "is there", |_| true).await;
    let new = identity().await;
    assert!(old != new, "another certificate");
    let of_new = claims(&stage.present(&mtls, &new).await)["cnf"]["x5t#S256"].clone();
    assert_eq!(claims(&stage.present(&mtls, &old).await)["cnf"]["x5t#S256"], of_old, "accepted to its announced end");
    let current = rotated.status.unwrap().credentials[0].current.clone().unwrap();
    assert_eq!(json!(current.thumbprint), of_new, "RFC 8705 §3.1");
    assert_ne!(of_old, of_new);
    // The same key signs assertions.
    let key = jsonwebtoken::EncodingKey::from_ec_pem(
        new.split_once("-----BEGIN PRIVATE").map(|(_, key)| format!("-----BEGIN PRIVATE{key}")).unwrap().as_bytes(),
    );
    let answer = stage.assert(&mtls, &assertion(&stage.issuer, &mtls, &key.unwrap())).await;
    assert!(answer.is_token(), "{answer:?}");
}

/// A certificate that a person has made and uploaded: by TLS, and by assertions of its key.
async fn an_uploaded_certificate(stage: &Stage<'_>, shop: &str) {
    let names = ["partner.example".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let credentials = json!([{"name": "partner", "publicKey": {"pem": cert.pem()}}]);
    create(stage.plane, shop, "partner", json!({"credentials": credentials})).await;
    let partner = client_id(stage.plane, shop, "partner").await;
    let answer = stage.present(&partner, &format!("{}{}", cert.pem(), signing_key.serialize_pem())).await;
    assert!(claims(&answer)["cnf"]["x5t#S256"].is_string());
    let key = jsonwebtoken::EncodingKey::from_ec_pem(signing_key.serialize_pem().as_bytes()).unwrap();
    let assertion = assertion(&stage.issuer, &partner, &key);
    let answer = stage.assert(&partner, &assertion).await;
    assert_eq!(claims(&answer)["cnf"], Value::Null);
    let answer = stage.assert(&partner, &assertion).await;
    assert!(answer.is_refusal(), "RFC 7523 §3, point 7: {answer:?}");
}

fn assertion(issuer: &str, client_id: &str, key: &jsonwebtoken::EncodingKey) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": issuer, "iat": now, "exp": now + 120,
        "jti": format!("{:?}", std::time::Instant::now()),
    });
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256), &claims, key).unwrap()
}
