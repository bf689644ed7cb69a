//! An HTTP/1.1 proxy between a program and the API server, which counts requests and breaks them.
//!
//! The program's side is plain HTTP on loopback; each of its connections has one TLS connection of its own to the API
//! server, so losing one loses the other. Whoever the program is, it stays: its bearer token passes through. Bodies
//! are streamed, so a watch delivers at once.
//!
//! Faults are [`Rule`]s: the n-th request that matches is dropped, held, delayed or answered in the API server's
//! place, before it is forwarded or after the API server has committed it. Beyond that the proxy can freeze as a whole,
//! hold back watches, and reset connections.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    ops::{Deref, Range},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex as AsyncMutex, watch},
};
use tokio_util::task::AbortOnDropHandle;

use super::{access::Access, process::POLL};

/// Which requests a fault is for.
type Predicate = Arc<dyn Fn(&Request) -> bool + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Broken>;
type Upstream = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// One request that came to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In the order of arrival, from 0.
    pub number: usize,
    pub method: http::Method,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// What the program was answered; `None` as long as it was not, and where it never was.
    pub status: Option<u16>,
    /// Whether the API server answered, whatever the program heard of it.
    pub committed: bool,
}

impl Request {
    /// Whether its method changes something.
    pub fn is_write(&self) -> bool {
        !matches!(
            self.method,
            http::Method::GET | http::Method::HEAD | http::Method::OPTIONS
        )
    }

    pub fn is_watch(&self) -> bool {
        self.query
            .split('&')
            .any(|parameter| parameter == "watch=true" || parameter == "watch=1")
    }

    /// The plural name of the resource, with the subresource: `secrets`, `appregistrations/status`.
    pub fn resource(&self) -> String {
        let segments = self.segments();
        match segments[..] {
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => resource.to_owned(),
            [] => String::new(),
        }
    }

    /// Empty for a cluster-scoped request.
    pub fn namespace(&self) -> &str {
        let mut segments = self
            .path
            .split('/')
            .skip_while(|segment| *segment != "namespaces");
        segments.nth(1).unwrap_or_default()
    }

    /// Empty for a list, a watch and a create.
    pub fn name(&self) -> &str {
        self.segments().get(1).copied().unwrap_or_default()
    }

    /// Resource, name, subresource of `/api/v1/namespaces/<ns>/<resource>/<name>/<subresource>` and its like.
    fn segments(&self) -> Vec<&str> {
        let all: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let after_version = match all[..] {
            ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
            _ => &[],
        };
        match after_version {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.to_vec(),
            rest => rest.to_vec(),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = if self.query.is_empty() {
            String::new()
        } else {
            format!("?{}", self.query)
        };
        let status = self
            .status
            .map_or("unanswered".to_owned(), |status| status.to_string());
        let committed = if self.committed {
            ""
        } else {
            " (not committed)"
        };
        write!(
            f,
            "{} {} {}{query} {status}{committed}",
            self.number, self.method, self.path
        )
    }
}

/// Where a request is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The API server never sees it.
    BeforeRequest,
    /// The API server has done it; the program does not hear of it.
    AfterCommitBeforeReply,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its connection ends without an answer.
    Drop(Side),
    /// It hangs there, and so does everything else, until [`Proxy::thaw`]: time to kill the program, as if it had died
    /// exactly here. The thaw then ends every connection that there was; no request that hung is forwarded any more.
    Freeze(Side),
    /// The program gets a `Status` with this code.
    Answer(Side, u16),
    /// It is forwarded so much later.
    Delay(Duration),
}

/// A fault, and which requests it is for.
#[derive(Clone)]
pub struct Rule {
    matches: Predicate,
    hits: Range<usize>,
    fault: Fault,
}

impl Rule {
    /// `fault` for every request that `matches`.
    pub fn new(fault: Fault, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self {
            matches: Arc::new(matches),
            hits: 0..usize::MAX,
            fault,
        }
    }

    /// Only for the n-th of them (from 0), counted from now.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        Self {
            hits: n..n + 1,
            ..self
        }
    }

    /// Only for the first n of them.
    #[must_use]
    pub fn first(self, n: usize) -> Self {
        Self { hits: 0..n, ..self }
    }
}

/// A rule at work; dropping it ends it.
#[must_use = "dropping it ends the rule"]
pub struct Injected {
    shared: Arc<Shared>,
    rule: Arc<ActiveRule>,
}

