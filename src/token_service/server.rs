//! The accept loop: TLS connections under limits, HTTP/1.1 or HTTP/2 by ALPN, and a graceful end.
//!
//! It knows nothing of OAuth: what is answered is its caller's business. There is no plain HTTP here.

use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::Either;
use http::{Response, StatusCode};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answering::{Answered, Answering, Connection};
use super::buckets::Buckets;
use super::forwarded::sender;
use super::impatient::Impatient;
use super::metrics::{ConnectionRefusal, Metrics};
use super::peer::{Networks, Peer, Sender};
use super::queue::Depths;
use super::service::{Body, Request};
use super::tls::{HTTP_2, ServingCertificate};
use crate::config::forwarded::ForwardedCertificates;
use crate::ledger::Digest;
use crate::seats::{Full, Seat, Seats};

/// What one client, and all clients together, may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in total. One idle connection costs about 24 KB, an attacker's up to 35 KB.
    pub connections: usize,
    /// Open connections of one address. An ingress or a NAT is one address.
    pub connections_per_address: usize,
    /// New connections of one address in a second; five times as many at once. A handshake costs more than a token.
    pub handshakes_per_address: u32,
    /// What counts as one address.
    pub networks: Networks,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's header may take, and how long an HTTP/1.1 connection may be idle; how long an HTTP/2 client
    /// may take to begin, and to answer a ping.
    pub header: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// How long a peer may read nothing at all of its answers; of one answer among several, up to twice as long.
    pub write: Duration,
    /// How old a connection may become before it is asked to end: so that replicas share the load again, and nothing
    /// stays for ever.
    pub connection_age: Duration,
    /// How long open requests may take once their connection or the program stops.
    pub drain: Duration,
    /// How many requests may wait for a thread, for each that there is.
    pub queue: Depths,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            handshakes_per_address: 100,
            networks: Networks::default(),
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(20),
            body: Duration::from_secs(10),
            write: Duration::from_secs(20),
            connection_age: Duration::from_mins(10),
            drain: Duration::from_secs(10),
            queue: Depths { standing: 16, burst: 256 },
        }
    }
}

/// The most bytes of a request's header, and of one buffer of HTTP/1.1.
const LARGEST_HEADER_BYTES: u32 = 16 * 1024;
/// The most header fields of a request.
const MOST_HEADERS: usize = 64;
/// The most requests at a time on one HTTP/2 connection. RFC 9113 §6.5.2 recommends no fewer, and so many are what clients
/// begin with before they have been told.
const MOST_STREAMS: u32 = 100;
/// How many bytes of one body, and of all bodies of an HTTP/2 connection, may be on their way without having been read. The
/// second is the least that there is (RFC 9113 §6.9.2).
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 65_535;
/// How many seconds' worth of new connections an address may open at once.
const HANDSHAKES_SAVED: Duration = Duration::from_secs(5);
/// What the kernel keeps of a connection that the peer has not taken. Left to itself it would keep megabytes.
const UNSENT_BYTES: u32 = 32 * 1024;
/// What TLS keeps beyond that.
const UNSENT_TLS_BYTES: usize = 16 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// With how many bytes an HTTP/2 client begins, before anything of hyper's watches over it (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// The most HTTP/2 streams that a client may have reset before they were looked at (CVE-2023-44487, "rapid reset"): one
/// more ends the connection.
const MOST_RESET_STREAMS: usize = 20;
/// The most HTTP/2 streams that we have reset because the client broke the protocol (RUSTSEC-2024-0003): one more ends
/// the connection.
const MOST_BROKEN_STREAMS: usize = 128;
/// How many connections are accepted before what is open has its turn.
const ACCEPTS_AT_A_TIME: usize = 8;
/// A failed accept (too many open files) is tried again after this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Takes a port for [`Server::run`]. Must be called inside a tokio runtime.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Every accepted connection inherits it.
    socket.set_send_buffer_size(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A TLS server.
#[derive(Debug)]
pub struct Server<A> {
    /// What connections are served with.
    pub certificate: Arc<ServingCertificate>,
    /// What requests are answered with. A panic in it is answered with 500.
    pub answer: A,
    /// What a client may take up.
    pub limits: Limits,
    /// Where refused connections are counted.
    pub metrics: Metrics,
    /// Proxies that are believed when they say who their client is.
    pub proxies: Option<Arc<ForwardedCertificates>>,
}

impl<A, F> Server<A>
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    /// Answers until `stop` is cancelled. Then no more connections are accepted, open requests are finished within
    /// `limits.drain`, and what is left is closed.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        if let Ok(addr) = listener.local_addr() {
            tracing::info!(%addr, "listening");
        }
        let connections = TaskTracker::new();
        let Limits { connections: most, connections_per_address, handshakes_per_address, .. } = self.limits;
        let shared = Arc::new(Shared {
            seats: Arc::new(Seats::new(most, connections_per_address)),
            handshakes: Buckets::new(handshakes_per_address, HANDSHAKES_SAVED),
            since: Instant::now(),
            server: self,
            stop: stop.clone(),
        });
        stop.run_until_cancelled(async {
            loop {
                for _ in 0..ACCEPTS_AT_A_TIME {
                    accept(&shared, &listener, &connections).await;
                }
                // Else a flood of them is taken up first, and every request waits for it.
                yield_now().await;
            }
        })
        .await;
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

