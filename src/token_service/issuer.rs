//! One authorization server as it is served, and which one a request is for.
//!
//! The configured one answers whatever no other is asked for. The others come and change with the Secrets that the
//! controller publishes for them; what a request is for is said by its host and its path, and nothing of one server
//! counts at another: neither clients nor tokens nor assertions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{header, request};
use jiff::Timestamp;

use super::documents::{AUTHORIZE, Metadata, metadata_paths};
use super::keys::{LoadedKeys, SigningKeys, Unusable};
use super::metrics::Endpoint;
use crate::config::{Server, published};

/// One authorization server behind its endpoints.
#[derive(Debug)]
pub struct Issuer {
    /// Its settings.
    pub(super) server: Server,
    /// Its signing keys.
    pub(super) keys: Arc<SigningKeys>,
    /// Its metadata documents.
    pub(super) metadata: Metadata,
    paths: Vec<(String, Endpoint)>,
    is_configured: bool,
}

/// The servers besides the configured one.
#[derive(Debug)]
pub struct Others {
    configured: String,
    all: ArcSwap<BTreeMap<Box<str>, Arc<Issuer>>>,
}

/// A server as the controller has published it.
#[derive(Debug)]
pub struct Published {
    /// Its settings.
    pub server: Server,
    /// Its signing keys.
    pub keys: Arc<LoadedKeys>,
}

impl Published {
    /// Reads the Secret `signing-keys-<name>`; `field` gives one of its fields.
    pub(super) fn parse<'a>(name: &str, field: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, Unusable> {
        let server = published::parse(name, field(published::FIELD))?;
        Ok(Self { server, keys: Arc::new(LoadedKeys::parse(field)?) })
    }
}

impl Issuer {
    /// The configured server with the keys that are to come.
    pub(super) fn configured(server: Server, keys: Arc<SigningKeys>) -> Self {
        Self { is_configured: true, ..Self::new(server, keys) }
    }

    fn new(server: Server, keys: Arc<SigningKeys>) -> Self {
        let (metadata, paths) = (Metadata::of(&server), paths_of(server.path()));
        Self { server, keys, metadata, paths, is_configured: false }
    }

    /// Which of its endpoints has this path.
    pub(super) fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.paths.iter().find(|(known, _)| known == path).map(|(_, endpoint)| *endpoint)
    }

    /// What stands for a client in the lists that replicas and servers share. A client identifier has no NUL.
    pub(super) fn listed<'a>(&self, client_id: &'a str) -> Cow<'a, str> {
        if self.is_configured {
            return Cow::Borrowed(client_id);
        }
        Cow::Owned(format!("{}\0{client_id}", self.server.name))
    }

    fn is_asked(&self, host: &str, path: &str) -> bool {
        host.eq_ignore_ascii_case(self.server.host()) && self.endpoint(path).is_some()
    }
}

impl Others {
    /// None yet. What is published under the configured server's name is none of them.
    #[must_use]
    pub fn beside(configured: &str) -> Self {
        Self { configured: configured.to_owned(), all: ArcSwap::default() }
    }

    /// Serves this one as it is from now on.
    pub(super) fn put(&self, published: &Published, now: Timestamp) {
        let Published { server, keys } = published;
        if server.name == self.configured {
            return;
        }
        let signing = SigningKeys::default();
        signing.replace(keys.clone(), now);
        let issuer = Arc::new(Issuer::new(server.clone(), Arc::new(signing)));
        self.all.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.insert(server.name.as_str().into(), issuer.clone());
            all
        });
    }

    /// The one that a request is for; `None` is the configured one.
    pub(super) fn asked(&self, parts: &request::Parts, configured: &Issuer) -> Option<Arc<Issuer>> {
        let all = self.all.load();
        if all.is_empty() {
            return None;
        }
        let (authority, path) = (authority_of(parts)?, parts.uri.path());
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if configured.is_asked(host, path) {
            return None;
        }
        all.values().find(|issuer| issuer.is_asked(host, path)).cloned()
    }

    /// Those that have no key to sign with, by name.
    pub(super) fn without_a_key(&self, now: Timestamp) -> Vec<String> {
        let all = self.all.load();
        all.values().filter(|issuer| !issuer.keys.can_sign(now)).map(|issuer| issuer.server.name.clone()).collect()
    }
}

