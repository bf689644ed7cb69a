//! Introspection (RFC 7662) and revocation (RFC 7009) by clients that nobody here wrote.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::clients::Registrations;
use super::foreign::{Foreign, Language};
use super::forge::Forge;
use super::resource::{Server, http};
use super::rust;
use super::stage::{AUDIENCE, Registered, Stage};
use super::tally::Tally;

/// Those that have programs for both endpoints.
const LANGUAGES: [Language; 3] = [Language::Curl, Language::Python, Language::Node];

/// A resource server and an application, and what they ask.
pub(crate) struct Endpoints<'a, 'p> {
    pub(crate) tally: &'a mut Tally,
    pub(crate) foreign: &'a mut Foreign,
    pub(crate) stage: &'a Stage<'p>,
    pub(crate) of: &'a Registrations,
}

impl Endpoints<'_, '_> {
    pub(crate) async fn resource_server(&self) -> Result<Registered> {
        self.stage.mounted(include_str!("registrations/resource_server.yaml"), "orders", "orders").await
    }

    /// A resource server is told whose a token is, and nobody else is told anything.
    pub(crate) async fn introspect(&mut self, server: &Registered, forge: &Forge) -> Result<()> {
        let bearer = self.of.basic.token().await?;
        let bound = forge.bound(&self.of.certificate.field("tls.crt")?)?;
        let ended = forge.ended()?;
        let [_, application] = [server, &self.of.basic];
        for language in LANGUAGES {
            let seen = self.ask(language, server, &bearer).await.and_then(|answer| self.is_active(&answer, false));
            self.tally.record(&language.client(), "introspection of a token: active", seen);
            let seen = self.ask(language, server, &bound).await.and_then(|answer| self.is_active(&answer, true));
            self.tally.record(&language.client(), "introspection of a bound token: active, with cnf", seen);
            let seen = self.ask(language, server, &ended).await.and_then(|answer| is_inactive(&answer));
            self.tally.record(&language.client(), "introspection of a token that has ended: inactive", seen);
            let seen = self.ask(language, server, "newsletter").await.and_then(|answer| is_inactive(&answer));
            self.tally.record(&language.client(), "introspection of what is no token: inactive", seen);
            let seen = self.ask(language, application, &bearer).await.and_then(|answer| is_inactive(&answer));
            self.tally.record(&language.client(), "introspection by one who is not its audience: inactive", seen);
        }
        let owner = rust::introspect(server, &bearer).await.and_then(|owner| {
            ensure!(owner.as_ref() == Some(&self.of.basic.client_id), "{owner:?}");
            Ok(())
        });
        self.tally.record(rust::CLIENT, "introspection of a token: active", owner);
        Ok(())
    }

    /// An application revokes a token of its own: introspection honours it at once, who verifies offline does not know.
    pub(crate) async fn revoke(&mut self, server: &Registered, offline: &Server) -> Result<()> {
        let application = &self.of.basic;
        let caller = http(&self.foreign.api_ca, None)?;
        for language in LANGUAGES {
            let token = application.token().await?;
            let revoked = self.run(language, "revoke", application, &token).await.map(drop);
            self.tally.record(&language.client(), "revocation of a token", revoked);
            let seen = self.ask(language, server, &token).await.and_then(|answer| is_inactive(&answer));
            self.tally.record(&language.client(), "introspection of a revoked token: inactive", seen);
            let taken = offline.answers(200, &caller, &token).await;
            self.tally.record(offline.validator.name(), "a revoked token, until it ends: 200", taken);
        }
        let token = application.token().await?;
        let revoked = rust::revoke(application, &token).await;
        self.tally.record(rust::CLIENT, "revocation of a token", revoked);
        let seen = rust::introspect(server, &token).await.and_then(|owner| {
            ensure!(owner.is_none(), "it is active");
            Ok(())
        });
        self.tally.record(rust::CLIENT, "introspection of a revoked token: inactive", seen);
        Ok(())
    }

    async fn ask(&mut self, language: Language, who: &Registered, token: &str) -> Result<Value> {
        self.run(language, "introspect", who, token).await
    }

    /// The program `name` of `language`, with the volume of `who` and a token in a file.
    async fn run(&mut self, language: Language, name: &str, who: &Registered, token: &str) -> Result<Value> {
        let token = self.stage.file("token", token)?;
        self.foreign.run(language, name, &[(&who.volume).into(), token.into()]).await?.document()
    }

    fn is_active(&self, answer: &Value, is_bound: bool) -> Result<()> {
        let expected = (json!(true), json!(self.of.basic.client_id), json!(AUDIENCE), is_bound);
        let is = |name: &str| answer[name].clone();
        let seen = (is("active"), is("client_id"), is("aud"), answer["cnf"]["x5t#S256"].is_string());
        ensure!(seen == expected, "{answer}");
        Ok(())
    }
}

/// RFC 7662 section 2.2: nothing is said of a token that is not active.
fn is_inactive(answer: &Value) -> Result<()> {
    ensure!(*answer == json!({"active": false}), "{answer}");
    Ok(())
}
