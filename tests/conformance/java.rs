//! Java's clients, Spring Boot and Nimbus: they know the issuer alone, and read its `openid-configuration` first.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::clients::{Clients, REFUSED, Registrations, expect};
use super::foreign::{Ended, locked};
use super::harness::eventually::eventually_within;
use super::harness::oauth::https;
use super::stage::{AUDIENCE, PATIENCE, Registered, Stage};

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    Spring,
    Nimbus,
}

/// How a program must end.
enum Expected {
    /// It prints what the API has seen: a token of this client.
    TokenOf(String),
    /// It prints that all is as it should be.
    Valid,
    /// The token endpoint has refused it, and it says one of these.
    Refused(&'static [&'static str]),
}

/// One run of a program.
struct Step {
    library: Library,
    what: String,
    /// The class and its arguments.
    args: Vec<OsString>,
    expected: Expected,
}

impl Library {
    const ALL: [Self; 2] = [Self::Spring, Self::Nimbus];

    /// Its client, with the version that pom.xml has.
    fn client(self) -> String {
        let artifact = match self {
            Self::Spring => "spring-boot-dependencies",
            Self::Nimbus => "oauth2-oidc-sdk",
        };
        let pom = include_str!("java/pom.xml");
        let version = locked(&pom.replace(char::is_whitespace, ""), &format!("{artifact}</artifactId><version>"));
        match self {
            Self::Spring => format!("Java Spring Boot {version}"),
            Self::Nimbus => format!("Java {artifact} {version}"),
        }
    }

    /// Its program for this method. Spring's reads in the volume which method it is.
    fn program(self, method: &str) -> &'static str {
        match (self, method) {
            (Self::Spring, _) => "SpringClient",
            (Self::Nimbus, "client_secret_basic") => "NimbusBasic",
            (Self::Nimbus, "client_secret_post") => "NimbusPost",
            (Self::Nimbus, _) => "NimbusPrivateKey",
        }
    }
}

impl Step {
    /// A client that finds in `volume` how it authenticates.
    fn client(library: Library, method: &str, volume: &Path, api: &str, expected: Expected) -> Self {
        let args = vec![library.program(method).into(), volume.into(), api.into()];
        Self { library, what: method.to_owned(), args, expected }
    }

    /// With a further argument, and this said of it.
    fn with(mut self, argument: &str, what: &str) -> Self {
        self.args.push(argument.into());
        self.saying(what)
    }

    fn saying(mut self, what: &str) -> Self {
        self.what = format!("{}{what}", self.what);
        self
    }

    fn discovery(library: Library, issuer_ca: &Path, issuer: &str) -> Self {
        let args = vec!["Discovery".into(), issuer_ca.into(), format!("{library:?}").into(), issuer.into()];
        Self { library, what: "discovery from ".to_owned(), args, expected: Expected::Valid }
    }

    fn outcome(&self, ended: &Ended) -> Result<()> {
        match &self.expected {
            Expected::TokenOf(client_id) => expect(&ended.document()?, client_id, false),
            Expected::Valid => {
                let said = ended.document()?;
                ensure!(said == json!({"valid": true}), "{said}");
                Ok(())
            }
            Expected::Refused(words) => ended.failed_with(words),
        }
    }
}

impl Clients<'_> {
    /// Every way of Java's clients to discover a server, to authenticate and to be refused.
    pub(crate) async fn start_from_the_issuer(&mut self, stage: &Stage<'_>, of: &Registrations) -> Result<()> {
        let key = stage.altered("jwt", &of.certificate, &[("token_endpoint_auth_method", "private_key_jwt")])?;
        let wrong_secret = stage.altered("java-secret", &of.basic, &[("client_secret", "apr_wrong")])?;
        let other_key = of.other_certificate.field("tls.key")?;
        let wrong_key = [("token_endpoint_auth_method", "private_key_jwt"), ("tls.key", &other_key)];
        let wrong_key = stage.altered("java-key", &of.certificate, &wrong_key)?;
        let method = [("token_endpoint_auth_method", "client_secret_post")];
        let wrong_method = stage.altered("java-method", &of.basic, &method)?;
        let below = issuer_with_a_path(stage, &of.basic).await?;
        let issuer_ca = of.basic.volume.join("issuer_ca.crt");
        let api = self.api.url.clone();

        let mut steps = Vec::new();
        for library in Library::ALL {
            let accepted = |method: &str, volume: &Path, of: &Registered| {
                Step::client(library, method, volume, &api, Expected::TokenOf(of.client_id.clone()))
            };
            let refused =
                |method: &str, volume: &Path| Step::client(library, method, volume, &api, Expected::Refused(&REFUSED));
            let basic = &of.basic.volume;
            let ungranted =
                Step::client(library, "client_secret_basic", basic, &api, Expected::Refused(&["invalid_target"]));
            steps.extend([
                Step::discovery(library, &issuer_ca, &stage.issuer).saying("the issuer"),
                Step::discovery(library, &issuer_ca, &below).saying("an issuer with a path"),
                accepted("client_secret_basic", basic, &of.basic),
                accepted("client_secret_basic", basic, &of.basic).with(AUDIENCE, ", with resource"),
                ungranted.with("https://other.example", " for a resource that was not granted: refused"),
                accepted("client_secret_post", &of.post.volume, &of.post),
                accepted("private_key_jwt", &key, &of.certificate),
                accepted("private_key_jwt", &key, &of.certificate).with(AUDIENCE, ", with resource"),
                refused("client_secret_basic", &wrong_secret).saying(" with a wrong client secret: refused"),
                refused("client_secret_post", &wrong_method).saying(" which is not the registered method: refused"),
                refused("private_key_jwt", &wrong_key).saying(" with another client's key: refused"),
            ]);
        }
        self.take(steps).await
    }

    /// The usual way alone.
    pub(crate) async fn start_from_the_issuer_with_a_client_secret(&mut self, of: &Registered) -> Result<()> {
        let method = "client_secret_basic";
        let expected = || Expected::TokenOf(of.client_id.clone());
        let step = |library| Step::client(library, method, &of.volume, &self.api.url, expected());
        let steps = Library::ALL.map(step).into();
        self.take(steps).await
    }

    async fn take(&mut self, steps: Vec<Step>) -> Result<()> {
        let args: Vec<_> = steps.iter().map(|step| step.args.clone()).collect();
        let ended = self.foreign.run_java(&args).await?;
        for (step, ended) in steps.iter().zip(&ended) {
            self.tally.record(&step.library.client(), &step.what, step.outcome(ended));
        }
        Ok(())
    }
}

/// A further authorization server, below the configured one; its issuer, once it answers.
async fn issuer_with_a_path(stage: &Stage<'_>, like: &Registered) -> Result<String> {
    let issuer = format!("{}/partners", stage.issuer);
    let server = json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AuthorizationServer", "metadata": {"name": "partners"},
        "spec": {"namespaceSelector": {}, "builtIn": {"issuer": issuer}},
    });
    stage.plane.kubectl_apply(&server.to_string()).await?;
    let http = https(&like.field("issuer_ca.crt")?)?;
    let url = format!("{issuer}/jwks");
    eventually_within(PATIENCE, "the server below the issuer answers", async || {
        let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|error| error.to_string())?.json::<Value>().await.map_err(|error| error.to_string())
    })
    .await;
    Ok(issuer)
}
