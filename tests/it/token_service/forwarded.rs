//! Behind a proxy: whom it names is believed from its address alone. Loopback has more addresses than one.

use std::net::{IpAddr, Ipv4Addr};

use appreg::api::KeyType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::proofs::{CERTIFICATE, Key};
use super::{Answer, Entry, Limits, TokenService, claims, trusting};

const ID: &str = "shop.robot";
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ANYBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn behind(header: &str, key: &Key) -> TokenService {
    let service = TokenService::start_behind(header, "127.0.0.2/32", Limits::default()).await;
    let entry = Entry::new(ID).methods(&["tls_client_auth"]);
    let entry =
        entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), "2026-10-01T00:00:00Z", "2026-12-30T00:00:00Z");
    service.api.person_applies(&entry.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 1")).await;
    service
}

async fn ask(service: &TokenService, from: IpAddr, headers: &[(&str, &str)]) -> Answer {
    let http = trusting(&service.certificate).local_address(from).build().unwrap();
    let request = http.post(service.url("/token")).form(&[("grant_type", "client_credentials"), ("client_id", ID)]);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    service.send(request).await
}

fn escaped(pem: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    pem.bytes().map(escape).collect::<Vec<_>>().concat()
}

/// What each proxy writes for a certificate.
fn written(header: &str, key: &Key) -> String {
    match header {
        "client-cert" => format!(":{}:", STANDARD.encode(key.der())),
        "ssl-client-cert" => escaped(&key.minted.certificate_pem),
        _ => format!("By=urn:a;Subject=\"CN=a\";Cert=\"{}\"", escaped(&key.minted.certificate_pem)),
    }
}

#[tokio::test]
async fn a_forwarded_certificate_is_believed_from_the_proxy_alone() {
    let [key, other] = [(); 2].map(|()| Key::new(KeyType::EcdsaP256));
    for header in ["client-cert", "ssl-client-cert", "x-forwarded-client-cert"] {
        let service = behind(header, &key).await;
        let good = written(header, &key);
        let answer = ask(&service, PROXY, &[(header, &good)]).await;
        assert_eq!(claims(&answer)["cnf"], json!({"x5t#S256": key.thumbprint()}), "{header}");
        let answer = ask(&service, ANYBODY, &[(header, &good)]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}: anybody can write it");
        assert_eq!(service.ended("no_certificate").await, 1, "{header}: as if it were not there");
        let answer = ask(&service, PROXY, &[(header, &written(header, &other))]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}: another client's");
        assert_eq!(service.ended("unknown_certificate").await, 1);
        for malformed in ["", "x", ":x:", "%zz", "Cert=\"x\"", &good[..good.len() - 9]] {
            let answer = ask(&service, PROXY, &[(header, malformed)]).await;
            assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}: {malformed}");
        }
        let answer = ask(&service, PROXY, &[(header, &good), (header, &good)]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}: twice");
        for others in ["client-cert", "ssl-client-cert", "x-forwarded-client-cert"].into_iter().filter(|h| *h != header)
        {
            let answer = ask(&service, PROXY, &[(others, &written(others, &key))]).await;
            assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}: not configured: {others}");
        }
    }
}

#[tokio::test]
async fn the_certificate_of_a_proxys_own_connection_is_not_its_clients() {
    let key = Key::new(KeyType::EcdsaP256);
    let service = behind("client-cert", &key).await;
    let pem = [key.minted.certificate_pem.as_bytes(), key.minted.private_key_pem.expose()].concat();
    let identity = || reqwest::Identity::from_pem(&pem).unwrap();
    for (from, status) in [(ANYBODY, 200), (PROXY, 401)] {
        let http = trusting(&service.certificate).local_address(from).identity(identity()).build().unwrap();
        let form = [("grant_type", "client_credentials"), ("client_id", ID)];
        let answer = service.send(http.post(service.url("/token")).form(&form)).await;
        assert_eq!(answer.status.as_u16(), status, "{from}: {answer:?}");
    }
}

#[tokio::test]
async fn without_proxies_no_header_is_believed() {
    let key = Key::new(KeyType::EcdsaP256);
    let service = TokenService::start().await;
    let entry = Entry::new(ID).methods(&["tls_client_auth"]);
    let entry =
        entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), "2026-10-01T00:00:00Z", "2026-12-30T00:00:00Z");
    service.api.person_applies(&entry.secret());
    service.until("known", async || service.metrics().await.contains("token_service_clients 2")).await;
    for header in ["client-cert", "ssl-client-cert", "x-forwarded-client-cert"] {
        let answer = ask(&service, ANYBODY, &[(header, &written(header, &key))]).await;
        assert_eq!(answer.error(), (401, "invalid_client".into()), "{header}");
    }
}

#[tokio::test]
async fn a_proxy_may_hold_more_connections_than_one_client_and_not_more_than_all() {
    let limits = Limits { connections_per_address: 1, connections: 6, ..Limits::default() };
    let service = TokenService::start_behind("client-cert", "127.0.0.2/32", limits).await;
    let connect = async |from: IpAddr| {
        let http = trusting(&service.certificate).local_address(from).build().unwrap();
        http.get(service.url("/jwks")).send().await.map(|answer| (http, answer))
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connect(PROXY).await.unwrap());
    }
    open.push(connect(ANYBODY).await.unwrap());
    open.push(connect(ANYBODY).await.unwrap());
    let metrics = service.metrics().await;
    let one = r#"connections_refused_total{reason="gave_way"} 1"#;
    assert!(metrics.contains(one), "an address that is no proxy's has its limit: {metrics}");
    for _ in 0..2 {
        open.push(connect(PROXY).await.unwrap());
    }
    assert!(connect(PROXY).await.is_err(), "and all together have theirs");
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="total_limit"} 1"#), "{metrics}");
    assert!(metrics.contains(one), "a proxy pushes nobody out who has one alone: {metrics}");
}
