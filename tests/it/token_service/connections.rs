//! Limits, slow clients, the certificate's exchange and the graceful end.

use std::sync::Arc;
use std::time::Duration;

use appreg::token_service::metrics::Metrics;
use appreg::token_service::server::{Limits, Server};
use appreg::token_service::service::{Body, Request};
use appreg::token_service::tls::{Serving, ServingCertificate};
use http::{Response, StatusCode, Version};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{CLIENT_SECRET, PATIENCE, StoppedTime, TokenService, is_open};

const ID: &str = "shop.storefront";

async fn read_all(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // A server that closes without a TLS alert has closed all the same.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

pub(super) async fn read_some(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = vec![0; 8192];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

pub(super) fn head(body_bytes: usize) -> String {
    format!(
        "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {body_bytes}\r\n\r\n"
    )
}

fn body() -> String {
    format!("grant_type=client_credentials&client_id={ID}&client_secret={CLIENT_SECRET}")
}

#[tokio::test]
async fn both_protocols_are_served_as_agreed_by_alpn() {
    let service = TokenService::start().await;
    let trusted = || reqwest::Certificate::from_der(&service.certificate).unwrap();
    let builder = || reqwest::Client::builder().tls_certs_only([trusted()]).no_proxy();
    for (http, version) in
        [(builder().build().unwrap(), Version::HTTP_2), (builder().http1_only().build().unwrap(), Version::HTTP_11)]
    {
        let response = http.get(service.url("/jwks")).send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
    }
    assert!(service.try_connect("spdy/1").await.is_err(), "no common protocol");
}

#[tokio::test]
async fn a_body_over_16_kib_is_refused_whether_announced_or_not() {
    let service = TokenService::start().await;
    let post =
        || service.http().post(service.url("/token")).header("content-type", "application/x-www-form-urlencoded");
    let largest = format!("{}&x={}", body(), "x".repeat(16 * 1024 - body().len() - 3));
    assert_eq!(service.send(post().body(largest.clone())).await.status, StatusCode::OK);
    let answer = service.send(post().body(format!("{largest}x"))).await;
    assert_eq!(answer.error(), (413, "invalid_request".into()));
    let mut stream = service.connect("http/1.1").await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(5);
    let request = head(0).replace("content-length: 0", "transfer-encoding: chunked");
    stream.write_all(format!("{request}{chunk}").as_bytes()).await.unwrap();
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn too_large_and_too_many_headers_are_refused() {
    let service = TokenService::start().await;
    for headers in [format!("x: {}\r\n", "x".repeat(20 * 1024)), "x: y\r\n".repeat(80)] {
        let mut stream = service.connect("http/1.1").await;
        let _ = stream.write_all(format!("GET /jwks HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes()).await;
        assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 431"), "RFC 6585 §5");
    }
    let http = service.http();
    let large = http.get(service.url("/jwks")).header("x", "x".repeat(20 * 1024)).send().await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 431), "the same with HTTP/2");
    assert_eq!(service.send(service.http().get(service.url("/jwks"))).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_slow_handshake_header_and_body_end_at_their_deadlines() {
    let Limits { handshake, header, body, .. } = Limits::default();
    let second = Duration::from_secs(1);
    let (before, after) = (|limit: Duration| limit.saturating_sub(second), |limit: Duration| limit + second);
    assert!(after(handshake) < before(body) && after(body) < before(header), "in this order");
    let service = TokenService::start().await;
    let time = StoppedTime::new();
    let mut stalled = TcpStream::connect(service.address).await.unwrap();
    let mut slow_header = service.connect("http/1.1").await;
    slow_header.write_all(b"GET /jwks HTTP/1.1\r\nhost: a\r\nx: ").await.unwrap();
    let mut slow_body = service.connect("http/1.1").await;
    slow_body.write_all(format!("{}grant_type=", head(100)).as_bytes()).await.unwrap();
    // Each request that is served shows that the service has seen what came before it.
    service.is_served().await;

    time.comes(before(handshake)).await;
    service.is_served().await;
    assert!(is_open(&mut stalled).await);
    time.comes(after(handshake)).await;
    assert_eq!(stalled.read(&mut [0; 16]).await.unwrap(), 0, "no handshake");

    time.comes(before(body)).await;
    service.is_served().await;
    assert!(is_open(&mut slow_body).await);
    time.comes(after(body)).await;
    let answer = read_some(&mut slow_body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    time.comes(before(header)).await;
    service.is_served().await;
    assert!(is_open(&mut slow_header).await);
    time.comes(after(header)).await;
    assert_eq!(read_all(&mut slow_header).await, "", "no header");
    assert_eq!(time.start.elapsed(), after(header), "nobody was waited for");
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let limits = Limits { connections_per_address: 3, ..Limits::default() };
    let service = TokenService::start_with("", limits).await;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut stream = service.connect("http/1.1").await;
        stream.write_all(format!("{}{}", head(body().len()), &body()[..20]).as_bytes()).await.unwrap();
        busy.push(stream);
    }
    // One thread: when the metrics come, it has been read.
    service.metrics().await;
    assert!(service.try_connect("http/1.1").await.is_err());
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="address_limit"} 1"#), "{metrics}");
    let mut other = service.try_connect_from(2, "http/1.1").await.expect("another address has its own share");
    other.write_all(format!("{}{}", head(body().len()), body()).as_bytes()).await.unwrap();
    assert!(read_some(&mut other).await.starts_with("HTTP/1.1 200"));
    for stream in &mut busy {
        stream.write_all(&body().as_bytes()[20..]).await.unwrap();
        assert!(read_some(stream).await.starts_with("HTTP/1.1 200"));
    }
    assert!(service.try_connect("http/1.1").await.is_ok(), "the oldest that is idle gives way");
    assert_eq!(read_all(&mut busy[0]).await, "");
    assert!(is_open(&mut busy[2]).await);
}

#[tokio::test]
async fn an_address_that_takes_all_connections_gives_way_to_others() {
    let service = TokenService::start_with("", Limits { connections: 4, ..Limits::default() }).await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        // They are in the middle of a request each, so nothing else would end them for a while.
        let mut stream = service.try_connect_from(2, "http/1.1").await.unwrap();
        stream.write_all(head(100).as_bytes()).await.unwrap();
        greedy.push(stream);
    }
    // One thread: when the metrics come, all that has been read.
    service.metrics().await;
    let mut honest = Vec::new();
    for host in [3, 4] {
        let mut stream = service.try_connect_from(host, "http/1.1").await.expect("a newcomer gets in");
        stream.write_all(format!("{}{}", head(body().len()), body()).as_bytes()).await.unwrap();
        assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
        honest.push(stream);
    }
    assert_eq!((read_all(&mut greedy[0]).await, read_all(&mut greedy[1]).await), (String::new(), String::new()));
    assert!(is_open(&mut greedy[2]).await && is_open(&mut greedy[3]).await, "its share");
    for stream in &mut honest {
        assert!(is_open(stream).await);
    }
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="gave_way"} 2"#), "{metrics}");
}

#[tokio::test]
async fn an_address_that_opens_connections_too_fast_is_refused_before_the_handshake_and_no_other_is() {
    let service = TokenService::start_with("", Limits { handshakes_per_address: 1, ..Limits::default() }).await;
    let time = StoppedTime::new();
    for attempt in 0..8 {
        let opened = service.try_connect_from(2, "http/1.1").await.is_ok();
        assert_eq!(opened, attempt < 5, "{attempt}: five seconds' worth at once");
    }
    assert!(service.try_connect_from(3, "http/1.1").await.is_ok(), "another address");
    time.comes(Duration::from_millis(1001)).await;
    let later = [(); 2].map(|()| service.try_connect_from(2, "http/1.1"));
    let [first, second] = later;
    assert_eq!((first.await.is_ok(), second.await.is_ok()), (true, false), "a second pays for one");
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="handshake_rate"} 4"#), "{metrics}");
}

#[tokio::test]
async fn connections_in_total_are_limited() {
    let service = TokenService::start_with("", Limits { connections: 1, ..Limits::default() }).await;
    let mut open = service.connect("http/1.1").await;
    open.write_all(head(100).as_bytes()).await.unwrap();
    // One thread: when the metrics come, that has been read.
    service.metrics().await;
    assert!(service.try_connect("http/1.1").await.is_err());
    assert!(service.metrics().await.contains(r#"connections_refused_total{reason="total_limit"} 1"#));
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_while_old_ones_live_on_and_no_request_fails() {
    // The load opens a connection for each request.
    let service = TokenService::start_with("", Limits { handshakes_per_address: 1_000_000, ..Limits::default() }).await;
    let mut old = service.connect("http/1.1").await;
    let mut roots = vec![service.certificate.clone()];
    let done = CancellationToken::new();
    let (mut load, mut requests) = (JoinSet::new(), 0_u32);
    for _ in 0..3 {
        // The load trusts whatever it is shown: what is tried is that it is never refused.
        let http =
            reqwest::Client::builder().tls_danger_accept_invalid_certs(true).pool_max_idle_per_host(0).no_proxy();
        let (http, url, done) = (http.build().unwrap(), service.url("/token"), done.clone());
        load.spawn(async move {
            let mut count = 0_u32;
            while !done.is_cancelled() {
                let form = [("grant_type", "client_credentials")];
                let answer = http.post(&url).basic_auth(ID, Some(CLIENT_SECRET)).form(&form).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                count += 1;
            }
            count
        });
    }
    for _ in 0..5 {
        let certificate = service.api.person_makes_a_certificate();
        roots.push(certificate.clone());
        service.until("exchanged", async || shown(&service).await == certificate).await;
    }
    // What cannot be read changes nothing.
    let fields = [("tls.crt", &b"x"[..]), ("tls.key", b"y")];
    service.api.person_applies(&super::secret("token-service-tls", "kubernetes.io/tls", &fields));
    let reported = r#"unreadable{object="serving_certificate"} 1"#;
    service.until("reported", async || service.metrics().await.contains(reported)).await;
    assert_eq!(Some(&shown(&service).await), roots.last());
    done.cancel();
    while let Some(count) = load.join_next().await {
        requests += count.unwrap();
    }
    assert!(requests >= 3, "{requests} requests");
    old.write_all(format!("{}{}", head(body().len()), body()).as_bytes()).await.unwrap();
    assert!(read_some(&mut old).await.starts_with("HTTP/1.1 200"), "the connection of the first certificate");
}

/// The certificate that a new connection is shown.
async fn shown(service: &TokenService) -> CertificateDer<'static> {
    let config = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).tls_info(true).no_proxy();
    let answer = config.build().unwrap().get(service.url("/jwks")).send().await.unwrap();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    CertificateDer::from(info.peer_certificate().unwrap().to_vec())
}

#[tokio::test]
async fn a_graceful_end_finishes_what_was_begun_and_accepts_nothing_new() {
    let mut service = TokenService::start().await;
    let mut idle = service.connect("http/1.1").await;
    idle.write_all(b"GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_some(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut begun = service.connect("http/1.1").await;
    begun.write_all(format!("{}{}", head(body().len()), &body()[..20]).as_bytes()).await.unwrap();
    // An answer on another connection after it: the server has read the first half by then.
    service.until("served", async || service.token(ID, CLIENT_SECRET).await.status == StatusCode::OK).await;
    service.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed");
    service.until("closed", async || service.try_connect("http/1.1").await.is_err()).await;
    begun.write_all(&body().as_bytes()[20..]).await.unwrap();
    let answer = read_all(&mut begun).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access_token"), "{answer}");
    service.end().await;
}

#[tokio::test]
async fn an_http_2_connection_is_told_to_go_away() {
    let mut service = TokenService::start().await;
    let http = service.http();
    assert_eq!(http.get(service.url("/jwks")).send().await.unwrap().version(), Version::HTTP_2);
    // The pool holds the connection open; the end does not wait for it.
    let start = Instant::now();
    service.end().await;
    assert!(start.elapsed() < Limits::default().drain, "it went at once");
    assert!(http.get(service.url("/jwks")).send().await.is_err());
}

#[tokio::test]
async fn a_panic_in_a_request_ends_that_request_alone() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let serving = Serving::parse(Some(cert.pem().as_bytes()), Some(signing_key.serialize_pem().as_bytes())).unwrap();
    let certificate = Arc::new(ServingCertificate::default());
    certificate.replace(Arc::new(serving));
    let answer = async |request: Request| match request.uri().path() {
        "/fine" => Response::new(Body::from("fine")),
        _ => panic!("on purpose"),
    };
    let limits = Limits::default();
    let server = Server { certificate, answer, limits, metrics: Metrics::default(), proxies: None };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(server.run(listener, stop.clone()));
    for http_1 in [false, true] {
        let trusted = reqwest::Certificate::from_der(cert.der()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy();
        let http = if http_1 { http.http1_only() } else { http }.build().unwrap();
        let get = |path: &str| http.get(format!("https://{address}{path}")).send();
        assert_eq!(get("/panic").await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(get("/fine").await.unwrap().text().await.unwrap(), "fine");
    }
    stop.cancel();
    timeout(Duration::from_secs(20), running.join_next()).await.unwrap().unwrap().unwrap();
}
