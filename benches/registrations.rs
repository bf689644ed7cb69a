//! How fast registrations become Ready, beside what the API server allows: `make bench-registrations`.
//!
//! ```text
//! round: fresh control plane · chart · N registrations · controller starts → all Ready      (the operator)
//!        fresh control plane · chart · N registrations · the same three writes by a loop    (the ceiling)
//! once:  audit log on: requests of the burst, of a quiet time, of a restart
//! ```
//!
//! The loop takes the bodies that the operator wrote, with other names, and sends them with the same client, the same
//! Accept header, the same rights and the same number of requests in flight, from a process of its own. It decides,
//! mints and watches nothing. What it leaves out is what the operator may cost.
//!
//! Arguments: `n=1000 rounds=3 concurrency=16 quiet=30` (seconds).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    reason = "a broken expectation ends the benchmark; it measures time and prints"
)]

#[path = "../tests/harness/mod.rs"]
mod harness;
mod rig;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use appreg::api::AppRegistration;
use appreg::kubernetes::client::Clients;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, PostParams, Request, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use harness::operator::{LEDGER, NAMESPACE};
use harness::process::Program;
use harness::{Audit, ControlPlane, Operator, Options, Process, Running, audit, permissive};
use rig::{Arguments, Figures, Machine};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
/// Where the registrations are.
const SHOP: &str = "shop";
/// The operator's user, as the audit log has it.
const CONTROLLER: &str = "system:serviceaccount:appreg-system:appreg-controller";
/// How long N registrations may take at most.
const PATIENCE: Duration = Duration::from_mins(10);
/// Echoes of the last writes are worked off by then.
const ECHO: Duration = Duration::from_secs(1);
const METADATA_ALONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

fn main() -> Result<()> {
    let Some(arguments) = Arguments::of_process()? else { return Ok(()) };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.role() {
        None => runtime.block_on(measure(&arguments)),
        Some("ceiling") => runtime.block_on(ceiling(&arguments)),
        Some(role) => bail!("role={role} is none of this benchmark's"),
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let n: usize = arguments.or("n", 1000)?;
    let rounds: usize = arguments.or("rounds", 3)?;
    let concurrency: usize = arguments.or("concurrency", 16)?;
    let quiet = Duration::from_secs(arguments.or("quiet", 30)?);
    let (mut operator, mut ceiling) = (Figures::default(), Figures::default());
    for round in 1..=rounds {
        let template = {
            let plane = ControlPlane::start().await?;
            if round == 1 {
                let versions = [
                    rig::version_of(&plane.program("kube-apiserver"), "--version"),
                    rig::version_of(&plane.program("etcd"), "--version"),
                ];
                let command =
                    format!("make bench-registrations ARGS='n={n} rounds={rounds} concurrency={concurrency}'");
                rig::print_environment(&command, &versions)?;
            }
            operator_round(&plane, n, concurrency, &mut operator).await?
        };
        let plane = ControlPlane::start().await?;
        ceiling_round(&plane, n, concurrency, &template, &mut ceiling).await?;
        println!(
            "round {round}: operator {:.0}/s, ceiling {:.0}/s (medians so far)",
            operator.median(RATE),
            ceiling.median(RATE)
        );
    }
    operator.print(&format!("Operator, {n} registrations"));
    ceiling.print("Ceiling: the same three writes");
    print_verdict(&operator, &ceiling);
    if !quiet.is_zero() {
        count(n, concurrency, quiet).await?;
    }
    Ok(())
}

const SECONDS: &str = "seconds from the process's start to all Ready";
const RATE: &str = "registrations/s from the process's start";
const STEADY_RATE: &str = "registrations/s from the first Ready to the last";
const CPU: &str = "CPU per registration, ms";
const PEAK: &str = "peak memory (VmHWM), MB";
const AFTER: &str = "memory after (VmRSS), MB";
const PASSES: &str = "passes per registration";
const SERVER_CPU: &str = "API server CPU per registration, ms";
const ETCD_CPU: &str = "etcd CPU per registration, ms";
const STRANGERS: &str = "cores that others used meanwhile";

fn print_verdict(operator: &Figures, ceiling: &Figures) {
    println!("\n| Aim | Measured (medians) |\n|---|---|");
    let ratio = |name| operator.median(name) / ceiling.median(name);
    println!("| operator / ceiling ≥ 0.8, from the process's start | {:.2} |", ratio(RATE));
    println!("| operator / ceiling ≥ 0.8, from the first Ready | {:.2} |", ratio(STEADY_RATE));
    println!("| operator CPU ≤ 0.7 ms per registration | {:.2} |", operator.median(CPU));
    println!("| peak memory ≤ 40 MB | {:.1} |", operator.median(PEAK));
}

// The operator.

async fn operator_round(plane: &ControlPlane, n: usize, concurrency: usize, figures: &mut Figures) -> Result<Template> {
    let mut operator = install(plane, concurrency).await?;
    create_registrations(plane, 0..n).await?;
    let watch = ReadyWatch::start(plane, n).await?;
    let load = Load::now(plane)?;
    let controller = operator.start_controller(plane).await?;
    let times = watch.all_ready(Instant::now()).await.with_context(|| controller.process.log_tail(20))?;
    load.record(plane, &controller.process, times, figures)?;
    tokio::time::sleep(ECHO).await;
    let usage = controller.process.usage()?;
    figures.add(CPU, 3, millis(usage.cpu) / float(n));
    figures.add(PEAK, 1, megabytes(usage.peak_memory));
    figures.add(AFTER, 1, megabytes(usage.memory));
    figures.add(PASSES, 2, metric(&controller.admin, "appreg_reconciles_total").await? / float(n));
    Template::of(plane, &name_of(0)).await
}

async fn install(plane: &ControlPlane, concurrency: usize) -> Result<Operator<'_>> {
    let concurrency = format!("controller.concurrency={concurrency}");
    let mut operator = Operator::install(plane, BINARY, &permissive(&[&concurrency])).await?;
    operator.log("warn");
    let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(SHOP.to_owned());
    namespaces.create(&PostParams::default(), &namespace).await?;
    Ok(operator)
}

