//! The operator's configuration file: the built-in authorization server and the default policy, as the chart's values
//! write them.
//!
//! They are configuration and not objects because a chart whose CRDs are templates cannot install custom resources with
//! them. Controller and token service read the same file, so both mean the same server.

pub mod forwarded;
pub mod published;

mod renamed;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::api::{
    Algorithm, ApiRule, DeletionPolicy, DurationBounds, DurationRules, GrantType, Kind, LongDuration, LongestDuration,
    OWN_CLIENT_IDS, OWN_SERVICE_NAMES, OWN_SERVICE_URLS, PolicyLimits, PrivateKeyAlgorithm, PrivateKeyRule,
    RedirectUriRules, RegistrationPolicySpec, TokenEndpointAuthMethod, UriScheme,
};
use forwarded::{ForwardedCertificates, MOST_PROXIES};

/// How many registrations of a namespace the default policy allows.
const DEFAULT_REGISTRATIONS_PER_NAMESPACE: u32 = 100;

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The built-in authorization server; `authorizationServer` in the file, as in the chart's values.
    #[serde(rename = "authorizationServer")]
    pub server: Server,
    /// The default policy: one more beside the `RegistrationPolicy` objects, for every namespace.
    #[serde(default)]
    pub policy: Policy,
}

/// A built-in authorization server: the configured one, or one that an object describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// The name that `authorizationServerRef` uses.
    #[serde(default = "default_name")]
    pub name: String,
    /// The issuer identifier (RFC 8414 §2): https, no query, no fragment, no trailing slash.
    pub issuer: String,
    /// The audience of tokens of a client that was granted none; the issuer if omitted.
    #[serde(default)]
    pub default_audience: Option<String>,
    /// How long a token from the token endpoint lives.
    #[serde(default = "default_token_lifetime")]
    pub access_token_lifetime: LongDuration,
    /// The signature algorithm of access tokens. Another one than before gets a key that is published a day before it
    /// signs.
    #[serde(default)]
    pub signing_algorithm: Algorithm,
    /// More DNS names and IP addresses of the serving certificate; the issuer's host is always one.
    #[serde(default)]
    pub serving_names: Vec<String>,
    /// Proxies that end TLS in front of the token service, whichever server is asked; none if omitted. Only the
    /// configured server has it.
    #[serde(default)]
    pub forwarded_certificates: Option<ForwardedCertificates>,
}

/// The default policy: what registrations of every namespace may ask for, in the words of a `RegistrationPolicy`. By
/// default it is closed for everything that crosses namespaces.
///
/// Unlike an object it states every restriction, because its value counts where no object states one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Whether it is in force. If not, only `RegistrationPolicy` objects allow anything; its restrictions and durations
    /// stay the defaults.
    pub enabled: bool,
    /// The name that grants are recorded under, as `policy/<name>`.
    pub name: String,
    /// Scopes at the default audience, as globs.
    pub scopes: Vec<String>,
    /// APIs to call, with the scopes that are allowed there.
    pub apis: Vec<ApiRule>,
    /// Audiences that a registration may serve, as globs.
    pub served_audiences: Vec<String>,
    /// Customers, as globs; `*` is needed for "all".
    pub customers: Vec<String>,
    /// Customer groups, as globs.
    pub customer_groups: Vec<String>,
    /// Redirect URIs, by scheme and host.
    #[serde(rename = "redirectURIs")]
    pub redirect_uris: RedirectUriRules,
    /// Chosen client IDs, as globs with `{namespace}` and `{name}`.
    #[serde(rename = "clientIDs")]
    pub client_ids: Vec<String>,
    /// DNS names of certificates, as globs with `{namespace}` and `{name}`.
    pub dns_names: Vec<String>,
    /// Grants of RFC 6749.
    pub grant_types: Vec<GrantType>,
    /// Ways to authenticate at the token endpoint.
    pub token_endpoint_auth_methods: Vec<TokenEndpointAuthMethod>,
    /// Kinds of credentials.
    pub credential_kinds: Vec<Kind>,
    /// Private keys of certificates.
    pub private_keys: Vec<PrivateKeyRule>,
    /// What may become of a client when its registration is deleted.
    pub deletion_policies: Vec<DeletionPolicy>,
    /// How long credentials live.
    pub durations: PolicyDurations,
    /// How much a registration or a namespace may have.
    pub limits: PolicyLimits,
}

/// How long credentials live, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyDurations {
    /// Client secrets.
    pub client_secret: Durations,
    /// Certificates.
    pub certificate: Durations,
    /// Access tokens in Secrets.
    pub access_token: Durations,
    /// Uploaded keys and certificates: how long one is accepted at most; without end if omitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<LongestDuration>,
}

