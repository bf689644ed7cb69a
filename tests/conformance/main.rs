//! `make conformance`: clients and resource servers that nobody here wrote, against the token service as users have it.
//!
//! On a real control plane with the chart installed, registrations for every method are applied, their Secrets are
//! mounted as a pod would have them, and each client is run as a process that gets a token and calls an API with it. The
//! APIs are foreign too: they validate tokens by discovery alone. Every line of the output is one thing that was tried.
//!
//! The programs are those that `docs/applications.md` and `docs/resource-servers.md` show.

mod foreign;
mod resource;
mod rust;
mod stage;
mod tally;

#[path = "../harness/mod.rs"]
mod harness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use oauth2::AuthType;
use serde_json::{Value, json};

use foreign::{Foreign, Language};
use harness::ControlPlane;
use harness::oauth::{TokenClient, install_provider};
use resource::{Forge, Server, Validator, http};
use stage::{AUDIENCE, Registered, SCOPE, Stage};
use tally::Tally;

/// What a refused client is told by its library: the error of RFC 6749 section 5.2, or the status alone (curl, and
/// openid-client where there is a challenge too).
const REFUSED: [&str; 3] = ["invalid_client", "error: 401", "status: 401"];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    install_provider();
    let packages = std::env::args_os().nth(1).map(PathBuf::from);
    let packages = packages.context("the directory that tests/conformance/build prints: run `make conformance`")?;
    let mut tally = Tally::default();
    let ran = tokio::select! {
        ran = run(&mut tally, &packages, "ES256") => ran,
        // Whatever runs ends when the future is dropped.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = ran {
        tally.record("make conformance", "runs to its end", Err(error));
    }
    Ok(if tally.close() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(tally: &mut Tally, packages: &Path, algorithm: &str) -> Result<()> {
    let plane = ControlPlane::start().await?;
    let binary = std::env::current_exe()?.parent().and_then(Path::parent).map(|target| target.join("appreg"));
    let binary = binary.filter(|path| path.exists()).context("the program is not built: run `make conformance`")?;
    let stage = Stage::start(&plane, &binary, &[]).await?;
    let mut foreign = Foreign::new(packages, &stage.directory, &plane.directory().join("ca.crt"))?;

    let secret =
        |method: &str| json!({"tokenEndpointAuthMethod": method, "credentials": [{"name": "web", "clientSecret": {}}]});
    let basic = stage.registered("basic", "basic", &secret("client_secret_basic")).await?;
    let post = stage.registered("post", "post", &secret("client_secret_post")).await?;
    let issuer_ca = basic.field("issuer_ca.crt")?;
    let mut servers = Vec::new();
    for validator in Validator::ALL {
        servers.push(Server::start(&stage, &mut foreign, validator, &issuer_ca).await?);
    }

    tally.section(&format!("Metadata, {algorithm}"));
    let checked = foreign.run(Language::Python, "metadata", &[basic.mounted.clone().into()]).await?;
    tally.record(&Language::Python.client(), "metadata of RFC 8414", checked.document().map(drop));

    tally.section(&format!("Clients, {algorithm}: a token, and an API called with it"));
    let mut clients = Clients { tally, foreign: &mut foreign, api: &servers[0] };
    clients.every("client_secret_basic", &basic, false).await?;
    clients.every("client_secret_post", &post, false).await?;
    for registered in [&basic, &post] {
        clients.one(Language::Go, "client_secret_detected", registered, false).await?;
    }
    clients.rust("client_secret_basic", &basic, AuthType::BasicAuth).await?;
    clients.rust("client_secret_post", &post, AuthType::RequestBody).await?;
    let wrong = stage.altered("wrong", &basic.mounted, "client_secret", "apr_wrong")?;
    clients.refused("client_secret_basic", "wrong client secret", &wrong).await?;
    clients.refused("client_secret_post", "not the registered method", &basic.mounted).await?;

    tally.section(&format!("Resource servers, {algorithm}: tokens taken and refused, by discovery alone"));
    let token = TokenClient::new(&issuer_ca, &basic.field("token_endpoint")?)?;
    let token = token.basic(&basic.client_id, &basic.field("client_secret")?).await?.access_token.context("a token")?;
    let forge = Forge::new(&stage, &token).await?;
    let certificate = json!({"credentials": [{"name": "mtls", "certificate": {}}]});
    let holder = stage.registered("mtls", "mtls", &certificate).await?;
    let other = stage.registered("other-mtls", "other-mtls", &certificate).await?;
    let callers = Callers::new(&plane.directory().join("ca.crt"), &holder, &other)?;
    for server in &servers {
        for tried in forge.tried()? {
            let outcome = server.answers(tried.status, &callers.plain, &tried.token).await;
            tally.record(server.validator.name(), &format!("{}: {}", tried.what, tried.status), outcome);
        }
        for (what, http, token, status) in callers.bound(&forge, server.validator)? {
            let outcome = server.answers(status, http, &token).await;
            tally.record(server.validator.name(), &format!("{what}: {status}"), outcome);
        }
    }
    Ok(())
}

/// Callers of an API, with a certificate and without.
struct Callers {
    plain: reqwest::Client,
    holder: reqwest::Client,
    other: reqwest::Client,
    certificate: String,
}

impl Callers {
    fn new(ca: &Path, holder: &Registered, other: &Registered) -> Result<Self> {
        let identity = |of: &Registered| anyhow::Ok(format!("{}{}", of.field("tls.crt")?, of.field("tls.key")?));
        Ok(Self {
            plain: http(ca, None)?,
            holder: http(ca, Some(&identity(holder)?))?,
            other: http(ca, Some(&identity(other)?))?,
            certificate: holder.field("tls.crt")?,
        })
    }

    /// Tokens bound to a certificate, by whom they are shown, and what the API must say.
    fn bound(&self, forge: &Forge, validator: Validator) -> Result<Vec<(&'static str, &reqwest::Client, String, u16)>> {
        let bound = forge.bound(&self.certificate)?;
        let known = if validator.knows_certificates() { 200 } else { 401 };
        Ok(vec![
            ("bound, with its certificate", &self.holder, bound.clone(), known),
            ("bound, with another certificate", &self.other, bound.clone(), 401),
            ("bound, without a certificate", &self.plain, bound, 401),
            ("bound in another way", &self.plain, forge.confirmed(&json!({"jkt": "x"}))?, 401),
            ("not bound, with a certificate", &self.holder, forge.issued().to_owned(), 200),
        ])
    }
}

/// Clients of one API.
struct Clients<'a> {
    tally: &'a mut Tally,
    foreign: &'a mut Foreign,
    api: &'a Server,
}

