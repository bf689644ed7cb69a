//! The token service under load: the program as it is shipped, on a core of its own, in front of a real control plane or
//! of the stand-in for one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use appreg::clock::{Clock as _, SystemClock};
use appreg::ledger::{self, Digest};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::generator::Outcome;
use crate::harness::operator::LEDGER;
use crate::harness::process::{free_ports, supervised};
use crate::harness::{self, ControlPlane, Operator, Process, Program};
use crate::requests::{client_id, client_secret};
use crate::rig::{self, Machine};
use crate::roles::Bare;
use crate::stand_in;

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
/// The core of the token service, and of the bare signature.
pub(crate) const SERVER_CORE: &str = "0";
/// The core of the load generator.
const CLIENT_CORE: &str = "1";
/// Both go before everything else that this machine does now and then. Whoever may not ask for it goes without.
const FIRST: [&str; 3] = ["nice", "-n", "-20"];
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Which program is measured.
#[derive(Clone)]
pub(crate) struct Setup {
    binary: PathBuf,
}

impl Setup {
    /// This one; or what was just built, if it is empty.
    pub(crate) fn new(binary: String) -> Self {
        Self { binary: if binary.is_empty() { BINARY.into() } else { binary.into() } }
    }
}

/// What is measured.
pub(crate) struct Target {
    pin: Pin,
    directory: PathBuf,
    address: String,
    pub(crate) service: Process,
    /// Whose CPU time is ours too.
    around: Vec<Process>,
    plane: Option<ControlPlane>,
    _scratch: Option<tempfile::TempDir>,
}

/// What of the machine is in the figures.
pub(crate) fn surroundings() -> Result<Vec<String>> {
    let niceness = std::process::Command::new(FIRST[0]).args(&FIRST[1..]).arg("nice").output()?;
    let niceness = String::from_utf8(niceness.stdout)?;
    let congestion = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(vec![Pin::find().told(), format!("niceness {}, TCP congestion control {}", niceness.trim(), congestion.trim())])
}

/// What came of a load, and what strangers took of the machine meanwhile, in cores.
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    pub(crate) strangers: f64,
}

impl Target {
    /// With a real control plane, the chart and its rights. The controller makes keys and certificate and ends: the
    /// clients have no registrations, so it must not stay to sweep them.
    pub(crate) async fn on_control_plane(setup: &Setup, clients: usize) -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let pin = Pin::find();
        let directory = plane.directory().to_owned();
        let binary = pin.script(&directory, &setup.binary)?;
        let (address, service) = {
            let mut operator = Operator::install(&plane, &binary.to_string_lossy(), &[]).await?;
            operator.log("warn");
            let controller = operator.controller(&plane).await?;
            let api: Api<Secret> = Api::namespaced(plane.client("admin"), LEDGER);
            let bundle = harness::eventually("there is a ca-bundle", async || api.get("ca-bundle").await).await;
            let pem = bundle.data.as_ref().and_then(|data| data.get("ca.crt")).context("ca.crt")?;
            std::fs::write(directory.join("ca.pem"), &pem.0)?;
            harness::eventually("there is a serving certificate", async || api.get("token-service-tls").await).await;
            controller.process.terminate(Duration::from_secs(20)).await?;
            create_clients(&plane, clients).await?;
            (operator.address(), operator.token_service(&plane).await?.process)
        };
        let around = pin.awake(&directory)?.into_iter().collect();
        Ok(Self { pin, directory, address, service, around, plane: Some(plane), _scratch: None })
    }

    /// In front of the stand-in, whose clients have credentials of this kind.
    pub(crate) async fn on_stand_in(setup: &Setup, clients: usize, alg: &str, kind: &str) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let directory = scratch.path().to_owned();
        let pin = Pin::find();
        let ports = free_ports(3)?;
        let [api, address, admin] = [0, 1, 2].map(|index| format!("127.0.0.1:{}", ports[index]));
        let issuer = format!("https://{address}");
        let around = Program::new("stand-in", std::env::current_exe()?, &directory)
            .arg("role=stand-in")
            .arg(format!("directory={}", directory.display()))
            .args([format!("address={api}"), format!("issuer={issuer}"), format!("clients={clients}")])
            .args([format!("alg={alg}"), format!("kind={kind}")])
            .start()?;
        around.wait_for_http(&api, "/readyz", READY_WITHIN).await?;
        // A configuration of before there was a choice has no such field.
        let chosen = if alg == "ES256" { String::new() } else { format!("  signingAlgorithm: {alg}\n") };
        let config = format!("authorizationServer:\n  issuer: {issuer}\n{chosen}");
        std::fs::write(directory.join("appreg.yaml"), config)?;
        std::fs::write(directory.join("kubeconfig"), kubeconfig(&api))?;
        let service = Program::new("token-service", pin.script(&directory, &setup.binary)?, &directory)
            .args(["token-service", "--log-level=warn", "--connections-per-address=1024"])
            .args(unlimited_handshakes(&setup.binary)?)
            .arg(format!("--config={}", directory.join("appreg.yaml").display()))
            .arg(format!("--ledger-namespace={}", stand_in::NAMESPACE))
            .args([format!("--listen={address}"), format!("--admin-address={admin}")])
            .env("KUBECONFIG", directory.join("kubeconfig"))
            .start()?;
        service.wait_for_http(&admin, "/readyz", READY_WITHIN).await?;
        let around = pin.awake(&directory)?.into_iter().chain([around]).collect();
        Ok(Self { pin, directory, address, service, around, plane: None, _scratch: Some(scratch) })
    }

    /// Loads the token service from another process.
    pub(crate) fn load(&self, arguments: &[String]) -> Result<Measured> {
        let used = || -> Result<Duration> {
            let mut used = rig::cpu_of("self")? + self.service.usage()?.cpu;
            for process in &self.around {
                used += process.usage()?.cpu;
            }
            for process in self.plane.iter().flat_map(ControlPlane::processes) {
                used += process.usage()?.cpu;
            }
            Ok(used)
        };
        let mut all = vec![
            "role=load".to_owned(),
            format!("address={}", self.address),
            format!("directory={}", self.directory.display()),
            format!("pid={}", self.service.pid()),
        ];
        all.extend_from_slice(arguments);
        let (machine, before) = (Machine::now()?, used()?);
        let started = Instant::now();
        let said = self.pin.child(CLIENT_CORE, &all)?;
        // The generator spins: it used a core for as long as it ran.
        let ours = used()?.saturating_sub(before) + started.elapsed();
        Ok(Measured { outcome: serde_json::from_str(&said)?, strangers: machine.strangers_since(ours)? })
    }

    /// What one bare signature (`sign`) or verification (`verify`) costs on the token service's core now.
    pub(crate) fn bare(&self, role: &str, alg: &str) -> Result<Bare> {
        let said = self.pin.child(SERVER_CORE, &[format!("role={role}"), format!("alg={alg}")])?;
        Ok(serde_json::from_str(&said)?)
    }
}

