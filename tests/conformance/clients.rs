//! Clients that get a token and call an API with it, by every method, and clients that are refused.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use oauth2::AuthType;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::foreign::{Foreign, Language};
use super::harness::process::Program;
use super::resource::{Server, http};
use super::rust;
use super::stage::{AUDIENCE, NAMESPACE, PATIENCE, Registered, SCOPE, Stage};
use super::tally::Tally;

/// What a refused client is told by its library: the error of RFC 6749 section 5.2, or the status alone (curl, and
/// openid-client where there is a challenge too).
pub(crate) const REFUSED: [&str; 3] = ["invalid_client", "error: 401", "status: 401"];

/// One registration for each way to authenticate.
pub(crate) struct Registrations {
    pub(crate) basic: Registered,
    pub(crate) post: Registered,
    pub(crate) certificate: Registered,
    pub(crate) other_certificate: Registered,
    public_key: Registered,
    service_account: Registered,
    access_token: Registered,
}

impl Registrations {
    pub(crate) async fn apply(stage: &Stage<'_>) -> Result<Self> {
        let basic = include_str!("registrations/client_secret_basic.yaml");
        let basic = stage.mounted(basic, "checkout", "checkout").await?;
        let post = include_str!("registrations/client_secret_post.yaml");
        let certificate = include_str!("registrations/certificate.yaml");
        let other_certificate = certificate.replace("warehouse", "other");
        let access_token = include_str!("registrations/access_token.yaml");
        Ok(Self {
            post: stage.mounted(post, "newsletter", "newsletter").await?,
            certificate: stage.mounted(certificate, "warehouse", "warehouse-tls").await?,
            other_certificate: stage.mounted(&other_certificate, "other", "other-tls").await?,
            public_key: public_key(stage, &basic).await?,
            service_account: service_account(stage, &basic).await?,
            access_token: stage.mounted(access_token, "export", "export-token").await?,
            basic,
        })
    }
}

/// A partner who has made a key and registers its public part.
async fn public_key(stage: &Stage<'_>, like: &Registered) -> Result<Registered> {
    let manifest = include_str!("registrations/public_key.yaml");
    let key = ed25519(stage).await?;
    let (before, rest) = manifest.split_once("          -----BEGIN").context("a key in the manifest")?;
    let (_, after) = rest.split_once("-----END PUBLIC KEY-----\n").context("the end of the key")?;
    let pem: String =
        KeyPair::from_pem(&key)?.public_key_pem().lines().flat_map(|line| ["          ", line, "\n"]).collect();
    let client_id = stage.apply(&format!("{before}{pem}{after}"), "partner").await?;
    stage.configured(client_id, like, ("private.pem", &key))
}

/// A key as the documentation has it made.
async fn ed25519(stage: &Stage<'_>) -> Result<String> {
    let path = stage.directory.join("private.pem");
    let made = Program::new("openssl", "openssl", &stage.directory)
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&path)
        .start()?;
    ensure!(made.wait(PATIENCE).await?.success(), "openssl: {}", made.log_tail(5));
    Ok(std::fs::read_to_string(path)?)
}

/// A workload whose `ServiceAccount` is its identity.
async fn service_account(stage: &Stage<'_>, like: &Registered) -> Result<Registered> {
    let client_id = stage.apply(include_str!("registrations/service_account.yaml"), "reports").await?;
    let sa_token = stage.sa_token("reports", &stage.issuer).await?;
    stage.configured(client_id, like, ("sa_token", &sa_token))
}

/// Clients of one API.
pub(crate) struct Clients<'a> {
    pub(crate) tally: &'a mut Tally,
    pub(crate) foreign: &'a mut Foreign,
    pub(crate) api: &'a Server,
}