impl Injected {
    /// How many requests matched, hit or not.
    pub fn matched(&self) -> usize {
        self.rule.matched.load(Ordering::SeqCst)
    }

    /// The requests that were hit: for [`Side::AfterCommitBeforeReply`], once the API server has done them.
    pub fn hit(&self) -> Vec<Request> {
        lock(&self.rule.hit).clone()
    }

    /// Waits for the first hit.
    pub async fn fired(&self, within: Duration) -> anyhow::Result<Request> {
        let wait = async {
            loop {
                if let Some(request) = self.hit().into_iter().next() {
                    return request;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(within, wait).await.with_context(|| {
            let seen = self.shared.requests();
            let tail: Vec<String> = seen
                .iter()
                .rev()
                .take(20)
                .rev()
                .map(ToString::to_string)
                .collect();
            format!(
                "the fault {:?} hit no request; the last were\n{}",
                self.rule.rule.fault,
                tail.join("\n")
            )
        })
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        lock(&self.shared.state)
            .rules
            .retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

/// Watches that are held back; dropping it lets them go on.
#[must_use = "dropping it opens the gate"]
pub struct Gate {
    shared: Arc<Shared>,
    holds: Predicate,
}

impl Drop for Gate {
    fn drop(&mut self) {
        lock(&self.shared.state)
            .gates
            .retain(|gate| !Arc::ptr_eq(gate, &self.holds));
        self.shared.changed();
    }
}

/// The proxy. Dropping it closes every connection.
pub struct Proxy {
    access: Access,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

impl Deref for Proxy {
    type Target = Access;
    /// How users reach the API server through the proxy.
    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`: a [`super::ControlPlane`], or another proxy of it.
    pub async fn start(target: &Access) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(target.ca_der().to_vec()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authority = target
            .server()
            .strip_prefix("https://")
            .context("a proxy needs an https target")?;
        let shared = Arc::new(Shared {
            target: authority.parse().context("an address and a port")?,
            tls: tokio_rustls::TlsConnector::from(Arc::new(tls)),
            state: Mutex::default(),
            change: watch::Sender::new(()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let access = target.via(format!("http://{}", listener.local_addr()?));
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared.clone())));
        Ok(Self {
            access,
            shared,
            _accepting: accepting,
        })
    }

    /// Every request since the start or the last [`Self::forget`], in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests()
    }

    /// Those that change something.
    pub fn writes(&self) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(Request::is_write)
            .collect()
    }

    /// Forgets the requests so far; the numbers go on.
    pub fn forget(&self) {
        let mut state = lock(&self.shared.state);
        state.forgotten += state.requests.len();
        state.requests.clear();
    }

    /// Puts a rule to work, behind those that already are: the first that hits a request decides.
    pub fn inject(&self, rule: Rule) -> Injected {
        let rule = Arc::new(ActiveRule {
            rule,
            matched: AtomicUsize::new(0),
            hit: Mutex::default(),
        });
        lock(&self.shared.state).rules.push(rule.clone());
        Injected {
            shared: self.shared.clone(),
            rule,
        }
    }

    /// Freezes everything at the k-th write (from 0) that `matches`: [`Injected::fired`], kill the program,
    /// [`Self::thaw`].
    pub fn cut(
        &self,
        k: usize,
        side: Side,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) -> Injected {
        self.inject(
            Rule::new(Fault::Freeze(side), move |request| {
                request.is_write() && matches(request)
            })
            .nth(k),
        )
    }

    /// Nothing passes any more in either direction; connections stay open, new ones are accepted.
    pub fn freeze(&self) {
        lock(&self.shared.state).frozen = true;
        self.shared.changed();
    }

    /// Goes on: after [`Self::freeze`] where it stopped, after [`Fault::Freeze`] with new connections alone.
    pub fn thaw(&self) {
        {
            let mut state = lock(&self.shared.state);
            state.frozen = false;
            if std::mem::take(&mut state.cut) {
                let next = state.next_number();
                state.resets.push((next, Arc::new(|_| true)));
                state.epoch += 1;
            }
        }
        self.shared.changed();
    }

    /// Holds back what watches that match deliver, in front of the program; other requests pass.
    pub fn hold_watches(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Gate {
        let holds: Predicate = Arc::new(matches);
        lock(&self.shared.state).gates.push(holds.clone());
        Gate {
            shared: self.shared.clone(),
            holds,
        }
    }

    /// Ends the connections of requests that are being answered now, watches above all, and that match.
    pub fn reset(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        {
            let mut state = lock(&self.shared.state);
            let next = state.next_number();
            state.resets.push((next, Arc::new(matches)));
        }
        self.shared.changed();
    }
}

struct ActiveRule {
    rule: Rule,
    matched: AtomicUsize,
    hit: Mutex<Vec<Request>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    forgotten: usize,
    rules: Vec<Arc<ActiveRule>>,
    frozen: bool,
    /// Frozen by a fault: what there is now ends with the thaw.
    cut: bool,
    /// How often that was. Connections of an earlier epoch carry no more requests.
    epoch: usize,
    gates: Vec<Predicate>,
    /// Requests with a lower number that match are reset.
    resets: Vec<(usize, Predicate)>,
}

impl State {
    fn next_number(&self) -> usize {
        self.forgotten + self.requests.len()
    }
}

struct Shared {
    target: SocketAddr,
    tls: tokio_rustls::TlsConnector,
    state: Mutex<State>,
    /// Says that `frozen`, `gates` or `resets` changed.
    change: watch::Sender<()>,
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Self(error.to_string())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

impl Shared {
    fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    fn changed(&self) {
        self.change.send_replace(());
    }

    /// Takes a request in, and says which rule hits it.
    fn arrived(&self, parts: &http::request::Parts) -> (Request, Option<Arc<ActiveRule>>) {
        let mut state = lock(&self.state);
        let request = Request {
            number: state.next_number(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            status: None,
            committed: false,
        };
        state.requests.push(request.clone());
        let mut hit = None;
        for rule in &state.rules {
            if (rule.rule.matches)(&request) {
                let n = rule.matched.fetch_add(1, Ordering::SeqCst);
                if hit.is_none() && rule.rule.hits.contains(&n) {
                    hit = Some(rule.clone());
                }
            }
        }
        (request, hit)
    }

    fn update(&self, request: &mut Request, change: impl FnOnce(&mut Request)) {
        change(request);
        let mut state = lock(&self.state);
        let known = request
            .number
            .checked_sub(state.forgotten)
            .and_then(|index| state.requests.get_mut(index));
        if let Some(known) = known {
            known.clone_from(request);
        }
    }

    /// Waits as long as the proxy is frozen; an error where the connection was made before a cut.
    async fn pass(&self, epoch: usize) -> Result<(), Broken> {
        let current = self
            .wait(|state| (!state.frozen).then_some(state.epoch))
            .await;
        if epoch < current {
            Err(Broken("made before the cut".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Waits as long as what `request` streams is held back; an error where it was reset.
    async fn pass_frame(&self, request: &Request) -> Result<(), Broken> {
        self.wait(|state| {
            if was_reset(state, request) {
                return Some(Err(Broken("reset".to_owned())));
            }
            let held = state.frozen
                || state
                    .gates
                    .iter()
                    .any(|gate| request.is_watch() && gate(request));
            (!held).then_some(Ok(()))
        })
        .await
    }

    /// Freezes everything at a hit, and fails when that has been thawed.
    async fn cut(&self, hit: impl FnOnce()) -> Broken {
        {
            let mut state = lock(&self.state);
            state.frozen = true;
            state.cut = true;
        }
        hit();
        self.wait(|state| (!state.frozen).then_some(())).await;
        Broken("cut".to_owned())
    }

    /// Waits until `request` is reset.
    async fn until_reset(&self, request: &Request) {
        self.wait(|state| was_reset(state, request).then_some(()))
            .await;
    }

    async fn wait<T>(&self, question: impl Fn(&State) -> Option<T>) -> T {
        let mut change = self.change.subscribe();
        loop {
            change.mark_unchanged();
            if let Some(answer) = question(&lock(&self.state)) {
                return answer;
            }
            // The sender is ours: it cannot be gone.
            let _ = change.changed().await;
        }
    }
}

fn was_reset(state: &State, request: &Request) -> bool {
    state
        .resets
        .iter()
        .any(|(before, matches)| request.number < *before && matches(request))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new(); // ends them when the proxy is dropped
    loop {
        tokio::select! {
            Ok((connection, _)) = listener.accept() => {
                connections.spawn(serve(connection, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection of the program, and one to the API server for it, made when it is first needed.
struct Link {
    epoch: usize,
    upstream: AsyncMutex<Option<Upstream>>,
    shared: Arc<Shared>,
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let _ = connection.set_nodelay(true);
    let epoch = lock(&shared.state).epoch;
    let link = Arc::new(Link {
        epoch,
        upstream: AsyncMutex::default(),
        shared,
    });
    let service = hyper::service::service_fn(move |request| answer(request, link.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await; // an error is a connection that ended, ours to break or theirs to close
}

async fn answer(
    incoming: http::Request<Incoming>,
    link: Arc<Link>,
) -> Result<http::Response<Body>, Broken> {
    let shared = &link.shared;
    let (parts, body) = incoming.into_parts();
    let body = body.collect().await?.to_bytes();
    shared.pass(link.epoch).await?;
    let (mut request, rule) = shared.arrived(&parts);
    let fault = rule.as_ref().map(|rule| rule.rule.fault);
    let hit = |request: &Request| {
        if let Some(rule) = &rule {
            lock(&rule.hit).push(request.clone());
        }
    };

    match fault {
        Some(Fault::Drop(Side::BeforeRequest)) => {
            hit(&request);
            return Err(Broken("dropped".to_owned()));
        }
        Some(Fault::Freeze(Side::BeforeRequest)) => return Err(shared.cut(|| hit(&request)).await),
        Some(Fault::Answer(Side::BeforeRequest, code)) => {
            shared.update(&mut request, |request| request.status = Some(code));
            hit(&request);
            return Ok(status(code));
        }
        Some(Fault::Delay(delay)) => {
            hit(&request);
            tokio::time::sleep(delay).await;
        }
        Some(_) | None => {}
    }

    // In a task of its own: once it is on its way it is done, even where the program is killed meanwhile.
    let forwarding = {
        let outgoing = http::Request::from_parts(parts, Full::new(body));
        let link = link.clone();
        tokio::spawn(async move { forward(outgoing, &link).await })
    };
    let response = tokio::select! {
        response = forwarding => response.map_err(|error| Broken(error.to_string()))??,
        () = shared.until_reset(&request) => return Err(Broken("reset".to_owned())),
    };
    shared.update(&mut request, |request| request.committed = true);

    match fault {
        Some(Fault::Drop(Side::AfterCommitBeforeReply)) => {
            hit(&request);
            Err(Broken("dropped".to_owned()))
        }
        Some(Fault::Freeze(Side::AfterCommitBeforeReply)) => {
            Err(shared.cut(|| hit(&request)).await)
        }
        Some(Fault::Answer(Side::AfterCommitBeforeReply, code)) => {
            shared.update(&mut request, |request| request.status = Some(code));
            hit(&request);
            Ok(status(code))
        }
        Some(_) | None => {
            shared.pass(link.epoch).await?;
            shared.update(&mut request, |request| {
                request.status = Some(response.status().as_u16());
            });
            Ok(response.map(|body| stream(body, request, shared.clone())))
        }
    }
}

async fn forward(
    request: http::Request<Full<Bytes>>,
    link: &Link,
) -> Result<http::Response<Incoming>, Broken> {
    let mut upstream = link.upstream.lock().await;
    if upstream.as_mut().is_none_or(|sender| sender.is_closed()) {
        *upstream = Some(
            connect(&link.shared)
                .await
                .map_err(|error| Broken(format!("{error:#}")))?,
        );
    }
    let sender = upstream.as_mut().expect("it was just made");
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

async fn connect(shared: &Shared) -> anyhow::Result<Upstream> {
    let connection = TcpStream::connect(shared.target).await?;
    connection.set_nodelay(true)?;
    let name = ServerName::IpAddress(shared.target.ip().into());
    let connection = shared.tls.connect(name, connection).await?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(connection); // ends with the sender, or with the API server
    Ok(sender)
}

/// The body frame by frame, each when it may pass.
fn stream(body: Incoming, request: Request, shared: Arc<Shared>) -> Body {
    let frames = futures::stream::unfold(Some(body), move |body| {
        let (request, shared) = (request.clone(), shared.clone());
        async move {
            let mut body = body?;
            let frame = tokio::select! {
                frame = body.frame() => frame?,
                () = shared.until_reset(&request) => return Some((Err(Broken("reset".to_owned())), None)),
            };
            if let Err(broken) = shared.pass_frame(&request).await {
                return Some((Err(broken), None));
            }
            match frame {
                Ok(frame) => Some((Ok(frame), Some(body))),
                Err(error) => Some((Err(Broken::from(error)), None)),
            }
        }
    });
    StreamBody::new(frames.boxed()).boxed_unsync()
}

/// What an API server says where it refuses a request.
fn status(code: u16) -> http::Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason}, says the tests' proxy"), "reason": reason, "code": code,
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
    http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .expect("a valid response")
}
