//! `make demo`: the operator before one's eyes, on a real API server, in two minutes.
//!
//! It starts a control plane, installs the chart with helm, runs controller and token service with the chart's own
//! service accounts, and plays seven scenes. Every scene says what it expects; what does not happen ends the demo with an
//! error. It shows no credential: only claims, revisions, and whether a value is accepted.

mod screen;

#[path = "../harness/mod.rs"]
mod harness;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use appreg::api::AppRegistration;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;

use harness::oauth::{Answer, TokenClient};
use harness::{ControlPlane, Operator, Running};
use screen::{Screen, clock, now};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policies");
/// Where the demo's registrations are.
const NAMESPACE: &str = "default";
/// The default policy allows no client secret of less than a minute.
const SHORT_LIVES: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: RegistrationPolicy
metadata: {name: short-lives}
spec:
  description: Client secrets that live for seconds, to watch them rotate
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
  durations: {clientSecret: {min: 10s}}
";
/// A client secret that lives for half a minute.
const ROTATING: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: AppRegistration
metadata: {name: rotating}
spec:
  displayName: Its client secret lives for 30 seconds
  credentials:
    - {name: web, effectiveDuration: 30s, renewBefore: 12s, clientSecret: {}}
";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> Result<()> {
    let screen = Screen::new();
    let is_kept = Cell::new(false);
    let outcome = tokio::select! {
        outcome = demo(&screen, &is_kept) => outcome,
        // Whatever runs ends when the demo's future is dropped.
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) if is_kept.get() => Ok(()),
            Ok(()) => Err(anyhow::anyhow!("interrupted")),
            Err(error) => Err(error.into()),
        },
    };
    match &outcome {
        Ok(()) => screen.section(&format!("Done in {} s, nothing left behind.", screen.elapsed().as_secs())),
        Err(error) => screen.fails(&format!("{error:#}")),
    }
    outcome
}

async fn demo(screen: &Screen, is_kept: &Cell<bool>) -> Result<()> {
    screen.section("1  A Kubernetes API server, and appreg in it");
    screen.progress("starting etcd, kube-apiserver, kube-controller-manager");
    let plane = ControlPlane::start().await?;
    screen.progress("helm install appreg charts/appreg");
    let binary = std::env::current_exe()?.parent().and_then(|examples| examples.parent()).map(|d| d.join("appreg"));
    let binary = binary.filter(|path| path.exists()).context("the program is not built: run `make demo`")?;
    let mut operator = Operator::install(&plane, &binary.to_string_lossy(), &[]).await?;
    screen.progress("starting the controller and the token service with the chart's service accounts");
    let controller = operator.controller(&plane).await?;
    let token_service = operator.token_service(&plane).await?;
    screen.holds(&format!("both are ready; the issuer is {}", operator.issuer()));

    let story = Story { screen, plane: &plane, client: plane.client("admin") };
    let told = story.tell().await;
    if told.is_err() {
        tell_logs(screen, &[&controller, &token_service]);
    }
    told?;
    if is_asked_to_stay() {
        screen.section("It goes on running");
        screen.say(&format!("export KUBECONFIG={}", plane.kubeconfig("admin").display()));
        screen.say(&format!(
            "export PATH={}:$PATH    # kubectl, helm",
            plane.program("kubectl").parent().unwrap_or(plane.directory()).display()
        ));
        screen.say(&format!("token endpoint: {}/token", operator.issuer()));
        screen.say(&format!(
            "probes and metrics: http://{}/metrics, http://{}/metrics",
            controller.admin, token_service.admin
        ));
        screen.say(&format!("logs: {}", plane.directory().display()));
        screen.say("Ctrl-C ends it, and removes all of it.");
        is_kept.set(true);
        return std::future::pending().await;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "`KEEP=1 make demo` is how it is asked")]
fn is_asked_to_stay() -> bool {
    std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0")
}

fn tell_logs(screen: &Screen, programs: &[&Running]) {
    for program in programs {
        screen.section(&format!("The last that {} logged", program.process.name()));
        screen.output(&program.process.log_tail(20));
    }
}

struct Story<'a> {
    screen: &'a Screen,
    plane: &'a ControlPlane,
    client: kube::Client,
}

/// What an application reads in its Secret.
struct Published {
    client_id: String,
    client_secret: String,
    /// By the annotation, which only shows: nothing depends on it.
    current: u64,
    previous: Option<u64>,
    tokens: TokenClient,
}

