//! The operator running on a control plane, for tests that need not stop either: one [`Stage`] for all of them, and a
//! [`Room`] (a namespace) for each.
//!
//! What a room holds is told when its test fails: registrations, the names of its Secrets and their annotations, Events,
//! and the end of the controller's log. Never a field of a Secret.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use appreg::api::{AppRegistration, ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::harness::{
    Answer, Audit, ControlPlane, Operator, Options, Running, TokenClient, eventually_within, permissive,
};

/// Long enough for two busy cores, where nothing is waited for but work.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_appreg");

/// What the audit log calls the controller.
pub(crate) const CONTROLLER: &str = "system:serviceaccount:appreg-system:appreg-controller";

/// A control plane with a running operator.
pub(crate) struct Stage {
    pub(crate) plane: &'static ControlPlane,
    controller: Running,
    token_service: Running,
    issuer: String,
}

/// The stage that tests share which neither stop it nor change its configuration. Its policy allows every scope, API and
/// customer, lets client secrets, certificates and tokens live for seconds, and namespaces want each other's client IDs.
pub(crate) async fn stage() -> &'static Stage {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    // Not on the caller's runtime, which ends with its test.
    let sets = permissive(&[
        "policy.durations.clientSecret.min=5s",
        "policy.durations.certificate.min=5s",
        "policy.durations.accessToken.min=5s",
        "policy.clientIDs={*}",
    ]);
    STAGE.get_or_init(|| async { RUNTIME.spawn(Stage::start(sets)).await.expect("the stage is set") }).await
}