/// Bounds for an effective duration. What lies outside is clamped, and the registration says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Durations {
    /// Where the registration names none.
    pub default: LongDuration,
    /// The shortest.
    pub min: LongDuration,
    /// The longest.
    pub max: LongDuration,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not the YAML we read; the text names line, column and field.
    #[error("The configuration is malformed: {0}")]
    Malformed(String),
    /// A field has a value that cannot work.
    #[error("The configuration field {field} {problem}")]
    Invalid {
        /// The field's path.
        field: String,
        /// What is wrong and how to mend it.
        problem: &'static str,
    },
}

/// A field of a server that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field.
    pub field: &'static str,
    /// What is wrong and how to mend it.
    pub problem: &'static str,
}

impl Config {
    /// Reads and checks a configuration.
    pub fn parse(yaml: &str) -> Result<Self, Error> {
        let config: Self = serde_yaml::from_str(yaml)
            .map_err(|error| renamed::find(yaml).unwrap_or_else(|| Error::Malformed(error.to_string())))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |field: &str, problem| Err(Error::Invalid { field: field.to_owned(), problem });
        if let Err(Fault { field, problem }) = self.server.check() {
            return invalid(&format!("authorizationServer.{field}"), problem);
        }
        let proxies = self.server.forwarded_certificates.as_ref().map(|forwarded| forwarded.proxies.len());
        if proxies.is_some_and(|count| !(1..=MOST_PROXIES).contains(&count)) {
            let problem =
                "must have 1 to 64 address ranges: list those of your proxies, or remove forwardedCertificates";
            return invalid("authorizationServer.forwardedCertificates.proxies", problem);
        }
        for (field, durations) in [
            ("policy.durations.clientSecret", &self.policy.durations.client_secret),
            ("policy.durations.certificate", &self.policy.durations.certificate),
            ("policy.durations.accessToken", &self.policy.durations.access_token),
        ] {
            let [min, default, max] = [durations.min, durations.default, durations.max].map(LongDuration::signed);
            if !(min.is_positive() && min <= default && default <= max) {
                return invalid(field, "must have 0 < min ≤ default ≤ max");
            }
        }
        Ok(())
    }
}

impl Server {
    /// Whether it can be served, whoever has written it down.
    pub fn check(&self) -> Result<(), Fault> {
        let issuer = &self.issuer;
        let invalid = |field, problem| Err(Fault { field, problem });
        if !issuer.starts_with("https://") || self.host().is_empty() {
            return invalid("issuer", "must be an https URL with a host, such as https://auth.example");
        }
        if issuer.ends_with('/') || issuer.contains(['?', '#']) {
            return invalid("issuer", "must have no trailing slash, query or fragment: remove it");
        }
        if !issuer.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '@')) {
            return invalid("issuer", "must be plain ASCII without quotes, backslashes and user information");
        }
        // Well-known paths stand before and after it (RFC 8414 §3.1): one of several servers must not look like those.
        if self.path().split('/').skip(1).any(|part| part.is_empty() || part.starts_with('.')) {
            return invalid("issuer", "must have no part of its path that is empty or begins with a dot");
        }
        let lifetime = self.access_token_lifetime.signed();
        if !lifetime.is_positive() || lifetime > crate::rotation::LONGEST_TOKEN_LIFETIME {
            return invalid("accessTokenLifetime", "must be more than 0s and at most 24h");
        }
        Ok(())
    }

    /// What requests for this server have in common: the host in lower case, and the path that endpoints lie below. Two
    /// servers must differ in it; ports do not count, because a proxy may have another one.
    #[must_use]
    pub fn place(&self) -> (String, &str) {
        (self.host().to_ascii_lowercase(), self.path())
    }

    /// The token endpoint's URL.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.issuer)
    }

    /// The introspection endpoint's URL.
    #[must_use]
    pub fn introspection_endpoint(&self) -> String {
        format!("{}/introspect", self.issuer)
    }

    /// The revocation endpoint's URL.
    #[must_use]
    pub fn revocation_endpoint(&self) -> String {
        format!("{}/revoke", self.issuer)
    }

    /// The JWKS' URL.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        format!("{}/jwks", self.issuer)
    }

    /// The audience of tokens of a client that was granted none.
    #[must_use]
    pub fn default_audience(&self) -> &str {
        self.default_audience.as_deref().unwrap_or(&self.issuer)
    }

    /// The issuer's host, without port and brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.issuer.strip_prefix("https://").unwrap_or(&self.issuer);
        let authority = rest.split('/').next().unwrap_or(rest);
        match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => authority.split(':').next().unwrap_or(authority),
        }
    }

    /// The path of the issuer, empty or starting with a slash: every endpoint lies below it.
    #[must_use]
    pub fn path(&self) -> &str {
        let rest = self.issuer.strip_prefix("https://").unwrap_or(&self.issuer);
        rest.find('/').map_or("", |at| &rest[at..])
    }
}

