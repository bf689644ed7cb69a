//! APIs in other languages that validate our tokens by discovery alone, and tokens that they must not take.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::foreign::{Foreign, Language};
use super::harness::credentials::write_private;
use super::harness::operator::LEDGER;
use super::harness::process::Process;
use super::stage::{AUDIENCE, SCOPE, Stage};

/// How long one may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A library that validates tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validator {
    Jose,
    Oauth4webapi,
    Authlib,
}

/// A running API.
pub(crate) struct Server {
    pub(crate) validator: Validator,
    pub(crate) url: String,
    _process: Process,
}

/// A token that is tried, and what the API must say.
pub(crate) struct Tried {
    pub(crate) what: &'static str,
    pub(crate) token: String,
    pub(crate) status: u16,
}

impl Validator {
    pub(crate) const ALL: [Self; 3] = [Self::Jose, Self::Oauth4webapi, Self::Authlib];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jose => "API with Node jose",
            Self::Oauth4webapi => "API with Node oauth4webapi",
            Self::Authlib => "API with Python authlib",
        }
    }

    /// Whether it knows tokens bound to a certificate (RFC 8705); one that does not must refuse them.
    pub(crate) const fn knows_certificates(self) -> bool {
        !matches!(self, Self::Oauth4webapi)
    }
}

impl Server {
    /// Starts one. Its identity is the control plane's: one certificate authority for all that is not ours.
    pub(crate) async fn start(
        stage: &Stage<'_>,
        foreign: &mut Foreign,
        validator: Validator,
        issuer_ca: &str,
    ) -> Result<Self> {
        let identity = stage.volume(&format!("api-{validator:?}"))?;
        for (file, of) in [("server.crt", "apiserver.crt"), ("server.key", "apiserver.key")] {
            write_private(&identity.join(file), &std::fs::read_to_string(stage.plane.directory().join(of))?)?;
        }
        write_private(&identity.join("issuer_ca.crt"), issuer_ca)?;
        let (language, module) = match validator {
            Validator::Jose => (Language::Node, Some("validate")),
            Validator::Oauth4webapi => (Language::Node, Some("validate_bearer")),
            Validator::Authlib => (Language::Python, None),
        };
        let mut args: Vec<OsString> = module.into_iter().map(OsString::from).collect();
        args.extend([identity.into(), stage.issuer.clone().into(), AUDIENCE.into(), SCOPE.into()]);
        let process = foreign.start(language, "resource_server", &args)?;
        let line = process.wait_for_line("listening on ", READY_WITHIN).await?;
        let port = line.rsplit(' ').next().context("a port")?;
        Ok(Self { validator, url: format!("https://127.0.0.1:{port}/orders"), _process: process })
    }

    /// Calls it with a token, and perhaps with a certificate; the status and what it saw.
    pub(crate) async fn call(&self, http: &reqwest::Client, token: &str) -> Result<(u16, Value)> {
        let request = if token.is_empty() { http.get(&self.url) } else { http.get(&self.url).bearer_auth(token) };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let challenge = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
        let is_told = challenge.is_some_and(|value| value.starts_with("Bearer"));
        ensure!(is_told == matches!(status, 401 | 403), "RFC 6750 section 3: {status} with {challenge:?}");
        Ok((status, answer.json().await.unwrap_or_default()))
    }

    /// An error unless the API answers so.
    pub(crate) async fn answers(&self, status: u16, http: &reqwest::Client, token: &str) -> Result<()> {
        let (seen, body) = self.call(http, token).await?;
        ensure!(seen == status, "{seen} instead of {status}: {body}");
        Ok(())
    }
}

/// An HTTP client that trusts the APIs' certificate authority, with this identity (certificate and key in PEM).
pub(crate) fn http(ca: &Path, identity: Option<&str>) -> Result<reqwest::Client> {
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(ca)?)?;
    let mut builder = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy().timeout(READY_WITHIN);
    if let Some(identity) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity.as_bytes())?);
    }
    Ok(builder.build()?)
}

/// Makes tokens as the issuer would, with its own key, and as it never would.
pub(crate) struct Forge {
    header: Header,
    claims: Value,
    key: EncodingKey,
    public_key_pem: String,
    other_key: EncodingKey,
    issued: String,
}

impl Forge {
    /// After the pattern of a token that was issued.
    pub(crate) async fn new(stage: &Stage<'_>, issued: &str) -> Result<Self> {
        let header = jsonwebtoken::decode_header(issued)?;
        let payload = issued.split('.').nth(1).context("a payload")?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
        let keys = Api::<Secret>::namespaced(stage.client.clone(), LEDGER).get("signing-keys").await?;
        let kid = header.kid.as_deref().context("a kid")?;
        let pem = keys.data.as_ref().and_then(|data| data.get(&format!("{kid}.pem"))).context("the signing key")?;
        let pem = std::str::from_utf8(&pem.0)?;
        let other = match header.alg {
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519)?,
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        Ok(Self {
            key: encoding_key(header.alg, pem)?,
            public_key_pem: KeyPair::from_pem(pem)?.public_key_pem(),
            other_key: encoding_key(header.alg, &other.serialize_pem())?,
            header,
            claims,
            issued: issued.to_owned(),
        })
    }

