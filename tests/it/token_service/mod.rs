//! The token service as a whole: real TLS on loopback in front, the fake API server behind, a clock set by hand.

#![expect(clippy::unwrap_used, reason = "tests")]

mod abuse;
mod apis;
mod connections;
mod documents;
mod follow;
mod forwarded;
mod http2_abuse;
mod introspection;
mod lists;
mod live;
mod logs;
mod mutual_tls;
mod overload;
mod private_key_jwt;
mod proofs;
mod revocation;
mod rfcs;
mod service_account;
mod several_servers;
mod signing_keys;
mod token_endpoint;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use appreg::api::names::LEDGER_SECRET_TYPE;
use appreg::clock::{Clock as _, ManualClock};
use appreg::config::Config;
use appreg::kubernetes::client::Clients;
use appreg::ledger::{self, Digest};
use appreg::mint::signing_key::{self, MintedSigningKey};
use appreg::shared_lists::{NAMES, REVOKED_FIELD, USED_FIELD};
use appreg::signer::{Algorithm, INDEX_FIELD, Index};
use appreg::token_service::failures::Rates;
use appreg::token_service::server::Limits;
use appreg::token_service::{self, Listeners, Settings, keys, tls};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::fake_api::FakeApi;

const NAMESPACE: &str = "appreg-ledger";
const NOW: &str = "2026-11-22T10:00:00Z";
const CLIENT_SECRET: &str = "apr_canary0123456789";

/// A condition that holds within moments or never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time that stands still until it is told to pass, for [`PATIENCE`] at most. tokio's own paused time jumps to the next
/// deadline whenever no task is ready, so also while bytes are on their way through the kernel; while a blocking task runs
/// it does not.
struct StoppedTime {
    start: Instant,
    _held: std::sync::mpsc::Sender<()>,
}

impl StoppedTime {
    fn new() -> Self {
        let (held, released) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || released.recv_timeout(PATIENCE)));
        tokio::time::pause();
        Self { start: Instant::now(), _held: held }
    }

    /// Lets time pass until it is so long after the start.
    async fn comes(&self, after_start: Duration) {
        tokio::time::advance(after_start.saturating_sub(self.start.elapsed())).await;
    }
}

/// Whether a peer has not hung up. What it has said is passed over.
async fn is_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    loop {
        match futures::poll!(std::pin::pin!(stream.read(&mut [0; 64]))) {
            Poll::Pending => return true,
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return false,
        }
    }
}

/// A running token service.
struct TokenService {
    api: FakeApi,
    clock: Arc<ManualClock>,
    address: SocketAddr,
    admin: SocketAddr,
    issuer: String,
    certificate: CertificateDer<'static>,
    /// For [`Self::post`] and the admin port: to make a client takes longer than a request.
    client: reqwest::Client,
    stop: CancellationToken,
    running: JoinSet<Result<(), token_service::Error>>,
}

