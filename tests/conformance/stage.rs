//! The operator as users have it, and registrations whose Secrets are mounted as a pod would have them.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::harness::credentials::write_private;
use super::harness::{ControlPlane, Operator, Running, registrations};

/// The registrations' namespace.
pub(crate) const NAMESPACE: &str = "conformance";
/// What tokens are for.
pub(crate) const AUDIENCE: &str = "https://orders.example";
/// What the API wants.
pub(crate) const SCOPE: &str = "orders:read";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running operator.
pub(crate) struct Stage<'a> {
    pub(crate) plane: &'a ControlPlane,
    pub(crate) client: kube::Client,
    pub(crate) issuer: String,
    /// Where everything is that foreign programs read.
    pub(crate) directory: PathBuf,
    _running: [Running; 2],
}

/// A registration, with its Secret mounted.
pub(crate) struct Registered {
    pub(crate) client_id: String,
    /// One file for each field.
    pub(crate) mounted: PathBuf,
}

impl<'a> Stage<'a> {
    /// Installs the chart, with these `--set` values, and starts controller and token service.
    pub(crate) async fn start(plane: &'a ControlPlane, binary: &Path, sets: &[&str]) -> Result<Self> {
        let mut operator = Operator::install(plane, &binary.to_string_lossy(), sets).await?;
        let running = [operator.controller(plane).await?, operator.token_service(plane).await?];
        let client = plane.client("admin");
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(NAMESPACE.to_owned());
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let directory = plane.directory().join("conformance");
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { plane, client, issuer: operator.issuer(), directory, _running: running })
    }

    /// Applies a registration for the API, and waits until its credentials are accepted.
    pub(crate) async fn register(&self, name: &str, more: &Value) -> Result<Value> {
        let mut spec = json!({
            "displayName": name, "scopes": [SCOPE, "orders:write"], "audiences": [AUDIENCE],
        });
        let fields = spec.as_object_mut().context("an object")?;
        fields.extend(more.as_object().context("an object")?.clone());
        registrations::create(&self.client, NAMESPACE, name, &spec).await?;
        Ok(registrations::settle(&self.client, NAMESPACE, name, PATIENCE).await)
    }

    /// The same, with the Secret `secret` mounted.
    pub(crate) async fn registered(&self, name: &str, secret: &str, more: &Value) -> Result<Registered> {
        let registration = self.register(name, more).await?;
        let client_id = registration["status"]["clientID"].as_str().context("a client ID")?.to_owned();
        let secret = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE).get(secret).await?;
        let mounted = self.volume(name)?;
        for (field, content) in secret.data.unwrap_or_default() {
            write_private(&mounted.join(field), std::str::from_utf8(&content.0)?)?;
        }
        Ok(Registered { client_id, mounted })
    }

    /// A new directory that we alone can read.
    pub(crate) fn volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("volume-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// The same volume, with one file of another content.
    pub(crate) fn altered(&self, name: &str, of: &Path, file: &str, content: &str) -> Result<PathBuf> {
        let path = self.volume(name)?;
        for entry in std::fs::read_dir(of)? {
            let entry = entry?;
            std::fs::copy(entry.path(), path.join(entry.file_name()))?;
        }
        write_private(&path.join(file), content)?;
        Ok(path)
    }
}

impl Registered {
    pub(crate) fn field(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.mounted.join(name)).with_context(|| format!("the field {name}"))
    }
}