fn name_of(number: usize) -> String {
    format!("load-{number:06}")
}

async fn create_registrations(plane: &ControlPlane, numbers: std::ops::Range<usize>) -> Result<()> {
    let api: Api<AppRegistration> = Api::namespaced(plane.client("admin"), SHOP);
    let create = |number| {
        let api = &api;
        async move {
            let registration: AppRegistration = serde_json::from_value(json!({
                "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
                "metadata": {"name": name_of(number), "namespace": SHOP},
                "spec": {"displayName": format!("Load {number}"), "credentials": [{"name": "web", "clientSecret": {}}]},
            }))?;
            api.create(&PostParams::default(), &registration).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(numbers).map(create).buffer_unordered(16).try_collect::<()>().await
}

/// What was used before a run began.
struct Load {
    machine: Machine,
    ours: Duration,
    plane: Vec<Duration>,
}

/// When the first and the last of `n` registrations were Ready, since the process's start.
#[derive(Clone, Copy)]
struct Times {
    n: usize,
    first: Duration,
    last: Duration,
}

impl Load {
    fn now(plane: &ControlPlane) -> Result<Self> {
        let plane: Vec<Duration> =
            plane.processes().iter().map(|process| Ok(process.usage()?.cpu)).collect::<Result<_>>()?;
        Ok(Self { machine: Machine::now()?, ours: rig::cpu_of("self")?, plane })
    }

    fn record(&self, plane: &ControlPlane, process: &Process, times: Times, figures: &mut Figures) -> Result<()> {
        let n = times.n;
        let now = Self::now(plane)?;
        let used: Vec<Duration> =
            now.plane.iter().zip(&self.plane).map(|(now, before)| now.saturating_sub(*before)).collect();
        let ours = used.iter().sum::<Duration>() + now.ours.saturating_sub(self.ours) + process.usage()?.cpu;
        figures.add(SECONDS, 2, times.last.as_secs_f64());
        figures.add(RATE, 0, float(n) / times.last.as_secs_f64());
        figures.add(STEADY_RATE, 0, float(n - 1) / times.last.saturating_sub(times.first).as_secs_f64());
        figures.add(ETCD_CPU, 2, millis(used[0]) / float(n));
        figures.add(SERVER_CPU, 2, millis(used[1]) / float(n));
        figures.add(STRANGERS, 2, self.machine.strangers_since(ours)?);
        Ok(())
    }
}

/// A registration as far as the stopwatch reads it.
#[derive(Clone, Debug, Default, Deserialize)]
struct ReadyStatus {
    #[serde(rename = "observedGeneration")]
    observed_generation: Option<i64>,
    #[serde(default)]
    conditions: Vec<ReadyCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct ReadyCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NotRead {}

type Watched = kube::core::Object<NotRead, ReadyStatus>;

/// Sees registrations become Ready, from before the program starts.
struct ReadyWatch {
    api: Api<Watched>,
    version: String,
    n: usize,
}

impl ReadyWatch {
    async fn start(plane: &ControlPlane, n: usize) -> Result<Self> {
        let resource = kube::core::ApiResource::erase::<AppRegistration>(&());
        let api: Api<Watched> = Api::namespaced_with(plane.client("admin"), SHOP, &resource);
        let listed = api.list(&ListParams::default().limit(1)).await?;
        let version = listed.metadata.resource_version.context("a list without a resourceVersion")?;
        Ok(Self { api, version, n })
    }

    async fn all_ready(self, started: Instant) -> Result<Times> {
        let params = WatchParams::default().timeout(290);
        let mut events = self.api.watch(&params, &self.version).await?.boxed();
        let (mut ready, mut first) = (HashSet::with_capacity(self.n), None);
        let wait = async {
            while let Some(event) = events.try_next().await? {
                let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
                if is_ready(&object) && ready.insert(object.name_any()) {
                    first.get_or_insert(started.elapsed());
                }
                if ready.len() == self.n {
                    return Ok(started.elapsed());
                }
            }
            bail!("the watch ended with {} of {} Ready", ready.len(), self.n)
        };
        let last = tokio::time::timeout(PATIENCE, wait).await.context("not all Ready in time")??;
        Ok(Times { n: self.n, first: first.unwrap_or_default(), last })
    }
}

fn is_ready(object: &Watched) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status.observed_generation == object.metadata.generation
            && status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// One line of `/metrics`.
async fn metric(admin: &str, name: &str) -> Result<f64> {
    let mut connection = tokio::net::TcpStream::connect(admin).await?;
    connection
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let line =
        answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).with_context(|| name.to_owned())?;
    Ok(line.trim().parse()?)
}

// The ceiling.

/// The bodies of one registration's three writes, as the operator sent them.
#[derive(Serialize, Deserialize)]
struct Template {
    name: String,
    uid: String,
    ledger_name: String,
    ledger: String,
    secret: String,
    status: String,
}

impl Template {
    async fn of(plane: &ControlPlane, name: &str) -> Result<Self> {
        let client = plane.client("admin");
        let registration: AppRegistration = Api::namespaced(client.clone(), SHOP).get(name).await?;
        let uid = registration.uid().context("a uid")?;
        let ledger_name = appreg::ledger::name("default", &uid);
        let ledger: Secret = Api::namespaced(client.clone(), LEDGER).get(&ledger_name).await?;
        let secret: Secret = Api::namespaced(client, SHOP).get(name).await?;
        let metadata = json!({"name": name, "namespace": SHOP, "resourceVersion": VERSION});
        let status = json!({
            "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
            "metadata": metadata, "status": registration.status,
        });
        Ok(Self {
            name: name.to_owned(),
            uid,
            ledger_name,
            ledger: as_sent(ledger)?,
            secret: as_sent(secret)?,
            status: status.to_string(),
        })
    }

    /// The bodies for another registration.
    fn bodies(&self, of: &PartialObjectMeta<AppRegistration>) -> (String, String, String) {
        let (name, uid) = (of.name_any(), of.uid().unwrap_or_default());
        let ledger_name = appreg::ledger::name("default", &uid);
        let version = of.resource_version().unwrap_or_default();
        let renamed = |body: &str| body.replace(&self.uid, &uid).replace(&self.name, &name);
        (
            renamed(&self.ledger).replace(&self.ledger_name, &ledger_name),
            renamed(&self.secret),
            renamed(&self.status).replace(VERSION, &version),
        )
    }
}

/// Stands for a resourceVersion.
const VERSION: &str = "RESOURCE-VERSION";

/// A Secret without what the API server added, and with other bytes of the same length in it.
fn as_sent(mut secret: Secret) -> Result<String> {
    secret.metadata.managed_fields = None;
    secret.metadata.resource_version = None;
    secret.metadata.uid = None;
    secret.metadata.creation_timestamp = None;
    for bytes in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        bytes.0.fill(b'x');
    }
    Ok(serde_json::to_string(&secret)?)
}

async fn ceiling_round(
    plane: &ControlPlane,
    n: usize,
    concurrency: usize,
    template: &Template,
    figures: &mut Figures,
) -> Result<()> {
    install(plane, concurrency).await?;
    create_registrations(plane, 0..n).await?;
    let file = plane.directory().join("template.json");
    harness::credentials::write_private(&file, &serde_json::to_string(template)?)?;
    let token = plane.token_for_service_account(NAMESPACE, "appreg-controller").await?;
    let watch = ReadyWatch::start(plane, n).await?;
    let load = Load::now(plane)?;
    let process = Program::new("ceiling", std::env::current_exe()?, plane.directory())
        .arg("role=ceiling")
        .arg(format!("template={}", file.display()))
        .arg(format!("concurrency={concurrency}"))
        .env("KUBECONFIG", plane.kubeconfig_for_token("ceiling", &token))
        .start()?;
    let times = watch.all_ready(Instant::now()).await.with_context(|| process.log_tail(20))?;
    load.record(plane, &process, times, figures)?;
    let usage = process.usage()?;
    figures.add(CPU, 3, millis(usage.cpu) / float(n));
    figures.add(PEAK, 1, megabytes(usage.peak_memory));
    Ok(())
}

/// The child: three writes for each registration that there is.
async fn ceiling(arguments: &Arguments) -> Result<()> {
    let template: Template = serde_json::from_slice(&std::fs::read(Path::new(arguments.text("template")?))?)?;
    let client = Clients::new(kube::Config::infer().await?)?.requests;
    let api: Api<PartialObjectMeta<AppRegistration>> = Api::namespaced(client.clone(), SHOP);
    let registrations = api.list(&ListParams::default()).await?.items;
    let shared = Arc::new((template, Mutex::new(registrations)));
    let mut loops = JoinSet::new();
    for _ in 0..arguments.or("concurrency", 16)? {
        let (client, shared) = (client.clone(), shared.clone());
        loops.spawn(async move {
            loop {
                let next = shared.1.lock().expect("no panic while held").pop();
                let Some(registration) = next else { return Ok(()) };
                three_writes(&client, &shared.0, &registration).await?;
            }
        });
    }
    while let Some(ended) = loops.join_next().await {
        let ended: Result<()> = ended?;
        ended?;
    }
    // Its figures are read while it lives.
    std::future::pending().await
}

async fn three_writes(
    client: &kube::Client,
    template: &Template,
    registration: &PartialObjectMeta<AppRegistration>,
) -> Result<()> {
    let (ledger, secret, status) = template.bodies(registration);
    let params = PostParams { field_manager: Some("appreg".to_owned()), ..PostParams::default() };
    let create = |namespace: &str, body: String| {
        Request::new(Secret::url_path(&(), Some(namespace))).create(&params, body.into_bytes())
    };
    send(client, create(LEDGER, ledger)?).await?;
    send(client, create(SHOP, secret)?).await?;
    let url = AppRegistration::url_path(&(), Some(SHOP));
    let put =
        Request::new(url).replace_subresource("status", &registration.name_any(), &params, status.into_bytes())?;
    send(client, put).await
}

async fn send(client: &kube::Client, mut request: http::Request<Vec<u8>>) -> Result<()> {
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA_ALONE));
    let answer: PartialObjectMeta<Secret> = client.request(request).await?;
    ensure!(answer.resource_version().is_some(), "an answer without a resourceVersion");
    Ok(())
}