impl Policy {
    /// A `RegistrationPolicy` for every namespace that says the same.
    #[must_use]
    pub fn to_object(&self) -> RegistrationPolicySpec {
        let bounds = |durations: &Durations| {
            Some(DurationBounds { min: Some(durations.min.to_string()), max: Some(durations.max.to_string()) })
        };
        RegistrationPolicySpec {
            description: None,
            namespace_selector: LabelSelector::default(),
            scopes: self.scopes.clone(),
            apis: self.apis.clone(),
            served_audiences: self.served_audiences.clone(),
            customers: self.customers.clone(),
            customer_groups: self.customer_groups.clone(),
            redirect_uris: Some(self.redirect_uris.clone()),
            client_ids: Some(self.client_ids.clone()),
            dns_names: Some(self.dns_names.clone()),
            grant_types: Some(self.grant_types.clone()),
            token_endpoint_auth_methods: Some(self.token_endpoint_auth_methods.clone()),
            credential_kinds: Some(self.credential_kinds.clone()),
            private_keys: Some(self.private_keys.clone()),
            deletion_policies: Some(self.deletion_policies.clone()),
            durations: Some(DurationRules {
                client_secret: bounds(&self.durations.client_secret),
                certificate: bounds(&self.durations.certificate),
                access_token: bounds(&self.durations.access_token),
                public_key: self.durations.public_key.clone(),
            }),
            limits: Some(self.limits.clone()),
            approval_required: None,
            on_violation: None,
        }
    }

    /// A default policy that allows every item: for tests of other things.
    #[cfg(test)]
    pub(crate) fn open() -> Self {
        let anything = || vec!["*".to_owned()];
        Self {
            scopes: anything(),
            apis: vec![ApiRule { audiences: anything(), scopes: anything() }],
            served_audiences: anything(),
            customers: anything(),
            customer_groups: anything(),
            limits: PolicyLimits::default(),
            ..Self::default()
        }
    }

