//! What a decision costs under 1, 100 and 1,000 policies, and what an edit of one of them sets in motion:
//! `make bench-policies`.
//!
//! ```text
//! once:       control plane · chart without a default policy · N registrations in 1,000 namespaces, all Ready
//! each row:   other policies · the controller starts anew and decides on all N, writing nothing    (CPU per decision)
//!             one policy is edited                                                                 (decisions because of it)
//! ```
//!
//! In the first rows each namespace is selected by exactly one policy, however many there are. In the last every policy
//! selects every namespace: what it costs where people make a thousand policies for everybody.
//!
//! Arguments: `n=10000`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the benchmark; it measures time and prints"
)]

#[path = "../tests/harness/mod.rs"]
mod harness;
mod rig;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use appreg::api::{AppRegistration, RegistrationPolicy};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use harness::{ControlPlane, Operator, Running, permissive};
use rig::Arguments;

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
const NAMESPACES: usize = 1000;
/// How many requests are under way while a round is prepared.
const AT_ONCE: usize = 16;
/// How long nothing may happen until everything has.
const QUIET: Duration = Duration::from_secs(3);
/// How long N registrations may take at most.
const PATIENCE: Duration = Duration::from_mins(15);

/// Who selects whom.
#[derive(Clone, Copy)]
enum Layout {
    /// So many policies share the namespaces out among them.
    Shared(usize),
    /// So many policies select every namespace.
    Everybody(usize),
}

fn main() -> Result<()> {
    let Some(arguments) = Arguments::of_process()? else { return Ok(()) };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    tokio::runtime::Runtime::new()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let n: usize = arguments.or("n", 10_000)?;
    let plane = ControlPlane::start().await?;
    let version = rig::version_of(&plane.program("kube-apiserver"), "--version");
    rig::print_environment(&format!("make bench-policies ARGS='n={n}'"), &[version])?;
    let mut operator = Operator::install(&plane, BINARY, &permissive(&["policy.enabled=false"])).await?;
    operator.log("warn");
    prepare(&plane, n).await?;
    let mut before = Vec::new();
    println!("\n| Policies | CPU per decision, µs | decisions because of one edit | registrations it selects |");
    println!("|---|---|---|---|");
    for layout in [Layout::Shared(1), Layout::Shared(100), Layout::Shared(1000), Layout::Everybody(1000)] {
        let names = layout.apply(&plane).await?;
        // What the former ones granted is recorded as these ones' before anything is measured.
        settle(&mut operator, &plane, n).await?;
        layout.remove(&plane, &before).await?;
        settle(&mut operator, &plane, n).await?;

        let controller = operator.controller(&plane).await?;
        until_quiet(&controller, n).await?;
        let decisions = metric(&controller, "appreg_reconciles_total").await?;
        let cpu = controller.process.usage()?.cpu.as_secs_f64() * 1e6 / decisions;
        let status = policy_api(&plane).get(&names[0]).await?.status.unwrap_or_default();
        layout.edit(&plane, &names[0]).await?;
        until_quiet(&controller, n).await?;
        let because = metric(&controller, "appreg_reconciles_total").await? - decisions;
        println!("| {layout} | {cpu:.0} | {because} | {} |", status.registrations.unwrap_or_default());
        controller.process.terminate(Duration::from_secs(15)).await?;
        before = names;
    }
    Ok(())
}

impl std::fmt::Display for Layout {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shared(count) => write!(out, "{count}, each for {} namespaces", NAMESPACES / count),
            Self::Everybody(count) => write!(out, "{count}, each for all {NAMESPACES} namespaces"),
        }
    }
}

impl Layout {
    fn policy(self, number: usize, scopes: &[&str]) -> (String, serde_json::Value) {
        let (prefix, selector) = match self {
            Self::Shared(1) => ("one".to_owned(), json!({})),
            Self::Shared(count) => {
                (format!("shared-{count}"), json!({"matchLabels": {format!("of-{count}"): number.to_string()}}))
            }
            Self::Everybody(_) => ("everybody".to_owned(), json!({})),
        };
        let name = format!("{prefix}-{number:04}");
        let policy = json!({
            "apiVersion": "appreg.dev/v1alpha1", "kind": "RegistrationPolicy", "metadata": {"name": name},
            "spec": {"namespaceSelector": selector, "apis": [{"audiences": ["https://*.example"], "scopes": scopes}]},
        });
        (name, policy)
    }