    /// What every API must take and refuse, without a certificate.
    pub(crate) fn tried(&self) -> Result<Vec<Tried>> {
        let now = self.claims["iat"].as_i64().context("iat")?;
        let signed = |claims: &Value| jsonwebtoken::encode(&self.header, claims, &self.key);
        let with = |name: &str, value: Value| {
            let mut claims = self.claims.clone();
            claims[name] = value;
            claims
        };
        let header = |change: fn(&mut Header)| {
            let mut header = self.header.clone();
            change(&mut header);
            header
        };
        let [head, payload, signature] = parts(&self.issued)?;
        let widened = URL_SAFE_NO_PAD.encode(with("scope", json!("orders:read admin")).to_string());
        let mut flipped = URL_SAFE_NO_PAD.decode(signature)?;
        flipped[7] ^= 1;
        let flipped = URL_SAFE_NO_PAD.encode(flipped);
        let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "at+jwt"}).to_string());
        let unknown = jsonwebtoken::encode(
            &header(|header| header.kid = Some("unpublished".to_owned())),
            &self.claims,
            &self.other_key,
        )?;
        let mut hmac = header(|header| header.alg = Algorithm::HS256);
        let public = EncodingKey::from_secret(self.public_key_pem.as_bytes());
        let confused = jsonwebtoken::encode(&hmac, &self.claims, &public)?;
        hmac.kid = None;
        let confused_without_kid = jsonwebtoken::encode(&hmac, &self.claims, &public)?;
        let id_token = header(|header| header.typ = Some("JWT".to_owned()));
        let case = |what, token, status| Tried { what, token, status };
        Ok(vec![
            case("the token as issued", self.issued.clone(), 200),
            case("the same claims signed again", signed(&self.claims)?, 200),
            case("among several audiences", signed(&with("aud", json!(["https://a.example", AUDIENCE])))?, 200),
            case("no token", String::new(), 401),
            case("no JWT", "newsletter".to_owned(), 401),
            case("tampered claims", format!("{head}.{widened}.{signature}"), 401),
            case("tampered signature", format!("{head}.{payload}.{flipped}"), 401),
            case("no signature", format!("{head}.{payload}."), 401),
            case("alg: none", format!("{unsigned}.{payload}."), 401),
            case("HS256 with the public key", confused, 401),
            case("HS256 with the public key, no kid", confused_without_kid, 401),
            case("an unpublished key", unknown, 401),
            case(
                "an unpublished key under a published kid",
                jsonwebtoken::encode(&self.header, &self.claims, &self.other_key)?,
                401,
            ),
            case("another audience", signed(&with("aud", json!("https://other.example")))?, 401),
            case("no audience", signed(&without(&self.claims, "aud"))?, 401),
            case("another issuer", signed(&with("iss", json!("https://other.example")))?, 401),
            case("ended an hour ago", signed(&with("exp", json!(now - 3600)))?, 401),
            case("without an end", signed(&without(&self.claims, "exp"))?, 401),
            case("another type of JWT", jsonwebtoken::encode(&id_token, &self.claims, &self.key)?, 401),
            case("without the scope", signed(&with("scope", json!("orders:write")))?, 403),
        ])
    }
}

impl Forge {
    /// The same token, bound to this certificate (PEM; RFC 8705 section 3.1).
    pub(crate) fn bound(&self, certificate_pem: &str) -> Result<String> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        let thumbprint = digest(&SHA256, &certificate);
        self.confirmed(&json!({"x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint)}))
    }

    /// The same token, but that it ended an hour ago.
    pub(crate) fn ended(&self) -> Result<String> {
        let mut claims = self.claims.clone();
        claims["exp"] = json!(claims["iat"].as_i64().context("iat")? - 3600);
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }

    /// The token as issued.
    pub(crate) fn issued(&self) -> &str {
        &self.issued
    }

    /// The same token with this `cnf` (RFC 7800).
    pub(crate) fn confirmed(&self, cnf: &Value) -> Result<String> {
        let mut claims = self.claims.clone();
        claims["cnf"] = cnf.clone();
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}

fn without(claims: &Value, name: &str) -> Value {
    let mut claims = claims.clone();
    if let Some(claims) = claims.as_object_mut() {
        claims.remove(name);
    }
    claims
}

fn parts(token: &str) -> Result<[&str; 3]> {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().ok().context("a JWS has three parts")
}

fn encoding_key(algorithm: Algorithm, pem: &str) -> Result<EncodingKey> {
    Ok(match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes())?,
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes())?,
        _ => EncodingKey::from_rsa_pem(pem.as_bytes())?,
    })
}
