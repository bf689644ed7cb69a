//! Client certificates (RFC 8705) in real handshakes of TLS 1.2 and 1.3.

use std::sync::Arc;

use appreg::api::KeyType;
use http::{HeaderMap, StatusCode};
use jiff::SignedDuration;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proofs::{CERTIFICATE, Key, PUBLIC_KEY, authority, self_signed};
use super::{Answer, CLIENT_SECRET, Entry, TokenService, claims};

const ID: &str = "shop.robot";
const FROM: &str = "2026-10-01T00:00:00Z";
const UNTIL: &str = "2026-12-30T00:00:00Z";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn identity(key: &Key) -> Identity {
    (key.der(), key.private())
}

/// One client with its TLS sessions.
struct Client<'a> {
    service: &'a TokenService,
    config: Arc<ClientConfig>,
}

impl<'a> Client<'a> {
    fn new(service: &'a TokenService, version: &'static SupportedProtocolVersion, identity: Option<Identity>) -> Self {
        let builder = builder(service, version);
        let config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self { service, config: Arc::new(config) }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.service.address).await?;
        TlsConnector::from(self.config.clone()).connect(self.service.address.ip().into(), stream).await
    }

    /// Asks for a token on a new connection.
    async fn token(&self, client_id: &str) -> Answer {
        ask(&mut self.connect().await, &form(client_id)).await
    }
}

fn builder(
    service: &TokenService,
    version: &'static SupportedProtocolVersion,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(service.certificate.clone()).unwrap();
    ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots)
}

fn form(client_id: &str) -> String {
    format!("grant_type=client_credentials&client_id={client_id}")
}

/// Asks on an open connection and leaves it open.
async fn ask(stream: &mut TlsStream<TcpStream>, form: &str) -> Answer {
    let head = format!(
        "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    stream.write_all(format!("{head}{form}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                let status = head.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
                let status = StatusCode::from_u16(status).unwrap();
                return Answer { status, headers: HeaderMap::new(), body: body.to_owned() };
            }
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "closed after {answer:?}");
    }
}

async fn knows(service: &TokenService, entries: &[Entry]) {
    for entry in entries {
        service.api.person_applies(&entry.secret());
    }
    let clients = format!("token_service_clients {}", entries.len() + 1);
    service.until("known", async || service.metrics().await.contains(&clients)).await;
}

fn by_certificate() -> Entry {
    Entry::new(ID).methods(&["tls_client_auth", "private_key_jwt"])
}

#[tokio::test]
async fn old_and_new_authority_times_old_and_new_certificate_all_work_and_tokens_are_bound() {
    let service = TokenService::start().await;
    let authorities = [authority(), authority()];
    let keys: Vec<Key> = authorities
        .iter()
        .flat_map(|ca| [Key::signed_by(ca, KeyType::EcdsaP256), Key::signed_by(ca, KeyType::EcdsaP256)])
        .collect();
    let entry = keys.iter().fold(by_certificate(), |entry, key| {
        entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, "2026-11-22T10:30:00Z")
    });
    knows(&service, &[entry]).await;
    for version in VERSIONS {
        for key in &keys {
            let answer = Client::new(&service, version, Some(identity(key))).token(ID).await;
            assert_eq!(answer.status, 200, "{version:?}: {answer:?}");
            assert_eq!(answer.json()["expires_in"], json!(1800), "no token outlives the certificate's revision");
            let claims = claims(&answer);
            assert_eq!(claims["cnf"], json!({"x5t#S256": key.thumbprint()}), "RFC 8705 §3.1, {version:?}");
            assert!(claims["jti"].as_str().unwrap().starts_with("mtls."));
        }
    }
}

#[tokio::test]
async fn every_key_type_that_is_minted_proves_possession() {
    let service = TokenService::start().await;
    let types = [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Ed25519];
    let types = [&types[..], &[KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096]].concat();
    let keys: Vec<Key> = types.into_iter().map(Key::new).collect();
    let entry = keys
        .iter()
        .fold(by_certificate(), |entry, key| entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, UNTIL));
    knows(&service, &[entry]).await;
    for version in VERSIONS {
        for key in &keys {
            let answer = Client::new(&service, version, Some(identity(key))).token(ID).await;
            assert_eq!(answer.status, 200, "{version:?}, {:?}: {answer:?}", key.key_type);
        }
    }
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_believed_where_it_was_uploaded() {
    let service = TokenService::start().await;
    let (certificate, key, verifier) = self_signed();
    let uploaded = |id: &str| Entry::new(id).revision(("partner", PUBLIC_KEY), &verifier, FROM, UNTIL);
    let entries = [
        uploaded(ID).methods(&["self_signed_tls_client_auth"]),
        uploaded("shop.pki").methods(&["tls_client_auth"]),
        uploaded("shop.basic"),
    ];
    knows(&service, &entries).await;
    for version in VERSIONS {
        let client = Client::new(&service, version, Some((certificate.clone(), key.clone_key())));
        let answer = client.token(ID).await;
        let thumbprint = verifier["certSHA256"].clone();
        assert_eq!(claims(&answer)["cnf"], json!({"x5t#S256": thumbprint}), "RFC 8705 §2.2");
        for other in ["shop.pki", "shop.basic"] {
            assert_eq!(client.token(other).await.error(), (401, "invalid_client".into()), "RFC 7591 §2: {other}");
        }
    }
    assert_eq!(service.ended("unregistered_method").await, 4);
}

