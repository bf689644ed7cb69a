//! How a user reaches the API server: clients and kubeconfigs, for its own address or for a proxy's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::credentials::{User, write_private};

/// One address of the API server, its certificate authority, and the users it knows.
///
/// [`super::ControlPlane`] and [`super::Proxy`] both are one (by `Deref`).
#[derive(Clone, Debug)]
pub struct Access {
    server: String,
    ca_pem: Arc<str>,
    ca_der: Vec<u8>,
    users: Arc<[User]>,
    directory: PathBuf,
}

impl Access {
    /// To the API server at the URL `server`; kubeconfigs are written to `directory`.
    pub fn new(server: String, ca: (&str, &[u8]), users: &[User], directory: &Path) -> Self {
        Self {
            server,
            ca_pem: ca.0.into(),
            ca_der: ca.1.to_vec(),
            users: users.into(),
            directory: directory.to_owned(),
        }
    }

    /// The same at another URL.
    pub fn via(&self, server: String) -> Self {
        Self { server, ..self.clone() }
    }

    /// The URL, without a path.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The certificate authority of the API server, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The same in DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// The bearer token of one of the users that the control plane was started with.
    ///
    /// # Panics
    /// Where there is no such user.
    pub fn token(&self, user: &str) -> &str {
        let known = || self.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>();
        self.users
            .iter()
            .find(|candidate| candidate.name == user)
            .unwrap_or_else(|| panic!("no user {user}; there are {:?}: add it to Options::users", known()))
            .token()
    }

    /// A client that acts as `user`, of the runtime it is called in. It never retries by itself.
    pub fn client(&self, user: &str) -> kube::Client {
        client(self.config(user))
    }

    /// A client that acts as the owner of `token`, as [`super::ControlPlane::token_for_service_account`] gives one.
    pub fn client_for_token(&self, token: &str) -> kube::Client {
        client(self.config_for_token(token))
    }

    /// A client of `admin` that acts as somebody else, known or not.
    pub fn impersonating(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut config = self.config("admin");
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(ToString::to_string).collect());
        client(config)
    }

    /// What [`Self::client`] is made from, to be changed first.
    pub fn config(&self, user: &str) -> kube::Config {
        self.config_for_token(self.token(user))
    }

    /// The same for the owner of `token`.
    pub fn config_for_token(&self, token: &str) -> kube::Config {
        let mut config = kube::Config::new(self.server.parse().expect("we made this URL"));
        config.root_cert = Some(vec![self.ca_der.clone()]);
        config.auth_info.token = Some(token.to_owned().into());
        config.connect_timeout = Some(Duration::from_secs(5));
        config.default_retry = false;
        config
    }

    /// A kubeconfig of `user`, readable by us alone.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.kubeconfig_for_token(user, self.token(user))
    }

    /// The same for the owner of `token`; `label` becomes part of the file's name.
    pub fn kubeconfig_for_token(&self, label: &str, token: &str) -> PathBuf {
        let address = self.server.rsplit(':').next().unwrap_or_default();
        let label = label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = self.directory.join(format!("{label}-{address}.kubeconfig"));
        write_private(&path, &self.kubeconfig_text(token)).expect("the control plane's directory is writable");
        path
    }

    /// JSON, which is YAML. The certificate authority is named for a plain-HTTP address, too: without one kube's
    /// client looks for the machine's, and fails where there are none.
    fn kubeconfig_text(&self, token: &str) -> String {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let ca = BASE64_STANDARD.encode(self.ca_pem.as_bytes());
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.server, "certificate-authority-data": ca}}],
            "users": [{"name": "test", "user": {"token": token}}],
        })
        .to_string()
    }
}

fn client(config: kube::Config) -> kube::Client {
    kube::Client::try_from(config).expect("a valid configuration")
}