/// How programs are kept on one core.
pub(crate) enum Pin {
    Taskset,
    Nothing,
}

impl Pin {
    pub(crate) fn find() -> Self {
        let found = std::process::Command::new("taskset").arg("--version").stdout(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) { Self::Taskset } else { Self::Nothing }
    }

    pub(crate) fn told(&self) -> String {
        match self {
            Self::Taskset => format!(
                "token service on core {SERVER_CORE}, which an idle-class loop keeps awake, generator on core {CLIENT_CORE}"
            ),
            Self::Nothing => "no taskset: nothing is pinned, and these are not figures of one core".to_owned(),
        }
    }

    /// The operator's program on the server's core, from its first thread on.
    fn script(&self, directory: &Path, binary: &Path) -> Result<PathBuf> {
        let Self::Taskset = self else { return Ok(binary.to_owned()) };
        let path = directory.join("appreg-on-one-core");
        let (first, binary) = (FIRST.join(" "), binary.display());
        std::fs::write(&path, format!("#!/bin/sh\nexec {first} taskset -c {SERVER_CORE} '{binary}' \"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// A loop that has the server's core when nobody else wants it. A virtual core that halts is taken away, and comes
    /// back up to milliseconds after the next request.
    fn awake(&self, directory: &Path) -> Result<Option<Process>> {
        let Self::Taskset = self else { return Ok(None) };
        let ourselves = std::env::current_exe()?;
        let program = Program::new("awake", "chrt", directory);
        let program = program.args(["--idle", "0", "taskset", "-c", SERVER_CORE]).arg(ourselves).arg("role=awake");
        program.start().map(Some)
    }

    /// Runs this benchmark in another role on this core, and returns what it printed.
    fn child(&self, core: &str, args: &[String]) -> Result<String> {
        let ourselves = std::env::current_exe()?;
        let mut command = match self {
            Self::Taskset => {
                let mut command = supervised(FIRST[0]);
                command.args(&FIRST[1..]).args(["taskset", "-c", core]).arg(ourselves);
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

/// The flag that lets one address open as many connections as it likes, of a binary that has it: that is what is measured.
fn unlimited_handshakes(binary: &Path) -> Result<Option<&'static str>> {
    let help = std::process::Command::new(binary).args(["token-service", "--help"]).output()?;
    let is_known = String::from_utf8_lossy(&help.stdout).contains("--handshakes-per-address");
    Ok(is_known.then_some("--handshakes-per-address=1000000"))
}

fn kubeconfig(api: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
        "clusters": [{"name": "stand-in", "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": "stand-in", "user": {}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "stand-in"}}],
    })
    .to_string()
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