struct Shared<A> {
    server: Server<A>,
    seats: Arc<Seats>,
    /// New connections, by address.
    handshakes: Buckets,
    /// When the buckets' time begins.
    since: Instant,
    stop: CancellationToken,
}

async fn accept<A, F>(shared: &Arc<Shared<A>>, listener: &TcpListener, connections: &TaskTracker)
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Ok((stream, peer)) = listener.accept().await else { return sleep(ACCEPT_PAUSE).await };
    let seat = match shared.seat(peer.ip()) {
        Ok(seat) => seat,
        Err(refusal) => return shared.server.metrics.connection_refused(refusal),
    };
    let shared = shared.clone();
    connections.spawn(async move {
        tokio::select! {
            biased;
            () = seat.gives_way() => shared.server.metrics.connection_refused(ConnectionRefusal::GaveWay),
            () = shared.connection(stream, peer.ip(), &seat) => {}
        }
    });
}

impl<A, F> Shared<A>
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    /// A seat for a new connection of an address.
    fn seat(&self, address: IpAddr) -> Result<Seat, ConnectionRefusal> {
        // A proxy is the address of everybody behind it; the limit in total holds for it too.
        if self.server.proxies.as_ref().is_some_and(|proxies| proxies.is_proxy(address)) {
            return self.seats.take_for_many().map_err(|_| ConnectionRefusal::TotalLimit);
        }
        let address = self.server.limits.networks.of(address);
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        if !self.handshakes.take(address, now) {
            return Err(ConnectionRefusal::HandshakeRate);
        }
        self.seats.take(address).map_err(|full| match full {
            Full::Address => ConnectionRefusal::AddressLimit,
            Full::Total => ConnectionRefusal::TotalLimit,
        })
    }

    async fn connection(&self, stream: TcpStream, address: IpAddr, seat: &Seat) {
        let Server { certificate, answer: _, limits, metrics, proxies: _ } = &self.server;
        let Some(config) = certificate.config() else {
            return metrics.connection_refused(ConnectionRefusal::NoCertificate);
        };
        // Without it answers wait for the peer's delayed acknowledgement; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        let accept = TlsAcceptor::from(config).accept_with(stream, |tls| tls.set_buffer_limit(Some(UNSENT_TLS_BYTES)));
        let stream = match timeout(limits.handshake, accept).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return metrics.connection_refused(refusal_of(&error)),
            Err(_) => return metrics.connection_refused(ConnectionRefusal::HandshakeTimeout),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.map(|leaf| Digest::of(leaf));
        let connection = Arc::new(Connection::new(seat.place()));
        self.serve(stream, Peer { address: address.to_canonical(), certificate }, connection).await;
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Peer, connection: Arc<Connection>) {
        let limits = &self.server.limits;
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        let stream = Impatient::new(stream, limits.write);
        let (answer, proxies) = (self.server.answer.clone(), self.server.proxies.clone());
        let (state, credit, networks) = (connection.clone(), connection.credit.clone(), limits.networks);
        let metrics = self.server.metrics.clone();
        let service = service_fn(move |mut request: Request| {
            let Some(answering) = state.begin() else {
                metrics.connection_refused(ConnectionRefusal::OpenRequests);
                return Either::Right(ready(Err(TooManyOpen)));
            };
            let connected = peer.address;
            let peer = sender(proxies.as_deref(), peer, request.headers());
            let networks = if peer.address == connected { networks } else { Networks::outside() };
            let counted_as = networks.of(peer.address);
            request.extensions_mut().insert(Sender { peer, counted_as, credit: credit.clone() });
            Either::Left(contained(answer(request), answering))
        });
        if is_http_2 {
            let io = TokioIo::new(stream.begins_with(PREFACE_BYTES, limits.header));
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .max_local_error_reset_streams(MOST_BROKEN_STREAMS)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .max_pending_accept_reset_streams(MOST_RESET_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                // It bounds the CONTINUATION frames of a header too.
                .max_header_list_size(LARGEST_HEADER_BYTES)
                .keep_alive_interval(limits.header)
                .keep_alive_timeout(limits.header);
            self.drive(builder.serve_connection(io, service), &connection).await;
        } else {
            let io = TokioIo::new(stream);
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header)
                .max_headers(MOST_HEADERS)
                .max_buf_size(LARGEST_HEADER_BYTES as usize)
                // Else hyper reads on while a request is answered, to see whether the client is still there, and takes
                // a fresh buffer for it each time. No answer takes long enough for that to be worth it.
                .half_close(true);
            self.drive(builder.serve_connection(io, service), &connection).await;
        }
    }

    /// Lets a connection live until it ends, is old, or the program stops; then lets it finish what it began. One whose
    /// peer leaves an answer lying is closed at once.
    async fn drive(&self, connection: impl GracefulConnection, state: &Connection) {
        let mut connection = pin!(connection);
        let old = Instant::now() + self.server.limits.connection_age;
        loop {
            let next = (Instant::now() + self.server.limits.write).min(old);
            tokio::select! {
                biased;
                // Peers break off as they like: that is not our failure, and telling it would let them fill our log.
                _ = connection.as_mut() => return,
                () = self.stop.cancelled() => break,
                () = sleep_until(next) => {}
            }
            if next == old {
                break;
            }
            if state.is_stuck() {
                return self.server.metrics.connection_refused(ConnectionRefusal::AnswerTimeout);
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(self.server.limits.drain, connection).await;
    }
}

/// An address leaves too many requests open. hyper makes of it a reset of the stream, or an end of the connection: an answer
/// would lie about like the others.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many open requests of this address")]
struct TooManyOpen;

/// A panic ends its request alone; the panic hook has told where it was. No `async fn`, which would hold the answer's
/// future twice: before it begins, and while it runs.
fn contained(
    answer: impl Future<Output = Response<Body>>,
    answering: Answering,
) -> impl Future<Output = Result<Response<Answered>, TooManyOpen>> {
    AssertUnwindSafe(answer).catch_unwind().map(|answer| {
        let answer = answer.unwrap_or_else(|_| {
            let mut answer = Response::new(Body::default());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        });
        Ok(answer.map(|body| Answered::new(body, answering)))
    })
}

fn refusal_of(error: &io::Error) -> ConnectionRefusal {
    match error.kind() {
        io::ErrorKind::InvalidData => ConnectionRefusal::HandshakeFailed,
        _ => ConnectionRefusal::HandshakeBroken,
    }
}
