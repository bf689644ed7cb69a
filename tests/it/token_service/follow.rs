//! What the service knows when the watch lags, breaks, or shows what cannot be read.

use appreg::ledger;
use http::StatusCode;
use jiff::SignedDuration;

use super::{CLIENT_SECRET, Entry, LEDGER_SECRET_TYPE, NAMESPACE, TokenService, secret};
use crate::fake_api::{Fault, Nth};

const ID: &str = "shop.storefront";

fn gets(service: &TokenService) -> usize {
    service.api.requests().iter().filter(|request| request.starts_with("get secrets")).count()
}

#[tokio::test]
async fn what_was_published_a_moment_ago_is_accepted_though_the_watch_lags() {
    let service = TokenService::start().await;
    service.api.hold_watches();
    let rotated = Entry::new(ID).client_secret("web", "apr_next", "2026-11-22T10:00:00Z", "2027-02-01T00:00:00Z");
    service.api.person_applies(&rotated.secret());
    assert_eq!(service.token(ID, "apr_next").await.status, StatusCode::OK, "a new revision");
    assert_eq!(gets(&service), 1);
    assert_eq!(service.token(ID, "apr_next").await.status, StatusCode::OK);
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    assert_eq!(gets(&service), 1, "what was read is remembered");
    service.api.person_applies(&Entry::new("shop.new").secret());
    assert_eq!(service.token("shop.new", CLIENT_SECRET).await.status, StatusCode::OK, "a new client");
    assert_eq!(gets(&service), 2);
    service.api.release_watches();
    assert_eq!(service.token(ID, "apr_next").await.status, StatusCode::OK);
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"live_reads_total{outcome="newer"} 2"#), "{metrics}");
}

#[tokio::test]
async fn no_more_than_two_live_reads_are_made_in_a_second_for_an_address() {
    let service = TokenService::start().await;
    for n in 0..30 {
        let answer = service.token(&format!("nobody-{n}"), "x").await;
        let expected = if n < 10 { (401, "invalid_client") } else { (503, "temporarily_unavailable") };
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{n}");
    }
    assert_eq!(gets(&service), 10, "the clock stands still");
    service.clock.advance(SignedDuration::from_millis(1250));
    for _ in 0..5 {
        service.token(ID, "wrong").await;
    }
    assert_eq!(gets(&service), 12);
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"live_reads_total{outcome="limited"} 23"#), "{metrics}");
    assert!(metrics.contains(r#"live_reads_total{outcome="absent"} 10"#), "{metrics}");
    assert!(metrics.contains(r#"live_reads_total{outcome="same"} 2"#), "{metrics}");
}

#[tokio::test]
async fn only_secrets_of_the_ledger_namespace_and_the_clusters_keys_are_read_and_nothing_is_written() {
    let service = TokenService::start().await;
    service.token(ID, CLIENT_SECRET).await;
    service.token("nobody", "x").await;
    let name = ledger::name("default", "nobody");
    service.until("read", async || service.readyz().await.body.contains("[+] cluster-keys")).await;
    let (of_secrets, mut others): (Vec<_>, Vec<_>) =
        service.api.requests().into_iter().partition(|request| request.contains(" secrets "));
    others.sort();
    assert_eq!(others, ["get /.well-known/openid-configuration 200", "get /openid/v1/jwks 200"], "the cluster's keys");
    assert_eq!(
        of_secrets,
        [
            format!("list secrets {NAMESPACE} 200"),
            format!("watch secrets {NAMESPACE} 200"),
            format!("get secrets {NAMESPACE}/{name} 404"),
        ]
    );
}

#[tokio::test]
async fn an_entry_that_turns_unreadable_is_served_as_last_understood_and_reported() {
    let service = TokenService::start().await;
    let name = Entry::new(ID).secret_name();
    for json in ["{", r#"{"version":2,"clients":"apr_canary"}"#] {
        service.api.person_applies(&secret(&name, LEDGER_SECRET_TYPE, &[(ledger::FIELD, json.as_bytes())]));
        let reported = r#"unreadable{object="ledger_entry"} 1"#;
        service.until("reported", async || service.metrics().await.contains(reported)).await;
        assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
        // A wrong client secret makes a live read, which cannot read it either.
        assert_eq!(service.token(ID, "wrong").await.error(), (401, "invalid_client".into()));
        assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    }
    assert_eq!(service.readyz().await.status, StatusCode::OK);
    service.api.person_deletes("secrets", NAMESPACE, &name);
    service.until("gone", async || service.token(ID, CLIENT_SECRET).await.status == StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn a_deleted_entry_is_refused_and_a_stripped_label_changes_nothing() {
    let service = TokenService::start().await;
    let name = Entry::new(ID).secret_name();
    service.api.person_edits("secrets", NAMESPACE, &name, |secret| {
        secret["metadata"]["labels"] = serde_json::json!({"stripped": "yes"});
    });
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    service.api.person_deletes("secrets", NAMESPACE, &name);
    service.until("refused", async || service.token(ID, CLIENT_SECRET).await.status == StatusCode::UNAUTHORIZED).await;
    assert!(service.metrics().await.contains("token_service_clients 0"));
}

#[tokio::test]
async fn an_unreachable_api_server_shuts_nobody_out_and_is_told_in_readyz_and_metrics() {
    let service = TokenService::start().await;
    for verb in ["list", "watch", "get"] {
        service.api.on(Nth::every(verb, "secrets"), Fault::LoseRequest);
    }
    service.api.break_watches();
    service.until("told", async || service.readyz().await.body.contains("[~] ledger: ok, but nothing new for")).await;
    assert_eq!(service.readyz().await.status, StatusCode::OK);
    assert!(service.metrics().await.contains("token_service_watch_healthy 0"));
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    let unknown = service.token(ID, "wrong").await;
    assert_eq!(
        unknown.error(),
        (503, "temporarily_unavailable".into()),
        "it may be accepted by now: 401 would be final"
    );
    service.api.heal();
    service.until("healthy", async || service.readyz().await.body.contains("[+] ledger")).await;
}

#[tokio::test]
async fn an_unreadable_list_of_keys_leaves_the_keys_in_memory_at_work() {
    let service = TokenService::start().await;
    let broken = secret("signing-keys", "Opaque", &[("keys.json", b"[{}]")]);
    service.api.person_applies(&broken);
    let reported = r#"unreadable{object="signing_keys"} 1"#;
    service.until("reported", async || service.metrics().await.contains(reported)).await;
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    service.api.person_deletes("secrets", NAMESPACE, "signing-keys");
    service.until("seen", async || !service.metrics().await.contains(reported)).await;
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    assert_eq!(service.readyz().await.status, StatusCode::OK);
}
