//! etcd, kube-apiserver and kube-controller-manager on loopback ports, and what a test does to them.
//!
//! RBAC is on and every component is a user of its own. Nothing outlives the [`ControlPlane`], nor the process that
//! holds it, however that ends: see [`super::process`]. It runs no scheduler and no kubelet: no pod ever runs.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{Api, api::PostParams};

use super::{
    access::Access,
    audit::{AuditLog, SENTINEL},
    components::{self, Component},
    credentials::{Files, random_hex, write_private},
    directory::Directory,
    process::{POLL, Process, free_ports, supervised},
};

/// How long a component may take to become ready on a busy machine.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How long kubectl and helm may run.
const COMMAND_WITHIN: Duration = Duration::from_mins(3);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Users besides `admin` (in `system:masters`), without any right until a test binds them to a role.
    pub users: Vec<&'static str>,
    pub audit: Audit,
    pub controllers: Controllers,
    /// Further arguments of kube-apiserver.
    pub api_server_args: Vec<String>,
}

/// Whose requests the audit log has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    Off,
    Everyone,
    /// By user name; a service account is `system:serviceaccount:<namespace>:<name>`.
    Users(Vec<String>),
}

/// Which controllers of kube-controller-manager run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controllers {
    Off,
    /// Garbage collection, namespace deletion, service accounts and their tokens, and the aggregation that fills the
    /// roles `admin`, `edit` and `view`.
    Basic,
    /// Those and others by name, such as `deployment-controller`.
    BasicAnd(Vec<&'static str>),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: vec!["appreg-controller", "appreg-controller-2", "appreg-token-service", "observer", "nobody"],
            audit: Audit::Off,
            controllers: Controllers::Basic,
            api_server_args: Vec::new(),
        }
    }
}

/// A running control plane. Dropping it stops everything and removes its directory.
pub struct ControlPlane {
    access: Access,
    controller_manager: Option<Component>,
    api_server: Component,
    etcd: Component,
    audit: Option<AuditLog>,
    programs: PathBuf,
    directory: Directory,
}

/// What kubectl or helm said.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its standard output where it succeeded, else an error with what it said.
    pub fn ok(self) -> anyhow::Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        bail!("{} failed ({}): {}{}", self.command, self.status, self.stderr, self.stdout)
    }
}

impl Deref for ControlPlane {
    type Target = Access;
    fn deref(&self) -> &Access {
        &self.access
    }
}