    /// The durations of a kind that is minted.
    #[must_use]
    pub const fn durations(&self, kind: Kind) -> Option<&Durations> {
        match kind {
            Kind::ClientSecret => Some(&self.durations.client_secret),
            Kind::Certificate => Some(&self.durations.certificate),
            Kind::AccessToken => Some(&self.durations.access_token),
            Kind::PublicKey | Kind::ServiceAccount => None,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Self {
            enabled: true,
            name: "default".to_owned(),
            scopes: Vec::new(),
            apis: Vec::new(),
            served_audiences: texts(&OWN_SERVICE_URLS),
            customers: Vec::new(),
            customer_groups: Vec::new(),
            redirect_uris: RedirectUriRules {
                hosts: texts(&["*"]),
                schemes: Some(vec![UriScheme::Https, UriScheme::Http]),
            },
            client_ids: texts(&[OWN_CLIENT_IDS]),
            dns_names: texts(&OWN_SERVICE_NAMES),
            grant_types: GrantType::ALL.to_vec(),
            token_endpoint_auth_methods: TokenEndpointAuthMethod::ALL.to_vec(),
            credential_kinds: Kind::ALL.to_vec(),
            private_keys: PrivateKeyAlgorithm::ALL
                .map(|algorithm| PrivateKeyRule { algorithm, min_size: None })
                .to_vec(),
            deletion_policies: vec![DeletionPolicy::Delete],
            durations: PolicyDurations::default(),
            limits: PolicyLimits {
                registrations_per_namespace: Some(DEFAULT_REGISTRATIONS_PER_NAMESPACE),
                credentials: None,
            },
        }
    }
}

impl Default for PolicyDurations {
    fn default() -> Self {
        Self {
            client_secret: Durations::of("90d", "60s", "1096d"),
            certificate: Durations::of("90d", "60s", "1096d"),
            access_token: Durations::of("1h", "60s", "24h"),
            public_key: None,
        }
    }
}

impl Durations {
    #[expect(clippy::expect_used, reason = "called with literals alone, each read by a test")]
    fn of(default: &str, min: &str, max: &str) -> Self {
        let [default, min, max] = [default, min, max].map(|text| text.parse().expect("a duration literal"));
        Self { default, min, max }
    }
}

fn default_name() -> String {
    "default".to_owned()
}

#[expect(clippy::expect_used, reason = "a literal, read by a test")]
pub(crate) fn default_token_lifetime() -> LongDuration {
    "1h".parse().expect("a duration literal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_alone_is_a_configuration() {
        let config = Config::parse("authorizationServer: {issuer: \"https://auth.example:8443/tenant\"}").unwrap();
        assert_eq!(config.server.token_endpoint(), "https://auth.example:8443/tenant/token");
        assert_eq!((config.server.host(), config.server.path()), ("auth.example", "/tenant"));
        assert_eq!(config.policy, Policy::default());
        assert_eq!(config.server.default_audience(), config.server.issuer);
    }

    #[test]
    fn each_algorithm_can_be_configured_and_es256_is_the_default() {
        let parse =
            |yaml: &str| Config::parse(&format!("authorizationServer: {{issuer: \"https://a.example\"{yaml}}}"));
        assert_eq!(parse("").unwrap().server.signing_algorithm, Algorithm::ES256);
        for algorithm in Algorithm::ALL {
            let config = parse(&format!(", signingAlgorithm: {algorithm}")).unwrap();
            assert_eq!(config.server.signing_algorithm, algorithm);
        }
        for other in ["none", "HS256", "PS256", "ES384", "es256", "\"\"", "null", "1"] {
            let error = parse(&format!(", signingAlgorithm: {other}")).unwrap_err().to_string();
            assert!(error.contains("signingAlgorithm"), "{error}");
            assert!(["ES256", "EdDSA", "RS256"].iter().all(|name| error.contains(name)), "{other}: {error}");
        }
    }

    #[test]
    fn servers_differ_in_host_or_path_and_not_in_port_or_case() {
        let place = |issuer: &str| {
            let server = Config::parse(&format!("authorizationServer: {{issuer: \"{issuer}\"}}")).unwrap().server;
            (server.place().0, server.place().1.to_owned())
        };
        assert_eq!(place("https://A.example:8443/x"), place("https://a.example/x"));
        assert_ne!(place("https://a.example/x"), place("https://a.example/X"));
        assert_ne!(place("https://a.example"), place("https://b.example"));
    }

    #[test]
    fn an_ipv6_host_loses_its_brackets() {
        let config = Config::parse("authorizationServer: {issuer: \"https://[::1]:8443\"}").unwrap();
        assert_eq!((config.server.host(), config.server.path()), ("::1", ""));
    }

    #[test]
    fn a_bad_field_is_named() {
        for (yaml, field) in [
            ("authorizationServer: {issuer: \"http://a.example\"}", "authorizationServer.issuer"),
            ("authorizationServer: {issuer: \"https://a.example/\"}", "authorizationServer.issuer"),
            ("authorizationServer: {issuer: \"https://a.example?x\"}", "authorizationServer.issuer"),
            ("authorizationServer: {issuer: \"https:///a\"}", "authorizationServer.issuer"),
            ("authorizationServer: {issuer: \"https://a.example//a\"}", "authorizationServer.issuer"),
            ("authorizationServer: {issuer: \"https://a.example/.well-known/a\"}", "authorizationServer.issuer"),
            (
                "authorizationServer: {issuer: \"https://a.example\", accessTokenLifetime: 25h}",
                "authorizationServer.accessTokenLifetime",
            ),
            (
                "authorizationServer: {issuer: \"https://a.example\", accessTokenLifetime: 0s}",
                "authorizationServer.accessTokenLifetime",
            ),
            ("authorizationServer: {issuer: \"https://a.example\", typo: 1}", "typo"),
            (
                "authorizationServer: {issuer: \"https://a.example\", forwardedCertificates: {header: client-cert, proxies: []}}",
                "authorizationServer.forwardedCertificates.proxies",
            ),
            (
                "authorizationServer: {issuer: \"https://a.example\", forwardedCertificates: {header: client-cert, proxies: [a]}}",
                "Address range \"a\" has no IP address: write one such as",
            ),
            (
                "authorizationServer: {issuer: \"https://a.example\", forwardedCertificates: {header: other, proxies: [10.0.0.0/8]}}",
                "other",
            ),
            (
                "authorizationServer: {issuer: \"https://a.example\"}
policy: {durations: {certificate: {default: 1d, min: 2d, max: 3d}}}",
                "policy.durations.certificate",
            ),
        ] {
            let error = Config::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(field), "{yaml}: {error}");
            assert!(error.starts_with("The configuration "), "{error}");
        }
    }

    #[test]
    fn the_old_name_of_the_server_is_refused_with_the_new_one() {
        let error = Config::parse("server: {issuer: \"https://a.example\"}").unwrap_err().to_string();
        assert!(error.contains("unknown field `server`, expected one of authorizationServer"), "{error}");
    }
}