/// A namespace of a test's own.
pub(crate) struct Room {
    pub(crate) stage: &'static Stage,
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl Stage {
    /// A control plane of its own, and the chart with these values. It stands until the test process ends.
    pub(crate) async fn start(sets: Vec<&'static str>) -> Self {
        let options = Options { audit: Audit::Users(vec![CONTROLLER.to_owned()]), ..Options::default() };
        let plane = ControlPlane::start_with(options).await.expect("the control plane starts");
        let plane: &'static ControlPlane = Box::leak(Box::new(plane));
        let mut operator = Operator::install(plane, BINARY, &sets).await.expect("the chart is installed");
        operator.log("info,appreg=debug");
        let controller = operator.controller(plane).await.expect("the controller starts");
        let token_service = operator.token_service(plane).await.expect("the token service starts");
        let issuer = operator.issuer();
        Self { plane, controller, token_service, issuer }
    }

    /// The configured server's issuer.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A new namespace whose name begins with `prefix`.
    pub(crate) async fn room(&'static self, prefix: &str) -> Room {
        let namespace = self.plane.namespace(prefix).await.unwrap();
        Room { stage: self, namespace, client: self.plane.client("admin") }
    }

    /// What the controller has logged.
    pub(crate) fn controller_log(&self) -> String {
        self.controller.process.log()
    }
}

/// A new room on the shared stage.
pub(crate) async fn room(prefix: &str) -> Room {
    stage().await.room(prefix).await
}

impl Room {
    pub(crate) fn registrations(&self) -> Api<AppRegistration> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a registration as a user's tool does.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> AppRegistration {
        let object = json!({
            "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let by = PatchParams::apply("tests").force();
        self.registrations().patch(name, &by, &Patch::Apply(&object)).await.unwrap()
    }

    /// Sets annotations of a registration.
    pub(crate) async fn annotate(&self, name: &str, annotations: Value) {
        let patch = json!({"metadata": {"annotations": annotations}});
        self.registrations().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Deletes a registration.
    pub(crate) async fn delete(&self, name: &str) {
        self.registrations().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Edits a Secret by a JSON merge patch, as `kubectl edit` does.
    pub(crate) async fn edit(&self, secret: &str, patch: Value) -> Secret {
        let by = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
        self.secrets().patch(secret, &by, &Patch::Merge(&patch)).await.unwrap()
    }

    /// Waits until a registration is as `condition` wants it.
    pub(crate) async fn until<T, E: Display>(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&AppRegistration) -> Result<T, E>,
    ) -> T {
        let api = self.registrations();
        eventually_within(SOON, &format!("{}/{name}: {what}", self.namespace), async || {
            let registration = api.get(name).await.map_err(|error| error.to_string())?;
            condition(&registration).map_err(|seen| seen.to_string())
        })
        .await
    }

    /// Waits until a registration is `Ready` at its present generation, and nothing stands in its way.
    pub(crate) async fn ready(&self, name: &str) -> AppRegistration {
        self.until(name, "ready", |registration| {
            let is_ready = condition(registration, ConditionType::Ready).is_some_and(|c| c.status == "True");
            let problems = [ConditionType::Stalled, ConditionType::Reconciling];
            let has_problem = problems.iter().any(|type_| condition(registration, *type_).is_some());
            let seen = registration.status.as_ref().and_then(|status| status.observed_generation);
            let is_done = is_ready && !has_problem && seen == registration.metadata.generation;
            if is_done { Ok(registration.clone()) } else { Err(conditions(registration)) }
        })
        .await
    }

    /// Waits until a registration says `Stalled` for this reason, and returns the message.
    pub(crate) async fn stalled(&self, name: &str, reason: Reason) -> String {
        self.says(name, ConditionType::Stalled, reason).await
    }

    /// Waits until a condition of a registration has this reason, and returns its message.
    pub(crate) async fn says(&self, name: &str, type_: ConditionType, reason: Reason) -> String {
        self.until(name, &format!("{type_} for {reason}"), |registration| match condition(registration, type_) {
            Some(condition) if condition.reason == reason.as_str() => Ok(condition.message.clone()),
            _ => Err(conditions(registration)),
        })
        .await
    }

    /// Waits until a Secret is as `condition` wants it. What `condition` says must not name a value.
    pub(crate) async fn secret_until<T, E: Display>(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Secret) -> Result<T, E>,
    ) -> T {
        let api = self.secrets();
        eventually_within(SOON, &format!("the Secret {}/{name}: {what}", self.namespace), async || {
            let secret = api.get(name).await.map_err(|error| error.to_string())?;
            condition(&secret).map_err(|seen| seen.to_string())
        })
        .await
    }

    /// Waits until a Secret holds another `client_secret` than this one, and returns it.
    pub(crate) async fn another_client_secret(&self, name: &str, old: &str) -> String {
        self.secret_until(name, "another client_secret", |secret| match text(secret, "client_secret") {
            Some(new) if new != old => Ok(new),
            _ => Err(format!("{:?}", secret.annotations().get("appreg.dev/published"))),
        })
        .await
    }

    /// A Secret as it is.
    pub(crate) async fn secret(&self, name: &str) -> Secret {
        self.secrets().get(name).await.unwrap()
    }

    /// A registered client as its application sees it, from the Secret.
    pub(crate) async fn application(&self, secret: &str) -> Application {
        Application::of(&self.secret(secret).await)
    }

    /// Waits for an Event about a registration, and returns its note.
    pub(crate) async fn event(&self, name: &str, reason: Reason) -> String {
        eventually_within(SOON, &format!("{}/{name}: an Event {reason}", self.namespace), async || {
            let events = self.events(name).await;
            let found = events.iter().find(|event| event.reason.as_deref() == Some(reason.as_str()));
            found
                .map(|event| event.note.clone().unwrap_or_default())
                .ok_or_else(|| format!("{:?}", events.iter().map(|event| event.reason.as_deref()).collect::<Vec<_>>()))
        })
        .await
    }

    /// The Events about a registration.
    pub(crate) async fn events(&self, name: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let is_about =
            |event: &Event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name));
        all.into_iter().filter(is_about).collect()
    }