impl Clients<'_> {
    /// The program `method` of every language gets a token that the API takes.
    async fn every(&mut self, method: &str, of: &Registered, is_bound: bool) -> Result<()> {
        for language in Language::ALL {
            self.one(language, method, of, is_bound).await?;
        }
        Ok(())
    }

    async fn one(&mut self, language: Language, method: &str, of: &Registered, is_bound: bool) -> Result<()> {
        let ended = self.foreign.run(language, method, &[(&of.mounted).into(), (&self.api.url).into()]).await?;
        let outcome = ended.document().and_then(|seen| expect(&seen, &of.client_id, is_bound));
        self.tally.record(&language.client(), method, outcome);
        Ok(())
    }

    /// The program `method` of every language is refused with what is in `mounted`.
    async fn refused(&mut self, method: &str, why: &str, mounted: &Path) -> Result<()> {
        for language in Language::ALL {
            let ended = self.foreign.run(language, method, &[mounted.into(), (&self.api.url).into()]).await?;
            let what = format!("{method}, {why}: refused");
            self.tally.record(&language.client(), &what, ended.failed_with(&REFUSED));
        }
        Ok(())
    }

    async fn rust(&mut self, method: &str, of: &Registered, auth_type: AuthType) -> Result<()> {
        let caller = http(&self.foreign.api_ca, None)?;
        let outcome = async {
            let (status, seen) = self.api.call(&caller, &rust::token(of, auth_type).await?).await?;
            ensure!(status == 200, "{status}: {seen}");
            expect(&seen, &of.client_id, false)
        };
        let outcome = outcome.await;
        self.tally.record(rust::CLIENT, method, outcome);
        Ok(())
    }
}

/// What the API saw is the token of this client.
fn expect(seen: &Value, client_id: &str, is_bound: bool) -> Result<()> {
    let scope = format!("{SCOPE} orders:write");
    let expected = json!({"client_id": client_id, "aud": AUDIENCE, "scope": scope, "bound": is_bound});
    ensure!(*seen == expected, "the API saw {seen} instead of {expected}");
    Ok(())
}
