//! How many access tokens one core signs at `/token`, and how far that is from the bare signature:
//! `make bench-tokens`.
//!
//! The token service is the program as it is shipped, with the chart's rights, on a real control plane; one core is
//! its own, a load generator has another. ES256, `client_secret_basic`, TLS 1.3 on connections that stay, 1,000 clients
//! drawn uniformly. The bare signature is measured on the same core in the same minute: rates differ between machines
//! and hours, the ratio of the two does much less.
//!
//! Arguments: `clients=1000 connections=64 seconds=10 rounds=3`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    reason = "a broken expectation ends the benchmark; it measures time, counts in floats and prints"
)]

#[path = "rig/generator.rs"]
mod generator;
#[path = "../tests/harness/mod.rs"]
mod harness;
mod rig;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use appreg::clock::{Clock as _, SystemClock};
use appreg::ledger::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use generator::{Load, Outcome, Pace};
use harness::operator::LEDGER;
use harness::process::supervised;
use harness::{ControlPlane, Operator, Process};
use rig::{Arguments, Figures, Machine};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
/// The core of the token service, and of the bare signature.
const SERVER_CORE: &str = "0";
/// The core of the load generator.
const CLIENT_CORE: &str = "1";
/// How long bare signatures are made.
const SIGN_FOR: Duration = Duration::from_secs(2);
/// As long as what is signed in a token.
const MESSAGE_BYTES: usize = 420;
const BODY: &str = "grant_type=client_credentials&scope=orders%3Aread";