impl ControlPlane {
    /// Starts one with the default [`Options`]; ready after about 2 s.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one. A port that somebody took in the meantime is a reason to try again, with others.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let programs = components::programs()?;
        let mut attempt = 1;
        loop {
            match Self::try_start(&options, &programs).await {
                Err(error) if attempt < 4 && format!("{error:#}").contains("address already in use") => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_start(options: &Options, programs: &Path) -> anyhow::Result<Self> {
        let directory = Directory::new()?;
        let path = directory.path();
        let users = components::users(options);
        let (files, ports) = {
            let (path, users) = (path.to_owned(), users.clone());
            tokio::task::spawn_blocking(move || anyhow::Ok((Files::write(&path, &users)?, free_ports(3)?))).await??
        };
        let [client_port, peer_port, server_port] = ports[..] else { bail!("three ports") };
        let server = format!("https://127.0.0.1:{server_port}");
        let access = Access::new(server, (&files.ca_pem, &files.ca_der), &users, path);

        let etcd = Component::start(components::etcd(programs, path, [client_port, peer_port]))?;
        let program = components::api_server(programs, path, &files, [client_port, server_port])
            .args(components::audit_args(&options.audit, path)?)
            .args(&options.api_server_args);
        let api_server = Component::start(program)?;
        let mut plane = Self {
            controller_manager: None,
            audit: (options.audit != Audit::Off)
                .then(|| AuditLog::new(path.join("audit.log"), access.client(SENTINEL))),
            access,
            api_server,
            etcd,
            programs: programs.to_owned(),
            directory,
        };
        plane.wait_until_ready().await?;
        if let Some(program) = components::controller_manager(&plane, &files, &options.controllers) {
            plane.controller_manager = Some(Component::start(program)?);
        }
        Ok(plane)
    }

    /// Where logs and kubeconfigs are, as long as it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of `kubectl`, `helm`, `kube-apiserver`, ….
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The audit log.
    ///
    /// # Panics
    /// Where it was started without one.
    pub fn audit(&self) -> &AuditLog {
        self.audit.as_ref().expect("started with Options { audit: Audit::Everyone, .. }")
    }

    /// A new namespace whose name begins with `prefix`.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        let name = format!("{prefix}-{}", &random_hex()[..8]);
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let namespaces: Api<Namespace> = Api::all(self.client("admin"));
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(name)
    }

    /// A token of a service account that exists, for one hour, as a pod would have it.
    pub async fn token_for_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client("admin"), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() };
        let request = TokenRequest { spec: Some(spec), ..Default::default() };
        let answer: TokenRequest = accounts.create_subresource("token", name, &PostParams::default(), &request).await?;
        answer.status.and_then(|status| status.token).context("a TokenRequest without an answer")
    }

    /// A kubeconfig with such a token.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.token_for_service_account(namespace, name).await?;
        Ok(self.kubeconfig_for_token(&format!("{namespace}-{name}"), &token))
    }

    /// Runs kubectl as `admin`.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.kubectl_as("admin", args).await
    }

    /// Runs kubectl as `user`.
    pub async fn kubectl_as(&self, user: &str, args: &[&str]) -> anyhow::Result<Output> {
        self.run("kubectl", user, args).await
    }

    /// `kubectl apply` of a text as `admin`, and what it printed; an error where the API server refused it.
    pub async fn kubectl_apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.kubectl_apply_as("admin", yaml).await?.ok()
    }

    /// `kubectl apply` of a text as `user`.
    pub async fn kubectl_apply_as(&self, user: &str, yaml: &str) -> anyhow::Result<Output> {
        let file = self.directory().join(format!("{}.yaml", random_hex()));
        write_private(&file, yaml)?;
        let output = self.kubectl_as(user, &["apply", "-f", &file.to_string_lossy()]).await;
        fs::remove_file(file)?;
        output
    }

    /// Runs helm as `admin`, with caches and configuration of its own.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.run("helm", "admin", args).await
    }

    async fn run(&self, program: &str, user: &str, args: &[&str]) -> anyhow::Result<Output> {
        let directory = self.directory();
        let mut command = supervised(self.program(program));
        command.args(args).env("KUBECONFIG", self.kubeconfig(user)).env("KUBECACHEDIR", directory.join("kubectl"));
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, directory.join("helm").join(home));
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn()?;
        let lives = child.stdin.take(); // the watchdog's sign of life: kept until the program has ended
        let shown = format!("{program} {}", args.join(" "));
        let output = tokio::time::timeout(COMMAND_WITHIN, child.wait_with_output())
            .await
            .with_context(|| format!("{shown} still runs after {COMMAND_WITHIN:?}"))??;
        drop(lives);
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: shown,
        })
    }

    /// SIGKILL to kube-apiserver: its clients see their connections end, then refused.
    pub fn stop_api_server(&self) {
        self.api_server.stop();
    }

    /// Starts kube-apiserver at the same address as before, and waits until it is ready.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        self.api_server.start_again()?;
        self.wait_until_ready().await
    }

    /// Stops and starts kube-apiserver.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        self.stop_api_server();
        self.start_api_server().await
    }

    /// SIGSTOP to kube-apiserver: connections stay open, and nothing is answered.
    pub fn freeze_api_server(&self) -> anyhow::Result<()> {
        self.api_server.process().freeze()
    }

    /// SIGCONT.
    pub fn thaw_api_server(&self) -> anyhow::Result<()> {
        self.api_server.process().thaw()
    }

    /// SIGKILL to etcd.
    pub fn stop_etcd(&self) {
        self.etcd.stop();
    }

    /// Starts etcd with the data it had, and waits until the API server is ready again.
    pub async fn start_etcd(&self) -> anyhow::Result<()> {
        self.etcd.start_again()?;
        self.wait_until_ready().await
    }

    /// Stops and starts etcd.
    pub async fn restart_etcd(&self) -> anyhow::Result<()> {
        self.stop_etcd();
        self.start_etcd().await
    }

    /// The processes that run now: etcd, kube-apiserver, and kube-controller-manager where it was asked for.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.components().map(Component::process).collect()
    }

    /// The last lines of every component's log, for a failure's message.
    pub fn diagnosis(&self) -> String {
        let tail = |process: Arc<Process>| format!("--- {}\n{}\n", process.name(), process.log_tail(15));
        self.processes().into_iter().map(tail).collect()
    }

    fn components(&self) -> impl Iterator<Item = &Component> {
        [&self.etcd, &self.api_server].into_iter().chain(&self.controller_manager)
    }

    /// Until `/readyz` says so and the namespace `default` is there.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let client = self.client("admin");
        let ask = async |path: &str| {
            let request = http::Request::get(path).body(Vec::new())?;
            let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
            anyhow::Ok(answer.context("no answer within 5 s")??)
        };
        loop {
            let mut error = ask("/readyz").await.err();
            if error.is_none() {
                error = ask("/api/v1/namespaces/default").await.err();
            }
            let Some(error) = error else { return Ok(()) };
            for component in [&self.etcd, &self.api_server] {
                let process = component.process();
                if let Some(status) = process.exit_status() {
                    bail!("{} ended ({status}); its log ends\n{}", process.name(), process.log_tail(20));
                }
            }
            if Instant::now() > deadline {
                bail!("not ready within {READY_WITHIN:?}: {error:#}\n{}", self.diagnosis());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // From the top, so that nobody complains about the loss of whom it depends on; the directory goes last.
        for component in self.controller_manager.iter().chain([&self.api_server, &self.etcd]) {
            component.stop();
        }
    }
}