/// What an answer said.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl TokenService {
    /// Starts one with a certificate, a signing key and the client `shop.storefront`, and waits until it is ready.
    async fn start() -> Self {
        Self::start_with("", Limits::default()).await
    }

    async fn start_with(issuer_path: &str, limits: Limits) -> Self {
        let api = FakeApi::new();
        let certificate = api.person_makes_a_certificate();
        api.person_makes_signing_keys();
        api.person_makes_lists();
        api.person_applies(&Entry::new("shop.storefront").secret());
        proofs::cluster().publish(&api);
        let service = Self::start_on(api, certificate, issuer_path, limits).await;
        service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
        service
    }

    /// Starts one that believes what proxies at `range` say in this header.
    async fn start_behind(header: &str, range: &str, limits: Limits) -> Self {
        let api = FakeApi::new();
        let certificate = api.person_makes_a_certificate();
        api.person_makes_signing_keys();
        proofs::cluster().publish(&api);
        let more = format!(", forwardedCertificates: {{header: {header}, proxies: [\"{range}\"]}}");
        let service = Self::start_configured(api, certificate, "", limits, &more).await;
        service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
        service
    }

    /// Starts one over whatever is in the API server.
    async fn start_on(api: FakeApi, certificate: CertificateDer<'static>, issuer_path: &str, limits: Limits) -> Self {
        Self::start_configured(api, certificate, issuer_path, limits, "").await
    }

    async fn start_configured(
        api: FakeApi,
        certificate: CertificateDer<'static>,
        issuer_path: &str,
        limits: Limits,
        more: &str,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
        let issuer = |address| format!("https://{address}{issuer_path}");
        Self::start_as((api, certificate, clock), issuer, limits, more).await
    }

    /// Another replica: the same API server, issuer and clock, and an address of its own. Waits until it is ready.
    async fn twin(&self) -> Self {
        let issuer = self.issuer.clone();
        let world = (self.api.clone(), self.certificate.clone(), self.clock.clone());
        let twin = Self::start_as(world, |_| issuer, Limits::default(), "").await;
        twin.until("ready", async || twin.readyz().await.status == StatusCode::OK).await;
        twin
    }

    async fn start_as(
        (api, certificate, clock): (FakeApi, CertificateDer<'static>, Arc<ManualClock>),
        issuer: impl FnOnce(SocketAddr) -> String,
        limits: Limits,
        more: &str,
    ) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let free = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(free, free).await.unwrap();
        let (address, admin) = (listeners.clients.local_addr().unwrap(), listeners.admin.local_addr().unwrap());
        let issuer = issuer(address);
        let config = format!(
            "authorizationServer: {{issuer: \"{issuer}\", defaultAudience: \"https://default.example\"{more}}}"
        );
        let server = Config::parse(&config).unwrap().server;
        let settings = Settings { server, ledger_namespace: NAMESPACE.into(), limits, failures: Rates::default() };
        let clients = Clients { watches: api.client(), requests: api.client(), writes: api.client() };
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(token_service::run(settings, listeners, clients, clock.clone(), stop.clone()));
        let client = trusting(&certificate).build().unwrap();
        Self { api, clock, address, admin, issuer, certificate, client, stop, running }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A client that trusts the certificate of the start. Every one has its own connections.
    fn http(&self) -> reqwest::Client {
        trusting(&self.certificate).build().unwrap()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        answer_of(request.send().await.unwrap()).await
    }

    /// Asks for a token with `client_secret_basic`.
    async fn token(&self, client_id: &str, client_secret: &str) -> Answer {
        let form = [("grant_type", "client_credentials")];
        let request = self.http().post(self.url("/token")).basic_auth(client_id, Some(client_secret));
        self.send(request.form(&form)).await
    }

    /// Asserts that the client of [`Self::start`] gets a token on a new connection.
    async fn is_served(&self) {
        assert_eq!(self.token("shop.storefront", CLIENT_SECRET).await.status, StatusCode::OK);
    }

    /// Posts a form to an endpoint with `client_secret_basic`.
    async fn post_as(&self, path: &str, client_id: &str, form: &[(&str, &str)]) -> Answer {
        let request = self.http().post(self.url(path)).basic_auth(client_id, Some(CLIENT_SECRET));
        self.send(request.form(form)).await
    }

    /// Posts a form to the token endpoint, without an `Authorization` header.
    async fn post(&self, form: &[(&str, &str)]) -> Answer {
        self.send(self.client.post(self.url("/token")).form(form)).await
    }

    /// How many requests to the token endpoint ended like this.
    async fn ended(&self, outcome: &str) -> u64 {
        let line = format!(r#"appreg_token_service_requests_total{{endpoint="token",outcome="{outcome}"}} "#);
        let metrics = self.metrics().await;
        metrics.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    async fn readyz(&self) -> Answer {
        self.send(self.client.get(format!("http://{}/readyz?verbose", self.admin))).await
    }

    async fn metrics(&self) -> String {
        self.send(self.client.get(format!("http://{}/metrics", self.admin))).await.body
    }

    /// Waits for something that the watch will bring about.
    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let polled = timeout(PATIENCE, async {
            while !condition().await {
                sleep(Duration::from_millis(2)).await;
            }
        });
        let never = polled.await.is_err();
        assert!(
            !never,
            "{what}: never: {:?}\n{}\n{:#?}",
            self.readyz().await,
            self.metrics().await,
            self.api.requests()
        );
    }

    /// A TLS connection of our own, with this protocol and the trust of the start.
    async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        self.try_connect(protocol).await.unwrap()
    }

    async fn try_connect(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.try_connect_from(1, protocol).await
    }

    /// The same from the address 127.0.0.`host`.
    async fn try_connect_from(&self, host: u8, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, host], 0).into())?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(self.address.ip().into(), stream).await
    }

    /// Stops it and waits for its end.
    async fn end(&mut self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and OAuth error.
    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

fn trusting(certificate: &CertificateDer<'_>) -> reqwest::ClientBuilder {
    let trusted = reqwest::Certificate::from_der(certificate).unwrap();
    reqwest::Client::builder().tls_certs_only([trusted]).no_proxy()
}

async fn answer_of(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

/// The claims of a token, read without verification.
fn claims(answer: &Answer) -> Value {
    let json = answer.json();
    let token = json["access_token"].as_str().unwrap_or_else(|| panic!("no token in {answer:?}"));
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A ledger entry in the making.
#[derive(Clone)]
struct Entry(Value);

impl Entry {
    /// A client of the server `default` with two scopes and the client secret [`CLIENT_SECRET`], valid for 90 days
    /// around now.
    fn new(client_id: &str) -> Self {
        let entry = Self(json!({
            "version": 1, "server": "default", "clientID": client_id,
            "owner": {"namespace": "shop", "name": "storefront", "uid": "u"}, "createdAt": "2026-01-01T00:00:00Z",
            "grant": {
                "scopes": {"orders:read": "policy/default", "orders:write": "policy/default"},
                "authMethods": ["client_secret_basic", "client_secret_post"],
            },
            "credentials": {},
        }));
        entry.client_secret("web", CLIENT_SECRET, "2026-10-01T00:00:00Z", "2026-12-30T00:00:00Z")
    }

    /// The same with one more revision.
    fn client_secret(mut self, entry: &str, client_secret: &str, minted_at: &str, not_after: &str) -> Self {
        let credentials = self.0["credentials"].as_object_mut().unwrap();
        let credential = credentials.entry(entry).or_insert_with(|| json!({"kind": "clientSecret", "revisions": []}));
        let revisions = credential["revisions"].as_array_mut().unwrap();
        let sha256 = Digest::of(client_secret.as_bytes()).to_base64url();
        revisions.push(json!({
            "revision": revisions.len() + 1, "mintedAt": minted_at, "notAfter": not_after,
            "verifier": {"sha256": sha256},
        }));
        self
    }

    /// The same with one more revision of an entry that has this kind and verifier.
    fn revision(mut self, (entry, kind): (&str, &str), verifier: &Value, from: &str, until: &str) -> Self {
        let credentials = self.0["credentials"].as_object_mut().unwrap();
        let credential = credentials.entry(entry).or_insert_with(|| json!({"kind": kind, "revisions": []}));
        let revisions = credential["revisions"].as_array_mut().unwrap();
        let number = revisions.len() + 1;
        revisions.push(json!({"revision": number, "mintedAt": from, "notAfter": until, "verifier": verifier}));
        self
    }

    /// The same with a `ServiceAccount`.
    fn service_account(mut self, entry: &str, subject: &str, revoked_before: Option<&str>) -> Self {
        self.0["credentials"][entry] =
            json!({"kind": proofs::SERVICE_ACCOUNT, "subject": subject, "revokedBefore": revoked_before});
        self
    }

    /// The same with these grant types.
    fn grant_types(mut self, grant_types: &[&str]) -> Self {
        self.0["grant"]["grantTypes"] = json!(grant_types);
        self
    }

    /// The same with another grant.
    fn granted(mut self, what: &str, items: &[&str]) -> Self {
        let items: serde_json::Map<_, _> =
            items.iter().map(|item| ((*item).to_owned(), json!("policy/default"))).collect();
        self.0["grant"][what] = items.into();
        self
    }

    /// The same with one more API that it may call, with these scopes there. The first is the one that is meant where none
    /// is named.
    fn api(mut self, audience: &str, scopes: &[&str]) -> Self {
        let scopes: serde_json::Map<_, _> =
            scopes.iter().map(|scope| ((*scope).to_owned(), json!("policy/default"))).collect();
        let grant = &mut self.0["grant"];
        grant["apis"][audience] = json!({"by": "policy/default", "scopes": scopes});
        if grant["defaultAudience"].is_null() {
            grant["defaultAudience"] = json!(audience);
        }
        self
    }

    fn methods(mut self, methods: &[&str]) -> Self {
        self.0["grant"]["authMethods"] = json!(methods);
        self
    }

    fn secret_name(&self) -> String {
        ledger::name(self.0["server"].as_str().unwrap(), self.0["clientID"].as_str().unwrap())
    }

    fn secret(&self) -> Value {
        secret(&self.secret_name(), LEDGER_SECRET_TYPE, &[(ledger::FIELD, self.0.to_string().as_bytes())])
    }
}

fn secret(name: &str, kind: &str, fields: &[(&str, &[u8])]) -> Value {
    let data: serde_json::Map<_, _> =
        fields.iter().map(|(name, bytes)| ((*name).to_owned(), json!(STANDARD.encode(bytes)))).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": name},
        "type": kind, "data": data,
    })
}

impl FakeApi {
    /// Writes a new self-signed serving certificate for loopback.
    fn person_makes_a_certificate(&self) -> CertificateDer<'static> {
        let names = ["127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let fields = [(tls::CHAIN, cert.pem()), (tls::KEY, signing_key.serialize_pem())];
        let fields: Vec<_> = fields.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        self.person_applies(&secret(tls::SECRET, "kubernetes.io/tls", &fields));
        cert.der().clone()
    }

    /// Publishes a signing key that has signed for a day.
    fn person_makes_signing_keys(&self) {
        self.controller_writes_signing_keys(&[&signing_key_since_yesterday()]);
    }

    /// Writes exactly these signing keys.
    fn controller_writes_signing_keys(&self, keys: &[&MintedSigningKey]) {
        let index = keys.iter().fold(Index::default(), |index, key| index.with(key.record.clone())).to_json();
        let names: Vec<_> = keys.iter().map(|key| format!("{}.pem", key.record.kid)).collect();
        let pems = names.iter().zip(keys).map(|(name, key)| (name.as_str(), key.private_key_pem.expose()));
        let fields: Vec<_> = pems.chain([(INDEX_FIELD, &*index)]).collect();
        self.person_applies(&secret(keys::SECRET, "Opaque", &fields));
    }

    /// Makes the shared lists, empty, as the controller does.
    fn person_makes_lists(&self) {
        for name in NAMES {
            self.person_applies(&secret(name, "Opaque", &[(REVOKED_FIELD, b"{}"), (USED_FIELD, b"{}")]));
        }
    }
}

/// A signing key that has signed for a day.
fn signing_key_since_yesterday() -> MintedSigningKey {
    let since: Timestamp = NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_hours(24);
    signing_key::mint(Algorithm::ES256, since, since).unwrap()
}

fn now_of(service: &TokenService) -> i64 {
    service.clock.now().as_second()
}
