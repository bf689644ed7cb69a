//! A token is for one API: clients ask with and without `resource` (RFC 8707), and no token has a scope of an API that it is
//! not for.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::foreign::{Foreign, Language};
use super::resource::{Server, Validator, http};
use super::rust;
use super::stage::{AUDIENCE, Registered, Stage, Wanted};
use super::tally::Tally;

/// The second API of the registration. Its scope is one that both have.
const STOCK: Wanted = Wanted { audience: "https://stock.example", scope: "status:read" };

/// Every scope that is granted at an API, in the order in which a token has them.
const AT_ORDERS: &str = "orders:read orders:write status:read";
const AT_STOCK: &str = "status:read stock:read";
/// What is granted at both.
const AT_BOTH: &str = "status:read";

/// What is asked for, at which API the token is shown, and what that one sees in it.
struct Case<'a> {
    what: &'static str,
    resources: &'static [&'static str],
    api: &'a Server,
    audience: Value,
    scope: &'static str,
}

/// The registration with two APIs, and these APIs.
pub(crate) struct Apis<'a> {
    pub(crate) tally: &'a mut Tally,
    pub(crate) foreign: &'a mut Foreign,
    pub(crate) orders: &'a Server,
}

impl Apis<'_> {
    /// Every client gets tokens for one API and for both, and none for another.
    pub(crate) async fn ask(&mut self, stage: &Stage<'_>) -> Result<()> {
        let manifest = include_str!("registrations/several_apis.yaml");
        let dispatch = stage.mounted(manifest, "dispatch", "dispatch").await?;
        let delivered = stage.mounted(manifest, "dispatch", "dispatch-token").await?;
        let issuer_ca = dispatch.field("issuer_ca.crt")?;
        let stock = Server::start(stage, self.foreign, Validator::Jose, &issuer_ca, STOCK).await?;
        for case in cases(self.orders, &stock) {
            // Authlib sends one resource at most.
            let has_several = case.resources.len() > 1;
            for language in Language::ALL.into_iter().filter(|l| !has_several || *l != Language::Python) {
                let ended = self.run((language, "resource"), &dispatch, case.api, case.resources).await?;
                let outcome = ended.document().and_then(|seen| case.expect(&seen, &dispatch.client_id));
                self.tally.record(&language.client(), case.what, outcome);
            }
            let outcome = self.rust(&dispatch, &case).await;
            self.tally.record(rust::CLIENT, case.what, outcome);
        }
        self.are_refused(&dispatch).await?;
        self.delivered(&delivered, &stock).await
    }

    /// A token for one API is none for another, and nobody gets one for an API or a scope that is not granted there.
    async fn are_refused(&mut self, of: &Registered) -> Result<()> {
        for (what, resource, words) in [
            ("a token for one API, at another: 401", STOCK.audience, ["401", "401"]),
            ("resource that is not granted: invalid_target", "https://other.example", ["invalid_target", "error: 400"]),
        ] {
            for language in Language::ALL {
                let ended = self.run((language, "resource"), of, self.orders, &[resource]).await?;
                self.tally.record(&language.client(), what, ended.failed_with(&words));
            }
        }
        for (what, resources, scope, error) in [
            ("scope of another API: invalid_scope", [AUDIENCE].as_slice(), "stock:read", "invalid_scope"),
            ("scope of one of two APIs: invalid_scope", &[AUDIENCE, STOCK.audience], "stock:read", "invalid_scope"),
            ("resource that is not granted: invalid_target", &["https://other.example"], AT_BOTH, "invalid_target"),
        ] {
            let outcome = match rust::token_for(of, resources, Some(scope)).await {
                Ok(_) => Err(anyhow::anyhow!("it got a token")),
                Err(refused) if format!("{refused:#}").contains(error) => Ok(()),
                Err(other) => Err(other),
            };
            self.tally.record(rust::CLIENT, what, outcome);
        }
        Ok(())
    }

    /// A delivered token is for the API that its entry names.
    async fn delivered(&mut self, of: &Registered, stock: &Server) -> Result<()> {
        let case = Case {
            what: "a delivered token, at its API",
            resources: &[],
            api: stock,
            audience: json!(STOCK.audience),
            scope: AT_STOCK,
        };
        let ended = self.run((Language::Curl, "access_token"), of, stock, &[]).await?;
        let outcome = ended.document().and_then(|seen| case.expect(&seen, &of.client_id));
        self.tally.record(&Language::Curl.client(), case.what, outcome);
        let ended = self.run((Language::Curl, "access_token"), of, self.orders, &[]).await?;
        self.tally.record(
            &Language::Curl.client(),
            "a delivered token, at another API: 401",
            ended.failed_with(&["401"]),
        );
        Ok(())
    }

    async fn run(
        &mut self,
        (language, name): (Language, &str),
        of: &Registered,
        api: &Server,
        resources: &[&str],
    ) -> Result<super::foreign::Ended> {
        let mut args: Vec<OsString> = vec![(&of.volume).into(), (&api.url).into()];
        args.extend(resources.iter().map(Into::into));
        self.foreign.run(language, name, &args).await
    }

    async fn rust(&self, of: &Registered, case: &Case<'_>) -> Result<()> {
        let token = rust::token_for(of, case.resources, None).await?;
        let (status, seen) = case.api.call(&http(&self.foreign.api_ca, None)?, &token).await?;
        ensure!(status == 200, "{status}: {seen}");
        case.expect(&seen, &of.client_id)
    }
}

impl Case<'_> {
    fn expect(&self, seen: &Value, client_id: &str) -> Result<()> {
        let expected = json!({"client_id": client_id, "aud": self.audience, "scope": self.scope, "bound": false});
        ensure!(*seen == expected, "the API saw {seen} instead of {expected}");
        Ok(())
    }
}

fn cases<'a>(orders: &'a Server, stock: &'a Server) -> [Case<'a>; 4] {
    let case = |what, resources, api, audience, scope| Case { what, resources, api, audience, scope };
    [
        case("without resource: the first API", &[], orders, json!(AUDIENCE), AT_ORDERS),
        case("resource=orders", &[AUDIENCE], orders, json!(AUDIENCE), AT_ORDERS),
        case("resource=stock", &[STOCK.audience], stock, json!(STOCK.audience), AT_STOCK),
        case(
            "resource=orders and resource=stock: what both have",
            &[AUDIENCE, STOCK.audience],
            stock,
            json!([AUDIENCE, STOCK.audience]),
            AT_BOTH,
        ),
    ]
}
