//! The accept loop: TLS connections under limits, HTTP/1.1 or HTTP/2 by ALPN, and a graceful end.
//!
//! It knows nothing of OAuth: what is answered is its caller's business. There is no plain HTTP here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use http::{Response, StatusCode};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forwarded::sender;
use super::impatient::Impatient;
use super::metrics::{ConnectionRefusal, Metrics};
use super::peer::{Peer, network};
use super::queue::Depths;
use super::service::{Body, Request};
use super::tls::{HTTP_2, ServingCertificate};
use crate::config::forwarded::ForwardedCertificates;
use crate::ledger::Digest;

/// What one client, and all clients together, may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in total. One idle connection costs about 24 KB, an attacker's up to 35 KB.
    pub connections: usize,
    /// Open connections of one address; of one /64 with IPv6. An ingress or a NAT is one address.
    pub connections_per_address: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's header may take, and how long an HTTP/1.1 connection may be idle; how long an HTTP/2 client
    /// may take to begin, and to answer a ping.
    pub header: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// How long a peer may read nothing at all of its answers.
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
/// The most requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 128;
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
        let shared = Arc::new(Shared {
            permits: Arc::new(Semaphore::new(self.limits.connections)),
            addresses: Arc::new(Addresses::new(self.limits.connections_per_address)),
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
    permits: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    stop: CancellationToken,
}

async fn accept<A, F>(shared: &Arc<Shared<A>>, listener: &TcpListener, connections: &TaskTracker)
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Ok((stream, peer)) = listener.accept().await else { return sleep(ACCEPT_PAUSE).await };
    let refused = |refusal| shared.server.metrics.connection_refused(refusal);
    let Ok(permit) = shared.permits.clone().try_acquire_owned() else {
        return refused(ConnectionRefusal::TotalLimit);
    };
    // A proxy is the address of everybody behind it; the limit in total holds for it too.
    let is_proxy = shared.server.proxies.as_ref().is_some_and(|proxies| proxies.is_proxy(peer.ip()));
    let seat = if is_proxy { None } else { Addresses::take(&shared.addresses, peer.ip()) };
    if seat.is_none() && !is_proxy {
        return refused(ConnectionRefusal::AddressLimit);
    }
    let shared = shared.clone();
    connections.spawn(async move {
        let _held = (permit, seat);
        shared.connection(stream, peer.ip()).await;
    });
}

impl<A, F> Shared<A>
where
    A: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn connection(&self, stream: TcpStream, address: IpAddr) {
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
        self.serve(stream, Peer { address: address.to_canonical(), certificate }).await;
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Peer) {
        let limits = &self.server.limits;
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        let stream = Impatient::new(stream, limits.write);
        let (answer, proxies) = (self.server.answer.clone(), self.server.proxies.clone());
        let service = service_fn(move |mut request: Request| {
            let sender = sender(proxies.as_deref(), peer, request.headers());
            request.extensions_mut().insert(sender);
            contained(answer(request))
        });
        if is_http_2 {
            let io = TokioIo::new(stream.begins_with(PREFACE_BYTES, limits.header));
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .max_local_error_reset_streams(MOST_BROKEN_STREAMS)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .max_pending_accept_reset_streams(MOST_RESET_STREAMS)
                // It bounds the CONTINUATION frames of a header too.
                .max_header_list_size(LARGEST_HEADER_BYTES)
                .keep_alive_interval(limits.header)
                .keep_alive_timeout(limits.header);
            self.drive(builder.serve_connection(io, service)).await;
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
            self.drive(builder.serve_connection(io, service)).await;
        }
    }

    /// Lets a connection live until it ends, is old, or the program stops; then lets it finish what it began.
    async fn drive(&self, connection: impl GracefulConnection) {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            // Peers break off as they like: that is not our failure, and telling it would let them fill our log.
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => {}
            () = sleep(self.server.limits.connection_age) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(self.server.limits.drain, connection).await;
    }
}

/// A panic ends its request alone; the panic hook has told where it was. No `async fn`, which would hold the answer's
/// future twice: before it begins, and while it runs.
fn contained(answer: impl Future<Output = Response<Body>>) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    AssertUnwindSafe(answer).catch_unwind().map(|answer| {
        Ok(answer.unwrap_or_else(|_| {
            let mut answer = Response::new(Body::default());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }))
    })
}

fn refusal_of(error: &io::Error) -> ConnectionRefusal {
    match error.kind() {
        io::ErrorKind::InvalidData => ConnectionRefusal::HandshakeFailed,
        _ => ConnectionRefusal::HandshakeBroken,
    }
}

/// How many connections each address has open.
#[derive(Debug)]
struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address, counted until it is dropped.
#[derive(Debug)]
struct Seat {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    fn take(this: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= this.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Seat { addresses: this.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_seats_as_allowed_and_gets_them_back() {
        let addresses = Arc::new(Addresses::new(2));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = Addresses::take(&addresses, address).unwrap();
        let second = Addresses::take(&addresses, "::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(Addresses::take(&addresses, address).is_none());
        assert!(Addresses::take(&addresses, "192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(Addresses::take(&addresses, address).is_some());
        drop(second);
        assert!(addresses.open.lock().unwrap().is_empty(), "nothing is remembered of who has left");
    }
}
