//! `ServiceAccount` tokens as client assertions (RFC 7521 §4.2, RFC 7523 §3): the fake API server says what a cluster says.

use std::sync::Arc;
use std::time::Duration;

use appreg::api::KeyType;
use appreg::clock::ManualClock;
use appreg::token_service::cluster_keys::ClusterKeys;
use appreg::token_service::metrics::Metrics;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::proofs::{Cluster, Key, cluster};
use super::{Answer, CLIENT_SECRET, Entry, NOW, TokenService, claims, now_of};
use crate::fake_api::{FakeApi, Fault, Nth};

const ID: &str = "shop.robot";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SUBJECT: &str = "system:serviceaccount:shop:robot";
const JWKS: &str = "/openid/v1/jwks";
const DISCOVERY: &str = "/.well-known/openid-configuration";

fn entry() -> Entry {
    let entry = Entry::new(ID).methods(&["private_key_jwt"]);
    entry.service_account("workload", SUBJECT, Some("2026-11-22T09:30:00Z"))
}

async fn service() -> TokenService {
    let service = TokenService::start().await;
    service.api.person_applies(&entry().secret());
    let other = Entry::new("shop.basic").service_account("workload", SUBJECT, None);
    service.api.person_applies(&other.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 3")).await;
    service.until("read", async || service.readyz().await.body.contains("[+] cluster-keys")).await;
    service
}

async fn send(service: &TokenService, client_id: Option<&str>, sa_token: &str) -> Answer {
    let mut form =
        vec![("grant_type", "client_credentials"), ("client_assertion_type", TYPE), ("client_assertion", sa_token)];
    form.extend(client_id.map(|client_id| ("client_id", client_id)));
    service.post(&form).await
}

fn reads(api: &FakeApi) -> usize {
    api.requests().iter().filter(|request| request.starts_with("get /openid/v1/jwks")).count()
}

#[tokio::test]
async fn a_pod_gets_tokens_with_its_projected_token_as_often_as_it_asks() {
    let service = service().await;
    let sa_token = cluster().token(&service.issuer, now_of(&service) - 600, |_| {});
    for _ in 0..3 {
        let answer = send(&service, Some(ID), &sa_token).await;
        assert_eq!(
            answer.json()["expires_in"],
            json!(3000),
            "no token outlives the one that it was had with: {answer:?}"
        );
        let claims = claims(&answer);
        assert_eq!((&claims["sub"], &claims["cnf"]), (&json!(ID), &Value::Null));
        assert!(claims["jti"].as_str().unwrap().starts_with("workload~"));
    }
    assert_eq!(reads(&service.api), 1, "at the start");
}

#[tokio::test]
async fn failures_of_an_address_hold_back_no_pod_behind_it() {
    let service = service().await;
    let sa_token = cluster().token(&service.issuer, now_of(&service) - 600, |_| {});
    for n in 0..150 {
        service.token(&format!("nobody-{n}"), "x").await;
    }
    assert_eq!(service.token("nobody", "x").await.error(), (429, "temporarily_unavailable".into()));
    for _ in 0..50 {
        assert_eq!(send(&service, Some(ID), &sa_token).await.status, StatusCode::OK);
        assert_eq!(service.token("nobody", "x").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
}

/// Where it is written, for which client, what is changed, and the reason that the metric gives.
type Refused = (&'static str, Option<&'static str>, fn(&mut Value), &'static str);

const REFUSED: &[Refused] = &[
    ("RFC 7521 §4.2: client_id says who it stands for", None, |_| {}, "assertion_issuer"),
    ("another client", Some("shop.storefront"), |_| {}, "assertion_issuer"),
    ("RFC 6749 §5.2: unknown client", Some("nobody"), |_| {}, "unknown_client"),
    ("RFC 7591 §2: another method than the registered one", Some("shop.basic"), |_| {}, "unregistered_method"),
    ("another ServiceAccount", Some(ID), |c| c["sub"] = json!("system:serviceaccount:shop:other"), "assertion_issuer"),
    ("another namespace", Some(ID), |c| c["sub"] = json!("system:serviceaccount:other:robot"), "assertion_issuer"),
    (
        "RFC 7523 §3: sub is REQUIRED",
        Some(ID),
        |c| drop(c.as_object_mut().unwrap().remove("sub")),
        "assertion_malformed",
    ),
    ("RFC 7523 §3: another cluster", Some(ID), |c| c["iss"] = json!("https://other.example"), "assertion_issuer"),
    (
        "RFC 7523 §3: for the API server",
        Some(ID),
        |c| c["aud"] = json!(["https://kubernetes.default.svc"]),
        "assertion_audience",
    ),
    (
        "RFC 7523bis: for us and the API server",
        Some(ID),
        |c| c["aud"].as_array_mut().unwrap().push(json!("https://kubernetes.default.svc")),
        "assertion_audience",
    ),
    (
        "RFC 7523 §3: aud is REQUIRED",
        Some(ID),
        |c| drop(c.as_object_mut().unwrap().remove("aud")),
        "assertion_malformed",
    ),
    ("an hour at most", Some(ID), |c| c["exp"] = json!(c["iat"].as_i64().unwrap() + 3661), "assertion_time"),
    (
        "RFC 7523 §3: passed",
        Some(ID),
        |c| {
            let now = c["iat"].as_i64().unwrap();
            (c["iat"], c["nbf"], c["exp"]) = (json!(now - 1000), json!(now - 1000), json!(now));
        },
        "assertion_time",
    ),
    (
        "RFC 7523 §3: nbf has not come",
        Some(ID),
        |c| c["nbf"] = json!(c["nbf"].as_i64().unwrap() + 61),
        "assertion_time",
    ),
    (
        "issued in the future",
        Some(ID),
        |c| {
            let now = c["iat"].as_i64().unwrap();
            (c["iat"], c["exp"]) = (json!(now + 61), json!(now + 600));
        },
        "assertion_time",
    ),
    ("its age is needed", Some(ID), |c| drop(c.as_object_mut().unwrap().remove("iat")), "assertion_malformed"),
    (
        "from before the revocation",
        Some(ID),
        |c| {
            let now = c["iat"].as_i64().unwrap();
            (c["iat"], c["exp"]) = (json!(now - 1801), json!(now + 600));
        },
        "not_valid_now",
    ),
];

#[tokio::test]
async fn each_bad_token_is_refused_alike_and_its_reason_counted() {
    let service = service().await;
    for (rule, client_id, change, reason) in REFUSED {
        let before = service.ended(reason).await;
        let sa_token = cluster().token(&service.issuer, now_of(&service), change);
        let answer = send(&service, *client_id, &sa_token).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{rule}: {answer:?}");
        assert_eq!(service.ended(reason).await, before + 1, "{rule}: {reason}\n{}", service.metrics().await);
    }
    for change in [
        |c: &mut Value| c["exp"] = json!(c["iat"].as_i64().unwrap() + 3607),
        |c: &mut Value| {
            // To the second at which what is older was revoked.
            let now = c["iat"].as_i64().unwrap();
            (c["iat"], c["exp"]) = (json!(now - 1800), json!(now + 600));
        },
    ] {
        let sa_token = cluster().token(&service.issuer, now_of(&service), change);
        assert_eq!(send(&service, Some(ID), &sa_token).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_token_that_the_cluster_has_not_signed_is_refused() {
    let service = service().await;
    let now = now_of(&service);
    let forged = |key: Key| Cluster { issuer: cluster().issuer, key };
    // Under the cluster's kid by another key, and under another kid.
    let stranger = forged(Key::new(KeyType::Rsa2048));
    let by_another = stranger.token(&service.issuer, now, |_| {});
    assert_eq!(send(&service, Some(ID), &by_another).await.error(), (401, "invalid_client".into()));
    let good = cluster().token(&service.issuer, now, |_| {});
    let (head, signature) = (good.split('.').next().unwrap(), by_another.rsplit('.').next().unwrap());
    let mixed = format!("{head}.{}.{signature}", good.split('.').nth(1).unwrap());
    assert_eq!(send(&service, Some(ID), &mixed).await.error(), (401, "invalid_client".into()));
    assert_eq!(service.ended("assertion_signature").await, 2);
    assert_eq!(send(&service, Some(ID), &good).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_not_known_is_looked_up_once_in_ten_seconds() {
    let service = service().await;
    let new = Cluster { issuer: cluster().issuer, key: Key::new(KeyType::EcdsaP256) };
    let ask = async |cluster: &Cluster| {
        let sa_token = cluster.token(&service.issuer, now_of(&service), |_| {});
        send(&service, Some(ID), &sa_token).await.status
    };
    assert_eq!(ask(&new).await, 401, "nobody knows it");
    assert_eq!(reads(&service.api), 1, "the start was just now");
    service.clock.advance(SignedDuration::from_secs(10));
    new.publish(&service.api);
    let (sa_token, token_service) = (new.token(&service.issuer, now_of(&service), |_| {}), &service);
    let asked = (0..8).map(|_| send(token_service, Some(ID), &sa_token));
    assert!(futures::future::join_all(asked).await.iter().all(|answer| answer.status == 200));
    assert_eq!(reads(&service.api), 2, "one read for all of them");
    for _ in 0..3 {
        let stranger = Cluster { issuer: cluster().issuer, key: Key::new(KeyType::EcdsaP256) };
        assert_eq!(ask(&stranger).await, 401);
    }
    assert_eq!(reads(&service.api), 2, "no flood of strange keys becomes one of reads");
    service.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(ask(cluster()).await, 401, "the old key is no longer the cluster's");
    assert_eq!((reads(&service.api), ask(&new).await), (3, StatusCode::OK));
}

#[tokio::test]
async fn with_an_unreachable_api_server_what_is_known_goes_on() {
    let service = service().await;
    for path in [JWKS, DISCOVERY] {
        service.api.on(Nth::every("get", path), Fault::LoseRequest);
    }
    service.clock.advance(SignedDuration::from_secs(10));
    let stranger = Cluster { issuer: cluster().issuer, key: Key::new(KeyType::EcdsaP256) };
    let sa_token = stranger.token(&service.issuer, now_of(&service), |_| {});
    assert_eq!(send(&service, Some(ID), &sa_token).await.error(), (401, "invalid_client".into()));
    let readyz = service.readyz().await;
    assert_eq!(readyz.status, StatusCode::OK);
    assert!(readyz.body.contains("[~] cluster-keys: ok, but cannot be read: connection failed"), "{readyz:?}");
    assert!(service.metrics().await.contains(r#"cluster_key_reads_total{outcome="failed"} 1"#));
    let sa_token = cluster().token(&service.issuer, now_of(&service), |_| {});
    assert_eq!(send(&service, Some(ID), &sa_token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_cold_start_without_the_clusters_keys_says_not_yet_and_refuses_nobody_else() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    api.person_makes_signing_keys();
    api.person_applies(&entry().secret());
    api.on(Nth::every("get", JWKS), Fault::forbidden());
    cluster().publish(&api);
    let service = TokenService::start_on(api, certificate, "", super::Limits::default()).await;
    service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
    service.until("told", async || service.readyz().await.body.contains("[~] cluster-keys: ok, but cannot")).await;
    let sa_token = cluster().token(&service.issuer, now_of(&service), |_| {});
    let answer = send(&service, Some(ID), &sa_token).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("5")));
    service.api.heal();
    service.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(send(&service, Some(ID), &sa_token).await.status, StatusCode::OK);
    let basic = Entry::new("shop.storefront");
    service.api.person_applies(&basic.secret());
    assert_eq!(service.token("shop.storefront", CLIENT_SECRET).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_clusters_keys_are_read_every_hour_and_every_minute_after_a_failure() {
    let api = FakeApi::new();
    cluster().publish(&api);
    let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
    let keys = Arc::new(ClusterKeys::new(api.client(), clock.clone(), Metrics::default()));
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    let (own, until) = (keys.clone(), stop.clone());
    running.spawn(async move { own.run(until).await });
    let reads_after = async |pass: Duration| {
        clock.advance(pass.try_into().unwrap());
        sleep(pass).await;
        reads(&api)
    };
    assert_eq!(reads_after(Duration::from_secs(1)).await, 1);
    assert_eq!(reads_after(Duration::from_secs(3598)).await, 1);
    assert_eq!(reads_after(Duration::from_secs(2)).await, 2);
    api.on(Nth::every("get", JWKS), Fault::Hang);
    // The deadline of a read is two seconds.
    assert_eq!(reads_after(Duration::from_hours(1)).await, 3);
    assert_eq!(reads_after(Duration::from_secs(61)).await, 3);
    api.heal();
    assert_eq!(reads_after(Duration::from_secs(3)).await, 4);
    assert_eq!(reads_after(Duration::from_mins(59)).await, 4);
    assert!(keys.for_kid(cluster().issuer, Some(cluster().key.kid())).await.is_some());
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_the_watch_has_not_shown_yet_is_read_live() {
    let service = TokenService::start().await;
    service.api.hold_watches();
    service.api.person_applies(&entry().secret());
    let sa_token = cluster().token(&service.issuer, now_of(&service), |_| {});
    service.until("read", async || service.readyz().await.body.contains("[+] cluster-keys")).await;
    assert_eq!(send(&service, Some(ID), &sa_token).await.status, StatusCode::OK);
}