// Requests, exactly.

async fn count(n: usize, concurrency: usize, quiet: Duration) -> Result<()> {
    let options = Options { audit: Audit::Users(vec![CONTROLLER.to_owned()]), ..Options::default() };
    let plane = ControlPlane::start_with(options).await?;
    let mut operator = install(&plane, concurrency).await?;
    create_registrations(&plane, 0..n).await?;
    let mark = plane.audit().mark().await?;
    let watch = ReadyWatch::start(&plane, n).await?;
    let controller = operator.start_controller(&plane).await?;
    watch.all_ready(Instant::now()).await?;
    tokio::time::sleep(ECHO).await;
    print_requests(&plane, &format!("Burst of {n}, with its start"), mark).await?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mark, before) = (plane.audit().mark().await?, controller.process.usage()?);
    tokio::time::sleep(quiet).await;
    let after = controller.process.usage()?;
    print_requests(&plane, &format!("{} s at rest with {n}", quiet.as_secs()), mark).await?;
    println!(
        "CPU {:.0} ms in {} s; memory {:.1} MB",
        millis(after.cpu.saturating_sub(before.cpu)),
        quiet.as_secs(),
        megabytes(after.memory)
    );
    controller.process.terminate(Duration::from_secs(20)).await?;
    restart(&plane, &mut operator, n).await
}

