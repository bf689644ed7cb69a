//! A client of the token endpoint that trusts nothing but the certificate authority it is given.
//!
//! It never shows what it sends or what it gets: [`Answer`]'s `Debug` leaves tokens out, and its errors name the address
//! alone. It follows no redirect and uses no proxy.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Above what a restart of the token service takes, below what hides a hang.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks one token endpoint for tokens.
#[derive(Clone)]
pub struct TokenClient {
    http: reqwest::Client,
    endpoint: String,
}

/// What the token endpoint said.
#[derive(Clone, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The error code of RFC 6749 section 5.2.
    pub error: Option<String>,
    pub error_description: Option<String>,
    pub access_token: Option<String>,
    pub token_type: Option<String>,
    pub expires_in: Option<u64>,
    pub scope: Option<String>,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
}

impl TokenClient {
    /// For the endpoint of a published Secret: its fields `issuer_ca.crt` (one certificate or more) and
    /// `token_endpoint`.
    pub fn new(issuer_ca_pem: &str, token_endpoint: &str) -> Result<Self> {
        Ok(Self { http: https(issuer_ca_pem)?, endpoint: token_endpoint.to_owned() })
    }

    /// The same by a client that was made elsewhere, for example with a certificate of its own.
    pub fn with(http: reqwest::Client, token_endpoint: &str) -> Self {
        Self { http, endpoint: token_endpoint.to_owned() }
    }

    /// `client_credentials` by `client_secret_basic`.
    pub async fn basic(&self, client_id: &str, client_secret: &str) -> Result<Answer> {
        self.basic_for(client_id, client_secret, &[]).await
    }

    /// The same with more parameters, such as `resource` and `scope`.
    pub async fn basic_for(&self, client_id: &str, client_secret: &str, more: &[(&str, &str)]) -> Result<Answer> {
        let request = self.http.post(&self.endpoint).basic_auth(client_id, Some(client_secret));
        let form: Vec<_> = [("grant_type", "client_credentials")].into_iter().chain(more.iter().copied()).collect();
        self.send(request.form(&form)).await
    }

    /// `client_credentials` by `client_secret_post`.
    pub async fn post(&self, client_id: &str, client_secret: &str) -> Result<Answer> {
        self.form(&[("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", client_secret)])
            .await
    }

    /// Any form, without an `Authorization` header.
    pub async fn form(&self, fields: &[(&str, &str)]) -> Result<Answer> {
        self.send(self.http.post(&self.endpoint).form(fields)).await
    }

    /// The same client of another endpoint of that server.
    pub fn at(&self, endpoint: &str) -> Self {
        Self { http: self.http.clone(), endpoint: endpoint.to_owned() }
    }

    /// Introspects a token (RFC 7662) with `client_secret_basic`: whether it is active. Any other answer is an error.
    pub async fn introspect(&self, client_id: &str, client_secret: &str, token: &str) -> Result<bool> {
        let (status, document) = self.with_token(client_id, client_secret, token).await?;
        document["active"].as_bool().with_context(|| format!("{} answered {status}", self.endpoint))
    }

    /// Revokes a token (RFC 7009) with `client_secret_basic`: the HTTP status.
    pub async fn revoke(&self, client_id: &str, client_secret: &str, token: &str) -> Result<u16> {
        Ok(self.with_token(client_id, client_secret, token).await?.0)
    }

    async fn with_token(&self, client_id: &str, client_secret: &str, token: &str) -> Result<(u16, Value)> {
        let request = self.http.post(&self.endpoint).basic_auth(client_id, Some(client_secret));
        let response = request.form(&[("token", token)]).send().await;
        let response = response.with_context(|| format!("asking {}", self.endpoint))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.with_context(|| format!("reading the answer of {}", self.endpoint))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.send().await.with_context(|| format!("asking {}", self.endpoint))?;
        let status = response.status().as_u16();
        let challenge = response.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
        let challenge = challenge.map(str::to_owned);
        let body = response.bytes().await.with_context(|| format!("reading the answer of {}", self.endpoint))?;
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        Ok(Answer {
            status,
            error: text("error"),
            error_description: text("error_description"),
            access_token: text("access_token"),
            token_type: text("token_type"),
            expires_in: document["expires_in"].as_u64(),
            scope: text("scope"),
            challenge,
        })
    }
}

impl Answer {
    /// It is a token.
    pub fn is_token(&self) -> bool {
        self.status == 200 && self.access_token.is_some()
    }

    /// The credential was refused: 401 `invalid_client`, or 429 or 503 where refusals came too often for each to be looked up,
    /// and nothing else that went wrong. Successes are never limited, so these are refusals like the first.
    pub fn is_refusal(&self) -> bool {
        let is_limited = || {
            let limits = ["too many failed attempts", "the client could not be looked up"];
            self.error_description.as_deref().is_some_and(|description| limits.contains(&description))
        };
        match self.error.as_deref() {
            Some("invalid_client") => self.status == 401,
            Some("temporarily_unavailable") => matches!(self.status, 429 | 503) && is_limited(),
            _ => false,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, error, error_description, access_token, token_type, expires_in, scope, challenge } = self;
        formatter
            .debug_struct("Answer")
            .field("status", status)
            .field("error", error)
            .field("error_description", error_description)
            .field("access_token", &access_token.as_ref().map(|token| format!("({} bytes)", token.len())))
            .field("token_type", token_type)
            .field("expires_in", expires_in)
            .field("scope", scope)
            .field("challenge", challenge)
            .finish()
    }
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An HTTP client that trusts these certificates only, for discovery documents and key sets as well.
pub fn https(ca_pem: &str) -> Result<reqwest::Client> {
    install_provider();
    let trusted = reqwest::Certificate::from_pem_bundle(ca_pem.as_bytes()).context("issuer_ca.crt is not PEM")?;
    Ok(reqwest::Client::builder()
        .tls_certs_only(trusted)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(DEADLINE)
        .build()?)
}

/// Makes aws-lc-rs this process's TLS provider; a second call changes nothing.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
