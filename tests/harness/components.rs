//! The programs of a control plane: where they are, what they are started with, and their runs.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail};

use super::{
    audit::SENTINEL,
    control_plane::{Audit, ControlPlane, Controllers, Options},
    credentials::{Files, User, write_private},
    process::{Process, Program},
};

const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

/// A program that can be started again, and its current run.
pub(super) struct Component {
    program: Program,
    process: Mutex<Arc<Process>>,
}

impl Component {
    pub(super) fn start(program: Program) -> anyhow::Result<Self> {
        let process = Mutex::new(Arc::new(program.start()?));
        Ok(Self { program, process })
    }

    pub(super) fn process(&self) -> Arc<Process> {
        self.process.lock().expect("no panic while held").clone()
    }

    pub(super) fn stop(&self) {
        self.process().kill();
    }

    pub(super) fn start_again(&self) -> anyhow::Result<()> {
        self.stop();
        *self.process.lock().expect("no panic while held") = Arc::new(self.program.start()?);
        Ok(())
    }
}

/// The directory with the programs: `KUBEBUILDER_ASSETS`, else what `make control-plane` built.
pub(super) fn programs() -> anyhow::Result<PathBuf> {
    const NEEDED: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm"];
    let directory = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => built()?,
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !directory.join(name).exists()).collect();
    if !missing.is_empty() {
        bail!(
            "{} has no {}: run `make control-plane`, which builds what is missing and prints a directory, and set \
             KUBEBUILDER_ASSETS to that",
            directory.display(),
            missing.join(", ")
        );
    }
    Ok(directory)
}

pub(super) fn built() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build");
    let output = Command::new(&script).arg("--where").output().with_context(|| script.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "no control plane: run `make control-plane` first\n{said}");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

pub(super) fn users(options: &Options) -> Vec<User> {
    let mut users = vec![
        User::new("admin", &["system:masters"]),
        User::new(CONTROLLER_MANAGER, &["system:masters"]),
        User::new(SENTINEL, &[]),
    ];
    users.extend(options.users.iter().map(|name| User::new(name, &[])));
    users
}

pub(super) fn etcd(programs: &Path, directory: &Path, [client_port, peer_port]: [u16; 2]) -> Program {
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    Program::new("etcd", programs.join("etcd"), directory)
        .args(["--unsafe-no-fsync", "--log-level", "warn", "--data-dir"])
        .arg(directory.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg(format!("--initial-cluster=default={peer}"))
}

pub(super) fn api_server(programs: &Path, directory: &Path, files: &Files, [etcd_port, port]: [u16; 2]) -> Program {
    let service_account_key = &files.service_account_key;
    Program::new("kube-apiserver", programs.join("kube-apiserver"), directory)
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!("--secure-port={port}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .args(["--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC"])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--profiling=false"])
        .args([flag("cert-dir", directory), flag("token-auth-file", &files.tokens)])
        .args([flag("tls-cert-file", &files.serving_certificate), flag("tls-private-key-file", &files.serving_key)])
        .args([flag("service-account-key-file", service_account_key)])
        .args([flag("service-account-signing-key-file", service_account_key)])
}

pub(super) fn controller_manager(plane: &ControlPlane, files: &Files, controllers: &Controllers) -> Option<Program> {
    let mut names = vec![
        "clusterrole-aggregation-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
    ];
    match controllers {
        Controllers::Off => return None,
        Controllers::Basic => {}
        Controllers::BasicAnd(others) => names.extend(others),
    }
    let program = Program::new("kube-controller-manager", plane.program("kube-controller-manager"), plane.directory())
        .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
        .arg(format!("--controllers={}", names.join(",")))
        .args([flag("kubeconfig", &plane.kubeconfig(CONTROLLER_MANAGER)), flag("root-ca-file", &files.ca)])
        .args([flag("service-account-private-key-file", &files.service_account_key)]);
    Some(program)
}

/// Every request once it is complete, without bodies.
pub(super) fn audit_args(audit: &Audit, directory: &Path) -> anyhow::Result<Vec<OsString>> {
    let rules = match audit {
        Audit::Off => return Ok(Vec::new()),
        Audit::Everyone => serde_json::json!([{"level": "Metadata"}]),
        Audit::Users(users) => {
            let users: Vec<&str> = users.iter().map(String::as_str).chain([SENTINEL]).collect();
            serde_json::json!([{"level": "Metadata", "users": users}, {"level": "None"}])
        }
    };
    let policy = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": rules,
    });
    let file = directory.join("audit-policy.json");
    write_private(&file, &policy.to_string())?;
    let rotate_never = "--audit-log-maxsize=1000000".into(); // MB
    Ok(vec![flag("audit-policy-file", &file), flag("audit-log-path", &directory.join("audit.log")), rotate_never])
}

pub(super) fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(path);
    flag
}