impl Story<'_> {
    async fn tell(&self) -> Result<()> {
        self.allows().await?;
        self.registers().await?;
        self.gets_a_token().await?;
        self.rotates().await?;
        self.revokes().await?;
        self.deletes().await
    }

    /// What a platform engineer does before the teams come.
    async fn allows(&self) -> Result<()> {
        self.screen.section("2  A platform engineer says what may be asked for");
        self.screen
            .say("The default policy allows no scope, no API and no customer. Policies allow what the examples need:");
        self.kubectl("apply -f examples/policies/", &["apply", "-f", POLICIES]).await?;
        self.wait_for_policies().await?;
        self.kubectl("get registrationpolicies", &["get", "registrationpolicies"]).await?;
        self.screen.holds("each is in force, and selects the namespace default");
        Ok(())
    }

    async fn wait_for_policies(&self) -> Result<()> {
        let wait = ["wait", "--for=condition=Ready", "registrationpolicies", "--all", "--timeout=60s"];
        self.plane.kubectl(&wait).await?.ok().map(drop)
    }

    async fn registers(&self) -> Result<()> {
        self.screen.section("3  Teams register their applications");
        self.kubectl("apply -f examples/", &["apply", "-n", NAMESPACE, "-f", EXAMPLES]).await?;
        let wait = ["wait", "-n", NAMESPACE, "--for=condition=Ready", "appreg", "--all", "--timeout=60s"];
        self.kubectl("wait --for=condition=Ready appreg --all", &wait).await?;
        let wait = ["wait", "-n", NAMESPACE, "--for=condition=Approved", "appreg", "--all", "--timeout=60s"];
        self.plane.kubectl(&wait).await?.ok()?;
        self.kubectl("get appreg -A", &["get", "appreg", "-A"]).await?;
        self.kubectl("get secrets", &["get", "secrets", "-n", NAMESPACE]).await?;
        self.screen.holds("each has its client ID, its credentials, and what it asked for");
        Ok(())
    }

    async fn gets_a_token(&self) -> Result<()> {
        self.screen.section("4  An application gets an access token");
        let published = self.published("newsletter").await?;
        self.screen.say("POST /token, grant_type=client_credentials, with the client secret of the Secret newsletter");
        let answer = published.ask().await?;
        ensure!(answer.is_token(), "a token was expected: {answer:?}");
        let token = answer.access_token.context("a token")?;
        let claims = claims(&token)?;
        for name in ["iss", "sub", "client_id", "aud", "iat", "exp"] {
            self.screen.say(&format!("{name:>10}  {}", claims[name]));
        }
        ensure!(claims["client_id"] == published.client_id, "the token is another client's");
        self.screen.holds("a JWT (RFC 9068) that every holder of /jwks can verify");
        Ok(())
    }

    /// Old and new are accepted together, the published one at every moment, the old one no longer at its end.
    async fn rotates(&self) -> Result<()> {
        self.screen.section("5  A client secret rotates");
        self.screen
            .say("The default policy allows no client secret of less than 60 s. A platform engineer allows 10 s:");
        self.screen.command("kubectl apply -f -");
        self.screen.output(SHORT_LIVES);
        self.plane.kubectl_apply(SHORT_LIVES).await?;
        self.wait_for_policies().await?;
        self.screen.say("It lives for 30 s and is replaced 12 s before its end. All that was ever published is tried:");
        self.plane.kubectl_apply(ROTATING).await?;
        let mut values: BTreeMap<u64, String> = BTreeMap::new();
        let (mut first_end, mut overlap, mut last) = (None, false, String::new());
        let started = Instant::now();
        loop {
            ensure!(started.elapsed() < PATIENCE, "no rotation within {PATIENCE:?}");
            let Ok(published) = self.published("rotating").await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if first_end.is_none() {
                first_end = self.end_of_first("rotating").await?;
            }
            values.insert(published.current, published.client_secret.clone());
            let mut accepted = BTreeMap::new();
            for (revision, client_secret) in &values {
                let answer = published.tokens.basic(&published.client_id, client_secret).await?;
                ensure!(answer.is_token() || answer.is_refusal(), "revision {revision}: {answer:?}");
                accepted.insert(*revision, answer.is_token());
            }
            let line = self.timeline(&published, &accepted);
            if line != last {
                self.screen.event(&line);
                last = line;
            }
            ensure!(accepted[&published.current], "the published client secret was refused");
            overlap |= accepted.len() > 1 && accepted.values().all(|accepted| *accepted);
            if accepted.get(&1) == Some(&false) {
                let end = first_end.context("the end of revision 1 in the status")?;
                ensure!(overlap, "old and new were never accepted together");
                ensure!(now() >= end, "revision 1 was refused before its end, {}", clock(end));
                self.screen.holds(&format!("both worked until the first one ended, at {}", clock(end)));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn timeline(&self, published: &Published, accepted: &BTreeMap<u64, bool>) -> String {
        let previous = published.previous.map(|previous| format!(", previous {previous}")).unwrap_or_default();
        let tried = accepted.iter().map(|(revision, accepted)| {
            let answer = if *accepted { self.screen.good("accepted") } else { self.screen.bad("refused ") };
            format!("revision {revision} {answer}")
        });
        let shown = format!("Secret: current {}{previous}", published.current);
        format!("{shown:<32} {}", tried.collect::<Vec<_>>().join("   "))
    }

    async fn end_of_first(&self, name: &str) -> Result<Option<Timestamp>> {
        let api: Api<AppRegistration> = Api::namespaced(self.client.clone(), NAMESPACE);
        let status = serde_json::to_value(api.get(name).await?.status)?;
        let current = &status["credentials"][0]["current"];
        let end = current["notAfter"].as_str().filter(|_| current["revision"] == 1);
        Ok(end.map(str::parse).transpose()?)
    }

    async fn revokes(&self) -> Result<()> {
        self.screen.section("6  A client secret has leaked: it is revoked");
        let old = self.published("newsletter").await?;
        let patch = format!(r#"{{"spec":{{"revokeMintedBefore":"{}"}}}}"#, now().strftime("%Y-%m-%dT%H:%M:%SZ"));
        let args = ["patch", "-n", NAMESPACE, "appreg", "newsletter", "--type=merge", "-p", &patch];
        self.kubectl(&format!("patch appreg newsletter --type=merge -p '{patch}'"), &args).await?;
        let started = Instant::now();
        loop {
            let new = self.published("newsletter").await?;
            let is_refused = old.ask().await?.is_refusal();
            if is_refused && new.current > old.current {
                ensure!(new.ask().await?.is_token(), "the new client secret was refused");
                let after = started.elapsed().as_millis();
                self.screen
                    .event(&format!("revision {} refused, {} accepted, {after} ms later", old.current, new.current));
                self.screen.holds("the old one is worthless, the new one is in the Secret");
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "not revoked within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn deletes(&self) -> Result<()> {
        self.screen.section("7  The registration is deleted");
        let last = self.published("newsletter").await?;
        let started = Instant::now();
        self.kubectl("delete appreg newsletter", &["delete", "-n", NAMESPACE, "appreg", "newsletter"]).await?;
        self.screen.say("It counts as deleted after 30 s of absence and a confirmation: a list may have been short.");
        let mut told = 0;
        loop {
            let answer = last.ask().await?;
            let elapsed = started.elapsed();
            if answer.is_refusal() {
                self.screen.event(&format!("401 invalid_client, {} s after the deletion", elapsed.as_secs()));
                ensure!(self.published("newsletter").await.is_err(), "the Secret newsletter is still there");
                self.screen.holds("its credentials are worthless, and its Secrets are gone");
                return Ok(());
            }
            ensure!(answer.is_token(), "{answer:?}");
            ensure!(elapsed < PATIENCE, "still accepted {PATIENCE:?} after the deletion");
            if elapsed.as_secs() >= told {
                told = elapsed.as_secs() + 5;
                self.screen.event("still accepted");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Shows a command and what it prints.
    async fn kubectl(&self, shown: &str, args: &[&str]) -> Result<()> {
        self.screen.command(&format!("kubectl {shown}"));
        self.screen.output(&self.plane.kubectl(args).await?.ok()?);
        Ok(())
    }

    async fn published(&self, name: &str) -> Result<Published> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let secret = api.get(name).await?;
        let annotation = secret.metadata.annotations.as_ref().and_then(|all| all.get("appreg.dev/published"));
        let revisions: Value = serde_json::from_str(annotation.context("the annotation of what is published")?)?;
        let Some(entry) = revisions.as_object().and_then(|entries| entries.values().next()) else {
            bail!("nothing is published yet");
        };
        let data = secret.data.unwrap_or_default();
        let field = |name: &str| -> Result<String> {
            let bytes = data.get(name).with_context(|| format!("the field {name}"))?;
            Ok(String::from_utf8(bytes.0.clone())?)
        };
        Ok(Published {
            client_id: field("client_id")?,
            client_secret: field("client_secret")?,
            current: entry["current"].as_u64().context("a current revision")?,
            previous: entry["previous"].as_u64(),
            tokens: TokenClient::new(&field("issuer_ca.crt")?, &field("token_endpoint")?)?,
        })
    }
}

impl Published {
    async fn ask(&self) -> Result<Answer> {
        self.tokens.basic(&self.client_id, &self.client_secret).await
    }
}

/// What a token says. Its signature is not checked here: the tests do that, with libraries that are not ours.
fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("a JWT")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?)
}
