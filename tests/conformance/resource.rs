//! APIs in other languages that validate our tokens by discovery alone.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::foreign::{Foreign, Language};
use super::harness::credentials::write_private;
use super::harness::process::Process;
use super::stage::{Stage, Wanted};

/// How long one may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A library that validates tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validator {
    Jose,
    Joserfc,
    Oauth4webapi,
    Authlib,
    Spring,
    Nimbus,
}

/// A running API.
pub(crate) struct Server {
    pub(crate) validator: Validator,
    pub(crate) url: String,
    _process: Process,
}

impl Validator {
    pub(crate) const ALL: [Self; 6] =
        [Self::Jose, Self::Joserfc, Self::Oauth4webapi, Self::Authlib, Self::Spring, Self::Nimbus];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jose => "API with Node jose",
            Self::Joserfc => "API with Python joserfc",
            Self::Oauth4webapi => "API with Node oauth4webapi",
            Self::Authlib => "API with Python authlib",
            Self::Spring => "API with Java Spring Boot",
            Self::Nimbus => "API with Java Nimbus",
        }
    }

    /// Whether it knows tokens bound to a certificate (RFC 8705); one that does not must refuse them.
    pub(crate) const fn knows_certificates(self) -> bool {
        matches!(self, Self::Jose | Self::Joserfc | Self::Spring | Self::Nimbus)
    }

    /// Whether it knows this algorithm; one that does not must refuse it.
    pub(crate) fn knows(self, algorithm: Algorithm) -> bool {
        matches!(self, Self::Jose | Self::Joserfc | Self::Oauth4webapi) || algorithm != Algorithm::EdDSA
    }
}

impl Server {
    /// Starts one that is this API. Its identity is the control plane's: one certificate authority for all that is not ours.
    pub(crate) async fn start(
        stage: &Stage<'_>,
        foreign: &mut Foreign,
        validator: Validator,
        issuer_ca: &str,
        wanted: Wanted,
    ) -> Result<Self> {
        let host = wanted.audience.trim_start_matches("https://");
        let identity = stage.volume(&format!("api-{host}-{validator:?}"))?;
        for (file, of) in [("server.crt", "apiserver.crt"), ("server.key", "apiserver.key")] {
            write_private(&identity.join(file), &std::fs::read_to_string(stage.plane.directory().join(of))?)?;
        }
        write_private(&identity.join("issuer_ca.crt"), issuer_ca)?;
        let (language, name, module) = match validator {
            Validator::Jose => (Language::Node, "resource_server", Some("validate")),
            Validator::Joserfc => (Language::Python, "resource_server", Some("validate")),
            Validator::Oauth4webapi => (Language::Node, "resource_server", Some("validate_bearer")),
            Validator::Authlib => (Language::Python, "resource_server", Some("validate_authlib")),
            Validator::Spring => (Language::Java, "orders.SpringApi", None),
            Validator::Nimbus => (Language::Java, "orders.NimbusApi", None),
        };
        let mut args: Vec<OsString> = module.into_iter().map(Into::into).collect();
        args.extend([identity.into(), stage.issuer.clone().into(), wanted.audience.into(), wanted.scope.into()]);
        let process = foreign.start(language, name, &args)?;
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
