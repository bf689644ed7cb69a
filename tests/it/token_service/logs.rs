//! No byte of a credential in our own lines, at any level (invariant 7; the canary test on the real control plane looks
//! at whole processes).

use std::io;
use std::sync::{Arc, Mutex};

use appreg::clock::Clock as _;
use appreg::ledger;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;

use super::proofs::cluster;
use super::{CLIENT_SECRET, Entry, LEDGER_SECRET_TYPE, TokenService, secret};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_of_a_request_is_logged_and_problems_are_told_once() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let filter = tracing_subscriber::EnvFilter::new("appreg=trace");
    // The test's runtime has one thread, so all tasks log here.
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer));

    let service = TokenService::start().await;
    // A place that logs is remembered as unheard if another test came by it first, while this one began to listen.
    tracing::callsite::rebuild_interest_cache();
    service.token("shop.storefront", CLIENT_SECRET).await;
    service.token("shop.storefront", "canary-wrong").await;
    service.token("canary-nobody", "canary-wrong").await;
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let now = service.clock.now().as_second();
    for assertion in [
        "canary.canary.canary".to_owned(),
        cluster().token(&service.issuer, now, |claims| claims["sub"] = json!("canary-subject")),
        cluster().token(&service.issuer, now, |claims| claims["iss"] = json!("https://canary.example")),
    ] {
        let form = [("grant_type", "client_credentials"), kind, ("client_assertion", &assertion)];
        assert_eq!(service.post(&form).await.status, 401);
        assert_eq!(service.post(&[&form[..], &[("client_id", "canary")]].concat()).await.status, 401);
    }
    let name = Entry::new("shop.storefront").secret_name();
    let broken = br#"{"version":1,"server":"canary"}"#;
    service.api.person_applies(&secret(&name, LEDGER_SECRET_TYPE, &[(ledger::FIELD, broken)]));
    service.until("told", async || service.metrics().await.contains(r#"{object="ledger_entry"} 1"#)).await;
    for _ in 0..3 {
        service.token("shop.storefront", "canary-wrong").await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(text.matches("cannot be read").count(), 1, "{text}");
}