/// A start with `n` that are done, and one new registration that is created meanwhile.
async fn restart(plane: &ControlPlane, operator: &mut Operator<'_>, n: usize) -> Result<()> {
    let mark = plane.audit().mark().await?;
    let watch = ReadyWatch::start(plane, 1).await?;
    let controller = operator.start_controller(plane).await?;
    let started = Instant::now();
    let create = async {
        create_registrations(plane, n..n + 1).await?;
        Ok(started.elapsed())
    };
    let ready = async {
        controller.ready().await?;
        anyhow::Ok(started.elapsed())
    };
    let (created, times, ready) = tokio::try_join!(create, watch.all_ready(started), ready)?;
    settle(&controller, n).await?;
    print_requests(plane, &format!("Restart with {n}, one new registration meanwhile"), mark).await?;
    let usage = controller.process.usage()?;
    println!(
        "ready after {:.2} s; the new registration, created at {:.2} s, Ready after {:.2} s; CPU {:.0} ms, peak memory \
         {:.1} MB",
        ready.as_secs_f64(),
        created.as_secs_f64(),
        times.last.as_secs_f64(),
        millis(usage.cpu),
        megabytes(usage.peak_memory)
    );
    Ok(())
}

/// Until every registration has been looked at and nothing more is.
async fn settle(controller: &Running, n: usize) -> Result<()> {
    let mut before = -1.0;
    loop {
        let now = metric(&controller.admin, "appreg_reconciles_total").await?;
        if now >= float(n) && now <= before {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(ECHO).await;
    }
}

async fn print_requests(plane: &ControlPlane, title: &str, mark: audit::Mark) -> Result<()> {
    let events = plane.audit().of_since(CONTROLLER, mark).await?;
    let writes = events.iter().filter(|event| event.is_write()).count();
    println!("\n{title}: {} requests, {writes} of them writes\n{}", events.len(), audit::counted(&events));
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