/// The authority that a request names (RFC 9110 §7.2): `:authority` of HTTP/2, else `Host`. Neither may have userinfo
/// (§4.2.4).
fn authority_of(parts: &request::Parts) -> Option<Authority> {
    let of_header = || Authority::try_from(parts.headers.get(header::HOST)?.as_bytes()).ok();
    parts.uri.authority().cloned().or_else(of_header).filter(|authority| !authority.as_str().contains('@'))
}

/// All paths, below the issuer's except the well-known ones. The one most asked for comes first.
fn paths_of(issuer_path: &str) -> Vec<(String, Endpoint)> {
    let below = |name: &str, endpoint: Endpoint| (format!("{issuer_path}/{name}"), endpoint);
    let mut paths = vec![
        below("token", Endpoint::Token),
        below("introspect", Endpoint::Introspection),
        below("jwks", Endpoint::Jwks),
        below("revoke", Endpoint::Revocation),
    ];
    paths.extend(metadata_paths(issuer_path));
    paths.push(below(AUTHORIZE, Endpoint::Authorization));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn server(name: &str, issuer: &str) -> Server {
        Config::parse(&format!("authorizationServer: {{name: {name}, issuer: \"{issuer}\"}}")).unwrap().server
    }

    fn others(servers: &[(&str, &str)]) -> Others {
        let others = Others::beside("default");
        for (name, issuer) in servers {
            let keys = Arc::new(LoadedKeys::parse(|_| Some(b"[]")).unwrap());
            others.put(&Published { server: server(name, issuer), keys }, Timestamp::UNIX_EPOCH);
        }
        others
    }

    fn asked(others: &Others, uri: &str, host: Option<&str>) -> String {
        let configured = Issuer::configured(server("default", "https://auth.example"), Arc::default());
        let request = http::Request::get(uri);
        let request = host.into_iter().fold(request, |request, host| request.header(header::HOST, host));
        let found = others.asked(&request.body(()).unwrap().into_parts().0, &configured);
        found.map_or("default".to_owned(), |issuer| issuer.server.name.clone())
    }

    #[test]
    fn a_request_is_for_the_server_of_its_host_and_path_and_else_for_the_configured_one() {
        let others = others(&[
            ("a", "https://auth.example/a"),
            ("b", "https://b.example:8443"),
            ("six", "https://[::1]:8443/six"),
            ("default", "https://hijacker.example"),
            ("like", "https://auth.example"),
        ]);
        for (path, host, name) in [
            ("/a/token", "auth.example", "a"),
            ("/a/token", "AUTH.example:444", "a"),
            ("/.well-known/oauth-authorization-server/a", "auth.example", "a"),
            ("/a/token", "other.example", "default"),
            ("/a/tokens", "auth.example", "default"),
            ("/token", "b.example", "b"),
            ("/jwks", "b.example:8443", "b"),
            ("/token", "c.b.example", "default"),
            ("/token", "b.example.", "default"),
            ("/six/revoke", "[::1]:8443", "six"),
            ("/six/revoke", "[::1]", "six"),
            ("/token", "auth.example", "default"),
            ("/token", "hijacker.example", "default"),
            ("/token", "]:[", "default"),
            ("/six/revoke", "[::1", "default"),
            ("/token", "b.example:8443:1", "default"),
            ("/token", "b.example/", "default"),
            ("/token", "auth.example@b.example", "default"),
            ("/token", "", "default"),
        ] {
            assert_eq!(asked(&others, path, Some(host)), name, "{host}{path}");
        }
        assert_eq!(asked(&others, "https://b.example/token", Some("auth.example")), "b", ":authority counts first");
        assert_eq!(asked(&others, "https://auth.example@b.example/token", None), "default", "no userinfo");
        assert_eq!(asked(&others, "/token", None), "default");
    }

    #[test]
    fn the_same_client_id_is_another_client_at_each_server() {
        let configured = Issuer::configured(server("default", "https://auth.example"), Arc::default());
        let other = Issuer::new(server("a", "https://auth.example/a"), Arc::default());
        let next = Issuer::new(server("ab", "https://auth.example/b"), Arc::default());
        assert_eq!(configured.listed("bc"), "bc");
        assert_ne!(other.listed("bc"), configured.listed("bc"));
        assert_ne!(other.listed("bc"), next.listed("c"));
    }
}