impl Clients<'_> {
    /// Every client gets a token by every method that it has.
    pub(crate) async fn get_tokens(&mut self, of: &Registrations) -> Result<()> {
        self.every("client_secret_basic", &of.basic).await?;
        self.every("client_secret_post", &of.post).await?;
        for (registered, of) in [("basic", &of.basic), ("post", &of.post)] {
            let what = format!("client_secret_{registered}, found by trying");
            self.said(Language::Go, "client_secret_detected", &what, of).await?;
        }
        self.rust("client_secret_basic", &of.basic, AuthType::BasicAuth).await?;
        self.rust("client_secret_post", &of.post, AuthType::RequestBody).await?;
        self.one(Language::Curl, "private_key_jwt", &of.public_key).await?;
        for language in [Language::Python, Language::Node, Language::Go] {
            self.one(language, "private_key_jwt", &of.certificate).await?;
        }
        self.every("tls_client_auth", &of.certificate).await?;
        self.every("service_account", &of.service_account).await?;
        self.one(Language::Curl, "access_token", &of.access_token).await
    }

    /// Every client can use a certificate of every type of key.
    pub(crate) async fn use_every_type_of_key(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (name, key) in
            [("p384", "algorithm: ECDSA, size: 384"), ("ed25519", "algorithm: Ed25519"), ("rsa", "algorithm: RSA")]
        {
            let manifest = include_str!("registrations/certificate.yaml").replace("warehouse", name);
            let manifest = manifest.replace("certificate: {}", &format!("certificate: {{privateKey: {{{key}}}}}"));
            let registered = stage.mounted(&manifest, name, &format!("{name}-tls")).await?;
            for language in Language::ALL {
                self.said(language, "tls_client_auth", &format!("tls_client_auth, {key}"), &registered).await?;
            }
        }
        Ok(())
    }

    /// Every client is refused with what is not its own.
    pub(crate) async fn are_refused(&mut self, stage: &Stage<'_>, of: &Registrations) -> Result<()> {
        let all = Language::ALL;
        let wrong = stage.altered("wrong", &of.basic, &[("client_secret", "apr_wrong")])?;
        self.refused(&all, "client_secret_basic", "with a wrong client secret", &wrong).await?;
        self.refused(&all, "client_secret_post", "which is not the registered method", &of.basic.volume).await?;
        self.refused(&all, "client_secret_basic", "which is not the registered method", &of.post.volume).await?;

        let (certificate, key) = (of.other_certificate.field("tls.crt")?, of.other_certificate.field("tls.key")?);
        let wrong = stage.altered("wrong-tls", &of.certificate, &[("tls.crt", &certificate), ("tls.key", &key)])?;
        self.refused(&all, "tls_client_auth", "with another client's certificate", &wrong).await?;
        self.refused(&all[1..], "private_key_jwt", "with another client's key", &wrong).await?;
        let key = ed25519(stage).await?;
        let wrong = stage.altered("wrong-key", &of.public_key, &[("private.pem", &key)])?;
        self.refused(&all[..1], "private_key_jwt", "with another key", &wrong).await?;

        let sa_token = stage.sa_token("default", &stage.issuer).await?;
        let wrong = stage.altered("wrong-account", &of.service_account, &[("sa_token", &sa_token)])?;
        self.refused(&all, "service_account", "of another ServiceAccount", &wrong).await?;
        let sa_token = stage.sa_token("reports", "https://other.example").await?;
        let wrong = stage.altered("wrong-audience", &of.service_account, &[("sa_token", &sa_token)])?;
        self.refused(&all, "service_account", "with a token for another audience", &wrong).await
    }

    /// The program `method` of every language gets a token that the API takes.
    pub(crate) async fn every(&mut self, method: &str, of: &Registered) -> Result<()> {
        for language in Language::ALL {
            self.one(language, method, of).await?;
        }
        Ok(())
    }

    async fn one(&mut self, language: Language, method: &str, of: &Registered) -> Result<()> {
        self.said(language, method, method, of).await
    }

    async fn said(&mut self, language: Language, method: &str, what: &str, of: &Registered) -> Result<()> {
        let ended = self.foreign.run(language, method, &[(&of.volume).into(), (&self.api.url).into()]).await?;
        let is_bound = method == "tls_client_auth";
        let outcome = ended.document().and_then(|seen| expect(&seen, &of.client_id, is_bound));
        self.tally.record(&language.client(), what, outcome);
        Ok(())
    }

    async fn refused(&mut self, languages: &[Language], method: &str, why: &str, volume: &Path) -> Result<()> {
        for language in languages {
            let ended = self.foreign.run(*language, method, &[volume.into(), (&self.api.url).into()]).await?;
            let what = format!("{method} {why}: refused");
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
pub(crate) fn expect(seen: &Value, client_id: &str, is_bound: bool) -> Result<()> {
    let scope = format!("{SCOPE} orders:write");
    let expected = json!({"client_id": client_id, "aud": AUDIENCE, "scope": scope, "bound": is_bound});
    ensure!(*seen == expected, "the API saw {seen} instead of {expected}");
    Ok(())
}

/// The pod of the documentation is one that an API server takes.
pub(crate) async fn pod(stage: &Stage<'_>) -> Result<()> {
    let manifest = stage.file("pod.yaml", include_str!("registrations/pod.yaml"))?;
    let args = ["create", "--dry-run=server", "-n", NAMESPACE, "-f", &manifest.to_string_lossy()];
    stage.plane.kubectl(&args).await?.ok().map(drop)
}