    const fn count(self) -> usize {
        match self {
            Self::Shared(count) | Self::Everybody(count) => count,
        }
    }

    async fn apply(self, plane: &ControlPlane) -> Result<Vec<String>> {
        let api = policy_api(plane);
        let apply = |number| {
            let (name, policy) = self.policy(number, &["orders:*", "stock:*"]);
            let api = api.clone();
            async move {
                api.patch(&name, &PatchParams::apply("bench").force(), &Patch::Apply(&policy)).await?;
                anyhow::Ok(name)
            }
        };
        futures::stream::iter(0..self.count()).map(apply).buffered(AT_ONCE).try_collect().await
    }

    async fn edit(self, plane: &ControlPlane, name: &str) -> Result<()> {
        let (_, policy) = self.policy(0, &["orders:*", "stock:*", "more:*"]);
        policy_api(plane).patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&policy)).await?;
        Ok(())
    }

    async fn remove(self, plane: &ControlPlane, names: &[String]) -> Result<()> {
        let api = policy_api(plane);
        let remove = |name: &String| {
            let (api, name) = (api.clone(), name.clone());
            async move { api.delete(&name, &DeleteParams::default()).await.map(drop) }
        };
        Ok(futures::stream::iter(names).map(remove).buffer_unordered(AT_ONCE).try_collect().await?)
    }
}

fn policy_api(plane: &ControlPlane) -> Api<RegistrationPolicy> {
    Api::all(plane.client("admin"))
}

/// Namespaces with a label for each layout, and registrations that ask for an API with four scopes.
async fn prepare(plane: &ControlPlane, n: usize) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
    let create = |number: usize| {
        let namespaces = namespaces.clone();
        async move {
            let labels = json!({"of-100": (number % 100).to_string(), "of-1000": number.to_string()});
            let namespace = json!({"metadata": {"name": format!("team-{number:04}"), "labels": labels}});
            namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..NAMESPACES).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let client = plane.client("admin");
    let create = |number: usize| {
        let namespace = format!("team-{:04}", number % NAMESPACES);
        let api: Api<AppRegistration> = Api::namespaced(client.clone(), &namespace);
        async move {
            let registration = json!({
                "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
                "metadata": {"name": format!("load-{number:06}"), "namespace": namespace},
                "spec": {
                    "displayName": format!("Load {number}"), "credentials": [{"name": "web", "clientSecret": {}}],
                    "apis": [{
                        "audience": "https://orders.example",
                        "scopes": ["orders:read", "orders:write", "stock:read", "stock:write"],
                    }],
                },
            });
            api.create(&PostParams::default(), &serde_json::from_value(registration)?).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..n).map(create).buffer_unordered(AT_ONCE).try_collect().await
}

/// Has the controller bring everything in order, and ends it.
async fn settle(operator: &mut Operator<'_>, plane: &ControlPlane, n: usize) -> Result<()> {
    let controller = operator.controller(plane).await?;
    until_quiet(&controller, n).await?;
    let secrets: Api<PartialObjectMeta<k8s_openapi::api::core::v1::Secret>> =
        Api::namespaced(plane.client("admin"), harness::operator::LEDGER);
    let entries = secrets.list_metadata(&ListParams::default().fields("type=appreg.dev/ledger")).await?.items.len();
    ensure!(entries >= n, "{entries} of {n} registrations have a client");
    controller.process.terminate(Duration::from_secs(15)).await?;
    Ok(())
}

/// Waits until every registration was looked at, and nothing has been for a while.
async fn until_quiet(controller: &Running, n: usize) -> Result<()> {
    let wait = async {
        let mut before = -1.0;
        loop {
            let now = metric(controller, "appreg_reconciles_total").await?;
            #[expect(clippy::float_cmp, clippy::cast_precision_loss, reason = "counts, far below 2^52")]
            if now == before && now >= n as f64 {
                return anyhow::Ok(());
            }
            before = now;
            // Nothing tells that a controller is at rest but that its counter stays.
            tokio::time::sleep(QUIET).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.context("the controller does not come to rest")?
}

async fn metric(controller: &Running, name: &str) -> Result<f64> {
    let admin = &controller.admin;
    let mut connection = tokio::net::TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| name.to_owned())?.trim().parse()?)
}
