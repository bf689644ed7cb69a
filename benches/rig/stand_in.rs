//! A stand-in for the API server, so that the token service as it is shipped can be measured with more clients than can
//! be created on a real one in a benchmark's time: list in pages, a watch that says nothing, get, update; nothing else.
//! It keeps no client's Secret: each page is made when it is asked for.
//!
//! It also makes what a controller would have made (serving certificate, signing key), and writes down what the load
//! generator needs to know: `ca.pem`, `client.pem`, `client-key.der`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use appreg::api::names::LEDGER_SECRET_TYPE;
use appreg::clock::{Clock as _, SystemClock};
use appreg::ledger::{self, Digest};
use appreg::mint::signing_key;
use appreg::signer::{Algorithm, INDEX_FIELD, Index};
use appreg::token_service::{keys, tls};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::requests::{client_id, client_secret};
use crate::rig::Arguments;

/// The ledger's namespace.
pub(crate) const NAMESPACE: &str = "appreg-ledger";
/// The lists that the token service shares between replicas.
const SHARED_LISTS: usize = 8;
/// The DER of a P-256 public key up to its point (RFC 5480 §2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// How the clients authenticate. All of a run do it in the same way, and those with a key have the same one.
#[derive(Clone, Copy)]
enum Kind {
    ClientSecret,
    /// The same, and each serves the audience that all tokens are for.
    ResourceServer,
    PublicKey,
    Certificate,
}

struct StandIn {
    clients: usize,
    kind: Kind,
    issuer: String,
    now: Timestamp,
    key: ClientKey,
    /// What is not a client's: by name.
    others: Mutex<(u64, BTreeMap<String, Value>)>,
}

struct ClientKey {
    jwk: Value,
    spki: Digest,
    certificate: Digest,
}

type Body = BoxBody<Bytes, Infallible>;