    /// The name, uid and content of the ledger entry of a client ID; `None` if there is none.
    pub(crate) async fn ledger_entry(&self, client_id: &str) -> Option<Value> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), crate::harness::operator::LEDGER);
        let secret = api.get_opt(&appreg::ledger::name("default", client_id)).await.unwrap()?;
        Some(serde_json::from_slice(&secret.data?.get("ledger.json")?.0).unwrap())
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let output = std::process::Command::new(self.stage.plane.program("kubectl"))
            .args(args)
            .env("KUBECONFIG", self.stage.plane.kubeconfig("admin"))
            .output();
        output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Room {
    /// Tells what is there when a test has failed.
    #[expect(clippy::print_stderr, reason = "the test's own output is where a failure is looked for")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let namespace = ["-n", &self.namespace];
        let show = |what: &str, text: String| eprintln!("--- {what}\n{text}");
        show("registrations", self.kubectl(&[&namespace[..], &["get", "appreg", "-o", "yaml"]].concat()));
        let columns = "-o=custom-columns=NAME:.metadata.name,UID:.metadata.uid,VERSION:.metadata.resourceVersion,\
                       OWNERS:.metadata.ownerReferences[*].uid,LABELS:.metadata.labels,\
                       ANNOTATIONS:.metadata.annotations";
        show("Secrets", self.kubectl(&[&namespace[..], &["get", "secrets", columns]].concat()));
        let events = ["get", "events.events.k8s.io", "--sort-by=.eventTime", "--no-headers"];
        show("Events", self.kubectl(&[&namespace[..], &events].concat()));
        let lines = self.stage.controller.process.log();
        let mine: Vec<_> = lines.lines().filter(|line| line.contains(&self.namespace)).collect();
        show("controller", mine[mine.len().saturating_sub(80)..].join("\n"));
        show("controller, everything", self.stage.controller.process.log_tail(15));
        show("token service", self.stage.token_service.process.log_tail(15));
    }
}

/// A client ID and a client secret, with where they are good for something.
#[derive(Clone)]
pub(crate) struct Application {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) tokens: TokenClient,
}

impl Application {
    pub(crate) fn of(secret: &Secret) -> Self {
        let field = |name: &str| text(secret, name).unwrap_or_else(|| panic!("the Secret has no {name}"));
        Self {
            client_id: field("client_id"),
            client_secret: field("client_secret"),
            tokens: TokenClient::new(&field("issuer_ca.crt"), &field("token_endpoint")).unwrap(),
        }
    }

    /// Whether it has another one's client ID and client secret. Compared here, so that no failed assertion shows them.
    pub(crate) fn has_what(&self, other: &Self) -> bool {
        self.client_id == other.client_id && self.client_secret == other.client_secret
    }

    /// Asks for a token with what it holds.
    pub(crate) async fn ask(&self) -> Answer {
        self.ask_with(&self.client_secret).await
    }

    /// Asks for a token with another client secret.
    pub(crate) async fn ask_with(&self, client_secret: &str) -> Answer {
        self.tokens.basic(&self.client_id, client_secret).await.unwrap()
    }

    /// Asserts that a client secret is accepted.
    pub(crate) async fn accepted(&self, client_secret: &str, what: &str) {
        let answer = self.ask_with(client_secret).await;
        assert!(answer.is_token(), "{what}: {answer:?}");
    }

    /// Waits until a client secret is refused, at most this long.
    pub(crate) async fn refused_within(&self, within: Duration, client_secret: &str, what: &str) {
        eventually_within(within, what, async || {
            let answer = self.ask_with(client_secret).await;
            if answer.is_refusal() { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

/// A field of a Secret as text.
pub(crate) fn text(secret: &Secret, field: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(field)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// A condition of a registration.
pub(crate) fn condition(registration: &AppRegistration, type_: ConditionType) -> Option<&Condition> {
    registration.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// All conditions in one line, for a failure's message.
pub(crate) fn conditions(registration: &AppRegistration) -> String {
    let all = registration.status.iter().flat_map(|status| &status.conditions);
    let told: Vec<_> = all.map(|c| format!("{}={} {} ({})", c.type_, c.status, c.reason, c.message)).collect();
    let generation = registration.metadata.generation;
    let observed = registration.status.as_ref().and_then(|status| status.observed_generation);
    format!("generation {generation:?}, observed {observed:?}: {}", told.join("; "))
}

/// The client ID that a registration reports.
pub(crate) fn client_id(registration: &AppRegistration) -> String {
    registration.status.as_ref().and_then(|status| status.client_id.clone()).expect("a client ID")
}

/// A time that is after every second in which something was minted until now.
pub(crate) async fn pass_of_a_second() -> Timestamp {
    let second = Timestamp::now().as_second();
    eventually_within(SOON, "the next second", async || {
        let now = Timestamp::now().as_second();
        if now > second {
            Timestamp::from_second(now).map_err(|error| error.to_string())
        } else {
            Err("not yet".into())
        }
    })
    .await
}