#[tokio::test]
async fn no_certificate_and_another_clients_are_refused_alike() {
    let service = TokenService::start().await;
    let [own, others, nobodys] = [(); 3].map(|()| Key::new(KeyType::EcdsaP256));
    let entry = by_certificate().revision(("mtls", CERTIFICATE), &own.of_certificate(), FROM, "2026-11-22T10:10:00Z");
    let other = Entry::new("shop.other").methods(&["tls_client_auth"]);
    let other = other.revision(("mtls", CERTIFICATE), &others.of_certificate(), FROM, UNTIL);
    knows(&service, &[entry, other]).await;
    let mut bodies = std::collections::BTreeSet::new();
    for version in VERSIONS {
        for (presented, client_id, reason) in [
            (None, ID, "no_certificate"),
            (Some(&others), ID, "unknown_certificate"),
            (Some(&nobodys), ID, "unknown_certificate"),
            (Some(&own), "shop.storefront", "unknown_certificate"),
            (Some(&own), "nobody", "unknown_client"),
            (Some(&own), "", "no_credentials"),
        ] {
            let before = service.ended(reason).await;
            let answer = Client::new(&service, version, presented.map(identity)).token(client_id).await;
            assert_eq!(answer.error(), (401, "invalid_client".into()), "{version:?}, {reason}: {answer:?}");
            assert_eq!(service.ended(reason).await, before + 1, "{reason}");
            bodies.insert(answer.body);
        }
    }
    assert_eq!(bodies.len(), 1);
    service.clock.advance(SignedDuration::from_mins(10));
    let answer = Client::new(&service, VERSIONS[1], Some(identity(&own))).token(ID).await;
    assert_eq!(answer.error(), (401, "invalid_client".into()));
    assert_eq!(service.ended("not_valid_now").await, 1, "the revision has ended, whatever the certificate says");
}

#[tokio::test]
async fn a_resumed_session_keeps_the_certificate_and_what_it_is_worth_is_asked_at_every_request() {
    for version in VERSIONS {
        let service = TokenService::start().await;
        let key = Key::new(KeyType::EcdsaP256);
        let entry = by_certificate();
        let entry = entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, "2026-11-22T10:10:00Z");
        knows(&service, &[entry]).await;
        let client = Client::new(&service, version, Some(identity(&key)));
        let mut first = client.connect().await;
        assert_eq!(ask(&mut first, &form(ID)).await.status, 200);
        assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let mut resumed = client.connect().await;
        let answer = ask(&mut resumed, &form(ID)).await;
        assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(claims(&answer)["cnf"], json!({"x5t#S256": key.thumbprint()}));
        service.clock.advance(SignedDuration::from_mins(10));
        for stream in [&mut first, &mut resumed] {
            assert_eq!(ask(stream, &form(ID)).await.error(), (401, "invalid_client".into()), "ended meanwhile");
        }
        let mut again = client.connect().await;
        assert_eq!(ask(&mut again, &form(ID)).await.error(), (401, "invalid_client".into()));
        assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_connection_is_no_second_method() {
    let service = TokenService::start().await;
    let key = Key::new(KeyType::EcdsaP256);
    let entry = Entry::new(ID).methods(&["client_secret_post", "tls_client_auth"]);
    let entry = entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, UNTIL);
    knows(&service, &[entry]).await;
    // A sidecar with a certificate of its own, and the client's own beside its secret.
    for presented in [Key::new(KeyType::EcdsaP256), key] {
        let client = Client::new(&service, VERSIONS[1], Some(identity(&presented)));
        let form = format!("{}&client_secret={CLIENT_SECRET}", form(ID));
        let claims = claims(&ask(&mut client.connect().await, &form).await);
        assert_eq!(claims["cnf"], Value::Null, "bound to what has proved it alone");
        assert!(claims["jti"].as_str().unwrap().starts_with("web.1~"));
    }
}

#[tokio::test]
async fn a_certificate_that_the_watch_has_not_shown_yet_is_read_live() {
    let service = TokenService::start().await;
    let key = Key::new(KeyType::EcdsaP256);
    service.api.hold_watches();
    let entry = by_certificate();
    service.api.person_applies(&entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, UNTIL).secret());
    assert_eq!(Client::new(&service, VERSIONS[1], Some(identity(&key))).token(ID).await.status, 200);
}

/// Presents a certificate without its key.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesClientCert for Thief {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn whoever_does_not_hold_the_key_of_a_certificate_gets_no_connection() {
    let service = TokenService::start().await;
    let [own, other] = [(); 2].map(|()| Key::new(KeyType::EcdsaP256));
    let entry = by_certificate();
    knows(&service, &[entry.revision(("mtls", CERTIFICATE), &own.of_certificate(), FROM, UNTIL)]).await;
    for version in VERSIONS {
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&other.private()).unwrap();
        let thief = Thief(Arc::new(CertifiedKey::new(vec![own.der()], signing)));
        let config = Arc::new(builder(&service, version).with_client_cert_resolver(Arc::new(thief)));
        let client = Client { service: &service, config };
        // With TLS 1.3 the client is done before the server has looked.
        let refused = match client.try_connect().await {
            Ok(mut stream) => stream.read(&mut [0; 1]).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{version:?}");
    }
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="handshake_failed"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_chain_of_more_than_16_kib_is_refused() {
    let service = TokenService::start().await;
    let key = Key::new(KeyType::EcdsaP256);
    let bytes = key.der().len();
    for (certificates, is_accepted) in [(16 * 1024 / bytes, true), (16 * 1024 / bytes + 1, false)] {
        let chain = vec![key.der(); certificates];
        let config = builder(&service, VERSIONS[0]).with_client_auth_cert(chain, key.private()).unwrap();
        let client = Client { service: &service, config: Arc::new(config) };
        assert_eq!(client.try_connect().await.is_ok(), is_accepted, "{certificates} certificates of {bytes} bytes");
    }
}