/// Serves until the process is killed. Arguments: `directory address issuer clients alg kind`.
pub(crate) async fn serve(arguments: &Arguments) -> Result<()> {
    let directory = Path::new(arguments.text("directory")?);
    let address: SocketAddr = arguments.text("address")?.parse()?;
    let kind = match arguments.text("kind")? {
        "clientSecret" => Kind::ClientSecret,
        "resourceServer" => Kind::ResourceServer,
        "publicKey" => Kind::PublicKey,
        "certificate" => Kind::Certificate,
        kind => bail!("kind={kind}"),
    };
    let now = SystemClock.now();
    let stand_in = Arc::new(StandIn {
        clients: arguments.or("clients", 1000)?,
        kind,
        issuer: arguments.text("issuer")?.to_owned(),
        now,
        key: client_key(directory)?,
        others: Mutex::new((1, others(directory, arguments.text("alg")?, now)?)),
    });
    let (listener, mut connections) = (TcpListener::bind(address).await?, JoinSet::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let stand_in = stand_in.clone();
        let service = service_fn(move |request| {
            let stand_in = stand_in.clone();
            async move { stand_in.answer(request).await }
        });
        connections.spawn(async move {
            let mut builder = http1::Builder::new();
            let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl StandIn {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
        if path == "/readyz" {
            return Ok(said(StatusCode::OK, &json!("ok")));
        }
        let Some(name) = path.strip_prefix(&secrets) else { return Ok(not_found(path)) };
        let name = name.trim_start_matches('/');
        Ok(match parts.method {
            Method::GET if of("watch") == Some("true") => silent(of("timeoutSeconds").unwrap_or("30").parse()?),
            Method::GET if name.is_empty() => {
                said(StatusCode::OK, &self.page(of("continue").unwrap_or("0").parse()?, of("limit")))
            }
            Method::GET => self.lock().1.get(name).map_or_else(|| not_found(name), |item| said(StatusCode::OK, item)),
            Method::PUT => {
                let mut item: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
                let mut others = self.lock();
                others.0 += 1;
                item["metadata"]["resourceVersion"] = json!(others.0.to_string());
                others.1.insert(name.to_owned(), item.clone());
                said(StatusCode::OK, &item)
            }
            _ => not_found(name),
        })
    }

    fn page(&self, from: usize, limit: Option<&str>) -> Value {
        let limit: usize = limit.and_then(|text| text.parse().ok()).unwrap_or(500);
        let until = (from + limit).min(self.clients);
        let mut items: Vec<Value> = (from..until).map(|number| self.client(number)).collect();
        if from == 0 {
            items.extend(self.lock().1.values().cloned());
        }
        let token = if until < self.clients { until.to_string() } else { String::new() };
        json!({"apiVersion": "v1", "kind": "SecretList", "items": items,
               "metadata": {"resourceVersion": self.lock().0.to_string(), "continue": token}})
    }

    fn client(&self, number: usize) -> Value {
        let (id, end) = (client_id(number), self.now + SignedDuration::from_hours(24));
        let ClientKey { jwk, spki, certificate } = &self.key;
        let (kind, methods, verifier) = match self.kind {
            Kind::ClientSecret | Kind::ResourceServer => {
                let sha256 = Digest::of(client_secret(number).as_bytes()).to_base64url();
                ("clientSecret", json!(["client_secret_basic"]), json!({"sha256": sha256}))
            }
            Kind::PublicKey => {
                let verifier = json!({"spkiSHA256": spki.to_base64url(), "jwk": jwk});
                ("publicKey", json!(["private_key_jwt"]), verifier)
            }
            Kind::Certificate => {
                let verifier =
                    json!({"spkiSHA256": spki.to_base64url(), "certSHA256": certificate.to_base64url(), "jwk": jwk});
                ("certificate", json!(["tls_client_auth"]), verifier)
            }
        };
        let serves = match self.kind {
            Kind::ResourceServer => json!({&self.issuer: "policy/default"}),
            Kind::ClientSecret | Kind::PublicKey | Kind::Certificate => json!({}),
        };
        let entry = json!({
            "version": ledger::VERSION, "server": "default", "clientID": id, "createdAt": self.now,
            "owner": {"namespace": "shop", "name": format!("client-{number}"), "uid": id},
            "grant": {"scopes": {"orders:read": "policy/default", "orders:write": "policy/default"},
                      "servedAudiences": serves, "authMethods": methods},
            "credentials": {"web": {"kind": kind, "nextRevision": 2, "revisions": [
                {"revision": 1, "mintedAt": self.now, "notAfter": end, "verifier": verifier}]}},
        });
        let fields = [(ledger::FIELD.to_owned(), entry.to_string().into_bytes())];
        secret(&ledger::name("default", &id), LEDGER_SECRET_TYPE, fields)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, BTreeMap<String, Value>)> {
        self.others.lock().expect("nothing panics while it is held")
    }
}

/// The serving certificate, the signing key, the shared lists.
fn others(directory: &Path, alg: &str, now: Timestamp) -> Result<BTreeMap<String, Value>> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(directory.join("ca.pem"), cert.pem())?;
    let serving = [
        (tls::CHAIN.to_owned(), cert.pem().into_bytes()),
        (tls::KEY.to_owned(), signing_key.serialize_pem().into_bytes()),
    ];
    let alg: Algorithm = serde_json::from_value(json!(alg))?;
    let since = now - SignedDuration::from_hours(24);
    let key = signing_key::mint(alg, since, since)?;
    let index = Index::default().with(key.record.clone()).to_json();
    let pem = key.private_key_pem.expose().to_vec();
    let signing = [(INDEX_FIELD.to_owned(), index), (format!("{}.pem", key.record.kid), pem)];
    let mut others = BTreeMap::from([
        (tls::SECRET.to_owned(), secret(tls::SECRET, "kubernetes.io/tls", serving)),
        (keys::SECRET.to_owned(), secret(keys::SECRET, "Opaque", signing)),
    ]);
    for number in 0..SHARED_LISTS {
        let name = format!("revocations-{number}");
        let empty = ["revoked.json", "used.json"].map(|field| (field.to_owned(), b"{}".to_vec()));
        others.insert(name.clone(), secret(&name, "Opaque", empty));
    }
    Ok(others)
}

/// The key that all clients share, and its certificate.
fn client_key(directory: &Path) -> Result<ClientKey> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["client.example".to_owned()])?;
    std::fs::write(directory.join("client.pem"), cert.pem())?;
    std::fs::write(directory.join("client-key.der"), signing_key.serialize_der())?;
    let point = signing_key.public_key_raw();
    let (x, y) = point.get(1..).context("a point")?.split_at(32);
    let [x, y] = [x, y].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
    let kid = Digest::of(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes()).to_base64url();
    Ok(ClientKey {
        jwk: json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"}),
        spki: Digest::of(&[&P256_SPKI[..], point].concat()),
        certificate: Digest::of(cert.der()),
    })
}

fn secret(name: &str, kind: &str, fields: impl IntoIterator<Item = (String, Vec<u8>)>) -> Value {
    let data: serde_json::Map<_, _> =
        fields.into_iter().map(|(field, bytes)| (field, json!(BASE64_STANDARD.encode(bytes)))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data,
           "metadata": {"namespace": NAMESPACE, "name": name, "resourceVersion": "1", "uid": name}})
}

fn said(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(body.to_string()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn not_found(name: &str) -> Response<Body> {
    let details = json!({"name": name, "kind": "secrets"});
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                      "message": format!("{name} not found"), "details": details});
    said(StatusCode::NOT_FOUND, &body)
}

/// A watch in which nothing happens.
fn silent(seconds: u64) -> Response<Body> {
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    let nothing = stream::once(end).filter_map(async |()| None::<Result<Frame<Bytes>, Infallible>>);
    Response::new(BoxBody::new(StreamBody::new(Box::pin(nothing))))
}
