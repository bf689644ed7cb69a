//! The operator as users have it, and registrations whose Secrets are mounted as a pod would have them.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use super::harness::credentials::write_private;
use super::harness::oauth::TokenClient;
use super::harness::{ControlPlane, Operator, Running, registrations};

/// The registrations' namespace.
pub(crate) const NAMESPACE: &str = "shop";
/// What tokens are for.
pub(crate) const AUDIENCE: &str = "https://orders.example";
/// What the API wants.
pub(crate) const SCOPE: &str = "orders:read";
/// The API of most programs.
pub(crate) const ORDERS: Wanted = Wanted { audience: AUDIENCE, scope: SCOPE };
/// What the registrations need besides the default policy.
const POLICY: &str = include_str!("registrations/policy.yaml");
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What an API wants of a token: its own audience, and a scope.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) audience: &'static str,
    pub(crate) scope: &'static str,
}

/// A running operator.
pub(crate) struct Stage<'a> {
    pub(crate) plane: &'a ControlPlane,
    pub(crate) client: kube::Client,
    pub(crate) issuer: String,
    /// Where everything is that foreign programs read.
    pub(crate) directory: PathBuf,
    _running: [Running; 2],
}

/// A registration, with what its application has in a volume.
pub(crate) struct Registered {
    pub(crate) client_id: String,
    /// One file for each field.
    pub(crate) volume: PathBuf,
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
        plane.kubectl_apply(POLICY).await?;
        let directory = plane.directory().join("conformance");
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { plane, client, issuer: operator.issuer(), directory, _running: running })
    }

    /// Applies a manifest with the registration `name`, waits until its credentials are accepted, and returns its
    /// client ID.
    pub(crate) async fn apply(&self, manifest: &str, name: &str) -> Result<String> {
        self.plane.kubectl_apply(manifest).await?;
        let registration = registrations::settle(&self.client, NAMESPACE, name, PATIENCE).await;
        Ok(registration["status"]["clientID"].as_str().context("a client ID")?.to_owned())
    }

    /// The same, with the Secret `secret` mounted.
    pub(crate) async fn mounted(&self, manifest: &str, name: &str, secret: &str) -> Result<Registered> {
        let client_id = self.apply(manifest, name).await?;
        let published = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE).get(secret).await?;
        let volume = self.volume(secret)?;
        for (field, content) in published.data.unwrap_or_default() {
            write_private(&volume.join(field), std::str::from_utf8(&content.0)?)?;
        }
        Ok(Registered { client_id, volume })
    }

    /// The same with a volume that the application has made itself, `credential` in the file `file`; how to reach the
    /// server it knows as `like` does.
    pub(crate) fn configured(
        &self,
        client_id: String,
        like: &Registered,
        (file, credential): (&str, &str),
    ) -> Result<Registered> {
        let volume = self.volume(&format!("{client_id}-{file}"))?;
        for field in ["issuer", "token_endpoint", "issuer_ca.crt"] {
            write_private(&volume.join(field), &like.field(field)?)?;
        }
        write_private(&volume.join("client_id"), &client_id)?;
        write_private(&volume.join(file), credential)?;
        Ok(Registered { client_id, volume })
    }

    /// The same volume, with some files of another content.
    pub(crate) fn altered(&self, name: &str, of: &Registered, files: &[(&str, &str)]) -> Result<PathBuf> {
        let path = self.volume(name)?;
        for entry in std::fs::read_dir(&of.volume)? {
            let entry = entry?;
            std::fs::copy(entry.path(), path.join(entry.file_name()))?;
        }
        for (file, content) in files {
            write_private(&path.join(file), content)?;
        }
        Ok(path)
    }

    /// A new directory that we alone can read.
    pub(crate) fn volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("volume-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// A file that we alone can read.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        write_private(&path, content)?;
        Ok(path)
    }

    /// A token of a `ServiceAccount`, for one hour, as the kubelet would project it.
    pub(crate) async fn sa_token(&self, account: &str, audience: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        let spec = TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer: TokenRequest =
            accounts.create_subresource("token", account, &PostParams::default(), &request).await?;
        answer.status.and_then(|status| status.token).context("a TokenRequest without an answer")
    }
}

impl Registered {
    pub(crate) fn field(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.volume.join(name)).with_context(|| format!("the field {name}"))
    }

    /// A token by `client_secret_basic`.
    pub(crate) async fn token(&self) -> Result<String> {
        let client = TokenClient::new(&self.field("issuer_ca.crt")?, &self.field("token_endpoint")?)?;
        let answer = client.basic(&self.client_id, &self.field("client_secret")?).await?;
        answer.access_token.clone().with_context(|| format!("no token: {answer:?}"))
    }
}
