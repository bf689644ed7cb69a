//! The plain HTTP port for the kubelet and for Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! Controller and token service have the same one. It is not for clients and shows no credential; it holds back nothing
//! else, so it belongs inside the cluster.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics;
use crate::seats::Seats;

/// The most connections at a time.
const MOST_CONNECTIONS: usize = 64;
/// The most connections of one address. The oldest gives way, so whatever else a node runs, the kubelet's probes on it get
/// an answer.
const MOST_CONNECTIONS_OF_AN_ADDRESS: usize = 8;
/// The most bytes of a request's header.
const LARGEST_HEADER_BYTES: usize = 16 * 1024;
/// A request's header must arrive within this time; an idle connection is closed after it.
const HEADER_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take once the program stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// A failed accept (too many open files) is tried again after this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How far a condition of readiness is fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Fulfilled.
    Ready,
    /// Fulfilled, but not as it should be: work goes on with what is known. The text says what is wrong.
    Degraded(String),
    /// Not fulfilled: requests would fail. The text says what is missing.
    Missing(String),
}

/// One named condition of readiness. The process is ready if none is [`Readiness::Missing`].
pub struct Condition {
    name: &'static str,
    check: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// What the port shows.
#[derive(Debug)]
pub struct Admin {
    /// What must hold before the process is ready.
    pub conditions: Vec<Condition>,
    /// Its metrics, complete: nothing can be registered later.
    pub registry: Registry,
}

impl Condition {
    /// A condition that is checked at each request for `/readyz`. `check` must be quick and must not block.
    pub fn new(name: &'static str, check: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self { name, check: Box::new(check) }
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Admin {
    /// Answers until `stop` is cancelled; then open requests have a second. The error is of `listener` itself.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let addr = listener.local_addr()?;
        tracing::info!(%addr, "admin listening");
        let router = self.router();
        let connections = TaskTracker::new();
        let seats = Arc::new(Seats::new(MOST_CONNECTIONS, MOST_CONNECTIONS_OF_AN_ADDRESS));
        stop.run_until_cancelled(async {
            loop {
                let Ok((stream, peer)) = listener.accept().await else {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let Ok(seat) = seats.take(peer.ip().to_canonical()) else { continue };
                let connection = connection(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! { () = seat.gives_way() => {} () = connection => {} }
                });
            }
        })
        .await;
        connections.close();
        connections.wait().await;
        Ok(())
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get("ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(exposition))
            .with_state(Arc::new(self))
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_WITHIN)
            .max_buf_size(LARGEST_HEADER_BYTES)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        // A peer that breaks off is not our failure.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(DRAIN_WITHIN, connection).await;
}

/// 200 or 503. What is missing is always said, what holds only to `?verbose`.
async fn readyz(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|key| key.split('=').next() == Some("verbose")));
    let (mut text, mut status) = (String::new(), StatusCode::OK);
    for condition in &admin.conditions {
        // Writing to a `String` cannot fail.
        let _ = match (condition.check)() {
            Readiness::Ready if verbose => writeln!(text, "[+] {}: ok", condition.name),
            Readiness::Degraded(detail) if verbose => writeln!(text, "[~] {}: ok, but {detail}", condition.name),
            Readiness::Ready | Readiness::Degraded(_) => Ok(()),
            Readiness::Missing(detail) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                writeln!(text, "[-] {}: {detail}", condition.name)
            }
        };
    }
    text.push_str(if status == StatusCode::OK { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

async fn exposition(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics::text(&admin.registry)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt as _;

    fn admin(states: &[Readiness]) -> Admin {
        let conditions = states.iter().cloned().map(|state| Condition::new("watch", move || state.clone())).collect();
        Admin { conditions, registry: metrics::registry() }
    }

    async fn ask(admin: Admin, uri: &str) -> (StatusCode, String) {
        let answer = admin.router().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_missing_is_said_and_makes_the_process_not_ready() {
        let states = [Readiness::Ready, Readiness::Missing("no list has succeeded yet".into())];
        let (status, text) = ask(admin(&states), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "[-] watch: no list has succeeded yet\nnot ready\n");
    }

    #[tokio::test]
    async fn a_degraded_condition_is_ready_and_told_to_verbose() {
        let states = [Readiness::Ready, Readiness::Degraded("nothing heard for 40 s".into())];
        assert_eq!(ask(admin(&states), "/readyz").await, (StatusCode::OK, "ready\n".into()));
        let (status, text) = ask(admin(&states), "/readyz?verbose").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text, "[+] watch: ok\n[~] watch: ok, but nothing heard for 40 s\nready\n");
    }

    /// A running port: where it is, and what stops it.
    async fn start() -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinSet<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(admin(&[]).run(listener, stop.clone()));
        (address, stop, running)
    }

    /// What a probe from this address of loopback is told.
    async fn probe(address: std::net::SocketAddr, from: [u8; 4]) -> String {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn whoever_holds_all_connections_keeps_no_probe_from_its_answer() {
        let (address, _stop, _running) = start().await;
        let mut held = Vec::new();
        for n in 0..MOST_CONNECTIONS {
            // Eight addresses with eight connections each, which never say anything.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 1, u8::try_from(1 + n / 8).unwrap()], 0).into()).unwrap();
            held.push(socket.connect(address).await.unwrap());
        }
        // The kubelet's own address, and one of those that are full.
        for from in [[127, 0, 0, 1], [127, 0, 1, 3]] {
            for _ in 0..20 {
                let answer = probe(address, from).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{from:?}: {answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_port_answers_and_stops() {
        let (address, stop, mut running) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("appreg_build_info"), "{answer}");
        stop.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "the idle connection was closed");
    }
}
