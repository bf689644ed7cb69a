//! Whole HTTP/1.1 requests, made before the clock runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use appreg::clock::{Clock as _, SystemClock};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

const GRANT: &str = "grant_type=client_credentials&scope=orders%3Aread";

pub(crate) fn client_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Nobody's but this benchmark's, which makes a new ledger for every run.
pub(crate) fn client_secret(number: usize) -> String {
    format!("apr_{number:046}")
}

/// `POST /token` of this client with `client_secret_basic`.
pub(crate) fn token(host: &str, number: usize) -> Vec<u8> {
    post(host, "/token", &authorization(number), GRANT)
}

/// `POST /introspect` of this client, a resource server.
pub(crate) fn introspection(host: &str, number: usize, token: &str) -> Vec<u8> {
    post(host, "/introspect", &authorization(number), &format!("token={token}"))
}

/// `POST /token` of this client, which shows its certificate in the TLS handshake.
pub(crate) fn token_by_certificate(host: &str, number: usize) -> Vec<u8> {
    post(host, "/token", "", &format!("{GRANT}&client_id={}", client_id(number)))
}

/// `GET /jwks`, with what an earlier answer's entity tag was.
pub(crate) fn jwks(host: &str, etag: Option<&str>) -> Vec<u8> {
    let condition = etag.map(|etag| format!("If-None-Match: {etag}\r\n")).unwrap_or_default();
    format!("GET /jwks HTTP/1.1\r\nHost: {host}\r\n{condition}\r\n").into_bytes()
}

/// `POST /token` with `private_key_jwt`, `count` times, each with an identifier of its own.
pub(crate) fn assertions(host: &str, issuer: &str, key: &Path, clients: usize, count: usize) -> Result<Vec<Vec<u8>>> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &std::fs::read(key)?)?;
    let random = SystemRandom::new();
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
    let now = SystemClock.now().as_second();
    let begin = std::time::Instant::now();
    let made = (0..count).map(|number| {
        let id = client_id(number % clients);
        let claims = json!({"iss": id, "sub": id, "aud": issuer, "iat": now, "exp": now + 240,
                            "jti": format!("{now}-{:?}-{number}", begin)});
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(&random, signed.as_bytes())?);
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        let body = format!("{GRANT}&client_assertion_type={kind}&client_assertion={signed}.{signature}");
        Ok(post(host, "/token", "", &body))
    });
    made.collect()
}

/// So many fresh access tokens of the clients in turn, asked for on one connection. Pipelined: the round trip is not
/// waited for each time.
pub(crate) fn fetch_tokens(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    clients: usize,
    count: usize,
) -> Result<Vec<String>> {
    let mut server = Connection::open(address, tls)?;
    let mut tokens = Vec::with_capacity(count);
    while tokens.len() < count {
        let batch = (count - tokens.len()).min(16);
        for number in 0..batch {
            server.send(&token(&address.to_string(), (tokens.len() + number) % clients))?;
        }
        for _ in 0..batch {
            let (_, body) = server.receive()?;
            let answer: Value = serde_json::from_slice(&body)?;
            tokens.push(answer["access_token"].as_str().context("a token")?.to_owned());
        }
    }
    Ok(tokens)
}

/// The entity tag of the JWKS.
pub(crate) fn fetch_etag(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<String> {
    let mut server = Connection::open(address, tls)?;
    server.send(&jwks(&address.to_string(), None))?;
    let (head, _) = server.receive()?;
    Ok(field(&head, "etag").context("an ETag")?.to_owned())
}

/// A field of an answer's header.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn authorization(number: usize) -> String {
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", client_id(number), client_secret(number)));
    format!("Authorization: Basic {credentials}\r\n")
}

fn post(host: &str, path: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One blocking connection.
struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        let tls = ClientConnection::new(tls.clone(), ServerName::IpAddress(address.ip().into()))?;
        Ok(Self { stream: StreamOwned::new(tls, tcp), unread: Vec::new() })
    }

    fn send(&mut self, request: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(request)?)
    }

    /// Header and body of the next answer, which must be a success.
    fn receive(&mut self) -> Result<(String, Vec<u8>)> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.unread[..end])?.to_owned();
                ensure!(head.starts_with("HTTP/1.1 200"), "{}", head.lines().next().unwrap_or_default());
                let length: usize = field(&head, "content-length").context("a Content-Length")?.parse()?;
                let begin = end + 4;
                if self.unread.len() >= begin + length {
                    let body = self.unread[begin..begin + length].to_vec();
                    self.unread.drain(..begin + length);
                    return Ok((head, body));
                }
            }
            let mut buffer = [0; 16 * 1024];
            let count = self.stream.read(&mut buffer)?;
            ensure!(count > 0, "the server closed the connection");
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }
}
