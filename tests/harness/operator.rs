//! The operator as users have it: the chart installed by helm, controller and token service as processes that hold the
//! tokens of the chart's own service accounts.
//!
//! It runs no pods: what a pod's container would be is a process here, with the arguments that the chart gives it where
//! they do not name a pod's directories and addresses.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::process::{Process, Program, free_ports};
use super::{Access, ControlPlane};

/// Where the chart is.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/appreg");
/// The release's namespace.
pub const NAMESPACE: &str = "appreg-system";
/// The ledger's namespace.
pub const LEDGER: &str = "appreg-ledger";
/// Values of a default policy that allows every scope, API, served audience and customer, and any number of
/// registrations: for what is not about the policy that the chart has by default.
const PERMISSIVE: [&str; 7] = [
    "policy.scopes={*}",
    "policy.apis[0].audiences={*}",
    "policy.apis[0].scopes={*}",
    "policy.servedAudiences={*}",
    "policy.customers={*}",
    "policy.customerGroups={*}",
    "policy.limits.registrationsPerNamespace=100000",
];

/// These `--set` values after those of a permissive default policy.
pub fn permissive<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    [&PERMISSIVE[..], sets].concat()
}

/// How long a program may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// An installed chart, and what its pods would run.
pub struct Operator<'a> {
    plane: &'a ControlPlane,
    binary: PathBuf,
    config: PathBuf,
    /// The token service's port, which the issuer names.
    port: u16,
    log_level: String,
    controllers: usize,
}

/// One running program of the operator.
pub struct Running {
    /// The process.
    pub process: Process,
    /// Where probes and metrics are.
    pub admin: String,
}

impl<'a> Operator<'a> {
    /// Installs the chart, with these `--set` values besides the issuer, which is on loopback.
    pub async fn install(plane: &'a ControlPlane, binary: &str, sets: &[&str]) -> Result<Self> {
        let port = free_ports(1)?[0];
        let operator = Self {
            plane,
            binary: binary.into(),
            config: plane.directory().join(format!("appreg-{port}.yaml")),
            port,
            log_level: "info".to_owned(),
            controllers: 0,
        };
        operator.helm("install", sets).await?;
        operator.definitions_are_served().await?;
        Ok(operator)
    }

    /// Waits until the API server serves every kind that the chart has defined, a moment after it was told of them: a
    /// program that starts in between finds out by trying again, and that would be counted.
    async fn definitions_are_served(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        for crd in appreg::api::crds::all() {
            let kind = format!("{}.appreg.dev", crd.spec.names.plural);
            while !self.plane.kubectl(&["get", &kind, "--all-namespaces"]).await?.success() {
                ensure!(Instant::now() < deadline, "{kind} is not served within 30 s");
            }
        }
        Ok(())
    }

    /// Installs or upgrades the release, and writes down the configuration that it made.
    pub async fn helm(&self, verb: &str, sets: &[&str]) -> Result<()> {
        let issuer = format!("authorizationServer.issuer={}", self.issuer());
        let mut args = vec![verb, "appreg", CHART, "--namespace", NAMESPACE, "--set", &issuer];
        if verb == "install" {
            args.push("--create-namespace");
        }
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        let output = self.plane.helm(&args).await?;
        ensure!(output.success(), "helm {verb}: {}", output.stderr);
        let api: Api<ConfigMap> = Api::namespaced(self.plane.client("admin"), NAMESPACE);
        let map = api.get("appreg").await?;
        let yaml = map.data.as_ref().and_then(|data| data.get("appreg.yaml")).context("the chart's configuration")?;
        std::fs::write(&self.config, yaml)?;
        Ok(())
    }

    /// Sets what both programs log from now on.
    pub fn log(&mut self, filter: &str) {
        filter.clone_into(&mut self.log_level);
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The token endpoint's address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the controller with its service account's token, directly at the API server or through a proxy.
    pub async fn controller(&mut self, through: &Access) -> Result<Running> {
        let running = self.start_controller(through).await?;
        running.ready().await?;
        Ok(running)
    }

    /// Starts the controller and does not wait until it is ready.
    pub async fn start_controller(&mut self, through: &Access) -> Result<Running> {
        self.controllers += 1;
        let name = format!("controller-{}", self.controllers);
        self.start(&name, "appreg-controller", through, &["controller", &format!("--controller-namespace={NAMESPACE}")])
            .await
    }

    /// Starts the token service with its service account's token.
    pub async fn token_service(&mut self, through: &Access) -> Result<Running> {
        let address = self.address();
        self.token_service_at(through, &address).await
    }

    /// Starts another token service of the same issuer, which listens on this address.
    pub async fn token_service_at(&mut self, through: &Access, address: &str) -> Result<Running> {
        self.controllers += 1;
        let listen = format!("--listen={address}");
        let name = format!("token-service-{}", self.controllers);
        let running = self.start(&name, "appreg-token-service", through, &["token-service", &listen]).await?;
        running.ready().await?;
        Ok(running)
    }

    async fn start(&self, name: &str, account: &str, through: &Access, args: &[&str]) -> Result<Running> {
        let token = self.plane.token_for_service_account(NAMESPACE, account).await?;
        let kubeconfig = through.kubeconfig_for_token(name, &token);
        let admin = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let process = Program::new(name, &self.binary, self.plane.directory())
            .args(args.iter().copied())
            .arg(format!("--config={}", self.config.display()))
            .arg(format!("--ledger-namespace={LEDGER}"))
            .arg(format!("--admin-address={admin}"))
            .arg(format!("--log-level={}", self.log_level))
            .env("KUBECONFIG", kubeconfig)
            .start()?;
        Ok(Running { process, admin })
    }
}

impl Running {
    /// Waits until it is ready.
    pub async fn ready(&self) -> Result<()> {
        self.process
            .wait_for_http(&self.admin, "/readyz", READY_WITHIN)
            .await
            .with_context(|| self.process.log_tail(40))
    }
}