fn main() -> Result<()> {
    let Some(arguments) = Arguments::of_process()? else { return Ok(()) };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match arguments.role() {
        None => tokio::runtime::Runtime::new()?.block_on(measure(&arguments)),
        Some("load") => load(&arguments),
        Some("sign") => sign(),
        Some(role) => bail!("role={role} is none of this benchmark's"),
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let clients: usize = arguments.or("clients", 1000)?;
    let connections: usize = arguments.or("connections", 64)?;
    let seconds: f64 = arguments.or("seconds", 10.0)?;
    let rounds: usize = arguments.or("rounds", 3)?;
    let pin = Pin::find();
    let command = format!(
        "make bench-tokens ARGS='clients={clients} connections={connections} seconds={seconds} rounds={rounds}'"
    );
    rig::print_environment(&command, &[pin.told()])?;

    let plane = ControlPlane::start().await?;
    let binary = pin.script(plane.directory(), SERVER_CORE)?;
    let mut operator = Operator::install(&plane, &binary.to_string_lossy(), &[]).await?;
    operator.log("warn");
    // It makes the keys and the certificate; the clients have no registrations, so it must not stay to sweep them.
    let controller = operator.controller(&plane).await?;
    let ca = certificate_authority(&plane).await?;
    controller.process.terminate(Duration::from_secs(20)).await?;
    create_clients(&plane, clients).await?;
    let service = operator.token_service(&plane).await?;
    let target = Target { address: operator.address(), ca, service: service.process, clients, connections, seconds };

    let mut figures = Figures::default();
    for round in 1..=rounds {
        let sign = pin.child(SERVER_CORE, &["role=sign".to_owned()])?;
        let sign: f64 = sign.trim().parse()?;
        let saturation = target.load(&plane, &pin, 0.0)?;
        let rate = record(&saturation, sign, &mut figures)?;
        let open = target.load(&plane, &pin, rate / 2.0)?;
        record_open(&open, rate / 2.0, &mut figures)?;
        figures.add("memory (VmRSS), MB", 1, target.service.usage()?.memory as f64 / 1e6);
        figures.add("cores that others used meanwhile", 2, saturation.strangers.max(open.strangers));
        println!("round {round}: {rate:.0} tokens/s, bare signature {sign:.1} µs");
    }
    figures.print(&format!("ES256, client_secret_basic, {clients} clients, {connections} TLS connections"));
    println!("\n| Aim | Measured (medians) |\n|---|---|");
    println!("| ≥ 15,000 tokens/s on one core | {:.0} |", figures.median(RATE));
    println!("| CPU per request ≤ 2.5 × the bare signature | {:.2} |", figures.median(RATIO));
    Ok(())
}

const RATE: &str = "tokens/s on one core, closed loop";
const RATIO: &str = "CPU per request / bare signature";

struct Measured {
    outcome: Outcome,
    strangers: f64,
}

fn record(measured: &Measured, sign: f64, figures: &mut Figures) -> Result<f64> {
    let outcome = &measured.outcome;
    ensure!(outcome.refused == 0, "{} answers were no tokens", outcome.refused);
    let rate = outcome.answers as f64 / outcome.seconds;
    let cpu = outcome.server_cpu * 1e6 / outcome.answers as f64;
    figures.add(RATE, 0, rate);
    figures.add("CPU per request (user and system), µs", 1, cpu);
    figures.add("bare ES256 signature, same minute and core, µs", 1, sign);
    figures.add(RATIO, 2, cpu / sign);
    figures.add("tokens per second of the server's CPU time", 0, outcome.answers as f64 / outcome.server_cpu);
    figures.add("share of its core that the server used", 2, outcome.server_cpu / outcome.seconds);
    figures.add("share of its time that the generator was busy (void above 0.8)", 2, outcome.busy);
    Ok(rate)
}

fn record_open(measured: &Measured, rate: f64, figures: &mut Figures) -> Result<()> {
    let outcome = &measured.outcome;
    ensure!(outcome.refused == 0, "{} answers were no tokens", outcome.refused);
    figures.add("open loop at half of that: offered/s", 0, rate);
    figures.add("open loop: answered/s", 0, outcome.answers as f64 / outcome.seconds);
    figures.add("open loop: p50, ms", 3, outcome.p50);
    figures.add("open loop: p99, ms", 2, outcome.p99);
    figures.add("open loop: p99.9, ms", 2, outcome.p999);
    Ok(())
}

/// What is measured.
struct Target {
    address: String,
    ca: PathBuf,
    service: Process,
    clients: usize,
    connections: usize,
    seconds: f64,
}

impl Target {
    /// Loads the token service from another process; `rate` 0 is a closed loop.
    fn load(&self, plane: &ControlPlane, pin: &Pin, rate: f64) -> Result<Measured> {
        let used = || -> Result<Duration> {
            let mut used = rig::cpu_of("self")? + self.service.usage()?.cpu;
            for process in plane.processes() {
                used += process.usage()?.cpu;
            }
            Ok(used)
        };
        let (machine, before) = (Machine::now()?, used()?);
        let started = Instant::now();
        let said = pin.child(
            CLIENT_CORE,
            &[
                "role=load".to_owned(),
                format!("address={}", self.address),
                format!("ca={}", self.ca.display()),
                format!("pid={}", self.service.pid()),
                format!("clients={}", self.clients),
                format!("connections={}", self.connections),
                format!("seconds={}", self.seconds),
                format!("rate={rate}"),
            ],
        )?;
        // The generator spins: it used a core for as long as it ran.
        let ours = used()?.saturating_sub(before) + started.elapsed();
        Ok(Measured { outcome: serde_json::from_str(&said)?, strangers: machine.strangers_since(ours)? })
    }
}

// The rig.

/// How programs are kept on one core.
enum Pin {
    Taskset,
    Nothing,
}

impl Pin {
    fn find() -> Self {
        let found = std::process::Command::new("taskset").arg("--version").stdout(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) { Self::Taskset } else { Self::Nothing }
    }

    fn told(&self) -> String {
        match self {
            Self::Taskset => format!("token service on core {SERVER_CORE}, generator on core {CLIENT_CORE} (taskset)"),
            Self::Nothing => "no taskset: nothing is pinned, and these are not figures of one core".to_owned(),
        }
    }

    /// A program that is the operator's on this core, from its first thread on.
    fn script(&self, directory: &Path, core: &str) -> Result<PathBuf> {
        let Self::Taskset = self else { return Ok(BINARY.into()) };
        let path = directory.join("appreg-on-one-core");
        std::fs::write(&path, format!("#!/bin/sh\nexec taskset -c {core} '{BINARY}' \"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// Runs this benchmark in another role on this core, and returns what it printed.
    fn child(&self, core: &str, args: &[String]) -> Result<String> {
        let ourselves = std::env::current_exe()?;
        let mut command = match self {
            Self::Taskset => {
                let mut command = supervised("taskset");
                command.args(["-c", core]).arg(ourselves);
                command
            }
            Self::Nothing => supervised(ourselves),
        };
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let lives = child.stdin.take(); // the watchdog's sign of life: kept until the child has ended
        let output = child.wait_with_output()?;
        drop(lives);
        ensure!(output.status.success(), "{args:?} failed");
        Ok(String::from_utf8(output.stdout)?)
    }
}

async fn certificate_authority(plane: &ControlPlane) -> Result<PathBuf> {
    let api: Api<Secret> = Api::namespaced(plane.client("admin"), LEDGER);
    let bundle = harness::eventually("there is a ca-bundle", async || api.get("ca-bundle").await).await;
    let pem = bundle.data.as_ref().and_then(|data| data.get("ca.crt")).context("ca.crt")?;
    let path = plane.directory().join("token-service-ca.crt");
    std::fs::write(&path, &pem.0)?;
    harness::eventually("there is a serving certificate", async || api.get("token-service-tls").await).await;
    Ok(path)
}

fn client_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Nobody's but this benchmark's, which makes a new ledger for every run.
fn client_secret(number: usize) -> String {
    format!("apr_{number:046}")
}

async fn create_clients(plane: &ControlPlane, clients: usize) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(plane.client("admin"), LEDGER);
    let now = SystemClock.now();
    let end = now + SignedDuration::from_hours(24);
    let create = |number: usize| {
        let (api, id) = (&api, client_id(number));
        let entry = json!({
            "version": ledger::VERSION, "server": "default", "clientID": id, "createdAt": now,
            "owner": {"namespace": "shop", "name": format!("client-{number}"), "uid": id},
            "grant": {"scopes": {"orders:read": "policy/default", "orders:write": "policy/default"},
                      "authMethods": ["client_secret_basic"]},
            "credentials": {"web": {"kind": "clientSecret", "nextRevision": 2, "revisions": [{
                "revision": 1, "mintedAt": now, "notAfter": end,
                "verifier": {"sha256": Digest::of(client_secret(number).as_bytes()).to_base64url()},
            }]}},
        });
        async move {
            let mut secret = Secret {
                type_: Some("appreg.dev/ledger".to_owned()),
                data: Some([(ledger::FIELD.to_owned(), ByteString(entry.to_string().into_bytes()))].into()),
                ..Secret::default()
            };
            secret.metadata.name = Some(ledger::name("default", &id));
            api.create(&PostParams::default(), &secret).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(0..clients).map(create).buffer_unordered(16).try_collect::<()>().await
}

// The children.

fn load(arguments: &Arguments) -> Result<()> {
    let address = arguments.text("address")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(arguments.text("ca")?)? {
        roots.add(certificate?)?;
    }
    let requests = (0..arguments.or("clients", 1000)?).map(|number| request(address, number)).collect();
    let rate: f64 = arguments.or("rate", 0.0)?;
    let load = Load {
        address: address.parse()?,
        tls: Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()),
        connections: arguments.or("connections", 64)?,
        requests,
        pace: if rate > 0.0 { Pace::Open(rate) } else { Pace::Closed },
        seconds: arguments.or("seconds", 10.0)?,
    };
    let pid = arguments.text("pid")?;
    println!("{}", serde_json::to_string(&generator::run(&load, || rig::cpu_of(pid))?)?);
    Ok(())
}

fn request(host: &str, number: usize) -> Vec<u8> {
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", client_id(number), client_secret(number)));
    format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

/// Prints the CPU time of one signature in microseconds.
fn sign() -> Result<()> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let (random, message) = (SystemRandom::new(), [b'x'; MESSAGE_BYTES]);
    let (started, before) = (Instant::now(), rig::cpu_of("self")?);
    let mut count = 0_u32;
    while started.elapsed() < SIGN_FOR {
        for _ in 0..100 {
            std::hint::black_box(key.sign(&random, &message)?);
        }
        count += 100;
    }
    println!("{}", rig::cpu_of("self")?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(count));
    Ok(())
}
